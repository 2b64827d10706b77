//! Directories and files of the simulated disk, by number.
//!
//! Invariant: a name is durable only after a sync of its directory; until then every change of
//! names since the last one may have happened or not, each for itself.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::content::FileNode;

/// The number of a file or directory.
pub(super) type Inode = u64;

const ROOT: Inode = 0;

/// One change of the names in a directory.
#[derive(Clone, Debug)]
pub(super) enum DirChange {
    Link(String, Inode),
    Unlink(String),
    Move {
        from: String,
        to: String,
        inode: Inode,
    },
}

impl DirChange {
    pub(super) fn apply(&self, names: &mut BTreeMap<String, Inode>) {
        match self {
            Self::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
            Self::Move { from, to, inode } => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
        }
    }
}

/// A directory: its durable names, and the changes since.
#[derive(Clone, Debug, Default)]
pub(super) struct DirNode {
    pub(super) durable: BTreeMap<String, Inode>,
    pub(super) cached: BTreeMap<String, Inode>,
    /// With the number of the call that made each.
    pub(super) changes: Vec<(u64, DirChange)>,
}

impl DirNode {
    fn change(&mut self, call: u64, change: DirChange) {
        change.apply(&mut self.cached);
        self.changes.push((call, change));
    }

    /// A sync that succeeds.
    pub(super) fn sync(&mut self) {
        for (_, change) in std::mem::take(&mut self.changes) {
            change.apply(&mut self.durable);
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    File(FileNode),
    Dir(DirNode),
}

/// All files and directories at one moment. A clone shares what neither changes.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) nodes: BTreeMap<Inode, Arc<Node>>,
    next: Inode,
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = Arc::new(Node::Dir(DirNode::default()));
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
        }
    }

    pub(super) fn file(&self, inode: Inode) -> io::Result<&FileNode> {
        match self.nodes.get(&inode).map(|node| &**node) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn file_mut(&mut self, inode: Inode) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&inode).map(Arc::make_mut) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn dir(&self, inode: Inode) -> io::Result<&DirNode> {
        match self.nodes.get(&inode).map(|node| &**node) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn dir_mut(&mut self, inode: Inode) -> io::Result<&mut DirNode> {
        match self.nodes.get_mut(&inode).map(Arc::make_mut) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// What has this path.
    pub(super) fn find(&self, path: &Path) -> io::Result<Inode> {
        let mut at = ROOT;
        for name in names(path) {
            let found = self.dir(at)?.cached.get(&*name.to_string_lossy());
            at = *found.ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    pub(super) fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        let dir = self.dir(self.find(path)?)?;
        Ok(dir.cached.keys().cloned().collect())
    }

    /// The directory that holds `path`, and its name there.
    fn split(&self, path: &Path) -> io::Result<(Inode, String)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let above = self.find(path.parent().unwrap_or(path))?;
        Ok((above, name.to_string_lossy().into_owned()))
    }

    fn link(&mut self, call: u64, path: &Path, node: Node) -> io::Result<Inode> {
        let (above, name) = self.split(path)?;
        let inode = self.next;
        self.next += 1;
        self.nodes.insert(inode, Arc::new(node));
        let change = DirChange::Link(name, inode);
        self.dir_mut(above)?.change(call, change);
        Ok(inode)
    }

    /// The file at `path`, made where there is none, cut to nothing where there is one.
    pub(super) fn create(&mut self, call: u64, path: &Path) -> io::Result<Inode> {
        match self.find(path) {
            Ok(inode) => {
                self.file_mut(inode)?.resize(call, 0);
                Ok(inode)
            }
            Err(_) => self.link(call, path, Node::File(FileNode::default())),
        }
    }

    pub(super) fn create_dir(&mut self, call: u64, path: &Path) -> io::Result<()> {
        let above: Vec<_> = path.ancestors().collect();
        for dir in above.into_iter().rev().filter(|p| p.file_name().is_some()) {
            if self.find(dir).is_err() {
                self.link(call, dir, Node::Dir(DirNode::default()))?;
            }
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, call: u64, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.find(from)?;
        let (dir, from) = self.split(from)?;
        let (other, to) = self.split(to)?;
        if dir != other {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        let change = DirChange::Move { from, to, inode };
        self.dir_mut(dir)?.change(call, change);
        Ok(())
    }

    pub(super) fn remove(&mut self, call: u64, path: &Path) -> io::Result<()> {
        self.file(self.find(path)?)?;
        let (dir, name) = self.split(path)?;
        self.dir_mut(dir)?.change(call, DirChange::Unlink(name));
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, call: u64, path: &Path) -> io::Result<()> {
        for name in self.names(path)? {
            let below = path.join(name);
            if self.dir(self.find(&below)?).is_ok() {
                self.remove_dir(call, &below)?;
            } else {
                self.remove(call, &below)?;
            }
        }
        let (dir, name) = self.split(path)?;
        self.dir_mut(dir)?.change(call, DirChange::Unlink(name));
        Ok(())
    }
}

fn names(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|part| match part {
        std::path::Component::Normal(name) => Some(name),
        _ => None,
    })
}
