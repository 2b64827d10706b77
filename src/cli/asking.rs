//! What commands that ask about a state directory have in common.

use std::path::PathBuf;

/// Where to ask, and for whom the answer is.
#[derive(Debug, clap::Args)]
pub(super) struct Asking {
    /// Directory that keeps the overlays
    ///
    /// Without it, the one that `cowherd serve` uses without it.
    #[arg(long, value_name = "DIR")]
    pub(super) state: Option<PathBuf>,

    /// Print the answer as JSON
    #[arg(long)]
    pub(super) json: bool,
}
