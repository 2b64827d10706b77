//! Files of ext4 (and ext2, ext3), by the crate ext4-view.

use std::error::Error;

use ext4_view::{Ext4, Ext4Error, Ext4Read, PathBuf};

use super::links::{check_length, resolve};
use super::partitions::Slice;
use super::{InsideError, room_for, unreadable};

impl Ext4Read for Slice {
    fn read(
        &mut self,
        start: u64,
        into: &mut [u8],
    ) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        Ok(self.fill(into, start)?)
    }
}

pub(super) fn read_file(slice: Slice, path: &str) -> Result<Vec<u8>, InsideError> {
    check_block_size(&slice)?;
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
    let mut bytes = room_for(file.metadata().len())?;
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

/// The crate makes room for blocks as large as the superblock says, up to 2 GiB. The kernel has
/// none of more than 64 KiB: "EXT4_MAX_BLOCK_LOG_SIZE".
fn check_block_size(slice: &Slice) -> Result<(), InsideError> {
    let mut logarithm = [0; 4];
    // s_log_block_size: a block has 2 to the power of 10 more bytes.
    let read = slice.fill(&mut logarithm, 0x418);
    read.map_err(|error| unreadable(&error))?;
    match u32::from_le_bytes(logarithm) {
        0..=6 => Ok(()),
        _ => Err(InsideError::Unreadable(
            "its blocks are too large".to_owned(),
        )),
    }
}

fn told(error: Ext4Error) -> InsideError {
    match error {
        Ext4Error::NotFound | Ext4Error::NotADirectory => InsideError::NotFound,
        other => unreadable(&other),
    }
}
