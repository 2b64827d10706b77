//! How many blocks an overlay has, and how many it may have. Pure.
//!
//! Invariants:
//! - The counts are those of the map at all times, without ever going through it again.
//! - The limit is on blocks in the data file. An overlay that is over it already (the limit was
//!   lowered) keeps what it has, and can rewrite it.

use super::map::{BlockCounts, BlockMap, BlockState};
use crate::units::BlockRange;

/// The blocks of one overlay against their limit.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    counts: BlockCounts,
    limit: Option<u64>,
    /// The limit was met, and somebody told.
    told: bool,
}

impl Quota {
    /// No limit yet, for a map with these counts.
    #[must_use]
    pub const fn new(counts: BlockCounts) -> Self {
        Self {
            counts,
            limit: None,
            told: false,
        }
    }

    /// At most so many present blocks from now on; any number for `None`.
    pub const fn set_limit(&mut self, blocks: Option<u64>) {
        self.limit = blocks;
    }

    /// Whether there is a limit.
    #[must_use]
    pub const fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// The blocks of the map by state.
    #[must_use]
    pub const fn counts(&self) -> BlockCounts {
        self.counts
    }

    /// `blocks` of the map went from one state to another.
    pub const fn changed(&mut self, blocks: u64, from: BlockState, to: BlockState) {
        let BlockCounts { present, zero } = &mut self.counts;
        match from {
            BlockState::Present => *present = present.saturating_sub(blocks),
            BlockState::Zero => *zero = zero.saturating_sub(blocks),
            BlockState::Absent => {}
        }
        match to {
            BlockState::Present => *present += blocks,
            BlockState::Zero => *zero += blocks,
            BlockState::Absent => {}
        }
    }

    /// How many of `blocks` a write of them would add; `None` where that, with `underway` that
    /// other writes are adding, would pass the limit.
    #[must_use]
    pub fn admit(&self, map: &BlockMap, blocks: BlockRange, underway: u64) -> Option<u64> {
        let Some(limit) = self.limit else {
            return Some(0);
        };
        let missing = map
            .runs(blocks)
            .filter(|(_, state)| *state != BlockState::Present)
            .map(|(run, _)| run.len())
            .sum::<u64>();
        let fits = missing == 0 || self.counts.present + underway + missing <= limit;
        fits.then_some(missing)
    }

    /// Whether this is the first time that the limit is met: worth a line in the log.
    pub const fn tell_once(&mut self) -> bool {
        let first = !self.told;
        self.told = true;
        first
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::BlockIndex;

    const BLOCKS: u64 = 200;

    fn range(start: u64, end: u64) -> BlockRange {
        BlockRange::between(BlockIndex(start), BlockIndex(end))
    }

    fn map_and_quota(limit: u64) -> (BlockMap, Quota) {
        let mut map = BlockMap::new(BLOCKS);
        let mut quota = Quota::new(map.counts());
        quota.set_limit(Some(limit));
        set(&mut map, &mut quota, range(0, 10), BlockState::Present);
        (map, quota)
    }

    fn set(map: &mut BlockMap, quota: &mut Quota, blocks: BlockRange, state: BlockState) {
        map.set(blocks, state, |run, old| {
            quota.changed(run.len(), old, state)
        });
    }

    #[test]
    fn the_last_block_within_the_limit_is_allowed() {
        let (map, quota) = map_and_quota(12);
        assert_eq!(quota.admit(&map, range(10, 12), 0), Some(2));
        assert_eq!(quota.admit(&map, range(10, 13), 0), None);
    }

    #[test]
    fn what_is_being_added_counts_against_the_limit() {
        let (map, quota) = map_and_quota(12);
        assert_eq!(quota.admit(&map, range(9, 11), 1), Some(1));
        assert_eq!(quota.admit(&map, range(9, 11), 2), None);
    }

    #[test]
    fn present_blocks_can_be_rewritten_past_the_limit() {
        let (map, mut quota) = map_and_quota(12);
        quota.set_limit(Some(3));
        assert_eq!(quota.admit(&map, range(0, 10), 5), Some(0));
        assert_eq!(quota.admit(&map, range(9, 11), 0), None);
    }

    #[test]
    fn zeroed_blocks_make_room() {
        let (mut map, mut quota) = map_and_quota(10);
        assert_eq!(quota.admit(&map, range(20, 21), 0), None);
        set(&mut map, &mut quota, range(0, 1), BlockState::Zero);
        assert_eq!(quota.admit(&map, range(20, 21), 0), Some(1));
    }

    #[test]
    fn without_a_limit_everything_is_allowed() {
        let (map, mut quota) = map_and_quota(0);
        quota.set_limit(None);
        assert_eq!(quota.admit(&map, range(0, BLOCKS), BLOCKS), Some(0));
    }

    #[test]
    fn the_limit_is_told_of_once() {
        let (_, mut quota) = map_and_quota(1);
        assert!(quota.tell_once() && !quota.tell_once());
    }

    proptest! {
        #[test]
        fn the_counts_are_always_those_of_the_map(
            sets in proptest::collection::vec((0..BLOCKS, 1..50u64, 0u8..3), 0..40),
        ) {
            let mut map = BlockMap::new(BLOCKS);
            let mut quota = Quota::new(map.counts());
            for (at, len, bits) in sets {
                let state = BlockState::from_bits(bits).unwrap();
                set(&mut map, &mut quota, range(at, at + len), state);
                prop_assert_eq!(quota.counts(), map.counts());
            }
        }
    }
}
