//! The states of a handshake, a struct each, so that none sees what is not its own.
//!
//! ```text
//! ClientFlags -> Header -+-> Skip --------------------> Header | Over (ABORT)
//!                  ^     +-> List (asks) --------------> Header
//!                  |     +-> ContextQuery -> Contexts (asks) -> Header
//!                  |     +-> Query +-> Describe (asks) -> Header
//!                  |     |         +-> Go (asks) -------> Header | Over (transmission)
//!                  |     +-> Name ---> ExportName (asks) ---------> Over (transmission or refused)
//!                  +---- every way back
//! ```

use super::contexts::{AnswerContexts, ReadContexts};
use super::gather::{FixedBytes, Payload, Unwanted};
use super::output::Output;
use super::terms::{Negotiated, Terms};
use super::upgrade::{self, Tls, Upgrade};
use super::{End, Event, Listing, Violation};
use crate::limits::{NBD_OPTION_MAX, NBD_OPTIONS_PER_HANDSHAKE, NBD_STRING_MAX};
use crate::nbd::agreed::{Agreed, Headers};
use crate::nbd::wire::{
    ClientFlags, InfoQuery, InfoType, OPTION_HEADER, OptionCode, OptionHeader, OptionReply,
    ReplyType, TextError, export_name_answer, text,
};
use crate::nbd::{BLOCK_SIZES, Described, Refusal};

/// Where a handshake is.
#[derive(Debug)]
pub(super) enum State {
    ClientFlags(AwaitClientFlags),
    Header(AwaitOption),
    Skip(SkipData),
    Name(ReadName),
    Query(ReadQuery),
    ContextQuery(ReadContexts),
    Contexts(AnswerContexts),
    List(AnswerList),
    Describe(AnswerDescribe),
    Go(AnswerGo),
    ExportName(AnswerExportName),
    Upgrade(Upgrade),
    Over,
}

/// A state that was fed: a new one, or itself because bytes are missing.
pub(super) type Fed = Result<State, State>;

impl State {
    /// Takes bytes for one step; whether there was one. States that wait for the driver take none.
    pub(super) fn feed(&mut self, input: &mut &[u8], output: &mut Output) -> bool {
        let fed = match std::mem::replace(self, Self::Over) {
            Self::ClientFlags(state) => state.feed(input, output),
            Self::Header(state) => state.feed(input, output),
            Self::Skip(state) => state.feed(input, output),
            Self::Name(state) => state.feed(input, output),
            Self::Query(state) => state.feed(input, output),
            Self::ContextQuery(state) => state.feed(input, output),
            waiting => Err(waiting),
        };
        let moved = fed.is_ok();
        *self = fed.unwrap_or_else(|unmoved| unmoved);
        moved
    }
}

/// The greeting was sent; the client's flags come.
#[derive(Debug)]
pub(super) struct AwaitClientFlags {
    bytes: FixedBytes<4>,
}

impl AwaitClientFlags {
    pub(super) const fn new() -> Self {
        Self {
            bytes: FixedBytes::new(),
        }
    }

    fn feed(mut self, input: &mut &[u8], output: &mut Output) -> Fed {
        let Some(bytes) = self.bytes.fill(input) else {
            return Err(State::ClientFlags(self));
        };
        // "the server MUST drop the TCP connection if the client sets an unknown flag, or a flag
        // that does not match something advertised by the server"
        let Some(flags) = ClientFlags::from_bytes(bytes) else {
            return Ok(output.violation(Violation::ClientFlags));
        };
        // "Servers MAY choose to honour fixed newstyle from clients that didn't set this bit": we
        // do.
        let terms = Terms {
            no_zeroes: flags.no_zeroes,
            options_left: NBD_OPTIONS_PER_HANDSHAKE,
            tls: Tls::new(output.tls, flags.fixed_newstyle),
            negotiated: Negotiated::default(),
        };
        Ok(terms.next_option())
    }
}

/// The next bytes are an option's header.
#[derive(Debug)]
pub(super) struct AwaitOption {
    terms: Terms,
    bytes: FixedBytes<OPTION_HEADER>,
}

impl AwaitOption {
    pub(super) const fn new(terms: Terms) -> Self {
        let bytes = FixedBytes::new();
        Self { terms, bytes }
    }

    fn feed(mut self, input: &mut &[u8], output: &mut Output) -> Fed {
        let Some(bytes) = self.bytes.fill(input) else {
            return Err(State::Header(self));
        };
        let Some(header) = OptionHeader::from_bytes(&bytes) else {
            return Ok(output.violation(Violation::OptionMagic));
        };
        // "if a server believes a client's behaviour constitutes a denial of service, it MAY
        // initiate a hard disconnect"
        let Some(options_left) = self.terms.options_left.checked_sub(1) else {
            return Ok(output.violation(Violation::TooManyOptions));
        };
        let terms = Terms {
            options_left,
            ..self.terms
        };
        let nothing_behind = input.is_empty();
        Ok(match header.code {
            OptionCode::STARTTLS => upgrade::begin(terms, header, nothing_behind, output),
            _ => begin_option(terms, header, output),
        })
    }
}

fn begin_option(terms: Terms, header: OptionHeader, output: &mut Output) -> State {
    let refuse = |terms, kind, why| SkipData::refuse(terms, header, kind, why);
    match header.code {
        OptionCode::ABORT => SkipData::begin(terms, header, AfterSkip::Abort),
        // "SHOULD error further options received (other than an NBD_OPT_ABORT) with
        // NBD_REP_ERR_SHUTDOWN"; EXPORT_NAME can't be answered with an error.
        OptionCode::EXPORT_NAME if output.shutting_down => output.close(End::Refused),
        _ if output.shutting_down => refuse(
            terms,
            ReplyType::ERR_SHUTDOWN,
            "the server is shutting down",
        ),
        OptionCode::EXPORT_NAME if terms.tls.is_missing() => output.close(End::Refused),
        _ if terms.tls.is_missing() => {
            let (kind, why) = terms.tls.refusal();
            refuse(terms, kind, why)
        }
        OptionCode::EXPORT_NAME => ReadName::begin(terms, header, output),
        OptionCode::INFO | OptionCode::GO => ReadQuery::begin(terms, header),
        // "the server SHOULD reject a request that includes data with NBD_REP_ERR_INVALID"
        OptionCode::LIST | OptionCode::STRUCTURED_REPLY | OptionCode::EXTENDED_HEADERS
            if header.length > 0 =>
        {
            refuse(terms, ReplyType::ERR_INVALID, "the option takes no data")
        }
        OptionCode::LIST => output.ask(Event::List, State::List(AnswerList { terms })),
        OptionCode::STRUCTURED_REPLY => use_structured(terms, output),
        OptionCode::EXTENDED_HEADERS => use_extended(terms, output),
        OptionCode::LIST_META_CONTEXT | OptionCode::SET_META_CONTEXT => {
            ReadContexts::begin(terms, header)
        }
        // NBD_REP_ERR_UNSUP: "The option sent by the client is unknown by this server
        // implementation".
        _ => refuse(
            terms,
            ReplyType::ERR_UNSUP,
            "this server does not know the option",
        ),
    }
}

/// "Structured replies have been negotiated"; to ask again changes nothing.
fn use_structured(mut terms: Terms, output: &mut Output) -> State {
    let option = OptionCode::STRUCTURED_REPLY;
    if terms.negotiated.headers == Headers::Extended {
        // NBD_REP_ERR_EXT_HEADER_REQD: "The client has already successfully negotiated extended
        // headers, which takes precedence over this option."
        let why = "extended headers were agreed on, and imply structured replies";
        output.refuse(option, ReplyType::ERR_EXT_HEADER_REQD, why);
    } else {
        terms.negotiated.headers = Headers::Structured;
        output.reply(option, OptionReply::Ack);
    }
    terms.next_option()
}

/// "A client MAY request structured replies first, although a server SHOULD support this option
/// even if structured replies are not negotiated."
fn use_extended(mut terms: Terms, output: &mut Output) -> State {
    terms.negotiated.headers = Headers::Extended;
    output.reply(OptionCode::EXTENDED_HEADERS, OptionReply::Ack);
    terms.next_option()
}

/// An option whose data don't matter: the reply comes once they are gone.
#[derive(Debug)]
pub(super) struct SkipData {
    terms: Terms,
    option: OptionCode,
    data: Unwanted,
    then: AfterSkip,
}

#[derive(Clone, Copy, Debug)]
enum AfterSkip {
    /// "The server MUST reply with NBD_REP_ACK", and "SHOULD ignore any data sent by the client".
    Abort,
    Refuse(ReplyType, &'static str),
}

impl SkipData {
    const fn begin(terms: Terms, header: OptionHeader, then: AfterSkip) -> State {
        State::Skip(Self {
            terms,
            option: header.code,
            data: Unwanted::new(header.length),
            then,
        })
    }

    /// Refuses the option once its data are gone.
    pub(super) const fn refuse(
        terms: Terms,
        header: OptionHeader,
        kind: ReplyType,
        why: &'static str,
    ) -> State {
        Self::begin(terms, header, AfterSkip::Refuse(kind, why))
    }

    /// NBD_REP_ERR_TOO_BIG: "The request or the reply is too large to process."
    pub(super) const fn too_big(terms: Terms, header: OptionHeader) -> State {
        let why = "the option has more data than this server reads";
        Self::refuse(terms, header, ReplyType::ERR_TOO_BIG, why)
    }

    fn feed(mut self, input: &mut &[u8], output: &mut Output) -> Fed {
        if !self.data.drop_from(input) {
            return Err(State::Skip(self));
        }
        Ok(match self.then {
            AfterSkip::Abort => {
                output.reply(self.option, OptionReply::Ack);
                output.close(End::Aborted)
            }
            AfterSkip::Refuse(kind, message) => {
                output.refuse(self.option, kind, message);
                self.terms.next_option()
            }
        })
    }
}

/// The data of EXPORT_NAME come.
#[derive(Debug)]
pub(super) struct ReadName {
    terms: Terms,
    data: Payload,
}

impl ReadName {
    fn begin(terms: Terms, header: OptionHeader, output: &mut Output) -> State {
        // "any client opting in to extended headers will use NBD_OPT_GO instead of the weaker
        // NBD_OPT_EXPORT_NAME", which has no error reply.
        if terms.negotiated.headers == Headers::Extended {
            return output.violation(Violation::ExportName);
        }
        match usize::try_from(header.length) {
            Ok(length) if length <= NBD_STRING_MAX => State::Name(Self {
                terms,
                data: Payload::new(length),
            }),
            _ => output.violation(Violation::Name(TextError::TooLong)),
        }
    }

    fn feed(mut self, input: &mut &[u8], output: &mut Output) -> Fed {
        let Some(data) = self.data.fill(input) else {
            return Err(State::Name(self));
        };
        Ok(match text(&data) {
            Ok(name) => {
                let name = name.to_owned();
                let waiting = State::ExportName(AnswerExportName {
                    no_zeroes: self.terms.no_zeroes,
                    agreed: self.terms.agreed_for(&name),
                });
                output.ask(Event::Open { name }, waiting)
            }
            Err(error) => output.violation(Violation::Name(error)),
        })
    }
}

/// The data of INFO or GO come.
#[derive(Debug)]
pub(super) struct ReadQuery {
    terms: Terms,
    option: OptionCode,
    data: Payload,
}

impl ReadQuery {
    fn begin(terms: Terms, header: OptionHeader) -> State {
        match usize::try_from(header.length) {
            Ok(length) if length <= NBD_OPTION_MAX => State::Query(Self {
                terms,
                option: header.code,
                data: Payload::new(length),
            }),
            _ => SkipData::too_big(terms, header),
        }
    }

    fn feed(mut self, input: &mut &[u8], output: &mut Output) -> Fed {
        let Some(data) = self.data.fill(input) else {
            return Err(State::Query(self));
        };
        Ok(match InfoQuery::from_bytes(&data) {
            Ok(query) => self.ask(query, output),
            Err(error) => {
                output.refuse(self.option, ReplyType::ERR_INVALID, &error.to_string());
                self.terms.next_option()
            }
        })
    }

    fn ask(self, query: InfoQuery, output: &mut Output) -> State {
        let name = query.name.clone();
        let terms = self.terms;
        if self.option == OptionCode::GO {
            output.ask(Event::Open { name }, State::Go(AnswerGo { terms, query }))
        } else {
            let waiting = State::Describe(AnswerDescribe { terms, query });
            output.ask(Event::Describe { name }, waiting)
        }
    }
}

/// [`Event::List`] waits for its answer.
#[derive(Debug)]
pub(super) struct AnswerList {
    terms: Terms,
}

impl AnswerList {
    pub(super) fn answer(
        self,
        answer: &Result<Vec<Listing>, Refusal>,
        output: &mut Output,
    ) -> State {
        let exports = match answer {
            Ok(exports) => exports,
            // "server policy forbids the server to allow the option (e.g. the client sent
            // `NBD_OPT_LIST` but server configuration has that disabled)"
            Err(refusal) => {
                output.refuse(
                    OptionCode::LIST,
                    self.terms.tls.kind_of(refusal, OptionCode::LIST),
                    refusal.message(),
                );
                return self.terms.next_option();
            }
        };
        for Listing { name, description } in exports {
            output.reply(OptionCode::LIST, OptionReply::Server { name, description });
        }
        output.reply(OptionCode::LIST, OptionReply::Ack);
        self.terms.next_option()
    }
}

/// [`Event::Describe`] waits for its answer.
#[derive(Debug)]
pub(super) struct AnswerDescribe {
    terms: Terms,
    query: InfoQuery,
}

impl AnswerDescribe {
    pub(super) fn answer(self, answer: &Result<Described, Refusal>, output: &mut Output) -> State {
        let agreed = self.terms.agreed_for(&self.query.name);
        let tls = self.terms.tls;
        describe(OptionCode::INFO, &self.query, (agreed, tls), answer, output);
        self.terms.next_option()
    }
}

/// [`Event::Open`] of a GO waits for its answer.
#[derive(Debug)]
pub(super) struct AnswerGo {
    terms: Terms,
    query: InfoQuery,
}

impl AnswerGo {
    pub(super) fn answer(self, answer: &Result<Described, Refusal>, output: &mut Output) -> State {
        let agreed = self.terms.agreed_for(&self.query.name);
        let tls = self.terms.tls;
        describe(OptionCode::GO, &self.query, (agreed, tls), answer, output);
        match answer {
            Ok(described) => output.end(Event::Finished(described.info, agreed)),
            Err(_) => self.terms.next_option(),
        }
    }
}

/// [`Event::Open`] of an EXPORT_NAME waits for its answer.
#[derive(Debug)]
pub(super) struct AnswerExportName {
    no_zeroes: bool,
    agreed: Agreed,
}

impl AnswerExportName {
    pub(super) fn answer(self, answer: &Result<Described, Refusal>, output: &mut Output) -> State {
        match answer {
            Ok(Described { info, .. }) => {
                let flags = info.transmission_flags(self.agreed);
                let bytes = export_name_answer(info.size, flags, self.no_zeroes);
                output.bytes.extend_from_slice(&bytes);
                output.end(Event::Finished(*info, self.agreed))
            }
            // "If the server is unwilling to allow the export, it MUST terminate the session."
            Err(_) => output.close(End::Refused),
        }
    }
}

/// The replies to INFO and GO, which "have identical formats for requests and replies".
fn describe(
    option: OptionCode,
    query: &InfoQuery,
    (agreed, tls): (Agreed, Tls),
    answer: &Result<Described, Refusal>,
    output: &mut Output,
) {
    let Described {
        info,
        name,
        description,
    } = match answer {
        Ok(described) => described,
        // NBD_REP_ERR_UNKNOWN: "In this case, the server SHOULD NOT send NBD_REP_INFO replies."
        Err(refusal) => {
            return output.refuse(option, tls.kind_of(refusal, option), refusal.message());
        }
    };
    // "the server MUST send at least one NBD_REP_INFO, with an NBD_INFO_EXPORT information type"
    let size = info.size;
    let flags = info.transmission_flags(agreed);
    output.reply(option, OptionReply::Export { size, flags });
    if query.infos.contains(&InfoType::NAME) {
        let name = name.as_ref().unwrap_or(&query.name);
        output.reply(option, OptionReply::Name(name));
    }
    if let Some(description) = description
        && query.infos.contains(&InfoType::DESCRIPTION)
    {
        output.reply(option, OptionReply::Description(description));
    }
    // "The server MAY send information requests back which are not explicitly requested".
    output.reply(option, OptionReply::BlockSizes(BLOCK_SIZES));
    // "The server MUST ignore any information requests it does not understand."
    output.reply(option, OptionReply::Ack);
}
