//! Bytes of the NBD protocol as values, and back. Everything is in network byte order.
//!
//! Invariants: no function here panics or allocates by a number of the peer; a value that is not
//! known is kept as it was sent, because ignoring it is the business of the state machines.
#![deny(clippy::indexing_slicing)]

mod chunk;
mod context_query;
mod option;
mod query;
mod reply;
mod text;
mod transmission;

pub use chunk::{
    AllocationFlags, Chunk, ChunkFlags, ChunkType, EXTENDED_HEADER, Extent, OverlayFlags,
    STRUCTURED_HEADER,
};
pub use context_query::ContextQuery;
pub use option::{
    ClientFlags, GREETING, InfoType, OPTION_HEADER, OPTION_REPLY_HEADER, OptionCode, OptionHeader,
    OptionReplyHeader, ReplyType, ServerGreeting,
};
pub use query::{InfoQuery, QueryError};
pub use reply::{BlockSizes, OptionReply, export_name_answer};
pub use text::{TextError, clipped, text};
pub use transmission::{
    CommandFlags, Cookie, EXTENDED_REQUEST_HEADER, Errno, REQUEST_HEADER, RequestHeader,
    RequestType, SIMPLE_REPLY, SimpleReply, TransmissionFlags,
};

/// A number on the wire with names for the values the protocol defines; other values are kept.
macro_rules! wire_number {
    ($(#[$doc:meta])* $name:ident: $int:ty {
        $($(#[$value_doc:meta])* $value_name:ident = $value:expr,)+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name($int);

        impl $name {
            $($(#[$value_doc])* pub const $value_name: Self = Self($value);)+

            /// The values that have a name, and their names.
            pub const NAMED: &'static [(&'static str, Self)] =
                &[$((stringify!($value_name), Self::$value_name),)+];

            /// The value of the number `raw`, be it known or not.
            #[must_use]
            pub const fn from_wire(raw: $int) -> Self {
                Self(raw)
            }

            /// The number as it is sent.
            #[must_use]
            pub const fn to_wire(self) -> $int {
                self.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match *self {
                    $(Self::$value_name => f.write_str(stringify!($value_name)),)+
                    Self(other) => write!(f, "{}({other})", stringify!($name)),
                }
            }
        }
    };
}

/// A set of flags on the wire; bits without a name are kept.
macro_rules! wire_flags {
    ($(#[$doc:meta])* $name:ident: $int:ty {
        $($(#[$flag_doc:meta])* $flag:ident = $bit:expr,)+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $name($int);

        impl $name {
            /// No flag at all.
            pub const NONE: Self = Self(0);
            $($(#[$flag_doc])* pub const $flag: Self = Self(1 << $bit);)+

            /// The flags that have a name, and their names.
            pub const NAMED: &'static [(&'static str, Self)] =
                &[$((stringify!($flag), Self::$flag),)+];

            /// The flags of the number `raw`, be they known or not.
            #[must_use]
            pub const fn from_wire(raw: $int) -> Self {
                Self(raw)
            }

            /// The number as it is sent.
            #[must_use]
            pub const fn to_wire(self) -> $int {
                self.0
            }

            /// These flags and those of `other`.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// Whether every flag of `other` is set here too.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut names: Vec<String> = Vec::new();
                let mut known = Self::NONE;
                $(if self.contains(Self::$flag) {
                    names.push(stringify!($flag).to_owned());
                    known = known.with(Self::$flag);
                })+
                if self.0 != known.0 {
                    names.push(format!("{:#x}", self.0 & !known.0));
                }
                f.write_str(&names.join("|"))
            }
        }
    };
}

use {wire_flags, wire_number};

#[cfg(test)]
mod tests;
