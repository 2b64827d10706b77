//! What a client's disk is made of, stretch by stretch, pure.
//!
//! Invariants: the stretches of a range follow each other without gap or overlap and cover it
//! exactly; none is empty. A stretch that is called zero reads as zeros.

use super::plan::{Run, Source, plan};
use crate::image::Holes;
use crate::overlay::map::BlockMap;
use crate::units::ByteRange;

/// What a stretch of a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The image's, with any bytes.
    Image,
    /// The image's, where it has a hole.
    Hole,
    /// The client's own, with any bytes.
    Own,
    /// The client's own, cleared.
    OwnZero,
}

impl Kind {
    /// Whether it is known to read as zeros.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        matches!(self, Self::Hole | Self::OwnZero)
    }

    /// Whether the client has changed it: what the image holds there is not seen.
    #[must_use]
    pub const fn is_own(self) -> bool {
        matches!(self, Self::Own | Self::OwnZero)
    }
}

/// Bytes of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Which bytes of the client's disk.
    pub range: ByteRange,
    /// What they are.
    pub kind: Kind,
}

/// The layers of a disk; without a map all is the image's, and without holes all of that is data.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// Which blocks are the client's own.
    pub map: Option<&'a BlockMap>,
    /// Where the image below has holes.
    pub holes: Option<&'a Holes>,
}

impl<'a> Layers<'a> {
    /// The stretches of `range`.
    pub fn stretches(self, range: ByteRange) -> impl Iterator<Item = Stretch> + 'a {
        plan(self.map, range).flat_map(move |run| self.stretches_of(run))
    }

    /// Where the bytes of `range` come from: of a hole of the image, from nowhere.
    pub fn runs(self, range: ByteRange) -> impl Iterator<Item = Run> + 'a {
        self.stretches(range).map(|Stretch { range, kind }| {
            let source = match kind {
                Kind::Image => Source::Image,
                Kind::Own => Source::Overlay,
                Kind::Hole | Kind::OwnZero => Source::Zero,
            };
            Run { range, source }
        })
    }

    fn stretches_of(self, run: Run) -> impl Iterator<Item = Stretch> + 'a {
        let mut at = run.range.start();
        std::iter::from_fn(move || {
            let rest = ByteRange::between(at, run.range.end());
            if rest.is_empty() {
                return None;
            }
            let stretch = self.first_of(rest, run.source);
            at = stretch.range.end();
            Some(stretch)
        })
    }

    fn first_of(self, rest: ByteRange, source: Source) -> Stretch {
        let (range, kind) = match (source, self.holes) {
            (Source::Overlay, _) => (rest, Kind::Own),
            (Source::Zero, _) => (rest, Kind::OwnZero),
            (Source::Image, None) => (rest, Kind::Image),
            (Source::Image, Some(holes)) => match holes.run(rest) {
                (range, true) => (range, Kind::Hole),
                (range, false) => (range, Kind::Image),
            },
        };
        Stretch { range, kind }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::disk::RealFile;
    use crate::overlay::map::BlockState;
    use crate::units::{BLOCK_SIZE, BlockIndex, BlockRange};

    const BLOCKS: u64 = 64;

    fn set(map: &mut BlockMap, start: u64, end: u64, state: BlockState) {
        let range = BlockRange::between(BlockIndex(start), BlockIndex(end));
        map.set(range, state, |_, _| {});
    }

    /// The holes of an image that holds data in every other eight blocks.
    fn holes() -> Holes {
        let file = tempfile::tempfile().unwrap();
        file.set_len(BLOCKS * BLOCK_SIZE).unwrap();
        for block in (0..BLOCKS).filter(|block| block / 8 % 2 == 0) {
            file.write_all_at(&[1; 4096], block * BLOCK_SIZE).unwrap();
        }
        Holes::find(&RealFile::from(Arc::new(file)), BLOCKS * BLOCK_SIZE).unwrap()
    }

    fn kinds(map: Option<&BlockMap>, holes: Option<&Holes>) -> Vec<(u64, Kind)> {
        let whole = ByteRange::between(0, 24 * BLOCK_SIZE);
        let stretches = Layers { map, holes }.stretches(whole);
        stretches
            .map(|stretch| (stretch.range.len() / BLOCK_SIZE, stretch.kind))
            .collect()
    }

    #[test]
    fn a_hole_shows_through_where_the_client_wrote_nothing() {
        let mut map = BlockMap::new(BLOCKS);
        set(&mut map, 10, 12, BlockState::Present);
        set(&mut map, 12, 13, BlockState::Zero);
        assert_eq!(
            kinds(Some(&map), Some(&holes())),
            [
                (8, Kind::Image),
                (2, Kind::Hole),
                (2, Kind::Own),
                (1, Kind::OwnZero),
                (3, Kind::Hole),
                (8, Kind::Image),
            ]
        );
    }

    #[test]
    fn while_holes_are_not_known_all_of_the_image_is_data() {
        assert_eq!(kinds(None, None), [(24, Kind::Image)]);
    }

    proptest! {
        #[test]
        fn stretches_cover_the_range_and_are_what_map_and_image_say(
            sets in proptest::collection::vec((0..BLOCKS, 1..20_u64, 0..3_u8), 0..10),
            start in 0..BLOCKS * BLOCK_SIZE,
            len in 0..BLOCKS * BLOCK_SIZE,
        ) {
            let mut map = BlockMap::new(BLOCKS);
            for (at, blocks, bits) in sets {
                set(&mut map, at, at + blocks, BlockState::from_bits(bits).unwrap());
            }
            let holes = holes();
            let layers = Layers { map: Some(&map), holes: Some(&holes) };
            let range = ByteRange::between(start, (start + len).min(BLOCKS * BLOCK_SIZE));
            let mut at = range.start();
            for Stretch { range, kind } in layers.stretches(range) {
                prop_assert_eq!(range.start(), at);
                prop_assert!(!range.is_empty());
                for block in range.blocks_touched().indices() {
                    let expected = match map.state(BlockIndex(block)) {
                        BlockState::Present => Kind::Own,
                        BlockState::Zero => Kind::OwnZero,
                        BlockState::Absent if block / 8 % 2 == 0 => Kind::Image,
                        BlockState::Absent => Kind::Hole,
                    };
                    prop_assert_eq!(kind, expected);
                }
                at = range.end();
            }
            prop_assert_eq!(at, range.end());
        }
    }
}
