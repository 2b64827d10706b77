//! An image file or block device, opened for reading only.
//!
//! Invariants:
//! - The descriptor is read-only: no code path of the program can write an image through it.
//! - A read either fills its whole buffer or says so; bytes past the end of the file are zeros.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

/// What sort of thing a path led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// An ordinary file.
    Regular,
    /// A disk, partition or volume.
    BlockDevice,
    /// A directory.
    Directory,
    /// A pipe, socket or character device.
    Other,
}

/// What a look at the open file tells, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes.
    pub size: u64,
    /// Last modification in nanoseconds since 1970; 0 for a block device, which has none.
    pub mtime_ns: i128,
    /// Whether the file has no name any more.
    pub unlinked: bool,
}

/// An open image.
#[derive(Debug)]
pub struct ImageFile {
    file: Arc<File>,
    kind: FileKind,
    owned: bool,
}

impl ImageFile {
    /// Opens `path` read-only, whatever it is: the caller looks at [`ImageFile::kind`].
    ///
    /// # Errors
    /// Whatever `open` answers.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (file, owned) = open_read_only(path)?;
        let kind = kind_of(&file)?;
        Ok(Self {
            file: Arc::new(file),
            kind,
            owned,
        })
    }

    /// What sort of thing was opened.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// The open file, for reads through the ring.
    #[must_use]
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Size and modification time now.
    ///
    /// # Errors
    /// Whatever `fstat` or `lseek` answers.
    pub fn stamp(&self) -> io::Result<Stamp> {
        if self.kind == FileKind::BlockDevice {
            // fstat tells 0 for a device. Nobody reads at the file position, so moving it is free.
            return Ok(Stamp {
                size: rustix::fs::seek(&*self.file, SeekFrom::End(0))?,
                mtime_ns: 0,
                unlinked: false,
            });
        }
        let metadata = self.file.metadata()?;
        Ok(Stamp {
            size: metadata.len(),
            mtime_ns: i128::from(metadata.mtime()) * 1_000_000_000
                + i128::from(metadata.mtime_nsec()),
            unlinked: metadata.nlink() == 0,
        })
    }

    /// Whether `mincore` tells this process the truth about the file.
    ///
    /// The kernel's `can_do_mincore` answers "all in memory" to whoever neither owns the file nor
    /// may write it. The owner is the one who may open with `O_NOATIME`: the kernel asks the same
    /// question there (`inode_owner_or_capable`).
    #[must_use]
    pub fn tells_residency(&self) -> bool {
        self.owned
            || rustix::fs::accessat(CWD, self.proc_path(), Access::WRITE_OK, AtFlags::EACCESS)
                .is_ok()
    }

    /// Whether `path` leads to the open file, or to none: that it is gone does not matter to it.
    #[must_use]
    pub fn is_still_at(&self, path: &Path) -> bool {
        let place = |found: std::fs::Metadata| (found.dev(), found.ino());
        match (path.metadata(), self.file.metadata()) {
            (Ok(there), Ok(open)) => place(there) == place(open),
            _ => true,
        }
    }

    /// A path to the open file itself, wherever its name has gone.
    #[must_use]
    pub fn proc_path(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }

    /// Fills `buf` from `offset` if that needs no waiting for the disk; `false` where it would.
    ///
    /// A miss starts the kernel's read-ahead and leaves `buf` in an unspecified state.
    ///
    /// # Errors
    /// A failing disk, or `UnexpectedEof` where the file ends before `size`.
    pub fn read_cached(&self, buf: &mut [u8], offset: u64, size: u64) -> io::Result<bool> {
        let stored = zero_past_end(buf, offset, size);
        super::read_cached(&self.file, stored, offset)
    }

    /// Fills `buf` from `offset`, waiting for the disk where it must.
    ///
    /// # Errors
    /// A failing disk, or `UnexpectedEof` where the file ends before `size`.
    pub fn read(&self, buf: &mut [u8], offset: u64, size: u64) -> io::Result<()> {
        let stored = zero_past_end(buf, offset, size);
        self.file.read_exact_at(stored, offset)
    }
}

/// Zeroes what lies at or after `size`, and gives the part before it.
fn zero_past_end(buf: &mut [u8], offset: u64, size: u64) -> &mut [u8] {
    let stored = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
    let (stored, past) = buf.split_at_mut(stored.min(buf.len()));
    past.fill(0);
    stored
}

/// The open file, and whether this process counts as its owner.
fn open_read_only(path: &Path) -> io::Result<(File, bool)> {
    // NONBLOCK keeps a pipe without a writer from stopping us here.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let (file, owned) = match rustix::fs::open(path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => (rustix::fs::open(path, flags, Mode::empty())?, false),
        opened => (opened?, true),
    };
    // The ring takes NONBLOCK to mean that a cold read must fail instead of waiting.
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags.difference(OFlags::NONBLOCK))?;
    Ok((file.into(), owned))
}

fn kind_of(file: &File) -> io::Result<FileKind> {
    let kind = file.metadata()?.file_type();
    Ok(if kind.is_file() {
        FileKind::Regular
    } else if kind.is_block_device() {
        FileKind::BlockDevice
    } else if kind.is_dir() {
        FileKind::Directory
    } else {
        FileKind::Other
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image_of(bytes: &[u8]) -> (tempfile::TempDir, ImageFile) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        std::fs::write(&path, bytes).unwrap();
        let image = ImageFile::open(&path).unwrap();
        (dir, image)
    }

    #[test]
    fn bytes_past_the_end_read_as_zeros() {
        let (_dir, image) = image_of(&[7; 5000]);
        let mut buf = [1u8; 4096];
        image.read(&mut buf, 4096, 5000).unwrap();
        assert!(buf[..904].iter().all(|&b| b == 7) && buf[904..].iter().all(|&b| b == 0));
        buf.fill(1);
        assert!(image.read_cached(&mut buf, 8192, 5000).unwrap());
        assert_eq!(buf, [0; 4096]);
    }

    #[test]
    fn a_file_that_ends_too_early_is_an_error() {
        let (_dir, image) = image_of(&[7; 5000]);
        let mut buf = [0u8; 4096];
        let error = image.read(&mut buf, 4096, 8192).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let error = image.read_cached(&mut buf, 5000, 9096).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn the_descriptor_can_not_write_and_would_wait() {
        let (_dir, image) = image_of(&[7; 5000]);
        assert!(image.file().write_at(b"x", 0).is_err());
        let flags = rustix::fs::fcntl_getfl(&**image.file()).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK));
    }

    #[test]
    fn a_pipe_without_a_writer_opens_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(ImageFile::open(&path).unwrap().kind(), FileKind::Other);
    }
}
