//! Files of ext4 (and ext2, ext3), by the crate ext4-view.

use std::error::Error;

use ext4_view::{Ext4, Ext4Error, Ext4Read, PathBuf};

use super::links::{check_length, resolve};
use super::partitions::{Slice, u32_at};
use super::{InsideError, Room, room_for, unreadable};
use crate::limits::EXT4_GROUPS_MAX;

/// What the crate reads of.
struct Readable {
    slice: Slice,
    /// Its inodes are so short that half of a checksum has no place in them. The kernel takes such
    /// ones, which mke2fs made on small disks for long, and the crate does not: it is told that
    /// there are no checksums.
    is_short: bool,
}

impl Ext4Read for Readable {
    fn read(
        &mut self,
        start: u64,
        into: &mut [u8],
    ) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        self.slice.fill(into, start)?;
        let features = into.get_mut(RO_FEATURES..RO_FEATURES + 4);
        if let Some([_, second, ..]) = features.filter(|_| self.is_short && start == SUPERBLOCK) {
            *second &= !METADATA_CSUM;
        }
        Ok(())
    }
}

/// Where the superblock begins.
const SUPERBLOCK: u64 = 1024;

/// Where s_feature_ro_compat stands in it, and the bit of its second byte for `metadata_csum`.
const RO_FEATURES: usize = 0x64;
const METADATA_CSUM: u8 = 0x4;

/// The bytes of inodes without anything behind the fields that ext2 had.
const SHORT_INODE: [u8; 2] = 128_u16.to_le_bytes();

/// s_inode_size.
fn is_short(slice: &Slice) -> Result<bool, InsideError> {
    let mut size = [0; 2];
    let read = slice.fill(&mut size, SUPERBLOCK + 0x58);
    read.map_err(|error| unreadable(&error))?;
    Ok(size == SHORT_INODE)
}

pub(super) fn read_file(slice: Slice, path: &str, room: Room<'_>) -> Result<Vec<u8>, InsideError> {
    check_superblock(&slice)?;
    check_features(&slice)?;
    let is_short = is_short(&slice)?;
    let disk = Ext4::load(Box::new(Readable { slice, is_short })).map_err(told)?;
    let path = resolve(path, |path| {
        let path = absolute(path)?;
        let found = disk.symlink_metadata(&path).map_err(told)?;
        if !found.is_symlink() {
            return Ok(None);
        }
        check_length(found.len())?;
        let link = disk.read_link(&path).map_err(told)?;
        Ok(Some(link.as_ref().to_vec()))
    });
    let path = absolute(&path?)?;
    let mut file = disk.open(&path).map_err(told)?;
    let mut bytes = room_for(file.metadata().len(), room)?;
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_bytes(rest).map_err(told)? {
            0 => return Err(InsideError::Unreadable("the file is cut short".to_owned())),
            count => done += count,
        }
    }
    Ok(bytes)
}

fn absolute(path: &[u8]) -> Result<PathBuf, InsideError> {
    let path = [b"/", path].concat();
    PathBuf::try_from(path).map_err(|error| unreadable(&error))
}

/// The crate makes room for blocks as large, and for groups of them as many, as the superblock
/// says: gigabytes. The kernel refuses such a one, too.
fn check_superblock(slice: &Slice) -> Result<(), InsideError> {
    let mut superblock = [0; 1024];
    let read = slice.fill(&mut superblock, SUPERBLOCK);
    read.map_err(|error| unreadable(&error))?;
    let number = |at| u64::from(u32_at(&superblock, at));
    // s_log_block_size, EXT4_MAX_BLOCK_LOG_SIZE: a block has at most 64 KiB.
    let exponent = number(0x18);
    // s_blocks_count_hi and _lo, s_blocks_per_group.
    let blocks = (number(0x150) << 32) | number(0x4);
    let groups = blocks.checked_div(number(0x20));
    let fits = exponent <= 6
        && blocks <= slice.size() >> (10 + exponent)
        && groups.is_some_and(|groups| groups < EXT4_GROUPS_MAX);
    match fits {
        true => Ok(()),
        false => Err(InsideError::Unreadable(
            "the superblock of its ext4 has senseless numbers".to_owned(),
        )),
    }
}

/// Features that the crate refuses, by their bits of s_feature_incompat and their names in ext4(5).
const REFUSED: [(u64, &str); 8] = [
    (0x1, "compression"),
    (0x8, "journal_dev"),
    (0x10, "meta_bg"),
    (0x100, "mmp"),
    (0x400, "ea_inode"),
    (0x4000, "large_dir"),
    (0x8000, "inline_data"),
    (0x2_0000, "casefold"),
];

/// Says what keeps a file system from being read in the words of the tools that made it.
fn check_features(slice: &Slice) -> Result<(), InsideError> {
    let mut features = [0; 4];
    let read = slice.fill(&mut features, SUPERBLOCK + 0x60);
    read.map_err(|error| unreadable(&error))?;
    let features = u64::from(u32::from_le_bytes(features));
    let refused = REFUSED.iter().filter(|(bit, _)| features & bit != 0);
    let refused: Vec<_> = refused.map(|(_, name)| *name).collect();
    match refused.as_slice() {
        [] => Ok(()),
        names => Err(InsideError::Unreadable(format!(
            "its ext4 has {}, which can't be read here: make it without",
            names.join(" and ")
        ))),
    }
}

/// Of a file without extents, the crate takes a hole for a block of that number where all blocks of
/// a table are missing.
const OF_A_HOLE: &str = "from block 0 (originally 0) ";

fn told(error: Ext4Error) -> InsideError {
    match error {
        Ext4Error::NotFound | Ext4Error::NotADirectory => InsideError::NotFound,
        Ext4Error::Corrupt(corrupt) if corrupt.to_string().contains(OF_A_HOLE) => {
            let why = "it has no extents, as on ext2 and ext3, and a large hole, which can't be \
                       read here: copy it with cp --sparse=never";
            InsideError::Unreadable(why.to_owned())
        }
        other => unreadable(&other),
    }
}
