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
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::io::{self, Socket};

/// How long a session may get nowhere with what has come for it before it is cut.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a session is looked at that is waited for.
const LOOK: Duration = Duration::from_millis(50);

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
    /// It is to stop between two requests.
    is_suspending: Cell<bool>,
    /// A part of a payload has come.
    is_half_received: Cell<bool>,
    /// Where the server is going down: bytes that had come by then.
    last: Cell<Option<u64>>,
    /// Nothing more of what came is to be begun.
    is_concluding: Cell<bool>,
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

    /// From now on it is to stop before the next request, or no longer.
    pub(super) fn suspend(&self, is_suspending: bool) {
        self.is_suspending.set(is_suspending);
        self.step();
    }

    /// Whether it is to stop before the next request.
    pub(super) const fn is_suspending(&self) -> bool {
        self.is_suspending.get()
    }

    /// Waits until it is to stop before the next request.
    pub(super) async fn until_suspending(&self) {
        self.until(Self::is_suspending).await;
    }

    /// Waits for the next sign of life.
    pub(super) async fn until_step(&self) {
        self.changed.notified().await;
    }

    /// The rest of a payload is waited for, or no longer.
    pub(super) fn waits_for_rest(&self, is_half_received: bool) {
        self.is_half_received.set(is_half_received);
    }

    /// Whether the rest of a payload is waited for.
    pub(super) const fn is_half_received(&self) -> bool {
        self.is_half_received.get()
    }

    /// Whether it takes nothing more, since the server is going down: all is taken that had come.
    pub(super) fn is_drained(&self) -> bool {
        self.last
            .get()
            .is_some_and(|last| self.received.get() >= last)
    }

    /// Whether it is to end before the next request.
    pub(super) const fn is_concluding(&self) -> bool {
        self.is_concluding.get()
    }

    /// Whether it waits for more, and has begun all that it received.
    fn is_idle(&self) -> bool {
        self.begun.get() == self.received.get()
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

    /// Waits until it has begun its first `bytes` bytes.
    async fn until_begun(&self, bytes: u64) {
        self.until(|now| now.has_ended.get() || now.begun.get() >= bytes)
            .await;
    }

    /// Waits until the changes have ended that have begun by now.
    async fn until_changes_end(&self) {
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
        let done = async {
            self.until_begun().await;
            self.progress.until_changes_end().await;
        };
        !self.goes_on_until(done).await && self.cut()
    }

    /// Whether it begins nothing more.
    pub(super) fn has_ended(&self) -> bool {
        self.progress.has_ended.get()
    }

    /// Takes nothing more than has come by now: the server is going down.
    ///
    /// A socket that is shut down for reading still takes, on TCP, what a busy peer goes on
    /// sending, so that alone would not end the session.
    pub(super) fn drain(&self) {
        self.progress.last.set(Some(self.come()));
        // What was received is still served; a socket that is closed already is as good.
        let _ = self.socket.shutdown(std::net::Shutdown::Read);
    }

    /// Begins nothing more of what has come: it would take too long.
    pub(super) fn conclude(&self) {
        self.progress.is_concluding.set(true);
        self.progress.last.set(Some(0));
    }

    /// Bytes that have come by now, as far as can be told. A socket that can't be asked has ended.
    fn come(&self) -> u64 {
        self.progress.received.get() + self.unread()
    }

    fn unread(&self) -> u64 {
        self.socket.unread().unwrap_or(0)
    }

    async fn until_begun(&self) {
        let_completions_arrive().await;
        let bytes = self.come();
        loop {
            let begun = tokio::time::timeout(LOOK, self.progress.until_begun(bytes));
            if begun.await.is_ok() || self.waits_for_the_peer().await {
                return;
            }
        }
    }

    /// Whether nothing of what came is left to be begun. The bytes may be those of a payload that
    /// is not whole: they have left the socket and are not counted before the rest comes, if ever.
    async fn waits_for_the_peer(&self) -> bool {
        let waits = || self.progress.is_idle() && self.unread() == 0;
        let received = self.progress.received.get();
        if !waits() {
            return false;
        }
        let_completions_arrive().await;
        waits() && self.progress.received.get() == received
    }

    /// Waits for `done` as long as the session shows signs of life; whether it came.
    async fn goes_on_until(&self, done: impl Future<Output = ()>) -> bool {
        let mut done = std::pin::pin!(done);
        let (mut steps, mut since) = (self.progress.steps.get(), Instant::now());
        loop {
            if tokio::time::timeout(LOOK, done.as_mut()).await.is_ok() {
                return true;
            }
            let now = self.progress.steps.get();
            if now != steps {
                (steps, since) = (now, Instant::now());
            } else if since.elapsed() >= PATIENCE {
                return false;
            }
        }
    }

    /// Whether that changed anything.
    pub(super) fn cut(&self) -> bool {
        self.progress.is_cut.set(true);
        // A socket that is closed already is as good.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        !self.progress.has_ended.get()
    }
}

/// Bytes may have left a socket for a completion that no task has seen yet. The ring completes in
/// order, so after two turns they have been counted.
async fn let_completions_arrive() {
    io::yield_now().await;
    io::yield_now().await;
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::io::Pool;
    use crate::serve::link::Link;
    use crate::serve::poll_once::now;

    impl Progress {
        async fn until_done(&self, bytes: u64) {
            self.until_begun(bytes).await;
            self.until_changes_end().await;
        }
    }

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

    #[test]
    fn a_session_that_drains_takes_what_had_come_and_no_more() {
        let progress = Progress::default();
        progress.received(10);
        assert!(!progress.is_drained());
        progress.last.set(Some(15));
        assert!(!progress.is_drained());
        progress.received(5);
        assert!(progress.is_drained());
    }

    #[test]
    fn half_a_payload_that_was_taken_late_is_neither_waited_for_nor_cut() {
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        theirs.write_all(&[0; 100]).unwrap();
        let was_cut = io::run(async move {
            let socket = Socket::new(ours.into()).unwrap();
            let progress = Rc::<Progress>::default();
            let link = Link::new(socket.clone(), None, Rc::clone(&progress));
            let _session = io::spawn(async move {
                // The new session has counted what there is by then.
                for _ in 0..20 {
                    io::yield_now().await;
                }
                let buffer = Pool::new().take(4096).unwrap();
                let _ = link.receive_exact(buffer, 0..4096).await;
            });
            Elder { socket, progress }.settle().await
        });
        assert!(!was_cut.unwrap());
    }
}
