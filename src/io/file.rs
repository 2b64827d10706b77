//! Reads and writes of files that may have to wait for a disk.
//!
//! Invariants: the operation shares the file, so that its descriptor stays open, and owns the
//! buffer until its completion, also where the future is dropped.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::{opcode, squeue, types};
use rustix::fs::fstatfs;

use super::buffer::Buffer;
use super::reader::{self, Readers};
use super::{ring, writer};
use crate::limits::READ_IN_PLACE_MAX;

/// Who makes writes that may have to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The ring: the kernel tries at once, and has a thread of its own do what would have to wait.
    Ring,
    /// A thread of ours, for a file system that can't tell the ring what would have to wait: ext4
    /// answers EOPNOTSUPP to every buffered write with `IOCB_NOWAIT`, and FUSE has to ask a process
    /// (see [`Readers`]).
    Thread,
}

impl Way {
    /// That of the file system of `file`. Where it does not say what it is, the ring can do it.
    #[must_use]
    pub fn of(file: &impl AsFd) -> Self {
        // To find out by a write with RWF_NOWAIT would wait all the same where the file system is
        // frozen: the system call does, before it asks it.
        match fstatfs(file) {
            Ok(answer) if answer.f_type == libc::EXT4_SUPER_MAGIC => Self::Thread,
            Ok(answer) if answer.f_type == libc::FUSE_SUPER_MAGIC => Self::Thread,
            _ => Self::Ring,
        }
    }
}

/// Which way the bytes go.
#[derive(Clone, Copy, Debug)]
enum Direction<'a> {
    FromFile(&'a Readers),
    ToFile(Way),
}

impl Direction<'_> {
    /// What it means that the kernel moves no byte.
    const fn stuck(self) -> ErrorKind {
        match self {
            Self::FromFile(_) => ErrorKind::UnexpectedEof,
            Self::ToFile(_) => ErrorKind::WriteZero,
        }
    }
}

/// A read that failed on its way.
#[derive(Debug)]
pub struct CutShort {
    /// Bytes that were read before that.
    pub done: usize,
    /// What the kernel says of the next one.
    pub error: io::Error,
}

/// Fills `range` of `buffer` from byte `offset` of `file` on, which is an `Rc` or `Arc` of it.
///
/// It goes by `readers`, which are [`Readers::of`] a file of the same file system: the shard goes
/// on.
///
/// # Errors
/// `UnexpectedEof` where the file ends first, `InvalidInput` where `range` leaves the buffer or the
/// end of the read does not fit in 63 bits, else what the kernel says, with how far it came. The
/// part of the buffer is unspecified then.
pub async fn read_at<F>(
    file: F,
    buffer: Buffer,
    range: Range<usize>,
    offset: u64,
    readers: &Readers,
) -> (Result<(), CutShort>, Buffer)
where
    F: AsFd + Unpin + 'static,
{
    transfer(Direction::FromFile(readers), file, buffer, range, offset).await
}

/// Writes `range` of `buffer` from byte `offset` of `file` on, which is an `Rc` or `Arc` of it.
///
/// It goes by `way`, which is [`Way::of`] a file of the same file system: the shard goes on.
///
/// # Errors
/// `InvalidInput` where `range` leaves the buffer or the end of the write does not fit in 63 bits,
/// `WriteZero` where nothing more is taken, else what the kernel says. Any part may have been
/// written then.
pub async fn write_at<F>(
    file: F,
    buffer: Buffer,
    range: Range<usize>,
    offset: u64,
    way: Way,
) -> (io::Result<()>, Buffer)
where
    F: AsFd + Unpin + 'static,
{
    let (result, buffer) = transfer(Direction::ToFile(way), file, buffer, range, offset).await;
    (result.map_err(|short| short.error), buffer)
}

/// Moves all bytes of `range`, in as many operations as it takes.
async fn transfer<F>(
    direction: Direction<'_>,
    mut file: F,
    mut buffer: Buffer,
    range: Range<usize>,
    offset: u64,
) -> (Result<(), CutShort>, Buffer)
where
    F: AsFd + Unpin + 'static,
{
    let mut done = 0;
    let short = |done, error: io::Error| Err(CutShort { done, error });
    if !is_valid(&buffer, &range, offset) {
        return (short(done, ErrorKind::InvalidInput.into()), buffer);
    }
    while done < range.len() {
        let rest = range.start + done..range.end;
        let at = offset + done as u64;
        let (result, back) = transfer_some(direction, file, buffer, rest, at).await;
        (file, buffer) = back;
        match result {
            Err(error) if is_transient(&error) => {}
            Err(error) => return (short(done, error), buffer),
            Ok(0) => return (short(done, direction.stuck().into()), buffer),
            Ok(count) => done += count,
        }
    }
    (Ok(()), buffer)
}

/// One READ or WRITE; `range` lies inside the buffer.
async fn transfer_some<F>(
    direction: Direction<'_>,
    file: F,
    mut buffer: Buffer,
    range: Range<usize>,
    offset: u64,
) -> (io::Result<usize>, (F, Buffer))
where
    F: AsFd + Unpin + 'static,
{
    match direction {
        Direction::ToFile(Way::Thread) => return writer::write(file, buffer, range, offset).await,
        Direction::FromFile(Readers::Threads(places)) => {
            return reader::read(file, buffer, range, offset, places).await;
        }
        Direction::FromFile(Readers::Ring) | Direction::ToFile(Way::Ring) => {}
    }
    let part = buffer.as_mut_slice().get_mut(range).unwrap_or_default();
    let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
    let target = types::Fd(file.as_fd().as_raw_fd());
    let entry = match direction {
        Direction::FromFile(_) => opcode::Read::new(target, part.as_mut_ptr(), len)
            .offset(offset)
            .build()
            .flags(how_to_read(len)),
        Direction::ToFile(_) => opcode::Write::new(target, part.as_ptr(), len)
            .offset(offset)
            .build(),
    };
    // SAFETY: READ and WRITE complete once; they use a part of the buffer, which has a fixed
    // address and belongs to the operation until then, as does the file.
    unsafe { ring::submit(entry, (file, buffer)) }.await
}

/// A long read is given to a thread of the kernel at once: by itself the kernel first tries in
/// place, which for what is not in memory took the shard up to 300 ms for 32 MiB. A short one it
/// does better.
fn how_to_read(len: u32) -> squeue::Flags {
    match len > READ_IN_PLACE_MAX {
        true => squeue::Flags::ASYNC,
        false => squeue::Flags::empty(),
    }
}

fn is_valid(buffer: &Buffer, range: &Range<usize>, offset: u64) -> bool {
    // An offset of -1 would mean the position of the file to the kernel.
    let end = offset.checked_add(range.len() as u64);
    end.is_some_and(|end| i64::try_from(end).is_ok())
        && buffer.as_slice().get(range.clone()).is_some()
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::rc::Rc;
    use std::sync::Arc;

    use super::*;
    use crate::io::{Pool, run, yield_now};

    fn file(len: usize) -> (Arc<File>, Vec<u8>) {
        let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        (Arc::new(file), bytes)
    }

    fn read(
        file: &Arc<File>,
        len: usize,
        range: Range<usize>,
        offset: u64,
    ) -> (Result<(), CutShort>, Buffer) {
        let buffer = Pool::new().take(len).unwrap();
        run(read_at(file.clone(), buffer, range, offset, &Readers::Ring)).unwrap()
    }

    fn error_kind(file: &Arc<File>, range: Range<usize>, offset: u64) -> ErrorKind {
        let short = read(file, 100, range, offset).0.unwrap_err();
        short.error.kind()
    }

    #[test]
    fn it_fills_the_asked_part_only() {
        let (file, bytes) = file(3_000_000);
        let (result, buffer) = read(&file, 2_500_000, 7..2_400_000, 12_345);
        result.unwrap();
        assert_eq!(buffer.as_slice()[..7], [0; 7]);
        assert!(buffer.as_slice()[7..2_400_000] == bytes[12_345..12_345 + 2_399_993]);
        assert!(buffer.as_slice()[2_400_000..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn it_reads_up_to_the_last_byte() {
        let (file, bytes) = file(1000);
        let (result, buffer) = read(&file, 100, 0..100, 900);
        result.unwrap();
        assert_eq!(buffer.as_slice(), &bytes[900..]);
    }

    #[test]
    fn reading_over_the_end_is_an_error() {
        let (file, _) = file(1000);
        assert_eq!(error_kind(&file, 0..100, 901), ErrorKind::UnexpectedEof);
        assert_eq!(error_kind(&file, 0..100, 5000), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn reading_nothing_is_no_error_even_at_the_end() {
        let (file, _) = file(10);
        read(&file, 100, 5..5, 10).0.unwrap();
    }

    #[test]
    fn a_range_outside_the_buffer_is_refused() {
        let (file, _) = file(1000);
        assert_eq!(error_kind(&file, 0..101, 0), ErrorKind::InvalidInput);
    }

    #[test]
    fn an_offset_that_means_the_file_position_is_refused() {
        let (file, _) = file(1000);
        assert_eq!(error_kind(&file, 0..1, u64::MAX), ErrorKind::InvalidInput);
        assert_eq!(error_kind(&file, 0..0, u64::MAX), ErrorKind::InvalidInput);
    }

    fn write(file: &Arc<File>, bytes: &[u8], range: Range<usize>, offset: u64) -> io::Result<()> {
        let mut buffer = Pool::new().take(bytes.len()).unwrap();
        buffer.as_mut_slice().copy_from_slice(bytes);
        run(write_at(file.clone(), buffer, range, offset, Way::Ring))
            .unwrap()
            .0
    }

    #[test]
    fn it_writes_the_given_part_only() {
        let (file, mut bytes) = file(3_000_000);
        write(&file, &[9; 2_500_000], 7..2_400_000, 12_345).unwrap();
        bytes[12_345..12_345 + 2_399_993].fill(9);
        let (result, buffer) = read(&file, bytes.len(), 0..bytes.len(), 0);
        result.unwrap();
        assert!(buffer.as_slice() == bytes);
    }

    #[test]
    fn a_write_that_the_disk_refuses_is_an_error() {
        let full = Arc::new(File::options().write(true).open("/dev/full").unwrap());
        let error = write(&full, &[1; 10], 0..10, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
    }

    #[test]
    fn a_part_outside_the_buffer_is_not_written() {
        let (file, _) = file(10);
        for (range, offset) in [(0..101, 0), (0..100, u64::MAX)] {
            let error = write(&file, &[1; 100], range, offset).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_dropped_read_gives_buffer_and_file_up_after_its_completion() {
        let pool = Pool::new();
        let buffer = pool.take(4096).unwrap();
        let (file, _) = file(4096);
        let shared = Rc::new(file);
        run(async {
            let read = read_at(shared.clone(), buffer, 0..4096, 0, &Readers::Ring);
            let mut pending = Box::pin(read);
            std::future::poll_fn(|context| {
                assert!(pending.as_mut().poll(context).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
            drop(pending);
            assert_eq!((pool.idle_bytes(), Rc::strong_count(&shared)), (0, 2));
            while pool.idle_bytes() == 0 {
                yield_now().await;
            }
            assert_eq!(Rc::strong_count(&shared), 1);
        })
        .unwrap();
    }
}
