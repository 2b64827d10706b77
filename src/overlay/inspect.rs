//! A look at an overlay from outside: what it is, what it holds, whether it is sound.
//!
//! Invariants:
//! - Nothing here changes a byte of the overlay (but [`note_client`], whose file nothing rests on).
//! - A [`View`] of an overlay that nobody has open is what recovery would make of its files.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use rangemap::RangeSet;

use super::checkpoint;
use super::create::{DATA, HEADER, JOURNALS};
use super::header::{HEADER_BYTES, Header, whole_copies};
use super::journal::JOURNAL_BYTES;
use super::map::{BlockMap, BlockState};
use super::recover::{self, OpenError};
use super::store::Overlay;
use crate::disk::{Disk, DiskFile, RealFile, next_data};
use crate::units::{BlockIndex, BlockRange, ByteRange};

/// Who used the overlay last, and when: a hint for people, not durable.
const LAST_CLIENT: &str = "last-client";
/// Longest such file that is read.
const LAST_CLIENT_MAX: u64 = 256;

/// Told how much of how much is done; it may say that the work is to stop.
pub type Report<'a> = &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>;

/// What an overlay is and holds.
#[derive(Clone, Debug)]
pub struct View<D: Disk> {
    /// What it is.
    pub header: Header,
    /// Which blocks are the client's own.
    pub map: BlockMap,
    /// The blocks, each at its own offset.
    pub data: D::File,
    /// The journal in use.
    pub journal: JournalFill,
    /// Why it takes no more writes, if so.
    pub poison: Option<Arc<str>>,
}

/// The journal in use, and how full it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalFill {
    /// Which use of the journal files this is.
    pub generation: u64,
    /// Bytes of it that are in use.
    pub used: usize,
    /// Bytes that it has.
    pub size: usize,
}

impl JournalFill {
    const fn new(generation: u64, used: usize) -> Self {
        Self {
            generation,
            used,
            size: JOURNAL_BYTES,
        }
    }
}

impl<D: Disk> Overlay<D> {
    /// The overlay as it is now. It costs a copy of the map's directory.
    #[must_use]
    pub fn view(&self) -> View<D> {
        View {
            header: *self.header(),
            map: self.map.clone(),
            data: self.files.data.clone(),
            journal: JournalFill::new(self.cursor.generation, self.cursor.offset),
            poison: self.poison.clone(),
        }
    }
}

/// The overlay in `dir`, which nobody may have open; `None` where there is none.
///
/// # Errors
/// As recovery would refuse it.
pub fn look<D: Disk>(disk: &D, dir: &Path) -> Result<Option<View<D>>, OpenError> {
    let seen = recover::look(disk, dir)?;
    Ok(seen.map(|seen| View {
        header: seen.header,
        map: seen.map,
        data: seen.data,
        journal: JournalFill::new(seen.cursor.generation, seen.cursor.offset),
        poison: None,
    }))
}

/// The header alone; `None` where there is no overlay.
///
/// # Errors
/// As recovery would refuse it.
pub fn header<D: Disk>(disk: &D, dir: &Path) -> Result<Option<Header>, OpenError> {
    recover::read_header(disk, dir)
}

/// The generation of the newest checkpoint, if there is any.
///
/// # Errors
/// Whatever the disk answers.
pub fn checkpoint_generation<D: Disk>(disk: &D, dir: &Path) -> io::Result<Option<u64>> {
    let names = disk.list(dir)?;
    let generations = names
        .iter()
        .filter_map(|name| checkpoint::generation_of(name));
    Ok(generations.max())
}

/// Whether the file of this name tells by its time when the overlay was written last.
#[must_use]
pub fn is_record(name: &str) -> bool {
    name == DATA || JOURNALS.contains(&name)
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Something is wrong.
    Problem,
    /// Something may be wrong.
    Warning,
    /// Nothing is wrong.
    Note,
}

/// Something that a check found.
#[derive(Debug, thiserror::Error)]
pub enum Finding {
    /// The overlay can't be opened.
    #[error("{0}")]
    Refused(#[from] OpenError),
    /// The disk could not be read.
    #[error("{0}")]
    Unread(io::Error),
    /// One copy of the header is damaged: it opens by the other one.
    #[error("copy {0} of the header is damaged; the other one is whole, and is used")]
    HeaderCopy(usize),
    /// Blocks that should have data have none.
    #[error(
        "{blocks} blocks that are the client's lie in holes of the data file, the first at byte \
         {first}: they read as zeros, which is right only if zeros were written there and the \
         file was copied since by a tool that makes holes of zeros"
    )]
    Hollow {
        /// How many.
        blocks: u64,
        /// Byte at which the first of them starts.
        first: u64,
    },
    /// Space that holds nothing of the client's.
    #[error("{0} bytes of the data file hold nothing of use: they were freed, or never flushed")]
    Unused(u64),
    /// A file that is no part of the overlay any more.
    #[error("file {0} is left over; it is no part of the overlay")]
    LeftOver(String),
}

impl Finding {
    /// How much it matters.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::Refused(_) | Self::Unread(_) | Self::HeaderCopy(_) => Severity::Problem,
            Self::Hollow { .. } => Severity::Warning,
            Self::Unused(_) | Self::LeftOver(_) => Severity::Note,
        }
    }
}

/// Checks all that has a checksum in the overlay `dir`, which nobody may have open: both copies of
/// the header, the newest checkpoint, the chain of the journals. With what it found comes the
/// overlay, if it can be opened at all.
pub fn check_records<D: Disk>(disk: &D, dir: &Path) -> (Vec<Finding>, Option<View<D>>) {
    let mut findings = check_header(disk, dir);
    let view = match look(disk, dir) {
        Ok(view) => view,
        Err(error) => {
            findings.push(Finding::Refused(error));
            None
        }
    };
    match left_over(disk, dir) {
        Ok(names) => findings.extend(names.into_iter().map(Finding::LeftOver)),
        Err(error) => findings.push(Finding::Unread(error)),
    }
    (findings, view)
}

/// Checks the copies of the header one by one. Right for an overlay in use too: its header never
/// changes.
pub fn check_header<D: Disk>(disk: &D, dir: &Path) -> Vec<Finding> {
    // A header that can't be read at all is told of by whoever looks at the rest.
    let Ok(bytes) = header_bytes(disk, dir) else {
        return Vec::new();
    };
    match whole_copies(&bytes) {
        [true, false] => vec![Finding::HeaderCopy(2)],
        [false, true] => vec![Finding::HeaderCopy(1)],
        // With neither, the overlay is refused, and that says it all.
        [true, true] | [false, false] => Vec::new(),
    }
}

fn header_bytes<D: Disk>(disk: &D, dir: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(&dir.join(HEADER))?;
    let size = usize::try_from(file.size()?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; size.min(HEADER_BYTES)];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn left_over<D: Disk>(disk: &D, dir: &Path) -> io::Result<Vec<String>> {
    let newest = checkpoint_generation(disk, dir)?;
    let belongs = |name: &str| {
        is_record(name)
            || name == HEADER
            || name == LAST_CLIENT
            || (newest.is_some() && checkpoint::generation_of(name) == newest)
    };
    let mut names = disk.list(dir)?;
    names.retain(|name| !belongs(name));
    names.sort();
    Ok(names)
}

/// Where map and data file disagree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disagreement {
    /// Present blocks that lie wholly in holes.
    hollow: RangeSet<u64>,
    /// Bytes of the data file that are allocated to blocks that are not present.
    unused: u64,
}

impl Disagreement {
    /// What both looks found. An overlay in use frees and rewrites blocks between a look at its map
    /// and one at its file, so only what is found twice counts.
    #[must_use]
    pub fn also_in(&self, other: &Self) -> Self {
        Self {
            hollow: self.hollow.intersection(&other.hollow).collect(),
            unused: other.unused,
        }
    }

    /// Whether no present block lies in a hole.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.hollow.is_empty()
    }

    /// What there is to say of it.
    pub fn findings(&self) -> impl Iterator<Item = Finding> {
        let hollow = self.hollow.first().map(|first| Finding::Hollow {
            blocks: self.hollow.iter().map(|run| run.end - run.start).sum(),
            first: BlockIndex(first.start).start(),
        });
        let unused = (self.unused > 0).then_some(Finding::Unused(self.unused));
        hollow.into_iter().chain(unused)
    }
}

/// Compares the map with the holes of the data file. `None` where `report` said to stop.
///
/// # Errors
/// Whatever the disk answers.
pub fn compare(
    map: &BlockMap,
    data: &RealFile,
    report: Report<'_>,
) -> io::Result<Option<Disagreement>> {
    let end = BlockIndex(map.blocks()).start();
    let mut found = Disagreement::default();
    let mut at = 0;
    while at < end {
        let rest = ByteRange::between(at, end);
        let data = next_data(data, rest)?.unwrap_or_else(|| ByteRange::between(end, end));
        found.add_hole(map, ByteRange::between(at, data.start()).blocks_inside());
        found.add_data(map, data.blocks_touched());
        at = data.end();
        if report(at, end).is_break() {
            return Ok(None);
        }
    }
    Ok(Some(found))
}

impl Disagreement {
    fn add_hole(&mut self, map: &BlockMap, hole: BlockRange) {
        for (run, state) in map.runs(hole) {
            if state == BlockState::Present {
                self.hollow.insert(run.indices());
            }
        }
    }

    fn add_data(&mut self, map: &BlockMap, data: BlockRange) {
        let runs = map.runs(data);
        let unused = runs.filter(|(_, state)| *state != BlockState::Present);
        self.unused += unused.map(|(run, _)| run.bytes().len()).sum::<u64>();
    }
}

/// Who used an overlay last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastClient {
    /// Its address.
    pub peer: String,
    /// When its session began, in seconds since 1970.
    pub at: u64,
}

/// Leaves a note of who uses the overlay `dir` now.
///
/// # Errors
/// Whatever the disk answers.
pub fn note_client<D: Disk>(disk: &D, dir: &Path, client: &LastClient) -> io::Result<()> {
    let text = format!("{} {}\n", client.at, client.peer);
    disk.create(&dir.join(LAST_CLIENT), text.len() as u64)?
        .write_at(text.as_bytes(), 0)
}

/// The note that was left last, where it is there and whole.
#[must_use]
pub fn last_client<D: Disk>(disk: &D, dir: &Path) -> Option<LastClient> {
    let file = disk.open(&dir.join(LAST_CLIENT)).ok()?;
    let size = file.size().ok().filter(|size| *size <= LAST_CLIENT_MAX)?;
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    file.read_at(&mut bytes, 0).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (at, peer) = text.strip_suffix('\n')?.split_once(' ')?;
    let printable = peer.chars().all(|c| !c.is_control());
    Some(LastClient {
        peer: printable.then(|| peer.to_owned())?,
        at: at.parse().ok()?,
    })
}

#[cfg(test)]
mod tests;
