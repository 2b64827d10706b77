//! A client's disk as it is at one moment, for who reads files out of it.
//!
//! Invariants: neither image nor overlay is changed; what is read of an image that changed
//! meanwhile is refused.

use std::io;
use std::sync::Arc;

use rangemap::RangeSet;

use super::plan::{Source, plan};
use crate::disk::{DiskFile, RealDisk, RealFile};
use crate::image::Image;
use crate::overlay::inspect::View;
use crate::overlay::map::BlockState;
use crate::units::{BlockIndex, BlockRange, ByteRange};

/// An image, and what a client has changed of it. What it goes on to change may show or not.
#[derive(Clone, Debug)]
pub struct Snapshot {
    image: Arc<Image>,
    file: RealFile,
    changes: Option<View<RealDisk>>,
}

impl Snapshot {
    /// The disk of a client, or of nobody.
    #[must_use]
    pub fn new(image: Arc<Image>, changes: Option<View<RealDisk>>) -> Self {
        let file = RealFile::from(Arc::clone(image.file()));
        Self {
            image,
            file,
            changes,
        }
    }

    /// The image below.
    #[must_use]
    pub const fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// Whether any block is another than the image's.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        let counts = self.changes.as_ref().map(|changes| changes.map.counts());
        counts.is_some_and(|counts| counts.present > 0 || counts.zero > 0)
    }

    /// Whether all of these blocks are the image's.
    #[must_use]
    pub fn is_as_image(&self, blocks: &RangeSet<u64>) -> bool {
        let Some(changes) = &self.changes else {
            return true;
        };
        blocks.iter().all(|range| {
            let range = BlockRange::between(BlockIndex(range.start), BlockIndex(range.end));
            let mut runs = changes.map.runs(range);
            runs.all(|(_, state)| state == BlockState::Absent)
        })
    }

    /// Bytes of the disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.image.size()
    }

    /// Fills `into` with the bytes at `offset`. May wait for disks.
    ///
    /// # Errors
    /// `UnexpectedEof` where they reach past the end; a failing disk; an image that changed.
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(into.len() as u64);
        let end = end.filter(|&end| end <= self.size());
        let whole = ByteRange::between(offset, end.ok_or(io::ErrorKind::UnexpectedEof)?);
        let map = self.changes.as_ref().map(|changes| &changes.map);
        let mut rest = into;
        for run in plan(map, whole) {
            let (part, behind) = rest.split_at_mut(run.range.len_usize());
            rest = behind;
            match (run.source, &self.changes) {
                (Source::Zero, _) => part.fill(0),
                (Source::Overlay, Some(changes)) => {
                    changes.data.read_at(part, run.range.start())?;
                }
                (Source::Image | Source::Overlay, _) => {
                    self.file.read_at(part, run.range.start())?;
                }
            }
        }
        Ok(self.image.verify_now()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::overlay_over;
    use crate::overlay::store::{BaseBlocks, Overlay};

    #[test]
    fn each_byte_is_the_client_s_or_the_image_s() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("disk.img");
        std::fs::write(&path, vec![1; 20_000]).unwrap();
        let image = Arc::new(Image::open(&path).unwrap());
        let mut overlay = overlay_over(&image, home.path());
        let block = ByteRange::between(4096, 8192);
        let base = BaseBlocks::default();
        overlay.write(block, &[2; 4096], &base).unwrap();
        overlay.trim(ByteRange::between(8192, 12_288)).unwrap();
        let disk = Snapshot::new(image, Some(overlay.view()));
        let mut seen = vec![9; 19_999];
        disk.read_at(&mut seen, 1).unwrap();
        let mut expected = vec![1; 20_000];
        expected[4096..8192].fill(2);
        expected[8192..12_288].fill(0);
        assert_eq!(seen, expected[1..]);
        assert!(disk.read_at(&mut [0; 2], 19_999).is_err());
    }

    #[test]
    fn blocks_that_the_client_has_changed_or_zeroed_are_not_the_image_s() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("disk.img");
        std::fs::write(&path, vec![1; 20_000]).unwrap();
        let image = Arc::new(Image::open(&path).unwrap());
        let mut overlay = overlay_over(&image, home.path());
        let mut whole = RangeSet::new();
        whole.insert(0..5);
        let disk =
            |overlay: &Overlay<RealDisk>| Snapshot::new(Arc::clone(&image), Some(overlay.view()));
        assert!(!disk(&overlay).is_changed() && disk(&overlay).is_as_image(&whole));
        let block = ByteRange::between(4096, 8192);
        let base = BaseBlocks::default();
        overlay.write(block, &[2; 4096], &base).unwrap();
        overlay.trim(ByteRange::between(12_288, 16_384)).unwrap();
        let disk = disk(&overlay);
        assert!(disk.is_changed());
        for (blocks, is_same) in [
            (vec![0..1, 2..3, 4..5], true),
            (vec![1..2, 4..5], false),
            (vec![0..1, 2..4], false),
            (vec![], true),
        ] {
            let set = RangeSet::from_iter(blocks.clone());
            assert_eq!(disk.is_as_image(&set), is_same, "{blocks:?}");
        }
        let bare = Snapshot::new(Arc::clone(&image), None);
        assert!(!bare.is_changed() && bare.is_as_image(&whole));
    }
}
