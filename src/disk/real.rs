//! The machine's own file systems as a [`Disk`].

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use rustix::fs::{Advice, FallocateFlags, Mode, OFlags, fadvise, fallocate, fdatasync, fsync};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::{Disk, DiskFile, FileBytes};
use crate::units::ByteRange;

/// Files are the server's alone: they hold the disks of other people's machines.
const FILE_MODE: u32 = 0o600;

/// The machine's own file systems.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// A file of the machine, shared with the ring's operations that read it.
#[derive(Clone, Debug)]
pub struct RealFile(Arc<File>);

impl RealFile {
    /// Fills `buf` from the page cache; `false` where that would have to wait for the disk.
    ///
    /// # Errors
    /// Whatever `preadv2` answers otherwise.
    pub fn read_cached(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        read_cached(&self.0, buf, offset)
    }
}

impl From<Arc<File>> for RealFile {
    /// A file that something else holds open too, for looks at its holes and copies of it.
    fn from(file: Arc<File>) -> Self {
        Self(file)
    }
}

impl AsFd for RealFile {
    /// The descriptor, for reads that go by the ring.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Fills `buf` from the page cache; `false` where that would have to wait for the disk.
///
/// A miss starts the kernel's read-ahead and leaves `buf` in an unspecified state.
///
/// # Errors
/// `UnexpectedEof` where the file ends before; whatever `preadv2` answers otherwise.
pub fn read_cached(file: &File, mut buf: &mut [u8], mut offset: u64) -> io::Result<bool> {
    while !buf.is_empty() {
        let slices = &mut [io::IoSliceMut::new(buf)];
        match preadv2(file, slices, offset, ReadWriteFlags::NOWAIT) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            // EOPNOTSUPP: a file system without RWF_NOWAIT; the ring has worker threads for it.
            Err(Errno::AGAIN | Errno::OPNOTSUPP) => return Ok(false),
            Ok(count) => {
                buf = buf.get_mut(count..).unwrap_or_default();
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(true)
}

impl Disk for RealDisk {
    type File = RealFile;

    fn create(&self, path: &Path, len: u64) -> io::Result<RealFile> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(path)?;
        file.set_len(len)?;
        Ok(RealFile(Arc::new(file)))
    }

    fn open(&self, path: &Path) -> io::Result<RealFile> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(RealFile(Arc::new(file)))
    }

    fn map(&self, path: &Path) -> io::Result<FileBytes> {
        let file = File::open(path)?;
        // SAFETY: only checkpoints are mapped so. They are written under another name, synced and
        // then renamed, and nothing ever changes or truncates them after; the state directory is
        // locked against a second server and its files are readable by their owner alone.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Arc::new(map))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(dir, flags, Mode::empty())?;
        Ok(fsync(dir)?)
    }
}

impl DiskFile for RealFile {
    fn read_some(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&*self.0, buf, offset)
    }

    fn write_some(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(&*self.0, buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fdatasync(&*self.0)?)
    }

    fn punch(&self, range: ByteRange) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        self.fallocate_if_supported(flags, range)
    }

    fn allocate(&self, range: ByteRange) -> io::Result<()> {
        self.fallocate_if_supported(FallocateFlags::KEEP_SIZE, range)
    }

    fn forget_cached(&self) -> io::Result<()> {
        Ok(fadvise(&*self.0, 0, None, Advice::DontNeed)?)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

impl RealFile {
    fn fallocate_if_supported(&self, flags: FallocateFlags, range: ByteRange) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        loop {
            return match fallocate(&*self.0, flags, range.start(), range.len()) {
                Err(Errno::INTR) => continue,
                Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
                Err(errno) => Err(errno.into()),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_punched_range_reads_as_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&dir.path().join("f"), 16384).unwrap();
        file.write_at(&[7; 16384], 0).unwrap();
        file.punch(ByteRange::between(4096, 8192)).unwrap();
        let mut back = [1; 4096];
        file.read_at(&mut back, 4096).unwrap();
        assert_eq!(back, [0; 4096]);
    }

    #[test]
    fn reading_past_the_end_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&dir.path().join("f"), 10).unwrap();
        let error = file.read_at(&mut [0; 4], 8).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_was_just_written_is_cached() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&dir.path().join("f"), 4096).unwrap();
        file.write_at(&[9; 4096], 0).unwrap();
        let mut back = [0; 4096];
        if file.read_cached(&mut back, 0).unwrap() {
            assert_eq!(back, [9; 4096]);
        }
    }
}
