//! The handshake: greeting, client flags, headers of options and of their replies.

use super::wire_number;
use zerocopy::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute};

const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

const FLAG_FIXED_NEWSTYLE: u16 = 1 << 0;
const FLAG_NO_ZEROES: u16 = 1 << 1;
const FLAG_C_FIXED_NEWSTYLE: u32 = 1 << 0;
const FLAG_C_NO_ZEROES: u32 = 1 << 1;

/// Bytes of an option's header.
pub const OPTION_HEADER: usize = size_of::<OptionLayout>();

/// Bytes of the header of a reply to an option.
pub const OPTION_REPLY_HEADER: usize = size_of::<OptionReplyLayout>();

const _: () = assert!(OPTION_HEADER == 16 && OPTION_REPLY_HEADER == 20);

#[derive(FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct GreetingLayout {
    magic: U64,
    option_magic: U64,
    flags: U16,
}

/// The server's first words.
// "The server MUST NOT set any other flags".
pub const GREETING: [u8; 18] = transmute!(GreetingLayout {
    magic: U64::new(NBD_MAGIC),
    option_magic: U64::new(OPTION_MAGIC),
    flags: U16::new(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES),
});

/// The server's first words, as a client reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerGreeting {
    /// It answers every option.
    pub fixed_newstyle: bool,
    /// It sends no zeros after the answer to EXPORT_NAME where that is not wanted.
    pub no_zeroes: bool,
}

impl ServerGreeting {
    /// How many bytes it has.
    pub const BYTES: usize = GREETING.len();

    /// The greeting in `bytes`; `None` where they are of no server. One that knows no options at
    /// all has no flags either.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let layout: GreetingLayout = transmute!(*bytes);
        let has_options = layout.option_magic.get() == OPTION_MAGIC;
        let flags = if has_options { layout.flags.get() } else { 0 };
        (layout.magic.get() == NBD_MAGIC).then_some(Self {
            fixed_newstyle: flags & FLAG_FIXED_NEWSTYLE != 0,
            no_zeroes: flags & FLAG_NO_ZEROES != 0,
        })
    }
}

/// The client's answer to the greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientFlags {
    /// The client expects a reply to every option.
    pub fixed_newstyle: bool,
    /// The client wants no zeros after the answer to EXPORT_NAME.
    pub no_zeroes: bool,
}

impl ClientFlags {
    /// The flags in `bytes`; `None` where one is set that we did not offer.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 4]) -> Option<Self> {
        let bits = u32::from_be_bytes(bytes);
        (bits & !(FLAG_C_FIXED_NEWSTYLE | FLAG_C_NO_ZEROES) == 0).then_some(Self {
            fixed_newstyle: bits & FLAG_C_FIXED_NEWSTYLE != 0,
            no_zeroes: bits & FLAG_C_NO_ZEROES != 0,
        })
    }

    /// The bytes a client sends.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 4] {
        let fixed_newstyle = u32::from(self.fixed_newstyle) * FLAG_C_FIXED_NEWSTYLE;
        let no_zeroes = u32::from(self.no_zeroes) * FLAG_C_NO_ZEROES;
        (fixed_newstyle | no_zeroes).to_be_bytes()
    }
}

wire_number! {
    /// What a client asks for in the handshake (`NBD_OPT_*`).
    OptionCode: u32 {
        /// Open an export, without a way to refuse it politely.
        EXPORT_NAME = 1,
        /// Give up.
        ABORT = 2,
        /// Name the exports.
        LIST = 3,
        /// Encrypt.
        STARTTLS = 5,
        /// Describe an export.
        INFO = 6,
        /// Open an export.
        GO = 7,
        /// Use structured replies.
        STRUCTURED_REPLY = 8,
        /// Name the metadata contexts.
        LIST_META_CONTEXT = 9,
        /// Select metadata contexts.
        SET_META_CONTEXT = 10,
        /// Use extended headers (a draft).
        EXTENDED_HEADERS = 11,
    }
}

/// Bit 31 of a reply type marks an error.
const ERROR: u32 = 1 << 31;

wire_number! {
    /// What a reply to an option says (`NBD_REP_*`).
    ReplyType: u32 {
        /// Done.
        ACK = 1,
        /// One export of a list.
        SERVER = 2,
        /// One fact about an export.
        INFO = 3,
        /// One metadata context.
        META_CONTEXT = 4,
        /// The option is not known here.
        ERR_UNSUP = ERROR + 1,
        /// The option is forbidden here.
        ERR_POLICY = ERROR + 2,
        /// The option's data are malformed.
        ERR_INVALID = ERROR + 3,
        /// The option can't be had on this machine.
        ERR_PLATFORM = ERROR + 4,
        /// Encrypt first.
        ERR_TLS_REQD = ERROR + 5,
        /// The export is not available.
        ERR_UNKNOWN = ERROR + 6,
        /// The server is going down.
        ERR_SHUTDOWN = ERROR + 7,
        /// Ask for the block sizes first.
        ERR_BLOCK_SIZE_REQD = ERROR + 8,
        /// Request or reply are too large.
        ERR_TOO_BIG = ERROR + 9,
        /// Extended headers exclude this option.
        ERR_EXT_HEADER_REQD = ERROR + 10,
    }
}

impl ReplyType {
    /// Whether the option failed.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.to_wire() & ERROR != 0
    }
}

wire_number! {
    /// A kind of fact about an export (`NBD_INFO_*`).
    InfoType: u16 {
        /// Size and transmission flags.
        EXPORT = 0,
        /// Its name.
        NAME = 1,
        /// Words about it.
        DESCRIPTION = 2,
        /// Its block sizes.
        BLOCK_SIZE = 3,
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct OptionLayout {
    magic: U64,
    code: U32,
    length: U32,
}

/// An option, before its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    /// What is asked.
    pub code: OptionCode,
    /// Bytes of data that follow.
    pub length: u32,
}

impl OptionHeader {
    /// The header in `bytes`; `None` where they don't start with the magic number of options.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; OPTION_HEADER]) -> Option<Self> {
        let layout: OptionLayout = transmute!(*bytes);
        (layout.magic.get() == OPTION_MAGIC).then(|| Self {
            code: OptionCode::from_wire(layout.code.get()),
            length: layout.length.get(),
        })
    }

    /// The bytes a client sends.
    #[must_use]
    pub fn to_bytes(self) -> [u8; OPTION_HEADER] {
        transmute!(OptionLayout {
            magic: OPTION_MAGIC.into(),
            code: self.code.to_wire().into(),
            length: self.length.into(),
        })
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct OptionReplyLayout {
    magic: U64,
    option: U32,
    kind: U32,
    length: U32,
}

/// A reply to an option, before its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionReplyHeader {
    /// What was asked.
    pub option: OptionCode,
    /// What is answered.
    pub kind: ReplyType,
    /// Bytes of data that follow.
    pub length: u32,
}

impl OptionReplyHeader {
    /// The header in `bytes`; `None` where they don't start with the magic number of replies.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; OPTION_REPLY_HEADER]) -> Option<Self> {
        let layout: OptionReplyLayout = transmute!(*bytes);
        (layout.magic.get() == OPTION_REPLY_MAGIC).then(|| Self {
            option: OptionCode::from_wire(layout.option.get()),
            kind: ReplyType::from_wire(layout.kind.get()),
            length: layout.length.get(),
        })
    }

    /// The bytes a server sends.
    #[must_use]
    pub fn to_bytes(self) -> [u8; OPTION_REPLY_HEADER] {
        transmute!(OptionReplyLayout {
            magic: OPTION_REPLY_MAGIC.into(),
            option: self.option.to_wire().into(),
            kind: self.kind.to_wire().into(),
            length: self.length.into(),
        })
    }
}
