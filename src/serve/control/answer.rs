//! The facts that commands give: as JSON for programs, and the matter of tables for people.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::status::At;
use crate::status::report::{Client, Export};

/// What a command gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// All overlays, in the order of their names.
    List(Vec<Entry>),
    /// One overlay.
    Show(Entry),
    /// What was found in each overlay that was checked.
    Check(Vec<Checked>),
    /// An overlay was removed.
    Reset {
        /// Which.
        overlay: String,
    },
    /// How the machines are doing.
    Status(Status),
    /// The leases that machines have, by their addresses.
    Leases(Vec<Lease>),
    /// Leases were ended before their time.
    ForgetLease {
        /// Of these addresses.
        addresses: Vec<Ipv4Addr>,
    },
    /// A new image was written.
    Commit(Committed),
}

/// An address that a machine has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// The network card.
    pub mac: String,
    /// What the config calls the machine.
    pub name: Option<String>,
    /// Seconds until it ends, unless it is prolonged.
    pub seconds_left: u64,
}

/// How the machines are doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether a server runs; without one, this is what it knew when it ended.
    pub running: bool,
    /// When this was so, in milliseconds since 1970.
    pub now: At,
    /// The machines; those that need help first.
    pub clients: Vec<Client>,
    /// What they ask of the images; nothing without a server, or where one machine was asked for.
    #[serde(default)]
    pub exports: Vec<Export>,
}

/// One overlay, as far as it can be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its whole name, `image+generation@client`.
    pub overlay: String,
    /// Why it can't be read, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What it is.
    #[serde(flatten)]
    pub facts: Option<Facts>,
}

/// What an overlay is and holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// How long it is kept.
    pub mode: Mode,
    /// It is of an earlier boot of the host, and will not be served again.
    pub expired: bool,
    /// Bytes of the client's disk.
    pub disk_bytes: u64,
    /// Bytes that the overlay takes of its file system.
    pub space_bytes: u64,
    /// The client's own blocks.
    pub blocks: Blocks,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// When its data or its journals were written last, in seconds since 1970. Opening counts.
    pub written: u64,
    /// Who began a session with it last; `None` where that is not known.
    pub last_client: Option<LastClient>,
    /// The generation of its newest checkpoint.
    pub checkpoint: Option<u64>,
    /// The journal in use.
    pub journal: Journal,
    /// The peers that use it now; `None` where nobody has it open.
    pub in_use: Option<Vec<String>>,
    /// Why it takes no more writes, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poison: Option<String>,
}

/// How long an overlay is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Until it is reset.
    Persistent,
    /// Until the host is started anew.
    Ephemeral,
}

impl Mode {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Persistent => "persistent",
            Self::Ephemeral => "ephemeral",
        }
    }
}

/// Blocks by state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocks {
    /// Bytes of a block.
    pub bytes: u64,
    /// Blocks in the data file.
    pub present: u64,
    /// Blocks that read as zeros.
    pub zero: u64,
}

/// Who used an overlay last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastClient {
    /// Its address.
    pub peer: String,
    /// When its session began, in seconds since 1970.
    pub at: u64,
}

/// The journal in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Which use of the journal files this is.
    pub generation: u64,
    /// Bytes of it in use.
    pub used: u64,
    /// Bytes that it has.
    pub size: u64,
}

/// What was found in an overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Its whole name.
    pub overlay: String,
    /// It was in use, so journals and checkpoint were left out.
    pub in_use: bool,
    /// What is wrong.
    pub problems: Vec<String>,
    /// What may be wrong.
    pub warnings: Vec<String>,
    /// What is worth to know.
    pub notes: Vec<String>,
}

/// A new image that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// Whose overlay went into it.
    pub overlay: String,
    /// The image below.
    pub image: PathBuf,
    /// The new file.
    pub file: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// Bytes that are allocated to it; shared ones count too.
    pub space_bytes: u64,
    /// Whether it shares unchanged blocks with the image below.
    pub shared: bool,
}
