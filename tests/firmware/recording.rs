//! Reading the recordings, apart from how the program itself reads captures.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use cowherd::dhcp::Moment;
use cowherd::dhcp::wire::{Message, Op};

use super::SERVER;

/// Where a recording is.
pub(crate) fn file(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/firmware");
    folder.join(name).with_extension("pcap")
}

/// One packet of a recording.
pub(crate) struct Packet {
    pub(crate) at: Moment,
    pub(crate) from: SocketAddrV4,
    pub(crate) to: SocketAddrV4,
    is_udp: bool,
    payload: Vec<u8>,
}

/// The packets of a recording: Ethernet, IPv4 without options, as tcpdump writes it here.
pub(crate) fn packets(name: &str) -> Vec<Packet> {
    let bytes = std::fs::read(file(name)).expect("a recording");
    let number = |at: usize| {
        let word = bytes[at..at + 4].try_into().expect("four bytes");
        #[allow(clippy::little_endian_bytes, reason = "the recordings are so")]
        u64::from(u32::from_le_bytes(word))
    };
    assert_eq!((number(0), number(20)), (0xa1b2_c3d4, 1), "{name}");
    let mut packets = Vec::new();
    let mut at = 24;
    while at < bytes.len() {
        let millis = number(at) * 1000 + number(at + 4) / 1000;
        let length = usize::try_from(number(at + 8)).expect("a length");
        packets.push(packet(Moment(millis), &bytes[at + 16..at + 16 + length]));
        at += 16 + length;
    }
    packets
}

fn packet(at: Moment, frame: &[u8]) -> Packet {
    assert_eq!(frame[12..15], [8, 0, 0x45], "IPv4 without options");
    let pair = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let address =
        |at: usize| Ipv4Addr::from([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    let end = 14 + usize::from(pair(16));
    let is_udp = frame[23] == 17;
    let head = if is_udp {
        8
    } else {
        usize::from(frame[46] >> 4) * 4
    };
    Packet {
        at,
        from: SocketAddrV4::new(address(26), pair(34)),
        to: SocketAddrV4::new(address(30), pair(36)),
        is_udp,
        payload: frame[34 + head..end].to_vec(),
    }
}

/// What is in a recording.
pub(crate) enum Heard {
    /// A machine asks us, or everybody.
    Asks(Message),
    /// We answer.
    Told(Message),
    /// Another DHCP server answers.
    ToldByAnother(Message),
    /// The machine loads a file, by TFTP or HTTP.
    Loads(String),
}

impl Packet {
    /// What it says.
    pub(crate) fn heard(&self) -> Heard {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("a name");
        match (self.is_udp, self.to.port()) {
            (true, 69) => {
                let [0, 1, rest @ ..] = &self.payload[..] else {
                    panic!("no read request");
                };
                Heard::Loads(text(rest.split(|byte| *byte == 0).next().expect("a name")))
            }
            (false, 80) => {
                let line = text(&self.payload);
                let path = line.split(' ').nth(1).expect("a path");
                Heard::Loads(format!("http://{}{path}", self.to.ip()))
            }
            (true, _) => {
                let message = Message::read(&self.payload).expect("a message");
                match message.op {
                    Op::Request => Heard::Asks(message),
                    Op::Reply if *self.from.ip() == SERVER => Heard::Told(message),
                    Op::Reply => Heard::ToldByAnother(message),
                }
            }
            (false, port) => panic!("nobody is at port {port}"),
        }
    }
}
