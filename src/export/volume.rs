//! An image generation and a client's overlay as one disk, on the thread of its shard.
//!
//! Reads are here, changes in `change`, flushes and the work behind them in `flush`.
//!
//! Invariants:
//! - All requests of one overlay run on one thread, and an overlay is borrowed only between two
//!   awaits: no lock, and no request sees another's half-done change.
//! - Nothing here waits for a disk on the shard's thread: reads of what is not in memory go by the
//!   ring, writes as [`io::write_at`] says; syncs, checkpoints, reservations and punches to their
//!   own threads.
//! - The image is read by the kernel only, from its mapping or its file.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{Notify, oneshot};

use super::plan::{Run, Source};
use crate::disk::{RealDisk, RealFile};
use crate::image::{Complaint, Image};
use crate::io::{self, Buffer, CutShort, Pool, Readers, Way};
use crate::limits::INLINE_READ_MAX;
use crate::overlay::commit::GroupCommit;
use crate::overlay::map::BlockCounts;
use crate::overlay::store::WriteError;
use crate::overlay::{Overlay, inspect::View};
use crate::units::ByteRange;

mod change;
mod flush;
mod notes;

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
    /// A disk failed at this byte of the export.
    #[error("{reason}")]
    Read {
        /// The first byte that could not be read.
        at: u64,
        /// Why not.
        reason: Arc<std::io::Error>,
    },
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

impl VolumeError {
    fn reading(start: u64, short: CutShort) -> Self {
        Self::Read {
            at: start + short.done as u64,
            reason: Arc::new(short.error),
        }
    }

    /// The same for a request that did not ask for the byte which could not be read.
    fn elsewhere(self) -> Self {
        match self {
            Self::Read { reason, .. } => Self::Io(reason),
            other => other,
        }
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
    /// Changes whose notes are not on their way.
    unnoted: RefCell<Vec<Waiter>>,
    /// Told whenever a change or a background job of the overlay has ended.
    ended: Notify,
    /// Checkpoint jobs under way.
    checkpoints: Cell<usize>,
    /// A hint is being followed.
    prefetching: Cell<bool>,
    /// The overlay could not be read.
    unreadable: Complaint,
    pool: Pool,
    /// How the files of the overlay are written.
    way: Way,
    /// And read.
    readers: Readers,
}

impl Volume {
    /// The disk of `image` alone, or with a client's overlay on top.
    #[must_use]
    pub fn new(image: Arc<Image>, overlay: Option<Overlay<RealDisk>>, pool: Pool) -> Self {
        let data = overlay.as_ref().map(Overlay::data);
        Self {
            way: data.map_or(Way::Ring, Way::of),
            readers: data.map_or(Readers::Ring, Readers::of),
            image,
            overlay: overlay.map(RefCell::new),
            commit: RefCell::default(),
            unnoted: RefCell::default(),
            ended: Notify::new(),
            checkpoints: Cell::new(0),
            prefetching: Cell::new(false),
            unreadable: Complaint::default(),
            pool,
        }
    }

    /// The image below.
    #[must_use]
    pub const fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// What tells the overlay from all others; `None` where there is none.
    #[must_use]
    pub fn uuid(&self) -> Option<[u8; 16]> {
        Some(self.overlay.as_ref()?.borrow().header().uuid)
    }

    /// What the overlay holds now; `None` where there is none.
    #[must_use]
    pub fn view(&self) -> Option<View<RealDisk>> {
        Some(self.overlay.as_ref()?.borrow().view())
    }

    /// How many blocks of the overlay are the client's own; `None` where there is none.
    #[must_use]
    pub fn own_blocks(&self) -> Option<BlockCounts> {
        Some(self.overlay.as_ref()?.borrow().counts())
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

    /// Tells which parts of a read come from the image.
    pub fn each_read_of_image(&self, range: ByteRange, mut tell: impl FnMut(ByteRange)) {
        let overlay = self.overlay.as_ref().map(RefCell::borrow);
        let runs = self
            .layers(overlay.as_ref().map(|overlay| overlay.map()))
            .runs(range);
        let of_image = runs.filter(|run| run.source == Source::Image);
        of_image.for_each(|run| tell(run.range));
    }

    async fn read_file(&self, file: RealFile, range: ByteRange) -> Result<Buffer, VolumeError> {
        let buffer = self.pool.take(range.len_usize())?;
        let whole = 0..buffer.len();
        let start = range.start();
        let (result, buffer) = io::read_at(file, buffer, whole, start, &self.readers).await;
        if let Err(short) = result {
            self.saw_failed_read(start + short.done as u64, &short.error);
            return Err(VolumeError::reading(range.start(), short));
        }
        Ok(buffer)
    }

    /// Takes notice of a read of the overlay that failed.
    fn saw_failed_read(&self, at: u64, error: &std::io::Error) {
        if let Some(overlay) = self.overlay.as_ref().filter(|_| self.unreadable.is_due()) {
            let overlay = overlay.borrow();
            let dir = overlay.dir().display();
            tracing::error!("overlay {dir} can't be read at byte {at}: {error}; check the disk");
        }
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
        let (file, start) = (Arc::clone(self.image.file()), range.start());
        let read = io::read_at(file, buffer, 0..inside, start, self.image.readers());
        let (result, buffer) = read.await;
        if let Err(short) = result {
            self.image
                .saw_failed_read(start + short.done as u64, &short.error);
            return Err(VolumeError::reading(range.start(), short));
        }
        Ok(buffer)
    }

    fn check_image(&self) -> Result<(), VolumeError> {
        self.image.check().map_err(|_| VolumeError::ImageChanged)
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
}

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
