//! A count with a limit, for the tasks of one thread.
//!
//! Invariants: what is taken is given back; something larger than the limit is let in when nothing
//! else is, so nobody waits for ever.

use std::cell::Cell;

use tokio::sync::Notify;

/// So much may be taken at a time.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    used: Cell<u64>,
    given: Notify,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: Cell::new(0),
            given: Notify::new(),
        }
    }

    /// How much is taken.
    pub(super) fn used(&self) -> u64 {
        self.used.get()
    }

    /// Takes `amount` once there is room for it.
    pub(super) async fn take(&self, amount: u64) {
        self.wait(|used| used == 0 || used + amount <= self.limit)
            .await;
        self.charge(amount);
    }

    /// Takes `amount` at once, past the limit if need be.
    pub(super) fn charge(&self, amount: u64) {
        self.used.set(self.used.get() + amount);
    }

    /// Waits until less than the limit is taken.
    pub(super) async fn wait_for_room(&self) {
        self.wait(|used| used < self.limit).await;
    }

    /// Waits until all has been given back.
    pub(super) async fn wait_until_unused(&self) {
        self.wait(|used| used == 0).await;
    }

    /// Gives `amount` back.
    pub(super) fn give(&self, amount: u64) {
        if amount > 0 {
            self.used.set(self.used.get().saturating_sub(amount));
            self.given.notify_waiters();
        }
    }

    async fn wait(&self, is_met: impl Fn(u64) -> bool) {
        while !is_met(self.used.get()) {
            self.given.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::poll_once::now;

    #[test]
    fn what_does_not_fit_waits_until_something_is_given_back() {
        let budget = Budget::new(10);
        assert!(now(budget.take(8)).is_some());
        assert!(now(budget.take(3)).is_none());
        budget.give(1);
        assert!(now(budget.take(3)).is_some());
    }

    #[test]
    fn what_is_larger_than_the_limit_gets_in_alone() {
        let budget = Budget::new(10);
        assert!(now(budget.take(11)).is_some());
        assert!(now(budget.take(1)).is_none());
    }

    #[test]
    fn one_who_waits_is_woken_by_what_is_given_back() {
        let budget = Budget::new(10);
        budget.charge(10);
        let mut waiting = std::pin::pin!(budget.wait_until_unused());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        budget.give(10);
        assert!(waiting.as_mut().poll(&mut context).is_ready());
    }
}
