//! Changes for whoever may wait for the disk: begun, written by a call, and finished.

use super::{
    BaseBlocks, BlockIndex, BlockRange, BlockState, ByteRange, Overlay, Turn, WriteError, Zeroing,
};
use crate::disk::{Disk, DiskFile};

impl<D: Disk> Overlay<D> {
    /// The first and the last block of a change that it covers in part only, where they are in
    /// `state`.
    #[must_use]
    pub fn edges(&self, range: ByteRange, state: BlockState) -> [Option<BlockIndex>; 2] {
        self.partial_blocks(range)
            .map(|edge| edge.filter(|&block| self.map.state(block) == state))
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
        self.in_turn(range, |overlay, turn| {
            overlay.write_now(turn, range, data, base)
        })
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
        self.in_turn(range, |overlay, turn| {
            let (edges, whole) = overlay.zero_parts(range);
            for edge in edges.into_iter().filter(|edge| !edge.is_empty()) {
                let zeros = vec![0; edge.len_usize()];
                overlay.write_now(turn, edge, &zeros, base)?;
            }
            overlay.zero_now(turn, whole, how)
        })
    }

    /// Forgets the content of the whole blocks inside `range`: they read as zeros.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn trim(&mut self, range: ByteRange) -> Result<(), WriteError> {
        self.in_turn(range, |overlay, turn| {
            let whole = overlay.whole_blocks(range);
            overlay.zero_now(turn, whole, Zeroing::Free)
        })
    }

    fn in_turn(
        &mut self,
        range: ByteRange,
        act: impl FnOnce(&mut Self, &Turn) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let turn = self.join(range.blocks_touched());
        let result = act(self, &turn);
        self.leave(turn);
        result
    }

    fn write_now(
        &mut self,
        turn: &Turn,
        range: ByteRange,
        data: &[u8],
        base: &BaseBlocks,
    ) -> Result<(), WriteError> {
        let pending = self.begin_write(turn, range)?;
        let touched = range.blocks_touched();
        let mut bytes = vec![0; touched.bytes().len_usize()];
        if let Some(place) = bytes.get_mut(range.place_in(touched)) {
            place.copy_from_slice(data.get(..range.len_usize()).unwrap_or_default());
        }
        pending.fill(base, &mut bytes)?;
        let extent = pending.extent();
        let part = bytes.get(extent.place_in(touched)).unwrap_or_default();
        let written = self.files.data.write_at(part, extent.start());
        self.finish_write(turn, &pending, written)?;
        self.note_now()
    }

    fn zero_now(
        &mut self,
        turn: &Turn,
        blocks: BlockRange,
        how: Zeroing,
    ) -> Result<(), WriteError> {
        if blocks.is_empty() {
            return Ok(());
        }
        if how == Zeroing::Reserve
            && let Some(range) = self.begin_reserve(turn, blocks)?
        {
            let reserved = self.files.data.allocate(range);
            self.finish_reserve(blocks, reserved)?;
            return self.note_now();
        }
        self.free(turn, blocks)?;
        self.note_now()
    }
}
