//! Files of btrfs, by the crate rust-fs-btrfs.

use std::io;
use std::sync::Arc;

use fs_btrfs::error::Error;
use fs_btrfs::fs::Filesystem;
use fs_btrfs::subvol::PathTarget;
use fs_core::{BlockRead, Error as DeviceError};

use super::links::{check_length, resolve};
use super::partitions::Slice;
use super::{InsideError, Room, room_for, unreadable};

impl BlockRead for Slice {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        let short = |error: io::Error| DeviceError::Io(error);
        self.fill(into, offset).map_err(short)
    }

    fn size_bytes(&self) -> u64 {
        self.size()
    }
}

pub(super) fn read_file(
    slice: Slice,
    subvolume: Option<&str>,
    path: &str,
    room: Room<'_>,
) -> Result<Vec<u8>, InsideError> {
    let top = Filesystem::mount(Arc::new(slice)).map_err(told)?;
    let root = match subvolume {
        Some(path) => subvolume_at(&top, path)?,
        None => default_subvolume(top)?,
    };
    let target = find(&root, path)?;
    if !target.inode.is_regular_file() {
        return Err(InsideError::Unreadable("it is no file".to_owned()));
    }
    let mut bytes = room_for(target.inode.size, room)?;
    let file = target.fs(&root);
    match file
        .read_at(target.inode.ino, 0, &mut bytes)
        .map_err(told)?
    {
        count if count == bytes.len() => Ok(bytes),
        _ => Err(InsideError::Unreadable("the file is cut short".to_owned())),
    }
}

fn subvolume_at(top: &Filesystem, path: &str) -> Result<Filesystem, InsideError> {
    let path = path.trim_matches('/');
    let all = top.subvolumes().map_err(told)?;
    let meant = all.iter().find(|one| one.path == path);
    let meant = meant.ok_or_else(|| InsideError::Unreadable(format!("no subvolume {path}")))?;
    top.open_subvolume(meant.id).map_err(told)
}

/// `BTRFS_ROOT_TREE_DIR_OBJECTID` and `BTRFS_DIR_ITEM_KEY` of the kernel's btrfs_tree.h: where a
/// file system says which subvolume is mounted if nobody asks for another.
const ROOT_TREE_DIR: (u64, u8) = (6, 84);

/// `BTRFS_FS_TREE_OBJECTID`: the subvolume that always is there.
const FS_TREE: u64 = 5;

fn default_subvolume(top: Filesystem) -> Result<Filesystem, InsideError> {
    let items = top.root_tree_items().map_err(told)?;
    let entries = items
        .iter()
        .filter(|(object, kind, ..)| (*object, *kind) == ROOT_TREE_DIR)
        .filter_map(|(.., data)| fs_btrfs::dir::parse_dir_items(data).ok());
    let default = entries.flatten().find(|entry| entry.name == b"default");
    match default.map(|entry| entry.ino) {
        None | Some(FS_TREE) => Ok(top),
        Some(id) => top.open_subvolume(id).map_err(told),
    }
}

fn find(root: &Filesystem, path: &str) -> Result<PathTarget, InsideError> {
    let at = |path: &[u8]| root.resolve_path_bytes(path).map_err(told);
    let path = resolve(path, |path| {
        let found = at(path)?;
        if !found.inode.is_symlink() {
            return Ok(None);
        }
        check_length(found.inode.size)?;
        let link = found.fs(root).read_link(found.inode.ino);
        link.map(Some).map_err(told)
    });
    at(&path?)
}

fn told(error: Error) -> InsideError {
    match error {
        Error::NotFound | Error::NotADirectory => InsideError::NotFound,
        other => unreadable(&other),
    }
}
