//! A mapping of an image file that only the kernel ever reads.
//!
//! Invariants:
//! - The mapped bytes are never dereferenced here or anywhere in the program: a file that is
//!   truncated under a mapping raises SIGBUS on a touch, whereas the kernel's own copy fails with
//!   EFAULT.
//! - Every address given out lies inside the mapping.
//! - Once the file was seen to change, nothing of it is sent any more, not even what was queued
//!   before: see [`ImageMapping::disown`].

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use rustix::mm::{Advice, madvise};

use crate::units::ByteRange;

/// The whole of an image file, mapped read-only and shared.
#[derive(Debug)]
pub struct ImageMapping {
    map: MmapRaw,
    disowned: AtomicBool,
    /// For how many ticks more its pages may be gone any moment.
    doubt: AtomicU64,
}

impl ImageMapping {
    /// Maps the first `len` bytes of `file`.
    ///
    /// # Errors
    /// Whatever `mmap` answers: no memory, or a file that can't be mapped.
    pub fn new(file: &File, len: usize) -> io::Result<Self> {
        let map = MmapOptions::new()
            .len(len)
            .map_raw_read_only(&file.as_fd())?;
        Ok(Self {
            map,
            disowned: AtomicBool::new(false),
            doubt: AtomicU64::new(0),
        })
    }

    /// Says that the file is no longer what was mapped.
    pub fn disown(&self) {
        self.disowned.store(true, Ordering::Relaxed);
    }

    /// Whether the file is no longer what was mapped: then its bytes must not be sent.
    #[must_use]
    pub fn is_disowned(&self) -> bool {
        self.disowned.load(Ordering::Relaxed)
    }

    /// Says that pages of it which were in memory a moment ago are not: the kernel is short of
    /// memory, and will take more. To be believed for `ticks` calls of [`ImageMapping::calm`].
    pub fn doubt(&self, ticks: u64) {
        self.doubt.store(ticks, Ordering::Relaxed);
    }

    /// Whether its pages may be gone at any moment.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.doubt.load(Ordering::Relaxed) > 0
    }

    /// Lets a doubt fade by one tick.
    pub fn calm(&self) {
        let fade = |left: u64| left.checked_sub(1);
        // None is left to fade: as well.
        let _ = self
            .doubt
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fade);
    }

    /// The address of `range` for an iovec, or `None` where it leaves the mapping.
    ///
    /// The address must only be handed to the kernel, while the mapping is alive.
    #[must_use]
    pub fn address(&self, range: ByteRange) -> Option<*const u8> {
        let start = usize::try_from(range.start()).ok()?;
        let end = usize::try_from(range.end()).ok()?;
        (end <= self.map.len()).then(|| self.map.as_ptr().wrapping_add(start))
    }

    /// Whether all pages of `range` are in memory now.
    ///
    /// For a file that the caller neither owns nor may write, the kernel says yes to everything:
    /// the caller must have ruled that out.
    ///
    /// # Errors
    /// Whatever `mincore` answers; `InvalidInput` where the range leaves the mapping.
    pub fn resident(&self, range: ByteRange) -> io::Result<bool> {
        let page = 4096u64;
        let aligned = ByteRange::between(range.start() / page * page, range.end());
        let address = self.address(aligned).ok_or(io::ErrorKind::InvalidInput)?;
        let pages = aligned.len().div_ceil(page);
        let mut state = [0u8; 256];
        for first in (0..pages).step_by(state.len()) {
            let count = usize::try_from((pages - first).min(256)).unwrap_or(256);
            let offset = usize::try_from(first * page).map_err(|_| io::ErrorKind::InvalidInput)?;
            // SAFETY: mincore reads no mapped byte; the range lies inside the mapping (checked by
            // `address` above, whole pages of it) and `state` has room for one byte a page.
            let answer = unsafe {
                libc::mincore(
                    address.wrapping_add(offset).cast_mut().cast(),
                    count * 4096,
                    state.as_mut_ptr(),
                )
            };
            if answer != 0 {
                return Err(io::Error::last_os_error());
            }
            if state.iter().take(count).any(|page| page & 1 == 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Asks the kernel to read `range` ahead, without waiting for it.
    ///
    /// # Errors
    /// Whatever `madvise` answers; `InvalidInput` where the range leaves the mapping.
    pub fn will_need(&self, range: ByteRange) -> io::Result<()> {
        self.advise(range, Advice::WillNeed)
    }

    /// Waits until `range` is in memory: not for a thread that others wait for.
    ///
    /// # Errors
    /// Whatever `madvise` answers, EFAULT where the file is shorter by now; `InvalidInput` where
    /// the range leaves the mapping.
    pub fn populate(&self, range: ByteRange) -> io::Result<()> {
        self.advise(range, Advice::LinuxPopulateRead)
    }

    /// `advice` is one that changes no byte.
    fn advise(&self, range: ByteRange, advice: Advice) -> io::Result<()> {
        let aligned = ByteRange::between(range.start() / 4096 * 4096, range.end());
        let address = self.address(aligned).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the two kinds of advice change no byte, and the range lies inside the mapping.
        unsafe { madvise(address.cast_mut().cast(), aligned.len_usize(), advice)? };
        Ok(())
    }
}
