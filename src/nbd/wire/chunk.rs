//! The chunks of structured and extended replies.
//!
//! Extended replies are a draft: branch extension-ext-header of the protocol document.

use super::{Cookie, Errno, clipped, wire_flags, wire_number};
use crate::nbd::agreed::Headers;

const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
const EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

/// Bytes before the payload of a structured chunk.
pub const STRUCTURED_HEADER: usize = 20;

/// Bytes before the payload of an extended chunk.
pub const EXTENDED_HEADER: usize = 32;

/// Bit 15 of a chunk type marks an error.
const ERROR: u16 = 1 << 15;

wire_flags! {
    /// The flags of one chunk (`NBD_REPLY_FLAG_*`).
    ChunkFlags: u16 {
        /// The last chunk of its reply.
        DONE = 0,
    }
}

wire_number! {
    /// What a chunk holds (`NBD_REPLY_TYPE_*`).
    ChunkType: u16 {
        /// Nothing; the end of a reply.
        NONE = 0,
        /// Bytes of the disk.
        OFFSET_DATA = 1,
        /// Bytes of the disk that are zeros.
        OFFSET_HOLE = 2,
        /// A description of blocks, in 32 bits.
        BLOCK_STATUS = 5,
        /// A description of blocks, in 64 bits.
        BLOCK_STATUS_EXT = 6,
        /// The request failed.
        ERROR = ERROR + 1,
        /// The request failed at a byte of the disk.
        ERROR_OFFSET = ERROR + 2,
    }
}

wire_flags! {
    /// What `base:allocation` tells of an extent (`NBD_STATE_*`).
    AllocationFlags: u32 {
        /// No space is allocated to it.
        HOLE = 0,
        /// It reads as zeros.
        ZERO = 1,
    }
}

wire_flags! {
    /// What `x-cowherd:overlay` tells of an extent.
    OverlayFlags: u32 {
        /// It is the client's own: what the image holds there is not seen.
        OWN = 0,
    }
}

/// A part of the disk and what one context says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes; not 0.
    pub length: u64,
    /// Flags of the context.
    pub flags: u32,
}

/// The longest extent that a compact status tells of: as long as fits, in whole blocks.
const COMPACT_EXTENT_MAX: u64 = 0xffff_f000;

/// One chunk of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk<'a> {
    /// The end of a reply whose chunks so far did not say it.
    None,
    /// So many bytes of the disk, not 0, which the caller sends after the chunk's own.
    Data {
        /// Where they are.
        offset: u64,
        /// How many.
        length: u32,
    },
    /// So many zeros of the disk, not 0.
    Hole {
        /// Where they are.
        offset: u64,
        /// How many.
        length: u32,
    },
    /// What a context says of the disk from the request's offset on.
    Status {
        /// The context's number.
        id: u32,
        /// At least one extent.
        extents: &'a [Extent],
    },
    /// The request failed.
    Error {
        /// Why.
        errno: Errno,
        /// Why, for a human.
        message: &'a str,
        /// The byte of the request at which it failed, where that is known.
        at: Option<u64>,
    },
}

impl Chunk<'_> {
    /// The bytes of the chunk, all but those of the disk. `is_last`: no other chunk of the reply
    /// follows. Only for headers that have chunks.
    #[must_use]
    pub fn to_bytes(&self, headers: Headers, cookie: Cookie, is_last: bool) -> Vec<u8> {
        let payload = self.payload(headers);
        let follows = match self {
            Self::Data { length, .. } => u64::from(*length),
            _ => 0,
        };
        let length = payload.len() as u64 + follows;
        let mut bytes = header(headers, self.kind(headers), cookie, is_last, length);
        bytes.extend_from_slice(&payload);
        bytes
    }

    const fn kind(&self, headers: Headers) -> ChunkType {
        match (self, headers) {
            (Self::None, _) => ChunkType::NONE,
            (Self::Data { .. }, _) => ChunkType::OFFSET_DATA,
            (Self::Hole { .. }, _) => ChunkType::OFFSET_HOLE,
            // "This chunk type MUST NOT be used unless extended headers were negotiated"; with
            // them we use no other, since both must never be mixed in one answer.
            (Self::Status { .. }, Headers::Extended) => ChunkType::BLOCK_STATUS_EXT,
            (Self::Status { .. }, _) => ChunkType::BLOCK_STATUS,
            (Self::Error { at: None, .. }, _) => ChunkType::ERROR,
            (Self::Error { at: Some(_), .. }, _) => ChunkType::ERROR_OFFSET,
        }
    }

    fn payload(&self, headers: Headers) -> Vec<u8> {
        match *self {
            Self::None => Vec::new(),
            Self::Data { offset, .. } => offset.to_be_bytes().to_vec(),
            Self::Hole { offset, length } => {
                [&offset.to_be_bytes()[..], &length.to_be_bytes()].concat()
            }
            Self::Status { id, extents } if headers == Headers::Extended => wide(id, extents),
            Self::Status { id, extents } => compact(id, extents),
            Self::Error { errno, message, at } => error(errno, message, at),
        }
    }
}

fn header(
    headers: Headers,
    kind: ChunkType,
    cookie: Cookie,
    is_last: bool,
    length: u64,
) -> Vec<u8> {
    let flags = if is_last {
        ChunkFlags::DONE
    } else {
        ChunkFlags::NONE
    };
    let extended = headers == Headers::Extended;
    let magic = if extended {
        EXTENDED_REPLY_MAGIC
    } else {
        STRUCTURED_REPLY_MAGIC
    };
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(&magic.to_be_bytes());
    bytes.extend_from_slice(&flags.to_wire().to_be_bytes());
    bytes.extend_from_slice(&kind.to_wire().to_be_bytes());
    bytes.extend_from_slice(&cookie.mark.to_be_bytes());
    if extended {
        // "an additional field *offset* which MUST match the *offset* of the client's request"
        bytes.extend_from_slice(&cookie.offset.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
    } else {
        // A payload is 32 MiB and a few bytes at most.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
    }
    bytes
}

/// "*length* MUST be 8 + (a positive multiple of 16)".
fn wide(id: u32, extents: &[Extent]) -> Vec<u8> {
    let mut payload = id.to_be_bytes().to_vec();
    // "32 bits, descriptor count"
    let count = u32::try_from(extents.len()).unwrap_or(0);
    payload.extend_from_slice(&count.to_be_bytes());
    for extent in extents {
        payload.extend_from_slice(&extent.length.to_be_bytes());
        // "the most-significant 32 bits of *status* MUST be all zeroes"
        payload.extend_from_slice(&u64::from(extent.flags).to_be_bytes());
    }
    payload
}

/// "*length* MUST be 4 + (a positive integer multiple of 8)".
fn compact(id: u32, extents: &[Extent]) -> Vec<u8> {
    let mut payload = id.to_be_bytes().to_vec();
    for extent in extents {
        let length = extent.length.min(COMPACT_EXTENT_MAX);
        let length32 = u32::try_from(length).unwrap_or(u32::MAX);
        payload.extend_from_slice(&length32.to_be_bytes());
        payload.extend_from_slice(&extent.flags.to_be_bytes());
        if length < extent.length {
            // What would come after lies further on than the client would take it to be; and "the
            // server MAY return less data than requested".
            break;
        }
    }
    payload
}

/// "32 bits: error (MUST be nonzero); 16 bits: message length; *message length* bytes", and for an
/// error at a byte "64 bits: offset" at the end.
fn error(errno: Errno, message: &str, at: Option<u64>) -> Vec<u8> {
    // "*message length* MUST NOT exceed the 4096 bytes string length limit."
    let message = clipped(message);
    let length = u16::try_from(message.len()).unwrap_or(0);
    let mut payload = errno.to_wire().to_be_bytes().to_vec();
    payload.extend_from_slice(&length.to_be_bytes());
    payload.extend_from_slice(message.as_bytes());
    if let Some(offset) = at {
        payload.extend_from_slice(&offset.to_be_bytes());
    }
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOKIE: Cookie = Cookie {
        mark: 0x1122,
        offset: 0x3000,
    };

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn structured(chunk: Chunk<'_>, is_last: bool) -> String {
        hex(&chunk.to_bytes(Headers::Structured, COOKIE, is_last))
    }

    fn extended(chunk: Chunk<'_>, is_last: bool) -> String {
        hex(&chunk.to_bytes(Headers::Extended, COOKIE, is_last))
    }

    #[test]
    fn none_bytes() {
        assert_eq!(
            structured(Chunk::None, true),
            "668e33ef000100000000000000001122".to_owned() + "00000000"
        );
        assert_eq!(
            extended(Chunk::None, true),
            "6e8a278c000100000000000000001122".to_owned() + "00000000000030000000000000000000"
        );
    }

    #[test]
    fn the_length_of_a_data_chunk_counts_the_bytes_that_the_caller_sends() {
        let data = Chunk::Data {
            offset: 0x3200,
            length: 0x200,
        };
        assert_eq!(
            structured(data, false),
            "668e33ef000000010000000000001122".to_owned() + "00000208" + "0000000000003200"
        );
        assert_eq!(
            extended(data, true),
            "6e8a278c000100010000000000001122".to_owned()
                + "00000000000030000000000000000208"
                + "0000000000003200"
        );
    }

    #[test]
    fn hole_bytes() {
        let hole = Chunk::Hole {
            offset: 0x3200,
            length: 0x200,
        };
        assert_eq!(
            structured(hole, true),
            "668e33ef000100020000000000001122".to_owned() + "0000000c" + "000000000000320000000200"
        );
    }

    const EXTENTS: [Extent; 2] = [
        Extent {
            length: 0x1000,
            flags: 3,
        },
        Extent {
            length: 0x2000,
            flags: 0,
        },
    ];

    #[test]
    fn status_bytes_in_32_bits() {
        let status = Chunk::Status {
            id: 1,
            extents: &EXTENTS,
        };
        assert_eq!(
            structured(status, true),
            "668e33ef000100050000000000001122".to_owned()
                + "00000014"
                + "00000001"
                + "0000100000000003"
                + "0000200000000000"
        );
    }

    #[test]
    fn status_bytes_in_64_bits() {
        let status = Chunk::Status {
            id: 2,
            extents: &EXTENTS,
        };
        assert_eq!(
            extended(status, false),
            "6e8a278c000000060000000000001122".to_owned()
                + "00000000000030000000000000000028"
                + "0000000200000002"
                + "00000000000010000000000000000003"
                + "00000000000020000000000000000000"
        );
    }

    #[test]
    fn an_extent_past_32_bits_is_cut_and_ends_a_compact_status() {
        let extents = [
            Extent {
                length: 1 << 40,
                flags: 3,
            },
            Extent {
                length: 512,
                flags: 0,
            },
        ];
        let status = Chunk::Status {
            id: 1,
            extents: &extents,
        };
        assert!(structured(status, true).ends_with("0000000c00000001fffff00000000003"));
    }

    #[test]
    fn error_bytes() {
        let error = |at| Chunk::Error {
            errno: Errno::EIO,
            message: "no",
            at,
        };
        assert_eq!(
            structured(error(None), true),
            "668e33ef000180010000000000001122".to_owned() + "00000008" + "0000000500026e6f"
        );
        assert_eq!(
            structured(error(Some(0x3201)), true),
            "668e33ef000180020000000000001122".to_owned()
                + "00000010"
                + "0000000500026e6f"
                + "0000000000003201"
        );
    }

    #[test]
    fn a_message_is_cut_to_what_a_string_may_have() {
        let long = "x".repeat(5000);
        let error = Chunk::Error {
            errno: Errno::EIO,
            message: &long,
            at: None,
        };
        let bytes = error.to_bytes(Headers::Structured, COOKIE, true);
        assert_eq!(bytes.len(), STRUCTURED_HEADER + 6 + 4096);
        let length = bytes.get(STRUCTURED_HEADER + 4..STRUCTURED_HEADER + 6);
        assert_eq!(length, Some(&[0x10, 0][..]));
    }
}
