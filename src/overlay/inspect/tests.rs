//! Looks at overlays on a real file system.

use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::disk::RealDisk;
use crate::overlay::flush::Begin;
use crate::overlay::header::Base;
use crate::overlay::map::BlockCounts;
use crate::overlay::store::{BaseBlocks, Zeroing};
use crate::overlay::{OverlayMode, Spec};

const BLOCK: u64 = 4096;
const BLOCKS: u64 = 300;

struct Bench {
    home: TempDir,
}

impl Bench {
    /// An overlay with blocks 10 to 20 present and 30 to 35 zero, closed.
    fn new() -> Self {
        let bench = Self {
            home: tempfile::tempdir().unwrap(),
        };
        let mut overlay = bench.open();
        write(&mut overlay, 10, 20);
        zero(&mut overlay, 30, 35);
        flush(&mut overlay);
        bench
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join("client")
    }

    fn open(&self) -> Overlay<RealDisk> {
        let spec = Spec {
            base: Base {
                size: BLOCKS * BLOCK,
                mtime_ns: 1,
                sample: 2,
            },
            mode: OverlayMode::Persistent,
            boot_id: [1; 16],
            uuid: [5; 16],
            now: 77,
        };
        Overlay::open(&RealDisk, &self.dir(), &spec).unwrap()
    }

    fn look(&self) -> View<RealDisk> {
        look(&RealDisk, &self.dir()).unwrap().unwrap()
    }

    fn check(&self) -> Vec<String> {
        let (findings, view) = check_records(&RealDisk, &self.dir());
        let compared = view.map(|view| disagreement(&view));
        let all = findings
            .into_iter()
            .chain(compared.iter().flat_map(Disagreement::findings));
        all.map(|finding| format!("{:?}: {finding}", finding.severity()))
            .collect()
    }

    /// Every file with its content and the time of its last change.
    fn fingerprint(&self) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
        let entries = std::fs::read_dir(self.dir()).unwrap();
        let mut files: Vec<_> = entries
            .map(|entry| {
                let path = entry.unwrap().path();
                let changed = path.metadata().unwrap().modified().unwrap();
                (path.clone(), std::fs::read(path).unwrap(), changed)
            })
            .collect();
        files.sort();
        files
    }

    /// Flips a byte of one of the files.
    fn damage(&self, file: &str, at: usize) {
        let path = self.dir().join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at] ^= 0x55;
        std::fs::write(path, bytes).unwrap();
    }
}

fn blocks(start: u64, end: u64) -> ByteRange {
    ByteRange::between(start * BLOCK, end * BLOCK)
}

fn write(overlay: &mut Overlay<RealDisk>, start: u64, end: u64) {
    let range = blocks(start, end);
    let data = vec![9; range.len_usize()];
    overlay.write(range, &data, &BaseBlocks::default()).unwrap();
}

fn zero(overlay: &mut Overlay<RealDisk>, start: u64, end: u64) {
    let range = blocks(start, end);
    overlay
        .zero(range, Zeroing::Free, &BaseBlocks::default())
        .unwrap();
}

fn flush(overlay: &mut Overlay<RealDisk>) {
    if let Begin::Run(cycle) = overlay.begin_cycle().unwrap() {
        let result = cycle.run();
        assert!(overlay.finish_cycle(result).unwrap().is_none());
    }
}

fn disagreement(view: &View<RealDisk>) -> Disagreement {
    let mut go_on = |_, _| ControlFlow::Continue(());
    let found = compare(&view.map, &view.data, &mut go_on).unwrap();
    found.unwrap()
}

#[test]
fn a_look_sees_what_recovery_would() {
    let bench = Bench::new();
    let view = bench.look();
    let counts = BlockCounts {
        present: 10,
        zero: 5,
    };
    assert_eq!(view.map.counts(), counts);
    assert_eq!(view.header.created, 77);
    assert!(view.journal.used > 512, "{:?}", view.journal);
    assert_eq!(bench.open().counts(), counts);
}

#[test]
fn a_look_and_a_check_change_nothing() {
    let bench = Bench::new();
    let before = bench.fingerprint();
    bench.look();
    bench.check();
    assert!(bench.fingerprint() == before);
}

#[test]
fn a_look_at_an_open_overlay_sees_what_is_not_flushed_too() {
    let bench = Bench::new();
    let mut overlay = bench.open();
    write(&mut overlay, 100, 101);
    let view = overlay.view();
    write(&mut overlay, 101, 110);
    assert_eq!(view.map.counts().present, 11);
    assert!(disagreement(&view).is_sound());
}

#[test]
fn a_look_does_not_begin_a_journal_that_a_crash_left_unbegun() {
    let bench = Bench::new();
    let journal = bench.dir().join("journal.b");
    std::fs::write(&journal, vec![0; JOURNAL_BYTES]).unwrap();
    let before = bench.fingerprint();
    let view = bench.look();
    assert_eq!(view.journal, JournalFill::new(1, 0));
    assert!(bench.fingerprint() == before);
    drop(bench.open());
    assert!(bench.look().journal.used > 0);
}

#[test]
fn where_no_overlay_is_none_is_seen() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("client");
    assert!(look(&RealDisk, &dir).unwrap().is_none());
    assert!(header(&RealDisk, &dir).unwrap().is_none());
}

#[test]
fn a_sound_overlay_has_no_findings() {
    assert_eq!(Bench::new().check(), Vec::<String>::new());
}

#[test]
fn a_damaged_copy_of_the_header_is_a_problem() {
    let bench = Bench::new();
    bench.damage("header", 4096 + 40);
    let found = bench.check();
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("Problem: copy 2"), "{found:?}");
}

#[test]
fn damage_that_recovery_refuses_is_a_problem() {
    for (file, at) in [("ckpt.1", 20), ("header", 40), ("data", 0)] {
        let bench = Bench::new();
        match file {
            "data" => std::fs::write(bench.dir().join("data"), [0]).unwrap(),
            "header" => {
                bench.damage(file, at);
                bench.damage(file, 4096 + at);
            }
            _ => bench.damage(file, at),
        }
        let found = bench.check();
        assert!(found[0].starts_with("Problem: "), "{file}: {found:?}");
    }
}

#[test]
fn a_present_block_in_a_hole_is_a_warning() {
    let bench = Bench::new();
    let data = RealDisk.open(&bench.dir().join("data")).unwrap();
    data.punch(blocks(12, 14)).unwrap();
    let found = bench.check();
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("Warning: 2 blocks"), "{found:?}");
    assert!(found[0].contains("byte 49152"), "{found:?}");
}

#[test]
fn a_block_that_is_hollow_once_only_is_not_hollow() {
    let bench = Bench::new();
    let sound = disagreement(&bench.look());
    let data = RealDisk.open(&bench.dir().join("data")).unwrap();
    data.punch(blocks(12, 14)).unwrap();
    let hollow = disagreement(&bench.look());
    assert!(!hollow.is_sound());
    assert!(hollow.also_in(&sound).is_sound());
    assert_eq!(hollow.also_in(&hollow), hollow);
}

#[test]
fn space_that_holds_nothing_is_noted() {
    let bench = Bench::new();
    let data = RealDisk.open(&bench.dir().join("data")).unwrap();
    data.write_at(&[1; 4096], 200 * BLOCK).unwrap();
    let found = bench.check();
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("Note: 4096 bytes"), "{found:?}");
}

#[test]
fn a_file_that_is_no_part_of_it_is_noted() {
    let bench = Bench::new();
    std::fs::write(bench.dir().join("ckpt.tmp"), "x").unwrap();
    let found = bench.check();
    assert_eq!(
        found,
        ["Note: file ckpt.tmp is left over; it is no part of the overlay"]
    );
}

#[test]
fn a_comparison_stops_when_told_to() {
    let view = Bench::new().look();
    let mut stop = |_, _| ControlFlow::Break(());
    let found = compare(&view.map, &view.data, &mut stop).unwrap();
    assert_eq!(found, None);
}

#[test]
fn the_last_client_is_remembered() {
    let bench = Bench::new();
    assert_eq!(last_client(&RealDisk, &bench.dir()), None);
    for peer in ["10.0.0.7:4711 and more", "local client"] {
        let client = LastClient {
            peer: peer.to_owned(),
            at: 99,
        };
        note_client(&RealDisk, &bench.dir(), &client).unwrap();
        assert_eq!(last_client(&RealDisk, &bench.dir()), Some(client));
    }
    assert_eq!(bench.check(), Vec::<String>::new());
}

#[test]
fn a_damaged_note_of_the_last_client_is_no_note() {
    let bench = Bench::new();
    for note in ["", "\0\0\0\0", "99 a", "x a\n", "99 \u{1b}[2J\n"] {
        std::fs::write(bench.dir().join(LAST_CLIENT), note).unwrap();
        assert_eq!(last_client(&RealDisk, &bench.dir()), None, "{note:?}");
    }
}
