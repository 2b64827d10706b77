//! LIST_META_CONTEXT and SET_META_CONTEXT: which descriptions of blocks there are, and which are
//! wanted.
//!
//! Invariant: when a SET begins, the selection before it is gone, however it ends: "Issuing this
//! command replaces all previously-set metadata contexts (including when this command fails)".

use super::Event;
use super::gather::Payload;
use super::output::Output;
use super::states::{Fed, SkipData, State};
use super::terms::Terms;
use crate::limits::NBD_OPTION_MAX;
use crate::nbd::agreed::{Context, Contexts};
use crate::nbd::wire::{ContextQuery, OptionCode, OptionHeader, OptionReply, ReplyType};
use crate::nbd::{Described, Refusal};

/// The contexts that are wanted of one export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selection {
    /// The export's name as it was sent.
    pub(super) export: String,
    pub(super) contexts: Contexts,
}

/// The data of LIST or SET come.
#[derive(Debug)]
pub(super) struct ReadContexts {
    terms: Terms,
    option: OptionCode,
    data: Payload,
}

impl ReadContexts {
    pub(super) fn begin(mut terms: Terms, header: OptionHeader) -> State {
        if header.code == OptionCode::SET_META_CONTEXT {
            terms.negotiated.selection = None;
        }
        // "This option MUST NOT be requested unless structured replies have been negotiated first.
        // If a client attempts to do so, a server SHOULD send NBD_REP_ERR_INVALID"; with LIST it
        // MAY.
        if !terms.negotiated.headers.have_chunks() {
            let why = "metadata contexts need STRUCTURED_REPLY or EXTENDED_HEADERS first";
            return SkipData::refuse(terms, header, ReplyType::ERR_INVALID, why);
        }
        match usize::try_from(header.length) {
            Ok(length) if length <= NBD_OPTION_MAX => State::ContextQuery(Self {
                terms,
                option: header.code,
                data: Payload::new(length),
            }),
            _ => SkipData::too_big(terms, header),
        }
    }

    pub(super) fn feed(mut self, input: &mut &[u8], output: &mut Output) -> Fed {
        let Some(data) = self.data.fill(input) else {
            return Err(State::ContextQuery(self));
        };
        // "If the option request is syntactically invalid [...], the server MUST fail the request
        // with NBD_REP_ERR_INVALID."
        let query = ContextQuery::from_bytes(&data).map_err(|error| error.to_string());
        Ok(match query.and_then(with_namespaces) {
            Ok(query) => self.ask(query, output),
            Err(why) => {
                output.refuse(self.option, ReplyType::ERR_INVALID, &why);
                self.terms.next_option()
            }
        })
    }

    /// The contexts are those of an export, which must be there for this client.
    fn ask(self, query: ContextQuery, output: &mut Output) -> State {
        let name = query.name.clone();
        let waiting = State::Contexts(AnswerContexts {
            terms: self.terms,
            option: self.option,
            query,
        });
        output.ask(Event::Describe { name }, waiting)
    }
}

/// "For requests that are semantically invalid (such as lacking the required colon that delimits
/// the namespace [...]), the server MAY fail the request with NBD_REP_ERR_INVALID."
fn with_namespaces(query: ContextQuery) -> Result<ContextQuery, String> {
    let is_bare = |query: &&String| !query.contains(':');
    match query.queries.iter().find(is_bare) {
        Some(bare) => Err(format!("the query {bare:?} has no namespace and colon")),
        None => Ok(query),
    }
}

/// [`Event::Describe`] of a LIST or SET waits for its answer.
#[derive(Debug)]
pub(super) struct AnswerContexts {
    terms: Terms,
    option: OptionCode,
    query: ContextQuery,
}

impl AnswerContexts {
    pub(super) fn answer(
        mut self,
        answer: &Result<Described, Refusal>,
        output: &mut Output,
    ) -> State {
        if let Err(refusal) = answer {
            output.refuse(
                self.option,
                self.terms.tls.kind_of(refusal, self.option),
                refusal.message(),
            );
            return self.terms.next_option();
        }
        let contexts = self.matching();
        for context in contexts.iter() {
            output.reply(self.option, self.reply(context));
        }
        output.reply(self.option, OptionReply::Ack);
        if !self.is_list() {
            self.terms.negotiated.selection = Some(Selection {
                export: self.query.name,
                contexts,
            });
        }
        self.terms.next_option()
    }

    fn is_list(&self) -> bool {
        self.option == OptionCode::LIST_META_CONTEXT
    }

    fn reply(&self, context: Context) -> OptionReply<'static> {
        let name = context.name();
        // LIST: "The metadata context ID in these replies is reserved and SHOULD be set to zero".
        let id = if self.is_list() { 0 } else { context.id() };
        OptionReply::Context { id, name }
    }

    /// The contexts that a query names. Those with an unknown namespace or leaf name none: "the
    /// server MUST ignore query strings belonging to an unknown namespace", and for a leaf of
    /// `base` that "is not recognized, the server MUST ignore it rather than report an error".
    fn matching(&self) -> Contexts {
        let queries = &self.query.queries;
        // LIST: "If zero queries are sent, then the server MUST return all the metadata contexts
        // that are available". SET: "the server MUST select no metadata contexts".
        if queries.is_empty() && self.is_list() {
            return Contexts::all();
        }
        let is_named = |context: &Context| {
            let name = context.name();
            queries.iter().any(|query| self.matches(query, name))
        };
        Context::ALL.into_iter().filter(is_named).collect()
    }

    fn matches(&self, query: &str, name: &str) -> bool {
        // `base:`: "the server MUST ignore this form during NBD_OPT_SET_META_CONTEXT, and MUST
        // support this as a wildcard during NBD_OPT_LIST_META_CONTEXT". Ours does the same.
        let is_wildcard = self.is_list() && query.ends_with(':');
        query == name || (is_wildcard && name.starts_with(query))
    }
}
