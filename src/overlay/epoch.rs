//! The state changes since the last flush began, pure.

use super::journal::{CHANGES_MAX, Change};
use super::map::BlockState;
use crate::units::{BlockIndex, BlockRange};

/// Longest run that a journal record can name.
const RUN_MAX: u64 = u32::MAX as u64;

/// State changes in the order they happened.
#[derive(Clone, Debug, Default)]
pub struct Epoch {
    changes: Vec<Change>,
    /// There were more than a journal holds; they are in the map, and a checkpoint must carry them.
    overflowed: bool,
}

impl Epoch {
    /// Whether nothing changed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty() && !self.overflowed
    }

    /// The changes, or `None` where there were more than a journal holds.
    #[must_use]
    pub fn changes(&self) -> Option<&[Change]> {
        (!self.overflowed).then_some(&self.changes)
    }

    /// Adds the change of `blocks` to `state`.
    pub fn push(&mut self, blocks: BlockRange, state: BlockState) {
        let mut at = blocks.start();
        while at < blocks.end() {
            let end = blocks.end().min(BlockIndex(at.0 + RUN_MAX));
            self.push_run(Change {
                blocks: BlockRange::between(at, end),
                state,
            });
            at = end;
        }
    }

    fn push_run(&mut self, change: Change) {
        if self.overflowed {
            return;
        }
        if let Some(last) = self.changes.last_mut() {
            let joined = BlockRange::between(last.blocks.start(), change.blocks.end());
            let adjacent = last.blocks.end() == change.blocks.start();
            if last.state == change.state && adjacent && joined.len() <= RUN_MAX {
                last.blocks = joined;
                return;
            }
        }
        if self.changes.len() == CHANGES_MAX {
            self.changes = Vec::new();
            self.overflowed = true;
            return;
        }
        self.changes.push(change);
    }

    /// Puts `earlier` back before what came since: its flush did not happen.
    pub fn put_back(&mut self, mut earlier: Self) {
        let later = std::mem::take(self);
        earlier.overflowed |= later.overflowed;
        for change in later.changes {
            earlier.push_run(change);
        }
        *self = earlier;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> BlockRange {
        BlockRange::between(BlockIndex(start), BlockIndex(end))
    }

    #[test]
    fn neighbours_of_one_state_become_one_change() {
        let mut epoch = Epoch::default();
        epoch.push(range(0, 2), BlockState::Present);
        epoch.push(range(2, 5), BlockState::Present);
        epoch.push(range(5, 6), BlockState::Zero);
        assert_eq!(epoch.changes().unwrap().len(), 2);
    }

    #[test]
    fn a_run_longer_than_a_record_holds_is_split() {
        let mut epoch = Epoch::default();
        epoch.push(range(0, RUN_MAX + 10), BlockState::Zero);
        let lens: Vec<_> = epoch
            .changes()
            .unwrap()
            .iter()
            .map(|c| c.blocks.len())
            .collect();
        assert_eq!(lens, [RUN_MAX, 10]);
    }

    #[test]
    fn more_changes_than_a_journal_holds_take_no_more_memory() {
        let mut epoch = Epoch::default();
        for i in 0..=CHANGES_MAX as u64 {
            epoch.push(range(i * 2, i * 2 + 1), BlockState::Present);
        }
        assert!(epoch.changes().is_none() && !epoch.is_empty() && epoch.changes.is_empty());
    }

    #[test]
    fn what_is_put_back_comes_first() {
        let mut epoch = Epoch::default();
        epoch.push(range(0, 1), BlockState::Zero);
        let mut earlier = Epoch::default();
        earlier.push(range(0, 1), BlockState::Present);
        epoch.put_back(earlier);
        let states: Vec<_> = epoch.changes().unwrap().iter().map(|c| c.state).collect();
        assert_eq!(states, [BlockState::Present, BlockState::Zero]);
    }
}
