//! The simulated disk as the overlay under test sees it: as it is, or with one rule of the order
//! of writes broken.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cowherd::disk::sim::{SimDisk, SimFile};
use cowherd::disk::{Disk, DiskFile, FileBytes};
use cowherd::units::ByteRange;

/// A way to leave out a sync that a rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leak {
    /// Flushes do not sync the data file.
    Data,
    /// Flushes and starts of journals do not sync the journal.
    Journal,
    /// A checkpoint gets its name before it is durable.
    Checkpoint,
    /// The name of a checkpoint is not made durable.
    CheckpointName,
    /// Recovery believes what only the page cache may hold.
    Opening,
    /// Files of a new overlay are not synced.
    NewFiles,
    /// Their names are not synced.
    NewNames,
    /// The name of a new overlay is not synced.
    NewOverlay,
    /// A sync that fails is tried again.
    Retry,
}

/// A simulated disk, perhaps with a [`Leak`].
#[derive(Clone, Debug)]
pub(crate) struct TestDisk {
    pub(crate) sim: SimDisk,
    leak: Option<Leak>,
    opening: Arc<AtomicBool>,
}

/// A file of it.
#[derive(Clone, Debug)]
pub(crate) struct TestFile {
    sim: SimFile,
    disk: TestDisk,
    path: Arc<PathBuf>,
    is_new: bool,
}

impl TestDisk {
    pub(crate) fn new(sim: SimDisk, leak: Option<Leak>) -> Self {
        Self {
            sim,
            leak,
            opening: Arc::default(),
        }
    }

    /// Runs `open`, which opens an overlay.
    pub(crate) fn opening<T>(&self, open: impl FnOnce() -> T) -> T {
        self.opening.store(true, Ordering::Relaxed);
        let result = open();
        self.opening.store(false, Ordering::Relaxed);
        result
    }

    fn is_opening(&self) -> bool {
        self.opening.load(Ordering::Relaxed)
    }

    fn file(&self, sim: SimFile, path: &Path, is_new: bool) -> TestFile {
        TestFile {
            sim,
            disk: self.clone(),
            path: Arc::new(path.to_owned()),
            is_new,
        }
    }
}

/// Whether `path` is, or is in, an overlay that is just being made.
fn is_of_new_overlay(path: &Path) -> bool {
    let mut names = path.iter().map(|name| name.to_string_lossy());
    names.any(|name| name.ends_with(".new"))
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

impl Disk for TestDisk {
    type File = TestFile;

    fn create(&self, path: &Path, len: u64) -> io::Result<TestFile> {
        let sim = self.sim.create(path, len)?;
        Ok(self.file(sim, path, true))
    }

    fn open(&self, path: &Path) -> io::Result<TestFile> {
        let sim = self.sim.open(path)?;
        Ok(self.file(sim, path, false))
    }

    fn map(&self, path: &Path) -> io::Result<FileBytes> {
        self.sim.map(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.sim.create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.sim.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.sim.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.sim.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.sim.remove_dir(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let is_new = is_of_new_overlay(dir);
        let is_overlay = name(dir) == super::client::CLIENT;
        let leaks = match self.leak {
            Some(Leak::CheckpointName) => is_overlay,
            Some(Leak::NewNames) => is_new,
            Some(Leak::NewOverlay) => !is_new && !is_overlay,
            _ => false,
        };
        if leaks {
            Ok(())
        } else {
            self.sim.sync_dir(dir)
        }
    }
}

impl TestFile {
    fn leaks(&self) -> bool {
        let name = name(&self.path);
        let is_checkpoint = name.starts_with("ckpt.");
        let in_new = is_of_new_overlay(&self.path);
        match self.disk.leak {
            Some(Leak::Data) => name == "data" && !in_new && !self.disk.is_opening(),
            Some(Leak::Journal) => {
                name.starts_with("journal.") && !in_new && !self.disk.is_opening()
            }
            Some(Leak::Checkpoint) => is_checkpoint && !in_new,
            Some(Leak::Opening) => !self.is_new && self.disk.is_opening(),
            Some(Leak::NewFiles) => in_new,
            _ => false,
        }
    }
}

impl DiskFile for TestFile {
    fn read_some(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.sim.read_some(buf, offset)
    }

    fn write_some(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.sim.write_some(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        if self.leaks() {
            return Ok(());
        }
        let synced = self.sim.sync();
        if self.disk.leak == Some(Leak::Retry) {
            return synced.or_else(|_| self.sim.sync());
        }
        synced
    }

    fn punch(&self, range: ByteRange) -> io::Result<()> {
        self.sim.punch(range)
    }

    fn allocate(&self, range: ByteRange) -> io::Result<()> {
        self.sim.allocate(range)
    }

    fn forget_cached(&self) -> io::Result<()> {
        self.sim.forget_cached()
    }

    fn size(&self) -> io::Result<u64> {
        self.sim.size()
    }
}
