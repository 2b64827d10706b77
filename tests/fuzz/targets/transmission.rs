//! Bytes of the transmission phase with every kind of header, however they are cut: the same
//! commands come of them, and all of them are allowed.

use cowherd::limits::NBD_PAYLOAD_MAX;
use cowherd::nbd::ExportInfo;
use cowherd::nbd::agreed::{Agreed, Contexts, Headers};
use cowherd::nbd::session::{Command, Event, Session, Violation};

use super::{Input, pieces};

/// What came of a stream.
#[derive(Default)]
struct Run {
    events: Vec<Event>,
    violation: Option<Violation>,
    payload: u64,
}

fn feed(session: &mut Session, received: &mut Vec<u8>, run: &mut Run) {
    while run.violation.is_none() && run.events.last() != Some(&Event::Disconnect) {
        let left = session.payload_left();
        if left > 0 {
            let taken = received
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            received.drain(..taken);
            session.payload_taken(taken as u64);
            run.payload += taken as u64;
            if session.payload_left() > 0 {
                return;
            }
        }
        match session.handle_bytes(received) {
            Err(violation) => run.violation = Some(violation),
            Ok((used, event)) => {
                assert!(used <= received.len());
                received.drain(..used);
                match event {
                    Some(event) => run.events.push(event),
                    None if used == 0 => return,
                    None => {}
                }
            }
        }
    }
}

/// See the module.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let seed = input.byte();
    let info = ExportInfo {
        size: u64::from(choice >> 4) * 1_234_567,
        read_only: choice & 4 != 0,
        multi_conn: true,
    };
    let agreed = Agreed {
        headers: [Headers::Simple, Headers::Structured, Headers::Extended][usize::from(choice % 3)],
        contexts: match choice & 8 {
            0 => Contexts::NONE,
            _ => Contexts::all(),
        },
    };
    let mut whole = Run::default();
    let mut session = Session::new(info, agreed);
    feed(&mut session, &mut input.0.to_vec(), &mut whole);
    let mut cut = Run::default();
    let (mut session, mut received) = (Session::new(info, agreed), Vec::new());
    let mut rest = input.0;
    for length in pieces(seed) {
        let (piece, after) = rest.split_at(length.min(rest.len()));
        received.extend_from_slice(piece);
        feed(&mut session, &mut received, &mut cut);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    assert_eq!(whole.events, cut.events);
    assert_eq!(whole.violation, cut.violation);
    assert_eq!(whole.payload, cut.payload);
    for event in &whole.events {
        if let Event::Command(_, command) = event {
            check(info, *command);
        }
    }
}

fn check(info: ExportInfo, command: Command) {
    let (range, changes, moved) = match command {
        Command::Read { range, .. } => (range, false, range.len()),
        Command::Write { range, .. } => (range, true, range.len()),
        Command::Trim { range, .. } | Command::WriteZeroes { range, .. } => (range, true, 0),
        Command::Cache { range } | Command::BlockStatus { range, .. } => (range, false, 0),
        Command::Flush => return,
    };
    assert!(range.end() <= info.size, "{command:?} leaves the disk");
    assert!(!(changes && info.read_only), "{command:?} changes it");
    assert!(
        moved <= u64::from(NBD_PAYLOAD_MAX),
        "{command:?} is too large"
    );
}
