//! The format of an overlay's files, held by golden files: what this version writes, and that it
//! reads what was written by the version that made them.
//!
//! Golden files are hex dumps of the rows that are not all zeros. `UPDATE_GOLDEN=1` writes them
//! anew; a change of them is a change of the format, and needs a new version number (man page
//! cowherd-overlay(5)).

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use cowherd::disk::{DiskFile, RealDisk};
use cowherd::overlay::checkpoint::{self, Snapshot};
use cowherd::overlay::flush::Begin;
use cowherd::overlay::header::Base;
use cowherd::overlay::journal::ChainEnd;
use cowherd::overlay::map::{BlockMap, BlockState, LEAF_BLOCKS};
use cowherd::overlay::store::BaseBlocks;
use cowherd::overlay::{Overlay, OverlayMode, Spec};
use cowherd::units::{BLOCK_BYTES, BLOCK_SIZE, BlockIndex, BlockRange, ByteRange};

const ROW: usize = 16;
const BLOCKS: u64 = 20;
const UUID: [u8; 16] = *b"golden overlay 1";

fn spec() -> Spec {
    let base = Base {
        size: BLOCKS * BLOCK_SIZE - 5,
        mtime_ns: 1_234_567_890,
        sample: 0xc0ff_ee00,
    };
    Spec {
        base,
        mode: OverlayMode::Persistent,
        boot_id: [7; 16],
        uuid: UUID,
        now: 1_790_000_000,
    }
}

fn open(dir: &Path) -> Overlay<RealDisk> {
    Overlay::open(&RealDisk, dir, &spec()).unwrap()
}

fn flush(overlay: &mut Overlay<RealDisk>) {
    let Begin::Run(cycle) = overlay.begin_cycle().unwrap() else {
        panic!("nothing to flush")
    };
    overlay.finish_cycle(cycle.run()).unwrap();
}

/// An overlay with two epochs in its journal.
fn make(dir: &Path) {
    let mut overlay = open(dir);
    let blocks = |start: u64, end: u64| ByteRange::between(start * BLOCK_SIZE, end * BLOCK_SIZE);
    let data = vec![0xab; 3 * BLOCK_BYTES];
    overlay
        .write(blocks(2, 5), &data, &BaseBlocks::default())
        .unwrap();
    overlay.trim(blocks(9, 11)).unwrap();
    flush(&mut overlay);
    overlay.trim(blocks(3, 4)).unwrap();
    flush(&mut overlay);
}

/// The states that such an overlay has.
fn states() -> String {
    "..P0P....00.........".to_owned()
}

fn states_of(overlay: &Overlay<RealDisk>) -> String {
    (0..BLOCKS)
        .map(|block| match overlay.map().state(BlockIndex(block)) {
            BlockState::Absent => '.',
            BlockState::Present => 'P',
            BlockState::Zero => '0',
        })
        .collect()
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/overlay-1")
        .join(name)
}

fn dump(bytes: &[u8]) -> String {
    let mut text = format!("{} bytes\n", bytes.len());
    for (number, row) in bytes.chunks(ROW).enumerate() {
        if row.iter().any(|&byte| byte != 0) {
            write!(text, "{:08x} ", number * ROW).unwrap();
            row.iter()
                .for_each(|byte| write!(text, " {byte:02x}").unwrap());
            text.push('\n');
        }
    }
    text
}

fn undump(text: &str) -> Vec<u8> {
    let (len, rows) = text.split_once(" bytes\n").unwrap();
    let mut bytes = vec![0; len.parse().unwrap()];
    for row in rows.lines() {
        let (offset, row) = row.split_once("  ").unwrap();
        let start = usize::from_str_radix(offset, 16).unwrap();
        for (at, byte) in row.split(' ').enumerate() {
            bytes[start + at] = u8::from_str_radix(byte, 16).unwrap();
        }
    }
    bytes
}

#[track_caller]
fn assert_golden(file: &Path, name: &str) {
    let found = dump(&fs::read(file).unwrap());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(golden("")).unwrap();
        fs::write(golden(name), &found).unwrap();
    }
    let expected = fs::read_to_string(golden(name)).unwrap();
    assert!(
        found == expected,
        "{name}: the format has changed:\n{found}\ninstead of\n{expected}"
    );
}

#[test]
fn an_overlay_is_written_as_it_ever_was() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("client");
    make(&dir);
    for name in ["header", "ckpt.1", "journal.a", "journal.b"] {
        assert_golden(&dir.join(name), name);
    }
}

#[test]
fn an_overlay_of_an_earlier_day_is_read() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("client");
    fs::create_dir(&dir).unwrap();
    for name in ["header", "ckpt.1", "journal.a", "journal.b"] {
        let text = fs::read_to_string(golden(name)).unwrap();
        fs::write(dir.join(name), undump(&text)).unwrap();
    }
    let data = fs::File::create(dir.join("data")).unwrap();
    data.set_len(BLOCKS * BLOCK_SIZE).unwrap();
    let overlay = open(&dir);
    assert_eq!(states_of(&overlay), states());
    assert_eq!(overlay.header().created, 1_790_000_000);
    assert_eq!(overlay.data().size().unwrap(), BLOCKS * BLOCK_SIZE);
}

fn snapshot() -> Snapshot {
    let mut map = BlockMap::new(3 * LEAF_BLOCKS);
    let mut set = |start, end, state| {
        let blocks = BlockRange::between(BlockIndex(start), BlockIndex(end));
        map.set(blocks, state, |_, _| {});
    };
    set(1, 4, BlockState::Present);
    set(2 * LEAF_BLOCKS + 30, 2 * LEAF_BLOCKS + 35, BlockState::Zero);
    Snapshot {
        generation: 5,
        chain: ChainEnd {
            seq: 9,
            epoch: 8,
            checksum: 7,
        },
        map,
    }
}

#[test]
fn a_checkpoint_is_written_as_it_ever_was() {
    let home = tempfile::tempdir().unwrap();
    checkpoint::write(&RealDisk, home.path(), &UUID, &snapshot(), true).unwrap();
    assert_golden(&home.path().join("ckpt.5"), "ckpt.5");
}

#[test]
fn a_checkpoint_of_an_earlier_day_is_read() {
    let home = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(golden("ckpt.5")).unwrap();
    fs::write(home.path().join("ckpt.5"), undump(&text)).unwrap();
    let blocks = 3 * LEAF_BLOCKS;
    let read = checkpoint::read(&RealDisk, home.path(), &UUID, 5, blocks).unwrap();
    assert_eq!(read.chain, snapshot().chain);
    assert_eq!(read.map.counts(), snapshot().map.counts());
    assert_eq!(
        read.map.state(BlockIndex(2 * LEAF_BLOCKS + 34)),
        BlockState::Zero
    );
}

/// The archive read by nothing but what the man page says of its last 16 bytes.
#[test]
fn the_end_of_a_checkpoint_says_where_its_leaves_are() {
    let bytes = undump(&fs::read_to_string(golden("ckpt.5")).unwrap());
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let vector_at = |at: usize| {
        let offset = u32_at(at).cast_signed() as isize;
        (at.checked_add_signed(offset).unwrap(), u32_at(at + 4))
    };
    let root = bytes.len() - 16;
    let ((leaves, leaf_count), (words, word_count)) = (vector_at(root), vector_at(root + 8));
    assert_eq!((leaf_count, word_count), (2, 2));
    assert_eq!((u32_at(leaves), u32_at(leaves + 8)), (0, 2));
    for leaf in 0..2 {
        let checksum = crc32fast::hash(&bytes[words + leaf * 4096..][..4096]);
        assert_eq!(u32_at(leaves + leaf * 8 + 4), checksum);
    }
    // Blocks 1 to 3 of the first leaf are present.
    assert_eq!(u32_at(words), 0b0101_0100);
}
