//! The handshake: greeting, client flags, options, until an export is chosen or the client leaves.
//!
//! The driver's turn, again and again: give received bytes to [`Handshake::handle_bytes`], send all
//! that [`Handshake::poll_transmit`] returns, act on what [`Handshake::poll_event`] returns. The
//! events [`Event::List`], [`Event::Describe`] and [`Event::Open`] are questions; until they are
//! answered no byte is taken.
//!
//! Invariants: exactly the announced length of every option is taken, on error paths too; every
//! option but EXPORT_NAME ends in one final reply; the reply to a question is in the transmit queue
//! before [`Event::Finished`] or [`Event::Closed`] can be polled; nothing is taken after either.

mod contexts;
mod gather;
mod output;
mod states;
mod terms;
mod upgrade;

use super::agreed::Agreed;
use super::wire::{GREETING, TextError};
use super::{Described, ExportInfo, Refusal};
use output::Output;
use states::{AwaitClientFlags, State};

/// How a server goes about TLS: "it MUST be consistent in its mode of operation across the lifespan
/// of a single TCP connection".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// "The server operates entirely without TLS ('NOTLS')".
    #[default]
    Off,
    /// TLS for those who ask, and for exports that are refused with [`Refusal::TlsRequired`]
    /// ('SELECTIVETLS').
    Selective,
    /// "The server insists upon TLS" ('FORCEDTLS').
    Required,
}

/// An export in the answer to [`Event::List`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The name to open it by.
    pub name: String,
    /// Words for a human; may be empty.
    pub description: String,
}

/// What the driver has to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Which exports are there? Answer with [`Handshake::handle_listing`].
    List,
    /// What is this export like, and is there one? Answer with [`Handshake::handle_described`].
    Describe {
        /// As sent: UTF-8 of at most 4096 bytes without NUL, maybe empty.
        name: String,
    },
    /// May this client have this export? Answer with [`Handshake::handle_opened`].
    Open {
        /// As sent: UTF-8 of at most 4096 bytes without NUL, maybe empty.
        name: String,
    },
    /// The ACK is to be sent, and all that comes after, both ways, is TLS. Go on with
    /// [`Handshake::handle_tls_started`], or "terminate the session".
    StartTls,
    /// The transmission phase begins, and with it a [`super::session::Session`]. All input that was
    /// not taken belongs to that.
    Finished(ExportInfo, Agreed),
    /// Close the connection, after all of the transmit queue was sent.
    Closed(End),
}

/// How a handshake ended without an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client sent ABORT.
    Aborted,
    /// The client used EXPORT_NAME for what it can't have, and that has no error reply.
    Refused,
    /// The client broke the protocol.
    Violation(Violation),
}

/// What a client did that ends the connection: "If either the client or the server detects a
/// violation of a mandatory condition ('MUST' etc.) by the other party, it MAY initiate a hard
/// disconnect."
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// It set a flag that we did not offer.
    #[error("the client set a flag that was not offered")]
    ClientFlags,
    /// Where an option should start, something else is.
    #[error("an option does not start with the magic number of options")]
    OptionMagic,
    /// It goes on with options and never chooses.
    #[error("the client sent more options than a handshake may have")]
    TooManyOptions,
    /// Bytes came with STARTTLS that may be of a third party, and are nothing TLS protects.
    #[error("the client sent more behind STARTTLS before it was answered")]
    BehindStartTls,
    /// The name in EXPORT_NAME is no string of the protocol.
    #[error("EXPORT_NAME: {0}")]
    Name(TextError),
    /// It used EXPORT_NAME after extended headers were agreed on.
    #[error("EXPORT_NAME after EXTENDED_HEADERS, which needs GO")]
    ExportName,
}

/// The server's side of one handshake.
#[derive(Debug)]
pub struct Handshake {
    state: State,
    output: Output,
}

impl Default for Handshake {
    fn default() -> Self {
        Self::new()
    }
}

impl Handshake {
    /// A new connection; the greeting is ready to be sent.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::ClientFlags(AwaitClientFlags::new()),
            output: Output::new(&GREETING),
        }
    }

    /// Uses TLS in this way.
    #[must_use]
    pub const fn with_tls(mut self, mode: TlsMode) -> Self {
        self.output.tls = mode;
        self
    }

    /// Takes bytes of the stream and returns how many; the driver keeps the others and gives them
    /// again after it answered the event that waits.
    pub fn handle_bytes(&mut self, input: &[u8]) -> usize {
        let mut rest = input;
        while self.state.feed(&mut rest, &mut self.output) {}
        input.len() - rest.len()
    }

    /// Bytes to send, in order; `None` where there are none for now.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.output.take_bytes()
    }

    /// The next thing to do; `None` where it takes more bytes, or an answer, to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.output.take_event()
    }

    /// Answers [`Event::List`].
    pub fn handle_listing(&mut self, answer: &Result<Vec<Listing>, Refusal>) {
        self.answer(|state, output| match state {
            State::List(list) => Ok(list.answer(answer, output)),
            other => Err(other),
        });
    }

    /// Answers [`Event::Describe`].
    pub fn handle_described(&mut self, answer: Result<Described, Refusal>) {
        self.answer(|state, output| match state {
            State::Describe(describe) => Ok(describe.answer(&answer, output)),
            State::Contexts(contexts) => Ok(contexts.answer(&answer, output)),
            other => Err(other),
        });
    }

    /// Answers [`Event::Open`].
    pub fn handle_opened(&mut self, answer: Result<Described, Refusal>) {
        self.answer(|state, output| match state {
            State::Go(go) => Ok(go.answer(&answer, output)),
            State::ExportName(name) => Ok(name.answer(&answer, output)),
            other => Err(other),
        });
    }

    /// TLS is there: all bytes from now on, both ways, are those inside of it.
    pub fn handle_tls_started(&mut self) {
        self.answer(|state, _| match state {
            State::Upgrade(upgrade) => Ok(upgrade.done()),
            other => Err(other),
        });
    }

    /// The server is going down: options that come from now on are refused. A question that was
    /// asked before is answered as ever, best with [`Refusal::Shutdown`].
    pub fn handle_shutdown(&mut self) {
        self.output.shutting_down = true;
    }

    /// Moves on by an answer, where the state is one that waits for it. Another answer is a mistake
    /// of the driver, and changes nothing.
    fn answer(&mut self, step: impl FnOnce(State, &mut Output) -> Result<State, State>) {
        let state = std::mem::replace(&mut self.state, State::Over);
        self.state = step(state, &mut self.output).unwrap_or_else(|unmoved| {
            debug_assert!(false, "an answer to a question that was not asked");
            unmoved
        });
    }
}

#[cfg(test)]
mod tests;
