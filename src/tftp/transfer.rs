//! One file on its way to one client.
//!
//! Moments are times since any fixed instant, on a clock that never goes back. Calls to
//! `handle_*` bring what happened; after each, [`Transfer::poll_transmit`] is to be called until it
//! gives nothing, and [`Transfer::handle_timeout`] when [`Transfer::poll_timeout`] has come.
//!
//! Invariants:
//! - Blocks are counted in 64 bits, from 1; the 16 bits of an ACK stand for the number that lies
//!   nearest behind what is known to have arrived, and are ignored where nothing sent has them.
//! - A block is sent again for a timeout or, in a window, for a gap that the client tells of; never
//!   for a second copy of an ACK (RFC 1123, section 4.2.3.1: the Sorcerer's Apprentice bug), nor
//!   for one that may answer a second copy of a block. So what goes wrong once has at most one
//!   window sent twice, and not every window behind it as well.
//! - It ends in bounded time whatever the client does or leaves.

use std::ops::Range;
use std::time::Duration;

use super::terms::Terms;
use super::wire::ErrorCode;
use crate::limits::{
    TFTP_PATIENCE_MAX, TFTP_PATIENCE_MIN, TFTP_PATIENCE_START, TFTP_SILENCE_MAX, TFTP_TRIES_MAX,
};

/// The sending of one file.
#[derive(Clone, Debug)]
pub struct Transfer {
    terms: Terms,
    size: u64,
    /// The client has these blocks: 1 up to this.
    arrived: u64,
    /// The next block to send.
    next: u64,
    /// The last block that was ever sent.
    sent: u64,
    state: State,
    /// When it is too long since something was heard.
    deadline: Duration,
    /// How often the same has been sent without an answer.
    tries: u32,
    /// ACKs of blocks before this one may answer a second copy of a block: clients repeat their
    /// last ACK then, EDK2 for each copy. They tell what has arrived, but not that what is behind
    /// it was lost.
    unambiguous: u64,
    /// When the window was sent, unless a part of it was sent twice.
    sent_at: Option<Duration>,
    /// How long answers take, smoothed.
    round_trip: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The options are told, or to be told; the client has not agreed yet.
    Agreeing { is_told: bool },
    /// Blocks are sent.
    Sending,
    /// It is over.
    Over(Outcome),
}

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client has the whole file.
    Complete,
    /// The client wanted to know of the file only, such as its size, and now does: EDK2 asks for
    /// every file in that way before it loads it.
    Probed,
    /// All was sent, but whether the last of it arrived was never heard.
    Unconfirmed,
    /// The client ended it.
    Refused(ErrorCode),
    /// The client was not heard of any more.
    GaveUp,
}

/// What is to be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// An OACK with [`Terms::agreed`].
    Oack,
    /// The DATA packets of these blocks, in this order.
    Blocks(Range<u64>),
}

impl Transfer {
    /// Begins to send a file of `size` bytes.
    #[must_use]
    pub fn new(terms: Terms, size: u64, now: Duration) -> Self {
        let state = match terms.agreed.is_empty() {
            true => State::Sending,
            false => State::Agreeing { is_told: false },
        };
        let mut transfer = Self {
            terms,
            size,
            arrived: 0,
            next: 1,
            sent: 0,
            state,
            deadline: now,
            tries: 0,
            unambiguous: 0,
            sent_at: Some(now),
            round_trip: None,
        };
        transfer.wait_from(now);
        transfer
    }

    /// What was agreed on.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// How many blocks there are. A file of whole blocks has an empty one behind them.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.size / self.block() + 1
    }

    /// Where in the file a block lies.
    #[must_use]
    pub fn bytes_of(&self, block: u64) -> Range<u64> {
        let start = block.saturating_sub(1).saturating_mul(self.block());
        start.min(self.size)..start.saturating_add(self.block()).min(self.size)
    }

    /// Bytes that the client is known to have.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.bytes_of(self.arrived).end
    }

    /// How it ended; `None` while it goes on.
    #[must_use]
    pub const fn outcome(&self) -> Option<Outcome> {
        match self.state {
            State::Over(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// When to call [`Transfer::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.outcome().is_none().then_some(self.deadline)
    }

    /// What is to be sent now, if anything.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        match self.state {
            State::Agreeing { is_told: false } => {
                self.state = State::Agreeing { is_told: true };
                Some(Transmit::Oack)
            }
            State::Sending => {
                let end = (self.arrived + u64::from(self.terms.window)).min(self.blocks()) + 1;
                let blocks = self.next..end;
                if blocks.is_empty() {
                    return None;
                }
                self.next = end;
                self.sent = self.sent.max(end - 1);
                Some(Transmit::Blocks(blocks))
            }
            _ => None,
        }
    }

    /// The client has the block of this number, and all before.
    pub fn handle_ack(&mut self, now: Duration, number: u16) {
        match self.state {
            // RFC 2347: "An ACK of block 0" answers the OACK.
            State::Agreeing { is_told: true } if number == 0 => {
                self.state = State::Sending;
                self.heard(now, true);
            }
            State::Sending => self.handle_block_ack(now, self.whole_number(number)),
            _ => {}
        }
    }

    fn handle_block_ack(&mut self, now: Duration, block: u64) {
        if block > self.sent {
            // Of long ago, or of nothing that was sent.
        } else if block == self.arrived {
            if self.is_gap_behind(block) {
                self.go_back();
                self.wait_from(now);
            }
        } else {
            let all = block == self.sent;
            self.arrived = block;
            if self.is_gap_behind(block) {
                self.go_back();
            }
            self.next = self.next.max(block + 1);
            self.heard(now, all);
            if self.arrived == self.blocks() {
                self.state = State::Over(Outcome::Complete);
            }
        }
    }

    /// RFC 7440, section 4: an ACK in the middle of a window, or a second one for the same block,
    /// tells that the block behind it was lost. Without windows it tells nothing.
    const fn is_gap_behind(&self, block: u64) -> bool {
        self.terms.window > 1 && self.next > block + 1 && block >= self.unambiguous
    }

    /// What is behind a gap has not been kept: all behind `arrived` is to be sent again.
    fn go_back(&mut self) {
        self.unambiguous = self.sent + 1;
        self.next = self.arrived + 1;
        self.sent_at = None;
    }

    /// The client has ended the transfer.
    pub fn handle_error(&mut self, code: ErrorCode) {
        let is_refusal_of_options = matches!(code, ErrorCode::UNDEFINED | ErrorCode::OPTIONS);
        self.state = State::Over(match self.state {
            State::Over(outcome) => outcome,
            State::Agreeing { .. } if is_refusal_of_options => Outcome::Probed,
            _ => Outcome::Refused(code),
        });
    }

    /// The client is not there any more.
    pub fn handle_gone(&mut self) {
        self.state = State::Over(match self.state {
            State::Over(outcome) => outcome,
            State::Agreeing { .. } => Outcome::Probed,
            State::Sending => self.silent_end(),
        });
    }

    fn silent_end(&self) -> Outcome {
        match self.sent == self.blocks() {
            true => Outcome::Unconfirmed,
            false => Outcome::GaveUp,
        }
    }

    /// Nothing was heard until [`Transfer::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Duration) {
        if now < self.deadline || self.outcome().is_some() {
            return;
        }
        self.tries += 1;
        if self.tries > self.tries_max() {
            self.state = State::Over(self.silent_end());
            return;
        }
        if let State::Agreeing { is_told } = &mut self.state {
            *is_told = false;
        }
        self.go_back();
        self.wait_from(now);
    }

    /// Something new was heard; `all` says whether it answers all that was sent.
    fn heard(&mut self, now: Duration, all: bool) {
        if let (Some(sent_at), true) = (self.sent_at, all) {
            let took = now.saturating_sub(sent_at);
            self.round_trip = Some(self.round_trip.map_or(took, |mean| (mean * 7 + took) / 8));
        }
        self.tries = 0;
        self.sent_at = Some(now).filter(|_| all);
        self.wait_from(now);
    }

    fn wait_from(&mut self, now: Duration) {
        self.deadline = now + self.patience();
    }

    /// How long to wait for an answer: as long as the client says, else by how long answers take,
    /// and twice as long with each try.
    fn patience(&self) -> Duration {
        if let Some(timeout) = self.terms.timeout {
            return timeout;
        }
        let usual = self.round_trip.map_or(TFTP_PATIENCE_START, |time| time * 8);
        let usual = usual.clamp(TFTP_PATIENCE_MIN, TFTP_PATIENCE_START);
        (usual * 2_u32.saturating_pow(self.tries)).min(TFTP_PATIENCE_MAX)
    }

    /// A client that wants to be asked seldom is not waited for longer than any other.
    fn tries_max(&self) -> u32 {
        let waits = |timeout: Duration| TFTP_SILENCE_MAX.as_secs() / timeout.as_secs().max(1);
        let most = self.terms.timeout.map(waits).map(u32::try_from);
        most.map_or(TFTP_TRIES_MAX, |most| {
            most.map_or(TFTP_TRIES_MAX, |most| most.clamp(1, TFTP_TRIES_MAX))
        })
    }

    fn block(&self) -> u64 {
        self.terms.block.into()
    }

    /// The number at or behind `arrived` with these last 16 bits.
    fn whole_number(&self, number: u16) -> u64 {
        let [.., high, low] = self.arrived.to_be_bytes();
        let ahead = number.wrapping_sub(u16::from_be_bytes([high, low]));
        self.arrived + u64::from(ahead)
    }
}

#[cfg(test)]
mod tests;
