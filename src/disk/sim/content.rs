//! The bytes of one simulated file: what is durable, what is cached, and what lies between.
//!
//! Invariants:
//! - Reads see the cached bytes; a crash leaves durable ones, and of each sector written since the
//!   last sync either the durable content or any one that was written.
//! - A page that nobody wrote is a hole: it reads as zeros and takes no space.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::units::ByteRange;

/// What is written as a whole or not at all.
pub(super) const SECTOR: u64 = 512;
/// What the page cache holds and the file system allocates.
const PAGE: u64 = 4096;
const PAGE_SECTORS: u64 = PAGE / SECTOR;
const PAGE_BYTES: usize = 4096;
const SECTOR_BYTES: usize = 512;

type Page = [u8; PAGE_BYTES];

/// The content of one sector.
pub(super) type Sector = [u8; SECTOR_BYTES];

fn small(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Where a sector lies in its page.
fn place(sector: u64) -> std::ops::Range<usize> {
    let start = small(sector % PAGE_SECTORS) * SECTOR_BYTES;
    start..start + SECTOR_BYTES
}

/// A sparse file's bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// Whether the file system has a place for this sector.
    pub(super) fn is_allocated(&self, sector: u64) -> bool {
        self.pages.contains_key(&(sector / PAGE_SECTORS))
    }

    pub(super) fn sector(&self, sector: u64) -> Sector {
        let page = self.pages.get(&(sector / PAGE_SECTORS));
        let bytes = page.and_then(|page| page.get(place(sector)));
        bytes.map_or([0; SECTOR_BYTES], |bytes| {
            std::array::from_fn(|i| bytes.get(i).copied().unwrap_or(0))
        })
    }

    pub(super) fn set_sector(&mut self, sector: u64, bytes: &Sector) {
        let page = self.pages.entry(sector / PAGE_SECTORS);
        let page = page.or_insert_with(|| Arc::new([0; PAGE_BYTES]));
        if let Some(at) = Arc::make_mut(page).get_mut(place(sector)) {
            at.copy_from_slice(bytes);
        }
    }

    /// Gives every page of `range` a place.
    pub(super) fn allocate(&mut self, range: ByteRange) {
        for page in range.start() / PAGE..range.end().div_ceil(PAGE) {
            let entry = self.pages.entry(page);
            entry.or_insert_with(|| Arc::new([0; PAGE_BYTES]));
        }
    }

    /// Pages of `range` that have no place yet.
    pub(super) fn holes(&self, range: ByteRange) -> usize {
        let pages = range.start() / PAGE..range.end().div_ceil(PAGE);
        pages.filter(|page| !self.pages.contains_key(page)).count()
    }

    fn free_whole_pages(&mut self, range: ByteRange) {
        for page in range.start().div_ceil(PAGE)..range.end() / PAGE {
            self.pages.remove(&page);
        }
    }

    pub(super) fn resize(&mut self, len: u64) {
        self.pages.retain(|&page, _| page * PAGE < len);
        let cut = len.div_ceil(SECTOR)..len.next_multiple_of(PAGE) / SECTOR;
        for sector in cut {
            if len < self.len && self.is_allocated(sector) {
                self.set_sector(sector, &[0; SECTOR_BYTES]);
            }
        }
        self.len = len;
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let end = self.len.min(offset + buf.len() as u64);
        let range = ByteRange::between(offset, end);
        for piece in range.chunks(PAGE) {
            let page = self.pages.get(&(piece.start() / PAGE));
            let from = small(piece.start() % PAGE);
            let source = page.and_then(|page| page.get(from..from + piece.len_usize()));
            let to = small(piece.start() - offset);
            if let Some(target) = buf.get_mut(to..to + piece.len_usize()) {
                match source {
                    Some(bytes) => target.copy_from_slice(bytes),
                    None => target.fill(0),
                }
            }
        }
        range.len_usize()
    }
}

/// A sector as one write left it.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// The number of the call that wrote it.
    pub(super) call: u64,
    pub(super) bytes: Arc<Sector>,
}

/// A size as one call left it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resized {
    pub(super) call: u64,
    pub(super) len: u64,
}

/// A file: its durable bytes, and what was done to it since they were made durable.
#[derive(Clone, Debug, Default)]
pub(super) struct FileNode {
    pub(super) durable: Content,
    pub(super) cached: Content,
    /// What each sector was since the last sync, oldest first.
    pub(super) sectors: BTreeMap<u64, Vec<Version>>,
    pub(super) sizes: Vec<Resized>,
    /// Sectors whose cached content a failed sync has dropped; marked clean, as Linux does.
    lost: BTreeSet<u64>,
}

impl FileNode {
    /// A file of which all is durable.
    pub(super) fn settled(content: Content) -> Self {
        Self {
            durable: content.clone(),
            cached: content,
            ..Self::default()
        }
    }

    /// Whether a crash could leave only what reads show.
    pub(super) fn is_settled(&self) -> bool {
        self.sectors.is_empty() && self.sizes.is_empty() && self.lost.is_empty()
    }

    pub(super) fn resize(&mut self, call: u64, len: u64) {
        if len < self.cached.len() {
            for sector in len.div_ceil(SECTOR)..self.cached.len().div_ceil(SECTOR) {
                if self.cached.is_allocated(sector) {
                    self.push(call, sector, [0; SECTOR_BYTES]);
                }
            }
        }
        self.cached.resize(len);
        self.sizes.push(Resized { call, len });
    }

    pub(super) fn write(&mut self, call: u64, bytes: &[u8], offset: u64) {
        let range = ByteRange::between(offset, offset + bytes.len() as u64);
        for piece in range.chunks(SECTOR) {
            let sector = piece.start() / SECTOR;
            let mut content = self.cached.sector(sector);
            let to = small(piece.start() % SECTOR);
            let from = small(piece.start() - offset);
            let source = bytes.get(from..from + piece.len_usize());
            let target = content.get_mut(to..to + piece.len_usize());
            if let (Some(source), Some(target)) = (source, target) {
                target.copy_from_slice(source);
            }
            self.redirty_page(call, sector / PAGE_SECTORS);
            self.lost.remove(&sector);
            self.cached.set_sector(sector, &content);
            self.push(call, sector, content);
        }
        if range.end() > self.cached.len() {
            self.resize(call, range.end());
        }
    }

    /// The page cache writes whole pages: what a failed sync left in one goes along.
    fn redirty_page(&mut self, call: u64, page: u64) {
        let sectors = page * PAGE_SECTORS..(page + 1) * PAGE_SECTORS;
        let lost: Vec<u64> = self.lost.range(sectors).copied().collect();
        for sector in lost {
            self.lost.remove(&sector);
            self.push(call, sector, self.cached.sector(sector));
        }
    }

    pub(super) fn punch(&mut self, call: u64, range: ByteRange) {
        for sector in range.start() / SECTOR..range.end().div_ceil(SECTOR) {
            if self.cached.is_allocated(sector) {
                self.cached.set_sector(sector, &[0; SECTOR_BYTES]);
                self.push(call, sector, [0; SECTOR_BYTES]);
            }
        }
        self.cached.free_whole_pages(range);
    }

    fn push(&mut self, call: u64, sector: u64, bytes: Sector) {
        let bytes = Arc::new(bytes);
        let versions = self.sectors.entry(sector).or_default();
        versions.push(Version { call, bytes });
    }

    /// A sync that succeeds.
    pub(super) fn sync(&mut self) {
        self.sync_some(|_| true);
    }

    /// A sync of the sectors that `reaches` names; the rest is lost and marked clean.
    pub(super) fn sync_some(&mut self, mut reaches: impl FnMut(u64) -> bool) {
        if let Some(last) = self.sizes.last() {
            self.durable.resize(last.len);
        }
        self.sizes.clear();
        for (sector, versions) in std::mem::take(&mut self.sectors) {
            if !reaches(sector) {
                self.lost.insert(sector);
            } else if let Some(last) = versions.last() {
                self.durable.set_sector(sector, &last.bytes);
            }
        }
        self.give_back_holes();
    }

    /// Reads see what is durable where the cache says that nothing else is to be written.
    pub(super) fn forget(&mut self) {
        for sector in std::mem::take(&mut self.lost) {
            let durable = self.durable.sector(sector);
            self.cached.set_sector(sector, &durable);
        }
    }

    /// Pages that were punched take no durable space either.
    fn give_back_holes(&mut self) {
        let cached = &self.cached.pages;
        let is_empty = |page: &Arc<Page>| page.iter().all(|&byte| byte == 0);
        let pages = &mut self.durable.pages;
        pages.retain(|number, page| cached.contains_key(number) || !is_empty(page));
    }
}
