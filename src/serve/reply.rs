//! Replies as they leave: simple ones, or chunks, as was agreed on.
//!
//! Invariants:
//! - A reply in chunks has one last chunk, and it is the last.
//! - The chunks of a read cover its range once, in order, and none is empty.

use std::borrow::Cow;

use crate::export::{Piece, VolumeError};
use crate::nbd::agreed::{Context, Headers};
use crate::nbd::session::{Cookie, Rejection};
use crate::nbd::wire::{Chunk, Errno, Extent, SIMPLE_REPLY, SimpleReply};
use crate::units::ByteRange;

/// Memory that a part of a reply takes beside what it holds.
const PART_BYTES: u64 = 64;

/// Why a request failed, as its client is told.
#[derive(Debug)]
pub(super) struct Fault {
    errno: Errno,
    message: Cow<'static, str>,
    /// The byte at which it failed, where that is known.
    at: Option<u64>,
}

impl Fault {
    /// What the client is told.
    pub(super) const fn errno(&self) -> Errno {
        self.errno
    }
}

impl From<Rejection> for Fault {
    fn from(rejection: Rejection) -> Self {
        Self {
            errno: rejection.errno,
            message: rejection.why.into(),
            at: rejection.at,
        }
    }
}

impl From<&VolumeError> for Fault {
    fn from(error: &VolumeError) -> Self {
        let errno = match error {
            VolumeError::NoSpace => Errno::ENOSPC,
            VolumeError::ReadOnly => Errno::EPERM,
            VolumeError::ImageChanged | VolumeError::Poisoned(_) => Errno::EIO,
            VolumeError::Io(reason) | VolumeError::Read { reason, .. } => {
                Errno::of_io(reason.kind())
            }
        };
        let at = match error {
            VolumeError::Read { at, .. } => Some(*at),
            _ => None,
        };
        Self {
            errno,
            message: error.to_string().into(),
            at,
        }
    }
}

/// A part of a reply in chunks.
#[derive(Debug)]
pub(super) enum Part {
    /// Of the protocol.
    Own(Vec<u8>),
    /// Of the disk.
    Piece(Piece),
}

/// A reply, whole.
#[derive(Debug)]
pub(super) enum Reply {
    /// The header of a simple reply, and the data of a read.
    Simple([u8; SIMPLE_REPLY], Vec<Piece>),
    /// Chunks, in order.
    Chunks(Vec<Part>),
}

impl Reply {
    /// Bytes of memory that it holds until it has left.
    pub(super) fn held(&self) -> u64 {
        match self {
            Self::Simple(_, pieces) => pieces.iter().map(Piece::held).sum(),
            Self::Chunks(parts) => parts.iter().map(Part::held).sum(),
        }
    }
}

impl Part {
    fn held(&self) -> u64 {
        PART_BYTES
            + match self {
                Self::Own(bytes) => bytes.len() as u64,
                Self::Piece(piece) => piece.held(),
            }
    }
}

/// Makes the replies of one session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replies {
    headers: Headers,
}

impl Replies {
    pub(super) const fn new(headers: Headers) -> Self {
        Self { headers }
    }

    /// A request without data that ended as `result` says.
    pub(super) fn of(self, cookie: Cookie, result: Result<(), Fault>) -> Reply {
        match result {
            Ok(()) => self.done(cookie),
            Err(fault) => self.fault(cookie, &fault),
        }
    }

    fn done(self, cookie: Cookie) -> Reply {
        if self.headers.have_chunks() {
            self.chunks(cookie, vec![Content::Chunk(Chunk::None)])
        } else {
            simple(cookie, Ok(()), Vec::new())
        }
    }

    fn fault(self, cookie: Cookie, fault: &Fault) -> Reply {
        if self.headers.have_chunks() {
            let error = Chunk::Error {
                errno: fault.errno,
                message: &fault.message,
                at: fault.at,
            };
            self.chunks(cookie, vec![Content::Chunk(error)])
        } else {
            simple(cookie, Err(fault.errno), Vec::new())
        }
    }

    /// The data of a read of `range`, which `pieces` are.
    pub(super) fn read(
        self,
        cookie: Cookie,
        range: ByteRange,
        in_one: bool,
        pieces: Vec<Piece>,
    ) -> Reply {
        if !self.headers.have_chunks() {
            return simple(cookie, Ok(()), pieces);
        }
        let contents = if in_one {
            in_one_chunk(range, pieces)
        } else {
            with_holes(range.start(), pieces)
        };
        if contents.is_empty() {
            return self.done(cookie);
        }
        self.chunks(cookie, contents)
    }

    /// What each context says of the blocks from the request's offset on.
    pub(super) fn status(self, cookie: Cookie, told: &[(Context, Vec<Extent>)]) -> Reply {
        let status = |(context, extents): &(Context, Vec<Extent>)| -> Vec<u8> {
            let id = context.id();
            let is_last = Some(context) == told.last().map(|(context, _)| context);
            Chunk::Status { id, extents }.to_bytes(self.headers, cookie, is_last)
        };
        Reply::Chunks(told.iter().map(|told| Part::Own(status(told))).collect())
    }

    fn chunks(self, cookie: Cookie, contents: Vec<Content<'_>>) -> Reply {
        let chunks = contents.iter().filter(|content| content.is_chunk()).count();
        let mut chunk = 0;
        let parts = contents.into_iter().map(|content| match content {
            Content::Piece(piece) => Part::Piece(piece),
            Content::Chunk(own) => {
                chunk += 1;
                Part::Own(own.to_bytes(self.headers, cookie, chunk == chunks))
            }
        });
        Reply::Chunks(parts.collect())
    }
}

/// What follows what in a reply: a chunk, and if it is one of data, the pieces of them.
#[derive(Debug)]
enum Content<'a> {
    Chunk(Chunk<'a>),
    Piece(Piece),
}

impl Content<'_> {
    const fn is_chunk(&self) -> bool {
        matches!(self, Self::Chunk(_))
    }
}

fn simple(cookie: Cookie, result: Result<(), Errno>, pieces: Vec<Piece>) -> Reply {
    Reply::Simple(SimpleReply::new(cookie, result).to_bytes(), pieces)
}

/// NBD_CMD_FLAG_DF: "the server MUST send at most one content chunk"; "If the area being read
/// contains both data and a hole, the server MUST use NBD_REPLY_TYPE_OFFSET_DATA with the zeroes
/// explicitly present."
fn in_one_chunk(range: ByteRange, pieces: Vec<Piece>) -> Vec<Content<'static>> {
    let offset = range.start();
    if pieces.iter().all(Piece::is_zeros) {
        return with_holes(offset, pieces);
    }
    let chunk = Chunk::Data {
        offset,
        length: length_of(range.len()),
    };
    let pieces = pieces.into_iter().map(Content::Piece);
    std::iter::once(Content::Chunk(chunk))
        .chain(pieces)
        .collect()
}

/// Data in chunks of data, zeros as holes: "each chunk MUST describe at least one byte".
fn with_holes(start: u64, pieces: Vec<Piece>) -> Vec<Content<'static>> {
    let mut contents: Vec<Content<'static>> = Vec::with_capacity(2 * pieces.len());
    // Where in `contents` the chunk is that the next piece may belong to.
    let mut open: Option<usize> = None;
    let mut offset = start;
    for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
        let length = length_of(piece.len());
        let is_hole = piece.is_zeros();
        let has_grown = match open.and_then(|at| contents.get_mut(at)) {
            Some(Content::Chunk(chunk)) => grow(chunk, is_hole, length),
            _ => false,
        };
        if !has_grown {
            open = Some(contents.len());
            contents.push(Content::Chunk(begin(is_hole, offset, length)));
        }
        offset += piece.len();
        if !is_hole {
            contents.push(Content::Piece(piece));
        }
    }
    contents
}

const fn begin(is_hole: bool, offset: u64, length: u32) -> Chunk<'static> {
    if is_hole {
        Chunk::Hole { offset, length }
    } else {
        Chunk::Data { offset, length }
    }
}

/// Makes a chunk longer, if it is of this sort.
const fn grow(chunk: &mut Chunk<'static>, is_hole: bool, by: u32) -> bool {
    match (chunk, is_hole) {
        (Chunk::Hole { length, .. }, true) | (Chunk::Data { length, .. }, false) => {
            *length += by;
            true
        }
        _ => false,
    }
}

/// A read has 32 MiB at most.
fn length_of(len: u64) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOKIE: Cookie = Cookie {
        mark: 7,
        offset: 4096,
    };

    fn mapped(len: u64) -> Piece {
        Piece::Mapped(ByteRange::between(0, len))
    }

    /// The parts of a reply to a read from 4096 on: chunks by type, last mark, offset and length.
    fn chunks_of(in_one: bool, pieces: Vec<Piece>) -> String {
        let len = pieces.iter().map(Piece::len).sum::<u64>();
        let range = ByteRange::between(4096, 4096 + len);
        let reply = Replies::new(Headers::Structured).read(COOKIE, range, in_one, pieces);
        let Reply::Chunks(parts) = reply else {
            return "simple".to_owned();
        };
        let shown: Vec<_> = parts.iter().map(shown).collect();
        shown.join(" ")
    }

    fn shown(part: &Part) -> String {
        let bytes = match part {
            Part::Piece(piece) => return format!("[{}]", piece.len()),
            Part::Own(bytes) => bytes,
        };
        let number = |at: usize, len: usize| {
            let bytes = bytes.get(at..at + len).unwrap_or_default();
            bytes
                .iter()
                .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let last = if number(4, 2) == 1 { "!" } else { "" };
        match number(6, 2) {
            0 => format!("none{last}"),
            1 => format!("data {}+{}{last}", number(20, 8), number(16, 4) - 8),
            2 => format!("hole {}+{}{last}", number(20, 8), number(28, 4)),
            other => format!("{other}"),
        }
    }

    #[test]
    fn zeros_leave_as_holes_and_neighbours_are_put_together() {
        let pieces = vec![
            mapped(512),
            mapped(512),
            Piece::Zeros(4096),
            Piece::Zeros(4096),
            mapped(1024),
        ];
        assert_eq!(
            chunks_of(false, pieces),
            "data 4096+1024 [512] [512] hole 5120+8192 data 13312+1024! [1024]"
        );
        assert_eq!(
            chunks_of(false, vec![mapped(512), Piece::Zeros(512)]),
            "data 4096+512 [512] hole 4608+512!"
        );
    }

    #[test]
    fn a_read_in_one_piece_has_its_zeros_among_the_data() {
        let pieces = vec![Piece::Zeros(512), mapped(512), Piece::Zeros(512)];
        assert_eq!(chunks_of(true, pieces), "data 4096+1536! [512] [512] [512]");
        let zeros = vec![Piece::Zeros(512), Piece::Zeros(512)];
        assert_eq!(chunks_of(true, zeros), "hole 4096+1024!");
    }

    #[test]
    fn a_read_of_nothing_is_answered_by_an_end() {
        assert_eq!(chunks_of(false, Vec::new()), "none!");
        assert_eq!(chunks_of(true, vec![Piece::Zeros(0)]), "none!");
    }

    #[test]
    fn a_simple_reply_has_its_zeros_among_the_data() {
        let range = ByteRange::between(4096, 8192);
        let replies = Replies::new(Headers::Simple);
        let reply = replies.read(COOKIE, range, false, vec![Piece::Zeros(4096)]);
        assert!(matches!(reply, Reply::Simple(_, pieces) if pieces.len() == 1));
    }

    #[test]
    fn each_context_has_a_chunk_and_the_last_one_ends_the_reply() {
        let extents = vec![Extent {
            length: 512,
            flags: 0,
        }];
        let told = [
            (Context::Allocation, extents.clone()),
            (Context::Overlay, extents),
        ];
        let reply = Replies::new(Headers::Structured).status(COOKIE, &told);
        let Reply::Chunks(parts) = reply else {
            panic!("not in chunks");
        };
        let last = |part: &Part| match part {
            Part::Own(bytes) => bytes.get(5).copied(),
            Part::Piece(_) => None,
        };
        assert_eq!(
            parts.iter().map(last).collect::<Vec<_>>(),
            [Some(0), Some(1)]
        );
    }
}
