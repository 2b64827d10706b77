//! What a run came to: how often, how much, how long. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};

use super::ledger::Wrong;
use super::work::Kind;
use crate::nbd::wire::Errno;

/// For how long the throughput is summed up.
pub const SLOT: Duration = Duration::from_millis(250);

/// Longest latency that is told apart from longer ones.
const LONGEST: Duration = Duration::from_secs(100);

/// Requests of one kind that were answered.
#[derive(Clone, Debug)]
pub struct Share {
    /// How many.
    pub requests: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their latencies in nanoseconds.
    pub latencies: Histogram<u64>,
}

/// Requests that were answered in a [`SLOT`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// How many.
    pub requests: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Everything that was answered.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Nothing recorded yet.
    empty: Histogram<u64>,
    /// By kind.
    pub shares: BTreeMap<Kind, Share>,
    /// One slot after the other, from the start of what is counted.
    pub slots: Vec<Slot>,
    /// Errors of the server.
    pub errors: BTreeMap<&'static str, u64>,
    /// Blocks that held something else than they had to; the first few of them.
    pub wrong: Vec<Wrong>,
    /// How many there were.
    pub wrong_count: u64,
}

impl Tally {
    /// Nothing yet.
    ///
    /// # Errors
    /// None that happens: the bounds are constants.
    pub fn new() -> Result<Self, CreationError> {
        let longest = u64::try_from(LONGEST.as_nanos()).unwrap_or(u64::MAX);
        Ok(Self {
            empty: Histogram::new_with_bounds(1, longest, 3)?,
            shares: BTreeMap::new(),
            slots: Vec::new(),
            errors: BTreeMap::new(),
            wrong: Vec::new(),
            wrong_count: 0,
        })
    }

    fn share(&mut self, kind: Kind) -> &mut Share {
        let empty = &self.empty;
        self.shares.entry(kind).or_insert_with(|| Share {
            requests: 0,
            bytes: 0,
            latencies: empty.clone(),
        })
    }

    /// Takes notice of an answer that came `at`, so long after its request.
    pub fn answered(&mut self, kind: Kind, bytes: u64, at: Duration, latency: Duration) {
        let share = self.share(kind);
        share.requests += 1;
        share.bytes += bytes;
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        share.latencies.saturating_record(nanos);
        let index = usize::try_from(at.as_nanos() / SLOT.as_nanos()).unwrap_or(usize::MAX);
        if index >= self.slots.len() {
            self.slots.resize(index.saturating_add(1), Slot::default());
        }
        if let Some(slot) = self.slots.get_mut(index) {
            slot.requests += 1;
            slot.bytes += bytes;
        }
    }

    /// Takes notice of an error.
    pub fn failed(&mut self, errno: Errno) {
        let names = Errno::NAMED.iter();
        let named = names.clone().find(|(_, named)| *named == errno);
        let name = named.map_or("another error", |(name, _)| *name);
        *self.errors.entry(name).or_default() += 1;
    }

    /// Takes notice of a block with something else in it.
    pub fn was_wrong(&mut self, wrong: Wrong) {
        self.wrong_count += 1;
        if self.wrong.len() < 10 {
            self.wrong.push(wrong);
        }
    }

    /// Adds what another client came to.
    pub fn add(&mut self, other: &Self) {
        for (kind, share) in &other.shares {
            let sum = self.share(*kind);
            sum.requests += share.requests;
            sum.bytes += share.bytes;
            // Both have the same bounds.
            let _ = sum.latencies.add(&share.latencies);
        }
        let len = self.slots.len().max(other.slots.len());
        self.slots.resize(len, Slot::default());
        for (sum, slot) in self.slots.iter_mut().zip(&other.slots) {
            sum.requests += slot.requests;
            sum.bytes += slot.bytes;
        }
        for (name, count) in &other.errors {
            *self.errors.entry(name).or_default() += count;
        }
        self.wrong_count += other.wrong_count;
        self.wrong.extend(&other.wrong);
        self.wrong.truncate(10);
    }

    /// Requests of all kinds.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shares.values().map(|share| share.requests).sum()
    }

    /// Whether every request was answered, and rightly.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty() && self.wrong_count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(kind: Kind, latencies: &[u64]) -> Tally {
        let mut tally = Tally::new().unwrap();
        for millis in latencies {
            let latency = Duration::from_millis(*millis);
            tally.answered(kind, 4096, SLOT * 2, latency);
        }
        tally
    }

    #[test]
    fn the_sum_of_two_clients_has_the_requests_of_both() {
        let mut sum = tally(Kind::Read, &[1, 2]);
        sum.add(&tally(Kind::Read, &[3]));
        sum.add(&tally(Kind::Write, &[9]));
        assert_eq!(sum.requests(), 4);
        let reads = &sum.shares[&Kind::Read];
        assert_eq!((reads.requests, reads.bytes), (3, 3 * 4096));
        assert_eq!(reads.latencies.max() / 1_000_000, 3);
        let slot = Slot {
            requests: 4,
            bytes: 4 * 4096,
        };
        assert_eq!(sum.slots, [Slot::default(), Slot::default(), slot]);
    }

    #[test]
    fn errors_are_counted_by_name() {
        let mut sum = tally(Kind::Read, &[]);
        sum.failed(Errno::EIO);
        sum.failed(Errno::EIO);
        sum.failed(Errno::from_wire(12345));
        assert_eq!(sum.errors["EIO"], 2);
        assert_eq!(sum.errors["another error"], 1);
        assert!(!sum.is_clean());
    }
}
