//! A disk that lets itself be read so often, and so much.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Blocks;
use crate::limits::{BOOT_FILE_READ_MAX, BOOT_FILE_READS_MAX};

/// A disk of which one file is read.
pub(super) struct Bounded {
    disk: Arc<dyn Blocks>,
    reads: AtomicU64,
    bytes: AtomicU64,
}

impl Bounded {
    pub(super) fn new(disk: Arc<dyn Blocks>) -> Self {
        Self {
            disk,
            reads: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }
}

impl Blocks for Bounded {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let length = into.len() as u64;
        let reads = self.reads.fetch_add(1, Ordering::Relaxed);
        let bytes = self.bytes.fetch_add(length, Ordering::Relaxed);
        if reads >= BOOT_FILE_READS_MAX || bytes.saturating_add(length) > BOOT_FILE_READ_MAX {
            return Err(io::Error::other(
                "the file system has so much read for one file that it must be damaged",
            ));
        }
        self.disk.read_at(into, offset)
    }

    fn size(&self) -> u64 {
        self.disk.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Zeros;

    impl Blocks for Zeros {
        fn read_at(&self, into: &mut [u8], _: u64) -> io::Result<()> {
            into.fill(0);
            Ok(())
        }

        fn size(&self) -> u64 {
            1 << 40
        }
    }

    #[test]
    fn it_is_read_so_often_and_no_more() {
        let disk = Bounded::new(Arc::new(Zeros));
        disk.reads.store(BOOT_FILE_READS_MAX - 1, Ordering::Relaxed);
        assert!(disk.read_at(&mut [0; 4], 0).is_ok());
        assert!(disk.read_at(&mut [0; 4], 0).is_err());
    }

    #[test]
    fn it_is_read_so_much_and_no_more() {
        let disk = Bounded::new(Arc::new(Zeros));
        disk.bytes.store(BOOT_FILE_READ_MAX - 4, Ordering::Relaxed);
        assert!(disk.read_at(&mut [0; 4], 0).is_ok());
        assert!(disk.read_at(&mut [0; 1], 0).is_err());
    }
}
