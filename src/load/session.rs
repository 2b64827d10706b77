//! A client after its handshake: requests to bytes, bytes to answers. Pure; time is an argument,
//! counted from the start of the run.
//!
//! Invariants:
//! - So many requests are under way at most as were asked for.
//! - What the server sends is checked before it sizes anything; an answer to nothing ends the run.

use std::time::Duration;

use thiserror::Error;

use super::course::{Course, Flight, Next};
use super::ledger::stamp;
use super::tally::Tally;
use super::work::Kind;
use crate::nbd::wire::{
    CommandFlags, Errno, RequestHeader, RequestType, SIMPLE_REPLY, SimpleReply,
};

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
    course: Course,
    /// What writes write where nothing is checked.
    filler: Vec<u8>,
    flights: Vec<Option<Flight>>,
    free: Vec<u32>,
    /// Bytes to be sent, those before `sent` without.
    out: Vec<u8>,
    sent: usize,
    incoming: Incoming,
    /// The beginning of a header, or data that is to be checked.
    kept: Vec<u8>,
}

impl Session {
    /// A client that takes this course.
    #[must_use]
    pub fn new(course: Course) -> Self {
        let depth = course.rules().depth;
        Self {
            course,
            filler: Vec::new(),
            flights: vec![None; depth],
            free: (0..u32::try_from(depth).unwrap_or(u32::MAX))
                .rev()
                .collect(),
            out: Vec::new(),
            sent: 0,
            incoming: Incoming::Header,
            kept: Vec::new(),
        }
    }

    /// Makes the requests that there is room for.
    pub fn fill(&mut self, now: Duration) {
        while self.unsent().len() < UNSENT_MAX {
            let Some(&slot) = self.free.last() else {
                return;
            };
            let Next::Make(flight) = self.course.next(now, slot) else {
                return;
            };
            self.free.pop();
            // The low half of a mark finds the place, the high half tells old answers from new.
            if let Some(place) = self.flights.get_mut(slot as usize) {
                *place = Some(flight);
            }
            self.put(&flight);
        }
    }

    fn put(&mut self, flight: &Flight) {
        let Flight { request, mark, .. } = *flight;
        let (kind, flags) = match request.kind {
            Kind::Read => (RequestType::READ, CommandFlags::NONE),
            Kind::Write if self.course.rules().fua => (RequestType::WRITE, CommandFlags::FUA),
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
        if self.course.checks() {
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
        self.course.next_due().filter(|_| !self.free.is_empty())
    }

    /// Answers so far, counted or not, errors included.
    #[must_use]
    pub const fn answers(&self) -> u64 {
        self.course.answers()
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.free.len() == self.flights.len()
    }

    /// Whether all is done and answered.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.course.is_over() && self.is_idle()
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
            result => self.answered(now, slot, result),
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
        if self.course.checks() {
            self.kept.extend_from_slice(part);
        }
        let left = left - part.len();
        self.incoming = Incoming::Data { slot, left };
        if left == 0 {
            self.incoming = Incoming::Header;
            self.answered(now, slot, Ok(()));
            self.kept.clear();
        }
        rest
    }

    fn answered(&mut self, now: Duration, slot: usize, result: Result<(), Errno>) {
        let Some(flight) = self.flights.get_mut(slot).and_then(Option::take) else {
            return;
        };
        self.free.extend(u32::try_from(slot));
        let data = result.map(|()| self.kept.as_slice());
        self.course.ended(&flight, now, data);
    }

    /// What has come in so far.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        self.course.tally()
    }
}

#[cfg(test)]
mod tests;
