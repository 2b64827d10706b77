//! Space of the data file that zeroed blocks no longer need, on its way back to the file system.
//! Pure.
//!
//! Invariants (rule R5):
//! - A block may be punched only once the record that it reads as zeros is durable: before that, a
//!   crash would bring back a map that points at the hole.
//! - A block that is written again leaves the queue first; one whose punch is under way can't be
//!   written until it has ended.

use std::ops::Range;

use rangemap::RangeSet;

use super::sabotage::{self, Sabotage};
use crate::units::{BlockIndex, BlockRange, ByteRange};

/// Shortest run that is worth a call: punching 4 KiB costs as much as punching 64.
const RUN_MIN: u64 = 16;
/// Longest run that one call punches: its blocks can't be written meanwhile.
const RUN_MAX: u64 = 1 << 18;
/// Runs punched by one job, so that a job stays short.
const RUNS_PER_JOB: usize = 64;
/// Runs on the lists from which on none is added that need not have any space: such ones cost a
/// client nothing, and each takes memory here.
const RUNS_MAX: usize = 1 << 16;

/// Blocks whose space can be given back, by how far their records have come.
#[derive(Debug, Default)]
pub struct FreedSpace {
    /// Zeroed in the open epoch.
    open: RangeSet<u64>,
    /// Zeroed in the epoch that is being made durable.
    sealed: RangeSet<u64>,
    /// May be punched.
    ready: RangeSet<u64>,
    /// `ready` may have long runs: where it has none, it is not gone through at every flush.
    has_news: bool,
    /// Being punched now.
    punching: Vec<BlockRange>,
}

impl FreedSpace {
    /// Blocks that were in the data file, some of them, and read as zeros from now on, all.
    pub fn freed(&mut self, blocks: BlockRange) {
        if sabotage::breaks(Sabotage::PunchBeforeRecord) {
            self.ready.insert(blocks.indices());
        }
        self.open.insert(blocks.indices());
    }

    /// Blocks that read as zeros from now on, and none of which was in the data file. They may have
    /// space all the same: it was kept when they were zeroed, or it was to be given back when a
    /// server was killed; and `absent` ones, of which nobody knows, may have that of writes that a
    /// killed server had not recorded.
    pub fn perhaps_freed(&mut self, blocks: BlockRange, absent: u64) {
        let is_worth_it = absent < blocks.len() || absent >= RUN_MIN;
        let runs = self.open.len() + self.sealed.len() + self.ready.len();
        if is_worth_it && runs < RUNS_MAX {
            self.freed(blocks);
        }
    }

    /// Blocks that are about to be written, or whose space is to stay.
    pub fn keep(&mut self, blocks: BlockRange) {
        let lists = [
            (&mut self.open, Sabotage::PunchRewrittenOpen),
            (&mut self.sealed, Sabotage::PunchRewrittenSealed),
            (&mut self.ready, Sabotage::PunchRewrittenReady),
        ];
        for (list, forgotten) in lists {
            if !list.is_empty() && !blocks.is_empty() && !sabotage::breaks(forgotten) {
                list.remove(blocks.indices());
            }
        }
    }

    /// Whether any of `blocks` is being punched: they must not be touched before that has ended.
    #[must_use]
    pub fn is_punching(&self, blocks: BlockRange) -> bool {
        self.punching.iter().any(|run| run.overlaps(blocks))
            && !sabotage::breaks(Sabotage::WriteWhilePunching)
    }

    /// Whether anything is being punched.
    #[must_use]
    pub const fn is_punching_any(&self) -> bool {
        !self.punching.is_empty()
    }

    /// A flush begins to make the open epoch durable.
    pub fn seal(&mut self) {
        let open = std::mem::take(&mut self.open);
        self.sealed.extend(open);
    }

    /// That flush has ended well.
    pub fn sealed_is_durable(&mut self) {
        let mut sealed = std::mem::take(&mut self.sealed);
        self.has_news |= !sealed.is_empty();
        if sealed.len() > self.ready.len() {
            // The shorter list goes into the longer.
            std::mem::swap(&mut sealed, &mut self.ready);
        }
        self.ready.extend(sealed);
    }

    /// That flush did not happen.
    pub fn unseal(&mut self) {
        let sealed = std::mem::take(&mut self.sealed);
        self.open.extend(sealed);
    }

    /// Takes runs to punch, the short ones only if `all`; empty while others are being punched.
    pub fn begin_punch(&mut self, all: bool) -> Vec<ByteRange> {
        let is_worth_a_look = self.has_news || all;
        if !self.punching.is_empty() || !is_worth_a_look {
            return Vec::new();
        }
        let min = if all { 1 } else { RUN_MIN };
        let long = self.ready.iter().filter(|run| run.end - run.start >= min);
        let cut = |run: &Range<u64>| run.start..run.end.min(run.start + RUN_MAX);
        let taken: Vec<_> = long.map(cut).take(RUNS_PER_JOB).collect();
        self.has_news = !taken.is_empty();
        for run in taken {
            self.ready.remove(run.clone());
            let run = BlockRange::between(BlockIndex(run.start), BlockIndex(run.end));
            self.punching.push(run);
        }
        self.punching.iter().map(|run| run.bytes()).collect()
    }

    /// The punches have ended, well or not (space that stays is no harm).
    pub fn finish_punch(&mut self) {
        self.punching.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> BlockRange {
        BlockRange::between(BlockIndex(start), BlockIndex(end))
    }

    fn durable(space: &mut FreedSpace) {
        space.seal();
        space.sealed_is_durable();
    }

    #[test]
    fn nothing_is_punched_before_its_record_is_durable() {
        let mut space = FreedSpace::default();
        space.freed(range(0, 100));
        assert!(space.begin_punch(true).is_empty());
        space.seal();
        assert!(space.begin_punch(true).is_empty());
        space.sealed_is_durable();
        assert_eq!(space.begin_punch(true), [range(0, 100).bytes()]);
    }

    #[test]
    fn a_rewritten_block_is_never_punched() {
        let mut space = FreedSpace::default();
        space.freed(range(0, 100));
        durable(&mut space);
        space.keep(range(40, 50));
        assert_eq!(
            space.begin_punch(false),
            [range(0, 40).bytes(), range(50, 100).bytes()]
        );
    }

    #[test]
    fn short_runs_wait_until_they_have_grown() {
        let mut space = FreedSpace::default();
        space.freed(range(0, RUN_MIN - 1));
        durable(&mut space);
        assert!(space.begin_punch(false).is_empty());
        space.freed(range(RUN_MIN - 1, RUN_MIN));
        durable(&mut space);
        assert_eq!(space.begin_punch(false), [range(0, RUN_MIN).bytes()]);
    }

    #[test]
    fn a_very_long_run_is_punched_piece_by_piece() {
        let mut space = FreedSpace::default();
        space.freed(range(0, RUN_MAX + 20));
        durable(&mut space);
        assert_eq!(space.begin_punch(false), [range(0, RUN_MAX).bytes()]);
        space.finish_punch();
        let rest = range(RUN_MAX, RUN_MAX + 20).bytes();
        assert_eq!(space.begin_punch(false), [rest]);
    }

    #[test]
    fn what_a_later_flush_frees_joins_what_waits() {
        let mut space = FreedSpace::default();
        for start in [0, 40, 80, 20, 60] {
            space.freed(range(start, start + 5));
            durable(&mut space);
            assert!(space.begin_punch(false).is_empty());
        }
        space.freed(range(5, 20));
        durable(&mut space);
        assert_eq!(space.begin_punch(false), [range(0, 25).bytes()]);
        space.finish_punch();
        assert_eq!(space.begin_punch(true).len(), 3);
    }

    #[test]
    fn a_block_being_punched_is_known_until_that_has_ended() {
        let mut space = FreedSpace::default();
        space.freed(range(0, 100));
        durable(&mut space);
        space.begin_punch(false);
        assert!(space.is_punching(range(99, 101)));
        space.finish_punch();
        assert!(!space.is_punching(range(99, 101)));
    }

    #[test]
    fn short_runs_that_were_never_written_are_not_looked_after() {
        let mut space = FreedSpace::default();
        space.perhaps_freed(range(0, RUN_MIN - 1), RUN_MIN - 1);
        durable(&mut space);
        assert!(space.begin_punch(true).is_empty());
        space.perhaps_freed(range(0, RUN_MIN), RUN_MIN);
        space.perhaps_freed(range(40, 42), 1);
        durable(&mut space);
        assert_eq!(space.begin_punch(true).len(), 2);
    }

    #[test]
    fn zeroing_again_and_again_what_has_no_space_takes_no_more_than_some_memory() {
        let mut space = FreedSpace::default();
        for block in 0..2 * RUNS_MAX as u64 {
            space.perhaps_freed(range(2 * block, 2 * block + 1), 0);
            if block % 1000 == 0 {
                durable(&mut space);
            }
        }
        assert_eq!(space.open.len() + space.ready.len(), RUNS_MAX);
        space.freed(range(1 << 40, (1 << 40) + 1));
        assert!(space.open.contains(&(1 << 40)), "space that there is");
    }

    #[test]
    fn a_failed_flush_frees_nothing() {
        let mut space = FreedSpace::default();
        space.freed(range(0, 100));
        space.seal();
        space.unseal();
        space.sealed_is_durable();
        assert!(space.begin_punch(true).is_empty());
    }
}
