//! Transcripts of handshakes: `?` is a question to the driver, `<` a reply, `!` the end.

mod contexts;
mod options;
mod streams;
mod tls;

use super::*;
use crate::nbd::agreed::Context;
use crate::nbd::wire::{
    ClientFlags, ContextQuery, InfoQuery, InfoType, OPTION_REPLY_HEADER, OptionCode, OptionHeader,
    OptionReplyHeader, ReplyType, TransmissionFlags,
};

const DISK: ExportInfo = ExportInfo {
    size: 1 << 20,
    read_only: false,
    multi_conn: true,
};

fn hello(no_zeroes: bool) -> Vec<u8> {
    let flags = ClientFlags {
        fixed_newstyle: true,
        no_zeroes,
    };
    flags.to_bytes().to_vec()
}

fn option(code: OptionCode, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    let mut bytes = OptionHeader { code, length }.to_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes
}

fn query(name: &str, infos: &[InfoType]) -> Vec<u8> {
    let name = name.to_owned();
    let infos = infos.to_vec();
    InfoQuery { name, infos }.to_bytes()
}

/// A driver with one export, `disk`, and all sorts of trouble behind other names.
struct Driver {
    handshake: Handshake,
    received: Vec<u8>,
    transcript: Vec<String>,
}

fn open(name: &str) -> Result<Described, Refusal> {
    match name {
        "disk" | "twin" => Ok(DISK.into()),
        "told" => Ok(Described {
            info: DISK,
            name: Some("told+1".to_owned()),
            description: Some("the same as ever".to_owned()),
        }),
        "locked" => Err(Refusal::Policy("not for you".to_owned())),
        "secret" => Err(Refusal::TlsRequired("only over TLS".to_owned())),
        "broken" => Err(Refusal::Failed("the disk failed".to_owned())),
        "leaving" => Err(Refusal::Shutdown("bye".to_owned())),
        other => Err(Refusal::Unknown(format!("no export '{other}'"))),
    }
}

impl Driver {
    fn new() -> Self {
        Self {
            handshake: Handshake::new(),
            received: Vec::new(),
            transcript: Vec::new(),
        }
    }

    fn receive(&mut self, piece: &[u8]) {
        self.received.extend_from_slice(piece);
        loop {
            let used = self.handshake.handle_bytes(&self.received);
            self.received.drain(..used);
            self.transmit();
            let Some(event) = self.handshake.poll_event() else {
                break;
            };
            self.act(event);
            self.transmit();
        }
    }

    fn transmit(&mut self) {
        while let Some(bytes) = self.handshake.poll_transmit() {
            self.transcript.extend(read_replies(&bytes));
        }
    }

    fn act(&mut self, event: Event) {
        let line = match &event {
            Event::StartTls => "! TLS".to_owned(),
            Event::List | Event::Describe { .. } | Event::Open { .. } => format!("? {event:?}"),
            Event::Finished(info, agreed) => {
                format!("! transmission of {} bytes{}", info.size, shown(*agreed))
            }
            Event::Closed(End::Violation(violation)) => format!("! {violation}"),
            Event::Closed(end) => format!("! {end:?}"),
        };
        self.transcript.push(line);
        match event {
            Event::List => self.handshake.handle_listing(&Ok(vec![Listing {
                name: "disk".to_owned(),
                description: "the disk".to_owned(),
            }])),
            Event::Describe { name } => self.handshake.handle_described(open(&name)),
            Event::Open { name } => self.handshake.handle_opened(open(&name)),
            Event::Finished(..) | Event::Closed(_) | Event::StartTls => {}
        }
    }
}

/// What was agreed on beyond the plain protocol.
fn shown(agreed: Agreed) -> String {
    if agreed == Agreed::default() {
        return String::new();
    }
    let contexts: Vec<_> = agreed.contexts.iter().map(Context::name).collect();
    let shown = format!(", {:?} {}", agreed.headers, contexts.join("+"));
    shown.trim_end().to_owned()
}

/// The replies in `bytes`, a line each.
fn read_replies(mut bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    if bytes.starts_with(&GREETING) {
        bytes = &bytes[GREETING.len()..];
    }
    while !bytes.is_empty() {
        let header = bytes.first_chunk().and_then(OptionReplyHeader::from_bytes);
        let Some(header) = header else {
            lines.push(read_export_name_answer(bytes));
            break;
        };
        let length = usize::try_from(header.length).unwrap();
        let (data, rest) = bytes[OPTION_REPLY_HEADER..].split_at(length);
        lines.push(read_reply(&header, data));
        bytes = rest;
    }
    lines
}

fn read_reply(header: &OptionReplyHeader, data: &[u8]) -> String {
    let what = match header.kind {
        ReplyType::ACK => String::new(),
        ReplyType::SERVER => format!("{:?}", String::from_utf8_lossy(&data[4..])),
        ReplyType::INFO => read_info(data),
        ReplyType::META_CONTEXT => {
            let (id, name) = data.split_first_chunk().unwrap();
            let id = u32::from_be_bytes(*id);
            format!("{id} {}", std::str::from_utf8(name).unwrap())
        }
        _ => format!("{:?}", std::str::from_utf8(data).unwrap()),
    };
    let line = format!("< {:?} {:?} {what}", header.option, header.kind);
    line.trim_end().to_owned()
}

fn read_info(data: &[u8]) -> String {
    let (kind, rest) = data.split_first_chunk::<2>().unwrap();
    match InfoType::from_wire(u16::from_be_bytes(*kind)) {
        InfoType::EXPORT => read_export(rest),
        InfoType::NAME => format!("NAME {:?}", std::str::from_utf8(rest).unwrap()),
        InfoType::DESCRIPTION => format!("WORDS {:?}", std::str::from_utf8(rest).unwrap()),
        InfoType::BLOCK_SIZE => {
            let sizes: Vec<u32> = rest
                .as_chunks::<4>()
                .0
                .iter()
                .map(|raw| u32::from_be_bytes(*raw))
                .collect();
            format!("BLOCK_SIZE {sizes:?}")
        }
        other => format!("{other:?}"),
    }
}

fn read_export(data: &[u8]) -> String {
    let (size, flags) = data.split_at(8);
    let size = u64::from_be_bytes(size.try_into().unwrap());
    let flags = u16::from_be_bytes(flags.try_into().unwrap());
    let plain = DISK.transmission_flags(Agreed::default()).to_wire();
    assert_eq!(flags & plain, plain);
    let more = TransmissionFlags::from_wire(flags & !plain);
    format!("EXPORT {size} {more:?}").trim_end().to_owned()
}

fn read_export_name_answer(bytes: &[u8]) -> String {
    let (export, zeros) = bytes.split_at(10);
    assert!(zeros.iter().all(|byte| *byte == 0));
    format!("< {} and {} zeros", read_export(export), zeros.len())
}

/// What came of a stream, and what of it belongs to the session.
fn outcome<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, Vec<u8>) {
    let mut driver = Driver::new();
    for piece in pieces {
        driver.receive(piece);
    }
    (driver.transcript, driver.received)
}

/// The transcript of a client's stream, whole and byte by byte, is `expected`.
fn check(stream: &[Vec<u8>], expected: &str) {
    let stream = stream.concat();
    let expected: Vec<&str> = expected.lines().map(str::trim).collect();
    let expected = expected.join("\n");
    let (whole, _) = outcome([&stream[..]]);
    assert_eq!(whole.join("\n"), expected.trim());
    let (bytewise, _) = outcome(stream.chunks(1));
    assert_eq!(bytewise.join("\n"), expected.trim());
}

/// As [`check`], of options that follow a proper start.
fn check_options(options: &[Vec<u8>], expected: &str) {
    check(&[vec![hello(true)], options.to_vec()].concat(), expected);
}
