//! Group commit (rule R4): who waits for which flush, pure.
//!
//! Invariant: a waiter is released by a cycle that began after the waiter came. One that comes
//! while a cycle runs waits for the next, for the running one may have looked at the data before
//! its write.

/// At most one flush cycle runs; all who came before it began share it.
#[derive(Debug)]
pub struct GroupCommit<W> {
    running: Option<Vec<W>>,
    gathering: Vec<W>,
}

impl<W> Default for GroupCommit<W> {
    fn default() -> Self {
        Self {
            running: None,
            gathering: Vec::new(),
        }
    }
}

impl<W> GroupCommit<W> {
    /// Adds one who waits until all that happened so far is durable.
    pub fn join(&mut self, waiter: W) {
        self.gathering.push(waiter);
    }

    /// Whether a cycle should begin now: someone waits, and none runs.
    #[must_use]
    pub const fn is_due(&self) -> bool {
        self.running.is_none() && !self.gathering.is_empty()
    }

    /// Whether a cycle runs or is due.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.running.is_some() || !self.gathering.is_empty()
    }

    /// A cycle begins; it is for all who came so far.
    pub fn begin(&mut self) {
        self.running = Some(std::mem::take(&mut self.gathering));
    }

    /// The cycle has ended: those it was for.
    pub fn finish(&mut self) -> Vec<W> {
        self.running.take().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_came_before_a_cycle_share_it() {
        let mut commit = GroupCommit::default();
        commit.join(1);
        commit.join(2);
        commit.begin();
        assert_eq!(commit.finish(), [1, 2]);
    }

    #[test]
    fn one_who_comes_during_a_cycle_waits_for_the_next() {
        let mut commit = GroupCommit::default();
        commit.join(1);
        commit.begin();
        commit.join(2);
        assert!(!commit.is_due());
        assert_eq!(commit.finish(), [1]);
        assert!(commit.is_due());
    }
}
