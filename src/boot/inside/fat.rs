//! Files of FAT, such as those of an EFI system partition, by the crate fatfs.
//!
//! Names are found in any case, as the file system has it. There are no links.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};

use fatfs::{Dir, DirEntry, FileSystem, FsOptions};

use super::partitions::Slice;
use super::{InsideError, Room, room_for, unreadable};

/// What the crate reads from; it never writes where it only reads files.
struct Cursor {
    slice: Slice,
    at: u64,
}

impl Read for Cursor {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.slice.size().saturating_sub(self.at);
        let count = usize::try_from(left).map_or(into.len(), |left| left.min(into.len()));
        let into = into.get_mut(..count).unwrap_or_default();
        self.slice.fill(into, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for Cursor {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(to) => Some(to),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.slice.size().checked_add_signed(by),
        };
        self.at = to.ok_or(ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// Whether the first sector is that of a FAT: the names that all makers of one put there, and whose
/// place the specification says ("BS_FilSysType").
pub(super) fn is_one(slice: &Slice) -> bool {
    let mut sector = [0; 512];
    let holds = |sector: &[u8], at: usize, text: &[u8]| {
        sector.get(at..).is_some_and(|rest| rest.starts_with(text))
    };
    slice.fill(&mut sector, 0).is_ok()
        && holds(&sector, 510, &[0x55, 0xaa])
        && (holds(&sector, 54, b"FAT12   ")
            || holds(&sector, 54, b"FAT16   ")
            || holds(&sector, 82, b"FAT32   "))
}

pub(super) fn read_file(slice: Slice, path: &str, room: Room<'_>) -> Result<Vec<u8>, InsideError> {
    let options = FsOptions::new().update_accessed_date(false);
    let disk = FileSystem::new(Cursor { slice, at: 0 }, options).map_err(told)?;
    let mut parts = path.split('/');
    let mut found = parts.next().map(|part| entry(&disk.root_dir(), part));
    for part in parts {
        let folder = found.ok_or(InsideError::NotFound)??;
        found = folder.is_dir().then(|| entry(&folder.to_dir(), part));
    }
    let found = found.ok_or(InsideError::NotFound)??;
    if !found.is_file() {
        return Err(InsideError::Unreadable("it is no file".to_owned()));
    }
    let mut bytes = room_for(found.len(), room)?;
    found.to_file().read_exact(&mut bytes).map_err(told)?;
    Ok(bytes)
}

fn entry<'a>(folder: &Dir<'a, Cursor>, name: &str) -> Result<DirEntry<'a, Cursor>, InsideError> {
    let name = name.to_lowercase();
    for entry in folder.iter() {
        let entry = entry.map_err(told)?;
        let names = [entry.file_name(), entry.short_file_name()];
        if names.iter().any(|own| own.to_lowercase() == name) {
            return Ok(entry);
        }
    }
    Err(InsideError::NotFound)
}

fn told(error: io::Error) -> InsideError {
    unreadable(&error)
}
