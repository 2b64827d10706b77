//! One open overlay and the changes of its blocks. Synchronous, for one thread.
//!
//! Invariants:
//! - Rule R1: a block's state changes in memory only after the write of its data has returned.
//! - A block that was not present is written as a whole, from the image or zeros where the client
//!   gave only a part; so a present block never holds a byte that nobody wrote.
//! - Rule R9: once poisoned, nothing is written any more; reads go on.

use std::io;
use std::sync::Arc;

use super::checkpoint::Snapshot;
use super::cycle::{Files, is_out_of_space};
use super::epoch::Epoch;
use super::flush::{Checkpointing, Flight};
use super::header::Header;
use super::journal::Cursor;
use super::map::{BlockCounts, BlockMap, BlockState};
use super::quota::Quota;
use super::space::FreedSpace;
use crate::disk::{Disk, DiskFile};
use crate::units::{BLOCK_BYTES, BlockIndex, BlockRange, ByteRange};

/// The content of one block.
pub type Block = [u8; BLOCK_BYTES];

/// The image's content of the blocks at the edges of a change: two at most.
#[derive(Debug, Default)]
pub struct BaseBlocks(Vec<(BlockIndex, Box<Block>)>);

impl BaseBlocks {
    /// Adds the content of one block.
    pub fn add(&mut self, block: BlockIndex, content: Box<Block>) {
        self.0.push((block, content));
    }

    fn get(&self, block: BlockIndex) -> Option<&Block> {
        self.0
            .iter()
            .find(|(at, _)| *at == block)
            .map(|(_, content)| &**content)
    }
}

/// Why a write was not done.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The rest of this block must come from the image first; try again with it.
    #[error("block {} must be merged with the image", .0.0)]
    NeedsBase(BlockIndex),
    /// Space of these blocks is just being given back; try again when that job has ended.
    #[error("the blocks are being punched")]
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
    pub(super) cursor: Cursor,
    pub(super) flight: Option<Flight>,
    pub(super) checkpointing: Checkpointing,
    /// Something was written since the last cycle began.
    pub(super) dirty: bool,
    pub(super) poison: Option<Arc<str>>,
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
            epoch: Epoch::default(),
            space: FreedSpace::default(),
            cursor,
            flight: None,
            checkpointing: owed.map_or(Checkpointing::Idle, Checkpointing::Owed),
            dirty: false,
            poison: None,
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

    /// The first and the last block of a change that it covers in part only, where they are in
    /// `state`.
    #[must_use]
    pub fn edges(&self, range: ByteRange, state: BlockState) -> [Option<BlockIndex>; 2] {
        self.partial_blocks(range)
            .map(|edge| edge.filter(|&block| self.map.state(block) == state))
    }

    /// Whether space is being given back just now.
    #[must_use]
    pub fn is_punching(&self) -> bool {
        self.space.is_punching_any()
    }

    /// Writes `data` at `range`, which must lie on the disk and have the length of `data`. `base`
    /// has the image's content of blocks that are written in part.
    ///
    /// # Errors
    /// [`WriteError`]; the blocks are then in the state they were in.
    pub fn write(
        &mut self,
        range: ByteRange,
        data: &[u8],
        base: &BaseBlocks,
    ) -> Result<(), WriteError> {
        if range.is_empty() {
            return Ok(());
        }
        self.check_writable(range.blocks_touched())?;
        self.check_quota(range.blocks_touched())?;
        for piece in self.pieces(range) {
            let start = usize::try_from(piece.start() - range.start()).unwrap_or(usize::MAX);
            let bytes = data
                .get(start..start + piece.len_usize())
                .unwrap_or_default();
            self.write_piece(piece, bytes, base)?;
        }
        self.space.keep(range.blocks_touched());
        self.set(range.blocks_touched(), BlockState::Present);
        Ok(())
    }

    /// Makes `range` read as zeros. `base` as for [`Overlay::write`], for its partial blocks.
    ///
    /// # Errors
    /// [`WriteError`]; an edge of the range may have been zeroed then.
    pub fn zero(
        &mut self,
        range: ByteRange,
        how: Zeroing,
        base: &BaseBlocks,
    ) -> Result<(), WriteError> {
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
        for edge in edges {
            let zeros = [0; 2 * BLOCK_BYTES];
            self.write(
                edge,
                zeros.get(..edge.len_usize()).unwrap_or_default(),
                base,
            )?;
        }
        self.zero_blocks(whole, how)
    }

    /// Forgets the content of the whole blocks inside `range`: they read as zeros.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn trim(&mut self, range: ByteRange) -> Result<(), WriteError> {
        self.zero_blocks(self.whole_blocks(range), Zeroing::Free)
    }

    fn zero_blocks(&mut self, blocks: BlockRange, how: Zeroing) -> Result<(), WriteError> {
        if blocks.is_empty() {
            return Ok(());
        }
        // A limit counts present blocks only. Space that is set aside for zeroed ones would go
        // round it, so none is.
        let how = match how {
            Zeroing::Reserve if self.quota.is_limited() => Zeroing::Free,
            how => how,
        };
        if how == Zeroing::Reserve {
            self.check_writable(blocks)?;
            let reserved = self.files.data.allocate(blocks.bytes());
            reserved.map_err(|error| self.failed("reserving space", &error))?;
            self.space.keep(blocks);
        }
        self.check_not_poisoned()?;
        self.dirty = true;
        let Self {
            map,
            epoch,
            space,
            quota,
            ..
        } = self;
        map.set(blocks, BlockState::Zero, |run, old| {
            quota.changed(run.len(), old, BlockState::Zero);
            epoch.push(run, BlockState::Zero);
            if old == BlockState::Present && how == Zeroing::Free {
                space.freed(run);
            }
        });
        Ok(())
    }

    fn set(&mut self, blocks: BlockRange, state: BlockState) {
        let Self {
            map, epoch, quota, ..
        } = self;
        map.set(blocks, state, |run, old| {
            quota.changed(run.len(), old, state);
            epoch.push(run, state);
        });
    }

    pub(super) fn check_not_poisoned(&self) -> Result<(), WriteError> {
        self.poison
            .as_ref()
            .map_or(Ok(()), |why| Err(WriteError::Poisoned(Arc::clone(why))))
    }

    /// Before any byte is written: a write that would pass the limit changes nothing.
    fn check_quota(&mut self, blocks: BlockRange) -> Result<(), WriteError> {
        if self.quota.allows(&self.map, blocks) {
            return Ok(());
        }
        if self.quota.tell_once() {
            let dir = self.files.dir.display();
            tracing::warn!("overlay {dir} has reached its limit: its client gets ENOSPC");
        }
        Err(WriteError::NoSpace)
    }

    fn check_writable(&self, blocks: BlockRange) -> Result<(), WriteError> {
        self.check_not_poisoned()?;
        if self.space.is_punching(blocks) {
            return Err(WriteError::Busy);
        }
        Ok(())
    }

    /// Where the disk ends, as a write sees it: the rest of the last block is nobody's.
    fn padded(&self, range: ByteRange) -> ByteRange {
        if range.end() == self.size() {
            let end = BlockIndex(self.map.blocks()).start();
            return ByteRange::between(range.start(), end);
        }
        range
    }

    fn whole_blocks(&self, range: ByteRange) -> BlockRange {
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

    /// The range cut at its partial blocks: at most head, middle and tail.
    fn pieces(&self, range: ByteRange) -> impl Iterator<Item = ByteRange> + use<D> {
        let [head, tail] = self.partial_blocks(range);
        let head_end = head.map_or_else(
            || range.start(),
            |block| block.bytes().end().min(range.end()),
        );
        let tail_start = tail.map_or_else(|| range.end(), BlockIndex::start);
        let cuts = [
            ByteRange::between(range.start(), head_end),
            ByteRange::between(head_end, tail_start),
            ByteRange::between(tail_start.max(head_end), range.end()),
        ];
        cuts.into_iter().filter(|piece| !piece.is_empty())
    }

    fn write_piece(
        &mut self,
        piece: ByteRange,
        bytes: &[u8],
        base: &BaseBlocks,
    ) -> Result<(), WriteError> {
        let block = BlockIndex::holding(piece.start());
        let partial = self.partial_blocks(piece).iter().any(Option::is_some);
        let state = self.map.state(block);
        if !partial || state == BlockState::Present {
            return self.write_data(bytes, piece.start());
        }
        let mut whole = match state {
            BlockState::Absent => *base.get(block).ok_or(WriteError::NeedsBase(block))?,
            BlockState::Present | BlockState::Zero => [0; BLOCK_BYTES],
        };
        let start = usize::try_from(piece.start() - block.start()).unwrap_or(usize::MAX);
        if let Some(part) = whole.get_mut(start..start + bytes.len()) {
            part.copy_from_slice(bytes);
        }
        self.write_data(&whole, block.start())
    }

    fn write_data(&mut self, bytes: &[u8], offset: u64) -> Result<(), WriteError> {
        self.dirty = true;
        let written = self.files.data.write_at(bytes, offset);
        written.map_err(|error| self.failed("write to the data file", &error))
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

#[cfg(test)]
mod tests;
