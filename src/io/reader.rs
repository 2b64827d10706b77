//! Reads of a file that a process or another host answers for: threads beside the shard make them.
//!
//! To know whether a read would have to wait, the ring polls a file of FUSE, which asks its
//! process; where that does not answer, the shard stands still. A file of another host is read by
//! the kernel's own threads; of those a ring has four for each processor, so that reads which are
//! never answered would hold up the long reads of all other files.
//!
//! Invariants:
//! - The thread has memory and a descriptor of its own: who asked may go away.
//! - So many reads of one file are with threads, and no more: the threads are enough for several
//!   files that do not answer.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::fstatfs;
use tokio::sync::Semaphore;

use super::buffer::Buffer;
use super::ring;
use crate::limits::{APART_READ_MAX, APART_READS_MAX};

/// File systems that a process or another host answers for: FUSE, NFS, CIFS by its three names,
/// Ceph, AFS and 9P.
const APART: [u32; 8] = [
    0x6573_5546,
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x00c3_6400,
    0x5346_414f,
    0x0102_1997,
];

/// Who makes reads that may have to wait.
#[derive(Clone, Debug)]
pub enum Readers {
    /// The ring.
    Ring,
    /// Threads of ours, as many as there are places.
    Threads(Arc<Semaphore>),
}

impl Readers {
    /// Those of `file`. Where its file system does not say what it is, the ring can do it.
    #[must_use]
    pub fn of(file: &impl AsFd) -> Self {
        match fstatfs(file) {
            Ok(answer) if is_apart(answer.f_type) => Self::threads(),
            _ => Self::Ring,
        }
    }

    fn threads() -> Self {
        Self::Threads(Arc::new(Semaphore::new(APART_READS_MAX)))
    }

    /// Whether a process or another host answers for the file: to look at it may take for ever.
    #[must_use]
    pub const fn are_apart(&self) -> bool {
        matches!(self, Self::Threads(_))
    }
}

/// The kernel's numbers have 32 bits, whatever type holds them.
fn is_apart(magic: impl TryInto<i64>) -> bool {
    let magic = magic.try_into().unwrap_or_default() & i64::from(u32::MAX);
    APART.iter().any(|known| i64::from(*known) == magic)
}

/// Reads into `range` of `buffer`, which is inside, from byte `offset` of `file` on, as far as one
/// call of the kernel does.
pub(super) async fn read<F>(
    file: F,
    mut buffer: Buffer,
    range: Range<usize>,
    offset: u64,
    places: &Semaphore,
) -> (io::Result<usize>, (F, Buffer))
where
    F: AsFd + Unpin + 'static,
{
    let part = buffer.as_mut_slice().get_mut(range).unwrap_or_default();
    let result = match read_aside(&file, part.len(), offset, places).await {
        Ok(bytes) => {
            let filled = part.get_mut(..bytes.len()).unwrap_or_default();
            filled.copy_from_slice(&bytes);
            Ok(filled.len())
        }
        Err(error) => Err(error),
    };
    (result, (file, buffer))
}

async fn read_aside(
    file: &impl AsFd,
    len: usize,
    offset: u64,
    places: &Semaphore,
) -> io::Result<Vec<u8>> {
    let file = file.as_fd().try_clone_to_owned()?;
    // Nobody closes it.
    let _place = places.acquire().await.map_err(io::Error::other)?;
    ring::offload(move || read_some(&file, len.min(APART_READ_MAX), offset)).await
}

fn read_some(file: &OwnedFd, len: usize, offset: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let count = rustix::io::pread(file, &mut bytes, offset)?;
    bytes.truncate(count);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::file::read_at;
    use super::super::{Pool, run};
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_file_of_this_host_is_read_by_the_ring() {
        assert!(!Readers::of(&tempfile::tempfile().unwrap()).are_apart());
    }

    #[test]
    fn file_systems_of_others_are_known_by_their_numbers() {
        assert!(is_apart(libc::FUSE_SUPER_MAGIC) && is_apart(libc::NFS_SUPER_MAGIC));
        assert!(!is_apart(libc::EXT4_SUPER_MAGIC));
        // As a kernel of 32 bits has it, where the type has a sign.
        assert!(is_apart(0xff53_4d42_u32.cast_signed()));
    }

    #[test]
    fn a_read_longer_than_one_thread_takes_comes_whole() {
        let bytes: Vec<u8> = (0..=250).cycle().take(APART_READ_MAX * 2 + 5).collect();
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.write_all_at(&bytes, 0).unwrap();
        let buffer = Pool::new().take(bytes.len() + 2).unwrap();
        let range = 1..bytes.len();
        let readers = Readers::threads();
        let (result, buffer) = run(read_at(file, buffer, range, 1, &readers)).unwrap();
        result.unwrap();
        assert!(buffer.as_slice()[1..bytes.len()] == bytes[1..]);
    }

    #[test]
    fn the_end_of_the_file_is_told_with_how_far_it_came() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.write_all_at(&[1; 10], 0).unwrap();
        let buffer = Pool::new().take(20).unwrap();
        let read = run(read_at(file, buffer, 0..20, 0, &Readers::threads()));
        let short = read.unwrap().0.unwrap_err();
        assert_eq!(
            (short.done, short.error.kind()),
            (10, io::ErrorKind::UnexpectedEof)
        );
    }

    #[test]
    fn what_the_kernel_says_comes_back() {
        let folder = Arc::new(File::open("/").unwrap());
        let buffer = Pool::new().take(20).unwrap();
        let read = run(read_at(folder, buffer, 0..20, 0, &Readers::threads()));
        let short = read.unwrap().0.unwrap_err();
        assert_eq!(short.error.raw_os_error(), Some(libc::EISDIR));
    }
}
