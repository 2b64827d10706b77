//! A new overlay, and the removal of one that has had its day.
//!
//! Invariant (rule R10): an overlay's directory gets its name only once all that is in it is
//! durable; it loses its name before anything in it goes. So a directory of that name is a whole
//! overlay. That holds for ephemeral ones too: after a power loss their header must still say that
//! they may be thrown away.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::OverlayMode;
use super::checkpoint::{self, Snapshot};
use super::header::Header;
use super::journal::{self, ChainEnd, JOURNAL_BYTES};
use super::map::BlockMap;
use crate::disk::{Disk, DiskFile};
use crate::units::{BLOCK_SIZE, BlockIndex};

pub(super) const HEADER: &str = "header";
pub(super) const DATA: &str = "data";
pub(super) const JOURNALS: [&str; 2] = ["journal.a", "journal.b"];

/// What the first journal generation continues.
const CHAIN_START: ChainEnd = ChainEnd {
    seq: 0,
    epoch: 0,
    checksum: 0,
};
const FIRST_GENERATION: u64 = 1;

/// Makes the overlay `dir`, whose parent must exist.
///
/// # Errors
/// Whatever the disk answers; `dir` does not exist then.
pub(super) fn create<D: Disk>(disk: &D, dir: &Path, header: &Header) -> io::Result<()> {
    let new = sibling(dir, ".new");
    discard(disk, &new)?;
    disk.create_dir(&new)?;
    write_files(disk, &new, header)?;
    disk.sync_dir(&new)?;
    disk.rename(&new, dir)?;
    disk.sync_dir(parent(dir))
}

fn write_files<D: Disk>(disk: &D, dir: &Path, header: &Header) -> io::Result<()> {
    let blocks = block_count(header.base.size);
    let header_bytes = header.to_bytes();
    let file = disk.create(&dir.join(HEADER), header_bytes.len() as u64)?;
    file.write_at(&header_bytes, 0)?;
    file.sync()?;
    disk.create(&dir.join(DATA), BlockIndex(blocks).start())?
        .sync()?;
    let start = journal::start_frame(&header.uuid, FIRST_GENERATION, CHAIN_START);
    for (parity, name) in (0..).zip(JOURNALS) {
        let file = disk.create(&dir.join(name), JOURNAL_BYTES as u64)?;
        if header.mode == OverlayMode::Persistent {
            // Written, not just reserved: a synced append must not wait for the file system's own
            // records.
            file.write_at(&vec![0; JOURNAL_BYTES], 0)?;
        }
        if parity == FIRST_GENERATION % 2 {
            file.write_at(&start.bytes, 0)?;
        }
        file.sync()?;
    }
    let map = BlockMap::new(blocks);
    let empty = Snapshot {
        generation: FIRST_GENERATION,
        chain: CHAIN_START,
        map,
    };
    checkpoint::write(disk, dir, &header.uuid, &empty, true)
}

/// Removes the overlay `dir` and what an interrupted creation or removal left of it.
///
/// # Errors
/// Whatever the disk answers.
pub fn remove<D: Disk>(disk: &D, dir: &Path) -> io::Result<()> {
    let old = sibling(dir, ".old");
    discard(disk, &old)?;
    match disk.rename(dir, &old) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            disk.sync_dir(parent(dir))?;
            discard(disk, &old)
        }
    }
}

fn discard<D: Disk>(disk: &D, dir: &Path) -> io::Result<()> {
    match disk.remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// How many blocks a disk of `size` bytes has.
pub(super) const fn block_count(size: u64) -> u64 {
    size.div_ceil(BLOCK_SIZE)
}

/// The directory that holds the overlay's name.
pub(super) fn parent(dir: &Path) -> &Path {
    dir.parent().unwrap_or(dir)
}

/// A hidden name beside `dir`: names of clients never begin with a dot.
fn sibling(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(dir.file_name().unwrap_or_default());
    name.push(suffix);
    dir.with_file_name(name)
}
