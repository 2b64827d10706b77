//! A client of sessions whose replies come in chunks: structured replies, or extended headers.

use std::io;

use super::handshake::{Facts, Handshake, Refused, option, reply};
use super::session::{Failure, REQUEST_MAGIC, command, flag};
use super::wire::{Address, Wire};

const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
const EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

/// Which headers the two agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Structured,
    Extended,
}

/// One chunk of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    None,
    Data {
        offset: u64,
        data: Vec<u8>,
    },
    Hole {
        offset: u64,
        len: u64,
    },
    /// Lengths and flags.
    Status {
        id: u32,
        extents: Vec<(u64, u64)>,
    },
    Error {
        errno: u32,
        message: String,
        at: Option<u64>,
    },
}

/// A request with a length of 64 bits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wide<'a> {
    pub(crate) command: u16,
    pub(crate) flags: u16,
    pub(crate) offset: u64,
    /// Of the effect, or of the payload where there is one.
    pub(crate) len: u64,
    pub(crate) payload: &'a [u8],
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
pub(crate) fn context_data(export: &str, queries: &[&str]) -> Vec<u8> {
    let string = |text: &str| {
        let len = u32::try_from(text.len()).expect("a short text");
        [&len.to_be_bytes()[..], text.as_bytes()].concat()
    };
    let count = u32::try_from(queries.len()).expect("a few queries");
    let mut data = string(export);
    data.extend_from_slice(&count.to_be_bytes());
    data.extend(queries.iter().flat_map(|query| string(query)));
    data
}

impl Handshake {
    /// STRUCTURED_REPLY or EXTENDED_HEADERS.
    pub(crate) fn agree_on(&mut self, framing: Framing) -> Result<(), Refused> {
        let number = match framing {
            Framing::Structured => option::STRUCTURED_REPLY,
            Framing::Extended => option::EXTENDED_HEADERS,
        };
        self.ask(number, &[]).map(drop)
    }

    /// SET_META_CONTEXT, or LIST_META_CONTEXT: numbers and names.
    pub(crate) fn contexts(
        &mut self,
        number: u32,
        export: &str,
        queries: &[&str],
    ) -> Result<Vec<(u32, String)>, Refused> {
        let answers = self.ask(number, &context_data(export, queries))?;
        let contexts = answers
            .iter()
            .filter(|answer| answer.kind == reply::META_CONTEXT);
        let read = contexts.map(|answer| {
            let (id, name) = answer.data.split_at(4);
            let id = u32::from_be_bytes(id.try_into().expect("4 bytes"));
            (id, String::from_utf8(name.to_vec()).expect("UTF-8"))
        });
        Ok(read.collect())
    }
}

/// A connection with an open export, and replies in chunks.
pub(crate) struct ChunkClient {
    pub(crate) wire: Wire,
    pub(crate) facts: Facts,
    framing: Framing,
    /// Numbers and names of the contexts that were selected.
    pub(crate) contexts: Vec<(u32, String)>,
    next_cookie: u64,
}

impl ChunkClient {
    /// Opens `export` with these contexts.
    pub(crate) fn open(
        address: &Address,
        export: &str,
        framing: Framing,
        contexts: &[&str],
    ) -> Result<Self, Refused> {
        let mut handshake = Handshake::start(address)?;
        handshake.agree_on(framing)?;
        let contexts = handshake.contexts(option::SET_META_CONTEXT, export, contexts)?;
        let facts = handshake.try_go(export.as_bytes())?;
        assert!(facts.flags & flag::SEND_DF != 0, "DF comes with chunks");
        Ok(Self {
            wire: handshake.wire,
            facts,
            framing,
            contexts,
            next_cookie: 0xbee5,
        })
    }

    /// Sends a request and receives all chunks of its reply, which must be the only one due.
    pub(crate) fn call(&mut self, request: &Wide<'_>) -> io::Result<Vec<Chunk>> {
        let cookie = self.submit(request)?;
        let mut chunks = Vec::new();
        loop {
            let (of, offset, done, chunk) = self.chunk()?;
            assert_eq!(of, cookie, "cookie");
            if let Some(offset) = offset {
                assert_eq!(
                    offset, request.offset,
                    "an extended reply echoes the offset"
                );
            }
            assert!(done || chunk != Chunk::None, "NONE is the last chunk");
            chunks.push(chunk);
            if done {
                return Ok(chunks);
            }
        }
    }

    /// Sends a request; its cookie.
    pub(crate) fn submit(&mut self, request: &Wide<'_>) -> io::Result<u64> {
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        let magic = match self.framing {
            Framing::Structured => REQUEST_MAGIC,
            Framing::Extended => EXTENDED_REQUEST_MAGIC,
        };
        let mut bytes = magic.to_be_bytes().to_vec();
        bytes.extend_from_slice(&request.flags.to_be_bytes());
        bytes.extend_from_slice(&request.command.to_be_bytes());
        bytes.extend_from_slice(&cookie.to_be_bytes());
        bytes.extend_from_slice(&request.offset.to_be_bytes());
        match self.framing {
            Framing::Structured => {
                let len = u32::try_from(request.len).expect("a compact length");
                bytes.extend_from_slice(&len.to_be_bytes());
            }
            Framing::Extended => bytes.extend_from_slice(&request.len.to_be_bytes()),
        }
        bytes.extend_from_slice(request.payload);
        self.wire.send(&bytes)?;
        Ok(cookie)
    }

    /// The next chunk: its cookie, its offset where it has one, whether it is the last, itself.
    pub(crate) fn chunk(&mut self) -> io::Result<(u64, Option<u64>, bool, Chunk)> {
        let magic = self.wire.receive_u32()?;
        let flags = self.wire.receive_u16()?;
        let kind = self.wire.receive_u16()?;
        let cookie = self.wire.receive_u64()?;
        assert_eq!(flags & !1, 0, "no chunk flag but DONE");
        let (offset, len) = match self.framing {
            Framing::Structured => {
                assert_eq!(magic, STRUCTURED_REPLY_MAGIC, "chunk magic");
                (None, u64::from(self.wire.receive_u32()?))
            }
            Framing::Extended => {
                assert_eq!(magic, EXTENDED_REPLY_MAGIC, "chunk magic");
                (Some(self.wire.receive_u64()?), self.wire.receive_u64()?)
            }
        };
        let len = usize::try_from(len).expect("a chunk fits in memory");
        let payload = self.wire.receive(len)?;
        let chunk = self.parse(kind, &payload);
        Ok((cookie, offset, flags & 1 != 0, chunk))
    }

    fn parse(&self, kind: u16, payload: &[u8]) -> Chunk {
        match (kind, self.framing) {
            (0, _) => {
                assert!(payload.is_empty());
                Chunk::None
            }
            (1, _) => {
                assert!(payload.len() >= 9, "at least one byte of data");
                Chunk::Data {
                    offset: number(&payload[..8]),
                    data: payload[8..].to_vec(),
                }
            }
            (2, _) => {
                assert_eq!(payload.len(), 12);
                assert!(number(&payload[8..]) > 0, "at least one byte of hole");
                Chunk::Hole {
                    offset: number(&payload[..8]),
                    len: number(&payload[8..]),
                }
            }
            (5, Framing::Structured) => status(&payload[..4], &payload[4..], 4),
            (6, Framing::Extended) => {
                let count = number(&payload[4..8]);
                assert_eq!(count * 16 + 8, payload.len() as u64, "descriptor count");
                status(&payload[..4], &payload[8..], 8)
            }
            (0x8001 | 0x8002, _) => error(kind, payload),
            _ => panic!("a chunk of type {kind} with {:?}", self.framing),
        }
    }

    /// Reads, and puts the chunks together: they must cover the range once.
    pub(crate) fn read(&mut self, offset: u64, len: u64) -> Result<Vec<u8>, Failure> {
        let chunks = self.read_chunks(offset, len, 0)?;
        Ok(assemble(offset, len, &chunks))
    }

    /// The chunks of a read.
    pub(crate) fn read_chunks(
        &mut self,
        offset: u64,
        len: u64,
        flags: u16,
    ) -> Result<Vec<Chunk>, Failure> {
        let request = Wide {
            command: command::READ,
            flags,
            offset,
            len,
            payload: &[],
        };
        succeeded(self.call(&request)?)
    }

    /// A command without a payload.
    pub(crate) fn plain(&mut self, command: u16, offset: u64, len: u64) -> Result<(), Failure> {
        let request = Wide {
            command,
            offset,
            len,
            ..Wide::default()
        };
        succeeded(self.call(&request)?).map(drop)
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Failure> {
        let flags = match self.framing {
            Framing::Structured => 0,
            Framing::Extended => flag::PAYLOAD_LEN,
        };
        let request = Wide {
            command: command::WRITE,
            flags,
            offset,
            len: data.len() as u64,
            payload: data,
        };
        succeeded(self.call(&request)?).map(drop)
    }

    /// What a context says of a range, as one answer tells it.
    pub(crate) fn status(
        &mut self,
        context: &str,
        offset: u64,
        len: u64,
        flags: u16,
    ) -> Result<Vec<(u64, u64)>, Failure> {
        let request = Wide {
            command: command::BLOCK_STATUS,
            flags,
            offset,
            len,
            payload: &[],
        };
        let chunks = succeeded(self.call(&request)?)?;
        assert_eq!(
            chunks.len(),
            self.contexts.len(),
            "a chunk for each context"
        );
        let (wanted, _) = self
            .contexts
            .iter()
            .find(|(_, name)| name == context)
            .expect("a context that was selected");
        let of = chunks.into_iter().find_map(|chunk| match chunk {
            Chunk::Status { id, extents } if id == *wanted => Some(extents),
            _ => None,
        });
        Ok(of.expect("a chunk of the context"))
    }
}

/// The chunks of a reply that is no error.
fn succeeded(chunks: Vec<Chunk>) -> Result<Vec<Chunk>, Failure> {
    let failed = chunks.iter().find_map(|chunk| match chunk {
        Chunk::Error { errno, .. } => Some(*errno),
        _ => None,
    });
    failed.map_or(Ok(chunks), |errno| Err(Failure::Errno(errno)))
}

/// The bytes that the chunks of a read describe.
pub(crate) fn assemble(offset: u64, len: u64, chunks: &[Chunk]) -> Vec<u8> {
    let mut bytes = vec![None; usize::try_from(len).expect("a read fits in memory")];
    let mut put = |at: u64, data: &mut dyn Iterator<Item = u8>| {
        let at = usize::try_from(at - offset).expect("inside the request");
        for (slot, byte) in bytes[at..].iter_mut().zip(data) {
            assert!(slot.replace(byte).is_none(), "chunks overlap");
        }
    };
    for chunk in chunks {
        match chunk {
            Chunk::Data { offset: at, data } => {
                assert!(at + data.len() as u64 <= offset + len, "past the request");
                put(*at, &mut data.iter().copied());
            }
            Chunk::Hole {
                offset: at,
                len: hole,
            } => {
                assert!(at + hole <= offset + len, "past the request");
                let hole = usize::try_from(*hole).expect("a read fits in memory");
                put(*at, &mut std::iter::repeat_n(0, hole));
            }
            Chunk::None => {}
            other => panic!("not of a read: {other:?}"),
        }
    }
    bytes
        .into_iter()
        .map(|byte| byte.expect("chunks cover the request"))
        .collect()
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Extents of two numbers of `width` bytes each.
fn status(id: &[u8], extents: &[u8], width: usize) -> Chunk {
    assert!(!extents.is_empty() && extents.len().is_multiple_of(2 * width));
    let extents = extents
        .chunks(2 * width)
        .map(|extent| (number(&extent[..width]), number(&extent[width..])))
        .collect::<Vec<_>>();
    assert!(extents.iter().all(|(len, _)| *len > 0), "an empty extent");
    let id = u32::try_from(number(id)).expect("4 bytes");
    Chunk::Status { id, extents }
}

fn error(kind: u16, payload: &[u8]) -> Chunk {
    let errno = u32::try_from(number(&payload[..4])).expect("4 bytes");
    let len = usize::try_from(number(&payload[4..6])).expect("2 bytes");
    let (message, rest) = payload[6..].split_at(len);
    let at = (kind == 0x8002).then(|| number(rest));
    assert_eq!(rest.len(), if at.is_some() { 8 } else { 0 });
    assert!(errno != 0);
    Chunk::Error {
        errno,
        message: String::from_utf8(message.to_vec()).expect("UTF-8"),
        at,
    }
}
