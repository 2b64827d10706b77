//! What `serve` is asked to do, and how it says that it could not.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use super::listen::ListenAddress;
use crate::access::Entry;

/// What `serve` is asked to do, checked as far as that goes without a file or a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Files of the images; empty only with `demo` or `config`.
    pub images: Vec<PathBuf>,
    /// The config file.
    pub config: Option<PathBuf>,
    /// Make and serve an image to play with.
    pub demo: bool,
    /// Where to listen; empty means "nothing was said".
    pub listen: Vec<ListenAddress>,
    /// Who may open anything; with `deny` in place of what a config says.
    pub allow: Vec<Entry>,
    /// Who may not.
    pub deny: Vec<Entry>,
    /// The state directory; `None` means "nothing was said".
    pub state: Option<PathBuf>,
    /// Data-plane threads, at most [`SHARDS_MAX`]; `None` means "nothing was said".
    pub shards: Option<NonZeroUsize>,
    /// Bytes that an overlay may hold; `None` means any number.
    pub overlay_limit: Option<NonZeroU64>,
    /// How long a peer is silent before it is asked whether it is still there.
    pub keepalive: Duration,
    /// Remember what boots read, and have it in memory when a machine is switched on.
    pub prefetch: bool,
    /// Serve the images without overlays.
    pub read_only: bool,
    /// Take everything over from the server that runs.
    pub takeover: bool,
    /// Serve in the background, and come back when that goes well.
    pub detach: bool,
}

/// Why the program ends without having done what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    code: u8,
    message: String,
    may_pass: bool,
}

impl Failure {
    /// The work failed: exit code 1. `message` reads `what: why; what to do`, on one line.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: message.into(),
            may_pass: false,
        }
    }

    /// The work failed for want of something that may yet come, such as an address of this host.
    #[must_use]
    pub fn not_yet(message: impl Into<String>) -> Self {
        Self {
            may_pass: true,
            ..Self::failed(message)
        }
    }

    /// The options can't be served as they are: exit code 2. `message` as for [`Self::failed`].
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            code: 2,
            message: message.into(),
            may_pass: false,
        }
    }

    /// Whether the same may go well a moment later.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        self.may_pass
    }

    /// The exit code of the process.
    #[must_use]
    pub const fn code(&self) -> u8 {
        self.code
    }
}
