//! What boots read of an image, remembered so that it can be in memory before the next one asks.
//!
//! There are two tables of granules, so that what no boot reads any more is forgotten: reads go to
//! the younger one. When that has seen many sessions and is of some age it becomes the elder one,
//! and the elder one of before goes.
//!
//! Invariants:
//! - To note what is noted already costs a load; nothing here locks but to begin a session.
//! - Whatever is read, what is remembered is bounded: the tables by the number of granules, and the
//!   bytes of the image by [`BOOT_SET_BYTES_MAX`] each.
//! - No clock is read: time is counted in ticks of the image.

mod file;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

pub use file::BootSetError;

use crate::limits::{
    BOOT_SET_BYTES_MAX, BOOT_SET_GRANULE, BOOT_SET_GRANULES_MAX, BOOT_SET_SESSIONS, BOOT_SET_TICKS,
};
use crate::units::ByteRange;

const WORD: u64 = u64::BITS as u64;

/// The size of an image and of its granules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    size: u64,
    granule: u64,
}

impl Shape {
    fn of(size: u64) -> Self {
        let least = size.div_ceil(BOOT_SET_GRANULES_MAX).next_power_of_two();
        Self {
            size,
            granule: least.max(BOOT_SET_GRANULE),
        }
    }

    const fn granules(self) -> u64 {
        self.size.div_ceil(self.granule)
    }

    /// Granules that one table remembers at most.
    fn most(self) -> u64 {
        (BOOT_SET_BYTES_MAX / self.granule).max(1)
    }
}

/// A set of granules.
#[derive(Debug)]
struct Table {
    shape: Shape,
    words: Box<[AtomicU64]>,
    count: AtomicU64,
    is_unsaved: AtomicBool,
}

impl Table {
    fn new(shape: Shape) -> Self {
        let words = shape.granules().div_ceil(WORD);
        Self {
            shape,
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            count: AtomicU64::new(0),
            is_unsaved: AtomicBool::new(false),
        }
    }

    fn note(&self, range: ByteRange) {
        let range = range.intersect(ByteRange::between(0, self.shape.size));
        if range.is_empty() {
            return;
        }
        let granule = self.shape.granule;
        (range.start() / granule..range.end().div_ceil(granule)).for_each(|at| self.add(at));
    }

    fn add(&self, granule: u64) {
        let Some(word) = self.word(granule) else {
            return;
        };
        let bit = 1 << (granule % WORD);
        if word.load(Relaxed) & bit != 0 || self.count.load(Relaxed) >= self.shape.most() {
            return;
        }
        if word.fetch_or(bit, Relaxed) & bit == 0 {
            self.count.fetch_add(1, Relaxed);
            self.is_unsaved.store(true, Relaxed);
        }
    }

    fn has(&self, granule: u64) -> bool {
        self.word(granule)
            .is_some_and(|word| word.load(Relaxed) >> (granule % WORD) & 1 == 1)
    }

    fn word(&self, granule: u64) -> Option<&AtomicU64> {
        self.words.get(usize::try_from(granule / WORD).ok()?)
    }
}

#[derive(Debug)]
struct Tables {
    young: Arc<Table>,
    old: Arc<Table>,
    /// Sessions that the younger one has seen.
    sessions: u32,
    /// The tick since which it is there.
    since: u64,
}

impl Tables {
    /// A session begins at `tick`.
    fn begin(&mut self, tick: u64) {
        self.sessions = self.sessions.saturating_add(1);
        let age = tick.saturating_sub(self.since);
        if self.sessions > BOOT_SET_SESSIONS && age >= BOOT_SET_TICKS {
            let young = Arc::new(Table::new(self.young.shape));
            young.is_unsaved.store(true, Relaxed);
            self.old = std::mem::replace(&mut self.young, young);
            (self.sessions, self.since) = (1, tick);
        }
    }
}

/// What boots have read of one generation of an image.
#[derive(Debug)]
pub struct BootSet {
    shape: Shape,
    tables: RwLock<Tables>,
}

impl BootSet {
    /// Of an image of `size` bytes, of which none was read.
    #[must_use]
    pub fn new(size: u64) -> Self {
        let shape = Shape::of(size);
        Self::of_tables(shape, Table::new(shape), Table::new(shape), 0)
    }

    fn of_tables(shape: Shape, young: Table, old: Table, sessions: u32) -> Self {
        Self {
            shape,
            tables: RwLock::new(Tables {
                young: Arc::new(young),
                old: Arc::new(old),
                sessions,
                since: 0,
            }),
        }
    }

    /// A session begins at `tick`: where its reads are noted.
    pub(super) fn begin(&self, tick: u64) -> Notes {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.begin(tick);
        Notes(Arc::clone(&tables.young))
    }

    /// A boot has read `range`.
    pub fn note(&self, range: ByteRange) {
        self.now().0.note(range);
    }

    /// The bytes that boots have read, in whole granules, in their order; none touches the next.
    #[must_use]
    pub fn ranges(&self) -> Vec<ByteRange> {
        let (young, old) = self.now();
        let mut ranges: Vec<ByteRange> = Vec::new();
        for granule in 0..self.shape.granules() {
            if !young.has(granule) && !old.has(granule) {
                continue;
            }
            let start = granule * self.shape.granule;
            let end = (start + self.shape.granule).min(self.shape.size);
            match ranges.last_mut() {
                Some(last) if last.end() == start => {
                    *last = ByteRange::between(last.start(), end);
                }
                _ => ranges.push(ByteRange::between(start, end)),
            }
        }
        ranges
    }

    /// Whether something is new since this was asked last.
    pub fn take_unsaved(&self) -> bool {
        let (young, old) = self.now();
        let is_new = |table: &Table| table.is_unsaved.swap(false, Relaxed);
        // Sessions from before the change of tables still note what they read in the elder one.
        is_new(&young) | is_new(&old)
    }

    /// What was taken for saved is not.
    pub fn keep_unsaved(&self) {
        self.now().0.is_unsaved.store(true, Relaxed);
    }

    fn now(&self) -> (Arc<Table>, Arc<Table>) {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&tables.young), Arc::clone(&tables.old))
    }
}

/// Where the reads of one session are noted.
#[derive(Clone, Debug)]
pub(super) struct Notes(Arc<Table>);

impl Notes {
    pub(super) fn note(&self, range: ByteRange) {
        self.0.note(range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DISK_SIZE_MAX;

    const GRANULE: u64 = BOOT_SET_GRANULE;

    fn granules(first: u64, end: u64) -> ByteRange {
        ByteRange::between(first * GRANULE, end * GRANULE)
    }

    #[test]
    fn what_was_read_is_remembered_in_whole_granules() {
        let set = BootSet::new(100 * GRANULE + 5);
        let notes = set.begin(0);
        notes.note(ByteRange::between(3 * GRANULE + 7, 3 * GRANULE + 8));
        notes.note(ByteRange::between(5 * GRANULE - 1, 5 * GRANULE + 1));
        notes.note(ByteRange::between(100 * GRANULE + 4, u64::MAX));
        let end = ByteRange::between(100 * GRANULE, 100 * GRANULE + 5);
        assert_eq!(set.ranges(), [granules(3, 6), end]);
    }

    #[test]
    fn nothing_of_nothing_is_remembered() {
        let set = BootSet::new(GRANULE);
        set.note(ByteRange::between(7, 7));
        set.note(ByteRange::between(2 * GRANULE, 3 * GRANULE));
        assert_eq!(set.ranges(), []);
        assert!(!set.take_unsaved());
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let set = BootSet::new(3 * BOOT_SET_BYTES_MAX);
        set.note(ByteRange::between(0, 2 * BOOT_SET_BYTES_MAX));
        assert_eq!(set.ranges(), [ByteRange::between(0, BOOT_SET_BYTES_MAX)]);
    }

    #[test]
    fn the_tables_of_the_largest_disk_have_a_bound() {
        let set = BootSet::new(DISK_SIZE_MAX);
        assert!(set.shape.granules() <= BOOT_SET_GRANULES_MAX);
        set.note(ByteRange::between(DISK_SIZE_MAX - 1, DISK_SIZE_MAX));
        assert_eq!(
            set.ranges().last().map(|last| last.end()),
            Some(DISK_SIZE_MAX)
        );
    }

    /// Begins as many sessions as make a table old, the last of them at `tick`.
    fn grow_old(set: &BootSet, tick: u64) {
        (0..=BOOT_SET_SESSIONS).for_each(|_| drop(set.begin(tick)));
    }

    #[test]
    fn what_no_boot_reads_any_more_is_forgotten_in_time() {
        let set = BootSet::new(100 * GRANULE);
        set.note(granules(1, 2));
        grow_old(&set, BOOT_SET_TICKS);
        set.note(granules(7, 8));
        assert_eq!(set.ranges(), [granules(1, 2), granules(7, 8)]);
        grow_old(&set, 2 * BOOT_SET_TICKS);
        assert_eq!(set.ranges(), [granules(7, 8)]);
    }

    #[test]
    fn a_herd_that_boots_at_once_makes_nothing_old() {
        let set = BootSet::new(100 * GRANULE);
        set.note(granules(1, 2));
        (0..10).for_each(|_| grow_old(&set, BOOT_SET_TICKS - 1));
        assert_eq!(set.ranges(), [granules(1, 2)]);
    }

    #[test]
    fn a_session_goes_on_to_note_where_it_began() {
        let set = BootSet::new(100 * GRANULE);
        let notes = set.begin(0);
        grow_old(&set, BOOT_SET_TICKS);
        set.take_unsaved();
        notes.note(granules(1, 2));
        assert_eq!(set.ranges(), [granules(1, 2)]);
        assert!(set.take_unsaved());
    }

    #[test]
    fn only_what_is_new_is_to_be_saved() {
        let set = BootSet::new(100 * GRANULE);
        set.note(granules(1, 2));
        assert!(set.take_unsaved() && !set.take_unsaved());
        set.note(granules(1, 2));
        assert!(!set.take_unsaved());
        set.keep_unsaved();
        assert!(set.take_unsaved());
    }
}
