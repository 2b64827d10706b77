//! Questions and orders about overlays, for people: `cowherd overlay`.
//!
//! - [`message`] is what is asked and answered, [`answer`] the facts in it.
//! - `workshop` carries a command out, on overlays that nobody uses meanwhile or by a look at those
//!   in use; `task` is the work on one overlay, [`expire`] what a server does by itself.
//! - `door` is the socket of a running server, `caller` the other end of it.
//!
//! Invariant: whoever works on the files of an overlay is alone with them: the state directory is
//! locked and the overlay, where a server runs, held back from its clients.

pub mod answer;
mod caller;
mod door;
mod expire;
mod leases;
pub mod message;
mod task;
mod workshop;

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::options::Failure;
use super::state_dir::{StateDir, StateError};

pub use answer::Answer;
pub(super) use caller::connect;
pub(super) use door::{Control, ControlSocket};
pub(super) use expire::expire;
pub use message::{Command, OverlayName, Progress};
pub(super) use message::{refusal_in, take_over};
pub(super) use task::note_client;
pub(super) use workshop::Workshop;

/// Told of progress; it may say that the work is to stop.
pub type Reporter = Arc<dyn Fn(&Progress) -> ControlFlow<()> + Send + Sync>;

/// A server that is starting or stopping holds its directory without listening for a moment.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// Carries `command` out on the state directory, by way of the server that holds it if one does.
///
/// # Errors
/// One line: what could not be done, and what to do.
pub fn run(
    state: Option<PathBuf>,
    command: &Command,
    report: &Reporter,
) -> Result<Answer, Failure> {
    let path = state.unwrap_or_else(StateDir::default_path);
    let mut tries = 0;
    loop {
        let error = match StateDir::open_existing(&path) {
            Ok(state) => return alone(state, command, report),
            Err(error @ StateError::Locked { .. }) => error,
            Err(error) => return Err(failed(error)),
        };
        if let Some(answer) = by_server(&path, command, report) {
            return answer;
        }
        tries += 1;
        if tries == TRIES {
            return Err(failed(error));
        }
        std::thread::sleep(PAUSE);
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error.to_string())
}

/// `None` where the holder of the directory does not listen.
fn by_server(path: &Path, command: &Command, report: &Reporter) -> Option<Result<Answer, Failure>> {
    let stream = connect(path)?;
    Some(caller::ask(stream, command, report))
}

/// No server runs, and none can start while this has the lock.
fn alone(state: StateDir, command: &Command, report: &Reporter) -> Result<Answer, Failure> {
    let workshop = Workshop::alone(Arc::new(state));
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime
        .map_err(failed)?
        .block_on(workshop.run(command.clone(), Arc::clone(report)))
}
