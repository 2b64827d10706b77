//! How a signal ends the server: sessions end with what their clients have asked for, and are cut
//! when that takes too long.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::options::Failure;
use super::service::{Shards, notify};
use super::shard::ShardHandle;
use crate::limits::{DRAIN_ASKED_TIME, DRAIN_TIME};

/// SIGTERM and SIGINT end the server, SIGHUP makes it read its config again.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl StopSignals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for an end; each SIGHUP before that calls `reload`.
    pub(super) async fn wait(&mut self, mut reload: impl FnMut()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => reload(),
            }
        }
    }
}

/// Lets sessions end by themselves, then ends them; a second signal cuts the waiting short.
pub(super) async fn drain(shards: &Shards, stop: &mut StopSignals) -> Result<(), Failure> {
    notify(sd_notify::NotifyState::Stopping);
    tokio::select! {
        () = end_by_themselves(shards) => {}
        () = stop.wait(|| tracing::info!("SIGHUP: the server is going down")) => {}
    }
    if shards.is_finished() {
        return Ok(());
    }
    tracing::warn!("some clients take no replies, or a disk is slow: cutting their connections");
    shards.handles.iter().for_each(ShardHandle::cut);
    finished(shards, Instant::now() + DRAIN_TIME).await;
    match shards.is_finished() {
        true => Ok(()),
        false => Err(Failure::failed(
            "a disk does not answer: overlays were not all closed; their recovery is automatic",
        )),
    }
}

/// Lets sessions end with what their clients have asked for, as long as there is time.
async fn end_by_themselves(shards: &Shards) {
    let begun = Instant::now();
    shards.handles.iter().for_each(ShardHandle::drain);
    finished(shards, begun + DRAIN_ASKED_TIME).await;
    // Requests for gigabytes may lie in a socket.
    shards.handles.iter().for_each(ShardHandle::conclude);
    finished(shards, begun + DRAIN_TIME).await;
}

/// Waits until all shards have ended, but not past `deadline`.
async fn finished(shards: &Shards, deadline: Instant) {
    until(|| shards.is_finished(), deadline).await;
}

/// Waits until it is so, but not past `deadline`.
pub(super) async fn until(is_met: impl Fn() -> bool, deadline: Instant) {
    while !is_met() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
