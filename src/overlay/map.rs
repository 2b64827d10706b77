//! Which blocks of a client's disk are its own: two bits a block, pure.
//!
//! Invariants:
//! - A leaf holds the states of [`LEAF_BLOCKS`] blocks (64 MiB of disk). A part of the disk that
//!   was never written has no leaf, so memory grows with what was written, not with the disk.
//! - Leaves of the last checkpoint are read in place and never changed; the first change of one
//!   copies it.
//! - A clone shares its leaves with the original until either changes: a frozen view for the next
//!   checkpoint costs a copy of the directory only.
//! - Whole leaves in one state are one piece of memory, for all disks: zeroing a large disk costs
//!   next to none.
//! - No block past the end of the disk is ever anything but absent.

use std::sync::{Arc, LazyLock};

use crate::disk::FileBytes;
use crate::units::{BlockIndex, BlockRange};

/// Blocks whose states make one leaf.
pub const LEAF_BLOCKS: u64 = 16_384;
/// Bytes of a leaf.
pub const LEAF_BYTES: usize = 4096;
/// 64-bit words of a leaf, each with the states of 32 blocks, lowest bits first.
pub const LEAF_WORDS: usize = LEAF_BYTES / 8;
const WORD_BLOCKS: u64 = 32;

const _: () = assert!(LEAF_BLOCKS == LEAF_WORDS as u64 * WORD_BLOCKS);

/// Where the content of a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockState {
    /// In the image: the client never wrote it.
    Absent,
    /// In the overlay's data file.
    Present,
    /// Nowhere: it reads as zeros.
    Zero,
}

impl BlockState {
    /// The two bits of the map, also the byte of the journal.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Absent => 0,
            Self::Present => 1,
            Self::Zero => 2,
        }
    }

    /// The state for its bits; `None` for the fourth pattern, which nothing writes.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Absent),
            1 => Some(Self::Present),
            2 => Some(Self::Zero),
            _ => None,
        }
    }

    /// A word with all its 32 blocks in this state.
    const fn word(self) -> u64 {
        self.bits() as u64 * 0x5555_5555_5555_5555
    }
}

type Leaf = [u64; LEAF_WORDS];

#[derive(Clone, Debug)]
enum LeafSlot {
    /// The leaf at this place of the checkpoint.
    Archived(usize),
    Owned(Arc<Leaf>),
}

/// The leaves of a checkpoint, lying one after the other in a file that is read in place.
#[derive(Clone)]
pub struct ArchivedLeaves {
    bytes: FileBytes,
    start: usize,
}

impl ArchivedLeaves {
    /// Leaves that start at byte `start` of `bytes`.
    #[must_use]
    pub fn new(bytes: FileBytes, start: usize) -> Self {
        Self { bytes, start }
    }

    fn word(&self, leaf: usize, word: usize) -> u64 {
        let at = self.start + leaf * LEAF_BYTES + word * 8;
        let bytes = (*self.bytes).as_ref().get(at..at + 8);
        bytes
            .and_then(|b| b.try_into().ok())
            .map_or(0, u64::from_le_bytes)
    }

    fn leaf(&self, leaf: usize) -> Leaf {
        std::array::from_fn(|word| self.word(leaf, word))
    }
}

impl std::fmt::Debug for ArchivedLeaves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchivedLeaves")
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

/// How many blocks of a disk are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCounts {
    /// Blocks in the data file.
    pub present: u64,
    /// Blocks that read as zeros.
    pub zero: u64,
}

/// The states of all blocks of one disk.
#[derive(Clone, Debug)]
pub struct BlockMap {
    blocks: u64,
    /// For each leaf of the disk, 0 where there is none, else one more than its place in `slots`.
    directory: Vec<u32>,
    slots: Vec<LeafSlot>,
    archive: Option<ArchivedLeaves>,
}

impl BlockMap {
    /// The map of a disk of `blocks` blocks, all absent.
    #[must_use]
    pub fn new(blocks: u64) -> Self {
        let leaves = usize::try_from(blocks.div_ceil(LEAF_BLOCKS)).unwrap_or(usize::MAX);
        Self {
            blocks,
            directory: vec![0; leaves],
            slots: Vec::new(),
            archive: None,
        }
    }

    /// The map of a disk of `blocks` blocks as a checkpoint has it: `indices[i]` says which part of
    /// the disk the i-th archived leaf describes. `None` where an index lies past the disk or comes
    /// twice.
    #[must_use]
    pub fn from_archive(blocks: u64, indices: &[u32], archive: ArchivedLeaves) -> Option<Self> {
        let mut map = Self::new(blocks);
        for (place, &index) in indices.iter().enumerate() {
            let entry = map.directory.get_mut(usize::try_from(index).ok()?)?;
            if *entry != 0 {
                return None;
            }
            map.slots.push(LeafSlot::Archived(place));
            *entry = u32::try_from(map.slots.len()).ok()?;
        }
        map.archive = Some(archive);
        Some(map)
    }

    /// How many blocks the disk has.
    #[must_use]
    pub const fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The state of one block.
    #[must_use]
    pub fn state(&self, block: BlockIndex) -> BlockState {
        let shift = block.0 % WORD_BLOCKS * 2;
        let bits = (self.word_of(block) >> shift) & 3;
        // The fourth pattern is refused when a checkpoint is opened and never set here.
        BlockState::from_bits(u8::try_from(bits).unwrap_or(0)).unwrap_or(BlockState::Absent)
    }

    /// The longest run of blocks in one state that starts at `from` and ends by `limit`.
    #[must_use]
    pub fn run(&self, from: BlockIndex, limit: BlockIndex) -> (BlockRange, BlockState) {
        let state = self.state(from);
        let mut at = from.0 + 1;
        while at < limit.0 {
            let (same, step) = self.uniform_step(BlockIndex(at), state);
            if !same {
                break;
            }
            at += step;
        }
        (
            BlockRange::between(from, BlockIndex(at.min(limit.0))),
            state,
        )
    }

    /// The runs of `range`, in order.
    pub fn runs(&self, range: BlockRange) -> impl Iterator<Item = (BlockRange, BlockState)> + '_ {
        let mut at = range.start();
        std::iter::from_fn(move || {
            if at >= range.end() {
                return None;
            }
            let run = self.run(at, range.end());
            at = run.0.end();
            Some(run)
        })
    }

    /// Puts every block of `range` in `state` and tells `changed` of the runs that were in another,
    /// with the state that they had. What lies past the end of the disk is left out.
    pub fn set(
        &mut self,
        range: BlockRange,
        state: BlockState,
        mut changed: impl FnMut(BlockRange, BlockState),
    ) {
        let end = range.end().min(BlockIndex(self.blocks));
        let mut at = range.start();
        while at < end {
            let (run, old) = self.run(at, end);
            at = run.end();
            if old != state {
                self.fill(run, state);
                changed(run, old);
            }
        }
    }

    /// How many blocks are the client's own.
    #[must_use]
    pub fn counts(&self) -> BlockCounts {
        let mut counts = BlockCounts::default();
        for slot in &self.slots {
            for word in self.leaf(slot) {
                counts.present += u64::from((word & BlockState::Present.word()).count_ones());
                counts.zero += u64::from((word & BlockState::Zero.word()).count_ones());
            }
        }
        counts
    }

    /// The leaves that hold anything, by their place on the disk, in order.
    pub fn leaves(&self) -> impl Iterator<Item = (u32, Leaf)> + '_ {
        let numbered = (0..).zip(&self.directory);
        numbered.filter_map(|(index, &entry)| {
            let leaf = self.leaf(self.slots.get(place(entry)?)?);
            leaf.iter().any(|&word| word != 0).then_some((index, leaf))
        })
    }

    fn leaf(&self, slot: &LeafSlot) -> Leaf {
        match (slot, &self.archive) {
            (LeafSlot::Owned(leaf), _) => **leaf,
            (LeafSlot::Archived(place), Some(archive)) => archive.leaf(*place),
            (LeafSlot::Archived(_), None) => [0; LEAF_WORDS],
        }
    }

    fn slot(&self, block: BlockIndex) -> Option<&LeafSlot> {
        let entry = *self.directory.get(leaf_index(block))?;
        self.slots.get(place(entry)?)
    }

    fn word_of(&self, block: BlockIndex) -> u64 {
        let word = word_index(block);
        match (self.slot(block), &self.archive) {
            (Some(LeafSlot::Owned(leaf)), _) => leaf.get(word).copied().unwrap_or(0),
            (Some(LeafSlot::Archived(place)), Some(archive)) => archive.word(*place, word),
            _ => 0,
        }
    }

    /// Whether the blocks at `at` are in `state`, and how many from there one look has settled.
    fn uniform_step(&self, at: BlockIndex, state: BlockState) -> (bool, u64) {
        if at.0.is_multiple_of(LEAF_BLOCKS) && self.slot(at).is_none() {
            return (state == BlockState::Absent, LEAF_BLOCKS);
        }
        if at.0.is_multiple_of(WORD_BLOCKS) && self.word_of(at) == state.word() {
            return (true, WORD_BLOCKS);
        }
        (self.state(at) == state, 1)
    }

    fn fill(&mut self, range: BlockRange, state: BlockState) {
        let mut at = range.start().0;
        while at < range.end().0 {
            let leaf_end = (at / LEAF_BLOCKS + 1) * LEAF_BLOCKS;
            let end = range.end().0.min(leaf_end);
            if end - at == LEAF_BLOCKS {
                self.put_leaf(BlockIndex(at), uniform_leaf(state));
            } else if let Some(leaf) = self.leaf_mut(BlockIndex(at)) {
                fill_leaf(leaf, at % LEAF_BLOCKS, end - at, state);
            }
            at = end;
        }
    }

    fn put_leaf(&mut self, block: BlockIndex, leaf: Arc<Leaf>) {
        let Some(entry) = self.directory.get_mut(leaf_index(block)) else {
            return;
        };
        match place(*entry).and_then(|place| self.slots.get_mut(place)) {
            Some(slot) => *slot = LeafSlot::Owned(leaf),
            None => {
                self.slots.push(LeafSlot::Owned(leaf));
                *entry = u32::try_from(self.slots.len()).unwrap_or(0);
            }
        }
    }

    fn leaf_mut(&mut self, block: BlockIndex) -> Option<&mut Leaf> {
        let entry = self.directory.get_mut(leaf_index(block))?;
        if *entry == 0 {
            self.slots.push(LeafSlot::Owned(Arc::new([0; LEAF_WORDS])));
            *entry = u32::try_from(self.slots.len()).ok()?;
        }
        let slot = self.slots.get_mut(place(*entry)?)?;
        if let (LeafSlot::Archived(place), Some(archive)) = (&*slot, &self.archive) {
            *slot = LeafSlot::Owned(Arc::new(archive.leaf(*place)));
        }
        match slot {
            LeafSlot::Owned(leaf) => Some(Arc::make_mut(leaf)),
            LeafSlot::Archived(_) => None,
        }
    }
}

/// A leaf with all its blocks in `state`.
fn uniform_leaf(state: BlockState) -> Arc<Leaf> {
    static LEAVES: LazyLock<[Arc<Leaf>; 3]> = LazyLock::new(|| {
        [BlockState::Absent, BlockState::Present, BlockState::Zero]
            .map(|state| Arc::new([state.word(); LEAF_WORDS]))
    });
    let [absent, present, zero] = &*LEAVES;
    Arc::clone(match state {
        BlockState::Absent => absent,
        BlockState::Present => present,
        BlockState::Zero => zero,
    })
}

/// Sets `count` blocks from block `first` of a leaf.
fn fill_leaf(leaf: &mut Leaf, first: u64, count: u64, state: BlockState) {
    let mut at = first;
    while at < first + count {
        let from = at % WORD_BLOCKS;
        let until = (from + first + count - at).min(WORD_BLOCKS);
        let mask = block_mask(from, until);
        if let Some(word) = leaf.get_mut(word_index(BlockIndex(at))) {
            *word = (*word & !mask) | (state.word() & mask);
        }
        at += until - from;
    }
}

/// The bits of blocks `from..until` of a word.
const fn block_mask(from: u64, until: u64) -> u64 {
    let below = if until == WORD_BLOCKS {
        u64::MAX
    } else {
        (1 << (until * 2)) - 1
    };
    below & !((1 << (from * 2)) - 1)
}

const fn leaf_index(block: BlockIndex) -> usize {
    // A disk has at most 2^48 blocks, so 2^34 leaves.
    #[allow(clippy::cast_possible_truncation, reason = "usize has 64 bits")]
    let index = (block.0 / LEAF_BLOCKS) as usize;
    index
}

const fn word_index(block: BlockIndex) -> usize {
    #[allow(clippy::cast_possible_truncation, reason = "below LEAF_WORDS")]
    let index = (block.0 % LEAF_BLOCKS / WORD_BLOCKS) as usize;
    index
}

/// The place in `slots` that a directory entry names.
fn place(entry: u32) -> Option<usize> {
    usize::try_from(entry).ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::cast_possible_truncation,
        reason = "small numbers of the tests"
    )]

    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, end: u64) -> BlockRange {
        BlockRange::between(BlockIndex(start), BlockIndex(end))
    }

    fn state(bits: u8) -> BlockState {
        BlockState::from_bits(bits % 3).unwrap()
    }

    #[test]
    fn an_empty_map_of_a_large_disk_is_one_absent_run() {
        let map = BlockMap::new(1 << 28);
        let runs: Vec<_> = map.runs(range(0, 1 << 28)).collect();
        assert_eq!(runs, [(range(0, 1 << 28), BlockState::Absent)]);
    }

    #[test]
    fn setting_reports_only_runs_that_change() {
        let mut map = BlockMap::new(100);
        map.set(range(10, 20), BlockState::Present, |_, _| {});
        let mut changed = Vec::new();
        map.set(range(5, 25), BlockState::Present, |run, old| {
            changed.push((run, old))
        });
        assert_eq!(
            changed,
            [
                (range(5, 10), BlockState::Absent),
                (range(20, 25), BlockState::Absent)
            ]
        );
    }

    #[test]
    fn nothing_past_the_end_of_the_disk_is_set() {
        let mut map = BlockMap::new(10);
        map.set(range(8, 20), BlockState::Zero, |_, _| {});
        assert_eq!(
            map.counts(),
            BlockCounts {
                present: 0,
                zero: 2
            }
        );
    }

    #[test]
    fn a_clone_keeps_its_states_when_the_original_changes() {
        let mut map = BlockMap::new(100);
        map.set(range(0, 50), BlockState::Present, |_, _| {});
        let frozen = map.clone();
        map.set(range(0, 50), BlockState::Zero, |_, _| {});
        assert_eq!(
            frozen.counts(),
            BlockCounts {
                present: 50,
                zero: 0
            }
        );
    }

    #[test]
    fn a_change_of_one_whole_leaf_is_none_of_another() {
        let mut map = BlockMap::new(2 * LEAF_BLOCKS);
        map.set(range(0, 2 * LEAF_BLOCKS), BlockState::Zero, |_, _| {});
        map.set(range(5, 6), BlockState::Present, |_, _| {});
        let runs: Vec<_> = map.runs(range(4, 2 * LEAF_BLOCKS)).collect();
        let expected = [
            (range(4, 5), BlockState::Zero),
            (range(5, 6), BlockState::Present),
            (range(6, 2 * LEAF_BLOCKS), BlockState::Zero),
        ];
        assert_eq!(runs, expected);
    }

    #[test]
    fn an_archived_leaf_is_copied_on_its_first_change() {
        let mut leaf = vec![0u8; LEAF_BYTES];
        leaf[0] = 0b10_01; // block 0 present, block 1 zero
        let archive = ArchivedLeaves::new(Arc::new(leaf), 0);
        let mut map = BlockMap::from_archive(3 * LEAF_BLOCKS, &[2], archive).unwrap();
        let base = 2 * LEAF_BLOCKS;
        assert_eq!(map.state(BlockIndex(base)), BlockState::Present);
        map.set(range(base + 2, base + 3), BlockState::Present, |_, _| {});
        assert_eq!(
            map.counts(),
            BlockCounts {
                present: 2,
                zero: 1
            }
        );
    }

    #[test]
    fn an_archive_index_past_the_disk_is_refused() {
        let archive = ArchivedLeaves::new(Arc::new(vec![0u8; LEAF_BYTES]), 0);
        assert!(BlockMap::from_archive(LEAF_BLOCKS, &[1], archive).is_none());
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_vector(
            ops in proptest::collection::vec((0u64..40_000, 1u64..40_000, 0u8..3), 1..20),
        ) {
            let blocks = 40_000;
            let mut map = BlockMap::new(blocks);
            let mut oracle = vec![BlockState::Absent; 40_000];
            for (start, len, bits) in ops {
                let end = (start + len).min(blocks);
                map.set(range(start, end), state(bits), |_, _| {});
                oracle[start as usize..end as usize].fill(state(bits));
            }
            let mut rebuilt = Vec::new();
            for (run, state) in map.runs(range(0, blocks)) {
                rebuilt.extend(run.indices().map(|_| state));
            }
            prop_assert_eq!(rebuilt, oracle);
        }
    }
}
