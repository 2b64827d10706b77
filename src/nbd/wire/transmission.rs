//! The transmission phase: request headers and simple replies.
//!
//! An extended request is a draft: branch extension-ext-header of the protocol document.

use super::{wire_flags, wire_number};
use std::io;
use zerocopy::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute};

const REQUEST_MAGIC: u32 = 0x2560_9513;
const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;

/// Bytes of a request header.
pub const REQUEST_HEADER: usize = size_of::<RequestLayout>();

/// Bytes of an extended request header.
pub const EXTENDED_REQUEST_HEADER: usize = size_of::<ExtendedRequestLayout>();

/// Bytes of a simple reply, without the data of a read.
pub const SIMPLE_REPLY: usize = size_of::<SimpleReplyLayout>();

const _: () = assert!(REQUEST_HEADER == 28 && SIMPLE_REPLY == 16);
const _: () = assert!(EXTENDED_REQUEST_HEADER == 32);

/// What a reply echoes of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cookie {
    /// The client's mark of the request; opaque.
    pub mark: u64,
    /// The request's offset, which extended replies echo too.
    pub offset: u64,
}

wire_number! {
    /// The kind of a request (`NBD_CMD_*`).
    RequestType: u16 {
        /// Send bytes of the disk.
        READ = 0,
        /// Store the payload; with compact headers the only request that has one.
        WRITE = 1,
        /// Finish what is begun and close; has no reply.
        DISC = 2,
        /// Make durable what was replied to.
        FLUSH = 3,
        /// The bytes are no longer needed.
        TRIM = 4,
        /// The bytes will be needed soon.
        CACHE = 5,
        /// Make the bytes read as zero.
        WRITE_ZEROES = 6,
        /// Describe the bytes.
        BLOCK_STATUS = 7,
        /// Change the size of the disk (a draft).
        RESIZE = 8,
    }
}

wire_flags! {
    /// The flags of one request (`NBD_CMD_FLAG_*`).
    CommandFlags: u16 {
        /// Reply only when the change is durable.
        FUA = 0,
        /// Zeroed bytes must keep their space.
        NO_HOLE = 1,
        /// Answer a read in one piece.
        DF = 2,
        /// Describe one extent only.
        REQ_ONE = 3,
        /// Zero quickly or not at all.
        FAST_ZERO = 4,
        /// The length is that of a payload.
        PAYLOAD_LEN = 5,
    }
}

wire_flags! {
    /// What the server offers of an export (`NBD_FLAG_*`).
    TransmissionFlags: u16 {
        /// Always set.
        HAS_FLAGS = 0,
        /// Every change is refused.
        READ_ONLY = 1,
        /// FLUSH is understood.
        SEND_FLUSH = 2,
        /// The FUA flag is understood.
        SEND_FUA = 3,
        /// The disk has seek times.
        ROTATIONAL = 4,
        /// TRIM is understood.
        SEND_TRIM = 5,
        /// WRITE_ZEROES and NO_HOLE are understood.
        SEND_WRITE_ZEROES = 6,
        /// The DF flag is understood.
        SEND_DF = 7,
        /// All connections to the export see one disk.
        CAN_MULTI_CONN = 8,
        /// RESIZE is understood (a draft).
        SEND_RESIZE = 9,
        /// CACHE is understood.
        SEND_CACHE = 10,
        /// The FAST_ZERO flag is understood.
        SEND_FAST_ZERO = 11,
        /// BLOCK_STATUS may carry the contexts that are wanted (a draft).
        BLOCK_STATUS_PAYLOAD = 12,
    }
}

wire_number! {
    /// Why a request failed. The protocol allows these values only; ENOMEM is left out because "the
    /// server SHOULD NOT return `NBD_ENOMEM` if at all possible".
    Errno: u32 {
        /// The export is read-only.
        EPERM = 1,
        /// The disk failed.
        EIO = 5,
        /// The request makes no sense.
        EINVAL = 22,
        /// No space is left, or a change reaches past the end.
        ENOSPC = 28,
        /// The request is too large in a way the protocol names.
        EOVERFLOW = 75,
        /// A fast zero would not be fast.
        ENOTSUP = 95,
        /// The server is going down.
        ESHUTDOWN = 108,
    }
}

impl Errno {
    /// The value that tells a client about a failure of our own I/O.
    #[must_use]
    pub const fn of_io(kind: io::ErrorKind) -> Self {
        match kind {
            // "It also SHOULD map the EDQUOT and EFBIG errors to NBD_ENOSPC."
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::ENOSPC,
            _ => Self::EIO,
        }
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RequestLayout {
    magic: U32,
    flags: U16,
    kind: U16,
    cookie: U64,
    offset: U64,
    length: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ExtendedRequestLayout {
    magic: U32,
    flags: U16,
    kind: U16,
    cookie: U64,
    offset: U64,
    length: U64,
}

/// One request as it was sent; only its magic number has been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// Its flags.
    pub flags: CommandFlags,
    /// What is wanted.
    pub kind: RequestType,
    /// The client's mark of it.
    pub mark: u64,
    /// The first byte it is about.
    pub offset: u64,
    /// How many bytes it is about, or how many follow.
    pub length: u64,
}

impl RequestHeader {
    /// The request in `bytes`; `None` where they don't start with the magic number of requests.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; REQUEST_HEADER]) -> Option<Self> {
        let layout: RequestLayout = transmute!(*bytes);
        (layout.magic.get() == REQUEST_MAGIC).then(|| Self {
            flags: CommandFlags::from_wire(layout.flags.get()),
            kind: RequestType::from_wire(layout.kind.get()),
            mark: layout.cookie.get(),
            offset: layout.offset.get(),
            length: layout.length.get().into(),
        })
    }

    /// The extended request in `bytes`; `None` where they start with another magic number.
    #[must_use]
    pub fn from_extended(bytes: &[u8; EXTENDED_REQUEST_HEADER]) -> Option<Self> {
        let layout: ExtendedRequestLayout = transmute!(*bytes);
        (layout.magic.get() == EXTENDED_REQUEST_MAGIC).then(|| Self {
            flags: CommandFlags::from_wire(layout.flags.get()),
            kind: RequestType::from_wire(layout.kind.get()),
            mark: layout.cookie.get(),
            offset: layout.offset.get(),
            length: layout.length.get(),
        })
    }

    /// What the reply has to echo.
    #[must_use]
    pub const fn cookie(&self) -> Cookie {
        Cookie {
            mark: self.mark,
            offset: self.offset,
        }
    }

    /// The bytes a client sends; `None` where the length needs an extended header.
    #[must_use]
    pub fn to_bytes(self) -> Option<[u8; REQUEST_HEADER]> {
        let length: u32 = self.length.try_into().ok()?;
        Some(transmute!(RequestLayout {
            magic: REQUEST_MAGIC.into(),
            flags: self.flags.to_wire().into(),
            kind: self.kind.to_wire().into(),
            cookie: self.mark.into(),
            offset: self.offset.into(),
            length: length.into(),
        }))
    }

    /// The bytes a client sends that has agreed on extended headers.
    #[must_use]
    pub fn to_extended(self) -> [u8; EXTENDED_REQUEST_HEADER] {
        transmute!(ExtendedRequestLayout {
            magic: EXTENDED_REQUEST_MAGIC.into(),
            flags: self.flags.to_wire().into(),
            kind: self.kind.to_wire().into(),
            cookie: self.mark.into(),
            offset: self.offset.into(),
            length: self.length.into(),
        })
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SimpleReplyLayout {
    magic: U32,
    error: U32,
    cookie: U64,
}

/// The answer to one request; the data of a successful read follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimpleReply {
    mark: u64,
    result: Result<(), Errno>,
}

impl SimpleReply {
    /// The answer to the request with this cookie.
    #[must_use]
    pub const fn new(cookie: Cookie, result: Result<(), Errno>) -> Self {
        let mark = cookie.mark;
        Self { mark, result }
    }

    /// The mark of the request that it answers.
    #[must_use]
    pub const fn mark(self) -> u64 {
        self.mark
    }

    /// How the request ended.
    ///
    /// # Errors
    /// The server's reason.
    pub const fn result(self) -> Result<(), Errno> {
        self.result
    }

    /// The bytes a server sends.
    #[must_use]
    pub fn to_bytes(self) -> [u8; SIMPLE_REPLY] {
        transmute!(SimpleReplyLayout {
            magic: SIMPLE_REPLY_MAGIC.into(),
            error: self.result.err().map_or(0, Errno::to_wire).into(),
            cookie: self.mark.into(),
        })
    }

    /// The reply in `bytes`; `None` where they don't start with the magic number of simple replies.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; SIMPLE_REPLY]) -> Option<Self> {
        let layout: SimpleReplyLayout = transmute!(*bytes);
        let result = match layout.error.get() {
            0 => Ok(()),
            error => Err(Errno::from_wire(error)),
        };
        let mark = layout.cookie.get();
        (layout.magic.get() == SIMPLE_REPLY_MAGIC).then_some(Self { mark, result })
    }
}
