//! Page-aligned memory at a fixed address, for the kernel to fill and to read.
//!
//! Invariants:
//! - Every byte was zero before its first use: no uninitialised memory can reach the wire.
//! - The address never changes while the value lives, wherever the value itself is moved. There is
//!   no `Box` or reference inside, so moving it says nothing about aliasing to the compiler either.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use memmap2::MmapMut;

use crate::limits;

/// From this size on memory is mapped: zeroed page by page on first use rather than all at once on
/// the shard's time, and given back to the system when freed.
const MAPPED_MIN: usize = 128 * 1024;

/// Owned memory, aligned to [`limits::POOL_BUFFER_MIN`].
#[derive(Debug)]
pub(super) struct Memory {
    address: NonNull<u8>,
    layout: Layout,
    /// Set where the memory is a mapping, which unmaps itself.
    map: Option<MmapMut>,
}

impl Memory {
    /// At least `len` bytes: `len` rounded up to the next multiple of the alignment.
    ///
    /// Ends the program where there is no memory, as every other allocation does.
    pub(super) fn zeroed(len: usize) -> Self {
        let layout = layout(len);
        if layout.size() >= MAPPED_MIN {
            return Self::mapped(layout);
        }
        // SAFETY: `layout` makes the size at least one page.
        let address = unsafe { alloc_zeroed(layout) };
        let Some(address) = NonNull::new(address) else {
            handle_alloc_error(layout)
        };
        Self {
            address,
            layout,
            map: None,
        }
    }

    fn mapped(layout: Layout) -> Self {
        let Ok(mut map) = MmapMut::map_anon(layout.size()) else {
            handle_alloc_error(layout)
        };
        let Some(address) = NonNull::new(map.as_mut_ptr()) else {
            handle_alloc_error(layout)
        };
        Self {
            address,
            layout,
            map: Some(map),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.layout.size()
    }

    pub(super) fn address(&self) -> *mut u8 {
        self.address.as_ptr()
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        // SAFETY: the memory is owned, initialised and as long as the layout says; the kernel
        // writes to it only while an operation owns `self`, and then nobody holds this borrow.
        unsafe { std::slice::from_raw_parts(self.address(), self.len()) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`; `&mut self` makes it the only access.
        unsafe { std::slice::from_raw_parts_mut(self.address(), self.len()) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.map.is_none() {
            // SAFETY: without a mapping the address came from `alloc_zeroed` with this layout.
            unsafe { dealloc(self.address.as_ptr(), self.layout) }
        }
    }
}

fn layout(len: usize) -> Layout {
    const ALIGN: usize = limits::POOL_BUFFER_MIN;
    let size = len.max(1).checked_next_multiple_of(ALIGN);
    let layout = size.and_then(|size| Layout::from_size_align(size, ALIGN).ok());
    // Not reachable: every caller compares `len` with its limit, or has that many bytes in hand.
    layout.unwrap_or_else(|| handle_alloc_error(Layout::new::<u8>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(asked: usize, got: usize) {
        let memory = Memory::zeroed(asked);
        assert_eq!(memory.len(), got);
        assert!(memory.address().addr().is_multiple_of(4096));
        assert!(memory.as_slice().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn small_memory_is_zeroed_and_aligned() {
        check(0, 4096);
        check(4097, 8192);
    }

    #[test]
    fn mapped_memory_is_zeroed_and_aligned() {
        check(MAPPED_MIN, MAPPED_MIN);
        check(MAPPED_MIN + 1, MAPPED_MIN + 4096);
    }

    #[test]
    fn the_address_survives_a_move() {
        let mut memory = Memory::zeroed(1);
        memory.as_mut_slice()[0] = 9;
        let address = memory.address();
        let moved = Box::new(memory);
        assert_eq!(moved.address(), address);
        assert_eq!(moved.as_slice()[0], 9);
    }
}
