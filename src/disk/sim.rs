//! A disk in memory that can lose power, fail and fill up, all of it repeatable.
//!
//! Each file has its durable bytes and, sector by sector, all that was written since its last
//! sync; each directory its durable names and the changes since. [`Moment::crash`] makes of that
//! any disk a power loss may leave. Faults are placed by the number of a call, and an [`Observer`]
//! is told of each call before and after it.
//!
//! Invariants:
//! - What a [`Moment`] holds never changes.
//! - After [`SimDisk::restart`] nothing that was opened before can reach the disk any more.
//! - Nothing here depends on time, addresses or an unseeded random number.

mod content;
mod crash;
mod fault;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

pub use crash::{Choice, Moment};
pub use fault::Fault;

use super::{Disk, DiskFile, FileBytes};
use crate::units::ByteRange;
use content::FileNode;
use fault::{half, interrupt, refuse, survives};
use tree::{Inode, Tree};

/// Which call of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are the calls of Disk and DiskFile")]
pub enum CallKind {
    Create,
    Open,
    Map,
    CreateDir,
    List,
    Rename,
    Remove,
    RemoveDir,
    SyncDir,
    Read,
    Write,
    Sync,
    Punch,
    Allocate,
    Size,
    Forget,
}

impl CallKind {
    /// Whether the call can change what a crash leaves.
    #[must_use]
    pub const fn changes_disk(self) -> bool {
        !matches!(
            self,
            Self::Open | Self::Map | Self::List | Self::Read | Self::Size | Self::Forget
        )
    }
}

/// One call, by its number from 1.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its number on this disk.
    pub number: u64,
    /// Which it was.
    pub kind: CallKind,
    /// The last part of the path it was about.
    pub name: Arc<str>,
}

/// Someone who is told of each call.
pub trait Observer: Send + Sync {
    /// A call is about to be made. It may be held up here.
    fn before(&self, kind: CallKind) {
        let _ = kind;
    }

    /// A call has been made; `moment` gives the disk as it is now.
    fn after(&self, call: &Call, moment: &dyn Fn() -> Moment) {
        let _ = (call, moment);
    }
}

struct State {
    tree: Tree,
    calls: u64,
    /// Handles of an earlier life are dead.
    life: u64,
    faults: BTreeMap<u64, Fault>,
    is_full: bool,
}

#[derive(Default)]
struct Watch(Mutex<Option<Arc<dyn Observer>>>);

/// A disk in memory. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    watch: Arc<Watch>,
    life: u64,
}

/// A file of a [`SimDisk`].
#[derive(Clone)]
pub struct SimFile {
    disk: SimDisk,
    inode: Inode,
    name: Arc<str>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").finish_non_exhaustive()
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimFile").field(&self.name).finish()
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::from_tree(Tree::new())
    }
}

impl SimDisk {
    fn from_tree(tree: Tree) -> Self {
        let state = State {
            tree,
            calls: 0,
            life: 0,
            faults: BTreeMap::new(),
            is_full: false,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            watch: Arc::default(),
            life: 0,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many calls were made so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// The disk as it is now.
    #[must_use]
    pub fn moment(&self) -> Moment {
        let tree = self.state().tree.clone();
        Moment { tree }
    }

    /// Has `observer` told of every call from now on, instead of who was told before.
    pub fn observe(&self, observer: Option<Arc<dyn Observer>>) {
        *self.watch.lock() = observer;
    }

    /// Has the call of this number fail so.
    pub fn fail(&self, call: u64, fault: Fault) {
        self.state().faults.insert(call, fault);
    }

    /// While full, whatever needs a page more than there is gets ENOSPC.
    pub fn set_full(&self, is_full: bool) {
        self.state().is_full = is_full;
    }

    /// Pages of 4 KiB that the files take.
    #[must_use]
    pub fn pages_used(&self) -> usize {
        let state = self.state();
        let nodes = state.tree.nodes.values();
        let pages = nodes.map(|node| match &**node {
            tree::Node::File(file) => file.cached.page_count(),
            tree::Node::Dir(_) => 0,
        });
        pages.sum()
    }

    /// The process that used the disk was killed: its handles are dead, its writes are still in the
    /// cache. Gives the disk to the next one.
    #[must_use]
    pub fn restart(&self) -> Self {
        let mut state = self.state();
        state.life += 1;
        Self {
            state: Arc::clone(&self.state),
            watch: Arc::clone(&self.watch),
            life: state.life,
        }
    }

    /// Flips bits of one durable byte.
    ///
    /// # Errors
    /// `NotFound`, or `UnexpectedEof` past the end of the file.
    pub fn corrupt(&self, path: &Path, offset: u64, flip: u8) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.tree.find(path)?;
        let file = state.tree.file_mut(inode)?;
        let mut byte = [0];
        if file.cached.read(&mut byte, offset) == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write(0, &[byte[0] ^ flip], offset);
        file.sync();
        Ok(())
    }

    fn call<T>(
        &self,
        kind: CallKind,
        name: &Arc<str>,
        action: impl FnOnce(&mut State, u64, Option<Fault>) -> io::Result<T>,
    ) -> io::Result<T> {
        let observer = self.watch.lock().clone();
        if let Some(observer) = &observer {
            observer.before(kind);
        }
        let (result, number) = {
            let mut state = self.state();
            if state.life != self.life {
                return Err(io::Error::other("the process was killed"));
            }
            state.calls += 1;
            let number = state.calls;
            let fault = state.faults.get(&number).copied();
            (action(&mut state, number, fault), number)
        };
        if let Some(observer) = observer {
            let name = Arc::clone(name);
            let call = Call { number, kind, name };
            observer.after(&call, &|| self.moment());
        }
        result
    }

    /// A call about a path that either fails as a whole or not at all.
    fn path_call<T>(
        &self,
        kind: CallKind,
        path: &Path,
        action: impl FnOnce(&mut State, u64) -> io::Result<T>,
    ) -> io::Result<T> {
        self.call(kind, &name_of(path), |state, number, fault| {
            refuse(fault)?;
            action(state, number)
        })
    }
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<dyn Observer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name_of(path: &Path) -> Arc<str> {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into()
}

impl Disk for SimDisk {
    type File = SimFile;

    fn create(&self, path: &Path, len: u64) -> io::Result<SimFile> {
        let inode = self.path_call(CallKind::Create, path, |state, call| {
            let inode = state.tree.create(call, path)?;
            state.tree.file_mut(inode)?.resize(call, len);
            Ok(inode)
        })?;
        Ok(self.file(inode, path))
    }

    fn open(&self, path: &Path) -> io::Result<SimFile> {
        let inode = self.path_call(CallKind::Open, path, |state, _| {
            let inode = state.tree.find(path)?;
            state.tree.file(inode).map(|_| inode)
        })?;
        Ok(self.file(inode, path))
    }

    fn map(&self, path: &Path) -> io::Result<FileBytes> {
        self.path_call(CallKind::Map, path, |state, _| {
            let file = state.tree.file(state.tree.find(path)?)?;
            let len = usize::try_from(file.cached.len()).unwrap_or(0);
            // Aligned as a mapping is.
            let mut bytes = rkyv::util::AlignedVec::<4096>::with_capacity(len);
            bytes.resize(len, 0);
            file.cached.read(&mut bytes, 0);
            Ok(Arc::new(bytes) as FileBytes)
        })
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.path_call(CallKind::CreateDir, path, |state, call| {
            state.tree.create_dir(call, path)
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.path_call(CallKind::List, dir, |state, _| state.tree.names(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.path_call(CallKind::Rename, to, |state, call| {
            state.tree.rename(call, from, to)
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.path_call(CallKind::Remove, path, |state, call| {
            state.tree.remove(call, path)
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.path_call(CallKind::RemoveDir, path, |state, call| {
            state.tree.remove_dir(call, path)
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.call(CallKind::SyncDir, &name_of(dir), |state, _, fault| {
            let inode = state.tree.find(dir)?;
            refuse(fault)?;
            state.tree.dir_mut(inode)?.sync();
            Ok(())
        })
    }
}

impl SimDisk {
    fn file(&self, inode: Inode, path: &Path) -> SimFile {
        SimFile {
            disk: self.clone(),
            inode,
            name: name_of(path),
        }
    }
}

impl SimFile {
    fn call<T>(
        &self,
        kind: CallKind,
        action: impl FnOnce(&mut State, u64, Option<Fault>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.disk.call(kind, &self.name, action)
    }
}

impl State {
    /// The bytes of `range` that there is space for, from its start.
    fn room(&self, inode: Inode, range: ByteRange) -> io::Result<usize> {
        let cached = &self.tree.file(inode)?.cached;
        if !self.is_full || cached.holes(range) == 0 {
            return Ok(range.len_usize());
        }
        let pieces = range.chunks(4096);
        let fits = pieces.take_while(|&piece| cached.holes(piece) == 0);
        match fits.map(ByteRange::len_usize).sum() {
            0 => Err(Errno::NOSPC.into()),
            count => Ok(count),
        }
    }
}

impl DiskFile for SimFile {
    fn read_some(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.call(CallKind::Read, |state, _, fault| {
            interrupt(fault)?;
            let len = half(buf.len(), fault);
            let part = buf.get_mut(..len).unwrap_or_default();
            Ok(state.tree.file(self.inode)?.cached.read(part, offset))
        })
    }

    fn write_some(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.call(CallKind::Write, |state, call, fault| {
            if fault != Some(Fault::Io) {
                interrupt(fault)?;
            }
            let len = half(buf.len(), fault);
            let range = ByteRange::between(offset, offset + len as u64);
            let room = state.room(self.inode, range)?;
            let part = buf.get(..room).unwrap_or_default();
            state.tree.file_mut(self.inode)?.write(call, part, offset);
            interrupt(fault).map(|()| room)
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.call(CallKind::Sync, |state, call, fault| {
            let file: &mut FileNode = state.tree.file_mut(self.inode)?;
            let refused = refuse(fault);
            match refused {
                Ok(()) => file.sync(),
                Err(_) => file.sync_some(|sector| survives(call, sector)),
            }
            refused
        })
    }

    fn punch(&self, range: ByteRange) -> io::Result<()> {
        self.call(CallKind::Punch, |state, call, fault| {
            refuse(fault)?;
            state.tree.file_mut(self.inode)?.punch(call, range);
            Ok(())
        })
    }

    fn allocate(&self, range: ByteRange) -> io::Result<()> {
        self.call(CallKind::Allocate, |state, _, fault| {
            refuse(fault)?;
            if state.room(self.inode, range)? < range.len_usize() {
                return Err(Errno::NOSPC.into());
            }
            state.tree.file_mut(self.inode)?.cached.allocate(range);
            Ok(())
        })
    }

    fn forget_cached(&self) -> io::Result<()> {
        self.call(CallKind::Forget, |state, _, fault| {
            refuse(fault)?;
            state.tree.file_mut(self.inode)?.forget();
            Ok(())
        })
    }

    fn size(&self) -> io::Result<u64> {
        self.call(CallKind::Size, |state, _, fault| {
            refuse(fault)?;
            Ok(state.tree.file(self.inode)?.cached.len())
        })
    }
}

#[cfg(test)]
mod tests;
