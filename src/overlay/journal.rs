//! The journal's frames: state changes as a chain of checksummed records, pure.
//!
//! Invariants:
//! - A frame is one sector, which a disk writes whole or not at all. So a torn write leaves whole
//!   frames and what was there before; a frame of this place in the chain that does not validate is
//!   damage, be it the last one.
//! - A frame's checksum covers all of it after the checksum and is seeded with the overlay's uuid:
//!   a frame of another overlay never validates.
//! - Frames form a chain: `seq` grows by one and `previous` is the checksum of the frame before,
//!   also from one journal file to the next. `generation` is the file's present use: what an
//!   earlier use left behind never validates.
//! - The changes of one flush are one epoch. Only its last frame says [`Kind::EpochEnd`], and
//!   replay applies whole epochs only: a flush is in the map as a whole or not at all.
//! - At most one epoch is being written at a time. So behind a frame that is missing there may be
//!   frames of the same epoch (a torn write), but a frame of a later one means that the medium lost
//!   what it had acknowledged.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::map::BlockState;
use super::sabotage::{self, Sabotage};
use crate::units::{BlockIndex, BlockRange};

/// What a disk writes as a whole or not at all.
pub const SECTOR: usize = 512;
/// Bytes of a journal file, all written before its first use so that an append changes no metadata.
pub const JOURNAL_BYTES: usize = 1 << 20;

const MAGIC: u32 = u32::from_le_bytes(*b"CWJ1");
const HEADER_BYTES: usize = size_of::<FrameHeader>();
const ENTRY_BYTES: usize = size_of::<Entry>();
/// Changes that one frame holds.
const ENTRIES_MAX: usize = (SECTOR - HEADER_BYTES) / ENTRY_BYTES;
/// Changes that an empty journal file surely holds, its start frame left out.
pub const CHANGES_MAX: usize = (JOURNAL_BYTES / SECTOR - 1) * ENTRIES_MAX;

const _: () = assert!(HEADER_BYTES == 48 && ENTRY_BYTES == 12);
const _: () = assert!(JOURNAL_BYTES.is_multiple_of(SECTOR));

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct FrameHeader {
    magic: U32,
    /// CRC-32 of the bytes after this field, up to `len`, seeded with the overlay's uuid.
    checksum: U32,
    /// `checksum` of the frame before.
    previous: U32,
    /// Bytes of the frame, this header included, without the padding to a full sector.
    len: U32,
    generation: U64,
    seq: U64,
    epoch: U64,
    kind: U16,
    count: U16,
    reserved: U32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    block_low: U32,
    block_high: U16,
    state: u8,
    reserved: u8,
    run: U32,
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The first frame of a journal file.
    Start,
    /// Changes of an epoch that goes on in the next frame.
    Part,
    /// The last changes of an epoch.
    EpochEnd,
}

impl Kind {
    const fn code(self) -> u16 {
        match self {
            Self::Start => 1,
            Self::Part => 2,
            Self::EpochEnd => 3,
        }
    }

    const fn from_code(code: u16) -> Option<Self> {
        match code {
            1 => Some(Self::Start),
            2 => Some(Self::Part),
            3 => Some(Self::EpochEnd),
            _ => None,
        }
    }
}

/// One change of the map: these blocks are in this state from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The blocks.
    pub blocks: BlockRange,
    /// Their state.
    pub state: BlockState,
}

/// The end of the chain: what the next frame continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainEnd {
    /// `seq` of the last frame.
    pub seq: u64,
    /// The last epoch that ended.
    pub epoch: u64,
    /// `checksum` of the last frame.
    pub checksum: u32,
}

/// Where the next frame of a journal file goes and what it says of its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Which use of the journal files this is.
    pub generation: u64,
    /// Byte offset in the file.
    pub offset: usize,
    /// What came before.
    pub chain: ChainEnd,
}

/// Frames ready to be written at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    /// Byte offset in the journal file.
    pub offset: usize,
    /// Whole sectors.
    pub bytes: Vec<u8>,
    /// The cursor once they are durable.
    pub after: Cursor,
}

/// How many bytes an epoch of `changes` changes takes.
#[must_use]
pub const fn epoch_bytes(changes: usize) -> usize {
    changes.div_ceil(ENTRIES_MAX) * SECTOR
}

/// The start frame of the journal file for `generation`, continuing `chain`.
#[must_use]
pub fn start_frame(uuid: &[u8; 16], generation: u64, chain: ChainEnd) -> Frames {
    let mut bytes = Vec::new();
    let mut after = Cursor {
        generation,
        offset: 0,
        chain,
    };
    append_frame(uuid, &mut after, Kind::Start, &[], &mut bytes);
    Frames {
        offset: 0,
        bytes,
        after,
    }
}

/// The frames of the epoch that follows `cursor`. `changes` must not be empty.
#[must_use]
pub fn epoch_frames(uuid: &[u8; 16], cursor: Cursor, changes: &[Change]) -> Frames {
    let mut bytes = Vec::with_capacity(epoch_bytes(changes.len()));
    let mut after = cursor;
    after.chain.epoch += 1;
    let mut chunks = changes.chunks(ENTRIES_MAX).peekable();
    while let Some(chunk) = chunks.next() {
        let kind = if chunks.peek().is_some() {
            Kind::Part
        } else {
            Kind::EpochEnd
        };
        append_frame(uuid, &mut after, kind, chunk, &mut bytes);
    }
    Frames {
        offset: cursor.offset,
        bytes,
        after,
    }
}

fn append_frame(
    uuid: &[u8; 16],
    cursor: &mut Cursor,
    kind: Kind,
    changes: &[Change],
    out: &mut Vec<u8>,
) {
    let len = HEADER_BYTES + changes.len() * ENTRY_BYTES;
    let mut header = FrameHeader {
        magic: MAGIC.into(),
        checksum: 0.into(),
        previous: cursor.chain.checksum.into(),
        len: u32::try_from(len).unwrap_or(u32::MAX).into(),
        generation: cursor.generation.into(),
        seq: (cursor.chain.seq + 1).into(),
        epoch: cursor.chain.epoch.into(),
        kind: kind.code().into(),
        count: u16::try_from(changes.len()).unwrap_or(u16::MAX).into(),
        reserved: 0.into(),
    };
    let entries: Vec<Entry> = changes.iter().map(Entry::from_change).collect();
    let checksum = frame_checksum(uuid, &header, entries.as_bytes());
    header.checksum = checksum.into();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(entries.as_bytes());
    out.resize(out.len() + SECTOR - len, 0);
    cursor.offset += SECTOR;
    cursor.chain.seq += 1;
    cursor.chain.checksum = checksum;
}

fn frame_checksum(uuid: &[u8; 16], header: &FrameHeader, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(uuid);
    hasher.update(header.as_bytes().get(8..).unwrap_or_default());
    hasher.update(body);
    hasher.finalize()
}

impl Entry {
    fn from_change(change: &Change) -> Self {
        // Blocks have 48 bits (limits::DISK_SIZE_MAX); a run is at most a disk of 16 TiB, and the
        // overlay splits longer ones.
        let block = change.blocks.start().0;
        let low = u32::try_from(block & 0xffff_ffff).unwrap_or(u32::MAX);
        let high = u16::try_from(block >> 32).unwrap_or(u16::MAX);
        let run = u32::try_from(change.blocks.len()).unwrap_or(u32::MAX);
        Self {
            block_low: low.into(),
            block_high: high.into(),
            state: change.state.bits(),
            reserved: 0,
            run: run.into(),
        }
    }

    fn to_change(self) -> Option<Change> {
        let start = u64::from(self.block_low.get()) | u64::from(self.block_high.get()) << 32;
        let end = start + u64::from(self.run.get());
        let blocks = BlockRange::between(BlockIndex(start), BlockIndex(end));
        Some(Change {
            blocks,
            state: BlockState::from_bits(self.state)?,
        })
    }
}

/// One frame that validated by itself; whether it continues the chain is another question.
#[derive(Clone, Debug)]
struct Frame {
    header: FrameHeader,
    kind: Kind,
    changes: Vec<Change>,
}

impl Frame {
    /// The frame at `offset`, or `None` where no bytes of a frame of this overlay are.
    fn parse(uuid: &[u8; 16], journal: &[u8], offset: usize) -> Option<Self> {
        let bytes = journal.get(offset..)?;
        let (header, _) = FrameHeader::read_from_prefix(bytes).ok()?;
        let count = usize::from(header.count.get());
        let len = HEADER_BYTES + count * ENTRY_BYTES;
        let plausible = header.magic.get() == MAGIC
            && count <= ENTRIES_MAX
            && usize::try_from(header.len.get()) == Ok(len);
        let body = bytes.get(HEADER_BYTES..len).filter(|_| plausible)?;
        if frame_checksum(uuid, &header, body) != header.checksum.get() {
            return None;
        }
        let entries = <[Entry]>::ref_from_bytes(body).ok()?;
        let changes = entries
            .iter()
            .map(|entry| entry.to_change())
            .collect::<Option<_>>()?;
        Some(Self {
            header,
            kind: Kind::from_code(header.kind.get())?,
            changes,
        })
    }

    fn continues(&self, cursor: &Cursor) -> bool {
        if sabotage::breaks(Sabotage::AnyFrame) {
            return true;
        }
        self.header.generation.get() == cursor.generation
            && self.header.previous.get() == cursor.chain.checksum
            && self.header.seq.get() == cursor.chain.seq + 1
    }
}

/// Why a journal can't be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalDamage {
    /// A later epoch is there, an earlier one is not.
    #[error("the record at byte {bad} is damaged, though a later one at byte {later} is whole")]
    Hole {
        /// Where the chain breaks.
        bad: usize,
        /// Where a frame of a later epoch lies.
        later: usize,
    },
    /// A frame was written there, and is not what was written.
    #[error("the record at byte {0} is damaged")]
    Damaged(usize),
}

/// What a journal file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The changes of all whole epochs, in order.
    pub changes: Vec<Change>,
    /// Where the next epoch goes.
    pub cursor: Cursor,
}

/// Reads the journal file of `generation`, whose start frame must continue `chain`. `None` where it
/// has no such start frame: this use of the file never began.
///
/// # Errors
/// [`JournalDamage`] where something acknowledged is missing.
pub fn replay(
    uuid: &[u8; 16],
    generation: u64,
    chain: ChainEnd,
    journal: &[u8],
) -> Result<Option<Replay>, JournalDamage> {
    let before = Cursor {
        generation,
        offset: 0,
        chain,
    };
    let start = Frame::parse(uuid, journal, 0);
    let Some(start) = start.filter(|f| f.kind == Kind::Start && f.continues(&before)) else {
        // An epoch of this generation is only ever written behind a durable start frame.
        return match later_epoch(uuid, journal, &before) {
            Some(later) => Err(JournalDamage::Hole { bad: 0, later }),
            None => Ok(None),
        };
    };
    let mut replay = Replay {
        changes: Vec::new(),
        cursor: step(before, &start),
    };
    while let Some((changes, cursor)) = next_epoch(uuid, journal, replay.cursor)? {
        replay.changes.extend(changes);
        replay.cursor = cursor;
    }
    let torn = Cursor {
        chain: next_epoch_number(replay.cursor.chain),
        ..replay.cursor
    };
    match later_epoch(uuid, journal, &torn) {
        Some(later) => Err(JournalDamage::Hole {
            bad: replay.cursor.offset,
            later,
        }),
        None => Ok(Some(replay)),
    }
}

/// Changes, and where they end.
type EpochAndEnd = (Vec<Change>, Cursor);

/// The epoch at `cursor`, if all of it is there.
fn next_epoch(
    uuid: &[u8; 16],
    journal: &[u8],
    cursor: Cursor,
) -> Result<Option<EpochAndEnd>, JournalDamage> {
    let epoch = cursor.chain.epoch + 1;
    let mut at = cursor;
    let mut changes = Vec::new();
    loop {
        let Some(frame) = Frame::parse(uuid, journal, at.offset) else {
            return match is_damaged(journal, &at, epoch) {
                true => Err(JournalDamage::Damaged(at.offset)),
                false => Ok(None),
            };
        };
        let is_next = frame.continues(&at)
            && (frame.header.epoch.get() == epoch || sabotage::breaks(Sabotage::AnyFrame));
        if !is_next || frame.kind == Kind::Start {
            return Ok(None);
        }
        at = step(at, &frame);
        changes.extend_from_slice(&frame.changes);
        if frame.kind == Kind::EpochEnd {
            at.chain.epoch = epoch;
            return Ok(Some((changes, at)));
        }
    }
}

/// Whether the sector at `cursor`, which does not validate, was once the frame of `epoch` that
/// belongs there. What was there before it, in an earlier use of the file or of an epoch that was
/// lost, agrees in three of these fields at most; one damaged byte spoils one of them.
fn is_damaged(journal: &[u8], cursor: &Cursor, epoch: u64) -> bool {
    let bytes = journal.get(cursor.offset..).unwrap_or_default();
    let Ok((header, _)) = FrameHeader::read_from_prefix(bytes) else {
        return false;
    };
    let agrees = [
        header.magic.get() == MAGIC,
        header.previous.get() == cursor.chain.checksum,
        header.generation.get() == cursor.generation,
        header.seq.get() == cursor.chain.seq + 1,
        header.epoch.get() == epoch,
    ];
    agrees.iter().filter(|&&agrees| agrees).count() >= 4 && !sabotage::breaks(Sabotage::HoleIsEnd)
}

fn step(cursor: Cursor, frame: &Frame) -> Cursor {
    let chain = ChainEnd {
        seq: frame.header.seq.get(),
        epoch: cursor.chain.epoch,
        checksum: frame.header.checksum.get(),
    };
    Cursor {
        offset: cursor.offset + SECTOR,
        chain,
        ..cursor
    }
}

const fn next_epoch_number(chain: ChainEnd) -> ChainEnd {
    ChainEnd {
        epoch: chain.epoch + 1,
        ..chain
    }
}

/// The first whole frame behind `cursor` that belongs to this use of the file and to an epoch after
/// the cursor's.
fn later_epoch(uuid: &[u8; 16], journal: &[u8], cursor: &Cursor) -> Option<usize> {
    if sabotage::breaks(Sabotage::HoleIsEnd) {
        return None;
    }
    (cursor.offset..journal.len())
        .step_by(SECTOR)
        .find(|&offset| {
            Frame::parse(uuid, journal, offset).is_some_and(|frame| {
                frame.header.generation.get() == cursor.generation
                    && frame.header.epoch.get() > cursor.chain.epoch
            })
        })
}

#[cfg(test)]
mod tests;
