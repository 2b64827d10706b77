//! The memory that unanswered requests hold: a part that each session has for itself, and one that
//! all sessions of a shard share.
//!
//! Invariants:
//! - A session with little in flight never waits for another: its first [`SESSION_BYTES_OWN`] bytes
//!   are nobody else's.
//! - Nobody waits for ever: while one has waited for long, a session that takes no replies is cut.
//! - Of what a session holds, all beyond its own part is counted as shared.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::outbox::Outbox;
use crate::limits::{SESSION_BYTES_MAX, SESSION_BYTES_OWN, SHARD_BYTES_MAX, STALL_TIME};

/// What the sessions of a shard share.
#[derive(Debug)]
pub(super) struct ShardMemory {
    budget: Budget,
    sessions: RefCell<Vec<Weak<Outbox>>>,
}

impl ShardMemory {
    pub(super) fn new() -> Self {
        Self {
            budget: Budget::new(SHARD_BYTES_MAX),
            sessions: RefCell::default(),
        }
    }

    /// Counts a session in; it counts itself out when it is dropped.
    pub(super) fn join(&self, session: &Rc<Outbox>) {
        let mut sessions = self.sessions.borrow_mut();
        sessions.retain(|other| other.strong_count() > 0);
        sessions.push(Rc::downgrade(session));
    }

    /// Waits for `ready`, and makes room by force where that lasts.
    async fn wait(&self, ready: impl AsyncFn(&Budget)) {
        while tokio::time::timeout(STALL_TIME, ready(&self.budget))
            .await
            .is_err()
        {
            self.cut_the_slowest();
        }
    }

    /// Ends the session that has been sending for the longest, if that is long.
    fn cut_the_slowest(&self) {
        let sessions: Vec<_> = self
            .sessions
            .borrow()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        let slowest = sessions
            .iter()
            .filter_map(|session| Some((session.stalled_for()?, session)))
            .filter(|&(time, _)| time >= STALL_TIME)
            .max_by_key(|&(time, _)| time);
        if let Some((time, session)) = slowest {
            tracing::warn!(
                "a client has taken no reply for {} s, and others wait for the memory: cut",
                time.as_secs()
            );
            session.break_off();
        }
    }
}

/// What one session holds.
#[derive(Debug)]
pub(super) struct SessionMemory {
    held: Budget,
    /// Counted in the budget of the shard, too.
    shared: Cell<u64>,
    shard: Rc<ShardMemory>,
}

impl SessionMemory {
    pub(super) fn new(shard: Rc<ShardMemory>) -> Self {
        Self {
            held: Budget::new(SESSION_BYTES_MAX),
            shared: Cell::new(0),
            shard,
        }
    }

    /// Takes `bytes` once there is room for them.
    pub(super) async fn take(&self, bytes: u64) {
        self.held.take(bytes).await;
        let needed = self.beyond_own();
        if needed > 0 {
            self.shard
                .wait(async |budget| budget.take(needed).await)
                .await;
            self.shared.set(self.shared.get() + needed);
            // Some was given back meanwhile, perhaps.
            self.settle();
        }
    }

    /// Waits until something may be charged.
    pub(super) async fn wait_for_room(&self) {
        self.held.wait_for_room().await;
        if self.held.used() >= SESSION_BYTES_OWN {
            self.shard
                .wait(async |budget| budget.wait_for_room().await)
                .await;
        }
    }

    /// Takes `bytes` at once.
    pub(super) fn charge(&self, bytes: u64) {
        self.held.charge(bytes);
        let needed = self.beyond_own();
        self.shard.budget.charge(needed);
        self.shared.set(self.shared.get() + needed);
    }

    /// Gives `bytes` back.
    pub(super) fn give(&self, bytes: u64) {
        self.held.give(bytes);
        self.settle();
    }

    /// Whether it holds any of what all share.
    pub(super) fn holds_shared(&self) -> bool {
        self.shared.get() > 0
    }

    /// What must still be counted as shared.
    fn beyond_own(&self) -> u64 {
        self.should_share().saturating_sub(self.shared.get())
    }

    fn should_share(&self) -> u64 {
        self.held.used().saturating_sub(SESSION_BYTES_OWN)
    }

    /// Counts no more as shared than there is.
    fn settle(&self) {
        let surplus = self.shared.get().saturating_sub(self.should_share());
        self.shared.set(self.shared.get() - surplus);
        self.shard.budget.give(surplus);
    }
}

/// Since when something that is under way has been.
#[derive(Debug, Default)]
pub(super) struct Since(Cell<Option<Instant>>);

impl Since {
    /// It begins.
    pub(super) fn begin(&self) {
        self.0.set(Some(Instant::now()));
    }

    /// It has ended.
    pub(super) fn end(&self) {
        self.0.set(None);
    }

    /// How long it has lasted, if it is under way.
    pub(super) fn lasts(&self) -> Option<Duration> {
        self.0.get().map(|begin| begin.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::poll_once::now;

    const OWN: u64 = SESSION_BYTES_OWN;

    fn shard() -> Rc<ShardMemory> {
        Rc::new(ShardMemory::new())
    }

    #[test]
    fn what_a_session_has_for_itself_is_there_though_all_else_is_taken() {
        crate::io::run(async {
            let shard = shard();
            shard.budget.charge(SHARD_BYTES_MAX);
            let session = SessionMemory::new(Rc::clone(&shard));
            assert!(now(session.take(OWN)).is_some());
            assert!(now(session.take(1)).is_none());
        })
        .unwrap();
    }

    #[test]
    fn only_what_lies_beyond_its_own_is_shared() {
        crate::io::run(async {
            let shard = shard();
            let session = SessionMemory::new(Rc::clone(&shard));
            session.take(OWN).await;
            assert!(!session.holds_shared());
            session.take(5).await;
            session.charge(2);
            assert_eq!(shard.budget.used(), 7);
            session.give(6);
            assert_eq!(shard.budget.used(), 1);
            session.give(OWN + 1);
            assert_eq!((shard.budget.used(), session.held.used()), (0, 0));
        })
        .unwrap();
    }

    #[test]
    fn a_take_that_was_given_up_on_is_no_longer_counted_as_shared() {
        crate::io::run(async {
            let shard = shard();
            let session = SessionMemory::new(Rc::clone(&shard));
            session.take(OWN + 9).await;
            session.give(OWN + 9);
            assert_eq!(shard.budget.used(), 0);
            assert!(!session.holds_shared());
        })
        .unwrap();
    }
}
