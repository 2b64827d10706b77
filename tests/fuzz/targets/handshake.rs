//! Bytes of a handshake, however they are cut: the same replies and events come of them.

use cowherd::nbd::handshake::{Event, Handshake, Listing, TlsMode};
use cowherd::nbd::{Described, ExportInfo, Refusal};

use super::{Input, pieces};

const INFO: ExportInfo = ExportInfo {
    size: 1 << 20,
    read_only: false,
    multi_conn: true,
};

/// One handshake and all that came of it.
struct Run {
    handshake: Handshake,
    received: Vec<u8>,
    sent: Vec<u8>,
    events: Vec<Event>,
}

impl Run {
    fn new(mode: TlsMode) -> Self {
        Self {
            handshake: Handshake::new().with_tls(mode),
            received: Vec::new(),
            sent: Vec::new(),
            events: Vec::new(),
        }
    }

    fn receive(&mut self, piece: &[u8]) {
        self.received.extend_from_slice(piece);
        loop {
            let taken = self.handshake.handle_bytes(&self.received);
            assert!(taken <= self.received.len());
            self.received.drain(..taken);
            self.transmit();
            let Some(event) = self.handshake.poll_event() else {
                return;
            };
            self.events.push(event.clone());
            self.answer(event);
            self.transmit();
        }
    }

    fn transmit(&mut self) {
        while let Some(bytes) = self.handshake.poll_transmit() {
            self.sent.extend_from_slice(&bytes);
        }
    }

    fn answer(&mut self, event: Event) {
        match event {
            Event::List => {
                let listing = |name: &str| Listing {
                    name: name.to_owned(),
                    description: String::new(),
                };
                let listing = vec![listing("disk"), listing("")];
                self.handshake.handle_listing(&Ok(listing));
            }
            Event::Describe { name } => self.handshake.handle_described(find(&name)),
            Event::Open { name } => self.handshake.handle_opened(find(&name)),
            Event::StartTls => self.handshake.handle_tls_started(),
            Event::Finished(..) | Event::Closed(_) => {}
        }
    }

    fn is_over(&self) -> bool {
        matches!(
            self.events.last(),
            Some(Event::Finished(..) | Event::Closed(_))
        )
    }
}

fn find(name: &str) -> Result<Described, Refusal> {
    assert!(name.len() <= cowherd::limits::NBD_STRING_MAX && !name.contains('\0'));
    match name {
        "" => Ok(INFO.into()),
        "disk" => Ok(Described {
            info: INFO,
            name: Some("disk+1".to_owned()),
            description: Some(String::new()),
        }),
        "tls" => Err(Refusal::TlsRequired("tls".to_owned())),
        _ => Err(Refusal::Unknown(format!("no {name}"))),
    }
}

/// See the module.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input(data);
    let mode = match input.byte() % 3 {
        0 => TlsMode::Off,
        1 => TlsMode::Selective,
        _ => TlsMode::Required,
    };
    let seed = input.byte();
    let mut whole = Run::new(mode);
    whole.receive(input.0);
    let mut cut = Run::new(mode);
    let mut rest = input.0;
    for length in pieces(seed) {
        let (piece, after) = rest.split_at(length.min(rest.len()));
        cut.receive(piece);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    for run in [&whole, &cut] {
        check(mode, run);
    }
    // What comes with STARTTLS matters, so there it matters how the stream is cut.
    let starts_tls = |run: &Run| run.events.contains(&Event::StartTls);
    if !starts_tls(&whole) && !starts_tls(&cut) {
        assert!(whole.sent == cut.sent, "other replies");
        assert_eq!(whole.events, cut.events);
        assert_eq!(whole.received, cut.received, "what is left");
    }
}

fn check(mode: TlsMode, run: &Run) {
    let replies = replies_in(&run.sent);
    let tls_required = (1_u32 << 31) + 5;
    let starts = run.events.iter().filter(|event| **event == Event::StartTls);
    let starts = starts.count();
    assert!(starts <= 1, "STARTTLS twice");
    if mode == TlsMode::Off {
        assert_eq!(starts, 0);
        assert!(!replies.contains(&tls_required), "NOTLS");
    }
    if mode == TlsMode::Required && starts == 0 {
        let closed_only = run
            .events
            .iter()
            .all(|event| matches!(event, Event::Closed(_)));
        assert!(closed_only, "{:?} without TLS", run.events);
    }
    if run.is_over() {
        let mut again = run.events.iter().rev().skip(1);
        assert!(!again.any(|event| matches!(event, Event::Closed(_) | Event::Finished(..))));
    }
}

/// The kinds of the replies, each of which must be whole.
fn replies_in(sent: &[u8]) -> Vec<u32> {
    let mut rest = &sent[18..];
    let mut kinds = Vec::new();
    while let Some(header) = rest.first_chunk::<20>() {
        if header[..8] != 0x0003_e889_0455_65a9_u64.to_be_bytes() {
            // The answer to EXPORT_NAME has no header.
            assert!(rest.len() == 10 || rest.len() == 134);
            return kinds;
        }
        kinds.push(u32::from_be_bytes(
            header[12..16].try_into().expect("4 bytes"),
        ));
        let length = u32::from_be_bytes(header[16..].try_into().expect("4 bytes"));
        rest = &rest[20 + length as usize..];
    }
    assert!(rest.is_empty() || rest.len() == 10, "a part of a reply");
    kinds
}
