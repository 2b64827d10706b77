//! The reader of journals: epochs that were written, then damaged. What comes out is what went in,
//! up to some epoch, or damage is told of.
//!
//! One in two inputs is damaged with its checksums made good again, so that what lies behind them
//! is reached; then only the promise is left that it ends, and with changes that lie in order.

use std::ops::Range;

use cowherd::overlay::journal::{
    ChainEnd, Change, Cursor, JOURNAL_BYTES, SECTOR, epoch_frames, replay, start_frame,
};
use cowherd::overlay::map::BlockState;
use cowherd::units::{BlockIndex, BlockRange};

use super::Input;

const UUID: [u8; 16] = [7; 16];
const GENERATION: u64 = 3;
const CHAIN: ChainEnd = ChainEnd {
    seq: 41,
    epoch: 9,
    checksum: 0xdead_beef,
};

/// See the module.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let (mut journal, epochs) = written(&mut input);
    let whole = journal.clone();
    let torn = damage(&mut journal, &mut input, choice & 1 != 0);
    let read = replay(&UUID, GENERATION, CHAIN, &journal);
    if choice & 1 != 0 {
        if let Ok(Some(replay)) = read {
            // The padding of the last frame may be cut.
            let sectors = journal.len().next_multiple_of(SECTOR);
            assert!(replay.cursor.offset <= sectors);
            assert!(replay.cursor.chain.seq >= CHAIN.seq);
        }
        return;
    }
    let Ok(read) = read else {
        assert!(torn, "damage where there is none");
        return;
    };
    let Some(read) = read else {
        assert!(torn, "a whole journal never began");
        return assert_none_is_whole(&journal, &whole, &epochs);
    };
    let mut so_far = Vec::new();
    let mut is_prefix = read.changes.is_empty();
    for epoch in &epochs {
        so_far.extend_from_slice(&epoch.changes);
        is_prefix |= read.changes == so_far;
    }
    assert!(
        is_prefix,
        "changes that were not written, or a part of an epoch"
    );
    assert!(
        torn || read.changes == so_far,
        "a whole journal lacks something"
    );
    let read_epochs = count_of(&read.changes, &epochs);
    assert_none_is_whole(
        &journal,
        &whole,
        &epochs[epochs.len().min(read_epochs + 1)..],
    );
}

/// Rule R8: where the reader stops, no frame of these later epochs may be left as it was written.
#[track_caller]
fn assert_none_is_whole(journal: &[u8], written: &[u8], later: &[Epoch]) {
    let sectors = later.iter().flat_map(|epoch| epoch.place.clone());
    for sector in sectors.step_by(SECTOR) {
        let place = sector..sector + SECTOR;
        assert!(
            journal.get(place.clone()) != written.get(place),
            "an epoch is missing before a whole frame at {sector}"
        );
    }
}

/// How many of `epochs`, each of which has changes, make up `changes`.
fn count_of(changes: &[Change], epochs: &[Epoch]) -> usize {
    let mut left = changes.len();
    let whole = epochs.iter().take_while(|epoch| {
        let fits = epoch.changes.len() <= left;
        left = left.saturating_sub(epoch.changes.len());
        fits
    });
    whole.count()
}

struct Epoch {
    changes: Vec<Change>,
    /// Its bytes in the file, whole sectors.
    place: Range<usize>,
}

/// A journal file, and the epochs in it.
fn written(input: &mut Input<'_>) -> (Vec<u8>, Vec<Epoch>) {
    let mut journal = Vec::new();
    let start = start_frame(&UUID, GENERATION, CHAIN);
    let mut cursor: Cursor = start.after;
    journal.extend_from_slice(&start.bytes);
    let mut epochs = Vec::new();
    for _ in 0..input.byte() % 6 {
        let count = 1 + usize::from(input.byte()) % 90;
        let changes: Vec<_> = (0..count).map(|_| change(input)).collect();
        let frames = epoch_frames(&UUID, cursor, &changes);
        assert_eq!(frames.offset, journal.len());
        journal.extend_from_slice(&frames.bytes);
        cursor = frames.after;
        epochs.push(Epoch {
            changes,
            place: frames.offset..journal.len(),
        });
    }
    // A little of what an earlier use of the file left, and zeros.
    journal.resize(journal.len() + SECTOR * usize::from(input.byte() % 3), 0);
    assert!(journal.len() <= JOURNAL_BYTES);
    (journal, epochs)
}

fn change(input: &mut Input<'_>) -> Change {
    let [a, b, c] = input.array();
    let start = BlockIndex(u64::from(a) << 8 | u64::from(b));
    let end = BlockIndex(start.0 + 1 + u64::from(c >> 2));
    let states = [BlockState::Absent, BlockState::Present, BlockState::Zero];
    Change {
        blocks: BlockRange::between(start, end),
        state: states[usize::from(c % 3)],
    }
}

/// Does some harm; whether the file is another one for it.
fn damage(journal: &mut Vec<u8>, input: &mut Input<'_>, reseal: bool) -> bool {
    let before = journal.clone();
    for _ in 0..input.byte() % 4 {
        let [how, a, b, value] = input.array();
        let at = usize::from(u16::from_be_bytes([a, b]));
        match how % 4 {
            0 => journal.truncate(at.max(1)),
            1 if at < journal.len() => journal[at] ^= value,
            2 => {
                let sector = at % journal.len().div_ceil(SECTOR) * SECTOR;
                let end = (sector + SECTOR).min(journal.len());
                journal[sector..end].fill(value);
            }
            _ => {
                let piece = input.bytes(usize::from(value));
                let start = at % journal.len();
                let end = (start + piece.len()).min(journal.len());
                journal[start..end].copy_from_slice(&piece[..end - start]);
            }
        }
    }
    if reseal {
        seal(journal);
    }
    *journal != before
}

/// Makes the checksums of all frames good, and the chain that they are in.
fn seal(journal: &mut [u8]) {
    let mut previous = CHAIN.checksum;
    for frame in journal.chunks_exact_mut(SECTOR) {
        let len = u32::from_le_bytes(frame[12..16].try_into().expect("4 bytes")) as usize;
        frame[8..12].copy_from_slice(&previous.to_le_bytes());
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&UUID);
        hasher.update(&frame[8..len.clamp(48, SECTOR)]);
        previous = hasher.finalize();
        frame[4..8].copy_from_slice(&previous.to_le_bytes());
    }
}
