//! The journal's codec against torn, stale and damaged files.

use proptest::prelude::*;

use super::*;

const UUID: [u8; 16] = *b"0123456789abcdef";
const CHAIN: ChainEnd = ChainEnd {
    seq: 41,
    epoch: 7,
    checksum: 0xdead_beef,
};

fn change(start: u64, len: u64) -> Change {
    let blocks = BlockRange::between(BlockIndex(start), BlockIndex(start + len));
    Change {
        blocks,
        state: BlockState::Present,
    }
}

/// A journal file of generation 3 with these epochs.
struct File {
    bytes: Vec<u8>,
    cursor: Cursor,
}

impl File {
    fn start() -> Self {
        let mut file = Self {
            bytes: vec![0; JOURNAL_BYTES],
            cursor: Cursor {
                generation: 3,
                offset: 0,
                chain: CHAIN,
            },
        };
        file.put(start_frame(&UUID, 3, CHAIN));
        file
    }

    fn put(&mut self, frames: Frames) {
        self.bytes[frames.offset..frames.offset + frames.bytes.len()]
            .copy_from_slice(&frames.bytes);
        self.cursor = frames.after;
    }

    fn epoch(mut self, changes: &[Change]) -> Self {
        self.put(epoch_frames(&UUID, self.cursor, changes));
        self
    }

    fn replay(&self) -> Result<Option<Replay>, JournalDamage> {
        replay(&UUID, 3, CHAIN, &self.bytes)
    }
}

fn many(count: u64) -> Vec<Change> {
    (0..count).map(|i| change(i * 10, 3)).collect()
}

#[test]
fn whole_epochs_come_back_in_order() {
    let file = File::start().epoch(&[change(1, 2)]).epoch(&many(1000));
    let replay = file.replay().unwrap().unwrap();
    assert_eq!(replay.changes, [vec![change(1, 2)], many(1000)].concat());
    assert_eq!(replay.cursor, file.cursor);
}

#[test]
fn the_size_of_an_epoch_is_known_before_it_is_written() {
    for changes in [1, 38, 39, 1000, CHANGES_MAX] {
        let frames = epoch_frames(&UUID, File::start().cursor, &many(changes as u64));
        assert_eq!(
            frames.bytes.len(),
            epoch_bytes(changes),
            "{changes} changes"
        );
    }
    assert!(epoch_bytes(CHANGES_MAX) + SECTOR <= JOURNAL_BYTES);
}

#[test]
fn a_file_never_begun_says_nothing() {
    assert_eq!(replay(&UUID, 3, CHAIN, &vec![0; JOURNAL_BYTES]), Ok(None));
}

#[test]
fn frames_of_an_earlier_use_of_the_file_say_nothing() {
    let file = File::start().epoch(&many(5));
    assert_eq!(replay(&UUID, 5, CHAIN, &file.bytes), Ok(None));
}

#[test]
fn frames_of_another_overlay_say_nothing() {
    let file = File::start().epoch(&many(5));
    assert_eq!(replay(b"another overlay!", 3, CHAIN, &file.bytes), Ok(None));
}

#[test]
fn an_epoch_torn_at_any_sector_is_left_out_as_a_whole() {
    let whole = File::start().epoch(&[change(1, 2)]);
    let begin = whole.cursor.offset;
    let file = whole.epoch(&many(1000));
    for sector in (begin..file.cursor.offset).step_by(SECTOR) {
        let mut torn = file.bytes.clone();
        torn[sector..sector + SECTOR].fill(0);
        let replay = replay(&UUID, 3, CHAIN, &torn).unwrap().unwrap();
        assert_eq!(replay.changes, [change(1, 2)], "sector at {sector}");
    }
}

#[test]
fn a_missing_epoch_before_a_whole_one_is_refused() {
    let first = File::start();
    let bad = first.cursor.offset;
    let mut file = first.epoch(&many(3));
    let later = file.cursor.offset;
    file = file.epoch(&many(4));
    file.bytes[bad..bad + SECTOR].fill(0);
    assert_eq!(file.replay(), Err(JournalDamage::Hole { bad, later }));
}

/// The last epoch too: a torn write would have left what was there before, not this.
#[test]
fn any_flipped_byte_of_any_epoch_is_refused_or_does_no_harm() {
    let file = File::start().epoch(&many(10)).epoch(&many(100));
    let whole = file.replay().unwrap().unwrap().changes;
    for at in SECTOR..file.cursor.offset {
        for bits in [1, 0x80, 0xff] {
            let mut bytes = file.bytes.clone();
            bytes[at] ^= bits;
            match replay(&UUID, 3, CHAIN, &bytes) {
                Err(JournalDamage::Damaged(place)) => assert_eq!(place, at / SECTOR * SECTOR),
                Ok(Some(replay)) => assert_eq!(replay.changes, whole, "byte {at}"),
                other => panic!("byte {at}: {other:?}"),
            }
        }
    }
}

/// A shorter epoch took the place of a longer one that was lost but for its later frames.
#[test]
fn remains_of_a_lost_epoch_are_neither_data_nor_damage() {
    let begin = File::start();
    let at = begin.cursor;
    let lost = epoch_frames(&UUID, at, &many(100));
    let mut file = begin;
    file.bytes[at.offset + SECTOR..][..lost.bytes.len() - SECTOR]
        .copy_from_slice(&lost.bytes[SECTOR..]);
    let file = file.epoch(&many(3));
    assert_eq!(file.replay().unwrap().unwrap().changes, many(3));
    let file = file.epoch(&many(50));
    assert_eq!(
        file.replay().unwrap().unwrap().changes,
        [many(3), many(50)].concat()
    );
}

#[test]
fn a_damaged_start_frame_before_an_epoch_is_refused() {
    let mut file = File::start().epoch(&many(3));
    file.bytes[20] ^= 1;
    assert_eq!(
        file.replay(),
        Err(JournalDamage::Hole {
            bad: 0,
            later: SECTOR
        })
    );
}

#[test]
fn a_start_frame_that_does_not_continue_the_chain_is_no_start() {
    let file = File::start();
    let other = ChainEnd { seq: 40, ..CHAIN };
    assert_eq!(replay(&UUID, 3, other, &file.bytes), Ok(None));
}

#[test]
fn the_format_has_not_changed() {
    let frames = epoch_frames(&UUID, File::start().cursor, &[change(0x1_0000_0002, 5)]);
    // The checksums were also computed by another CRC-32 (zlib).
    let header = "43574a315bc80dc64a2100c23c000000\
                  03000000000000002b00000000000000\
                  08000000000000000300010000000000";
    let entry = "020000000100010005000000";
    let hex: String = frames.bytes[..60]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(hex, format!("{header}{entry}"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_behind_the_last_epoch_change_nothing(
        garbage in proptest::collection::vec(any::<u8>(), 0..2048),
    ) {
        let mut file = File::start().epoch(&many(10));
        let at = file.cursor.offset;
        file.bytes[at..at + garbage.len()].copy_from_slice(&garbage);
        prop_assert_eq!(file.replay().unwrap().unwrap().changes, many(10));
    }
}
