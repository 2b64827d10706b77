//! Changes of a volume: writes, zeroes, trims.
//!
//! Invariants:
//! - A change has its turn from the moment it is asked for, before anything is awaited: changes of
//!   the same blocks are made in the order in which they were asked for (rule R12), and a change
//!   that waits for its disk holds up only those.
//! - It leaves its turn, however it ends.

use std::cell::RefCell;
use std::rc::Rc;

use super::{Volume, VolumeError};
use crate::disk::{DiskFile, RealDisk};
use crate::io::{self, Buffer};
use crate::limits::{FREE_PIECE, FREE_RUNS};
use crate::overlay::Overlay;
use crate::overlay::store::{BaseBlocks, Block, PendingWrite, Turn, WriteError};
use crate::units::{BLOCK_BYTES, BlockIndex, BlockRange, ByteRange};

/// What a change, or a step of it, comes to.
type Outcome<T> = Result<T, VolumeError>;

impl Volume {
    fn overlay(&self) -> Result<&RefCell<Overlay<RealDisk>>, VolumeError> {
        self.check_image()?;
        self.overlay.as_ref().ok_or(VolumeError::ReadOnly)
    }

    /// Writes `range`. `buffer` holds all blocks that it touches, with its bytes in their place;
    /// the rest of it is overwritten.
    ///
    /// The write has its turn when this returns, and is made when the future is awaited.
    pub fn write(
        self: &Rc<Self>,
        range: ByteRange,
        buffer: Buffer,
    ) -> impl Future<Output = Outcome<()>> + use<> {
        self.in_turn(range, async move |volume, turn| {
            volume.write_in_turn(turn, range, buffer).await
        })
    }

    /// Makes `range` read as zeros; its space may go, or is reserved if `keep_space`.
    ///
    /// The change has its turn when this returns, and is made when the future is awaited.
    pub fn zero(
        self: &Rc<Self>,
        range: ByteRange,
        keep_space: bool,
    ) -> impl Future<Output = Outcome<()>> + use<> {
        self.in_turn(range, async move |volume, turn| {
            let (edges, whole) = volume.overlay()?.borrow().zero_parts(range);
            for edge in edges.into_iter().filter(|edge| !edge.is_empty()) {
                let mut buffer = volume
                    .pool
                    .take(edge.blocks_touched().bytes().len_usize())?;
                buffer.as_mut_slice().fill(0);
                volume.write_in_turn(turn, edge, buffer).await?;
            }
            if keep_space && !whole.is_empty() && volume.reserve(turn, whole).await? {
                return Ok(());
            }
            volume.free(turn, whole).await
        })
    }

    /// Forgets what the whole blocks inside `range` hold.
    ///
    /// The change has its turn when this returns, and is made when the future is awaited.
    pub fn trim(self: &Rc<Self>, range: ByteRange) -> impl Future<Output = Outcome<()>> + use<> {
        self.in_turn(range, async move |volume, turn| {
            let whole = volume.overlay()?.borrow().whole_blocks(range);
            volume.free(turn, whole).await
        })
    }

    fn in_turn<F>(
        self: &Rc<Self>,
        range: ByteRange,
        act: F,
    ) -> impl Future<Output = Outcome<()>> + use<F>
    where
        F: AsyncFnOnce(&Rc<Self>, &Turn) -> Outcome<()>,
    {
        let volume = Rc::clone(self);
        let turn = self
            .overlay()
            .map(|overlay| overlay.borrow_mut().join(range.blocks_touched()));
        async move {
            let turn = turn?;
            let result = act(&volume, &turn).await;
            if let Some(overlay) = &volume.overlay {
                overlay.borrow_mut().leave(turn);
            }
            volume.ended.notify_waiters();
            volume.flush_where_much_is_noted();
            result
        }
    }

    /// Tries `act` until it is the turn of the change.
    async fn when_due<T>(
        &self,
        act: impl Fn(&mut Overlay<RealDisk>) -> Result<T, WriteError>,
    ) -> Outcome<T> {
        let overlay = self.overlay()?;
        loop {
            let ended = self.ended.notified();
            let outcome = act(&mut overlay.borrow_mut());
            match outcome {
                Err(WriteError::Busy) => ended.await,
                outcome => return Ok(outcome?),
            }
        }
    }

    async fn write_in_turn(
        self: &Rc<Self>,
        turn: &Turn,
        range: ByteRange,
        mut buffer: Buffer,
    ) -> Outcome<()> {
        if range.is_empty() {
            // NBD proto.md leaves it open what a length of 0 does: nothing, and no disk is asked.
            return Ok(());
        }
        let pending = self
            .when_due(|overlay| overlay.begin_write(turn, range))
            .await?;
        let base = self.base_of(&pending).await?;
        pending.fill(&base, buffer.as_mut_slice())?;
        let overlay = self.overlay()?;
        let data = overlay.borrow().data().clone();
        let extent = pending.extent();
        let part = extent.place_in(range.blocks_touched());
        let (written, _) = io::write_at(data, buffer, part, extent.start(), self.way).await;
        overlay.borrow_mut().finish_write(turn, &pending, written)?;
        self.noted().await
    }

    async fn base_of(&self, pending: &PendingWrite) -> Outcome<BaseBlocks> {
        let mut base = BaseBlocks::default();
        for block in pending.needs() {
            base.add(block, self.base(block).await?);
        }
        Ok(base)
    }

    async fn base(&self, block: BlockIndex) -> Outcome<Box<Block>> {
        let mut content = Box::new([0; BLOCK_BYTES]);
        if !self
            .image
            .read_cached(content.as_mut_slice(), block.start())?
        {
            let read = self.read_image(block.bytes()).await;
            let buffer = read.map_err(VolumeError::elsewhere)?;
            content.copy_from_slice(buffer.as_slice());
        }
        // Merged into the overlay for good, so it must not be of an image that was rewritten a
        // moment ago and is not known to be: the time of a change is set before its first byte.
        self.image
            .verify_now()
            .map_err(|_| VolumeError::ImageChanged)?;
        Ok(content)
    }

    /// Zeroes whole blocks and keeps their space. `false` where it is not to be kept.
    async fn reserve(self: &Rc<Self>, turn: &Turn, blocks: BlockRange) -> Outcome<bool> {
        let begun = self.when_due(|overlay| overlay.begin_reserve(turn, blocks));
        let Some(range) = begun.await? else {
            return Ok(false);
        };
        let overlay = self.overlay()?;
        let data = overlay.borrow().data().clone();
        let reserved = io::offload(move || data.allocate(range)).await;
        overlay.borrow_mut().finish_reserve(blocks, reserved)?;
        self.noted().await?;
        Ok(true)
    }

    /// Zeroes whole blocks. A fragmented disk is done in pieces, so that neighbours get their turn.
    async fn free(self: &Rc<Self>, turn: &Turn, blocks: BlockRange) -> Outcome<()> {
        let mut runs = 0;
        for piece in blocks.bytes().chunks(FREE_PIECE) {
            let piece = piece.blocks_inside();
            // An empty piece counts too: a large disk has many.
            let changed = self.when_due(|overlay| overlay.free(turn, piece)).await?;
            self.noted().await?;
            runs += 1 + changed;
            if runs >= FREE_RUNS {
                runs = 0;
                io::yield_now().await;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::export::overlay_over;
    use crate::image::Image;
    use crate::io::Pool;

    #[test]
    fn a_block_is_never_completed_from_an_image_whose_change_nobody_noticed_yet() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("disk.img");
        std::fs::write(&path, [1; 8192]).unwrap();
        let image = Arc::new(Image::open(&path).unwrap());
        let overlay = overlay_over(&image, home.path());
        // Nothing watches it here.
        std::fs::write(&path, [2; 8192]).unwrap();
        let written = io::run(async move {
            let pool = Pool::new();
            let volume = Rc::new(Volume::new(image, Some(overlay), pool.clone()));
            let buffer = pool.take(4096).unwrap();
            volume.write(ByteRange::between(10, 20), buffer).await
        });
        assert!(matches!(written, Ok(Err(VolumeError::ImageChanged))));
    }
}
