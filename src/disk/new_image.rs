//! A new image file that is there as a whole or not at all.
//!
//! Invariants:
//! - All is written under a hidden name beside the final one, which it gets once it is durable.
//! - A file that has the final name is never replaced.
//! - The hidden file is locked while it is written: one that nobody holds was left by a crash, and
//!   is begun anew. Dropped before its end, it is removed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FallocateFlags, FlockOperation, OFlags, RenameFlags, fallocate, flock};
use rustix::io::Errno;

use super::{DiskFile, RealFile};
use crate::units::ByteRange;

/// As private as the overlay that it is made of.
const FILE_MODE: u32 = 0o600;

/// Bytes copied through memory at once, where the kernel can't copy by itself.
const COPY_BUFFER: u64 = 1 << 20;

/// An image being written.
#[derive(Debug)]
pub struct NewImage {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    finished: bool,
    /// The kernel copies between these files by itself.
    kernel_copies: bool,
}

impl NewImage {
    /// Begins the file that is to become `target`, of `size` zeros.
    ///
    /// # Errors
    /// `AlreadyExists` where there is a `target`, `WouldBlock` where another process is just
    /// writing one, else whatever the system answers.
    pub fn begin(target: &Path, size: u64) -> io::Result<Self> {
        if fs::symlink_metadata(target).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let temporary = hidden_beside(target)?;
        let file = open_locked(&temporary)?;
        let new = Self {
            file,
            temporary,
            target: target.to_owned(),
            finished: false,
            kernel_copies: true,
        };
        new.file.set_len(0)?;
        new.file.set_len(size)?;
        Ok(new)
    }

    /// Makes the file share all of `source`, which has its size; `false` where the file system
    /// can't.
    ///
    /// # Errors
    /// A failing disk.
    pub fn share(&self, source: &RealFile) -> io::Result<bool> {
        match rustix::fs::ioctl_ficlone(&self.file, source) {
            Ok(()) => Ok(true),
            Err(errno @ (Errno::IO | Errno::NOSPC | Errno::DQUOT)) => Err(errno.into()),
            Err(_) => Ok(false),
        }
    }

    /// Copies `range` of `source` to the same place.
    ///
    /// # Errors
    /// `UnexpectedEof` where the source ends before, else whatever the system answers.
    pub fn copy(&mut self, source: &RealFile, range: ByteRange) -> io::Result<()> {
        let mut at = range.start();
        while at < range.end() && self.kernel_copies {
            at += self.copy_some(source, ByteRange::between(at, range.end()))?;
        }
        let mut buffer = Vec::new();
        for piece in ByteRange::between(at, range.end()).chunks(COPY_BUFFER) {
            buffer.resize(piece.len_usize(), 0);
            source.read_at(&mut buffer, piece.start())?;
            self.file.write_all_at(&buffer, piece.start())?;
        }
        Ok(())
    }

    fn copy_some(&mut self, source: &RealFile, range: ByteRange) -> io::Result<u64> {
        let (mut from, mut to) = (range.start(), range.start());
        let copied = rustix::fs::copy_file_range(
            source,
            Some(&mut from),
            &self.file,
            Some(&mut to),
            range.len_usize(),
        );
        match copied {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => Ok(count as u64),
            Err(Errno::INTR) => Ok(0),
            Err(errno @ (Errno::IO | Errno::NOSPC | Errno::DQUOT)) => Err(errno.into()),
            // Across file systems, from a device, or on a kernel that can't.
            Err(_) => {
                self.kernel_copies = false;
                Ok(0)
            }
        }
    }

    /// Makes `range` a hole, or zeros where the file system has none.
    ///
    /// # Errors
    /// Whatever the system answers.
    pub fn clear(&self, range: ByteRange) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        loop {
            return match fallocate(&self.file, flags, range.start(), range.len()) {
                Err(Errno::INTR) => continue,
                Err(Errno::OPNOTSUPP) => self.write_zeros(range),
                result => Ok(result?),
            };
        }
    }

    fn write_zeros(&self, range: ByteRange) -> io::Result<()> {
        let zeros = vec![0; ByteRange::between(0, range.len().min(COPY_BUFFER)).len_usize()];
        for piece in range.chunks(COPY_BUFFER) {
            let part = zeros.get(..piece.len_usize()).unwrap_or_default();
            self.file.write_all_at(part, piece.start())?;
        }
        Ok(())
    }

    /// Bytes that are allocated to it.
    ///
    /// # Errors
    /// Whatever the system answers.
    pub fn space(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks() * 512)
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// `AlreadyExists` where the name was taken meanwhile, else whatever the system answers: then
    /// there is no file.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        rename_to_free_name(&self.temporary, &self.target)?;
        self.finished = true;
        let directory = directory_of(&self.target);
        File::open(directory)?.sync_all()
    }
}

impl Drop for NewImage {
    fn drop(&mut self) {
        if !self.finished {
            // The lock is still held, so the name is still ours.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    parent.unwrap_or_else(|| Path::new("."))
}

/// `.NAME.cowherd-new`, in the same directory.
fn hidden_beside(target: &Path) -> io::Result<PathBuf> {
    let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".cowherd-new");
    Ok(target.with_file_name(hidden))
}

fn open_locked(path: &Path) -> io::Result<File> {
    let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .custom_flags(nofollow)
        .open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    // Whoever held it may have given the file its final name, or removed it, before we had the
    // lock: then what we have locked is not what has the name.
    let (ours, named) = (file.metadata()?, fs::symlink_metadata(path)?);
    if (ours.dev(), ours.ino()) != (named.dev(), named.ino()) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(file)
}

fn rename_to_free_name(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that can't: a link replaces nothing either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    fn source(dir: &Path) -> RealFile {
        let path = dir.join("source");
        fs::write(&path, [7; 10_000]).unwrap();
        Arc::new(File::open(path).unwrap()).into()
    }

    #[test]
    fn a_finished_file_has_its_name_and_nothing_is_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let source = source(dir.path());
        let target = dir.path().join("new.img");
        let mut new = NewImage::begin(&target, 10_000).unwrap();
        new.copy(&source, ByteRange::between(5000, 10_000)).unwrap();
        assert!(!target.exists());
        new.finish().unwrap();
        let bytes = fs::read(&target).unwrap();
        assert!(bytes[..5000] == [0; 5000] && bytes[5000..] == [7; 5000]);
        assert_eq!(names(dir.path()).len(), 2);
    }

    #[test]
    fn an_unfinished_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(NewImage::begin(&dir.path().join("new.img"), 10_000).unwrap());
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn what_a_crash_left_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("new.img");
        fs::write(dir.path().join(".new.img.cowherd-new"), [9; 50_000]).unwrap();
        NewImage::begin(&target, 100).unwrap().finish().unwrap();
        assert_eq!(fs::read(&target).unwrap(), [0; 100]);
    }

    #[test]
    fn a_file_of_that_name_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("new.img");
        let new = NewImage::begin(&target, 100).unwrap();
        fs::write(&target, "mine").unwrap();
        let exists = io::ErrorKind::AlreadyExists;
        assert_eq!(new.finish().unwrap_err().kind(), exists);
        let again = NewImage::begin(&target, 100).unwrap_err();
        assert_eq!(again.kind(), exists);
        assert_eq!(fs::read(&target).unwrap(), b"mine");
        assert_eq!(names(dir.path()), ["new.img"]);
    }

    #[test]
    fn two_at_a_time_do_not_write_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("new.img");
        let _first = NewImage::begin(&target, 100).unwrap();
        let second = NewImage::begin(&target, 100).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_cleared_range_reads_as_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let source = source(dir.path());
        let target = dir.path().join("new.img");
        let mut new = NewImage::begin(&target, 10_000).unwrap();
        new.copy(&source, ByteRange::between(0, 10_000)).unwrap();
        new.clear(ByteRange::between(100, 9000)).unwrap();
        new.finish().unwrap();
        let bytes = fs::read(&target).unwrap();
        assert!(bytes[100..9000] == [0; 8900] && bytes[9000..] == [7; 1000]);
    }

    #[test]
    fn a_source_that_ends_too_early_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let source = source(dir.path());
        let mut new = NewImage::begin(&dir.path().join("new.img"), 20_000).unwrap();
        let error = new.copy(&source, ByteRange::between(9000, 20_000));
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
