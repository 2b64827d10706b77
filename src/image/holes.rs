//! Where an image holds no data, found once.
//!
//! Invariants:
//! - What is called a hole reads as zeros, as long as the image is the one that was looked at. What
//!   is called data may be zeros too: that is never wrong.
//! - The ranges of data are in order, none is empty, none touches the next.

use std::io;

use crate::disk::{RealFile, next_data};
use crate::limits::IMAGE_DATA_RANGES_MAX;
use crate::units::ByteRange;

/// The holes of an image, and with them its data.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Holes {
    data: Vec<ByteRange>,
    /// Bytes of the image: all beyond is a hole.
    size: u64,
}

impl Holes {
    /// The holes of `file`, whose first `size` bytes are the image; may wait for the disk.
    ///
    /// Of an image with very many holes only the first are found.
    ///
    /// # Errors
    /// Whatever the system answers.
    pub fn find(file: &RealFile, size: u64) -> io::Result<Self> {
        let mut data: Vec<ByteRange> = Vec::new();
        let mut at = 0;
        while let Some(found) = next_data(file, ByteRange::between(at, size))? {
            if data.len() >= IMAGE_DATA_RANGES_MAX {
                data.push(ByteRange::between(found.start(), size));
                break;
            }
            data.push(found);
            at = found.end();
        }
        Ok(Self { data, size })
    }

    /// No hole anywhere in an image of `size` bytes: what is safe to say of any.
    #[must_use]
    pub fn none(size: u64) -> Self {
        let data = vec![ByteRange::between(0, size)];
        Self { data, size }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data == [ByteRange::between(0, self.size)]
    }

    /// The first part of `range`, which is not empty, that is all hole or all data, and whether it
    /// is a hole.
    #[must_use]
    pub fn run(&self, range: ByteRange) -> (ByteRange, bool) {
        let start = range.start();
        // The first range of data that does not lie wholly before.
        let next = self.data.partition_point(|data| data.end() <= start);
        match self.data.get(next) {
            Some(data) if data.start() <= start => (
                ByteRange::between(start, data.end()).intersect(range),
                false,
            ),
            Some(data) => (
                ByteRange::between(start, data.start()).intersect(range),
                true,
            ),
            None => (range, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange::between(start, end)
    }

    /// A sparse file with data at these places, and its holes as found.
    fn sparse(size: u64, data: &[(u64, &[u8])]) -> Holes {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        for (at, bytes) in data {
            file.write_all_at(bytes, *at).unwrap();
        }
        find(file, size)
    }

    fn find(file: File, size: u64) -> Holes {
        Holes::find(&RealFile::from(Arc::new(file)), size).unwrap()
    }

    #[test]
    fn what_was_never_written_is_a_hole() {
        let holes = sparse(8 * MIB, &[(4 * MIB, &[1; 4096])]);
        assert_eq!(holes.run(range(0, 8 * MIB)), (range(0, 4 * MIB), true));
        let (run, is_hole) = holes.run(range(4 * MIB, 8 * MIB));
        assert!(!is_hole && run.start() == 4 * MIB && run.end() >= 4 * MIB + 4096);
        assert_eq!(
            holes.run(range(7 * MIB, 8 * MIB)),
            (range(7 * MIB, 8 * MIB), true)
        );
        assert!(!holes.is_empty());
    }

    #[test]
    fn an_image_full_of_data_has_no_hole() {
        let holes = sparse(MIB, &[(0, &[0; 1 << 20])]);
        assert_eq!(holes.run(range(5, MIB)), (range(5, MIB), false));
        assert!(holes.is_empty());
    }

    #[test]
    fn what_lies_past_the_end_is_a_hole() {
        assert_eq!(Holes::none(5).run(range(0, 10)), (range(0, 5), false));
        assert_eq!(Holes::none(5).run(range(5, 10)), (range(5, 10), true));
    }

    #[test]
    fn of_very_many_holes_the_last_ones_are_taken_for_data() {
        let size = (IMAGE_DATA_RANGES_MAX as u64 + 10) * 4096 * 2;
        let data: Vec<_> = (0..IMAGE_DATA_RANGES_MAX as u64)
            .map(|n| range(n * 8192, n * 8192 + 4096))
            .chain([range(IMAGE_DATA_RANGES_MAX as u64 * 8192, size)])
            .collect();
        let holes = Holes { data, size };
        assert_eq!(holes.run(range(4096, size)), (range(4096, 8192), true));
        assert_eq!(
            holes.run(range(size - 9, size)),
            (range(size - 9, size), false)
        );
    }

    proptest! {
        #[test]
        fn each_byte_of_a_hole_is_zero_and_runs_make_progress(
            written in proptest::collection::vec((0..200_u64, 1..30_usize), 0..8),
        ) {
            let size = 230 * 4096 + 100;
            let file = tempfile::tempfile().unwrap();
            file.set_len(size).unwrap();
            for (block, blocks) in written {
                file.write_all_at(&vec![7; blocks * 4096], block * 4096).unwrap();
            }
            let mut content = vec![0; usize::try_from(size).unwrap()];
            file.read_exact_at(&mut content, 0).unwrap();
            let holes = find(file, size);
            let mut at = 0;
            let mut before = None;
            while at < size {
                let (run, is_hole) = holes.run(range(at, size));
                prop_assert!(run.start() == at && !run.is_empty() && before != Some(is_hole));
                let bytes = &content[usize::try_from(at).unwrap()..][..run.len_usize()];
                prop_assert!(!is_hole || bytes.iter().all(|byte| *byte == 0));
                (at, before) = (run.end(), Some(is_hole));
            }
        }
    }
}
