//! Notes in real files, as a killed server leaves them and the next one finds them.

use super::*;
use crate::disk::RealDisk;

const UUID: [u8; 16] = [5; 16];
const BOOT: [u8; 16] = [1; 16];

struct Scene {
    home: tempfile::TempDir,
    recent: Recent<RealDisk>,
    found: Vec<Change>,
}

fn open(home: &tempfile::TempDir, boot: [u8; 16]) -> (Recent<RealDisk>, Vec<Change>) {
    let files = NAMES.map(|name| {
        let path = home.path().join(name);
        let opened = RealDisk.open(&path);
        opened.or_else(|_| RealDisk.create(&path, 0)).unwrap()
    });
    Recent::open(files, UUID, boot).unwrap()
}

impl Scene {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let (recent, found) = open(&home, BOOT);
        Self {
            home,
            recent,
            found,
        }
    }

    fn killed_under(self, boot: [u8; 16]) -> Self {
        let (recent, found) = open(&self.home, boot);
        let home = self.home;
        Self {
            home,
            recent,
            found,
        }
    }

    fn killed(self) -> Self {
        self.killed_under(BOOT)
    }

    fn note(&mut self, blocks: (u64, u64), state: BlockState) {
        let blocks = range(blocks);
        self.recent.note(blocks, state);
        let note = self.recent.take().unwrap();
        note.file.write_at(&note.bytes, note.offset).unwrap();
        self.recent.written(&note, true);
    }

    fn flush(&mut self) {
        self.recent.flush_begins();
        self.recent.flushed();
    }
}

fn range((start, end): (u64, u64)) -> BlockRange {
    BlockRange::between(BlockIndex(start), BlockIndex(end))
}

fn changes(list: &[((u64, u64), BlockState)]) -> Vec<Change> {
    let change = |&(blocks, state)| Change {
        blocks: range(blocks),
        state,
    };
    list.iter().map(change).collect()
}

use BlockState::{Present, Zero};

#[test]
fn what_was_noted_is_found_in_its_order() {
    let mut scene = Scene::new();
    assert_eq!(scene.found, []);
    let far = u64::from(u32::MAX) + 7;
    scene.note((3, 5), Present);
    scene.note((3, 4), Zero);
    scene.note((far, far + 1), Present);
    let expected = changes(&[((3, 5), Present), ((3, 4), Zero), ((far, far + 1), Present)]);
    let scene = scene.killed();
    assert_eq!(scene.found, expected);
    // And again, by whoever comes after a server that was killed at once.
    assert_eq!(scene.killed().found, expected);
}

#[test]
fn a_run_longer_than_a_note_holds_is_noted_in_pieces() {
    let mut scene = Scene::new();
    let longest = u64::from(u32::MAX);
    scene.note((0, longest + 2), Zero);
    let pieces = changes(&[((0, longest), Zero), ((longest, longest + 2), Zero)]);
    assert_eq!(scene.killed().found, pieces);
}

#[test]
fn nothing_counts_under_another_boot_nor_after_it() {
    let mut scene = Scene::new();
    scene.note((3, 5), Present);
    let scene = scene.killed_under([2; 16]);
    assert_eq!(scene.found, []);
    assert_eq!(scene.killed_under(BOOT).found, []);
}

#[test]
fn nothing_counts_for_another_overlay() {
    let mut scene = Scene::new();
    scene.note((3, 5), Present);
    let files = NAMES.map(|name| RealDisk.open(&scene.home.path().join(name)).unwrap());
    let (_, found) = Recent::<RealDisk>::open(files, [6; 16], BOOT).unwrap();
    assert_eq!(found, []);
}

#[test]
fn files_are_used_again_once_they_are_flushed() {
    let mut scene = Scene::new();
    for round in 0..20 {
        scene.note((round, round + 1), Present);
        scene.note((round, round + 1), Zero);
        scene.flush();
    }
    let noted = NAMES.map(|name| {
        let bytes = std::fs::read(scene.home.path().join(name)).unwrap();
        bytes.iter().rposition(|byte| *byte != 0).unwrap()
    });
    assert!(noted.iter().all(|end| *end < 64 + 2 * 16), "{noted:?}");
}

#[test]
fn what_counts_goes_on_to_the_last_note_however_often_a_server_is_killed() {
    let mut scene = Scene::new();
    for round in 0..20 {
        scene.note((round, round + 1), Present);
        if round % 3 == 0 {
            scene.flush();
        }
        scene.note((round, round + 1), Zero);
        scene = scene.killed();
        let last = changes(&[((round, round + 1), Zero)]);
        assert!(scene.found.ends_with(&last), "{:?}", scene.found);
    }
}

#[test]
fn notes_that_a_turn_without_any_has_left_in_its_file_count_no_more() {
    let mut scene = Scene::new();
    scene.note((0, 1), Zero);
    scene.flush();
    scene.note((0, 1), Present);
    scene.flush();
    // Nothing is noted where the first note still is; then the second one is overwritten.
    scene.flush();
    scene.note((5, 6), Present);
    assert_eq!(scene.killed().found, changes(&[((5, 6), Present)]));
}

#[test]
fn a_flush_that_fails_keeps_all_notes() {
    let mut scene = Scene::new();
    scene.note((0, 1), Present);
    scene.recent.flush_begins();
    scene.note((1, 2), Present);
    scene.recent.flush_begins();
    scene.note((2, 3), Present);
    let all = changes(&[((0, 1), Present), ((1, 2), Present), ((2, 3), Present)]);
    assert_eq!(scene.killed().found, all);
}

#[test]
fn a_file_that_is_still_written_to_does_not_get_its_turn() {
    let mut scene = Scene::new();
    scene.recent.note(range((0, 1)), Present);
    let slow = scene.recent.take().unwrap();
    scene.flush();
    scene.note((1, 2), Present);
    // By now the flush has covered the slow one, but its write would land among newer notes.
    scene.flush();
    scene.note((2, 3), Present);
    slow.file.write_at(&slow.bytes, slow.offset).unwrap();
    scene.recent.written(&slow, true);
    let found = scene.killed().found;
    let last = changes(&[((1, 2), Present), ((2, 3), Present)]);
    assert!(found.ends_with(&last), "{found:?}");
}

#[test]
fn a_note_that_was_never_written_is_no_end() {
    let mut scene = Scene::new();
    scene.recent.note(range((0, 1)), Present);
    let _lost = scene.recent.take().unwrap();
    scene.note((1, 2), Present);
    assert_eq!(scene.killed().found, changes(&[((1, 2), Present)]));
}

#[test]
fn files_of_any_content_are_read_without_harm() {
    let home = tempfile::tempdir().unwrap();
    for size in [0, 1, 63, 64, 65, 79, 80, 4096, 5000] {
        let bytes: Vec<u8> = (0..=250).cycle().step_by(7).take(size).collect();
        std::fs::write(home.path().join(NAMES[0]), bytes).unwrap();
        assert_eq!(open(&home, BOOT).1, []);
    }
}

/// The change is in the map and was refused; when the block is written again nothing changes.
#[test]
fn a_note_that_could_not_be_written_goes_with_the_next() {
    let mut scene = Scene::new();
    scene.note((1, 2), Present);
    scene.recent.note(range((3, 4)), Present);
    let refused = scene.recent.take().unwrap();
    scene.recent.written(&refused, false);
    assert!(!scene.recent.is_written());
    let again = scene.recent.take().unwrap();
    again.file.write_at(&again.bytes, again.offset).unwrap();
    scene.recent.written(&again, true);
    assert!(scene.recent.is_written());
    let found = scene.killed().found;
    assert_eq!(found, changes(&[((1, 2), Present), ((3, 4), Present)]));
}
