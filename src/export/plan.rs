//! Where the bytes of a range come from, pure.
//!
//! Invariants: the runs of a plan follow each other without gap or overlap and cover the range
//! exactly; neighbours have different sources.

use crate::overlay::map::{BlockMap, BlockState};
use crate::units::ByteRange;

/// Where bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The shared image.
    Image,
    /// The client's data file, at the same offset.
    Overlay,
    /// Nowhere: they are zeros.
    Zero,
}

impl From<BlockState> for Source {
    fn from(state: BlockState) -> Self {
        match state {
            BlockState::Absent => Self::Image,
            BlockState::Present => Self::Overlay,
            BlockState::Zero => Self::Zero,
        }
    }
}

/// Bytes that come from one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which bytes of the client's disk.
    pub range: ByteRange,
    /// Where they come from.
    pub source: Source,
}

/// The runs of `range`; without a map all is the image's.
pub fn plan(map: Option<&BlockMap>, range: ByteRange) -> impl Iterator<Item = Run> {
    let mut at = range.start();
    std::iter::from_fn(move || {
        let rest = ByteRange::between(at, range.end());
        if rest.is_empty() {
            return None;
        }
        let run = first_run(map, rest);
        at = run.range.end();
        Some(run)
    })
}

fn first_run(map: Option<&BlockMap>, rest: ByteRange) -> Run {
    let Some(map) = map else {
        return Run {
            range: rest,
            source: Source::Image,
        };
    };
    let blocks = rest.blocks_touched();
    let (run, state) = map.run(blocks.start(), blocks.end());
    Run {
        range: run.bytes().intersect(rest),
        source: state.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::{BLOCK_SIZE, BlockIndex, BlockRange};

    fn map(blocks: u64, set: &[(u64, u64, BlockState)]) -> BlockMap {
        let mut map = BlockMap::new(blocks);
        for &(start, end, state) in set {
            map.set(
                BlockRange::between(BlockIndex(start), BlockIndex(end)),
                state,
                |_, _| {},
            );
        }
        map
    }

    #[test]
    fn a_range_inside_one_block_is_one_run() {
        let map = map(10, &[(2, 3, BlockState::Present)]);
        let range = ByteRange::between(2 * BLOCK_SIZE + 5, 2 * BLOCK_SIZE + 9);
        let runs: Vec<_> = plan(Some(&map), range).collect();
        assert_eq!(
            runs,
            [Run {
                range,
                source: Source::Overlay
            }]
        );
    }

    #[test]
    fn an_empty_range_has_no_run() {
        assert_eq!(
            plan(Some(&map(10, &[])), ByteRange::between(4096, 4096)).count(),
            0
        );
    }

    #[test]
    fn without_an_overlay_all_comes_from_the_image() {
        let range = ByteRange::between(1, 1 << 40);
        assert_eq!(
            plan(None, range).collect::<Vec<_>>(),
            [Run {
                range,
                source: Source::Image
            }]
        );
    }

    proptest! {
        #[test]
        fn runs_cover_the_range_and_name_each_byte_s_source(
            sets in proptest::collection::vec((0u64..40, 1u64..20, 0u8..3), 0..10),
            start in 0u64..40 * BLOCK_SIZE,
            len in 0u64..40 * BLOCK_SIZE,
        ) {
            let sets: Vec<_> = sets
                .into_iter()
                .map(|(at, len, bits)| (at, at + len, BlockState::from_bits(bits).unwrap()))
                .collect();
            let map = map(40, &sets);
            let range = ByteRange::between(start, (start + len).min(40 * BLOCK_SIZE));
            let mut at = range.start();
            let mut before = None;
            for run in plan(Some(&map), range) {
                prop_assert_eq!(run.range.start(), at);
                prop_assert!(!run.range.is_empty() && before != Some(run.source));
                for block in run.range.blocks_touched().indices() {
                    prop_assert_eq!(Source::from(map.state(BlockIndex(block))), run.source);
                }
                (at, before) = (run.range.end(), Some(run.source));
            }
            prop_assert_eq!(at, range.end());
        }
    }
}
