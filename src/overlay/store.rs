//! One open overlay and the changes of its blocks. For one thread; nothing here waits for a disk.
//!
//! A write is begun, its data written by whoever began it (a shard by its ring, `waiting` by a
//! call), and finished. Changes that share a block are made one after the other, see
//! [`underway`](super::underway).
//!
//! Invariants:
//! - Rule R1: a block's state changes in memory only after the write of its data has returned.
//! - A block that was not present is written as a whole, from the image or zeros where the client
//!   gave only a part; so a present block never holds a byte that nobody wrote.
//! - Rule R9: once poisoned, nothing is written any more; reads go on.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::checkpoint::Snapshot;
use super::cycle::{Files, is_out_of_space};
use super::epoch::Epoch;
use super::flush::{Checkpointing, Flight};
use super::header::Header;
use super::journal::Cursor;
use super::map::{BlockCounts, BlockMap, BlockState};
use super::quota::Quota;
use super::recent::Recent;
use super::sabotage::{self, Sabotage};
use super::space::FreedSpace;
use super::underway::Underway;
pub use super::underway::{BaseBlocks, PendingWrite, Turn};
use crate::disk::Disk;
use crate::units::{BLOCK_BYTES, BlockIndex, BlockRange, ByteRange};

/// The content of one block.
pub type Block = [u8; BLOCK_BYTES];

/// Why a write was not done.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The rest of this block must come from the image first.
    #[error("block {} must be merged with the image", .0.0)]
    NeedsBase(BlockIndex),
    /// It is not the turn of this change yet: try again when another one or a punch has ended.
    #[error("other changes of these blocks come first")]
    Busy,
    /// The file system is full. Nothing changed.
    #[error("no space left on the file system of the overlays")]
    NoSpace,
    /// An earlier write or sync failed; the overlay takes no more writes until it is reopened.
    #[error("the overlay takes no writes since its disk failed: {0}")]
    Poisoned(Arc<str>),
}

/// How blocks are to be zeroed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeroing {
    /// Their space may go.
    Free,
    /// Their space stays reserved, so that a later write can't run out of it.
    Reserve,
}

/// One client's overlay, open.
#[derive(Debug)]
pub struct Overlay<D: Disk> {
    pub(super) files: Files<D>,
    header: Header,
    pub(super) map: BlockMap,
    pub(super) epoch: Epoch,
    pub(super) space: FreedSpace,
    quota: Quota,
    underway: Underway,
    pub(super) cursor: Cursor,
    pub(super) flight: Option<Flight>,
    pub(super) checkpointing: Checkpointing,
    /// Something was written since the last cycle began.
    pub(super) dirty: bool,
    pub(super) poison: Option<Arc<str>>,
    /// Notes for a server that is killed, where they are kept.
    pub(super) recent: Option<Recent<D>>,
}

impl<D: Disk> Overlay<D> {
    pub(super) fn new(
        files: Files<D>,
        header: Header,
        map: BlockMap,
        cursor: Cursor,
        owed: Option<Snapshot>,
    ) -> Self {
        Self {
            files,
            header,
            quota: Quota::new(map.counts()),
            map,
            underway: Underway::default(),
            epoch: Epoch::default(),
            space: FreedSpace::default(),
            cursor,
            flight: None,
            checkpointing: owed.map_or(Checkpointing::Idle, Checkpointing::Owed),
            dirty: false,
            poison: None,
            recent: None,
        }
    }

    /// The size of the client's disk in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.header.base.size
    }

    /// What the overlay is.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Which blocks are the client's own.
    #[must_use]
    pub const fn map(&self) -> &BlockMap {
        &self.map
    }

    /// How many blocks are the client's own.
    #[must_use]
    pub const fn counts(&self) -> BlockCounts {
        self.quota.counts()
    }

    /// Lets the data file have at most so many blocks; any number for `None`.
    pub const fn set_limit(&mut self, blocks: Option<u64>) {
        self.quota.set_limit(blocks);
    }

    /// The file that present blocks are in, each at its own offset.
    #[must_use]
    pub const fn data(&self) -> &D::File {
        &self.files.data
    }

    /// Why it takes no more writes, if so.
    #[must_use]
    pub const fn poison(&self) -> Option<&Arc<str>> {
        self.poison.as_ref()
    }

    /// Whether space is being given back just now.
    #[must_use]
    pub fn is_punching(&self) -> bool {
        self.space.is_punching_any()
    }

    /// Takes a change of `blocks` in, behind all that came before. It ends with
    /// [`Overlay::leave`].
    pub fn join(&mut self, blocks: BlockRange) -> Turn {
        self.underway.join(blocks)
    }

    /// Whether a change may be made now: those before it that share a block with it have ended, and
    /// no space of its blocks is just being given back.
    #[must_use]
    pub fn is_due(&self, turn: &Turn) -> bool {
        self.underway.is_due(turn) && !self.space.is_punching(turn.blocks())
    }

    /// A change has ended, whether it was made or not.
    pub fn leave(&mut self, turn: Turn) {
        self.underway.leave(turn);
    }

    /// Begins a write of `range`, which must lie on the disk. It is to be filled, written to
    /// [`Overlay::data`], and told of to [`Overlay::finish_write`]; or dropped.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn begin_write(
        &mut self,
        turn: &Turn,
        range: ByteRange,
    ) -> Result<PendingWrite, WriteError> {
        self.check_not_poisoned()?;
        self.check_due(turn)?;
        self.admit(turn, range.blocks_touched())?;
        let mut pending = PendingWrite::new(range);
        for (end, block) in self.partial_blocks(range).into_iter().enumerate() {
            let Some(block) = block else { continue };
            match self.map.state(block) {
                // Its other bytes are in the data file already.
                BlockState::Present => {}
                BlockState::Absent => pending.complete(end, block, true),
                BlockState::Zero => pending.complete(end, block, false),
            }
        }
        // Before the first byte: what is written must not be taken for space to give back.
        if !sabotage::breaks(Sabotage::PunchUntilWritten) {
            self.space.keep(range.blocks_touched());
        }
        Ok(pending)
    }

    /// The data of a write is in the data file, or could not be written there.
    ///
    /// # Errors
    /// [`WriteError`]; the blocks are then in the state they were in.
    pub fn finish_write(
        &mut self,
        turn: &Turn,
        pending: &PendingWrite,
        written: io::Result<()>,
    ) -> Result<(), WriteError> {
        // A part of it may have been written, so there is something to sync.
        self.dirty = true;
        written.map_err(|error| self.failed("write to the data file", &error))?;
        self.check_not_poisoned()?;
        if sabotage::breaks(Sabotage::PunchUntilWritten) {
            self.space.keep(pending.extent().blocks_touched());
        }
        // Rule R1: the data was written, so the map may say so.
        self.set(pending.extent().blocks_touched(), BlockState::Present);
        self.underway.set_added(turn, 0);
        Ok(())
    }

    /// What zeroing `range` comes to: zeros to be written at its ends, and whole blocks.
    #[must_use]
    pub fn zero_parts(&self, range: ByteRange) -> ([ByteRange; 2], BlockRange) {
        let whole = self.whole_blocks(range);
        let middle = whole.bytes();
        let edges = if whole.is_empty() {
            [range, ByteRange::between(range.end(), range.end())]
        } else {
            [
                ByteRange::between(range.start(), middle.start()),
                ByteRange::between(middle.end(), range.end()),
            ]
        };
        (edges, whole)
    }

    /// Makes whole blocks of a change read as zeros. Their space may go. How many runs changed
    /// their state.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn free(&mut self, turn: &Turn, blocks: BlockRange) -> Result<usize, WriteError> {
        self.check_due(turn)?;
        self.zero_blocks(blocks, Zeroing::Free)
    }

    /// Begins to make whole blocks of a change read as zeros and keep their space: the part of the
    /// data file to reserve, which takes a while, and is to be told of to
    /// [`Overlay::finish_reserve`].
    ///
    /// `None` where they are to be freed: a limit counts present blocks only, so space that is set
    /// aside for zeroed ones would go round it.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn begin_reserve(
        &mut self,
        turn: &Turn,
        blocks: BlockRange,
    ) -> Result<Option<ByteRange>, WriteError> {
        self.check_not_poisoned()?;
        self.check_due(turn)?;
        if self.quota.is_limited() {
            return Ok(None);
        }
        self.space.keep(blocks);
        Ok(Some(blocks.bytes()))
    }

    /// The space of `blocks` is reserved, or could not be.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn finish_reserve(
        &mut self,
        blocks: BlockRange,
        reserved: io::Result<()>,
    ) -> Result<(), WriteError> {
        reserved.map_err(|error| self.failed("reserving space", &error))?;
        self.zero_blocks(blocks, Zeroing::Reserve)?;
        Ok(())
    }

    fn zero_blocks(&mut self, blocks: BlockRange, how: Zeroing) -> Result<usize, WriteError> {
        self.check_not_poisoned()?;
        self.dirty |= !blocks.is_empty();
        let Self {
            map,
            epoch,
            space,
            quota,
            recent,
            ..
        } = self;
        let (mut runs, mut had_data, mut absent) = (0, false, 0);
        map.set(blocks, BlockState::Zero, |run, old| {
            runs += 1;
            match old {
                BlockState::Present => had_data = true,
                _ => absent += run.len(),
            }
            quota.changed(run.len(), old, BlockState::Zero);
            epoch.push(run, BlockState::Zero);
            if let Some(recent) = recent {
                recent.note(run, BlockState::Zero);
            }
        });
        match how {
            Zeroing::Reserve => {}
            // Holes between are punched with the rest: one long run is cheaper than many short.
            Zeroing::Free if had_data => space.freed(blocks),
            Zeroing::Free => space.perhaps_freed(blocks, absent),
        }
        Ok(runs)
    }

    fn set(&mut self, blocks: BlockRange, state: BlockState) {
        let Self {
            map,
            epoch,
            quota,
            recent,
            ..
        } = self;
        map.set(blocks, state, |run, old| {
            quota.changed(run.len(), old, state);
            epoch.push(run, state);
            if let Some(recent) = recent {
                recent.note(run, state);
            }
        });
    }

    pub(super) fn check_not_poisoned(&self) -> Result<(), WriteError> {
        self.poison
            .as_ref()
            .map_or(Ok(()), |why| Err(WriteError::Poisoned(Arc::clone(why))))
    }

    /// Before any byte is written: a write that would pass the limit changes nothing.
    fn admit(&mut self, turn: &Turn, blocks: BlockRange) -> Result<(), WriteError> {
        // What an earlier part of this change was let in for is counted anew.
        self.underway.set_added(turn, 0);
        if let Some(added) = self.quota.admit(&self.map, blocks, self.underway.added()) {
            self.underway.set_added(turn, added);
            return Ok(());
        }
        if self.quota.tell_once() {
            let dir = self.files.dir.display();
            tracing::warn!("overlay {dir} has reached its limit: its client gets ENOSPC");
        }
        Err(WriteError::NoSpace)
    }

    /// The directory of its files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.files.dir
    }

    fn check_due(&self, turn: &Turn) -> Result<(), WriteError> {
        if self.is_due(turn) {
            Ok(())
        } else {
            Err(WriteError::Busy)
        }
    }

    /// Where the disk ends, as a write sees it: the rest of the last block is nobody's.
    fn padded(&self, range: ByteRange) -> ByteRange {
        if range.end() == self.size() {
            let end = BlockIndex(self.map.blocks()).start();
            return ByteRange::between(range.start(), end);
        }
        range
    }

    /// The blocks that `range` covers whole; the last block of the disk ends with the disk.
    #[must_use]
    pub fn whole_blocks(&self, range: ByteRange) -> BlockRange {
        if range.is_empty() {
            return range.blocks_inside();
        }
        self.padded(range).blocks_inside()
    }

    /// The first and the last block of a range where they are covered in part only.
    fn partial_blocks(&self, range: ByteRange) -> [Option<BlockIndex>; 2] {
        if range.is_empty() {
            return [None, None];
        }
        let touched = range.blocks_touched();
        let whole = self.whole_blocks(range);
        let (first, last) = (touched.start(), BlockIndex(touched.end().0 - 1));
        let is_partial = |block: BlockIndex| block < whole.start() || block >= whole.end();
        let tail = (last != first && is_partial(last)).then_some(last);
        [is_partial(first).then_some(first), tail]
    }

    fn failed(&mut self, what: &str, error: &io::Error) -> WriteError {
        if is_out_of_space(error) {
            return WriteError::NoSpace;
        }
        WriteError::Poisoned(self.set_poison(&format!("{what}: {error}")))
    }

    pub(super) fn set_poison(&mut self, why: &str) -> Arc<str> {
        let dir = self.files.dir.display();
        tracing::error!("overlay {dir} takes no more writes: {why}; check the disk, then restart");
        Arc::clone(self.poison.get_or_insert_with(|| why.into()))
    }
}

mod notes;
mod waiting;

#[cfg(test)]
mod tests;
