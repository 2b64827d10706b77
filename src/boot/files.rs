//! The tree of files that boot loaders ask for, as TFTP serves it.
//!
//! Invariants:
//! - Nothing outside of the root can be reached, whatever a name or a link in the tree says: the
//!   kernel resolves names with the root as `/`.
//! - Only regular files are opened, and none in a way that could wait for a writer.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::limits::BOOT_FILE_MAX;

/// Where files are looked for.
#[derive(Debug)]
pub struct Files {
    root: OwnedFd,
}

/// A file that was found, or made.
#[derive(Clone, Debug)]
pub struct Content {
    bytes: Bytes,
    size: u64,
}

/// Where the bytes of a file are.
#[derive(Clone, Debug)]
enum Bytes {
    OnDisk(Arc<File>),
    InMemory(Arc<[u8]>),
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            size: bytes.len() as u64,
            bytes: Bytes::InMemory(bytes.into()),
        }
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
    /// none.
    ///
    /// This asks a disk, and may wait for it.
    ///
    /// # Errors
    /// It is there and can't be read, or is no file.
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
            Ok(file) => Content::of(file.into()).map(Some),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Content {
    fn of(file: File) -> io::Result<Self> {
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        Ok(Self {
            size: found.len(),
            bytes: Bytes::OnDisk(Arc::new(file)),
        })
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

    /// Reads `into.len()` bytes at `offset`. This may wait for a disk.
    ///
    /// # Errors
    /// `UnexpectedEof` where it has become shorter; else what the disk says.
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.bytes {
            Bytes::OnDisk(file) => file.read_exact_at(into, offset),
            Bytes::InMemory(bytes) => {
                let start = usize::try_from(offset).ok();
                let end = start.and_then(|start| start.checked_add(into.len()));
                let part = start
                    .zip(end)
                    .and_then(|(start, end)| bytes.get(start..end));
                into.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
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
        assert!(files.open("boot").is_err());
    }
}
