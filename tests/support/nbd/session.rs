//! Commands and their replies once an export is open.

use std::collections::HashMap;
use std::io;

use super::handshake::{Facts, Handshake, Refused};
use super::wire::{Address, Wire};

pub(crate) const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;

/// Command numbers.
pub(crate) mod command {
    pub(crate) const READ: u16 = 0;
    pub(crate) const WRITE: u16 = 1;
    pub(crate) const DISC: u16 = 2;
    pub(crate) const FLUSH: u16 = 3;
    pub(crate) const TRIM: u16 = 4;
    pub(crate) const CACHE: u16 = 5;
    pub(crate) const WRITE_ZEROES: u16 = 6;
    pub(crate) const BLOCK_STATUS: u16 = 7;
}

/// Command flags, and below them the transmission flags.
pub(crate) mod flag {
    pub(crate) const FUA: u16 = 1;
    pub(crate) const NO_HOLE: u16 = 2;
    pub(crate) const DF: u16 = 4;
    pub(crate) const REQ_ONE: u16 = 8;
    pub(crate) const FAST_ZERO: u16 = 16;
    pub(crate) const PAYLOAD_LEN: u16 = 32;

    pub(crate) const HAS_FLAGS: u16 = 1;
    pub(crate) const READ_ONLY: u16 = 1 << 1;
    pub(crate) const SEND_FLUSH: u16 = 1 << 2;
    pub(crate) const SEND_FUA: u16 = 1 << 3;
    pub(crate) const SEND_TRIM: u16 = 1 << 5;
    pub(crate) const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub(crate) const SEND_DF: u16 = 1 << 7;
    pub(crate) const CAN_MULTI_CONN: u16 = 1 << 8;
    pub(crate) const SEND_CACHE: u16 = 1 << 10;
    pub(crate) const BLOCK_STATUS_PAYLOAD: u16 = 1 << 12;
}

/// The error numbers of the protocol.
pub(crate) mod errno {
    pub(crate) const EPERM: u32 = 1;
    pub(crate) const EIO: u32 = 5;
    pub(crate) const EINVAL: u32 = 22;
    pub(crate) const ENOSPC: u32 = 28;
    pub(crate) const EOVERFLOW: u32 = 75;
    pub(crate) const ENOTSUP: u32 = 95;
    pub(crate) const ESHUTDOWN: u32 = 108;
}

/// Why a command did not do its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server answered with this error number.
    Errno(u32),
    /// The server closed, or the connection broke.
    Closed(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Closed(error)
    }
}

impl Failure {
    /// The error number of a reply; 0 for a broken connection.
    pub(crate) fn errno(&self) -> u32 {
        match self {
            Self::Errno(number) => *number,
            Self::Closed(_) => 0,
        }
    }
}

/// One request, as it stands on the wire but for its cookie.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Request<'a> {
    pub(crate) command: u16,
    pub(crate) flags: u16,
    pub(crate) offset: u64,
    pub(crate) len: u32,
    pub(crate) payload: &'a [u8],
}

impl<'a> Request<'a> {
    pub(crate) fn read(offset: u64, len: u32) -> Self {
        Self::plain(command::READ, offset, len)
    }

    pub(crate) fn write(offset: u64, payload: &'a [u8]) -> Self {
        let len = u32::try_from(payload.len()).expect("a payload fits");
        let plain = Self::plain(command::WRITE, offset, len);
        Self { payload, ..plain }
    }

    /// Any command without a payload.
    pub(crate) fn plain(command: u16, offset: u64, len: u32) -> Self {
        Self {
            command,
            offset,
            len,
            ..Self::default()
        }
    }

    pub(crate) fn flagged(self, flags: u16) -> Self {
        Self { flags, ..self }
    }

    /// The header as sent.
    pub(crate) fn header(&self, cookie: u64) -> Vec<u8> {
        let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.flags.to_be_bytes());
        bytes.extend_from_slice(&self.command.to_be_bytes());
        bytes.extend_from_slice(&cookie.to_be_bytes());
        bytes.extend_from_slice(&self.offset.to_be_bytes());
        bytes.extend_from_slice(&self.len.to_be_bytes());
        bytes
    }
}

/// A connection with an open export.
pub(crate) struct Client {
    pub(crate) wire: Wire,
    pub(crate) size: u64,
    /// Transmission flags.
    pub(crate) flags: u16,
    /// Minimum, preferred and maximum block size, where told.
    pub(crate) blocks: Option<[u32; 3]>,
    next_cookie: u64,
    /// Requests sent and not yet answered, with the length of the data a good answer carries.
    waiting: HashMap<u64, usize>,
}

impl Client {
    pub(crate) fn new(wire: Wire, facts: Facts) -> Self {
        assert!(facts.flags & flag::HAS_FLAGS != 0, "a must in proto.md");
        Self {
            wire,
            size: facts.size,
            flags: facts.flags,
            blocks: facts.blocks,
            next_cookie: 0xc0de_0000_0000_0000,
            waiting: HashMap::new(),
        }
    }

    /// Connects and opens an export with GO.
    pub(crate) fn open(address: &Address, export: &str) -> Result<Self, Refused> {
        Handshake::start(address)?.go(export)
    }

    /// Sends a request without waiting for its answer; its cookie.
    pub(crate) fn submit(&mut self, request: &Request<'_>) -> io::Result<u64> {
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        let mut bytes = request.header(cookie);
        bytes.extend_from_slice(request.payload);
        let data = match request.command {
            command::READ => request.len as usize,
            _ => 0,
        };
        self.waiting.insert(cookie, data);
        self.wire.send(&bytes)?;
        Ok(cookie)
    }

    /// Receives the next answer, whichever request it is for.
    pub(crate) fn answer(&mut self) -> io::Result<(u64, Result<Vec<u8>, Failure>)> {
        assert_eq!(self.wire.receive_u32()?, SIMPLE_REPLY_MAGIC, "reply magic");
        let error = self.wire.receive_u32()?;
        let cookie = self.wire.receive_u64()?;
        let len = self.waiting.remove(&cookie);
        let len = len.unwrap_or_else(|| panic!("an answer to nothing: {cookie:x}"));
        if error != 0 {
            return Ok((cookie, Err(Failure::Errno(error))));
        }
        Ok((cookie, Ok(self.wire.receive(len)?)))
    }

    /// Sends a request and waits for its answer, which must be the only one due.
    pub(crate) fn call(&mut self, request: &Request<'_>) -> Result<Vec<u8>, Failure> {
        let sent = self.submit(request)?;
        let (cookie, result) = self.answer()?;
        assert_eq!(cookie, sent, "cookie");
        result
    }

    pub(crate) fn read(&mut self, offset: u64, len: u32) -> Result<Vec<u8>, Failure> {
        self.call(&Request::read(offset, len))
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Failure> {
        self.call(&Request::write(offset, data)).map(drop)
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.call(&Request::plain(command::FLUSH, 0, 0)).map(drop)
    }

    pub(crate) fn zero(&mut self, offset: u64, len: u32) -> Result<(), Failure> {
        self.call(&Request::plain(command::WRITE_ZEROES, offset, len))
            .map(drop)
    }

    pub(crate) fn trim(&mut self, offset: u64, len: u32) -> Result<(), Failure> {
        self.call(&Request::plain(command::TRIM, offset, len))
            .map(drop)
    }

    /// The whole disk, in pieces.
    pub(crate) fn read_all(&mut self) -> Result<Vec<u8>, Failure> {
        let mut all = Vec::new();
        while (all.len() as u64) < self.size {
            let at = all.len() as u64;
            let len = (self.size - at).min(8 << 20);
            let len = u32::try_from(len).expect("8 MiB fit");
            all.extend(self.read(at, len)?);
        }
        Ok(all)
    }

    /// NBD_CMD_DISC, and waits until the server has closed.
    pub(crate) fn disconnect(mut self) {
        let request = Request::plain(command::DISC, 0, 0);
        self.wire
            .send(&request.header(0))
            .expect("the server still listens");
        self.wire.assert_closed();
    }
}
