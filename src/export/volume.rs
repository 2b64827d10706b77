//! An image generation and a client's overlay as one disk, on the thread of its shard.
//!
//! Invariants:
//! - All requests of one overlay run on one thread, and an overlay is borrowed only between two
//!   awaits: no lock, and no request sees another's half-done change.
//! - Nothing here waits for a disk on the shard's thread: what is not in memory goes by the ring,
//!   syncs and checkpoints go to their own threads. Exceptions: the kernel's limit on dirty pages,
//!   the reserving of space, and sends of pages evicted since they were last seen in memory.
//! - The image is read by the kernel only, from its mapping or its file.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{Notify, oneshot};

use super::plan::{Run, Source};
use crate::disk::{RealDisk, RealFile};
use crate::image::Image;
use crate::io::{self, Buffer, Pool};
use crate::limits::INLINE_READ_MAX;
use crate::overlay::commit::GroupCommit;
use crate::overlay::cycle::{CheckpointJob, Cycle, CycleError};
use crate::overlay::flush::Begin;
use crate::overlay::store::{BaseBlocks, Block, WriteError, Zeroing};
use crate::overlay::{Overlay, inspect::View, map::BlockState};
use crate::units::{BLOCK_BYTES, BlockIndex, ByteRange};

mod sparse;

/// Why a request failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum VolumeError {
    /// The image is not what it was when it was opened.
    #[error("the image has changed under the server")]
    ImageChanged,
    /// A disk failed.
    #[error("{0}")]
    Io(Arc<std::io::Error>),
    /// The file system of the overlays is full.
    #[error("no space left on the file system of the overlays")]
    NoSpace,
    /// The overlay takes no more writes.
    #[error("the overlay takes no writes since its disk failed: {0}")]
    Poisoned(Arc<str>),
    /// There is no overlay to write to.
    #[error("the disk is read-only")]
    ReadOnly,
}

impl From<std::io::Error> for VolumeError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<io::BufferTooLarge> for VolumeError {
    fn from(error: io::BufferTooLarge) -> Self {
        std::io::Error::other(error).into()
    }
}

/// Bytes that answer a part of a read.
#[derive(Debug)]
pub enum Piece {
    /// These bytes of the image, to be sent from its mapping.
    Mapped(ByteRange),
    /// All of this buffer.
    Copied(Buffer),
    /// So many zeros.
    Zeros(u64),
}

impl Piece {
    /// Bytes of the disk that it is.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Mapped(range) => range.len(),
            Self::Copied(buffer) => buffer.len() as u64,
            Self::Zeros(len) => *len,
        }
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is known to be zeros.
    #[must_use]
    pub const fn is_zeros(&self) -> bool {
        matches!(self, Self::Zeros(_))
    }

    /// Bytes of memory that the piece holds.
    #[must_use]
    pub fn held(&self) -> u64 {
        match self {
            Self::Copied(buffer) => buffer.len() as u64,
            Self::Mapped(_) | Self::Zeros(_) => 0,
        }
    }
}

type Waiter = oneshot::Sender<Result<(), VolumeError>>;

/// A client's disk.
#[derive(Debug)]
pub struct Volume {
    image: Arc<Image>,
    overlay: Option<RefCell<Overlay<RealDisk>>>,
    commit: RefCell<GroupCommit<Waiter>>,
    /// Told whenever a background job of the overlay has ended.
    job_ended: Notify,
    /// Checkpoint jobs under way.
    checkpoints: Cell<usize>,
    /// A hint is being followed.
    prefetching: Cell<bool>,
    pool: Pool,
}

impl Volume {
    /// The disk of `image` alone, or with a client's overlay on top.
    #[must_use]
    pub fn new(image: Arc<Image>, overlay: Option<Overlay<RealDisk>>, pool: Pool) -> Self {
        Self {
            image,
            overlay: overlay.map(RefCell::new),
            commit: RefCell::default(),
            job_ended: Notify::new(),
            checkpoints: Cell::new(0),
            prefetching: Cell::new(false),
            pool,
        }
    }

    /// The image below.
    #[must_use]
    pub const fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// What the overlay holds now; `None` where there is none.
    #[must_use]
    pub fn view(&self) -> Option<View<RealDisk>> {
        Some(self.overlay.as_ref()?.borrow().view())
    }

    /// Answers a read from memory, or not at all where a disk would have to be waited for.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn read_cached(&self, range: ByteRange) -> Result<Option<Vec<Piece>>, VolumeError> {
        self.check_image()?;
        let Some(overlay) = &self.overlay else {
            return self.cached_pieces(self.layers(None).runs(range), None);
        };
        let overlay = overlay.borrow();
        let runs = self.layers(Some(overlay.map())).runs(range);
        self.cached_pieces(runs, Some(overlay.data()))
    }

    fn cached_pieces(
        &self,
        runs: impl Iterator<Item = Run>,
        data: Option<&RealFile>,
    ) -> Result<Option<Vec<Piece>>, VolumeError> {
        let mut pieces = Vec::with_capacity(1);
        let mut copied = 0;
        for run in runs {
            let piece = match (run.source, data) {
                (Source::Zero, _) => Piece::Zeros(run.range.len()),
                (Source::Image, _) if self.can_map(run.range) => Piece::Mapped(run.range),
                (source, data) => {
                    copied += run.range.len();
                    let data = data.filter(|_| source == Source::Overlay);
                    match self.copy_cached(run.range, copied, data)? {
                        Some(buffer) => Piece::Copied(buffer),
                        None => return Ok(None),
                    }
                }
            };
            pieces.push(piece);
        }
        Ok(Some(pieces))
    }

    fn can_map(&self, range: ByteRange) -> bool {
        self.image.mapping().is_some() && self.image.warm(range)
    }

    /// The bytes of one run, from the data file where one is given, else from the image.
    fn copy_cached(
        &self,
        range: ByteRange,
        copied: u64,
        data: Option<&RealFile>,
    ) -> Result<Option<Buffer>, VolumeError> {
        if copied > INLINE_READ_MAX {
            return Ok(None);
        }
        let mut buffer = self.pool.take(range.len_usize())?;
        let hit = match data {
            Some(data) => data.read_cached(buffer.as_mut_slice(), range.start())?,
            None => self
                .image
                .read_cached(buffer.as_mut_slice(), range.start())?,
        };
        Ok(hit.then_some(buffer))
    }

    /// Answers a read, waiting for disks where need be.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub async fn read(&self, range: ByteRange) -> Result<Vec<Piece>, VolumeError> {
        let (runs, data) = self.runs(range);
        let mut pieces = Vec::with_capacity(runs.len());
        for run in runs {
            pieces.push(match (run.source, &data) {
                (Source::Zero, _) => Piece::Zeros(run.range.len()),
                (Source::Overlay, Some(data)) => {
                    Piece::Copied(self.read_file(data.clone(), run.range).await?)
                }
                (Source::Image | Source::Overlay, _) => {
                    Piece::Copied(self.read_image(run.range).await?)
                }
            });
        }
        self.check_image()?;
        Ok(pieces)
    }

    fn runs(&self, range: ByteRange) -> (Vec<Run>, Option<RealFile>) {
        let Some(overlay) = &self.overlay else {
            return (self.layers(None).runs(range).collect(), None);
        };
        let overlay = overlay.borrow();
        let runs = self.layers(Some(overlay.map())).runs(range);
        (runs.collect(), Some(overlay.data().clone()))
    }

    async fn read_file(&self, file: RealFile, range: ByteRange) -> Result<Buffer, VolumeError> {
        let buffer = self.pool.take(range.len_usize())?;
        let whole = 0..buffer.len();
        let (result, buffer) = io::read_at(file, buffer, whole, range.start()).await;
        result?;
        Ok(buffer)
    }

    /// Bytes of the image; zeros past its end.
    async fn read_image(&self, range: ByteRange) -> Result<Buffer, VolumeError> {
        self.check_image()?;
        let mut buffer = self.pool.take(range.len_usize())?;
        let inside = range
            .intersect(ByteRange::between(0, self.image.size()))
            .len_usize();
        buffer
            .as_mut_slice()
            .get_mut(inside..)
            .unwrap_or_default()
            .fill(0);
        let file = Arc::clone(self.image.file());
        let (result, buffer) = io::read_at(file, buffer, 0..inside, range.start()).await;
        if result.is_err() {
            let _ = self.image.verify_now();
        }
        result?;
        Ok(buffer)
    }

    fn check_image(&self) -> Result<(), VolumeError> {
        self.image.check().map_err(|_| VolumeError::ImageChanged)
    }

    fn overlay(&self) -> Result<&RefCell<Overlay<RealDisk>>, VolumeError> {
        self.check_image()?;
        self.overlay.as_ref().ok_or(VolumeError::ReadOnly)
    }

    /// Writes `data` at `range`, which has its length.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub async fn write(&self, range: ByteRange, data: &[u8]) -> Result<(), VolumeError> {
        self.change(range, |overlay, base| overlay.write(range, data, base))
            .await
    }

    /// Makes `range` read as zeros; its space may go, or is reserved if `keep_space`.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub async fn zero(&self, range: ByteRange, keep_space: bool) -> Result<(), VolumeError> {
        let how = if keep_space {
            Zeroing::Reserve
        } else {
            Zeroing::Free
        };
        self.change(range, |overlay, base| overlay.zero(range, how, base))
            .await
    }

    /// Forgets what the whole blocks inside `range` hold.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn trim(&self, range: ByteRange) -> Result<(), VolumeError> {
        Ok(self.overlay()?.borrow_mut().trim(range)?)
    }

    /// Tries `act` until neither a block of the image nor the end of a punch is missing.
    async fn change(
        &self,
        range: ByteRange,
        act: impl Fn(&mut Overlay<RealDisk>, &BaseBlocks) -> Outcome,
    ) -> Result<(), VolumeError> {
        let overlay = self.overlay()?;
        let mut base = BaseBlocks::default();
        loop {
            self.warm_present_edges(range).await?;
            let ended = self.job_ended.notified();
            let outcome = act(&mut overlay.borrow_mut(), &base);
            match outcome {
                Ok(()) => return Ok(()),
                Err(WriteError::NeedsBase(block)) => base.add(block, self.base(block).await?),
                Err(WriteError::Busy) => ended.await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A partial write to a block of the data file that is not in memory would make the kernel read
    /// it while the whole shard waits; so it is read by the ring first.
    async fn warm_present_edges(&self, range: ByteRange) -> Result<(), VolumeError> {
        let overlay = self.overlay()?;
        let (edges, data) = {
            let overlay = overlay.borrow();
            let edges: [_; 2] = overlay.edges(range, BlockState::Present);
            (edges, overlay.data().clone())
        };
        for block in edges.into_iter().flatten() {
            let mut probe = [0];
            if !data.read_cached(&mut probe, block.start())? {
                self.read_file(data.clone(), block.bytes()).await?;
            }
        }
        Ok(())
    }

    async fn base(&self, block: BlockIndex) -> Result<Box<Block>, VolumeError> {
        let mut content = Box::new([0; BLOCK_BYTES]);
        if !self
            .image
            .read_cached(content.as_mut_slice(), block.start())?
        {
            let buffer = self.read_image(block.bytes()).await?;
            content.copy_from_slice(buffer.as_slice());
        }
        // Merged into the overlay for good, so it must not be of an image that is being rewritten.
        self.check_image()?;
        Ok(content)
    }

    /// Asks the kernel to have `range` of the image in memory soon. A hint: nothing can fail, and
    /// while one is being followed others are dropped.
    pub fn prefetch(self: &Rc<Self>, range: ByteRange) {
        let Some(mapping) = self.image.mapping().cloned() else {
            return;
        };
        if self.prefetching.replace(true) {
            return;
        }
        let volume = Rc::clone(self);
        drop(io::spawn(async move {
            // A hint: where it fails, the read itself will say why.
            let _ = io::offload(move || mapping.will_need(range)).await;
            volume.prefetching.set(false);
        }));
    }

    /// Waits until all that was answered before is durable.
    ///
    /// # Errors
    /// [`VolumeError`]; a poisoned overlay never flushes again.
    pub async fn flush(self: &Rc<Self>) -> Result<(), VolumeError> {
        if self.overlay.is_none() {
            return Ok(());
        }
        let (waiter, ended) = oneshot::channel();
        self.commit.borrow_mut().join(waiter);
        self.start_cycle_if_due();
        // A cycle answers all who wait for it, unless the shard itself has ended.
        let abandoned = |_| Err(std::io::Error::other("the flush was abandoned").into());
        ended.await.unwrap_or_else(abandoned)
    }

    fn start_cycle_if_due(self: &Rc<Self>) {
        let Some(overlay) = &self.overlay else { return };
        if !self.commit.borrow().is_due() {
            return;
        }
        let begun = overlay.borrow_mut().begin_cycle();
        match begun {
            Ok(Begin::WaitForCheckpoint) => {}
            Ok(Begin::Clean) => self.release(&Ok(())),
            Ok(Begin::Run(cycle)) => {
                self.commit.borrow_mut().begin();
                drop(io::spawn(Rc::clone(self).run_cycle(cycle)));
            }
            Err(error) => self.release(&Err(error.into())),
        }
    }

    /// Answers all who wait without a cycle.
    fn release(&self, result: &Result<(), VolumeError>) {
        self.commit.borrow_mut().begin();
        self.answer(result);
    }

    fn answer(&self, result: &Result<(), VolumeError>) {
        let waiters = self.commit.borrow_mut().finish();
        for waiter in waiters {
            // Who waited may be gone with its connection.
            let _ = waiter.send(result.clone());
        }
    }

    async fn run_cycle(self: Rc<Self>, cycle: Cycle<RealDisk>) {
        let result = io::offload(move || cycle.run()).await;
        self.finish_cycle(result);
        self.start_cycle_if_due();
    }

    fn finish_cycle(self: &Rc<Self>, result: Result<(), CycleError>) {
        let Some(overlay) = &self.overlay else { return };
        let finished = overlay.borrow_mut().finish_cycle(result);
        self.answer(&finished.as_ref().map(|_| ()).map_err(VolumeError::from));
        if let Ok(Some(job)) = finished {
            self.checkpoints.set(self.checkpoints.get() + 1);
            drop(io::spawn(Rc::clone(self).run_checkpoint(job)));
        }
        self.start_punch(false);
    }

    async fn run_checkpoint(self: Rc<Self>, job: CheckpointJob<RealDisk>) {
        let (job, result) = io::offload(move || {
            let result = job.run();
            (job, result)
        })
        .await;
        if let Some(overlay) = &self.overlay {
            overlay.borrow_mut().finish_checkpoint(job, result);
        }
        self.checkpoints.set(self.checkpoints.get() - 1);
        self.job_ended.notify_waiters();
        self.start_cycle_if_due();
    }

    fn start_punch(self: &Rc<Self>, all: bool) -> bool {
        let Some(overlay) = &self.overlay else {
            return false;
        };
        let Some(job) = overlay.borrow_mut().begin_punch(all) else {
            return false;
        };
        let volume = Rc::clone(self);
        drop(io::spawn(async move {
            let result = io::offload(move || job.run()).await;
            if let Some(overlay) = &volume.overlay {
                overlay.borrow_mut().finish_punch(result);
            }
            volume.job_ended.notify_waiters();
            volume.start_punch(false);
        }));
        true
    }

    /// Makes all durable and gives back what space there is to give back. No request may be under
    /// way.
    ///
    /// # Errors
    /// [`VolumeError`] of the last flush.
    pub async fn close(self: Rc<Self>) -> Result<(), VolumeError> {
        let flushed = self.flush().await;
        loop {
            let ended = self.job_ended.notified();
            let is_punching = self.start_punch(true) || self.is_punching();
            if self.checkpoints.get() == 0 && !is_punching {
                return flushed;
            }
            ended.await;
        }
    }

    fn is_punching(&self) -> bool {
        self.overlay
            .as_ref()
            .is_some_and(|overlay| overlay.borrow().is_punching())
    }
}

type Outcome = Result<(), WriteError>;

impl From<WriteError> for VolumeError {
    fn from(error: WriteError) -> Self {
        Self::from(&error)
    }
}

impl From<&WriteError> for VolumeError {
    fn from(error: &WriteError) -> Self {
        match error {
            WriteError::NoSpace => Self::NoSpace,
            WriteError::Poisoned(why) => Self::Poisoned(Arc::clone(why)),
            WriteError::NeedsBase(_) | WriteError::Busy => {
                Self::Io(Arc::new(std::io::Error::other(error.to_string())))
            }
        }
    }
}
