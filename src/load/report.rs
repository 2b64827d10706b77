//! What a run came to, as numbers that people and programs read. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::tally::{SLOT, Share, Tally};
use super::work::{Kind, Pattern};
use super::{Ended, Job};

/// The percentiles of a curve.
const CURVE: [f64; 12] = [
    0.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 99.999, 100.0,
];

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Exports as they were named.
    pub targets: Vec<String>,
    /// Connections.
    pub clients: usize,
    /// Requests under way, each.
    pub depth: usize,
    /// What was asked for, in words.
    pub work: String,
    /// How long was counted.
    pub seconds: f64,
    /// Each kind of request that was answered.
    pub kinds: Vec<KindReport>,
    /// Requests a second of the slowest client.
    pub slowest_client: f64,
    /// Requests a second of the fastest one.
    pub fastest_client: f64,
    /// The throughput as it went.
    pub series: Vec<Point>,
    /// Errors of the server, by name.
    pub errors: BTreeMap<&'static str, u64>,
    /// Reads that gave something else than they had to.
    pub wrong_reads: u64,
    /// The first bytes of the first of them.
    pub wrong_offsets: Vec<u64>,
}

/// Requests of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct KindReport {
    /// Which kind.
    pub kind: &'static str,
    /// How many were answered.
    pub requests: u64,
    /// The same in a second.
    pub requests_per_second: f64,
    /// Their data in a second.
    pub bytes_per_second: f64,
    /// The mean latency, in microseconds.
    pub mean_us: f64,
    /// Latencies.
    pub latencies: Vec<Latency>,
}

/// A latency that so many percent of the requests did not exceed.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Percent of the requests.
    pub percentile: f64,
    /// Microseconds.
    pub us: f64,
}

/// The throughput around a moment.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// Seconds from the start of what is counted.
    pub at: f64,
    /// Requests a second.
    pub requests_per_second: f64,
    /// Bytes a second.
    pub bytes_per_second: f64,
}

impl Report {
    /// What all clients came to; `sum` is an empty tally.
    #[must_use]
    pub(super) fn of(job: &Job, mut sum: Tally, ends: &[Ended]) -> Self {
        for ended in ends {
            sum.add(&ended.tally);
        }
        let last = ends.iter().map(|ended| ended.at).max().unwrap_or_default();
        // A run ends with the last answer: what is divided by must hold all that is counted.
        let seconds = last
            .saturating_sub(job.warm_up)
            .max(Duration::from_millis(1));
        let seconds = seconds.as_secs_f64();
        let rates = ends
            .iter()
            .map(|ended| per(ended.tally.requests(), seconds));
        Self {
            targets: targets(job),
            clients: job.clients,
            depth: job.depth,
            work: words(job),
            seconds,
            kinds: sum
                .shares
                .iter()
                .map(|(kind, share)| KindReport::of(*kind, share, seconds))
                .collect(),
            slowest_client: rates.clone().fold(f64::INFINITY, f64::min),
            fastest_client: rates.fold(0.0, f64::max),
            series: series(&sum, seconds),
            wrong_offsets: sum.wrong.iter().map(|wrong| wrong.offset).collect(),
            errors: sum.errors,
            wrong_reads: sum.wrong_count,
        }
    }

    /// Whether every request was answered, and rightly.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty() && self.wrong_reads == 0
    }
}

impl KindReport {
    fn of(kind: Kind, share: &Share, seconds: f64) -> Self {
        let latencies = CURVE.map(|percentile| Latency {
            percentile,
            us: at(&share.latencies, percentile),
        });
        Self {
            kind: kind.name(),
            requests: share.requests,
            requests_per_second: per(share.requests, seconds),
            bytes_per_second: per(share.bytes, seconds),
            mean_us: share.latencies.mean() / 1e3,
            latencies: latencies.to_vec(),
        }
    }

    /// The latency at a percentile that curves have; 0 for others.
    #[must_use]
    pub fn us(&self, percentile: f64) -> f64 {
        let same = |latency: &&Latency| (latency.percentile - percentile).abs() < 1e-9;
        self.latencies
            .iter()
            .find(same)
            .map_or(0.0, |found| found.us)
    }
}

fn at(latencies: &Histogram<u64>, percentile: f64) -> f64 {
    let nanos = latencies.value_at_percentile(percentile);
    per(nanos, 1e3)
}

/// A count in a second. Counts lose nothing below 2^53.
#[allow(clippy::cast_precision_loss, reason = "a rate to be read")]
fn per(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

/// Slots that were counted to their ends.
fn series(sum: &Tally, seconds: f64) -> Vec<Point> {
    let slot = SLOT.as_secs_f64();
    let begins = |index: usize| f64::from(u32::try_from(index).unwrap_or(u32::MAX)) * slot;
    let whole = |(index, _): &(usize, _)| begins(index + 1) <= seconds;
    let slots = sum.slots.iter().enumerate().take_while(whole);
    let point = slots.map(|(index, sum)| Point {
        at: begins(index) + slot / 2.0,
        requests_per_second: per(sum.requests, slot),
        bytes_per_second: per(sum.bytes, slot),
    });
    point.collect()
}

fn targets(job: &Job) -> Vec<String> {
    let offline = job.offline.iter();
    let offline = offline.map(|offline| format!("{} (in process)", offline.image.display()));
    offline
        .chain(job.targets.iter().map(ToString::to_string))
        .collect()
}

/// What is asked for, such as `random 4096 bytes, 70 read 30 write`.
fn words(job: &Job) -> String {
    if job.trace.is_some() {
        return "a trace".to_owned();
    }
    let order = match job.shape.pattern {
        Pattern::Random => "random",
        Pattern::Sequential => "sequential",
    };
    let mix = job.shape.mix.iter();
    let mix = mix.map(|(kind, weight)| format!(" {weight} {}", kind.name()));
    let mut words = format!(
        "{order} {} bytes,{}",
        job.shape.block,
        mix.collect::<String>()
    );
    if let Some(every) = job.shape.flush_every {
        words += &format!(", a flush behind {every}");
    }
    if let Some(interval) = job.shape.interval {
        words += &format!(", one each {interval:?}");
    }
    words
}
