//! The only code that touches image and overlay files.
//!
//! [`Disk`] and [`DiskFile`] are all that the overlay knows of storage: few enough calls that a
//! simulated disk can stand in for the real one and lose, tear or fail any of them.
//!
//! Invariants:
//! - Nothing is durable before the call that makes it so has returned: [`DiskFile::sync`] for the
//!   bytes and the size of a file, [`Disk::sync_dir`] for names in a directory.
//! - A failed sync is reported once and never retried here (the kernel drops the dirty pages).

#![allow(
    unsafe_code,
    reason = "mappings of files live here, each block with its SAFETY line"
)]

mod image_file;
mod mapping;
mod new_image;
mod real;
pub mod sim;
mod sparse;

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use image_file::{FileKind, ImageFile, Stamp};
pub use mapping::ImageMapping;
pub use new_image::NewImage;
pub use real::{RealDisk, RealFile, read_cached};
pub use sparse::{Usage, next_data, usage};

use crate::units::ByteRange;

/// A whole file in memory: a mapping, or a copy where the disk is simulated.
pub type FileBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A tree of files that can be made durable.
pub trait Disk: Clone + Debug + Send + Sync + 'static {
    /// An open file of this disk.
    type File: DiskFile;

    /// Makes a file of `len` zeros, or cuts an existing one down to that.
    ///
    /// # Errors
    /// Whatever the system answers.
    fn create(&self, path: &Path, len: u64) -> io::Result<Self::File>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// Whatever the system answers.
    fn open(&self, path: &Path) -> io::Result<Self::File>;

    /// The contents of a file that nobody changes any more, to be read in place.
    ///
    /// # Errors
    /// Whatever the system answers.
    fn map(&self, path: &Path) -> io::Result<FileBytes>;

    /// Makes a directory and those above it.
    ///
    /// # Errors
    /// Whatever the system answers; none where it exists.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, in no order.
    ///
    /// # Errors
    /// Whatever the system answers.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Gives a file or directory a new name, in place of what had it.
    ///
    /// # Errors
    /// Whatever the system answers.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Whatever the system answers.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with all that is in it.
    ///
    /// # Errors
    /// Whatever the system answers.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable: creations, renames, removals.
    ///
    /// # Errors
    /// Whatever the system answers.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file of a [`Disk`].
pub trait DiskFile: Clone + Debug + Send + Sync + 'static {
    /// Reads some bytes at `offset`; 0 at the end of the file.
    ///
    /// # Errors
    /// Whatever the system answers, [`io::ErrorKind::Interrupted`] included.
    fn read_some(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes some bytes at `offset`.
    ///
    /// # Errors
    /// Whatever the system answers, [`io::ErrorKind::Interrupted`] included.
    fn write_some(&self, buf: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes bytes and size durable (fdatasync).
    ///
    /// # Errors
    /// Whatever the system answers. What was written before must then be taken for lost.
    fn sync(&self) -> io::Result<()>;

    /// Gives the space of `range` back; it reads as zeros. Where the file system can't, nothing
    /// happens.
    ///
    /// # Errors
    /// Whatever the system answers otherwise.
    fn punch(&self, range: ByteRange) -> io::Result<()>;

    /// Reserves space for `range`, so that writing there can't run out of it. Where the file system
    /// can't, nothing happens.
    ///
    /// # Errors
    /// Whatever the system answers otherwise.
    fn allocate(&self, range: ByteRange) -> io::Result<()>;

    /// Drops what the page cache holds of the file, as far as it is clean: reads see what is on the
    /// disk. After a failed sync, of an earlier process too, the two may differ.
    ///
    /// # Errors
    /// Whatever the system answers.
    fn forget_cached(&self) -> io::Result<()>;

    /// The size in bytes.
    ///
    /// # Errors
    /// Whatever the system answers.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// As [`DiskFile::read_some`]; `UnexpectedEof` where the file ends before.
    fn read_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.read_some(buf, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    buf = buf.get_mut(count..).unwrap_or_default();
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all of `buf` at `offset`.
    ///
    /// # Errors
    /// As [`DiskFile::write_some`]; any part may have been written then.
    fn write_at(&self, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.write_some(buf, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    buf = buf.get(count..).unwrap_or_default();
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
