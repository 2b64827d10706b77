//! The option haggling before an export is open.

use std::io;

use super::session::Client;
use super::wire::{Address, Wire};

const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
pub(crate) const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// Option numbers.
pub(crate) mod option {
    pub(crate) const EXPORT_NAME: u32 = 1;
    pub(crate) const ABORT: u32 = 2;
    pub(crate) const LIST: u32 = 3;
    pub(crate) const PEEK_EXPORT: u32 = 4;
    pub(crate) const STARTTLS: u32 = 5;
    pub(crate) const INFO: u32 = 6;
    pub(crate) const GO: u32 = 7;
    pub(crate) const STRUCTURED_REPLY: u32 = 8;
    pub(crate) const LIST_META_CONTEXT: u32 = 9;
    pub(crate) const SET_META_CONTEXT: u32 = 10;
    pub(crate) const EXTENDED_HEADERS: u32 = 11;
}

/// Kinds of option reply.
pub(crate) mod reply {
    pub(crate) const ACK: u32 = 1;
    pub(crate) const SERVER: u32 = 2;
    pub(crate) const INFO: u32 = 3;
    pub(crate) const META_CONTEXT: u32 = 4;
    pub(crate) const ERROR: u32 = 1 << 31;
    pub(crate) const ERR_UNSUP: u32 = ERROR + 1;
    pub(crate) const ERR_POLICY: u32 = ERROR + 2;
    pub(crate) const ERR_INVALID: u32 = ERROR + 3;
    pub(crate) const ERR_TLS_REQD: u32 = ERROR + 5;
    pub(crate) const ERR_UNKNOWN: u32 = ERROR + 6;
    pub(crate) const ERR_TOO_BIG: u32 = ERROR + 9;
    pub(crate) const ERR_EXT_HEADER_REQD: u32 = ERROR + 10;
}

/// Kinds of information about an export.
pub(crate) mod info {
    pub(crate) const EXPORT: u16 = 0;
    pub(crate) const BLOCK_SIZE: u16 = 3;
}

/// One answer to an option.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) option: u32,
    pub(crate) kind: u32,
    pub(crate) data: Vec<u8>,
}

/// Why an export was not opened.
#[derive(Debug)]
pub(crate) enum Refused {
    /// An error reply, with its message.
    Reply { kind: u32, message: String },
    /// The server closed, or the connection broke.
    Closed(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Closed(error)
    }
}

/// Size, transmission flags and, where told, the block sizes of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    pub(crate) size: u64,
    pub(crate) flags: u16,
    /// Minimum, preferred and maximum.
    pub(crate) blocks: Option<[u32; 3]>,
}

/// The data of INFO and GO.
pub(crate) fn go_data(name: &[u8], wanted: &[u16]) -> Vec<u8> {
    let mut data = len_u32(name).to_be_bytes().to_vec();
    data.extend_from_slice(name);
    let count = u16::try_from(wanted.len()).expect("a few requests");
    data.extend_from_slice(&count.to_be_bytes());
    for kind in wanted {
        data.extend_from_slice(&kind.to_be_bytes());
    }
    data
}

fn len_u32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("test data are small")
}

/// A connection past the greeting and before an export.
pub(crate) struct Handshake {
    pub(crate) wire: Wire,
    /// What the server offered in its greeting.
    pub(crate) offered: u16,
    no_zeroes: bool,
}

impl Handshake {
    /// Greets as every modern client does: fixed newstyle, no zeroes.
    pub(crate) fn start(address: &Address) -> io::Result<Self> {
        Self::start_with(address, 3)
    }

    /// Greets with the client flags given.
    pub(crate) fn start_with(address: &Address, flags: u32) -> io::Result<Self> {
        Self::greet(Wire::connect(address)?, flags)
    }

    /// As [`Self::start`], from another address of this machine.
    pub(crate) fn start_from(from: [u8; 4], address: &Address) -> io::Result<Self> {
        Self::greet(Wire::connect_from(from, address)?, 3)
    }

    fn greet(mut wire: Wire, flags: u32) -> io::Result<Self> {
        assert_eq!(wire.receive_u64()?, NBDMAGIC);
        assert_eq!(wire.receive_u64()?, IHAVEOPT);
        let offered = wire.receive_u16()?;
        wire.send(&flags.to_be_bytes())?;
        Ok(Self {
            wire,
            offered,
            no_zeroes: flags & 2 != 0,
        })
    }

    /// Sends an option.
    pub(crate) fn option(&mut self, number: u32, data: &[u8]) -> io::Result<()> {
        self.raw_option(IHAVEOPT, number, len_u32(data), data)
    }

    /// Sends an option whose magic or length may be a lie.
    pub(crate) fn raw_option(
        &mut self,
        magic: u64,
        number: u32,
        len: u32,
        data: &[u8],
    ) -> io::Result<()> {
        let mut bytes = magic.to_be_bytes().to_vec();
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(data);
        self.wire.send(&bytes)
    }

    /// Receives one answer.
    pub(crate) fn reply(&mut self) -> io::Result<Reply> {
        assert_eq!(self.wire.receive_u64()?, REPLY_MAGIC, "reply magic");
        let option = self.wire.receive_u32()?;
        let kind = self.wire.receive_u32()?;
        let len = self.wire.receive_u32()?;
        assert!(len <= 65_536, "a reply of {len} bytes");
        let data = self.wire.receive(len as usize)?;
        Ok(Reply { option, kind, data })
    }

    /// Sends an option and collects its answers up to ACK; an error reply is a refusal.
    pub(crate) fn ask(&mut self, number: u32, data: &[u8]) -> Result<Vec<Reply>, Refused> {
        self.option(number, data)?;
        let mut answers = Vec::new();
        loop {
            let answer = self.reply()?;
            assert_eq!(answer.option, number, "answer to another option");
            if answer.kind == reply::ACK {
                return Ok(answers);
            }
            if answer.kind & reply::ERROR != 0 {
                let message = String::from_utf8(answer.data).expect("messages are UTF-8");
                let kind = answer.kind;
                return Err(Refused::Reply { kind, message });
            }
            answers.push(answer);
        }
    }

    /// NBD_OPT_STARTTLS, and TLS itself.
    pub(crate) fn start_tls(mut self, tls: rustls::ClientConnection) -> Result<Self, Refused> {
        self.ask(option::STARTTLS, &[])?;
        self.wire = self.wire.secured(tls)?;
        Ok(self)
    }

    /// NBD_OPT_LIST: the names of the exports.
    pub(crate) fn list(&mut self) -> Result<Vec<String>, Refused> {
        let answers = self.ask(option::LIST, &[])?;
        Ok(answers.iter().map(name_of_listed).collect())
    }

    /// NBD_OPT_INFO.
    pub(crate) fn info(&mut self, export: &str) -> Result<Facts, Refused> {
        let data = go_data(export.as_bytes(), &[info::BLOCK_SIZE]);
        Ok(facts(&self.ask(option::INFO, &data)?))
    }

    /// NBD_OPT_GO; the handshake remains usable when refused.
    pub(crate) fn try_go(&mut self, export: &[u8]) -> Result<Facts, Refused> {
        let data = go_data(export, &[info::BLOCK_SIZE]);
        Ok(facts(&self.ask(option::GO, &data)?))
    }

    /// NBD_OPT_GO.
    pub(crate) fn go(mut self, export: &str) -> Result<Client, Refused> {
        let facts = self.try_go(export.as_bytes())?;
        Ok(Client::new(self.wire, facts))
    }

    /// NBD_OPT_EXPORT_NAME, which can only be refused by closing.
    pub(crate) fn export_name(mut self, export: &str) -> Result<Client, Refused> {
        self.option(option::EXPORT_NAME, export.as_bytes())?;
        let size = self.wire.receive_u64()?;
        let flags = self.wire.receive_u16()?;
        if !self.no_zeroes {
            assert_eq!(self.wire.receive(124)?, [0; 124], "124 zero bytes");
        }
        let blocks = None;
        let facts = Facts {
            size,
            flags,
            blocks,
        };
        Ok(Client::new(self.wire, facts))
    }
}

fn name_of_listed(answer: &Reply) -> String {
    assert_eq!(answer.kind, reply::SERVER);
    let (len, rest) = answer.data.split_at(4);
    let len = u32::from_be_bytes(len.try_into().expect("4 bytes")) as usize;
    String::from_utf8(rest[..len].to_vec()).expect("names are UTF-8")
}

/// Puts the information replies together; one about the export itself is a must.
fn facts(answers: &[Reply]) -> Facts {
    let mut facts = None;
    let mut blocks = None;
    for answer in answers.iter().filter(|answer| answer.kind == reply::INFO) {
        let (kind, rest) = answer.data.split_at(2);
        match u16::from_be_bytes(kind.try_into().expect("2 bytes")) {
            info::EXPORT => facts = Some(export_facts(rest)),
            info::BLOCK_SIZE => blocks = Some(block_sizes(rest)),
            _ => {}
        }
    }
    let mut facts: Facts = facts.expect("proto.md: INFO_EXPORT comes before the ACK");
    facts.blocks = blocks;
    facts
}

fn export_facts(data: &[u8]) -> Facts {
    assert_eq!(data.len(), 10, "size and flags");
    let (size, flags) = data.split_at(8);
    Facts {
        size: u64::from_be_bytes(size.try_into().expect("8 bytes")),
        flags: u16::from_be_bytes(flags.try_into().expect("2 bytes")),
        blocks: None,
    }
}

fn block_sizes(data: &[u8]) -> [u32; 3] {
    assert_eq!(data.len(), 12, "three sizes");
    [0, 4, 8].map(|at| u32::from_be_bytes(data[at..at + 4].try_into().expect("4 bytes")))
}

/// All that a client sends from its first byte to its requests, in one piece.
pub(crate) fn hasty(export: &str, requests: &[u8]) -> Vec<u8> {
    let go = go_data(export.as_bytes(), &[]);
    let mut bytes = 3u32.to_be_bytes().to_vec();
    bytes.extend(IHAVEOPT.to_be_bytes());
    bytes.extend(option::GO.to_be_bytes());
    bytes.extend(u32::try_from(go.len()).expect("a short name").to_be_bytes());
    bytes.extend(go);
    bytes.extend_from_slice(requests);
    bytes
}
