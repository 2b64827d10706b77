//! What is known of machines, in the form that people and programs get: see cowherd-status(1).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::traffic::Totals;
use super::{At, Stage};

/// How a machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// A stage did not work, and the machine has not got further since.
    Failed,
    /// It waits for longer than it should ever take.
    Stuck,
    /// It waits for far longer than is usual for it.
    Slow,
    /// It is on its way.
    Booting,
    /// Its root is mounted.
    Up,
    /// It has no connection any more.
    Down,
    /// It is known, and has not booted.
    Idle,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Failed,
        Self::Stuck,
        Self::Slow,
        Self::Booting,
        Self::Up,
        Self::Down,
        Self::Idle,
    ];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Stuck => "stuck",
            Self::Slow => "slow",
            Self::Booting => "booting",
            Self::Up => "up",
            Self::Down => "down",
            Self::Idle => "idle",
        }
    }

    /// Whether somebody should look after it.
    #[must_use]
    pub const fn wants_help(self) -> bool {
        matches!(self, Self::Failed | Self::Stuck | Self::Slow)
    }
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// What it is called here: its name, else its MAC address, else its address.
    pub id: String,
    /// Its name in the config, or what its overlay is called.
    pub name: Option<String>,
    /// Its network card.
    pub mac: Option<String>,
    /// Its address.
    pub address: Option<String>,
    /// What it calls itself. Not to be trusted, and harmless to print.
    pub hostname: Option<String>,
    /// The vendor class that it sent. Not to be trusted, and harmless to print.
    pub vendor: Option<String>,
    /// What it can run.
    pub architecture: Option<String>,
    /// When it was last heard of.
    pub seen: At,
    /// How it is doing.
    pub state: State,
    /// The last stage of its boot that was done.
    pub stage: Option<Stage>,
    /// Since when it is there.
    pub since: Option<At>,
    /// What is wrong and what to do, in words.
    pub problem: Option<String>,
    /// What it boots from.
    pub export: Option<String>,
    /// Its connections.
    pub connections: u32,
    /// What it asks of its disk, since this server has started.
    pub traffic: Option<Traffic>,
    /// How long answers took, by the kind of request; in lists nothing.
    #[serde(default)]
    pub latencies: BTreeMap<String, Latency>,
    /// Its boots, the newest first; in lists only the newest.
    pub boots: Vec<Boot>,
}

/// What a machine asks of its disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes that it has read.
    pub bytes_read: u64,
    /// Bytes that it has written.
    pub bytes_written: u64,
    /// Bytes that it reads in a second, now.
    pub reads_per_second: u64,
    /// Bytes that it writes in a second, now.
    pub writes_per_second: u64,
    /// Requests that it makes in a second, now.
    pub requests_per_second: u64,
    /// Requests that are being worked on.
    pub underway: u32,
    /// Reads that were answered from memory.
    pub hits: u64,
    /// Requests by their kind, of kinds that there were any of.
    pub requests: BTreeMap<String, u64>,
    /// Requests that failed, by the cause.
    pub errors: BTreeMap<String, u64>,
    /// Bytes of blocks that its overlay holds.
    pub overlay_bytes: Option<u64>,
}

/// What all machines together have asked of one generation of an image, since this server has
/// started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// The image and its generation.
    pub export: String,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// Bytes that were written, to overlays over it.
    pub bytes_written: u64,
    /// Reads that were answered from memory.
    pub hits: u64,
    /// Requests by their kind, of kinds that there were any of.
    pub requests: BTreeMap<String, u64>,
    /// Requests that failed, by the cause.
    pub errors: BTreeMap<String, u64>,
    /// How long answers took, by the kind of request.
    pub latencies: BTreeMap<String, Latency>,
}

impl Export {
    /// All of them, in the order of their names.
    #[must_use]
    pub fn all(exports: &BTreeMap<String, Totals>) -> Vec<Self> {
        let told = exports.iter();
        told.map(|(export, totals)| Self::of(export, totals))
            .collect()
    }

    fn of(export: &str, Totals { counts, latencies }: &Totals) -> Self {
        Self {
            export: export.to_owned(),
            bytes_read: counts.bytes_read(),
            bytes_written: counts.bytes_written(),
            hits: counts.hits,
            requests: counts.requests_by_name(),
            errors: counts.errors_by_name(),
            latencies: latencies.by_name(),
        }
    }
}

/// How long answers to one kind of request took, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// How many there were.
    pub count: u64,
    /// What half of them took at most.
    pub median: u64,
    /// What 99 of 100 took at most.
    pub p99: u64,
    /// The longest.
    pub longest: u64,
}

/// One boot of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// When it began.
    pub began: At,
    /// How long it took until its root was mounted, in milliseconds.
    pub took: Option<u64>,
    /// What became of it.
    pub state: State,
    /// What went wrong, in words.
    pub problem: Option<String>,
    /// What it boots from.
    pub export: Option<String>,
    /// How often it has connected again.
    pub reconnects: u32,
    /// Its stages, in their order.
    pub stages: Vec<Passage>,
}

/// A stage of one boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Which.
    pub stage: Stage,
    /// When it was first tried, in milliseconds after the boot began.
    pub began: u64,
    /// When it was done, in milliseconds after the boot began.
    pub ended: Option<u64>,
    /// How long it took since the one before was done, in milliseconds.
    pub took: Option<u64>,
    /// How long it usually takes, in milliseconds.
    pub usual: Option<u64>,
    /// It took far longer than usual.
    pub slow: bool,
    /// Bytes that were sent for it.
    pub bytes: u64,
    /// A file, or an export. Not to be trusted, and harmless to print.
    pub detail: String,
    /// Why it was not done.
    pub failure: Option<String>,
    /// How often it was tried.
    pub tries: u32,
}
