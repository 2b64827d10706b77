//! The page about the protocol names all that the protocol document does, with the numbers of the
//! code, and says "yes" to what the code does.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cowherd::limits;
use cowherd::nbd::ExportInfo;
use cowherd::nbd::agreed::{Agreed, Contexts, Headers};
use cowherd::nbd::handshake::{Event, Handshake, TlsMode};
use cowherd::nbd::session::{self, Session};
use cowherd::nbd::wire::{
    AllocationFlags, ChunkFlags, ChunkType, ClientFlags, CommandFlags, Errno, InfoType,
    OPTION_REPLY_HEADER, OptionCode, OptionHeader, OptionReplyHeader, ReplyType, RequestHeader,
    RequestType, TransmissionFlags,
};

/// What the document names beyond what the code has names for.
const ONLY_IN_THE_DOCUMENT: [(&str, u64); 6] = [
    ("NBD_FLAG_FIXED_NEWSTYLE", 1),
    ("NBD_FLAG_NO_ZEROES", 2),
    ("NBD_FLAG_C_FIXED_NEWSTYLE", 1),
    ("NBD_FLAG_C_NO_ZEROES", 2),
    ("NBD_OPT_PEEK_EXPORT", 4),
    ("NBD_ENOMEM", 12),
];

/// One line of a table of the page.
#[derive(Debug)]
struct Row {
    number: u64,
    yes: bool,
    reason: String,
}

fn page() -> BTreeMap<String, Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/cowherd-protocol.7");
    let text = fs::read_to_string(path).unwrap();
    let mut rows = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some((name, number, yes)) = cells(line) else {
            continue;
        };
        let reason: Vec<_> = lines.by_ref().take_while(|line| *line != "T}").collect();
        let row = Row {
            number: number_of(number),
            yes,
            reason: reason.join(" "),
        };
        assert!(rows.insert(name.to_owned(), row).is_none(), "{name} twice");
    }
    rows
}

/// Name, number, and whether the answer is yes.
fn cells(line: &str) -> Option<(&str, &str, bool)> {
    let cells: Vec<_> = line.split('\t').collect();
    let [name, number, answer, "T{"] = cells[..] else {
        return None;
    };
    assert!(["yes", "no"].contains(&answer), "{line}");
    Some((name, number, answer == "yes"))
}

/// A number as the page writes it: `7`, `bit 3`, `2^31+1`.
fn number_of(text: &str) -> u64 {
    if let Some(bit) = text.strip_prefix("bit ") {
        return 1 << bit.parse::<u32>().unwrap();
    }
    match text.split_once('+') {
        Some((power, rest)) => {
            let power: u32 = power.strip_prefix("2^").unwrap().parse().unwrap();
            (1 << power) + rest.parse::<u64>().unwrap()
        }
        None => text.parse().unwrap(),
    }
}

/// All names of the code, as the document writes them.
fn code() -> BTreeMap<String, u64> {
    macro_rules! named {
        ($($prefix:literal $of:ident),+) => {
            [$($of::NAMED.iter().map(|(name, value)| {
                (format!("NBD_{}{name}", $prefix), u64::from(value.to_wire()))
            }).collect::<Vec<_>>()),+]
        };
    }
    let all = named!(
        "OPT_" OptionCode,
        "REP_" ReplyType,
        "INFO_" InfoType,
        "FLAG_" TransmissionFlags,
        "CMD_" RequestType,
        "CMD_FLAG_" CommandFlags,
        "REPLY_FLAG_" ChunkFlags,
        "REPLY_TYPE_" ChunkType,
        "STATE_" AllocationFlags,
        "" Errno
    );
    all.concat().into_iter().collect()
}

#[test]
fn the_page_names_all_of_the_document_once_with_its_number_and_a_reason() {
    let page = page();
    let only = ONLY_IN_THE_DOCUMENT.map(|(name, number)| (name.to_owned(), number));
    let expected: BTreeMap<_, _> = code().into_iter().chain(only).collect();
    let numbers = page.iter().map(|(name, row)| (name.clone(), row.number));
    assert_eq!(numbers.collect::<BTreeMap<_, _>>(), expected);
    for (name, row) in &page {
        assert!(row.reason.ends_with('.'), "{name}: no reason");
    }
}

#[test]
fn the_page_states_the_limits_of_an_answer_to_block_status() {
    let told = &page()["NBD_CMD_BLOCK_STATUS"].reason;
    let gib = limits::STATUS_BYTES_MAX >> 30;
    let extents = limits::STATUS_EXTENTS_MAX;
    let bounds = format!("of {gib} GiB, or {extents} extents, at most");
    assert!(told.contains(&bounds), "{bounds:?} is not in {told:?}");
}

/// Whether a handshake knows the option.
fn is_known(code: OptionCode) -> bool {
    let mut handshake = Handshake::new().with_tls(TlsMode::Selective);
    let hello = ClientFlags {
        fixed_newstyle: true,
        no_zeroes: true,
    };
    assert_eq!(handshake.handle_bytes(&hello.to_bytes()), 4);
    let _ = handshake.poll_transmit();
    let header = OptionHeader { code, length: 0 };
    let _ = handshake.handle_bytes(&header.to_bytes());
    let reply = handshake.poll_transmit().unwrap_or_default();
    let header = reply
        .first_chunk::<OPTION_REPLY_HEADER>()
        .and_then(OptionReplyHeader::from_bytes);
    match header {
        Some(header) => header.kind != ReplyType::ERR_UNSUP,
        // A question to the driver: the option is known.
        None => matches!(
            handshake.poll_event(),
            Some(Event::List | Event::Open { .. })
        ),
    }
}

#[test]
fn yes_is_said_to_the_options_that_a_handshake_knows() {
    for (name, row) in page() {
        if name.starts_with("NBD_OPT_") {
            let code = OptionCode::from_wire(row.number.try_into().unwrap());
            assert_eq!(row.yes, is_known(code), "{name}");
        }
    }
}

const INFO: ExportInfo = ExportInfo {
    size: 4096,
    read_only: false,
    multi_conn: true,
};

fn everything() -> Agreed {
    Agreed {
        headers: Headers::Extended,
        contexts: Contexts::all(),
    }
}

/// Whether a session takes the command with these flags.
fn is_taken(kind: RequestType, flags: CommandFlags) -> bool {
    let header = RequestHeader {
        flags,
        kind,
        mark: 0,
        offset: 0,
        length: if kind == RequestType::FLUSH { 0 } else { 12 },
    };
    // The payload of a BLOCK_STATUS: one byte, and the first context.
    let payload = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    let stream = [&header.to_extended()[..], &payload].concat();
    let mut session = Session::new(INFO, everything());
    match session.handle_bytes(&stream).unwrap().1 {
        Some(session::Event::Command(..) | session::Event::Disconnect) => true,
        Some(session::Event::Reject(..)) | None => false,
    }
}

fn kinds() -> impl Iterator<Item = RequestType> {
    RequestType::NAMED.iter().map(|(_, kind)| *kind)
}

#[test]
fn yes_is_said_to_the_commands_and_flags_that_a_session_takes() {
    for (name, row) in page() {
        let number: u16 = row.number.try_into().unwrap_or_default();
        if name.starts_with("NBD_CMD_FLAG_") {
            let flag = CommandFlags::from_wire(number);
            let taken = kinds()
                .filter(|kind| *kind != RequestType::DISC)
                .any(|kind| is_taken(kind, flag));
            assert_eq!(row.yes, taken, "{name}");
        } else if name.starts_with("NBD_CMD_") {
            let taken = is_taken(RequestType::from_wire(number), CommandFlags::NONE);
            assert_eq!(row.yes, taken, "{name}");
        }
    }
}

#[test]
fn yes_is_said_to_the_transmission_flags_that_are_ever_offered() {
    let page = page();
    let offers = [false, true].map(|read_only| {
        let info = ExportInfo { read_only, ..INFO };
        info.transmission_flags(everything())
    });
    for (name, flag) in TransmissionFlags::NAMED {
        let row = &page[&format!("NBD_FLAG_{name}")];
        let offered = offers.iter().any(|flags| flags.contains(*flag));
        assert_eq!(row.yes, offered, "{name}");
    }
}
