//! Files out of the disks of machines, kept for the next ones that ask.
//!
//! What a file system answers follows from the blocks that were read of it. So a file that was read
//! out of an image is also that of every machine that has changed none of these blocks, whatever
//! else it has changed; to all others it is read out of their own disks.
//!
//! Invariants:
//! - A machine gets what its own disk holds when it asks.
//! - A file that many machines ask for at once is read once, where they have not changed it.
//! - All files here, those that are being read and sent among them, have [`BOOT_MEMORY_MAX`] bytes
//!   at most: a file has its share before the first byte of it is in memory.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use bytes::Bytes;
use rangemap::RangeSet;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::boot::inside::{self, Blocks, InsideError, Whereabouts};
use crate::image::Image;
use crate::limits::{
    BOOT_BLOCKS_MAX, BOOT_KEPT_MAX, BOOT_MEMORY_MAX, BOOT_MEMORY_TIME, BOOT_READS_MAX,
    BOOT_READS_PER_FILE_MAX,
};
use crate::serve::blocking::in_turn;
use crate::serve::herd::Look;
use crate::units::{BLOCK_BYTES, BlockIndex, BlockRange, ByteRange};

/// All that was read, and is kept.
#[derive(Debug)]
pub(super) struct Disks {
    slots: Mutex<Slots>,
    /// Of [`BOOT_MEMORY_MAX`], what nothing is in, in blocks.
    memory: Arc<Semaphore>,
    reads: Arc<Semaphore>,
}

/// Which file of which image.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// As it is called in the log.
    pub(super) export: String,
    pub(super) place: Whereabouts,
    pub(super) path: String,
    /// Whether the config names it, so that it is to be there.
    pub(super) is_named: bool,
}

#[derive(Debug, Default)]
struct Slots {
    all: Vec<Arc<Slot>>,
    /// Counts uses, to know which was the last.
    uses: u64,
}

/// The place of one file of an image.
#[derive(Debug)]
struct Slot {
    image: Weak<Image>,
    place: Whereabouts,
    path: String,
    /// Who reads it for those that have changed nothing.
    turn: Arc<tokio::sync::Mutex<()>>,
    reads: Arc<Semaphore>,
    kept: Mutex<Option<Kept>>,
}

/// What was read out of an image.
#[derive(Clone, Debug)]
struct Kept {
    /// `None` where there is no such file.
    file: Option<Bytes>,
    /// All blocks that this follows from.
    blocks: Arc<RangeSet<u64>>,
    used: u64,
}

/// A file in memory, and its share of that.
struct Filled {
    bytes: Vec<u8>,
    _room: Share,
}

/// Blocks of memory that a file may have.
type Share = OwnedSemaphorePermit;

/// How often room is waited for that a file needs which grows meanwhile.
const GROWS_MAX: usize = 4;

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A disk that notes which of its blocks are read.
struct Traced {
    look: Arc<Look>,
    /// `None` once there are too many to note.
    seen: Mutex<Option<RangeSet<u64>>>,
}

impl Blocks for Traced {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let blocks = ByteRange::new(offset, into.len() as u64).map(ByteRange::blocks_touched);
        let mut seen = lock(&self.seen);
        if let (Some(seen), Some(blocks)) = (seen.as_mut(), blocks)
            && !blocks.is_empty()
        {
            seen.insert(blocks.indices());
        }
        if seen
            .as_ref()
            .is_some_and(|seen| seen.len() > BOOT_BLOCKS_MAX)
        {
            *seen = None;
        }
        drop(seen);
        self.look.disk.read_at(into, offset)
    }

    fn size(&self) -> u64 {
        self.look.disk.size()
    }
}

impl Default for Disks {
    fn default() -> Self {
        Self {
            slots: Mutex::default(),
            memory: Arc::new(Semaphore::new(BOOT_MEMORY_MAX / BLOCK_BYTES)),
            reads: Arc::new(Semaphore::new(BOOT_READS_MAX)),
        }
    }
}

impl Disks {
    /// The file of the disk that `look` is at. `None` where there is none.
    pub(super) async fn read(
        self: &Arc<Self>,
        look: Look,
        wanted: Wanted,
    ) -> io::Result<Option<Bytes>> {
        let slot = lock(&self.slots).slot(look.disk.image(), &wanted);
        if let Some(kept) = self.kept_for(&slot, &look) {
            return still_there(look, kept).await;
        }
        // Who has changed its disk most likely has changed what this follows from: it waits for
        // nobody.
        let turn = match look.disk.is_changed() {
            true => None,
            false => Some(Arc::clone(&slot.turn).lock_owned().await),
        };
        if let Some(kept) = self.kept_for(&slot, &look) {
            return still_there(look, kept).await;
        }
        // A task of its own: others count on it when the one who asked is gone.
        let reading = Arc::clone(self).read_now(slot, look, wanted, turn);
        tokio::spawn(reading).await.map_err(io::Error::other)?
    }

    async fn read_now(
        self: Arc<Self>,
        slot: Arc<Slot>,
        look: Look,
        wanted: Wanted,
        _turn: Option<OwnedMutexGuard<()>>,
    ) -> io::Result<Option<Bytes>> {
        let own = Arc::clone(&slot.reads).acquire_owned().await;
        let all = Arc::clone(&self.reads).acquire_owned().await;
        let turns = (
            own.map_err(io::Error::other)?,
            all.map_err(io::Error::other)?,
        );
        let (file, blocks) = self.read_with_room(Arc::new(look), wanted).await?;
        drop(turns);
        if let Some(blocks) = blocks {
            let blocks = Arc::new(blocks);
            let mut slots = lock(&self.slots);
            slots.uses += 1;
            let (file, used) = (file.clone(), slots.uses);
            *lock(&slot.kept) = Some(Kept { file, blocks, used });
            slots.shrink_to(BOOT_KEPT_MAX);
        }
        Ok(file)
    }

    /// What is kept, if the disk of `look` holds the same.
    fn kept_for(&self, slot: &Slot, look: &Look) -> Option<Option<Bytes>> {
        let mut slots = lock(&self.slots);
        slots.uses += 1;
        let mut kept = lock(&slot.kept);
        let kept = kept.as_mut()?;
        kept.used = slots.uses;
        let kept = kept.clone();
        drop(slots);
        if !look.disk.is_as_image(&kept.blocks) {
            return None;
        }
        remember(look.disk.image(), &kept.blocks);
        Some(kept.file)
    }

    /// Reads a file once it has its share of the memory.
    async fn read_with_room(
        self: &Arc<Self>,
        look: Arc<Look>,
        wanted: Wanted,
    ) -> io::Result<(Option<Bytes>, Option<RangeSet<u64>>)> {
        let mut share = None;
        for _ in 0..=GROWS_MAX {
            let (disks, look, wanted) = (Arc::clone(self), Arc::clone(&look), wanted.clone());
            let had = share.take();
            let read = in_turn(move || read_out(look, &wanted, &disks, had)).await?;
            match read {
                Reading::Done(file, blocks) => return Ok((file, blocks)),
                Reading::NeedsRoom(bytes) => share = Some(self.room(bytes).await?),
            }
        }
        let export = wanted.export;
        Err(io::Error::other(format!(
            "{export}: the file grows while it is read"
        )))
    }

    /// The share of a file of so many bytes, if that is there; those that nobody has asked for give
    /// up theirs.
    fn room_now(&self, bytes: u64) -> Option<Share> {
        let blocks = blocks_of(bytes);
        while self.memory.available_permits() < blocks as usize {
            if !lock(&self.slots).drop_oldest() {
                break;
            }
        }
        Arc::clone(&self.memory).try_acquire_many_owned(blocks).ok()
    }

    /// As [`Self::room_now`], and waits for it.
    async fn room(&self, bytes: u64) -> io::Result<Share> {
        if let Some(share) = self.room_now(bytes) {
            return Ok(share);
        }
        let room = Arc::clone(&self.memory).acquire_many_owned(blocks_of(bytes));
        let room = tokio::time::timeout(BOOT_MEMORY_TIME, room).await;
        let room =
            room.map_err(|_| io::Error::other("too many files are being sent to keep it"))?;
        room.map_err(io::Error::other)
    }
}

fn blocks_of(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(BLOCK_BYTES as u64)).unwrap_or(u32::MAX)
}

/// A file with its share of the memory.
fn filled(bytes: Vec<u8>, share: Share) -> Bytes {
    Bytes::from_owner(Filled {
        bytes,
        _room: share,
    })
}

/// An image that was seen to change is served no more, also where it need not be read.
async fn still_there(look: Look, file: Option<Bytes>) -> io::Result<Option<Bytes>> {
    in_turn(move || look.disk.image().verify_now().map_err(io::Error::from)).await?;
    Ok(file)
}

/// What comes of the reading of a file.
enum Reading {
    /// The file, if there is one; and the blocks that this follows from, where all are the image's.
    Done(Option<Bytes>, Option<RangeSet<u64>>),
    /// It needs memory for so many bytes first.
    NeedsRoom(u64),
}

/// Reads a file, and says which blocks that follows from where they are the image's. `share` is
/// what it has of the memory.
fn read_out(
    look: Arc<Look>,
    wanted: &Wanted,
    disks: &Disks,
    share: Option<Share>,
) -> io::Result<Reading> {
    let Wanted {
        export,
        place,
        path,
        ..
    } = wanted;
    let begun = Instant::now();
    let traced = Arc::new(Traced {
        look,
        seen: Mutex::new(Some(RangeSet::new())),
    });
    let disk: Arc<dyn Blocks> = Arc::clone(&traced) as Arc<dyn Blocks>;
    let share = Mutex::new(share);
    let room = |bytes: u64| {
        let mut share = lock(&share);
        let has = |share: &Share| share.num_permits() >= blocks_of(bytes) as usize;
        if !share.as_ref().is_some_and(has) {
            *share = disks.room_now(bytes);
        }
        share.is_some()
    };
    let file = match inside::read_file_with(&disk, place, path, &room) {
        Ok(bytes) => Some(bytes),
        Err(InsideError::NotFound) => None,
        Err(InsideError::NoRoom(bytes)) => return Ok(Reading::NeedsRoom(bytes)),
        Err(error) => return Err(io::Error::other(format!("{export}: {path}: {error}"))),
    };
    tell(wanted, file.as_deref(), begun);
    let seen = lock(&traced.seen).take();
    let of_image = seen.filter(|blocks| traced.look.disk.is_as_image(blocks));
    if let Some(blocks) = &of_image {
        remember(traced.look.disk.image(), blocks);
    }
    let share = share.into_inner().unwrap_or_else(PoisonError::into_inner);
    let file = file.zip(share).map(|(bytes, share)| filled(bytes, share));
    Ok(Reading::Done(file, of_image))
}

fn tell(wanted: &Wanted, file: Option<&[u8]>, begun: Instant) {
    let Wanted { export, path, .. } = wanted;
    let took = begun.elapsed().as_millis();
    match file {
        _ if !wanted.is_named => tracing::debug!("looked for {path} in {export} for {took} ms"),
        Some(bytes) => {
            let size = bytes.len();
            tracing::info!("read {path} out of {export}: {size} bytes in {took} ms");
        }
        None => {
            tracing::warn!("{export} has no file {path}: see `kernel` and `initrd` of its image");
        }
    }
}

/// What a kernel is read from, a boot reads, too.
fn remember(image: &Image, blocks: &RangeSet<u64>) {
    if let Some(set) = image.boot_set() {
        for range in blocks.iter() {
            let blocks = BlockRange::between(BlockIndex(range.start), BlockIndex(range.end));
            set.note(blocks.bytes());
        }
    }
}

impl Slots {
    fn slot(&mut self, image: &Arc<Image>, wanted: &Wanted) -> Arc<Slot> {
        // One whose image is gone, or that holds nothing and that nobody uses, is of no more use.
        self.all.retain(|slot| {
            let is_used = Arc::strong_count(slot) > 1 || lock(&slot.kept).is_some();
            is_used && slot.image.strong_count() > 0
        });
        let is_it = |slot: &&Arc<Slot>| {
            let same = (&slot.place, &slot.path) == (&wanted.place, &wanted.path);
            same && std::ptr::eq(slot.image.as_ptr(), Arc::as_ptr(image))
        };
        if let Some(slot) = self.all.iter().find(is_it) {
            return Arc::clone(slot);
        }
        let slot = Arc::new(Slot {
            image: Arc::downgrade(image),
            place: wanted.place.clone(),
            path: wanted.path.clone(),
            turn: Arc::default(),
            reads: Arc::new(Semaphore::new(BOOT_READS_PER_FILE_MAX)),
            kept: Mutex::default(),
        });
        self.all.push(Arc::clone(&slot));
        slot
    }

    /// Keeps `most` bytes at most.
    fn shrink_to(&self, most: usize) {
        let size = |slot: &Arc<Slot>| {
            let kept = lock(&slot.kept);
            let file = kept.as_ref().and_then(|kept| kept.file.as_ref());
            file.map_or(0, Bytes::len)
        };
        while self.all.iter().map(size).sum::<usize>() > most && self.drop_oldest() {}
    }

    /// Keeps the file no more that was not asked for for the longest time. Whether there was any.
    fn drop_oldest(&self) -> bool {
        let used = |slot: &&Arc<Slot>| lock(&slot.kept).as_ref().map(|kept| kept.used);
        let held = self.all.iter().filter(|slot| used(slot).is_some());
        match held.min_by_key(used) {
            Some(slot) => lock(&slot.kept).take().is_some(),
            None => false,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
