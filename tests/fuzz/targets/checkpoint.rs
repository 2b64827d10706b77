//! The reader of checkpoints: maps that were written, then damaged. What comes out is what went in,
//! or damage is told of.
//!
//! One in two inputs is damaged with the checksums of header and archive made good again, so that
//! what lies behind them is reached: then the map may be any map of that disk.

use std::path::Path;

use cowherd::disk::sim::SimDisk;
use cowherd::disk::{Disk, DiskFile};
use cowherd::overlay::checkpoint::{self, CheckpointError, Snapshot};
use cowherd::overlay::journal::ChainEnd;
use cowherd::overlay::map::{BlockMap, BlockState};
use cowherd::units::{BlockIndex, BlockRange};

use super::Input;

const UUID: [u8; 16] = [5; 16];
/// Three leaves and a part of one.
const BLOCKS: u64 = 3 * 16_384 + 77;
const HEADER: usize = 4096;

/// See the module.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input(data);
    let reseal = input.byte() & 1 != 0;
    let disk = SimDisk::default();
    let dir = Path::new("/overlay");
    disk.create_dir(dir).expect("a new disk has room");
    let map = map(&mut input);
    let chain = ChainEnd {
        seq: 4,
        epoch: 5,
        checksum: 6,
    };
    let snapshot = Snapshot {
        generation: 1,
        chain,
        map,
    };
    checkpoint::write(&disk, dir, &UUID, &snapshot, false).expect("a new disk has room");
    let path = checkpoint::path(dir, 1);
    let whole = disk.map(&path).expect("it was just written");
    let mut bytes = (*whole).as_ref().to_vec();
    let is_other = damage(&mut bytes, &mut input, reseal);
    let file = disk.create(&path, bytes.len() as u64).expect("room");
    file.write_at(&bytes, 0).expect("room");
    let read = checkpoint::read(&disk, dir, &UUID, 1, BLOCKS);
    match read {
        Ok(read) => {
            let runs = look(&read.map);
            if !reseal {
                assert!(runs == look(&snapshot.map), "another map");
                assert_eq!(read.chain, chain);
            }
        }
        Err(CheckpointError::Io(error)) => panic!("the disk is good: {error}"),
        Err(error) => assert!(is_other, "{error} where there is no damage"),
    }
}

fn map(input: &mut Input<'_>) -> BlockMap {
    let mut map = BlockMap::new(BLOCKS);
    for _ in 0..input.byte() % 40 {
        let [a, b, len, state] = input.array();
        let start = u64::from(u16::from_be_bytes([a, b])) % BLOCKS;
        let end = (start + 1 + u64::from(len) * u64::from(state)).min(BLOCKS);
        let states = [BlockState::Absent, BlockState::Present, BlockState::Zero];
        let blocks = BlockRange::between(BlockIndex(start), BlockIndex(end));
        map.set(blocks, states[usize::from(state % 3)], |_, _| {});
    }
    map
}

/// All states, which reads every leaf.
fn look(map: &BlockMap) -> Vec<(BlockRange, BlockState)> {
    let all = BlockRange::between(BlockIndex(0), BlockIndex(map.blocks()));
    map.runs(all).collect()
}

/// Does some harm; whether the file is another one for it.
fn damage(bytes: &mut Vec<u8>, input: &mut Input<'_>, reseal: bool) -> bool {
    let before = bytes.clone();
    for _ in 0..input.byte() % 6 {
        let [how, a, b, value] = input.array();
        let at = usize::from(u16::from_be_bytes([a, b]));
        // Header, the end of the archive, anywhere: where the structure is.
        let place = match how % 4 {
            0 => at % 64,
            1 => bytes.len().saturating_sub(1 + at % 64),
            _ => at % bytes.len().max(1),
        };
        match how / 4 % 8 {
            0 => bytes.truncate(place.max(1)),
            1 => bytes.extend_from_slice(input.bytes(usize::from(value))),
            _ if place < bytes.len() => bytes[place] ^= value,
            _ => {}
        }
    }
    if reseal && bytes.len() > HEADER {
        seal(bytes);
    }
    *bytes != before
}

/// Makes the checksums of header and archive good.
fn seal(bytes: &mut [u8]) {
    let (header, body) = bytes.split_at_mut(HEADER);
    header[44..48].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    header[48..56].copy_from_slice(&(body.len() as u64).to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&UUID);
    hasher.update(&header[8..12]);
    hasher.update(&header[16..64]);
    let checksum = hasher.finalize();
    header[12..16].copy_from_slice(&checksum.to_le_bytes());
}
