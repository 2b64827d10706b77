//! What sparse files take: where they hold data, how much space, when they were last written.
//!
//! Nothing here changes a byte.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::RealFile;
use crate::units::ByteRange;

/// Bytes of a block as `stat` counts them, whatever the file system.
const STAT_BLOCK: u64 = 512;

/// The first bytes of `range` that `file` may hold data in; `None` where all of it is a hole.
///
/// A file system or device that knows no holes has data everywhere.
///
/// # Errors
/// Whatever `lseek` answers otherwise.
pub fn next_data(file: &RealFile, range: ByteRange) -> io::Result<Option<ByteRange>> {
    if range.is_empty() {
        return Ok(None);
    }
    // Nobody reads or writes at the file position, so moving it is free.
    let start = match seek(file, SeekFrom::Data(range.start())) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(range)),
        Err(errno) => return Err(errno.into()),
    };
    let end = match seek(file, SeekFrom::Hole(start)) {
        Ok(end) => end,
        // The file was cut meanwhile.
        Err(Errno::NXIO) => start,
        Err(errno) => return Err(errno.into()),
    };
    let data = ByteRange::between(start, end).intersect(range);
    Ok((!data.is_empty()).then_some(data))
}

/// What a directory's files take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that are allocated to them, holes left out.
    pub space: u64,
    /// When one of them was written last, in seconds since 1970.
    pub written: u64,
}

/// What the files of `dir` take, and when those that `is_record` picks were written. A file that
/// goes meanwhile counts as nothing.
///
/// # Errors
/// Whatever the system answers.
pub fn usage(dir: &Path, is_record: impl Fn(&str) -> bool) -> io::Result<Usage> {
    let mut usage = Usage::default();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        usage.space += metadata.blocks() * STAT_BLOCK;
        if is_record(&entry.file_name().to_string_lossy()) {
            let written = u64::try_from(metadata.mtime()).unwrap_or(0);
            usage.written = usage.written.max(written);
        }
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, DiskFile, RealDisk};

    fn sparse() -> (tempfile::TempDir, RealFile) {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&dir.path().join("f"), 1 << 20).unwrap();
        file.write_at(&[7; 4096], 64 << 10).unwrap();
        (dir, file)
    }

    #[test]
    fn data_is_found_behind_a_hole() {
        let (_dir, file) = sparse();
        let found = next_data(&file, ByteRange::between(0, 1 << 20)).unwrap();
        let written = ByteRange::between(64 << 10, (64 << 10) + 4096);
        assert!(found.unwrap().intersect(written) == written);
    }

    #[test]
    fn behind_the_last_data_is_nothing() {
        let (_dir, file) = sparse();
        let rest = ByteRange::between(512 << 10, 1 << 20);
        assert_eq!(next_data(&file, rest).unwrap(), None);
        let past = ByteRange::between(1 << 20, 2 << 20);
        assert_eq!(next_data(&file, past).unwrap(), None);
    }

    #[test]
    fn what_is_found_stays_within_what_was_asked() {
        let (_dir, file) = sparse();
        let part = ByteRange::between((64 << 10) + 100, (64 << 10) + 200);
        assert_eq!(next_data(&file, part).unwrap(), Some(part));
        let before = ByteRange::between(0, 4096);
        assert_eq!(next_data(&file, before).unwrap(), None);
    }

    #[test]
    fn usage_counts_space_and_not_size() {
        let (dir, file) = sparse();
        file.sync().unwrap();
        let usage = usage(dir.path(), |name| name == "f").unwrap();
        assert!((4096..1 << 20).contains(&usage.space), "{usage:?}");
        assert_ne!(usage.written, 0);
    }

    #[test]
    fn only_records_tell_the_time_of_the_last_write() {
        let (dir, _file) = sparse();
        assert_eq!(usage(dir.path(), |_| false).unwrap().written, 0);
    }
}
