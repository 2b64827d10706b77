//! What a client's disk may hold: for each sector the last durable value and all newer ones.
//!
//! Only the blocks that histories touch are followed: [`AREAS`], one at the start of the disk and
//! one round the border of two leaves of the map, up to a last block that is not whole.

use std::sync::Arc;

use cowherd::overlay::map::LEAF_BLOCKS;
use cowherd::overlay::store::Block;
use cowherd::units::{BLOCK_BYTES, BLOCK_SIZE, BlockIndex, BlockRange, ByteRange};

use super::seeded::mixed;

pub(crate) const SECTOR: usize = 512;
const BLOCKS: u64 = LEAF_BLOCKS + 8;
/// Bytes of the disk: neither its last block nor its last sector is whole.
pub(crate) const SIZE: u64 = BLOCKS * BLOCK_SIZE - 1300;
/// The blocks that are followed.
pub(crate) const AREAS: [(u64, u64); 2] = [(0, 10), (LEAF_BLOCKS - 2, BLOCKS)];

pub(crate) type Sector = [u8; SECTOR];

/// What the followed sectors hold, one after the other.
pub(crate) type Content = Vec<Sector>;

/// Every followed block, in order.
pub(crate) fn followed() -> impl Iterator<Item = BlockIndex> {
    let blocks = AREAS.into_iter().flat_map(|(start, end)| start..end);
    blocks.map(BlockIndex)
}

/// The image below, which is never written.
pub(crate) fn image_block(block: BlockIndex) -> Block {
    let mut bytes = [0; BLOCK_BYTES];
    for (word, at) in bytes.chunks_exact_mut(8).zip(block.start() / 8..) {
        word.copy_from_slice(&(mixed(at) | 1).to_le_bytes());
    }
    bytes
}

/// Cuts a followed block into sectors; what lies past the end of the disk is nobody's.
pub(crate) fn sectors_of(block: BlockIndex, bytes: &Block, content: &mut Content) {
    let mut seen = *bytes;
    let visible = SIZE.saturating_sub(block.start());
    if let Ok(visible) = usize::try_from(visible)
        && let Some(hidden) = seen.get_mut(visible..)
    {
        hidden.fill(0);
    }
    for sector in seen.chunks_exact(SECTOR) {
        content.push(sector.try_into().expect("a sector"));
    }
}

#[derive(Clone, Debug)]
struct Version {
    /// When it was written; [`UNANSWERED`] where the client was not told yet that it is.
    at: u64,
    bytes: Arc<Sector>,
}

/// No flush is for a write that was not answered when it began.
const UNANSWERED: u64 = u64::MAX;

/// Allowed values, oldest first, and the time that counts changes.
#[derive(Clone, Debug)]
pub(crate) struct Oracle {
    sectors: Vec<Vec<Version>>,
    now: u64,
}

impl Oracle {
    /// All as `content` has it, and durable.
    pub(crate) fn of(content: &Content) -> Self {
        let version = |bytes: &Sector| Version {
            at: 0,
            bytes: Arc::new(*bytes),
        };
        Self {
            sectors: content.iter().map(|bytes| vec![version(bytes)]).collect(),
            now: 0,
        }
    }

    /// What a flush that begins now will make durable.
    pub(crate) const fn mark(&self) -> u64 {
        self.now
    }

    /// All that was there at `mark` is durable.
    pub(crate) fn durable(&mut self, mark: u64) {
        for versions in &mut self.sectors {
            let last = versions.iter().rposition(|version| version.at <= mark);
            versions.drain(..last.unwrap_or(0));
        }
    }

    /// `range` becomes `data`, or zeros, sooner or later.
    pub(crate) fn change(&mut self, range: ByteRange, data: Option<&[u8]>) {
        self.now += 1;
        self.push_all(range, data, self.now);
    }

    /// A write of `data` has begun. Once it is answered, it is a change. Until then nothing else
    /// changes its blocks.
    pub(crate) fn begin(&mut self, range: ByteRange, data: &[u8]) {
        self.push_all(range, Some(data), UNANSWERED);
    }

    fn push_all(&mut self, range: ByteRange, data: Option<&[u8]>, at: u64) {
        for (number, start) in followed_sectors() {
            let sector = ByteRange::between(start, start + SECTOR as u64);
            let part = sector.intersect(range);
            if part.is_empty() {
                continue;
            }
            let mut bytes = self.newest(number);
            let to = usize::try_from(part.start() - start).expect("in a sector");
            let target = &mut bytes[to..to + part.len_usize()];
            match data {
                None => target.fill(0),
                Some(data) => {
                    let from = usize::try_from(part.start() - range.start()).expect("small");
                    target.copy_from_slice(&data[from..from + part.len_usize()]);
                }
            }
            self.push(number, bytes, at);
        }
    }

    /// The whole blocks inside `range` become zeros.
    pub(crate) fn trim(&mut self, range: ByteRange) {
        self.change(trimmed(range).bytes(), None);
    }

    /// A change failed and may have been done in part: what is read now is so.
    pub(crate) fn observe(&mut self, content: &Content) {
        self.now += 1;
        for (number, bytes) in content.iter().enumerate() {
            if self.newest(number) != *bytes {
                self.push(number, *bytes, self.now);
            }
        }
    }

    /// Nobody is told any more of writes that were under way: what was read counts.
    pub(crate) fn observe_unanswered(&mut self, content: &Content) {
        for versions in &mut self.sectors {
            versions.retain(|version| version.at != UNANSWERED);
        }
        self.observe(content);
    }

    /// What may be read after a change that failed: any byte may be old or new.
    pub(crate) fn check_failed(&self, content: &Content) -> Result<(), String> {
        let allowed = |versions: &Vec<Version>, bytes: &Sector| {
            let is_value = |at: usize| versions.iter().any(|v| v.bytes[at] == bytes[at]);
            (0..SECTOR).all(is_value)
        };
        self.check_each(content, allowed)
    }

    /// What reads must see.
    pub(crate) fn check_read(&self, content: &Content) -> Result<(), String> {
        let allowed = |versions: &Vec<Version>, bytes: &Sector| {
            let answered = versions.iter().rposition(|v| v.at != UNANSWERED);
            let now = &versions[answered.expect("a value")..];
            now.iter().any(|version| *version.bytes == *bytes)
        };
        self.check_each(content, allowed)
    }

    /// What may come back after the power was lost.
    pub(crate) fn check_recovered(&self, content: &Content) -> Result<(), String> {
        let allowed = |versions: &Vec<Version>, bytes: &Sector| {
            versions.iter().any(|version| *version.bytes == *bytes)
        };
        self.check_each(content, allowed)
    }

    fn check_each(
        &self,
        content: &Content,
        allowed: impl Fn(&Vec<Version>, &Sector) -> bool,
    ) -> Result<(), String> {
        for ((number, start), bytes) in followed_sectors().zip(content) {
            let versions = &self.sectors[number];
            if !allowed(versions, bytes) {
                let old: Vec<_> = versions.iter().map(|v| describe(&v.bytes, start)).collect();
                return Err(format!(
                    "byte {start} (block {}, sector {}) is {}, allowed: {}",
                    start / BLOCK_SIZE,
                    start % BLOCK_SIZE / SECTOR as u64,
                    describe(bytes, start),
                    old.join(", ")
                ));
            }
        }
        Ok(())
    }

    fn newest(&self, number: usize) -> Sector {
        *self.sectors[number].last().expect("a value").bytes
    }

    fn push(&mut self, number: usize, bytes: Sector, at: u64) {
        let bytes = Arc::new(bytes);
        self.sectors[number].push(Version { at, bytes });
    }
}

/// The followed sectors with their place on the disk.
fn followed_sectors() -> impl Iterator<Item = (usize, u64)> {
    let starts = followed().flat_map(|block| {
        let range = block.bytes();
        (range.start()..range.end()).step_by(SECTOR)
    });
    starts.enumerate()
}

/// The blocks that a trim of `range` forgets: the rest of the last block is nobody's.
fn trimmed(range: ByteRange) -> BlockRange {
    if range.end() == SIZE {
        return ByteRange::between(range.start(), BlockIndex(BLOCKS).start()).blocks_inside();
    }
    range.blocks_inside()
}

fn describe(bytes: &Sector, start: u64) -> String {
    let mut image = Vec::new();
    let block = BlockIndex::holding(start);
    sectors_of(block, &image_block(block), &mut image);
    let in_block = usize::try_from(start % BLOCK_SIZE).expect("small") / SECTOR;
    match bytes {
        bytes if *bytes == image[in_block] => "the image's".to_owned(),
        bytes if *bytes == [0; SECTOR] => "zeros".to_owned(),
        bytes if *bytes == [0xdb; SECTOR] => "garbage".to_owned(),
        bytes => format!("{:02x?}...", &bytes[..8]),
    }
}
