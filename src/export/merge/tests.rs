//! Images and overlays merged on a real file system.

#![allow(
    clippy::cast_possible_truncation,
    reason = "small numbers of the tests"
)]

use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::disk::{Disk, DiskFile};
use crate::export::overlay_over;
use crate::overlay::Overlay;
use crate::overlay::store::{BaseBlocks, Zeroing};

/// Not whole blocks, with a hole in the middle.
const SIZE: usize = (40 << 20) + 700;
const HOLE: std::ops::Range<usize> = 4 << 20..30 << 20;

struct Bench {
    home: TempDir,
    image: Image,
    overlay: Overlay<RealDisk>,
    /// What the client sees.
    disk: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut disk: Vec<u8> = (0..SIZE).map(|i| (i % 249) as u8 + 1).collect();
        disk[HOLE].fill(0);
        let path = home.path().join("disk.img");
        let file = RealDisk.create(&path, SIZE as u64).unwrap();
        file.write_at(&disk[..HOLE.start], 0).unwrap();
        file.write_at(&disk[HOLE.end..], HOLE.end as u64).unwrap();
        let image = Image::open(&path).unwrap();
        let overlay = overlay_over(&image, home.path());
        Self {
            home,
            image,
            overlay,
            disk,
        }
    }

    fn write(&mut self, start: usize, end: usize) {
        let range = ByteRange::between(start as u64, end as u64);
        let data = vec![0xee; end - start];
        self.overlay
            .write(range, &data, &BaseBlocks::default())
            .unwrap();
        self.disk[start..end].fill(0xee);
    }

    fn zero(&mut self, start: usize, end: usize) {
        let range = ByteRange::between(start as u64, end as u64);
        self.overlay
            .zero(range, Zeroing::Free, &BaseBlocks::default())
            .unwrap();
        self.disk[start..end].fill(0);
    }

    fn target(&self) -> PathBuf {
        self.home.path().join("new.img")
    }

    fn merge(&self) -> Result<Merged, MergeError> {
        let mut go_on = |_, _| ControlFlow::Continue(());
        merge(
            &self.image,
            &self.overlay.view(),
            &self.target(),
            &mut go_on,
        )
    }

    /// What lies beside the image and the overlay.
    fn others(&self) -> Vec<String> {
        let mut names = RealDisk.list(self.home.path()).unwrap();
        names.retain(|name| !["disk.img", "client"].contains(&name.as_str()));
        names
    }
}

#[test]
fn the_new_image_is_what_the_client_sees() {
    let mut bench = Bench::new();
    bench.write(0, 8192);
    bench.write(10 << 20, 12 << 20);
    bench.write(39 << 20, SIZE);
    bench.zero(1 << 20, 2 << 20);
    bench.zero(11 << 20, (11 << 20) + 4096);
    let merged = bench.merge().unwrap();
    assert_eq!(merged.size, SIZE as u64);
    let new = std::fs::read(bench.target()).unwrap();
    assert!(new == bench.disk);
    assert_eq!(bench.others(), ["new.img"]);
}

#[test]
fn an_overlay_without_blocks_gives_the_image_again() {
    let bench = Bench::new();
    bench.merge().unwrap();
    assert!(std::fs::read(bench.target()).unwrap() == bench.disk);
}

#[test]
fn holes_stay_holes_and_zeroed_blocks_become_some() {
    let mut bench = Bench::new();
    bench.zero(32 << 20, 40 << 20);
    bench.merge().unwrap();
    let space = bench.target().metadata().unwrap().blocks() * 512;
    assert!(space < 8 << 20, "{space} bytes");
}

#[test]
fn a_file_that_is_there_is_not_replaced() {
    let bench = Bench::new();
    std::fs::write(bench.target(), "mine").unwrap();
    assert!(matches!(bench.merge(), Err(MergeError::Exists(_))));
    assert_eq!(std::fs::read(bench.target()).unwrap(), b"mine");
}

#[test]
fn another_image_than_the_overlay_s_is_refused() {
    let mut bench = Bench::new();
    let path = bench.home.path().join("disk.img");
    std::fs::write(&path, vec![1; SIZE]).unwrap();
    bench.image = Image::open(&path).unwrap();
    let refused = bench.merge().unwrap_err();
    assert!(
        matches!(refused, MergeError::OtherImage { .. }),
        "{refused}"
    );
    assert!(bench.others().is_empty());
}

#[test]
fn an_image_that_changes_meanwhile_gives_nothing() {
    let bench = Bench::new();
    let path = bench.home.path().join("disk.img");
    let mut change = |_, _| {
        std::fs::write(&path, "other").unwrap();
        ControlFlow::Continue(())
    };
    let view = bench.overlay.view();
    let failed = merge(&bench.image, &view, &bench.target(), &mut change);
    assert!(failed.is_err());
    assert!(bench.others().is_empty());
}

#[test]
fn a_merge_that_is_stopped_leaves_nothing() {
    let bench = Bench::new();
    let mut steps = 0;
    let mut stop = |done, total| {
        assert!(done < total && total == SIZE as u64);
        steps += 1;
        match steps {
            1 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    };
    let stopped = merge(
        &bench.image,
        &bench.overlay.view(),
        &bench.target(),
        &mut stop,
    );
    assert!(matches!(stopped, Err(MergeError::Stopped)));
    assert!(bench.others().is_empty());
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let bench = Bench::new();
    let target = bench.home.path().join("nowhere/new.img");
    let mut go_on = |_, _| ControlFlow::Continue(());
    let failed = merge(&bench.image, &bench.overlay.view(), &target, &mut go_on);
    let message = failed.unwrap_err().to_string();
    assert!(message.contains("nowhere/new.img"), "{message}");
}
