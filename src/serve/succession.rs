//! Connections of one client that follow each other: what an old one sent is done before a new one
//! is served.
//!
//! A machine whose link broke connects again, and sends again what was not answered. Its old
//! connection may still have requests in our receive queue; applied late, they would undo newer
//! writes (promise 4). So a new session of an overlay first waits until every older one has done
//! all that had come for it by then. One that can't, since its peer takes no replies, is cut.
//!
//! A client may well have several live connections, so an old one is not cut for being old. What
//! a dead peer's network still holds back when its successor is served can't be told from the
//! traffic of a live second connection.
//!
//! Invariant: [`Progress::is_waiting`] is set only while the session has done all it received.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::io::{self, Socket};

/// How long a session may take to do what has come for it before it is cut.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far a session is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Waiting for bytes, with nothing left to do.
    is_waiting: Cell<bool>,
    has_ended: Cell<bool>,
    changed: Notify,
}

impl Progress {
    /// The session has done all it received, and waits for more.
    pub(super) fn waits(&self) {
        self.is_waiting.set(true);
        self.changed.notify_waiters();
    }

    /// It has received something.
    pub(super) fn works(&self) {
        self.is_waiting.set(false);
    }

    /// It is over.
    pub(super) fn ends(&self) {
        self.has_ended.set(true);
        self.changed.notify_waiters();
    }
}

/// An older session of the same overlay.
#[derive(Clone, Debug)]
pub(super) struct Elder {
    pub(super) socket: Socket,
    pub(super) progress: Rc<Progress>,
}

impl Elder {
    /// Waits until the session has done what had come for it, and cuts it if it can't.
    ///
    /// Whether it had to be cut.
    pub(super) async fn settle(&self) -> bool {
        let caught_up = tokio::time::timeout(PATIENCE, self.catch_up())
            .await
            .is_ok();
        if !caught_up {
            // A socket that is closed already is as good.
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
        }
        !caught_up
    }

    async fn catch_up(&self) {
        // Bytes may have left the socket for a completion that its task has not seen yet. The ring
        // completes in order, so after two turns it has.
        io::yield_now().await;
        io::yield_now().await;
        loop {
            let changed = self.progress.changed.notified();
            if self.has_caught_up() {
                return;
            }
            changed.await;
        }
    }

    fn has_caught_up(&self) -> bool {
        let is_empty = || self.socket.unread().is_ok_and(|bytes| bytes == 0);
        self.progress.has_ended.get() || (self.progress.is_waiting.get() && is_empty())
    }
}
