//! The tree of files that boot loaders ask for, as TFTP and HTTP serve it.
//!
//! Invariants:
//! - Nothing outside of the root can be reached, whatever a name or a link in the tree says: the
//!   kernel resolves names with the root as `/`.
//! - Only regular files are opened, and none in a way that could wait for a writer.

use std::fs::{File, Metadata};
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, ReadWriteFlags};

use crate::limits::BOOT_FILE_MAX;

/// Where files are looked for.
#[derive(Debug)]
pub struct Files {
    root: OwnedFd,
}

/// A file that was found, or made.
#[derive(Clone, Debug)]
pub struct Content {
    place: Place,
    size: u64,
}

/// Where the bytes of a file are.
#[derive(Clone, Debug)]
enum Place {
    OnDisk {
        file: Arc<File>,
        /// What changes whenever it is written or replaced.
        tag: Arc<str>,
    },
    InMemory(Bytes),
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self {
            size: bytes.len() as u64,
            place: Place::InMemory(bytes),
        }
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl Files {
    /// The files below the directory `root`.
    ///
    /// # Errors
    /// It is no directory, or not ours to read.
    pub fn below(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
        Ok(Self { root })
    }

    /// Opens the file at `path`, a path as [`crate::tftp::name`] makes it. `None` where there is
    /// none, or a directory.
    ///
    /// This asks a disk, and may wait for it.
    ///
    /// # Errors
    /// It is there and can't be read, or is something else.
    pub fn open(&self, path: &str) -> io::Result<Option<Content>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let opened = loop {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), within) {
                // openat2(2): a name in the tree was changed meanwhile; "the caller may retry".
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => break opened,
            }
        };
        match opened {
            Ok(file) => Content::of(file.into()),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Content {
    fn of(file: File) -> io::Result<Option<Self>> {
        let found = file.metadata()?;
        if found.is_dir() {
            return Ok(None);
        }
        if !found.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        Ok(Some(Self {
            size: found.len(),
            place: Place::OnDisk {
                file: Arc::new(file),
                tag: tag_of(&found).into(),
            },
        }))
    }

    /// All its bytes. This may wait for a disk.
    ///
    /// # Errors
    /// It is larger than [`BOOT_FILE_MAX`]; else as [`Self::read_at`].
    pub fn whole(&self) -> io::Result<Vec<u8>> {
        let size = usize::try_from(self.size).ok();
        let size = size.filter(|size| *size <= BOOT_FILE_MAX);
        let mut bytes = vec![0; size.ok_or(io::ErrorKind::FileTooLarge)?];
        self.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Its size in bytes, as it was when it was opened.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Reads `into.len()` bytes at `offset` if that can be done without waiting for a disk; whether
    /// it was.
    #[must_use]
    pub fn read_now(&self, into: &mut [u8], offset: u64) -> bool {
        let Place::OnDisk { file, .. } = &self.place else {
            return self.read_at(into, offset).is_ok();
        };
        let length = into.len();
        let into = &mut [IoSliceMut::new(into)];
        let read = rustix::io::preadv2(file, into, offset, ReadWriteFlags::NOWAIT);
        read.is_ok_and(|read| read == length)
    }

    /// What changes whenever the file does; `None` where nothing does so for certain.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match &self.place {
            Place::OnDisk { tag, .. } => Some(tag),
            Place::InMemory(_) => None,
        }
    }

    /// The bytes of `range`, where no disk has to be asked for them.
    #[must_use]
    pub fn at_hand(&self, range: &Range<u64>) -> Option<Bytes> {
        let Place::InMemory(bytes) = &self.place else {
            return None;
        };
        let start = usize::try_from(range.start).ok()?;
        let end = usize::try_from(range.end).ok()?;
        (start <= end && end <= bytes.len()).then(|| bytes.slice(start..end))
    }

    /// Reads `into.len()` bytes at `offset`. This may wait for a disk.
    ///
    /// # Errors
    /// `UnexpectedEof` where it has become shorter; else what the disk says.
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        if let Place::OnDisk { file, .. } = &self.place {
            return file.read_exact_at(into, offset);
        }
        let end = offset.saturating_add(into.len() as u64);
        let part = self.at_hand(&(offset..end));
        into.copy_from_slice(&part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Which file it is, and which of its states: by number, size and times.
fn tag_of(found: &Metadata) -> String {
    let (inode, size) = (found.ino(), found.size());
    let written = (found.mtime(), found.mtime_nsec());
    let changed = (found.ctime(), found.ctime_nsec());
    format!(
        "{inode:x}-{size:x}-{:x}.{:x}-{:x}.{:x}",
        written.0, written.1, changed.0, changed.1
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A root with a few files, beside a file that is not in it.
    fn tree() -> (tempfile::TempDir, Files) {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("root");
        std::fs::create_dir_all(root.join("boot")).unwrap();
        std::fs::write(root.join("boot/core.0"), b"core").unwrap();
        std::fs::write(home.path().join("secret"), b"secret").unwrap();
        let files = Files::below(&root).unwrap();
        (home, files)
    }

    fn read(files: &Files, path: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(content) = files.open(path)? else {
            return Ok(None);
        };
        let mut bytes = vec![0; usize::try_from(content.size()).unwrap()];
        content.read_at(&mut bytes, 0)?;
        Ok(Some(bytes))
    }

    #[test]
    fn a_file_is_found_by_its_path() {
        let (_home, files) = tree();
        assert_eq!(read(&files, "boot/core.0").unwrap().unwrap(), b"core");
        for missing in ["core.0", "boot/core.1", "boot/core.0/x", &"x".repeat(300)] {
            assert_eq!(read(&files, missing).unwrap(), None, "{missing}");
        }
    }

    #[test]
    fn no_name_leads_out_of_the_root() {
        let (home, files) = tree();
        let absolute = home.path().join("secret");
        for name in ["../secret", "boot/../../secret", absolute.to_str().unwrap()] {
            assert_eq!(read(&files, name).unwrap(), None, "{name}");
        }
    }

    #[test]
    fn links_are_followed_inside_the_root_only() {
        let (home, files) = tree();
        let root = home.path().join("root");
        for (name, target) in [
            ("inside", "boot/core.0"),
            ("absolute", "/boot/core.0"),
            ("outside", "../secret"),
            ("elsewhere", "/etc/passwd"),
        ] {
            symlink(target, root.join(name)).unwrap();
        }
        assert_eq!(read(&files, "inside").unwrap().unwrap(), b"core");
        assert_eq!(read(&files, "absolute").unwrap().unwrap(), b"core");
        assert_eq!(read(&files, "outside").unwrap(), None);
        assert_eq!(read(&files, "elsewhere").unwrap(), None);
    }

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let (home, files) = tree();
        let fifo = home.path().join("root/fifo");
        rustix::fs::mknodat(CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(files.open("fifo").is_err());
    }

    #[test]
    fn a_directory_is_no_file() {
        let (_home, files) = tree();
        assert_eq!(read(&files, "boot").unwrap(), None);
    }

    #[test]
    fn the_tag_of_a_file_changes_when_it_is_written_and_when_it_is_replaced() {
        let (home, files) = tree();
        let tag = || {
            files
                .open("boot/core.0")
                .unwrap()
                .unwrap()
                .tag()
                .unwrap()
                .to_owned()
        };
        let path = home.path().join("root/boot/core.0");
        let first = tag();
        assert_eq!(tag(), first);
        std::fs::write(&path, b"core with more").unwrap();
        let second = tag();
        assert_ne!(second, first);
        std::fs::write(path.with_extension("new"), b"core with less").unwrap();
        std::fs::rename(path.with_extension("new"), &path).unwrap();
        assert_ne!(tag(), second);
    }

    #[test]
    fn what_is_in_memory_is_at_hand_and_nothing_behind_it() {
        let content = Content::from(b"menu".to_vec());
        assert_eq!(content.at_hand(&(1..3)).unwrap(), &b"en"[..]);
        assert_eq!(content.at_hand(&(4..4)).unwrap(), &b""[..]);
        assert_eq!(content.at_hand(&(3..5)), None);
        let (_home, files) = tree();
        let content = files.open("boot/core.0").unwrap().unwrap();
        assert_eq!(content.at_hand(&(0..1)), None);
    }
}
