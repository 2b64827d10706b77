//! The transmission phase: request headers and simple replies.

use super::{wire_flags, wire_number};
use std::io;
use zerocopy::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute};

const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;

/// Bytes of a request header.
pub const REQUEST_HEADER: usize = size_of::<RequestLayout>();

/// Bytes of a simple reply, without the data of a read.
pub const SIMPLE_REPLY: usize = size_of::<SimpleReplyLayout>();

const _: () = assert!(REQUEST_HEADER == 28 && SIMPLE_REPLY == 16);

/// The client's mark of a request; opaque, and echoed in the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cookie(pub u64);

wire_number! {
    /// The kind of a request (`NBD_CMD_*`).
    RequestType: u16 {
        /// Send bytes of the disk.
        READ = 0,
        /// Store the payload; the only request that has one.
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

/// One request as it was sent; only its magic number has been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// Its flags.
    pub flags: CommandFlags,
    /// What is wanted.
    pub kind: RequestType,
    /// The client's mark of it.
    pub cookie: Cookie,
    /// The first byte it is about.
    pub offset: u64,
    /// How many bytes it is about.
    pub length: u32,
}

impl RequestHeader {
    /// The request in `bytes`; `None` where they don't start with the magic number of requests.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; REQUEST_HEADER]) -> Option<Self> {
        let layout: RequestLayout = transmute!(*bytes);
        (layout.magic.get() == REQUEST_MAGIC).then(|| Self {
            flags: CommandFlags::from_wire(layout.flags.get()),
            kind: RequestType::from_wire(layout.kind.get()),
            cookie: Cookie(layout.cookie.get()),
            offset: layout.offset.get(),
            length: layout.length.get(),
        })
    }

    /// The bytes a client sends.
    #[must_use]
    pub fn to_bytes(self) -> [u8; REQUEST_HEADER] {
        transmute!(RequestLayout {
            magic: REQUEST_MAGIC.into(),
            flags: self.flags.to_wire().into(),
            kind: self.kind.to_wire().into(),
            cookie: self.cookie.0.into(),
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
    cookie: Cookie,
    result: Result<(), Errno>,
}

impl SimpleReply {
    /// The answer to the request with this cookie.
    #[must_use]
    pub const fn new(cookie: Cookie, result: Result<(), Errno>) -> Self {
        Self { cookie, result }
    }

    /// Which request it answers.
    #[must_use]
    pub const fn cookie(self) -> Cookie {
        self.cookie
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
            cookie: self.cookie.0.into(),
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
        (layout.magic.get() == SIMPLE_REPLY_MAGIC)
            .then(|| Self::new(Cookie(layout.cookie.get()), result))
    }
}
