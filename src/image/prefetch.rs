//! Noting what boots read of an image, and bringing that into memory before the next one asks.
//!
//! Invariants:
//! - A session is taken for a boot for [`BOOT_READS_FOR_TICKS`] after it began, and no longer.
//! - What is in memory is not asked for. One piece at a time comes from the disk, so that others
//!   who read it wait for one piece at most. It is read and not touched through the mapping: pages
//!   that nobody has mapped are the first that the kernel takes back.
//! - One image is brought in by one thread at a time, which gives up when the image has changed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::boot_set::Notes;
use super::{BootSet, Image};
use crate::limits::{BOOT_READS_FOR_TICKS, BOOT_WARM_PIECE, BOOT_WARM_REST_TICKS};
use crate::units::ByteRange;

/// Where the reads of one session are noted, as long as that is taken for a boot.
#[derive(Debug)]
pub struct Recorder {
    image: Arc<Image>,
    notes: Notes,
    ends: u64,
}

impl Recorder {
    /// Whether the session is young enough. Costs an atomic load.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.image.ticks() < self.ends
    }

    /// It has read `range` of the image.
    pub fn note(&self, range: ByteRange) {
        self.notes.note(range);
    }
}

/// Whether an image is being brought in, and when it was last.
#[derive(Debug, Default)]
pub(super) struct Turn {
    is_taken: AtomicBool,
    /// The first tick at which it is worth to look again.
    next: AtomicU64,
}

/// The right to bring an image in.
#[derive(Debug)]
pub struct Warming {
    image: Arc<Image>,
}

impl Drop for Warming {
    fn drop(&mut self) {
        let next = self.image.ticks() + BOOT_WARM_REST_TICKS;
        self.image.turn.next.store(next, Ordering::Relaxed);
        self.image.turn.is_taken.store(false, Ordering::Release);
    }
}

/// What was done to bring an image in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Warmed {
    /// Bytes that boots read.
    pub remembered: u64,
    /// Bytes that were not in memory, and are now.
    pub brought_in: u64,
    /// Bytes that were not, and for which there was no room.
    pub left_out: u64,
}

impl Image {
    /// From now on what boots read of it is remembered, in addition to `set`. Only the first call
    /// counts.
    pub fn keep_boot_set(&self, set: BootSet) {
        // One that is there has more in it.
        let _ = self.boot_set.set(set);
    }

    /// What boots have read; `None` where that is not remembered.
    #[must_use]
    pub fn boot_set(&self) -> Option<&BootSet> {
        self.boot_set.get()
    }

    /// A session begins: where its reads are to be noted, if they are.
    #[must_use]
    pub fn record_boot(self: &Arc<Self>) -> Option<Recorder> {
        let tick = self.ticks();
        let notes = self.boot_set()?.begin(tick);
        Some(Recorder {
            image: Arc::clone(self),
            notes,
            ends: tick + BOOT_READS_FOR_TICKS,
        })
    }

    /// Ticks since it was opened.
    fn ticks(&self) -> u64 {
        self.warmth.ticks()
    }

    /// The right to bring in what boots read: `None` where somebody does so, or has just done, or
    /// where nothing is remembered.
    #[must_use]
    pub fn begin_warming(self: &Arc<Self>) -> Option<Warming> {
        self.boot_set()?;
        let is_early = self.ticks() < self.turn.next.load(Ordering::Relaxed);
        if is_early || self.turn.is_taken.swap(true, Ordering::Acquire) {
            return None;
        }
        Some(Warming {
            image: Arc::clone(self),
        })
    }
}

impl Warming {
    /// Brings in what is not in memory, `most` bytes of it. Waits for the disk, as long as it
    /// takes.
    #[must_use]
    pub fn run(self, most: u64) -> Warmed {
        let mut warmed = Warmed::default();
        let (Some(mapping), Some(set)) = (self.image.mapping(), self.image.boot_set()) else {
            return warmed;
        };
        let ranges = set.ranges();
        warmed.remembered = ranges.iter().map(|range| range.len()).sum();
        let mut buffer = Vec::new();
        for piece in ranges
            .iter()
            .flat_map(|range| range.chunks(BOOT_WARM_PIECE))
        {
            if self.image.check().is_err() {
                break;
            }
            if self.image.file.tells_residency() && mapping.resident(piece).unwrap_or(false) {
                continue;
            }
            match warmed.brought_in + piece.len() <= most {
                true => warmed.brought_in += self.bring_in(piece, &mut buffer),
                false => warmed.left_out += piece.len(),
            }
        }
        warmed
    }

    /// How much of a piece came.
    fn bring_in(&self, piece: ByteRange, buffer: &mut Vec<u8>) -> u64 {
        match self.try_bring_in(piece, buffer) {
            Ok(()) => piece.len(),
            // A hint: where it fails, the reads of the clients will say why.
            Err(_) => 0,
        }
    }

    /// Asks for all of a piece at once, and then waits for it.
    fn try_bring_in(&self, piece: ByteRange, buffer: &mut Vec<u8>) -> io::Result<()> {
        if let Some(mapping) = self.image.mapping() {
            mapping.will_need(piece)?;
        }
        buffer.resize(piece.len_usize(), 0);
        self.image
            .file
            .read(buffer, piece.start(), self.image.size())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{chill, with_image};
    use super::*;
    use crate::limits::BOOT_SET_GRANULE as GRANULE;

    const MIB: u64 = 1 << 20;

    /// An image of which boots have read these ranges, and which is not in memory.
    fn cold_after_boots(reads: &[ByteRange]) -> Option<(tempfile::TempDir, Arc<Image>)> {
        let (dir, image) = with_image(64 * MIB);
        let image = Arc::new(image);
        image.keep_boot_set(BootSet::new(image.size()));
        let recorder = image.record_boot().unwrap();
        reads.iter().for_each(|read| recorder.note(*read));
        chill(&image).then_some((dir, image))
    }

    fn is_in_memory(image: &Image, range: ByteRange) -> bool {
        image.mapping().unwrap().resident(range).unwrap()
    }

    fn at(granule: u64) -> ByteRange {
        ByteRange::between(granule * GRANULE, (granule + 1) * GRANULE)
    }

    #[test]
    fn what_boots_read_is_brought_in_and_nothing_else() {
        let reads = [at(100), at(101), at(700)];
        let Some((_dir, image)) = cold_after_boots(&reads) else {
            return;
        };
        let warmed = image.begin_warming().unwrap().run(u64::MAX);
        assert_eq!(warmed.brought_in, 3 * GRANULE);
        for granule in 0..1000 {
            assert_eq!(
                is_in_memory(&image, at(granule)),
                reads.contains(&at(granule)),
                "{granule}"
            );
        }
    }

    #[test]
    fn what_is_in_memory_is_not_asked_for() {
        let Some((_dir, image)) = cold_after_boots(&[at(100), at(700)]) else {
            return;
        };
        image
            .read(&mut vec![0; at(700).len_usize()], at(700).start())
            .unwrap();
        let warmed = image.begin_warming().unwrap().run(u64::MAX);
        assert_eq!(
            (warmed.remembered, warmed.brought_in),
            (2 * GRANULE, GRANULE)
        );
    }

    #[test]
    fn no_more_is_brought_in_than_there_is_room_for() {
        let Some((_dir, image)) = cold_after_boots(&[at(100), at(300), at(700)]) else {
            return;
        };
        let warmed = image.begin_warming().unwrap().run(2 * GRANULE);
        assert_eq!((warmed.brought_in, warmed.left_out), (2 * GRANULE, GRANULE));
        assert!(!is_in_memory(&image, at(700)));
    }

    #[test]
    fn one_at_a_time_brings_it_in_and_then_nobody_for_a_while() {
        let (_dir, image) = with_image(MIB);
        let image = Arc::new(image);
        assert!(image.begin_warming().is_none(), "nothing is remembered");
        image.keep_boot_set(BootSet::new(image.size()));
        let turn = image.begin_warming().unwrap();
        assert!(image.begin_warming().is_none());
        drop(turn);
        for _ in 0..BOOT_WARM_REST_TICKS {
            assert!(image.begin_warming().is_none());
            image.tick();
        }
        assert!(image.begin_warming().is_some());
    }

    #[test]
    fn an_image_that_has_changed_is_left_alone() {
        let Some((_dir, image)) = cold_after_boots(&[at(100)]) else {
            return;
        };
        image.saw_write();
        let warmed = image.begin_warming().unwrap().run(u64::MAX);
        assert_eq!(warmed.brought_in, 0);
    }

    #[test]
    fn a_session_is_taken_for_a_boot_for_some_minutes() {
        let (_dir, image) = with_image(MIB);
        let image = Arc::new(image);
        assert!(image.record_boot().is_none(), "nothing is remembered");
        image.keep_boot_set(BootSet::new(image.size()));
        let recorder = image.record_boot().unwrap();
        for _ in 0..BOOT_READS_FOR_TICKS {
            assert!(recorder.is_on());
            image.tick();
        }
        assert!(!recorder.is_on());
    }
}
