//! Checkpoint files: the whole map at one moment, as an rkyv archive that is mapped and read in
//! place.
//!
//! Invariants:
//! - A checkpoint gets its name only once all of it is durable, so a file of that name is whole.
//! - Its checksums are checked, and the archive validated, before anything in it is believed.
//! - `ckpt.G` is the map just before the start frame of journal generation G; its `chain` is what
//!   that frame must continue.
//!
//! rkyv has no schema evolution: the version in our header names one frozen [`Archive1`].

use std::path::{Path, PathBuf};

use rkyv::rancor;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::journal::ChainEnd;
use super::map::{ArchivedLeaves, BlockMap, LEAF_BLOCKS, LEAF_BYTES, LEAF_WORDS};
use super::sabotage::{self, Sabotage};
use crate::disk::{Disk, DiskFile, FileBytes};

const MAGIC: [u8; 8] = *b"cowckpt\n";
const VERSION: u32 = 1;
/// The archive starts on a page, so that the mapping aligns it.
const HEADER_BYTES: usize = 4096;
const TEMPORARY: &str = "ckpt.tmp";
const PREFIX: &str = "ckpt.";

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Layout {
    magic: [u8; 8],
    version: U32,
    /// CRC-32 of the bytes after this field, seeded with the overlay's uuid.
    checksum: U32,
    generation: U64,
    chain_seq: U64,
    chain_epoch: U64,
    chain_checksum: U32,
    body_checksum: U32,
    body_len: U64,
    blocks: U64,
}

/// One leaf of the archive.
#[derive(Clone, Copy, Debug, rkyv::Archive, rkyv::Serialize)]
struct LeafRef {
    /// Which 64 MiB of the disk it describes.
    index: u32,
    /// CRC-32 of its bytes.
    checksum: u32,
}

/// The body of a checkpoint of version 1.
#[derive(Debug, rkyv::Archive, rkyv::Serialize)]
struct Archive1 {
    leaves: Vec<LeafRef>,
    words: Vec<[u64; LEAF_WORDS]>,
}

/// A map to be written, and its place in the chain.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The journal generation that goes on from here.
    pub generation: u64,
    /// What that journal's start frame continues.
    pub chain: ChainEnd,
    /// The states.
    pub map: BlockMap,
}

/// Why a checkpoint can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file can't be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A checksum or a structure is wrong.
    #[error("it is damaged ({0})")]
    Damaged(&'static str),
    /// A newer cowherd made it.
    #[error("it has format version {0}, this cowherd knows version {VERSION}: use a newer cowherd")]
    Version(u32),
}

/// The name of the checkpoint of `generation` in the overlay's directory.
#[must_use]
pub fn path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{generation}"))
}

/// The generation that a file name is a checkpoint of.
#[must_use]
pub fn generation_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// Writes a checkpoint under its final name; durable if `durable`.
///
/// # Errors
/// Whatever the disk answers. The file of the final name is then either absent or whole.
pub fn write<D: Disk>(
    disk: &D,
    dir: &Path,
    uuid: &[u8; 16],
    snapshot: &Snapshot,
    durable: bool,
) -> std::io::Result<()> {
    let bytes = encode(uuid, snapshot)?;
    let temporary = dir.join(TEMPORARY);
    let written = disk
        .create(&temporary, bytes.len() as u64)
        .and_then(|file| {
            file.write_at(&bytes, 0)?;
            if durable { file.sync() } else { Ok(()) }
        });
    if let Err(error) = written {
        // Its space may be what is missing; the error that counts is the first.
        let _ = disk.remove(&temporary);
        return Err(error);
    }
    disk.rename(&temporary, &path(dir, snapshot.generation))?;
    if durable { disk.sync_dir(dir) } else { Ok(()) }
}

/// Reads the checkpoint of `generation` in place.
///
/// # Errors
/// [`CheckpointError`]; nothing of a file that does not validate is used.
pub fn read<D: Disk>(
    disk: &D,
    dir: &Path,
    uuid: &[u8; 16],
    generation: u64,
    blocks: u64,
) -> Result<Snapshot, CheckpointError> {
    let bytes = disk.map(&path(dir, generation))?;
    decode(uuid, generation, blocks, bytes)
}

fn encode(uuid: &[u8; 16], snapshot: &Snapshot) -> std::io::Result<Vec<u8>> {
    let mut archive = Archive1 {
        leaves: Vec::new(),
        words: Vec::new(),
    };
    for (index, words) in snapshot.map.leaves() {
        archive.leaves.push(LeafRef {
            index,
            checksum: leaf_checksum(words),
        });
        archive.words.push(words);
    }
    let body = rkyv::to_bytes::<rancor::Error>(&archive).map_err(std::io::Error::other)?;
    let mut layout = Layout {
        magic: MAGIC,
        version: VERSION.into(),
        checksum: 0.into(),
        generation: snapshot.generation.into(),
        chain_seq: snapshot.chain.seq.into(),
        chain_epoch: snapshot.chain.epoch.into(),
        chain_checksum: snapshot.chain.checksum.into(),
        body_checksum: crc32fast::hash(&body).into(),
        body_len: (body.len() as u64).into(),
        blocks: snapshot.map.blocks().into(),
    };
    layout.checksum = header_checksum(uuid, &layout).into();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(layout.as_bytes());
    bytes.resize(HEADER_BYTES, 0);
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn decode(
    uuid: &[u8; 16],
    generation: u64,
    blocks: u64,
    bytes: FileBytes,
) -> Result<Snapshot, CheckpointError> {
    let whole = (*bytes).as_ref();
    let layout = decode_header(uuid, whole)?;
    if layout.generation.get() != generation || layout.blocks.get() != blocks {
        return Err(CheckpointError::Damaged("it belongs elsewhere"));
    }
    let body = whole.get(HEADER_BYTES..).unwrap_or_default();
    if body.len() as u64 != layout.body_len.get() {
        return Err(CheckpointError::Damaged("its length"));
    }
    let is_checked = !sabotage::breaks(Sabotage::UncheckedCheckpoint);
    if is_checked && crc32fast::hash(body) != layout.body_checksum.get() {
        return Err(CheckpointError::Damaged("checksum of the archive"));
    }
    let (indices, start) = decode_body(body)?;
    let leaves = ArchivedLeaves::new(bytes.clone(), HEADER_BYTES + start);
    let map = BlockMap::from_archive(blocks, &indices, leaves)
        .ok_or(CheckpointError::Damaged("a leaf outside the disk"))?;
    let chain = ChainEnd {
        seq: layout.chain_seq.get(),
        epoch: layout.chain_epoch.get(),
        checksum: layout.chain_checksum.get(),
    };
    Ok(Snapshot {
        generation,
        chain,
        map,
    })
}

fn decode_header(uuid: &[u8; 16], whole: &[u8]) -> Result<Layout, CheckpointError> {
    let parsed = Layout::read_from_prefix(whole)
        .ok()
        .filter(|(l, _)| l.magic == MAGIC);
    let Some((layout, _)) = parsed else {
        return Err(CheckpointError::Damaged("it does not begin like one"));
    };
    if header_checksum(uuid, &layout) != layout.checksum.get() {
        return Err(CheckpointError::Damaged("checksum of the header"));
    }
    if layout.version.get() != VERSION {
        return Err(CheckpointError::Version(layout.version.get()));
    }
    Ok(layout)
}

/// Validates the archive: which leaves it has, and where in `body` their words start.
fn decode_body(body: &[u8]) -> Result<(Vec<u32>, usize), CheckpointError> {
    let archive = rkyv::access::<ArchivedArchive1, rancor::Error>(body)
        .map_err(|_| CheckpointError::Damaged("structure of the archive"))?;
    if archive.leaves.len() != archive.words.len() {
        return Err(CheckpointError::Damaged("number of leaves"));
    }
    let mut indices = Vec::with_capacity(archive.leaves.len());
    for (leaf, words) in archive.leaves.iter().zip(archive.words.iter()) {
        let words: [u64; LEAF_WORDS] =
            std::array::from_fn(|i| words.get(i).map_or(0, |w| w.to_native()));
        let fourth_pattern = words
            .iter()
            .any(|word| word & (word >> 1) & 0x5555_5555_5555_5555 != 0);
        let is_checked = !sabotage::breaks(Sabotage::UncheckedCheckpoint);
        if is_checked && (leaf_checksum(words) != leaf.checksum.to_native() || fourth_pattern) {
            return Err(CheckpointError::Damaged("checksum of a leaf"));
        }
        indices.push(leaf.index.to_native());
    }
    // The leaves are read in place from here on, without rkyv: its archive of an array of integers
    // is the integers in order (little-endian by the crate's feature).
    let start = archive
        .words
        .as_ptr()
        .addr()
        .wrapping_sub(body.as_ptr().addr());
    let in_body = start
        .checked_add(indices.len() * LEAF_BYTES)
        .is_some_and(|end| end <= body.len());
    if indices.is_empty() || in_body {
        return Ok((indices, start));
    }
    Err(CheckpointError::Damaged("place of the leaves"))
}

fn header_checksum(uuid: &[u8; 16], layout: &Layout) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(uuid);
    hasher.update(&layout.version.get().to_le_bytes());
    hasher.update(layout.as_bytes().get(16..).unwrap_or_default());
    hasher.finalize()
}

fn leaf_checksum(words: [u64; LEAF_WORDS]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for word in words {
        hasher.update(&word.to_le_bytes());
    }
    hasher.finalize()
}

const _: () = assert!(LEAF_BLOCKS == 32 * LEAF_WORDS as u64);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::disk::RealDisk;
    use crate::overlay::map::{BlockCounts, BlockState};
    use crate::units::{BlockIndex, BlockRange};

    const UUID: [u8; 16] = [7; 16];
    const CHAIN: ChainEnd = ChainEnd {
        seq: 5,
        epoch: 2,
        checksum: 77,
    };
    const BLOCKS: u64 = 5 * LEAF_BLOCKS;

    fn snapshot() -> Snapshot {
        let mut map = BlockMap::new(BLOCKS);
        let mut set = |start, end, state| {
            map.set(
                BlockRange::between(BlockIndex(start), BlockIndex(end)),
                state,
                |_, _| {},
            );
        };
        set(10, 20, BlockState::Present);
        set(3 * LEAF_BLOCKS - 5, 3 * LEAF_BLOCKS + 5, BlockState::Zero);
        Snapshot {
            generation: 9,
            chain: CHAIN,
            map,
        }
    }

    /// A copy of `bytes` that is aligned as a mapping is.
    fn aligned(bytes: &[u8]) -> FileBytes {
        let mut copy = rkyv::util::AlignedVec::<16>::new();
        copy.extend_from_slice(bytes);
        Arc::new(copy)
    }

    #[test]
    fn comes_back_from_a_real_file() {
        let dir = tempfile::tempdir().unwrap();
        write(&RealDisk, dir.path(), &UUID, &snapshot(), true).unwrap();
        let back = read(&RealDisk, dir.path(), &UUID, 9, BLOCKS).unwrap();
        assert_eq!((back.generation, back.chain), (9, CHAIN));
        assert_eq!(
            back.map.counts(),
            BlockCounts {
                present: 10,
                zero: 10
            }
        );
        assert_eq!(
            back.map.state(BlockIndex(3 * LEAF_BLOCKS)),
            BlockState::Zero
        );
    }

    #[test]
    fn leaves_nothing_behind_but_the_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        write(&RealDisk, dir.path(), &UUID, &snapshot(), true).unwrap();
        assert_eq!(RealDisk.list(dir.path()).unwrap(), ["ckpt.9"]);
    }

    #[test]
    fn any_flipped_byte_that_matters_is_refused() {
        let good = encode(&UUID, &snapshot()).unwrap();
        for at in (0..size_of::<Layout>()).chain((HEADER_BYTES..good.len()).step_by(7)) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            assert!(
                decode(&UUID, 9, BLOCKS, aligned(&bytes)).is_err(),
                "byte {at}"
            );
        }
    }

    #[test]
    fn any_shorter_file_is_refused() {
        let good = encode(&UUID, &snapshot()).unwrap();
        for len in (0..good.len()).step_by(97) {
            assert!(
                decode(&UUID, 9, BLOCKS, aligned(&good[..len])).is_err(),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn a_checkpoint_of_another_overlay_is_refused() {
        let bytes = encode(&UUID, &snapshot()).unwrap();
        assert!(decode(&[8; 16], 9, BLOCKS, aligned(&bytes)).is_err());
    }

    #[test]
    fn an_empty_map_makes_a_small_checkpoint() {
        let empty = Snapshot {
            map: BlockMap::new(1 << 28),
            ..snapshot()
        };
        let bytes = encode(&UUID, &empty).unwrap();
        assert!(bytes.len() < HEADER_BYTES + 64);
        let back = decode(&UUID, 9, 1 << 28, aligned(&bytes)).unwrap();
        assert_eq!(back.map.counts(), BlockCounts::default());
    }
}
