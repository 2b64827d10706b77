//! The course of one client: which request comes next and when, and what became of those that were
//! made, whatever carries them. Pure; time is an argument, counted from the start of the run.
//!
//! Invariants:
//! - The latency of a request that comes by the clock is from when it was due, not from when there
//!   was room for it: a server that stalls does not hide the requests that it kept from being made.
//! - Where reads are checked, a block has one request under way at most.

use std::time::Duration;

use super::ledger::Ledger;
use super::tally::Tally;
use super::work::{Request, Work};
use crate::nbd::wire::Errno;

/// How often another block is tried where a check needs one that nothing is under way for.
const DRAWS: usize = 64;

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

/// A request that is under way.
#[derive(Clone, Copy, Debug)]
pub struct Flight {
    /// What was asked for.
    pub request: Request,
    /// What no other request of the client has; writes write what follows from it.
    pub mark: u64,
    begun: Duration,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug)]
pub enum Next {
    /// This request.
    Make(Flight),
    /// Nothing before this time.
    Wait(Duration),
    /// Nothing before an answer has come: every block that was drawn has a request under way.
    WaitForAnswer,
    /// No request any more.
    Over,
}

/// One client.
#[derive(Debug)]
pub struct Course {
    rules: Rules,
    work: Work,
    ledger: Option<Ledger>,
    made: u64,
    answers: u64,
    tally: Tally,
    is_over: bool,
}

impl Course {
    /// A client that does `work`, and checks what it reads if it is given a ledger.
    #[must_use]
    pub const fn new(rules: Rules, work: Work, ledger: Option<Ledger>, tally: Tally) -> Self {
        Self {
            rules,
            work,
            ledger,
            made: 0,
            answers: 0,
            tally,
            is_over: false,
        }
    }

    /// The next request, for which there is room in this `place`: the low half of its mark.
    pub fn next(&mut self, now: Duration, place: u32) -> Next {
        match self.work.due() {
            _ if now >= self.rules.ends => self.is_over = true,
            None => self.is_over = true,
            Some(Some(due)) if due >= self.rules.ends => self.is_over = true,
            Some(Some(due)) if due > now => return Next::Wait(due),
            Some(_) => return self.make(now, place),
        }
        Next::Over
    }

    fn make(&mut self, now: Duration, place: u32) -> Next {
        let Some(request) = self.draw() else {
            return Next::WaitForAnswer;
        };
        self.made += 1;
        Next::Make(Flight {
            request,
            mark: (self.made << 32) | u64::from(place),
            begun: request.due.unwrap_or(now),
        })
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

    /// A request was answered; `data` is what a read gave, where reads are checked.
    pub fn ended(&mut self, flight: &Flight, now: Duration, data: Result<&[u8], Errno>) {
        let Flight {
            request,
            mark,
            begun,
        } = *flight;
        self.answers += 1;
        if let Err(errno) = data {
            self.tally.failed(errno);
        }
        if let Some(ledger) = &mut self.ledger
            && let Err(wrong) = ledger.end(&request, mark, data.is_ok(), data.unwrap_or_default())
        {
            self.tally.was_wrong(wrong);
        }
        let is_counted = begun >= self.rules.counted_from && data.is_ok();
        if let Some(at) = now
            .checked_sub(self.rules.counted_from)
            .filter(|_| is_counted)
        {
            let latency = now.saturating_sub(begun);
            self.tally
                .answered(request.kind, request.length.into(), at, latency);
        }
    }

    /// What it goes by.
    #[must_use]
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Whether it has to be told what reads gave.
    #[must_use]
    pub const fn checks(&self) -> bool {
        self.ledger.is_some()
    }

    /// When the next request is due, where they come by the clock.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.work.due().flatten().filter(|_| !self.is_over)
    }

    /// Answers so far, counted or not, errors included.
    #[must_use]
    pub const fn answers(&self) -> u64 {
        self.answers
    }

    /// Whether it makes no more requests.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.is_over
    }

    /// What has come in so far.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }
}
