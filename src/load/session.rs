//! A client after its handshake: requests to bytes, bytes to answers. Pure; time is an argument,
//! counted from the start of the run.
//!
//! Invariants:
//! - So many requests are under way at most as were asked for.
//! - The latency of a request that comes by the clock is from when it was due, not from when there
//!   was room for it: a server that stalls does not hide the requests that it kept from being sent.
//! - What the server sends is checked before it sizes anything; an answer to nothing ends the run.

use std::time::Duration;

use thiserror::Error;

use super::ledger::{Ledger, stamp};
use super::tally::Tally;
use super::work::{Kind, Request, Work};
use crate::nbd::wire::{CommandFlags, RequestHeader, RequestType, SIMPLE_REPLY, SimpleReply};

/// How often another block is tried where a check needs one that nothing is under way for.
const DRAWS: usize = 64;

/// Bytes that wait to be sent, beyond which no more requests are made.
const UNSENT_MAX: usize = 4 << 20;

/// What the server broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Broken {
    /// Bytes that are no reply.
    #[error("what the server sends is no reply")]
    NoReply,
    /// An answer to a request that is not under way.
    #[error("the server answered what was not asked")]
    Unasked,
}

/// What a client does.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Requests under way at most.
    pub depth: usize,
    /// Whether writes ask to be durable.
    pub fua: bool,
    /// What came in before this time is not counted.
    pub counted_from: Duration,
    /// No request is made from this time on.
    pub ends: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    request: Request,
    mark: u64,
    begun: Duration,
}

#[derive(Debug)]
enum Incoming {
    Header,
    /// Data of the read in this place of the flights.
    Data {
        slot: usize,
        left: usize,
    },
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    rules: Rules,
    work: Work,
    ledger: Option<Ledger>,
    /// What writes write where nothing is checked.
    filler: Vec<u8>,
    flights: Vec<Option<Flight>>,
    free: Vec<usize>,
    made: u64,
    answers: u64,
    /// Bytes to be sent, those before `sent` without.
    out: Vec<u8>,
    sent: usize,
    incoming: Incoming,
    /// The beginning of a header, or data that is to be checked.
    kept: Vec<u8>,
    tally: Tally,
    is_over: bool,
}

impl Session {
    /// A client that does `work`, and checks what it reads if it is given a ledger.
    #[must_use]
    pub fn new(rules: Rules, work: Work, ledger: Option<Ledger>, tally: Tally) -> Self {
        Self {
            rules,
            work,
            ledger,
            filler: Vec::new(),
            flights: vec![None; rules.depth],
            free: (0..rules.depth).rev().collect(),
            made: 0,
            answers: 0,
            out: Vec::new(),
            sent: 0,
            incoming: Incoming::Header,
            kept: Vec::new(),
            tally,
            is_over: false,
        }
    }

    /// Makes the requests that there is room for.
    pub fn fill(&mut self, now: Duration) {
        while !self.is_over && !self.free.is_empty() && self.unsent().len() < UNSENT_MAX {
            match self.work.due() {
                _ if now >= self.rules.ends => self.is_over = true,
                None => self.is_over = true,
                Some(Some(due)) if due >= self.rules.ends => self.is_over = true,
                Some(Some(due)) if due > now => return,
                // Every block that was drawn has a request under way: after an answer there is one.
                Some(_) if !self.begin(now) => return,
                Some(_) => {}
            }
        }
    }

    fn begin(&mut self, now: Duration) -> bool {
        let Some(request) = self.draw() else {
            return false;
        };
        let Some(slot) = self.free.pop() else {
            return false;
        };
        self.made += 1;
        // The low half finds the place, the high half tells old answers from new ones.
        let mark = (self.made << 32) | slot as u64;
        let begun = request.due.unwrap_or(now);
        if let Some(place) = self.flights.get_mut(slot) {
            *place = Some(Flight {
                request,
                mark,
                begun,
            });
        }
        self.put(&request, mark);
        true
    }

    /// The next request; with a ledger, one for a block that nothing is under way for.
    fn draw(&mut self) -> Option<Request> {
        let mut last = None;
        for _ in 0..DRAWS {
            let request = self.work.next()?;
            // Drawing again does not change when it is due.
            let request = Request {
                due: last.map_or(request.due, |last: Request| last.due),
                ..request
            };
            let ledger = self.ledger.as_mut();
            if ledger.is_none_or(|ledger| ledger.begin(&request)) {
                return Some(request);
            }
            last = Some(request);
        }
        None
    }

    fn put(&mut self, request: &Request, mark: u64) {
        let (kind, flags) = match request.kind {
            Kind::Read => (RequestType::READ, CommandFlags::NONE),
            Kind::Write if self.rules.fua => (RequestType::WRITE, CommandFlags::FUA),
            Kind::Write => (RequestType::WRITE, CommandFlags::NONE),
            Kind::Trim => (RequestType::TRIM, CommandFlags::NONE),
            Kind::Zero => (RequestType::WRITE_ZEROES, CommandFlags::NONE),
            Kind::Flush => (RequestType::FLUSH, CommandFlags::NONE),
        };
        let header = RequestHeader {
            flags,
            kind,
            mark,
            offset: request.offset,
            length: request.length.into(),
        };
        // Lengths have 32 bits here, so there always is a header.
        self.out.extend(header.to_bytes().into_iter().flatten());
        if request.kind != Kind::Write {
            return;
        }
        if self.ledger.is_some() {
            return stamp(&mut self.out, mark, request.length);
        }
        let length = request.length as usize;
        if self.filler.len() < length {
            let missing = request.length - u32::try_from(self.filler.len()).unwrap_or(0);
            stamp(&mut self.filler, mark, missing);
        }
        self.out
            .extend_from_slice(self.filler.get(..length).unwrap_or_default());
    }

    /// Bytes that are to be sent.
    #[must_use]
    pub fn unsent(&self) -> &[u8] {
        self.out.get(self.sent..).unwrap_or_default()
    }

    /// So many of them have been.
    pub fn was_sent(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent >= self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
    }

    /// When there will be something to do although nothing comes in.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        let is_full = self.is_over || self.free.is_empty();
        self.work.due().flatten().filter(|_| !is_full)
    }

    /// Answers so far, counted or not, errors included.
    #[must_use]
    pub const fn answers(&self) -> u64 {
        self.answers
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.free.len() == self.rules.depth
    }

    /// Whether all is done and answered.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_over && self.is_idle()
    }

    /// Takes bytes of the server that came in now.
    ///
    /// # Errors
    /// They are no answers.
    pub fn handle_bytes(&mut self, now: Duration, mut bytes: &[u8]) -> Result<(), Broken> {
        while !bytes.is_empty() {
            bytes = match self.incoming {
                Incoming::Header => self.take_header(now, bytes)?,
                Incoming::Data { slot, left } => self.take_data(now, bytes, slot, left),
            };
        }
        Ok(())
    }

    fn take_header<'a>(&mut self, now: Duration, bytes: &'a [u8]) -> Result<&'a [u8], Broken> {
        let missing = SIMPLE_REPLY - self.kept.len();
        let (part, rest) = bytes.split_at(missing.min(bytes.len()));
        self.kept.extend_from_slice(part);
        let Ok(header) = self.kept.as_slice().try_into() else {
            return Ok(rest);
        };
        let reply = SimpleReply::from_bytes(header).ok_or(Broken::NoReply)?;
        self.kept.clear();
        let slot = usize::try_from(reply.mark() & u64::from(u32::MAX)).unwrap_or(usize::MAX);
        let flight = self.flights.get(slot).copied().flatten();
        let flight = flight.filter(|flight| flight.mark == reply.mark());
        let flight = flight.ok_or(Broken::Unasked)?;
        match reply.result() {
            Ok(()) if flight.request.kind == Kind::Read => {
                let left = flight.request.length as usize;
                self.incoming = Incoming::Data { slot, left };
            }
            Ok(()) => self.answered(now, slot, true),
            Err(errno) => {
                self.tally.failed(errno);
                self.answered(now, slot, false);
            }
        }
        Ok(rest)
    }

    fn take_data<'a>(
        &mut self,
        now: Duration,
        bytes: &'a [u8],
        slot: usize,
        left: usize,
    ) -> &'a [u8] {
        let (part, rest) = bytes.split_at(left.min(bytes.len()));
        if self.ledger.is_some() {
            self.kept.extend_from_slice(part);
        }
        let left = left - part.len();
        self.incoming = Incoming::Data { slot, left };
        if left == 0 {
            self.incoming = Incoming::Header;
            self.answered(now, slot, true);
            self.kept.clear();
        }
        rest
    }

    fn answered(&mut self, now: Duration, slot: usize, succeeded: bool) {
        let Some(flight) = self.flights.get_mut(slot).and_then(Option::take) else {
            return;
        };
        self.free.push(slot);
        self.answers += 1;
        let Flight {
            request,
            mark,
            begun,
        } = flight;
        if let Some(ledger) = &mut self.ledger
            && let Err(wrong) = ledger.end(&request, mark, succeeded, &self.kept)
        {
            self.tally.was_wrong(wrong);
        }
        let is_counted = begun >= self.rules.counted_from && succeeded;
        if let Some(at) = now
            .checked_sub(self.rules.counted_from)
            .filter(|_| is_counted)
        {
            let latency = now.saturating_sub(begun);
            self.tally
                .answered(request.kind, request.length.into(), at, latency);
        }
    }

    /// What has come in so far.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }
}

#[cfg(test)]
mod tests;
