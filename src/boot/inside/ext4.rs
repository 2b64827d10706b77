//! Files of ext4 (and ext2, ext3), by the crate ext4-view.

use std::error::Error;

use ext4_view::{Ext4, Ext4Error, Ext4Read, PathBuf};

use super::links::{check_length, resolve};
use super::partitions::{Slice, u32_at};
use super::{InsideError, Room, room_for, unreadable};
use crate::limits::EXT4_GROUPS_MAX;

impl Ext4Read for Slice {
    fn read(
        &mut self,
        start: u64,
        into: &mut [u8],
    ) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        Ok(self.fill(into, start)?)
    }
}

pub(super) fn read_file(slice: Slice, path: &str, room: Room<'_>) -> Result<Vec<u8>, InsideError> {
    check_superblock(&slice)?;
    let disk = Ext4::load(Box::new(slice)).map_err(told)?;
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
    let read = slice.fill(&mut superblock, 1024);
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

fn told(error: Ext4Error) -> InsideError {
    match error {
        Ext4Error::NotFound | Ext4Error::NotADirectory => InsideError::NotFound,
        other => unreadable(&other),
    }
}
