//! Aligned buffers in power-of-two sizes, used again and again by a shard.
//!
//! Invariants:
//! - A buffer is back in its pool only after its last owner, be that an operation whose future was
//!   dropped, let go of it: the kernel never works on a buffer that was given out anew.
//! - The pool keeps at most [`limits::POOL_IDLE_MAX`] bytes that nobody uses.
//! - A buffer that comes from the pool holds what its last user left, perhaps another client's
//!   bytes. Whoever takes one fills a range before sending it.

use std::cell::RefCell;
use std::rc::Rc;

use thiserror::Error;

use super::memory::Memory;
use crate::limits;

const CLASSES: usize =
    (limits::POOL_BUFFER_MAX.ilog2() - limits::POOL_BUFFER_MIN.ilog2()) as usize + 1;

/// A request for a buffer beyond [`limits::POOL_BUFFER_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "a buffer of {asked} bytes exceeds the largest, {} bytes",
    limits::POOL_BUFFER_MAX
)]
pub struct BufferTooLarge {
    /// Bytes asked for.
    pub asked: usize,
}

/// The buffers of a shard. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    idle: Rc<RefCell<Idle>>,
}

impl Pool {
    /// A pool that holds nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A buffer of `len` bytes; it returns to this pool when dropped.
    ///
    /// Its content is unspecified, though never uninitialised: fill it before use.
    ///
    /// # Errors
    /// [`BufferTooLarge`] beyond [`limits::POOL_BUFFER_MAX`].
    pub fn take(&self, len: usize) -> Result<Buffer, BufferTooLarge> {
        if len > limits::POOL_BUFFER_MAX {
            return Err(BufferTooLarge { asked: len });
        }
        let size = len.max(limits::POOL_BUFFER_MIN).next_power_of_two();
        let reused = self.idle.borrow_mut().take(size);
        Ok(Buffer {
            memory: Some(reused.unwrap_or_else(|| Memory::zeroed(size))),
            len,
            pool: self.clone(),
        })
    }

    /// Bytes kept for reuse now.
    #[must_use]
    pub fn idle_bytes(&self) -> usize {
        self.idle.borrow().bytes
    }
}

/// Page-aligned memory of one owner.
#[derive(Debug)]
pub struct Buffer {
    /// Taken by drop only.
    memory: Option<Memory>,
    len: usize,
    pool: Pool,
}

impl Buffer {
    /// Bytes asked for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no byte was asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        let memory = self.memory.as_ref().map_or(&[][..], Memory::as_slice);
        memory.get(..self.len).unwrap_or_default()
    }

    /// The bytes, for changing.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let memory = self.memory.as_mut().map(Memory::as_mut_slice);
        memory
            .and_then(|memory| memory.get_mut(..self.len))
            .unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // What is not kept is unmapped after the borrow of the pool has ended.
        let refused = self
            .memory
            .take()
            .and_then(|memory| self.pool.idle.borrow_mut().keep(memory));
        drop(refused);
    }
}

#[derive(Debug, Default)]
struct Idle {
    /// By size class; the last returned is the first taken, since it is likely in the cache.
    classes: [Vec<Memory>; CLASSES],
    bytes: usize,
}

impl Idle {
    fn take(&mut self, size: usize) -> Option<Memory> {
        let memory = self.classes.get_mut(class(size))?.pop()?;
        self.bytes -= memory.len();
        Some(memory)
    }

    /// Gives `memory` back where there is no room for it.
    fn keep(&mut self, memory: Memory) -> Option<Memory> {
        let size = memory.len();
        if size > limits::POOL_KEPT_BUFFER_MAX || self.bytes + size > limits::POOL_IDLE_MAX {
            return Some(memory);
        }
        let Some(class) = self.classes.get_mut(class(size)) else {
            return Some(memory);
        };
        class.push(memory);
        self.bytes += size;
        None
    }
}

/// The place of a power of two among the classes.
fn class(size: usize) -> usize {
    (size / limits::POOL_BUFFER_MIN).ilog2() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(buffer: &Buffer) -> usize {
        buffer.as_slice().as_ptr() as usize
    }

    #[test]
    fn a_buffer_has_the_length_asked_for_and_starts_on_a_page() {
        let pool = Pool::new();
        for len in [0, 1, 4096, 4097, 100_000, limits::POOL_BUFFER_MAX] {
            let mut buffer = pool.take(len).unwrap();
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_slice().len(), len);
            assert_eq!(buffer.as_mut_slice().len(), len);
            assert!(len == 0 || address(&buffer).is_multiple_of(4096));
        }
    }

    #[test]
    fn a_new_buffer_is_zero() {
        let buffer = Pool::new().take(300_000).unwrap();
        assert!(buffer.as_slice().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_dropped_buffer_is_taken_again_by_its_size_class() {
        let pool = Pool::new();
        let first = pool.take(5000).unwrap();
        let place = address(&first);
        drop(first);
        assert_eq!(pool.idle_bytes(), 8192);
        let other_class = pool.take(4096).unwrap();
        assert_ne!(address(&other_class), place);
        assert_eq!(address(&pool.take(8192).unwrap()), place);
    }

    #[test]
    fn a_buffer_in_use_is_not_given_out_again() {
        let pool = Pool::new();
        let (one, two) = (pool.take(1).unwrap(), pool.take(1).unwrap());
        assert_ne!(address(&one), address(&two));
    }

    #[test]
    fn idle_memory_stays_below_its_limit() {
        let pool = Pool::new();
        let held: Vec<_> = (0..10).map(|_| pool.take(1 << 20).unwrap()).collect();
        drop(held);
        assert_eq!(pool.idle_bytes(), limits::POOL_IDLE_MAX);
    }

    #[test]
    fn a_large_buffer_is_not_kept() {
        let pool = Pool::new();
        drop(pool.take(limits::POOL_KEPT_BUFFER_MAX + 1));
        assert_eq!(pool.idle_bytes(), 0);
    }

    #[test]
    fn a_buffer_beyond_the_limit_is_refused() {
        let asked = limits::POOL_BUFFER_MAX + 1;
        assert_eq!(
            Pool::new().take(asked).unwrap_err(),
            BufferTooLarge { asked }
        );
    }

    #[test]
    fn a_buffer_may_outlive_its_pool() {
        let mut buffer = Pool::new().take(10).unwrap();
        buffer.as_mut_slice().fill(3);
        assert_eq!(buffer.as_slice(), [3; 10]);
    }
}
