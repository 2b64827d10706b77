//! Files of btrfs, by the crate rust-fs-btrfs.

use std::ops::Range;
use std::sync::Arc;

use fs_btrfs::error::Error;
use fs_btrfs::fs::Filesystem;
use fs_btrfs::subvol::PathTarget;
use fs_btrfs::superblock::{CSUM_SIZE, ChecksumType};
use fs_core::{BlockRead, Error as DeviceError};

use super::links::{check_length, resolve};
use super::partitions::Slice;
use super::{InsideError, Room, room_for, unreadable};

/// The file system as its last commit left it, which is what GRUB reads too. A file that was synced
/// since then is in a log, which the machine's own kernel replays when it mounts: without it a
/// machine that lost its power would get no kernel, and could never mount.
struct Committed(Slice);

impl BlockRead for Committed {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        self.0.fill(into, offset).map_err(DeviceError::Io)?;
        if SUPERBLOCKS.contains(&offset) {
            forget_log(into);
        }
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.0.size()
    }
}

/// "btrfs On-disk Format", superblock: where its copies are, and its fields in bytes.
const SUPERBLOCKS: [u64; 3] = [0x1_0000, 0x400_0000, 0x40_0000_0000];
const SUPERBLOCK: usize = 4096;
const MAGIC: Range<usize> = 0x40..0x48;
const LOG_ROOT: Range<usize> = 0x60..0x68;
const CHECKSUM_KIND: usize = 0xc4;

/// Has the superblock name no log. One that is damaged stays so.
fn forget_log(bytes: &mut [u8]) {
    let Some(block) = bytes.first_chunk_mut::<SUPERBLOCK>() else {
        return;
    };
    let kind = u16::from_le_bytes([block[CHECKSUM_KIND], block[CHECKSUM_KIND + 1]]);
    let Ok(kind) = ChecksumType::from_raw(kind) else {
        return;
    };
    let (checksum, rest) = block.split_at(CSUM_SIZE);
    if block[MAGIC] != *b"_BHRfS_M" || !kind.verify(rest, checksum) {
        return;
    }
    block[LOG_ROOT].fill(0);
    let checksum = kind.digest(&block[CSUM_SIZE..]);
    block[..CSUM_SIZE].copy_from_slice(&checksum);
}

pub(super) fn read_file(
    slice: Slice,
    subvolume: Option<&str>,
    path: &str,
    room: Room<'_>,
) -> Result<Vec<u8>, InsideError> {
    let top = Filesystem::mount(Arc::new(Committed(slice))).map_err(told)?;
    let root = match subvolume {
        Some(path) => subvolume_at(top, path)?,
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

fn subvolume_at(top: Filesystem, path: &str) -> Result<Filesystem, InsideError> {
    let path = path.trim_matches('/');
    // As in `subvol=/`, which is the way past a default one.
    if path.is_empty() {
        return Ok(top);
    }
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
