//! Which pieces of an image were in memory a moment ago.
//!
//! Invariants:
//! - A mark is only set after the kernel said that every page of its granule is in memory.
//! - The table has a bound whatever the size of the image: granules that share a slot forget each
//!   other.
//! - A wrong yes costs one slow send, a wrong no costs one copy: neither can give wrong bytes.
//! - While the mapping is doubted no mark is believed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::disk::ImageMapping;
use crate::limits::{DISK_SIZE_MAX, WARM_FOR_TICKS, WARM_GRANULE, WARM_GRANULES_MAX};
use crate::units::ByteRange;

/// A slot holds the granule's number above, and the tick of the sighting in this many bits below.
const TICK_BITS: u32 = 22;

const TICK_MASK: u64 = (1 << TICK_BITS) - 1;

const _: () = assert!(DISK_SIZE_MAX / WARM_GRANULE <= 1 << (u64::BITS - TICK_BITS));
const _: () = assert!(WARM_FOR_TICKS < TICK_MASK / 2);

/// The marks of one image.
#[derive(Debug)]
pub(super) struct Warmth {
    slots: Box<[AtomicU64]>,
    tick: AtomicU64,
    image: ByteRange,
    trusted: bool,
}

impl Warmth {
    /// For an image of `size` bytes; `trusted` where the kernel tells the truth about its pages.
    pub(super) fn new(size: u64, trusted: bool) -> Self {
        let slots = size.div_ceil(WARM_GRANULE).clamp(1, WARM_GRANULES_MAX);
        Self {
            slots: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            // An empty slot looks like granule 0 seen at tick 0: that has to be long ago.
            tick: AtomicU64::new(WARM_FOR_TICKS),
            image: ByteRange::between(0, size),
            trusted,
        }
    }

    /// Lets marks grow older by one tick.
    pub(super) fn advance(&self) {
        self.tick.fetch_add(1, Relaxed);
    }

    /// Ticks so far.
    pub(super) fn ticks(&self) -> u64 {
        self.tick.load(Relaxed)
    }

    /// Whether all pages of `range` are in memory, by a fresh mark or by asking the kernel.
    pub(super) fn covers(&self, range: ByteRange, mapping: &ImageMapping) -> bool {
        self.trusted
            && range
                .chunks(WARM_GRANULE)
                .all(|piece| self.covers_piece(piece, mapping))
    }

    fn covers_piece(&self, piece: ByteRange, mapping: &ImageMapping) -> bool {
        let granule = piece.start() / WARM_GRANULE;
        if mapping.is_doubted() {
            // No mark would be believed, so none is set.
            return mapping.resident(piece).unwrap_or(false);
        }
        if self.is_fresh(granule) {
            return true;
        }
        let start = granule * WARM_GRANULE;
        let whole = ByteRange::between(start, start + WARM_GRANULE).intersect(self.image);
        if mapping.resident(whole).unwrap_or(false) {
            self.mark(granule);
            return true;
        }
        piece != whole && mapping.resident(piece).unwrap_or(false)
    }

    fn is_fresh(&self, granule: u64) -> bool {
        let Some(slot) = self.slot(granule) else {
            return false;
        };
        let seen = slot.load(Relaxed);
        let age = self.tick.load(Relaxed).wrapping_sub(seen) & TICK_MASK;
        seen >> TICK_BITS == granule && age < WARM_FOR_TICKS
    }

    fn mark(&self, granule: u64) {
        let tick = self.tick.load(Relaxed) & TICK_MASK;
        if let Some(slot) = self.slot(granule) {
            slot.store(granule << TICK_BITS | tick, Relaxed);
        }
    }

    fn slot(&self, granule: u64) -> Option<&AtomicU64> {
        let index = granule % self.slots.len() as u64;
        self.slots.get(usize::try_from(index).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_warm_at_first() {
        let warmth = Warmth::new(10 * WARM_GRANULE, true);
        assert!((0..10).all(|granule| !warmth.is_fresh(granule)));
    }

    #[test]
    fn a_mark_expires() {
        let warmth = Warmth::new(10 * WARM_GRANULE, true);
        warmth.mark(3);
        for _ in 0..WARM_FOR_TICKS {
            assert!(warmth.is_fresh(3));
            warmth.advance();
        }
        assert!(!warmth.is_fresh(3));
    }

    #[test]
    fn granules_that_share_a_slot_are_not_mistaken_for_each_other() {
        let warmth = Warmth::new(DISK_SIZE_MAX, true);
        warmth.mark(5);
        assert!(!warmth.is_fresh(5 + WARM_GRANULES_MAX));
        warmth.mark(5 + WARM_GRANULES_MAX);
        assert!(!warmth.is_fresh(5));
    }

    #[test]
    fn the_last_granule_of_the_largest_disk_fits() {
        let warmth = Warmth::new(DISK_SIZE_MAX, true);
        let last = DISK_SIZE_MAX / WARM_GRANULE - 1;
        warmth.mark(last);
        assert!(warmth.is_fresh(last));
    }
}
