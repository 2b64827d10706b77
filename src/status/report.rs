//! What is known of machines, in the form that people and programs get: see cowherd-status(1).

use serde::{Deserialize, Serialize};

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
    /// Its boots, the newest first; in lists only the newest.
    pub boots: Vec<Boot>,
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
