//! The NBD protocol, fixed newstyle, as pure state machines: bytes in, events and bytes out.
//!
//! - [`wire`] turns bytes into values and values into bytes, and knows nothing else.
//! - [`handshake`] leads a client from the greeting to an export.
//! - [`session`] cuts the stream of the transmission phase into commands.
//! - [`agreed`] is what the one settles and the other goes by.
//! - [`validate`] is the one place for the rules about ranges, flags and error numbers.
//!
//! Invariants: nothing here does I/O or knows storage; no number of the peer sizes anything before
//! it was compared with [`crate::limits`]; a quoted rule is from the protocol document,
//! `doc/proto.md` of the reference implementation, or of its branch `extension-ext-header`.

pub mod agreed;
pub mod handshake;
pub mod session;
pub mod validate;
pub mod wire;

#[cfg(test)]
mod cut_stream;

use crate::limits::{NBD_BLOCK_MIN, NBD_BLOCK_PREFERRED, NBD_PAYLOAD_MAX};
use agreed::Agreed;
use wire::{BlockSizes, ReplyType, TransmissionFlags};

/// The block sizes told to every client that asks.
pub const BLOCK_SIZES: BlockSizes = BlockSizes {
    minimum: NBD_BLOCK_MIN,
    preferred: NBD_BLOCK_PREFERRED,
    maximum: NBD_PAYLOAD_MAX,
};

/// What the server offers of one export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// Bytes of the disk.
    pub size: u64,
    /// Whether every change is refused.
    pub read_only: bool,
    /// Whether all connections to the export see one and the same disk.
    pub multi_conn: bool,
}

/// What is told of an export to who asks: size, flags, and words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Size and flags.
    pub info: ExportInfo,
    /// NBD_INFO_NAME: "the server's canonical name of the export"; `None` is the name that was
    /// asked for.
    pub name: Option<String>,
    /// NBD_INFO_DESCRIPTION. Whoever gets the same one again gets the same disk.
    pub description: Option<String>,
}

impl From<ExportInfo> for Described {
    fn from(info: ExportInfo) -> Self {
        Self {
            info,
            name: None,
            description: None,
        }
    }
}

impl ExportInfo {
    /// The flags that tell so to a client that has agreed on this much.
    #[must_use]
    pub fn transmission_flags(self, agreed: Agreed) -> TransmissionFlags {
        // "NBD_FLAG_HAS_FLAGS: MUST always be 1."
        let always = TransmissionFlags::HAS_FLAGS
            .with(TransmissionFlags::SEND_FLUSH)
            .with(TransmissionFlags::SEND_FUA)
            .with(TransmissionFlags::SEND_CACHE);
        let by_access = if self.read_only {
            TransmissionFlags::READ_ONLY
        } else {
            TransmissionFlags::SEND_TRIM
                .with(TransmissionFlags::SEND_WRITE_ZEROES)
                .with(TransmissionFlags::SEND_FAST_ZERO)
        };
        // NBD_FLAG_SEND_DF: "MUST leave this flag clear if structured replies have not been
        // negotiated".
        let where_agreed = [
            (self.multi_conn, TransmissionFlags::CAN_MULTI_CONN),
            (agreed.headers.have_chunks(), TransmissionFlags::SEND_DF),
            (
                agreed.has_status_payload(),
                TransmissionFlags::BLOCK_STATUS_PAYLOAD,
            ),
        ];
        let set = where_agreed.into_iter().filter(|(is_set, _)| *is_set);
        set.fold(always.with(by_access), |flags, (_, flag)| flags.with(flag))
    }
}

/// Why an export is refused, with a message for the human at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such export.
    Unknown(String),
    /// There is, but not for this client, or not now.
    Policy(String),
    /// There is, but only over TLS.
    TlsRequired(String),
    /// The server is going down.
    Shutdown(String),
    /// Our own disk or overlay failed.
    Failed(String),
}

impl Refusal {
    /// The error reply that carries it.
    #[must_use]
    pub const fn reply_type(&self) -> ReplyType {
        match self {
            // NBD_REP_ERR_UNKNOWN: "The requested export is not available." No error reply stands
            // for a failed disk, and this one is true of it; ERR_PLATFORM would speak of the
            // option.
            Self::Unknown(_) | Self::Failed(_) => ReplyType::ERR_UNKNOWN,
            Self::Policy(_) => ReplyType::ERR_POLICY,
            Self::TlsRequired(_) => ReplyType::ERR_TLS_REQD,
            Self::Shutdown(_) => ReplyType::ERR_SHUTDOWN,
        }
    }

    /// The message for the human.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Unknown(text)
            | Self::Policy(text)
            | Self::TlsRequired(text)
            | Self::Shutdown(text)
            | Self::Failed(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::agreed::{Contexts, Headers};
    use super::*;

    fn flags(read_only: bool, multi_conn: bool, headers: Headers, contexts: Contexts) -> String {
        let info = ExportInfo {
            size: 0,
            read_only,
            multi_conn,
        };
        let agreed = Agreed { headers, contexts };
        format!("{:?}", info.transmission_flags(agreed))
    }

    #[test]
    fn a_writable_export_offers_everything() {
        assert_eq!(
            flags(false, true, Headers::Simple, Contexts::NONE),
            "HAS_FLAGS|SEND_FLUSH|SEND_FUA|SEND_TRIM|SEND_WRITE_ZEROES|CAN_MULTI_CONN|SEND_CACHE\
             |SEND_FAST_ZERO"
        );
    }

    #[test]
    fn a_read_only_export_offers_no_way_to_change_it() {
        assert_eq!(
            flags(true, false, Headers::Simple, Contexts::NONE),
            "HAS_FLAGS|READ_ONLY|SEND_FLUSH|SEND_FUA|SEND_CACHE"
        );
    }

    #[test]
    fn reads_in_one_piece_are_offered_where_replies_come_in_chunks() {
        for headers in [Headers::Structured, Headers::Extended] {
            assert_eq!(
                flags(true, false, headers, Contexts::NONE),
                "HAS_FLAGS|READ_ONLY|SEND_FLUSH|SEND_FUA|SEND_DF|SEND_CACHE"
            );
        }
    }

    #[test]
    fn a_choice_of_contexts_is_offered_with_extended_headers_and_contexts_only() {
        let offered = |headers, contexts| {
            flags(false, false, headers, contexts).contains("BLOCK_STATUS_PAYLOAD")
        };
        assert!(offered(Headers::Extended, Contexts::all()));
        assert!(!offered(Headers::Extended, Contexts::NONE));
        assert!(!offered(Headers::Structured, Contexts::all()));
    }
}
