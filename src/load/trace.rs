//! Requests of a machine that booted once, to be asked again. Pure.
//!
//! A line is `MILLISECONDS KIND OFFSET LENGTH`, kinds as reports name them; text behind # is a
//! comment. The times are from the start, and never go back.

use std::time::Duration;

use thiserror::Error;

use super::work::{Kind, Request};
use crate::limits::{BENCH_TRACE_MAX, NBD_PAYLOAD_MAX};

/// What is wrong with a trace.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TraceError {
    /// A line is no request.
    #[error("line {0}: not `MILLISECONDS KIND OFFSET LENGTH`, such as `120 read 4096 512`")]
    Line(usize),
    /// A request that servers need not take.
    #[error("line {0}: longer than {NBD_PAYLOAD_MAX} bytes, the longest that every server takes")]
    TooLong(usize),
    /// A line is earlier than the one before.
    #[error("line {0}: its time is before that of the line above")]
    Backwards(usize),
    /// There is nothing to do.
    #[error("there is no request in it")]
    Empty,
    /// It has too many lines.
    #[error("it has more than {BENCH_TRACE_MAX} requests")]
    TooMany,
}

/// Requests in order, and how far they were taken.
#[derive(Clone, Debug)]
pub struct Trace {
    requests: std::sync::Arc<[Request]>,
    taken: usize,
}

impl Trace {
    /// Reads a trace. With `paced`, requests keep their times; otherwise each comes as soon as
    /// there is room.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn from_text(text: &str, paced: bool) -> Result<Self, TraceError> {
        let mut requests = Vec::new();
        let mut last = 0;
        for (index, line) in text.lines().enumerate() {
            let (line, number) = (line.split('#').next().unwrap_or_default(), index + 1);
            if line.trim().is_empty() {
                continue;
            }
            let (millis, mut request) = request(line).ok_or(TraceError::Line(number))?;
            if request.length > NBD_PAYLOAD_MAX {
                return Err(TraceError::TooLong(number));
            }
            if millis < last {
                return Err(TraceError::Backwards(number));
            }
            last = millis;
            request.due = paced.then(|| Duration::from_millis(millis));
            requests.push(request);
            if requests.len() > BENCH_TRACE_MAX {
                return Err(TraceError::TooMany);
            }
        }
        if requests.is_empty() {
            return Err(TraceError::Empty);
        }
        Ok(Self {
            requests: requests.into(),
            taken: 0,
        })
    }

    /// Behind the last byte that is asked for.
    #[must_use]
    pub fn end(&self) -> u64 {
        let ends = self.requests.iter();
        let ends = ends.map(|request| request.offset.saturating_add(request.length.into()));
        ends.max().unwrap_or(0)
    }

    /// The kinds that are in it.
    #[must_use]
    pub fn has(&self, kind: Kind) -> bool {
        self.requests.iter().any(|request| request.kind == kind)
    }

    pub(super) fn due(&self) -> Option<Option<Duration>> {
        self.requests.get(self.taken).map(|request| request.due)
    }

    pub(super) fn take(&mut self) -> Option<Request> {
        let request = self.requests.get(self.taken).copied();
        self.taken += usize::from(request.is_some());
        request
    }
}

fn request(line: &str) -> Option<(u64, Request)> {
    let mut words = line.split_whitespace();
    let mut word = || words.next();
    let millis = word()?.parse().ok()?;
    let name = word()?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name)?;
    let offset = word()?.parse().ok()?;
    let length: u32 = word()?.parse().ok()?;
    if word().is_some() || (length == 0) != (kind == Kind::Flush) {
        return None;
    }
    let due = None;
    let request = Request {
        kind,
        offset,
        length,
        due,
    };
    Some((millis, request))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_taken_in_its_order_and_ends() {
        let text = "# a boot\n0 read 0 512\n\n5 write 4096 4096  # the journal\n9 flush 0 0\n";
        let mut trace = Trace::from_text(text, true).unwrap();
        assert_eq!(trace.end(), 8192);
        assert_eq!(trace.due(), Some(Some(Duration::ZERO)));
        let kinds: Vec<_> = std::iter::from_fn(|| trace.take())
            .map(|request| request.kind)
            .collect();
        assert_eq!(kinds, [Kind::Read, Kind::Write, Kind::Flush]);
        assert_eq!(trace.due(), None);
    }

    #[test]
    fn mistakes_are_told_with_their_lines() {
        for (text, error) in [
            ("0 read 0", TraceError::Line(1)),
            ("0 read 0 0", TraceError::Line(1)),
            ("\n0 fly 0 5", TraceError::Line(2)),
            ("0 read 0 5 6", TraceError::Line(1)),
            ("0 read 0 99999999", TraceError::TooLong(1)),
            ("5 read 0 5\n4 read 0 5", TraceError::Backwards(2)),
            ("# nothing", TraceError::Empty),
        ] {
            assert_eq!(Trace::from_text(text, false).unwrap_err(), error, "{text}");
        }
    }
}
