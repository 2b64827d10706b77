//! What went over the connections: requests, bytes, errors, and how long answers took.
//!
//! Invariant: a latency costs a few bytes for each tenth of itself, however many there are.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// READ.
    Read,
    /// WRITE.
    Write,
    /// FLUSH.
    Flush,
    /// TRIM.
    Trim,
    /// `WRITE_ZEROES`.
    WriteZeroes,
    /// CACHE.
    Cache,
    /// `BLOCK_STATUS`.
    BlockStatus,
}

/// How many kinds there are.
pub const KINDS: usize = Kind::ALL.len();

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Read,
        Self::Write,
        Self::Flush,
        Self::Trim,
        Self::WriteZeroes,
        Self::Cache,
        Self::BlockStatus,
    ];

    /// Its name, as JSON and metrics have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Trim => "trim",
            Self::WriteZeroes => "write-zeroes",
            Self::Cache => "cache",
            Self::BlockStatus => "block-status",
        }
    }
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// It was not legal.
    Invalid,
    /// The disk is not to be written to.
    ReadOnly,
    /// The overlay, or its disk, is full.
    NoSpace,
    /// A disk failed, or the image changed.
    Io,
}

/// How many causes there are.
pub const CAUSES: usize = Cause::ALL.len();

impl Cause {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Invalid, Self::ReadOnly, Self::NoSpace, Self::Io];

    /// Its name, as JSON and metrics have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::ReadOnly => "read-only",
            Self::NoSpace => "no-space",
            Self::Io => "io",
        }
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests that were answered, of each [`Kind`].
    pub requests: [u64; KINDS],
    /// Bytes that they were about.
    pub bytes: [u64; KINDS],
    /// Those that failed, by [`Cause`].
    pub errors: [u64; CAUSES],
    /// Reads that were answered from memory.
    pub hits: u64,
}

impl Counts {
    /// Requests by the name of their kind, of kinds that there were any of.
    #[must_use]
    pub fn requests_by_name(&self) -> BTreeMap<String, u64> {
        named(Kind::ALL.map(|kind| (kind.name(), self.requests[kind as usize])))
    }

    /// Errors by the name of their cause, of causes that there were any of.
    #[must_use]
    pub fn errors_by_name(&self) -> BTreeMap<String, u64> {
        named(Cause::ALL.map(|cause| (cause.name(), self.errors[cause as usize])))
    }

    /// With what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        let pairs = self.requests.iter_mut().zip(other.requests);
        let pairs = pairs.chain(self.bytes.iter_mut().zip(other.bytes));
        let pairs = pairs.chain(self.errors.iter_mut().zip(other.errors));
        pairs.for_each(|(sum, more)| *sum = sum.saturating_add(more));
        self.hits = self.hits.saturating_add(other.hits);
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn less(&self, earlier: &Self) -> Self {
        let mut rest = *self;
        let pairs = rest.requests.iter_mut().zip(earlier.requests);
        let pairs = pairs.chain(rest.bytes.iter_mut().zip(earlier.bytes));
        let pairs = pairs.chain(rest.errors.iter_mut().zip(earlier.errors));
        pairs.for_each(|(now, then)| *now = now.saturating_sub(then));
        rest.hits = rest.hits.saturating_sub(earlier.hits);
        rest
    }

    /// Requests of all kinds.
    #[must_use]
    pub fn all_requests(&self) -> u64 {
        self.requests.iter().sum()
    }

    /// Errors of all causes.
    #[must_use]
    pub fn all_errors(&self) -> u64 {
        self.errors.iter().sum()
    }

    /// Bytes that were read.
    #[must_use]
    pub const fn bytes_read(&self) -> u64 {
        self.bytes[Kind::Read as usize]
    }

    /// Bytes that were written.
    #[must_use]
    pub const fn bytes_written(&self) -> u64 {
        self.bytes[Kind::Write as usize]
    }
}

fn named<const N: usize>(pairs: [(&str, u64); N]) -> BTreeMap<String, u64> {
    let some = pairs.into_iter().filter(|(_, count)| *count > 0);
    some.map(|(name, count)| (name.to_owned(), count)).collect()
}

/// The shortest latency that is told from a shorter one, in nanoseconds.
const SHORTEST: u64 = 256;
/// What takes longer counts as this: a minute, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;
/// Latencies are right to one in a hundred.
const DIGITS: u8 = 2;

/// Upper ends of the classes that metrics tell of, in nanoseconds.
pub const CLASSES: [u64; 14] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    10_000_000,
    25_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    10_000_000_000,
];

/// How long answers took, of each kind that there were any of.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    of: [Option<Box<Latency>>; KINDS],
}

#[derive(Clone, Debug)]
struct Latency {
    histogram: Histogram<u32>,
    nanoseconds: u64,
}

/// Latencies of one kind of request, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// How many there were.
    pub count: u64,
    /// All of them together.
    pub sum: u64,
    /// How many took no longer than each of [`CLASSES`].
    pub up_to: [u64; CLASSES.len()],
    /// What half of them took at most.
    pub median: u64,
    /// What 99 of 100 took at most.
    pub p99: u64,
    /// The longest.
    pub longest: u64,
}

impl Latencies {
    /// One answer took so many nanoseconds.
    pub fn record(&mut self, kind: Kind, nanoseconds: u64) {
        let latency = &mut self.of[kind as usize];
        let latency = match latency {
            Some(latency) => latency,
            empty => match Latency::new() {
                Some(new) => empty.insert(Box::new(new)),
                None => return,
            },
        };
        latency.histogram.saturating_record(nanoseconds);
        latency.nanoseconds = latency.nanoseconds.saturating_add(nanoseconds);
    }

    /// With those of elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.of.iter_mut().zip(&other.of) {
            match (sum, more) {
                (_, None) => {}
                (Some(sum), Some(more)) => {
                    // They all have the same bounds.
                    let _ = sum.histogram.add(&more.histogram);
                    sum.nanoseconds = sum.nanoseconds.saturating_add(more.nanoseconds);
                }
                (empty, Some(more)) => *empty = Some(more.clone()),
            }
        }
    }

    /// What there is, by the name of its kind.
    #[must_use]
    pub fn by_name(&self) -> BTreeMap<String, super::report::Latency> {
        let of = |kind: Kind| Some((kind.name().to_owned(), (&self.spread(kind)?).into()));
        Kind::ALL.into_iter().filter_map(of).collect()
    }

    /// What there is of one kind.
    #[must_use]
    pub fn spread(&self, kind: Kind) -> Option<Spread> {
        let latency = self.of[kind as usize].as_ref()?;
        let histogram = &latency.histogram;
        Some(Spread {
            count: histogram.len(),
            sum: latency.nanoseconds,
            up_to: up_to(histogram),
            median: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            longest: histogram.max(),
        })
    }
}

/// What was asked of a disk, and how long answers took.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Requests, bytes and errors.
    pub counts: Counts,
    /// How long answers took.
    pub latencies: Latencies,
}

impl Totals {
    /// With those of elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.latencies.add(&other.latencies);
    }
}

impl From<&Spread> for super::report::Latency {
    fn from(spread: &Spread) -> Self {
        let micros = |nanoseconds: u64| nanoseconds / 1000;
        Self {
            count: spread.count,
            median: micros(spread.median),
            p99: micros(spread.p99),
            longest: micros(spread.longest),
        }
    }
}

/// One pass over what was recorded, whose values come in their order.
fn up_to(histogram: &Histogram<u32>) -> [u64; CLASSES.len()] {
    let mut counts = [0; CLASSES.len()];
    for value in histogram.iter_recorded() {
        let count = value.count_since_last_iteration();
        let fits = CLASSES.iter().zip(&mut counts);
        let fits = fits.filter(|(end, _)| value.value_iterated_to() <= **end);
        fits.for_each(|(_, sum)| *sum += count);
    }
    counts
}

impl Latency {
    fn new() -> Option<Self> {
        // The bounds are constants that it takes: see the test.
        let histogram = Histogram::new_with_bounds(SHORTEST, LONGEST, DIGITS).ok()?;
        Some(Self {
            histogram,
            nanoseconds: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_right_to_one_in_a_hundred_and_in_its_class() {
        let mut latencies = Latencies::default();
        (1..=1000).for_each(|micros| latencies.record(Kind::Read, micros * 1000));
        let spread = latencies.spread(Kind::Read).unwrap();
        assert_eq!(spread.count, 1000);
        assert_eq!(spread.sum, 500_500_000);
        assert!((495_000..=505_000).contains(&spread.median), "{spread:?}");
        assert!((980_000..=1_000_000).contains(&spread.p99), "{spread:?}");
        let of_class = |end| spread.up_to[CLASSES.iter().position(|class| *class == end).unwrap()];
        assert!((98..=100).contains(&of_class(100_000)), "{spread:?}");
        assert_eq!(of_class(10_000_000_000), 1000);
        assert_eq!(latencies.spread(Kind::Flush), None);
    }

    #[test]
    fn what_takes_for_ever_counts_as_the_longest() {
        let mut latencies = Latencies::default();
        latencies.record(Kind::Flush, u64::MAX);
        let spread = latencies.spread(Kind::Flush).unwrap();
        assert_eq!(spread.count, 1);
        assert!(spread.longest >= LONGEST, "{spread:?}");
    }

    #[test]
    fn sums_hold_what_both_had() {
        let (mut all, mut one) = (Latencies::default(), Latencies::default());
        one.record(Kind::Read, 1000);
        one.record(Kind::Write, 1000);
        all.record(Kind::Read, 1000);
        all.add(&one);
        assert_eq!(all.spread(Kind::Read).unwrap().count, 2);
        assert_eq!(all.spread(Kind::Write).unwrap().count, 1);
        let mut counts = Counts {
            hits: 1,
            ..Counts::default()
        };
        counts.requests[Kind::Read as usize] = 2;
        counts.add(&counts.clone());
        assert_eq!((counts.hits, counts.all_requests()), (2, 4));
        assert_eq!(counts.less(&counts.clone()), Counts::default());
    }
}
