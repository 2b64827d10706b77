//! Files of ext4 (and ext2, ext3), by the crate ext4-view.

use std::error::Error;

use ext4_view::{Ext4, Ext4Error, Ext4Read};

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
    let disk = Ext4::load(Box::new(slice)).map_err(told)?;
    let mut file = disk.open(format!("/{path}").as_str()).map_err(told)?;
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

fn told(error: Ext4Error) -> InsideError {
    match error {
        Ext4Error::NotFound | Ext4Error::NotADirectory => InsideError::NotFound,
        other => unreadable(&other),
    }
}
