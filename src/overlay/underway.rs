//! Changes of one overlay that are under way, each in its turn. Pure.
//!
//! Between the look at the map and the moment when the data is written a disk may take its time, so
//! several changes are under way at once. Those that share a block must not be (rule R12): a merge
//! would bring back bytes of before the other one.
//!
//! Invariants:
//! - Of changes that share a block only the one that joined first is due; the next is due when it
//!   has left. So they are made in the order in which they joined.
//! - Every change that has joined leaves, whether it was made or not.

use std::collections::BTreeMap;

use super::sabotage::{self, Sabotage};
use super::store::{Block, WriteError};
use crate::units::{BLOCK_BYTES, BlockIndex, BlockRange, ByteRange};

/// The place of one change in the order of all. Whoever has it gives it back when the change has
/// ended.
#[derive(Debug)]
#[must_use = "a turn that is not left holds up all that come after it"]
pub struct Turn {
    number: u64,
    blocks: BlockRange,
}

impl Turn {
    /// The blocks that nobody else changes while it is due.
    #[must_use]
    pub const fn blocks(&self) -> BlockRange {
        self.blocks
    }
}

#[derive(Clone, Copy, Debug)]
struct Member {
    blocks: BlockRange,
    /// Blocks that will be present when it has ended, and are not yet.
    added: u64,
}

/// The changes under way, by their order.
#[derive(Debug, Default)]
pub(super) struct Underway {
    next: u64,
    members: BTreeMap<u64, Member>,
    added: u64,
}

impl Underway {
    /// Takes a change of `blocks` in, behind all that are there.
    pub(super) fn join(&mut self, blocks: BlockRange) -> Turn {
        let number = self.next;
        self.next += 1;
        self.members.insert(number, Member { blocks, added: 0 });
        Turn { number, blocks }
    }

    /// Whether no change that came before it shares a block with it.
    pub(super) fn is_due(&self, turn: &Turn) -> bool {
        let mut earlier = self.members.range(..turn.number);
        !earlier.any(|(_, member)| member.blocks.overlaps(turn.blocks))
            || sabotage::breaks(Sabotage::NoTurns)
    }

    /// The change has ended.
    pub(super) fn leave(&mut self, turn: Turn) {
        self.set_added(&turn, 0);
        self.members.remove(&turn.number);
    }

    /// The change will make so many blocks present, all told.
    pub(super) fn set_added(&mut self, turn: &Turn, blocks: u64) {
        if let Some(member) = self.members.get_mut(&turn.number) {
            self.added = self.added - member.added + blocks;
            member.added = blocks;
        }
    }

    /// Blocks that changes under way will make present.
    pub(super) const fn added(&self) -> u64 {
        self.added
    }
}

/// A block that is written in part, and what the rest of it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edge {
    block: BlockIndex,
    /// From the image; else zeros.
    is_image: bool,
}

/// A write that has begun: what is to be written where, before it is told to have ended.
#[derive(Debug)]
pub struct PendingWrite {
    range: ByteRange,
    extent: ByteRange,
    edges: [Option<Edge>; 2],
}

impl PendingWrite {
    /// A write of `range`, whose partial blocks are the first and the last at most.
    pub(super) fn new(range: ByteRange) -> Self {
        Self {
            range,
            extent: range,
            edges: [None, None],
        }
    }

    /// Completes `block`, one of the two at the ends: it is written as a whole.
    pub(super) fn complete(&mut self, end: usize, block: BlockIndex, is_image: bool) {
        let (start, stop) = (block.bytes().start(), block.bytes().end());
        let extent = self.extent;
        self.extent = ByteRange::between(extent.start().min(start), extent.end().max(stop));
        if let Some(edge) = self.edges.get_mut(end) {
            *edge = Some(Edge { block, is_image });
        }
    }

    /// The bytes of the data file to be written.
    #[must_use]
    pub const fn extent(&self) -> ByteRange {
        self.extent
    }

    /// The blocks whose content in the image [`PendingWrite::fill`] needs.
    pub fn needs(&self) -> impl Iterator<Item = BlockIndex> {
        let images = self.edges.iter().flatten().filter(|edge| edge.is_image);
        images.map(|edge| edge.block)
    }

    /// Puts what the client did not give around what it gave: `bytes` are those of all blocks that
    /// the write touches, with the client's in their place.
    ///
    /// # Errors
    /// [`WriteError::NeedsBase`] where `base` lacks a block.
    pub fn fill(&self, base: &BaseBlocks, bytes: &mut [u8]) -> Result<(), WriteError> {
        let touched = self.range.blocks_touched();
        for edge in self.edges.iter().flatten() {
            let rest = if edge.is_image {
                let found = base.get(edge.block);
                found.ok_or(WriteError::NeedsBase(edge.block))?
            } else {
                &[0; BLOCK_BYTES]
            };
            let place = edge.block.bytes().place_in(touched);
            let given = self.range.intersect(edge.block.bytes());
            let block = bytes.get_mut(place).unwrap_or_default();
            complete_block(block, rest, given, edge.block);
        }
        Ok(())
    }
}

/// Overwrites all of `block` but the bytes `given` with `rest`.
fn complete_block(block: &mut [u8], rest: &Block, given: ByteRange, index: BlockIndex) {
    let given = given.place_in(BlockRange::between(index, index.next()));
    for part in [0..given.start, given.end..BLOCK_BYTES] {
        if let (Some(to), Some(from)) = (block.get_mut(part.clone()), rest.get(part)) {
            to.copy_from_slice(from);
        }
    }
}

/// The image's content of the blocks at the edges of a change: two at most.
#[derive(Debug, Default)]
pub struct BaseBlocks(Vec<(BlockIndex, Box<Block>)>);

impl BaseBlocks {
    /// Adds the content of one block.
    pub fn add(&mut self, block: BlockIndex, content: Box<Block>) {
        self.0.push((block, content));
    }

    fn get(&self, block: BlockIndex) -> Option<&Block> {
        let mut blocks = self.0.iter();
        let found = blocks.find(|(at, _)| *at == block);
        found.map(|(_, content)| &**content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> BlockRange {
        BlockRange::between(BlockIndex(start), BlockIndex(end))
    }

    #[test]
    fn changes_of_one_block_take_turns_in_the_order_they_joined() {
        let mut underway = Underway::default();
        let first = underway.join(range(0, 2));
        let second = underway.join(range(1, 3));
        let third = underway.join(range(2, 4));
        assert!(underway.is_due(&first) && !underway.is_due(&second) && !underway.is_due(&third));
        underway.leave(first);
        assert!(underway.is_due(&second) && !underway.is_due(&third));
        underway.leave(second);
        assert!(underway.is_due(&third));
    }

    #[test]
    fn changes_of_different_blocks_wait_for_nobody() {
        let mut underway = Underway::default();
        let first = underway.join(range(0, 2));
        let second = underway.join(range(2, 3));
        assert!(underway.is_due(&first) && underway.is_due(&second));
    }

    #[test]
    fn what_a_change_adds_is_counted_until_it_leaves() {
        let mut underway = Underway::default();
        let first = underway.join(range(0, 2));
        let second = underway.join(range(2, 3));
        underway.set_added(&first, 2);
        underway.set_added(&second, 1);
        underway.set_added(&second, 4);
        assert_eq!(underway.added(), 6);
        underway.leave(first);
        assert_eq!(underway.added(), 4);
    }

    #[test]
    fn the_rest_of_a_block_is_put_around_what_was_given() {
        let given = ByteRange::between(4096 + 10, 4096 + 20);
        let mut pending = PendingWrite::new(given);
        pending.complete(0, BlockIndex(1), true);
        let mut base = BaseBlocks::default();
        base.add(BlockIndex(1), Box::new([7; BLOCK_BYTES]));
        let mut bytes = [1; BLOCK_BYTES];
        pending.fill(&base, &mut bytes).unwrap();
        let mut expected = [7; BLOCK_BYTES];
        expected[10..20].fill(1);
        assert!(bytes == expected);
        assert_eq!(pending.extent(), BlockIndex(1).bytes());
    }

    #[test]
    fn a_write_without_the_rest_of_its_block_can_not_be_filled() {
        let mut pending = PendingWrite::new(ByteRange::between(10, 20));
        pending.complete(0, BlockIndex(0), true);
        let filled = pending.fill(&BaseBlocks::default(), &mut [1; BLOCK_BYTES]);
        assert!(matches!(filled, Err(WriteError::NeedsBase(BlockIndex(0)))));
    }
}
