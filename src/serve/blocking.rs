//! Work that may block, on threads that the runtime has for it.

use std::io;

use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

use super::options::Failure;
use crate::limits::BOOT_WAITS_MAX;

/// Why nothing came of such work: the server ends.
#[derive(Debug, thiserror::Error)]
#[error("not done: {0}")]
pub(super) struct Undone(JoinError);

impl From<Undone> for io::Error {
    fn from(undone: Undone) -> Self {
        Self::other(undone)
    }
}

impl From<Undone> for Failure {
    fn from(undone: Undone) -> Self {
        Self::failed(undone.to_string())
    }
}

/// Does `work` on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Undone> {
    spawn_blocking(work).await.map_err(Undone)
}

/// Turns of those who wait for disks that machines boot from: a disk that does not answer must not
/// take every thread.
static WAITS: Semaphore = Semaphore::const_new(BOOT_WAITS_MAX);

/// The same for what a machine boots with, once it has a turn.
pub(super) async fn in_turn<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let turn = WAITS.acquire().await.map_err(io::Error::other)?;
    blocking(move || {
        let _turn = turn;
        work()
    })
    .await?
}
