//! Files inside of a disk: read out of its file system, which is not mounted.
//!
//! Invariants:
//! - Links are followed inside of the file system only: its root is `/`.
//! - Whatever the disk holds, a file is read as its file system says or refused; how much memory
//!   that takes is bounded by [`BOOT_FILE_MAX`].
//! - The readers of file systems are crates, named here and below only. They are not trusted with
//!   what a machine has written to its disk: a panic in one is an error here, and how often and how
//!   much they may read for one file is bounded, so that no circle is gone round for ever.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use thiserror::Error;

use crate::limits::BOOT_FILE_MAX;
use bounded::Bounded;
use partitions::Slice;

mod bounded;
mod btrfs;
mod ext4;
mod fat;
mod links;
mod partitions;
mod root;

pub use root::root_partition;

/// A disk to read from.
pub trait Blocks: Send + Sync {
    /// Fills `into` with the bytes at `offset`.
    ///
    /// # Errors
    /// They reach past the end, or the disk failed.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;

    /// Bytes of the disk.
    fn size(&self) -> u64;
}

/// Where on a disk a file is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Whereabouts {
    /// The number of its partition; `None` means the first that has the file, or none at all.
    pub partition: Option<u32>,
    /// The subvolume of btrfs; `None` means the default one.
    pub subvolume: Option<String>,
}

/// Why a file can't be read.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is its variant's description")]
pub enum InsideError {
    #[error("there is no such file")]
    NotFound,
    #[error("there is no partition {0}")]
    NoPartition(u32),
    #[error("there is no file system that can be read: it must be ext4, btrfs or FAT")]
    NoFileSystem,
    #[error("a file of {0} bytes is too large")]
    TooLarge(u64),
    #[error("there is no room for a file of {0} bytes")]
    NoRoom(u64),
    #[error("{0}")]
    Unreadable(String),
}

/// A file system that was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ext4,
    Btrfs,
    Fat,
}

/// Reads the whole file at `path`, a path as [`crate::tftp::name`] makes it.
///
/// This may take long, and wait for disks.
///
/// # Errors
/// [`InsideError`].
pub fn read_file(
    disk: &Arc<dyn Blocks>,
    place: &Whereabouts,
    path: &str,
) -> Result<Vec<u8>, InsideError> {
    read_file_with(disk, place, path, &|_| true)
}

/// Whether there may be so many bytes in memory.
pub type Room<'a> = &'a dyn Fn(u64) -> bool;

/// As [`read_file`], but asks for `room` before any byte of the file is in memory.
///
/// # Errors
/// [`InsideError`]; among them that there was no room.
pub fn read_file_with(
    disk: &Arc<dyn Blocks>,
    place: &Whereabouts,
    path: &str,
    room: Room<'_>,
) -> Result<Vec<u8>, InsideError> {
    let disk: Arc<dyn Blocks> = Arc::new(Bounded::new(Arc::clone(disk)));
    // Nothing that a panic could leave half-done outlives it.
    let read = catch_unwind(AssertUnwindSafe(|| read_within(&disk, place, path, room)));
    read.unwrap_or_else(|_| {
        let broken = "the file system is damaged in a way that its reader did not expect";
        Err(InsideError::Unreadable(broken.to_owned()))
    })
}

fn read_within(
    disk: &Arc<dyn Blocks>,
    place: &Whereabouts,
    path: &str,
    room: Room<'_>,
) -> Result<Vec<u8>, InsideError> {
    let mut outcome = Err(InsideError::NoFileSystem);
    for slice in slices(disk, place.partition)? {
        match read_slice(slice, place, path, room) {
            None => {}
            Some(Err(InsideError::NotFound)) => outcome = Err(InsideError::NotFound),
            Some(found) => return found,
        }
    }
    outcome
}

/// A file of one file system; `None` where there is none that can be read.
fn read_slice(
    slice: Slice,
    place: &Whereabouts,
    path: &str,
    room: Room<'_>,
) -> Option<Result<Vec<u8>, InsideError>> {
    Some(match kind_of(&slice)? {
        Kind::Ext4 => ext4::read_file(slice, path, room),
        Kind::Btrfs => btrfs::read_file(slice, place.subvolume.as_deref(), path, room),
        Kind::Fat => fat::read_file(slice, path, room),
    })
}

/// The whole disk where it has no partitions, else the ones that are meant.
fn slices(disk: &Arc<dyn Blocks>, number: Option<u32>) -> Result<Vec<Slice>, InsideError> {
    let whole = Slice::whole(Arc::clone(disk));
    if number.is_none() && kind_of(&whole).is_some() {
        return Ok(vec![whole]);
    }
    let found = partitions::find(&whole).map_err(|error| unreadable(&error))?;
    match number {
        None => Ok(found.into_iter().map(|(_, slice)| slice).collect()),
        Some(number) => {
            let one = found.into_iter().find(|(own, _)| *own == number);
            let (_, slice) = one.ok_or(InsideError::NoPartition(number))?;
            Ok(vec![slice])
        }
    }
}

/// By the magic numbers of the superblocks.
fn kind_of(slice: &Slice) -> Option<Kind> {
    let holds = |offset, magic: &[u8]| {
        let mut found = vec![0; magic.len()];
        slice.fill(&mut found, offset).is_ok() && found == magic
    };
    if holds(0x438, &[0x53, 0xef]) {
        return Some(Kind::Ext4);
    }
    if holds(0x1_0040, b"_BHRfS_M") {
        return Some(Kind::Btrfs);
    }
    fat::is_one(slice).then_some(Kind::Fat)
}

fn unreadable(error: &impl std::fmt::Display) -> InsideError {
    InsideError::Unreadable(error.to_string())
}

/// Room for a file of `size` bytes.
fn room_for(size: u64, room: Room<'_>) -> Result<Vec<u8>, InsideError> {
    match usize::try_from(size) {
        Ok(length) if length <= BOOT_FILE_MAX => match room(size) {
            true => Ok(vec![0; length]),
            false => Err(InsideError::NoRoom(size)),
        },
        _ => Err(InsideError::TooLarge(size)),
    }
}
