//! STARTTLS, and what a handshake may do without it.
//!
//! Invariants: nothing that was agreed on, and no byte that came, before TLS counts after it;
//! ERR_TLS_REQD is never sent where TLS is off or there already.

use super::output::Output;
use super::states::{SkipData, State};
use super::terms::{Negotiated, Terms};
use super::{Event, TlsMode, Violation};
use crate::nbd::Refusal;
use crate::nbd::wire::{OptionCode, OptionHeader, OptionReply, ReplyType};

/// Where one connection is with TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tls {
    /// There is none.
    Off,
    /// It is required, and this client can't have it.
    Barred,
    /// It may be.
    Possible,
    /// It must be, and is not yet.
    Missing,
    /// It is there.
    On,
}

impl Tls {
    /// "The server MUST operate in NOTLS mode unless [...] the client replied with
    /// `NBD_FLAG_C_FIXED_NEWSTYLE`".
    pub(super) const fn new(mode: TlsMode, fixed_newstyle: bool) -> Self {
        match mode {
            TlsMode::Selective if fixed_newstyle => Self::Possible,
            TlsMode::Required if fixed_newstyle => Self::Missing,
            TlsMode::Required => Self::Barred,
            TlsMode::Off | TlsMode::Selective => Self::Off,
        }
    }

    /// Whether no option may be served yet.
    pub(super) const fn is_missing(self) -> bool {
        matches!(self, Self::Missing | Self::Barred)
    }

    /// What options get meanwhile. FORCEDTLS: "If the server receives any other option, it MUST
    /// reply with `NBD_REP_ERR_TLS_REQD` if TLS has not been initiated."
    pub(super) const fn refusal(self) -> (ReplyType, &'static str) {
        match self {
            // "The server MUST NOT respond to any option request with `NBD_REP_ERR_TLS_REQD`."
            Self::Barred => (
                ReplyType::ERR_POLICY,
                "TLS is required, and needs a client that sets NBD_FLAG_C_FIXED_NEWSTYLE",
            ),
            _ => (ReplyType::ERR_TLS_REQD, "this server requires TLS"),
        }
    }

    /// The error reply to `option` that carries a refusal of an export.
    pub(super) fn kind_of(self, refusal: &Refusal, option: OptionCode) -> ReplyType {
        // "The server MUST NOT send `NBD_REP_ERR_TLS_REQD` in response to any option other than
        // `NBD_OPT_INFO`, `NBD_OPT_GO` and `NBD_OPT_EXPORT_NAME`".
        let may_ask_for_tls = matches!(option, OptionCode::INFO | OptionCode::GO);
        match (refusal, self) {
            (Refusal::TlsRequired(_), Self::Possible | Self::Missing) if may_ask_for_tls => {
                ReplyType::ERR_TLS_REQD
            }
            (Refusal::TlsRequired(_), _) => ReplyType::ERR_POLICY,
            _ => refusal.reply_type(),
        }
    }
}

/// Answers STARTTLS.
pub(super) fn begin(
    terms: Terms,
    header: OptionHeader,
    nothing_behind: bool,
    output: &mut Output,
) -> State {
    let refuse = |terms, kind, why| SkipData::refuse(terms, header, kind, why);
    if output.shutting_down {
        let why = "the server is shutting down";
        return refuse(terms, ReplyType::ERR_SHUTDOWN, why);
    }
    match terms.tls {
        Tls::Off | Tls::Barred => refuse(
            terms,
            ReplyType::ERR_UNSUP,
            "this server does not use TLS with this client",
        ),
        // "If the server receives `NBD_OPT_STARTTLS` when TLS has already been negotiated, it MUST
        // reply with `NBD_REP_ERR_INVALID`."
        Tls::On => refuse(terms, ReplyType::ERR_INVALID, "TLS is there already"),
        Tls::Possible | Tls::Missing if header.length > 0 => {
            refuse(terms, ReplyType::ERR_INVALID, "the option takes no data")
        }
        // What came with the option came before the ACK, when nobody was to speak but us: whoever
        // put it there wants it to be taken for something that TLS protects.
        Tls::Possible | Tls::Missing if !nothing_behind => {
            output.violation(Violation::BehindStartTls)
        }
        Tls::Possible | Tls::Missing => {
            output.reply(OptionCode::STARTTLS, OptionReply::Ack);
            output.ask(Event::StartTls, State::Upgrade(Upgrade { terms }))
        }
    }
}

/// [`Event::StartTls`] was told; TLS is on its way, and no byte of the stream is an option's.
#[derive(Debug)]
pub(super) struct Upgrade {
    terms: Terms,
}

impl Upgrade {
    /// "When this command succeeds, the server MUST NOT preserve any negotiation state (such as a
    /// request for `NBD_OPT_STRUCTURED_REPLY`, or metadata contexts from
    /// `NBD_OPT_SET_META_CONTEXT`) issued before this command." The flags of the greeting are not
    /// sent again, and patience does not come back.
    pub(super) fn done(self) -> State {
        let terms = Terms {
            tls: Tls::On,
            negotiated: Negotiated::default(),
            ..self.terms
        };
        terms.next_option()
    }
}
