//! The stream of the transmission phase, whole and cut at any byte.

use super::*;
use crate::nbd::cut_stream::cut;
use crate::nbd::wire::{CommandFlags, Errno};
use proptest::prelude::*;

const INFO: ExportInfo = ExportInfo {
    size: 1 << 20,
    read_only: false,
    multi_conn: true,
};

const READ_ONLY: ExportInfo = ExportInfo {
    read_only: true,
    ..INFO
};

const SIMPLE: Agreed = Agreed {
    headers: Headers::Simple,
    contexts: Contexts::NONE,
};

fn extended() -> Agreed {
    Agreed {
        headers: Headers::Extended,
        contexts: Contexts::all(),
    }
}

fn request(kind: RequestType, mark: u64, offset: u64, length: u32) -> Vec<u8> {
    let header = RequestHeader {
        flags: CommandFlags::NONE,
        kind,
        mark,
        offset,
        length: length.into(),
    };
    header.to_bytes().unwrap().to_vec()
}

/// An extended request; its length is that of the payload where there is one.
fn wide(kind: RequestType, mark: u64, offset: u64, length: u64, payload: Option<&[u8]>) -> Vec<u8> {
    let header = RequestHeader {
        flags: payload.map_or(CommandFlags::NONE, |_| CommandFlags::PAYLOAD_LEN),
        kind,
        mark,
        offset,
        length: payload.map_or(length, |payload| payload.len() as u64),
    };
    [&header.to_extended(), payload.unwrap_or_default()].concat()
}

fn write(cookie: u64, offset: u64, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let mut bytes = request(RequestType::WRITE, cookie, offset, length);
    bytes.extend_from_slice(payload);
    bytes
}

/// A driver that keeps what was not used, as the real one does.
struct Driver {
    session: Session,
    received: Vec<u8>,
    payload: Vec<u8>,
    transcript: Vec<String>,
}

impl Driver {
    fn new(info: ExportInfo, agreed: Agreed) -> Self {
        Self {
            session: Session::new(info, agreed),
            received: Vec::new(),
            payload: Vec::new(),
            transcript: Vec::new(),
        }
    }

    fn receive(&mut self, piece: &[u8]) {
        self.received.extend_from_slice(piece);
        while self.take_payload() || self.step() {}
    }

    /// Whether bytes were taken, or the payload ended.
    fn take_payload(&mut self) -> bool {
        let left = usize::try_from(self.session.payload_left()).unwrap();
        let taken = left.min(self.received.len());
        if taken == 0 {
            return false;
        }
        self.payload.extend(self.received.drain(..taken));
        self.session.payload_taken(taken as u64);
        if self.session.payload_left() == 0 {
            let payload = std::mem::take(&mut self.payload);
            self.transcript.push(format!("  payload {payload:?}"));
        }
        true
    }

    fn step(&mut self) -> bool {
        if self.session.payload_left() > 0 {
            return false;
        }
        match self.session.handle_bytes(&self.received) {
            Ok((used, event)) => {
                self.received.drain(..used);
                self.transcript.extend(event.map(describe));
                used > 0
            }
            Err(violation) => {
                self.transcript.push(format!("closed: {violation}"));
                self.received.clear();
                false
            }
        }
    }
}

fn describe(event: Event) -> String {
    match event {
        Event::Command(cookie, command) => format!("{} {command:?}", cookie.mark),
        Event::Reject(cookie, rejection) => {
            format!("{} rejected: {:?}", cookie.mark, rejection.errno)
        }
        Event::Disconnect => "disconnect".to_owned(),
    }
}

fn transcript<'a>(info: ExportInfo, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    agreed_transcript(info, SIMPLE, pieces)
}

fn agreed_transcript<'a>(
    info: ExportInfo,
    agreed: Agreed,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<String> {
    let mut driver = Driver::new(info, agreed);
    for piece in pieces {
        driver.receive(piece);
    }
    driver.transcript
}

/// The transcript of a client's stream, whole and byte by byte, is `expected`.
fn check(info: ExportInfo, stream: &[Vec<u8>], expected: &[&str]) {
    let stream = stream.concat();
    assert_eq!(transcript(info, [&stream[..]]), expected);
    assert_eq!(transcript(info, stream.chunks(1)), expected);
}

/// As [`check`], with extended headers and all contexts.
fn check_extended(stream: &[Vec<u8>], expected: &[&str]) {
    let stream = stream.concat();
    let whole = agreed_transcript(INFO, extended(), [&stream[..]]);
    assert_eq!(whole, expected);
    let bytewise = agreed_transcript(INFO, extended(), stream.chunks(1));
    assert_eq!(bytewise, expected);
}

#[test]
fn requests_are_cut_from_the_stream_one_by_one() {
    check(
        INFO,
        &[
            request(RequestType::READ, 1, 0, 512),
            write(2, 512, b"abc"),
            request(RequestType::FLUSH, 3, 0, 0),
        ],
        &[
            "1 Read { range: ByteRange { start: 0, end: 512 }, in_one: false }",
            "2 Write { range: ByteRange { start: 512, end: 515 }, fua: false }",
            "  payload [97, 98, 99]",
            "3 Flush",
        ],
    );
}

#[test]
fn the_payload_of_a_rejected_write_is_skipped() {
    check(
        READ_ONLY,
        &[
            write(1, 0, &[7; 1000]),
            request(RequestType::FLUSH, 2, 0, 0),
        ],
        &["1 rejected: EPERM", "2 Flush"],
    );
}

#[test]
fn a_write_past_the_end_is_rejected_and_the_session_lives_on() {
    check(
        INFO,
        &[
            write(1, INFO.size - 1, b"ab"),
            request(RequestType::READ, 2, 0, 1),
        ],
        &[
            "1 rejected: ENOSPC",
            "2 Read { range: ByteRange { start: 0, end: 1 }, in_one: false }",
        ],
    );
}

#[test]
fn only_a_write_has_a_payload_even_when_the_command_is_unknown() {
    check(
        INFO,
        &[
            request(RequestType::from_wire(99), 1, 0, 4096),
            request(RequestType::FLUSH, 2, 0, 0),
        ],
        &["1 rejected: EINVAL", "2 Flush"],
    );
}

#[test]
fn writes_of_no_bytes_are_followed_by_the_next_request() {
    check(
        INFO,
        &[
            write(1, 0, b""),
            write(2, INFO.size + 1, b""),
            request(RequestType::FLUSH, 3, 0, 0),
        ],
        &[
            "1 Write { range: ByteRange { start: 0, end: 0 }, fua: false }",
            "2 rejected: ENOSPC",
            "3 Flush",
        ],
    );
}

#[test]
fn nothing_is_taken_after_a_disconnect() {
    check(
        INFO,
        &[
            request(RequestType::DISC, 1, 0, 0),
            request(RequestType::FLUSH, 2, 0, 0),
        ],
        &["disconnect"],
    );
}

#[test]
fn a_disconnect_is_heard_whatever_its_other_fields_say() {
    check(
        READ_ONLY,
        &[request(RequestType::DISC, 1, u64::MAX, u32::MAX)],
        &["disconnect"],
    );
}

#[test]
fn another_magic_number_closes_the_session() {
    check(
        INFO,
        &[request(RequestType::FLUSH, 1, 0, 0), vec![0; 28]],
        &[
            "1 Flush",
            "closed: a request does not start with the magic number of requests",
        ],
    );
}

#[test]
fn a_write_larger_than_the_maximum_closes_the_session() {
    check(
        INFO,
        &[request(RequestType::WRITE, 1, 0, NBD_PAYLOAD_MAX + 1)],
        &["closed: a request carries 33554433 bytes, more than the advertised maximum"],
    );
}

#[test]
fn a_write_is_rejected_only_after_its_whole_payload_came() {
    let mut session = Session::new(READ_ONLY, SIMPLE);
    let header = request(RequestType::WRITE, 1, 0, NBD_PAYLOAD_MAX);
    assert_eq!(session.handle_bytes(&header), Ok((28, None)));
    for _ in 1..512 {
        assert_eq!(session.handle_bytes(&[0; 1 << 16]), Ok((1 << 16, None)));
    }
    let rejected = |event| match event {
        Some(Event::Reject(cookie, rejection)) => Some((cookie.mark, rejection.errno)),
        _ => None,
    };
    let last = [vec![0; 1 << 16], request(RequestType::FLUSH, 2, 0, 0)].concat();
    let (used, event) = session.handle_bytes(&last).unwrap();
    assert_eq!((used, rejected(event)), (1 << 16, Some((1, Errno::EPERM))));
}

#[test]
fn a_part_of_a_header_is_not_used() {
    let mut session = Session::new(INFO, SIMPLE);
    let flush = request(RequestType::FLUSH, 2, 0, 0);
    assert_eq!(session.handle_bytes(&flush[..27]), Ok((0, None)));
}

#[test]
fn after_a_violation_nothing_is_taken() {
    let mut session = Session::new(INFO, SIMPLE);
    assert_eq!(session.handle_bytes(&[0; 28]), Err(Violation::RequestMagic));
    let flush = request(RequestType::FLUSH, 2, 0, 0);
    assert_eq!(session.handle_bytes(&flush), Ok((0, None)));
}

#[test]
fn payload_counts_down_as_it_is_taken() {
    let mut session = Session::new(INFO, SIMPLE);
    let header = request(RequestType::WRITE, 1, 0, 10);
    assert!(session.handle_bytes(&header).is_ok());
    assert_eq!(session.payload_left(), 10);
    session.payload_taken(7);
    assert_eq!(session.payload_left(), 3);
    session.payload_taken(3);
    assert_eq!(session.payload_left(), 0);
}

#[test]
fn extended_requests_say_themselves_whether_they_have_a_payload() {
    check_extended(
        &[
            wide(RequestType::READ, 1, 0, 512, None),
            wide(RequestType::WRITE, 2, 512, 0, Some(b"abc")),
            wide(RequestType::FLUSH, 4, 0, 0, None),
        ],
        &[
            "1 Read { range: ByteRange { start: 0, end: 512 }, in_one: false }",
            "2 Write { range: ByteRange { start: 512, end: 515 }, fua: false }",
            "  payload [97, 98, 99]",
            "4 Flush",
        ],
    );
}

#[test]
fn the_payload_of_a_write_is_read_as_one_even_where_it_is_not_said_to_be_there() {
    let mut unsaid = wide(RequestType::WRITE, 1, 512, 3, None);
    unsaid.extend_from_slice(b"abc");
    check_extended(
        &[unsaid, wide(RequestType::FLUSH, 2, 0, 0, None)],
        &[
            "1 Write { range: ByteRange { start: 512, end: 515 }, fua: false }",
            "  payload [97, 98, 99]",
            "2 Flush",
        ],
    );
}

#[test]
fn a_payload_where_none_belongs_is_skipped_and_the_session_lives_on() {
    check_extended(
        &[
            wide(RequestType::READ, 1, 0, 0, Some(&[7; 1000])),
            wide(RequestType::from_wire(99), 2, 0, 0, Some(&[7; 3])),
            wide(RequestType::BLOCK_STATUS, 3, 0, 0, Some(&[7; 100])),
            wide(RequestType::FLUSH, 4, 0, 0, None),
        ],
        &[
            "1 rejected: EINVAL",
            "2 rejected: EINVAL",
            "3 rejected: EINVAL",
            "4 Flush",
        ],
    );
}

#[test]
fn a_payload_larger_than_the_maximum_closes_the_session_whatever_the_command() {
    for kind in [
        RequestType::WRITE,
        RequestType::TRIM,
        RequestType::BLOCK_STATUS,
    ] {
        let header = RequestHeader {
            flags: CommandFlags::PAYLOAD_LEN,
            kind,
            mark: 1,
            offset: 0,
            length: u64::from(NBD_PAYLOAD_MAX) + 1,
        };
        check_extended(
            &[header.to_extended().to_vec()],
            &["closed: a request carries 33554433 bytes, more than the advertised maximum"],
        );
    }
}

#[test]
fn the_payload_of_a_block_status_chooses_contexts() {
    let payload = [&16_u64.to_be_bytes()[..], &2_u32.to_be_bytes()].concat();
    let mut session = Session::new(INFO, extended());
    let bytes = wide(RequestType::BLOCK_STATUS, 1, 512, 0, Some(&payload));
    let (used, event) = session.handle_bytes(&bytes).unwrap();
    let command = Command::BlockStatus {
        range: ByteRange::between(512, 528),
        contexts: [crate::nbd::agreed::Context::Overlay].into_iter().collect(),
        only_one: false,
    };
    let cookie = Cookie {
        mark: 1,
        offset: 512,
    };
    assert_eq!(used, bytes.len());
    assert_eq!(event, Some(Event::Command(cookie, command)));
}

#[test]
fn a_compact_header_where_extended_ones_were_agreed_on_closes_the_session() {
    check_extended(
        &[request(RequestType::FLUSH, 1, 0, 0), vec![0; 4]],
        &["closed: a request does not start with the magic number of requests"],
    );
}

fn any_request() -> impl Strategy<Value = Vec<u8>> {
    let simple = (0..10_u16, any::<u64>(), 0..(2_u64 << 20), 0..9000_u32);
    let simple = simple.prop_filter_map("no write", |(kind, cookie, offset, length)| {
        let kind = RequestType::from_wire(kind);
        let plain = kind != RequestType::WRITE && kind != RequestType::DISC;
        plain.then(|| request(kind, cookie, offset, length))
    });
    let payload = prop::collection::vec(any::<u8>(), 0..200);
    let write = (any::<u64>(), 0..(2_u64 << 20), payload)
        .prop_map(|(cookie, offset, payload)| write(cookie, offset, &payload));
    prop_oneof![simple, write]
}

fn any_extended_request() -> impl Strategy<Value = Vec<u8>> {
    let status = (0..40_u64, prop::collection::vec(0..4_u32, 0..4)).prop_map(|(length, ids)| {
        let ids = ids.into_iter().flat_map(u32::to_be_bytes);
        length.to_be_bytes().into_iter().chain(ids).collect()
    });
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    let payload = prop::option::of(prop_oneof![status, bytes]);
    let fields = (0..10_u16, any::<u64>(), 0..(2_u64 << 20), any::<u64>());
    (fields, payload).prop_filter_map(
        "no disconnect",
        |((kind, mark, offset, length), payload)| {
            let kind = RequestType::from_wire(kind);
            let stays =
                kind != RequestType::DISC && (kind != RequestType::WRITE || payload.is_some());
            stays.then(|| wide(kind, mark, offset, length, payload.as_deref()))
        },
    )
}

proptest! {
    #[test]
    fn however_an_extended_stream_is_cut_each_request_gets_the_same_event(
        requests in prop::collection::vec(any_extended_request(), 0..12),
        cuts in prop::collection::vec(1..100_usize, 1..20),
        read_only: bool,
    ) {
        let stream = requests.concat();
        let info = ExportInfo { read_only, ..INFO };
        let whole = agreed_transcript(info, extended(), [&stream[..]]);
        let events = whole.iter().filter(|line| !line.starts_with(' ')).count();
        prop_assert_eq!(events, requests.len());
        prop_assert_eq!(agreed_transcript(info, extended(), cut(&stream, &cuts)), whole);
    }

    #[test]
    fn however_the_stream_is_cut_the_events_are_the_same(
        requests in prop::collection::vec(any_request(), 0..12),
        cuts in prop::collection::vec(1..100_usize, 1..20),
        read_only: bool,
    ) {
        let stream = requests.concat();
        let info = ExportInfo { read_only, ..INFO };
        let whole = transcript(info, [&stream[..]]);
        prop_assert_eq!(transcript(info, cut(&stream, &cuts)), whole);
    }

    #[test]
    fn every_request_gets_exactly_one_event(
        requests in prop::collection::vec(any_request(), 0..12),
    ) {
        let stream = requests.concat();
        let transcript = transcript(INFO, [&stream[..]]);
        let events = transcript.iter().filter(|line| !line.starts_with(' ')).count();
        prop_assert_eq!(events, requests.len());
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_are_never_overrun(
        pieces in prop::collection::vec(any::<Vec<u8>>(), 0..20),
        start_well: bool,
        is_extended: bool,
    ) {
        let agreed = if is_extended { extended() } else { SIMPLE };
        let mut session = Session::new(INFO, agreed);
        let magic = match (start_well, is_extended) {
            (false, _) => &[][..],
            (true, false) => &[0x25, 0x60, 0x95, 0x13],
            (true, true) => &[0x21, 0xe4, 0x1c, 0x71],
        };
        for piece in pieces {
            let input = [magic, &piece].concat();
            session.payload_taken(session.payload_left());
            if let Ok((used, _)) = session.handle_bytes(&input) {
                prop_assert!(used <= input.len());
            }
        }
    }
}
