//! Connections of one client that follow each other: what an old one sent is done before a new one
//! is served.
//!
//! A machine whose link broke connects again, and sends again what was not answered. Its old
//! connection may still have requests in our receive queue; applied late, they would undo newer
//! writes (promise 4). So a new session of an overlay first waits until every older one has done
//! all that had come for it by then. One that gets nowhere, since its peer takes no replies or a
//! disk is stuck, is cut: it begins no change any more, and those it has begun have their turn
//! before any of the new session.
//!
//! A client may well have several live connections, so an old one is not cut for being old. What
//! a dead peer's network still holds back when its successor is served can't be told from the
//! traffic of a live second connection.
//!
//! Invariant: [`Progress::waits`] is told only when the session has begun all that it received.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::io::{self, Socket};

/// How long a session may get nowhere with what has come for it before it is cut.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far a session is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes that its task has taken from the socket.
    received: Cell<u64>,
    /// Of these, the bytes of requests that it has begun.
    begun: Cell<u64>,
    /// The number of the next change.
    next: Cell<u64>,
    /// The changes that have begun and not ended.
    underway: RefCell<BTreeSet<u64>>,
    /// Goes up with every sign of life.
    steps: Cell<u64>,
    has_ended: Cell<bool>,
    is_cut: Cell<bool>,
    changed: Notify,
}

/// A change that has begun; dropped when it has ended.
#[derive(Debug)]
pub(super) struct Underway {
    number: u64,
    progress: Rc<Progress>,
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.progress.underway.borrow_mut().remove(&self.number);
        self.progress.step();
    }
}

impl Progress {
    /// The session has begun all it received, and waits for more.
    pub(super) fn waits(&self) {
        self.begun.set(self.received.get());
        self.step();
    }

    /// It has received so many bytes.
    pub(super) fn received(&self, bytes: u64) {
        self.received.set(self.received.get() + bytes);
    }

    /// A change begins.
    pub(super) fn begin_change(self: &Rc<Self>) -> Underway {
        let number = self.next.replace(self.next.get() + 1);
        self.underway.borrow_mut().insert(number);
        Underway {
            number,
            progress: Rc::clone(self),
        }
    }

    /// Something went on.
    pub(super) fn step(&self) {
        self.steps.set(self.steps.get() + 1);
        self.changed.notify_waiters();
    }

    /// It begins nothing more.
    pub(super) fn ends(&self) {
        self.has_ended.set(true);
        self.step();
    }

    /// Whether it was cut, and must begin nothing more.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.get()
    }

    async fn until(&self, is_met: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            if is_met(self) {
                return;
            }
            changed.await;
        }
    }

    /// Waits until it has begun its first `bytes` bytes, and ended the changes among them.
    async fn until_done(&self, bytes: u64) {
        self.until(|now| now.has_ended.get() || now.begun.get() >= bytes)
            .await;
        let next = self.next.get();
        self.until(|now| {
            now.underway
                .borrow()
                .first()
                .is_none_or(|&first| first >= next)
        })
        .await;
    }
}

/// An older session of the same overlay.
#[derive(Clone, Debug)]
pub(super) struct Elder {
    pub(super) socket: Socket,
    pub(super) progress: Rc<Progress>,
}

impl Elder {
    /// Waits until the session has done what had come for it by now, and cuts it if it gets
    /// nowhere.
    ///
    /// Whether it had to be cut.
    pub(super) async fn settle(&self) -> bool {
        // Bytes may have left the socket for a completion that its task has not seen yet. The ring
        // completes in order, so after two turns it has.
        io::yield_now().await;
        io::yield_now().await;
        // A socket that can't be asked has ended.
        let unread = self.socket.unread().unwrap_or(0);
        let bytes = self.progress.received.get() + unread;
        loop {
            let steps = self.progress.steps.get();
            let done = tokio::time::timeout(PATIENCE, self.progress.until_done(bytes));
            if done.await.is_ok() {
                return false;
            }
            if self.progress.steps.get() == steps {
                return self.cut();
            }
        }
    }

    /// Whether that changed anything.
    fn cut(&self) -> bool {
        self.progress.is_cut.set(true);
        // A socket that is closed already is as good.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        !self.progress.has_ended.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::poll_once::now;

    #[test]
    fn what_was_received_and_not_begun_is_waited_for() {
        let progress = Progress::default();
        progress.received(10);
        assert!(now(progress.until_done(10)).is_none());
        progress.waits();
        assert!(now(progress.until_done(10)).is_some());
    }

    #[test]
    fn changes_that_have_begun_are_waited_for() {
        let progress = Rc::new(Progress::default());
        progress.received(10);
        let change = progress.begin_change();
        progress.waits();
        assert!(now(progress.until_done(10)).is_none());
        drop(change);
        assert!(now(progress.until_done(10)).is_some());
    }

    #[test]
    fn a_session_that_goes_on_is_waited_for_only_as_far_as_it_had_come() {
        let progress = Rc::new(Progress::default());
        progress.received(10);
        let old = progress.begin_change();
        progress.waits();
        let mut done = std::pin::pin!(progress.until_done(10));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(done.as_mut().poll(&mut context).is_pending());
        progress.received(10);
        let _new = progress.begin_change();
        drop(old);
        assert!(done.as_mut().poll(&mut context).is_ready());
    }

    #[test]
    fn the_changes_of_a_session_that_has_ended_are_waited_for() {
        let progress = Rc::new(Progress::default());
        let change = progress.begin_change();
        progress.ends();
        assert!(now(progress.until_done(99)).is_none());
        drop(change);
        assert!(now(progress.until_done(99)).is_some());
    }
}
