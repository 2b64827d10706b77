//! Block index, byte position and byte range as types, so that one can't be taken for another.
//!
//! Invariants: a [`ByteRange`] and a [`BlockRange`] never end before they start; both are
//! half-open.

use std::fmt;
use std::ops::Range;

/// Bytes in an overlay block, the unit of copy-on-write.
pub const BLOCK_SIZE: u64 = 4096;

/// [`BLOCK_SIZE`] for use with slices.
pub const BLOCK_BYTES: usize = 4096;

const _: () = assert!(BLOCK_SIZE.is_power_of_two() && BLOCK_SIZE == BLOCK_BYTES as u64);

/// The number of a 4 KiB block of a disk, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockIndex(pub u64);

impl BlockIndex {
    /// The byte position at which this block starts.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.0 * BLOCK_SIZE
    }

    /// The block that holds byte `position`.
    #[must_use]
    pub const fn holding(position: u64) -> Self {
        Self(position / BLOCK_SIZE)
    }

    /// The block after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The bytes of this block.
    #[must_use]
    pub const fn bytes(self) -> ByteRange {
        ByteRange {
            start: self.start(),
            end: self.start() + BLOCK_SIZE,
        }
    }
}

/// A half-open range of bytes of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// `len` bytes from `start`; `None` where the end does not fit in 64 bits.
    #[must_use]
    pub const fn new(start: u64, len: u64) -> Option<Self> {
        match start.checked_add(len) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// From `start` up to, not including, `end`; empty at `start` where `end` lies before it.
    #[must_use]
    pub const fn between(start: u64, end: u64) -> Self {
        Self {
            start,
            end: if end < start { start } else { end },
        }
    }

    /// The first byte.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// The byte after the last.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// How many bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// How many bytes, for use with slices.
    ///
    /// # Panics
    /// Never on the 64-bit machines cowherd is built for.
    #[must_use]
    pub fn len_usize(self) -> usize {
        usize::try_from(self.len()).expect("usize has 64 bits")
    }

    /// Whether it holds no byte.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The part that lies in `other` too; empty where they don't meet.
    #[must_use]
    pub fn intersect(self, other: Self) -> Self {
        Self::between(self.start.max(other.start), self.end.min(other.end))
    }

    /// Whether the two share a byte.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Where its bytes are among those of `blocks`, which it must not begin before.
    ///
    /// # Panics
    /// Never on the 64-bit machines cowherd is built for.
    #[must_use]
    pub fn place_in(self, blocks: BlockRange) -> Range<usize> {
        let start = Self::between(blocks.bytes().start(), self.start).len_usize();
        start..start + self.len_usize()
    }

    /// Every block the range touches, be it with one byte only.
    #[must_use]
    pub const fn blocks_touched(self) -> BlockRange {
        if self.is_empty() {
            let at = BlockIndex::holding(self.start);
            return BlockRange { start: at, end: at };
        }
        BlockRange {
            start: BlockIndex::holding(self.start),
            end: BlockIndex(self.end.div_ceil(BLOCK_SIZE)),
        }
    }

    /// Every block that lies wholly inside the range.
    #[must_use]
    pub const fn blocks_inside(self) -> BlockRange {
        let start = self.start.div_ceil(BLOCK_SIZE);
        let end = self.end / BLOCK_SIZE;
        BlockRange {
            start: BlockIndex(start),
            end: BlockIndex(if end < start { start } else { end }),
        }
    }

    /// The range cut into pieces that start and end on multiples of `step` (but for the two ends).
    ///
    /// `step` must not be 0.
    pub fn chunks(self, step: u64) -> impl Iterator<Item = Self> {
        let mut at = self.start;
        std::iter::from_fn(move || {
            if at >= self.end {
                return None;
            }
            let boundary = (at / step + 1).saturating_mul(step);
            let piece = Self {
                start: at,
                end: boundary.min(self.end),
            };
            at = piece.end;
            Some(piece)
        })
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.start, self.len())
    }
}

/// A half-open range of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockRange {
    start: BlockIndex,
    end: BlockIndex,
}

impl BlockRange {
    /// From `start` up to, not including, `end`; empty at `start` where `end` lies before it.
    #[must_use]
    pub fn between(start: BlockIndex, end: BlockIndex) -> Self {
        Self {
            start,
            end: end.max(start),
        }
    }

    /// The first block.
    #[must_use]
    pub const fn start(self) -> BlockIndex {
        self.start
    }

    /// The block after the last.
    #[must_use]
    pub const fn end(self) -> BlockIndex {
        self.end
    }

    /// How many blocks.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Whether it holds no block.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start.0 == self.end.0
    }

    /// The bytes of these blocks.
    #[must_use]
    pub const fn bytes(self) -> ByteRange {
        ByteRange {
            start: self.start.start(),
            end: self.end.start(),
        }
    }

    /// Whether the two share a block.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The indices as plain numbers, for loops.
    #[must_use]
    pub const fn indices(self) -> Range<u64> {
        self.start.0..self.end.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_inside_leave_out_partial_edges() {
        let range = ByteRange::between(1, 3 * BLOCK_SIZE - 1);
        assert_eq!(range.blocks_inside().indices(), 1..2);
        assert_eq!(range.blocks_touched().indices(), 0..3);
    }

    #[test]
    fn a_range_has_its_place_among_the_blocks_it_touches() {
        let range = ByteRange::between(BLOCK_SIZE + 7, 2 * BLOCK_SIZE + 9);
        assert_eq!(range.place_in(range.blocks_touched()), 7..BLOCK_BYTES + 9);
    }

    #[test]
    fn a_range_within_one_block_has_no_block_inside() {
        assert!(ByteRange::between(5, 100).blocks_inside().is_empty());
    }

    #[test]
    fn a_range_past_64_bits_is_refused() {
        assert_eq!(ByteRange::new(u64::MAX, 2), None);
    }

    #[test]
    fn chunks_break_on_multiples_of_the_step() {
        let pieces: Vec<_> = ByteRange::between(3, 21)
            .chunks(8)
            .map(|r| (r.start(), r.end()))
            .collect();
        assert_eq!(pieces, [(3, 8), (8, 16), (16, 21)]);
    }
}
