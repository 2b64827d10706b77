//! What one session has done, counted on the thread of its shard.
//!
//! Invariants:
//! - Nothing here locks: counters are cells of one thread, and read there when somebody asks.
//! - A request is counted when its reply is queued; one that gets none is not.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::host;
use crate::dhcp::Moment;
use crate::nbd::wire::Errno;
use crate::status::traffic::{Cause, Counts, Kind, Latencies, Totals};

/// The counters of one session.
#[derive(Debug)]
pub(super) struct Meter {
    began: Moment,
    first_read: Cell<Option<Moment>>,
    has_read: Cell<Option<Moment>>,
    has_written: Cell<Option<Moment>>,
    counts: RefCell<Counts>,
    latencies: RefCell<Latencies>,
    underway: Cell<u32>,
    at_disk: Cell<AtDisk>,
}

/// Requests that wait for a disk.
#[derive(Clone, Copy, Debug, Default)]
struct AtDisk {
    count: u32,
    /// When the first of them came, or one was answered.
    since: Option<Instant>,
}

/// What a session has done.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) began: Moment,
    /// When its first read came.
    pub(super) first_read: Option<Moment>,
    /// When that was answered.
    pub(super) has_read: Option<Moment>,
    /// When its first change was made.
    pub(super) has_written: Option<Moment>,
    pub(super) counts: Counts,
    /// Requests that are being worked on.
    pub(super) underway: u32,
    /// For so long some have waited for a disk, and none was answered by one.
    pub(super) waits: Option<Duration>,
}

/// One request that is being worked on.
#[derive(Debug)]
pub(super) struct Ticket {
    meter: Rc<Meter>,
    kind: Kind,
    bytes: u64,
    begun: Cell<Instant>,
    is_at_disk: Cell<bool>,
}

impl Meter {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            began: host::moment(),
            first_read: Cell::default(),
            has_read: Cell::default(),
            has_written: Cell::default(),
            counts: RefCell::default(),
            latencies: RefCell::default(),
            underway: Cell::default(),
            at_disk: Cell::default(),
        })
    }

    /// A request has come, now.
    pub(super) fn begin(self: &Rc<Self>, kind: Kind, bytes: u64) -> Ticket {
        self.begin_at(Instant::now(), kind, bytes)
    }

    /// A request has come, at a moment that was looked up before: to read the clock is most of what
    /// counting costs.
    pub(super) fn begin_at(self: &Rc<Self>, begun: Instant, kind: Kind, bytes: u64) -> Ticket {
        if kind == Kind::Read && self.first_read.get().is_none() {
            self.first_read.set(Some(host::moment()));
        }
        self.underway.set(self.underway.get() + 1);
        Ticket {
            meter: Rc::clone(self),
            kind,
            bytes,
            begun: Cell::new(begun),
            is_at_disk: Cell::new(false),
        }
    }

    /// A request was refused before it was one.
    pub(super) fn rejected(&self, errno: Errno) {
        self.failed(errno);
    }

    fn failed(&self, errno: Errno) {
        let cause = match errno {
            Errno::EPERM => Cause::ReadOnly,
            Errno::ENOSPC => Cause::NoSpace,
            Errno::EIO => Cause::Io,
            _ => Cause::Invalid,
        };
        self.counts.borrow_mut().errors[cause as usize] += 1;
    }

    pub(super) fn read(&self) -> Reading {
        Reading {
            began: self.began,
            first_read: self.first_read.get(),
            has_read: self.has_read.get(),
            has_written: self.has_written.get(),
            counts: *self.counts.borrow(),
            underway: self.underway.get(),
            waits: self.at_disk.get().waits(),
        }
    }

    pub(super) fn add_to(&self, sum: &mut Totals) {
        sum.counts.add(&self.counts.borrow());
        sum.latencies.add(&self.latencies.borrow());
    }
}

impl AtDisk {
    fn waits(self) -> Option<Duration> {
        let since = self.since.filter(|_| self.count > 0);
        since.map(|since| since.elapsed())
    }
}

impl Ticket {
    /// What is left of it is a disk's to do. What waits for its client does not come here.
    pub(super) fn asks_disk(&self) {
        let AtDisk { count, since } = self.meter.at_disk.get();
        let since = since.filter(|_| count > 0);
        self.is_at_disk.set(true);
        self.meter.at_disk.set(AtDisk {
            count: count + 1,
            since: since.or_else(|| Some(Instant::now())),
        });
    }

    /// The time before now does not count: it was the client's.
    pub(super) fn begin_now(&self) {
        self.begun.set(Instant::now());
    }

    /// The read was answered from memory.
    pub(super) fn hit(&self) {
        self.meter.counts.borrow_mut().hits += 1;
    }

    /// Its answer is queued, at the moment that this gives back.
    pub(super) fn end(&self, result: Result<(), Errno>) -> Instant {
        let meter = &self.meter;
        if let Err(errno) = result {
            meter.failed(errno);
        } else {
            self.mark();
        }
        let mut counts = meter.counts.borrow_mut();
        counts.requests[self.kind as usize] += 1;
        if result.is_ok() {
            counts.bytes[self.kind as usize] += self.bytes;
        }
        let now = Instant::now();
        let took = now.saturating_duration_since(self.begun.get()).as_nanos();
        let took = u64::try_from(took).unwrap_or(u64::MAX);
        meter.latencies.borrow_mut().record(self.kind, took);
        if self.is_at_disk.get() {
            let count = meter.at_disk.get().count;
            let since = Some(now);
            meter.at_disk.set(AtDisk { count, since });
        }
        now
    }

    fn mark(&self) {
        let mark = match self.kind {
            Kind::Read => &self.meter.has_read,
            Kind::Write | Kind::WriteZeroes => &self.meter.has_written,
            _ => return,
        };
        if mark.get().is_none() {
            mark.set(Some(host::moment()));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.meter.underway.set(self.meter.underway.get() - 1);
        if self.is_at_disk.get() {
            let AtDisk { count, since } = self.meter.at_disk.get();
            let count = count - 1;
            self.meter.at_disk.set(AtDisk { count, since });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_when_it_was_answered() {
        let meter = Meter::new();
        let read = meter.begin(Kind::Read, 4096);
        let write = meter.begin(Kind::Write, 512);
        assert_eq!(meter.read().underway, 2);
        assert!(meter.read().first_read.is_some() && meter.read().has_read.is_none());
        read.hit();
        read.end(Ok(()));
        write.end(Err(Errno::ENOSPC));
        drop((read, write));
        let Reading {
            counts,
            underway,
            has_read,
            has_written,
            ..
        } = meter.read();
        assert_eq!((underway, counts.hits), (0, 1));
        assert_eq!(counts.requests[..2], [1, 1]);
        assert_eq!(counts.bytes[..2], [4096, 0]);
        assert_eq!(counts.errors[Cause::NoSpace as usize], 1);
        assert!(has_read.is_some() && has_written.is_none());
    }

    #[test]
    fn what_waits_for_a_disk_is_known_as_long_as_it_does() {
        let meter = Meter::new();
        let (at_client, at_disk) = (meter.begin(Kind::Write, 1), meter.begin(Kind::Read, 1));
        assert_eq!(meter.read().waits, None);
        at_disk.asks_disk();
        assert!(meter.read().waits.is_some());
        at_client.asks_disk();
        at_client.end(Ok(()));
        drop(at_client);
        assert!(meter.read().waits.is_some());
        drop(at_disk);
        assert_eq!(meter.read().waits, None);
    }

    #[test]
    fn a_latency_is_from_the_moment_that_was_given_to_the_answer() {
        let meter = Meter::new();
        let begun = Instant::now() - Duration::from_secs(2);
        let ticket = meter.begin_at(begun, Kind::Read, 1);
        let took = ticket.end(Ok(())) - begun;
        let mut totals = Totals::default();
        meter.add_to(&mut totals);
        let spread = totals.latencies.spread(Kind::Read).unwrap();
        assert_eq!(u128::from(spread.sum), took.as_nanos());
        assert!(took >= Duration::from_secs(2));
    }

    #[test]
    fn a_request_that_gets_no_answer_is_none() {
        let meter = Meter::new();
        drop(meter.begin(Kind::Write, 512));
        let reading = meter.read();
        assert_eq!((reading.underway, reading.counts), (0, Counts::default()));
    }
}
