//! Changes of the map that are acknowledged and not flushed, noted for a server that is killed.
//!
//! A block that was written is in the page cache, and outlives the process that wrote it. Not so
//! what the map says of it, which only a flush writes down. For a client that goes on where another
//! server takes over, as one of `cowherd-attach` does, an acknowledged write would be undone under
//! its feet: it never saw its disk lose power. So every change of the map is noted before it is
//! acknowledged, in a file that nobody syncs.
//!
//! Invariants:
//! - Notes count under the boot of the host that they were made in, and under no other: after a
//!   power loss they may be older or newer than the data that they tell of.
//! - Notes go to one of two files, by turns. Each time its turn comes a file has a new generation,
//!   and what earlier ones left in it counts no more. A file gets its turn only when a flush has
//!   covered all that is noted in it, and no write of a note to it is under way. The newest notes
//!   count, and those in the other file where they are of the generation before. So what counts is
//!   every change from some moment on to the last, and to apply it to a later map changes nothing.
//! - A note is whole or not there: it never crosses the border of a page.

use std::io;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::journal::Change;
use super::map::BlockState;
use super::sabotage::{self, Sabotage};
use crate::disk::{Disk, DiskFile};
use crate::units::{BlockIndex, BlockRange, ByteRange};

/// The names of the files.
pub(super) const NAMES: [&str; 2] = ["recent.a", "recent.b"];

/// A file this long makes a flush worth while: it has 131,072 notes. Flushes that no client asked
/// for take the disk from the clients, and whoever takes the overlay over reads all notes.
const LONG: u64 = 1 << 21;
/// Space that a file has from the beginning: on a full disk most notes find theirs, and what finds
/// none is flushed instead.
const RESERVED: ByteRange = ByteRange::between(0, 1 << 20);
/// A file that is longer than this is none of ours.
const LONGEST: u64 = 1 << 30;

const MAGIC: [u8; 8] = *b"cowrecnt";
const VERSION: u32 = 1;

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: U32,
    reserved: [u8; 20],
    uuid: [u8; 16],
    boot_id: [u8; 16],
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    block_low: U32,
    block_high: U16,
    state: u8,
    reserved: u8,
    run: U32,
    /// From 1 on; 0 is a note that was never written.
    generation: U32,
}

const HEADER_BYTES: usize = size_of::<Header>();
const ENTRY_BYTES: usize = size_of::<Entry>();
const _: () = assert!(HEADER_BYTES == 64 && ENTRY_BYTES == 16);
const _: () = assert!(4096_usize.is_multiple_of(ENTRY_BYTES));

impl Header {
    fn new(uuid: [u8; 16], boot_id: [u8; 16]) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION.into(),
            reserved: [0; 20],
            uuid,
            boot_id,
        }
    }
}

/// Notes on their way to their file: written there by whoever took them, before anything that they
/// tell of is acknowledged, and their end told to [`Recent::written`].
#[derive(Debug)]
pub struct Note<F> {
    /// The file.
    pub file: F,
    /// Where they go.
    pub offset: u64,
    /// What goes there.
    pub bytes: Vec<u8>,
    /// Which of the files it is.
    which: usize,
}

/// The notes of one open overlay.
#[derive(Debug)]
pub(super) struct Recent<D: Disk> {
    files: [D::File; 2],
    /// The file whose turn it is.
    active: usize,
    generation: u32,
    /// Where its next note goes.
    offset: u64,
    /// All that is noted in the other file is flushed.
    other_is_done: bool,
    /// Writes of notes that have begun and not ended, for each file.
    underway: [usize; 2],
    /// Notes that nobody has taken yet.
    pending: Vec<u8>,
}

/// What one file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    generation: u32,
    changes: Vec<Change>,
    /// Where these end: behind them are only notes that count no more, or none.
    end: u64,
}

impl<D: Disk> Recent<D> {
    /// Opens the files in `files`, and gives what was noted under `boot_id`, to be applied in this
    /// order. Where it was another boot, they are begun anew.
    pub(super) fn open(
        files: [D::File; 2],
        uuid: [u8; 16],
        boot_id: [u8; 16],
    ) -> io::Result<(Self, Vec<Change>)> {
        let header = Header::new(uuid, boot_id);
        let [a, b] = &files;
        let found = [read_file(a, &header)?, read_file(b, &header)?];
        for (file, found) in files.iter().zip(&found) {
            if found.is_none() {
                begin_anew(file, &header)?;
                // Where there is no space, notes fail as writes do.
                let _ = file.allocate(RESERVED);
            }
        }
        let [a, b] = found.map(Option::unwrap_or_default);
        let active = usize::from(b.generation > a.generation);
        let (mut older, newer) = if active == 1 { (a, b) } else { (b, a) };
        // A turn in which nothing was noted leaves notes of an earlier one in its file. What came
        // behind those is overwritten by now, and nothing of them is needed any more.
        if older.generation + 1 != newer.generation {
            older.changes.clear();
        }
        let recent = Self {
            files,
            active,
            generation: newer.generation.max(1),
            offset: newer.end.max(HEADER_BYTES as u64),
            other_is_done: older.changes.is_empty(),
            underway: [0; 2],
            pending: Vec::new(),
        };
        Ok((recent, [older.changes, newer.changes].concat()))
    }

    /// Notes that `blocks` are in `state` from now on.
    pub(super) fn note(&mut self, blocks: BlockRange, state: BlockState) {
        let mut at = blocks.start();
        while at < blocks.end() {
            let end = blocks.end().min(BlockIndex(at.0 + u64::from(u32::MAX)));
            self.pending
                .extend_from_slice(self.entry(at, end, state).as_bytes());
            at = end;
        }
    }

    fn entry(&self, at: BlockIndex, end: BlockIndex, state: BlockState) -> Entry {
        let [b0, b1, b2, b3, b4, b5, ..] = at.0.to_le_bytes();
        Entry {
            block_low: U32::from_bytes([b0, b1, b2, b3]),
            block_high: U16::from_bytes([b4, b5]),
            state: state.bits(),
            reserved: 0,
            run: u32::try_from(end.0 - at.0).unwrap_or(u32::MAX).into(),
            generation: self.generation.into(),
        }
    }

    /// Whether something was noted since [`Self::take`] was asked last.
    pub(super) const fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What was noted since this was asked last.
    pub(super) fn take(&mut self) -> Option<Note<D::File>> {
        if self.pending.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.pending);
        let offset = self.offset;
        self.offset += bytes.len() as u64;
        let which = self.active;
        let file = self.files.get(which)?.clone();
        *self.underway.get_mut(which)? += 1;
        Some(Note {
            file,
            offset,
            bytes,
            which,
        })
    }

    /// The write of a note has ended. One that is not in the file goes there with the next one: the
    /// map says already what it tells of, so that nothing would note it again.
    pub(super) fn written(&mut self, note: &Note<D::File>, is_there: bool) {
        if let Some(underway) = self.underway.get_mut(note.which) {
            *underway -= 1;
        }
        if is_there {
            return;
        }
        let mut again = note.bytes.clone();
        let (entries, _) = again.as_chunks_mut::<ENTRY_BYTES>();
        for raw in entries {
            let mut entry: Entry = zerocopy::transmute!(*raw);
            entry.generation = self.generation.into();
            *raw = zerocopy::transmute!(entry);
        }
        // Before those that came since.
        again.append(&mut self.pending);
        self.pending = again;
    }

    /// Whether all that was noted is in the files.
    pub(super) fn is_written(&self) -> bool {
        self.pending.is_empty() && self.underway == [0; 2]
    }

    /// Whether a flush is worth while for the length of this alone.
    pub(super) const fn is_long(&self) -> bool {
        self.offset >= LONG
    }

    /// A flush of all that is noted begins. Everything noted so far was taken.
    pub(super) fn flush_begins(&mut self) {
        if sabotage::breaks(Sabotage::EarlyTurn) {
            self.generation += 1;
            self.offset = HEADER_BYTES as u64;
            return;
        }
        let other = 1 - self.active;
        if !self.other_is_done || self.underway.get(other) != Some(&0) {
            return;
        }
        self.active = other;
        self.generation += 1;
        self.offset = HEADER_BYTES as u64;
        self.other_is_done = false;
    }

    /// The flush has gone well: it covered all that is noted in the file whose turn it is not.
    pub(super) const fn flushed(&mut self) {
        self.other_is_done = true;
    }
}

/// Makes a file one of this overlay and boot, with nothing in it: what was there counts no more,
/// and must not count again when it has its header.
fn begin_anew(file: &impl DiskFile, header: &Header) -> io::Result<()> {
    let size = file.size()?;
    let zeros = vec![0; 64 * 1024];
    let mut at = 0;
    while at < size {
        let length = zeros
            .len()
            .min(usize::try_from(size - at).unwrap_or(zeros.len()));
        file.write_at(zeros.get(..length).unwrap_or_default(), at)?;
        at += length as u64;
    }
    file.write_at(header.as_bytes(), 0)
}

/// What a file holds of the newest generation in it; `None` where it is not of this overlay and
/// boot.
fn read_file(file: &impl DiskFile, header: &Header) -> io::Result<Option<Found>> {
    let size = file.size()?;
    if size < HEADER_BYTES as u64 || size > LONGEST {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    file.read_at(&mut bytes, 0)?;
    Ok(read(&bytes, header))
}

fn read(bytes: &[u8], header: &Header) -> Option<Found> {
    let (found, rest) = Header::read_from_prefix(bytes).ok()?;
    let is_of_boot = found == *header || sabotage::breaks(Sabotage::NotesOfAnyBoot);
    if !is_of_boot {
        return None;
    }
    let (entries, _) = rest.as_chunks::<ENTRY_BYTES>();
    let mut newest = Found::default();
    for (nth, raw) in (1_u64..).zip(entries) {
        let Some((generation, change)) = change(*raw) else {
            continue;
        };
        if generation > newest.generation {
            newest.generation = generation;
            newest.changes.clear();
        }
        if generation == newest.generation {
            newest.changes.push(change);
            newest.end = HEADER_BYTES as u64 + nth * ENTRY_BYTES as u64;
        }
    }
    Some(newest)
}

/// `None` for a note that was never written.
fn change(raw: [u8; ENTRY_BYTES]) -> Option<(u32, Change)> {
    let entry: Entry = zerocopy::transmute!(raw);
    let state = BlockState::from_bits(entry.state)?;
    let start = u64::from(entry.block_high.get()) << 32 | u64::from(entry.block_low.get());
    let end = start.checked_add(u64::from(entry.run.get()))?;
    let blocks = BlockRange::between(BlockIndex(start), BlockIndex(end));
    let generation = entry.generation.get();
    (generation > 0).then_some((generation, Change { blocks, state }))
}

#[cfg(test)]
mod tests;
