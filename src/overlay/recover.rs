//! Opening an overlay: the map from the last checkpoint and the journals behind it.
//!
//! Invariants (rule R8):
//! - What was acknowledged is in the map that comes out, or the overlay is refused: damage in the
//!   middle of the chain is never taken for its end.
//! - Before a record or a name is believed that only the page cache may hold, data, journals and
//!   directories are synced, and the cache is dropped: a later power loss must not take the data
//!   and leave a checkpoint that names it, nor take the newest checkpoint when the one before is
//!   gone.
//! - Recovery goes on in the live journal and writes no checkpoint: it needs no space, so a full
//!   disk keeps nobody's overlay closed. A checkpoint that was under way is owed, and made behind
//!   the next flush. So recovery can be interrupted anywhere and done again.

use std::io;
use std::path::Path;

use super::checkpoint::{self, CheckpointError, Snapshot};
use super::create::{self, DATA, HEADER, JOURNALS, block_count};
use super::cycle::{Cycle, CycleError, Files, Step};
use super::header::{Base, HEADER_BYTES, Header, HeaderError};
use super::journal::{self, ChainEnd, Change, Cursor, JOURNAL_BYTES, JournalDamage};
use super::map::BlockMap;
use super::{Overlay, OverlayMode, Voucher};
use crate::disk::{Disk, DiskFile};
use crate::units::BlockIndex;

/// What an overlay is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The image below.
    pub base: Base,
    /// How long it is to be kept; an existing one must have been made so.
    pub mode: OverlayMode,
    /// The present boot of the host.
    pub boot_id: [u8; 16],
    /// For a new overlay: random bytes.
    pub uuid: [u8; 16],
    /// For a new overlay: the time, in seconds since 1970.
    pub now: u64,
}

/// Why an overlay can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk failed, or its files are not ours to read.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the disk said.
        source: io::Error,
    },
    /// The header can't be used.
    #[error("header: {0}")]
    Header(#[from] HeaderError),
    /// It was made over another image.
    #[error("it was made over another image: restore that image, or reset the overlay")]
    OtherBase,
    /// It is kept longer, or not as long, as is asked for now.
    #[error("it was made {}: reset it, or use another client name", match .0 {
        OverlayMode::Persistent => "to be kept",
        OverlayMode::Ephemeral => "for one boot of the server only",
    })]
    OtherMode(OverlayMode),
    /// The data file has been cut or replaced.
    #[error(
        "the data file has {found} bytes instead of {expected}: restore it, or reset the overlay"
    )]
    DataSize {
        /// Bytes it has.
        found: u64,
        /// Bytes it was made with.
        expected: u64,
    },
    /// No checkpoint.
    #[error("there is no checkpoint: restore it, or reset the overlay")]
    NoCheckpoint,
    /// The newest checkpoint can't be used.
    #[error("checkpoint {generation}: {source}: restore the overlay from a backup, or reset it")]
    Checkpoint {
        /// Its generation.
        generation: u64,
        /// What is wrong.
        source: CheckpointError,
    },
    /// A journal has lost records that were acknowledged.
    #[error("journal {generation}: {source}: restore the overlay from a backup, or reset it")]
    Journal {
        /// Its generation.
        generation: u64,
        /// What is wrong.
        source: JournalDamage,
    },
    /// The map is whole again but could not be made durable.
    #[error("recovery: {0}")]
    Cycle(#[from] CycleError),
}

fn during(what: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io { what, source }
}

impl<D: Disk> Overlay<D> {
    /// Opens the overlay in `dir`, or makes it. An ephemeral one of an earlier boot of the host is
    /// replaced by a new one.
    ///
    /// # Errors
    /// [`OpenError`]; nothing that was acknowledged has been dropped.
    pub fn open(disk: &D, dir: &Path, spec: &Spec) -> Result<Self, OpenError> {
        if let Some(header) = read_header(disk, dir)? {
            if header.mode == OverlayMode::Persistent || header.boot_id == spec.boot_id {
                return recover(disk, dir, header, spec);
            }
            create::remove(disk, dir).map_err(during("removing an overlay of an earlier boot"))?;
        }
        let header = Header {
            uuid: spec.uuid,
            mode: spec.mode,
            base: spec.base,
            boot_id: spec.boot_id,
            created: spec.now,
        };
        create::create(disk, dir, &header).map_err(during("making the overlay"))?;
        recover(disk, dir, header, spec)
    }
}

pub(super) fn read_header<D: Disk>(disk: &D, dir: &Path) -> Result<Option<Header>, OpenError> {
    let file = match disk.open(&dir.join(HEADER)) {
        Ok(file) => file,
        // The directory gets its name with the header in it: one without is damaged, not new.
        Err(error) if error.kind() == io::ErrorKind::NotFound && disk.list(dir).is_err() => {
            return Ok(None);
        }
        Err(error) => return Err(during("opening the header")(error)),
    };
    let size = file.size().map_err(during("reading the header"))?;
    let len = usize::try_from(size)
        .unwrap_or(usize::MAX)
        .min(HEADER_BYTES);
    let mut bytes = vec![0; len];
    file.read_at(&mut bytes, 0)
        .map_err(during("reading the header"))?;
    Ok(Some(Header::from_bytes(&bytes)?))
}

fn recover<D: Disk>(
    disk: &D,
    dir: &Path,
    header: Header,
    spec: &Spec,
) -> Result<Overlay<D>, OpenError> {
    if header.base != spec.base {
        return Err(OpenError::OtherBase);
    }
    if header.mode != spec.mode {
        return Err(OpenError::OtherMode(header.mode));
    }
    let files = open_files(disk, dir, &header)?;
    sync_all(&files)?;
    let snapshot = newest_checkpoint(disk, dir, &header)?;
    let (generation, chain) = (snapshot.generation, snapshot.chain);
    remove_leftovers(disk, dir, generation);
    let Found { map, cursor, owed } = replay_journals(&files, snapshot)?;
    let cursor = match cursor {
        Some(cursor) => cursor,
        None => begin_journal(&files, generation, chain)?,
    };
    Ok(Overlay::new(files, header, map, cursor, owed))
}

/// As [`recover`], without a sync and without a change of any file; `None` where what is found is
/// not what was vouched for.
pub(super) fn recover_vouched<D: Disk>(
    disk: &D,
    dir: &Path,
    spec: &Spec,
    voucher: &Voucher,
) -> Option<Overlay<D>> {
    let durable = voucher.durable?;
    let header = read_header(disk, dir).ok()??;
    let is_it = header.uuid == voucher.uuid && header.base == spec.base;
    if !is_it || header.mode != spec.mode {
        return None;
    }
    let files = open_files(disk, dir, &header).ok()?;
    let snapshot = newest_checkpoint(disk, dir, &header).ok()?;
    let mut map = snapshot.map;
    // What is behind that place was not written by who vouches for it.
    let (generation, chain) = (snapshot.generation, snapshot.chain);
    let live = replay_up_to(&files, generation, chain, durable.offset).ok()??;
    if live.cursor != durable {
        return None;
    }
    apply(&mut map, &live.changes);
    Some(Overlay::new(files, header, map, live.cursor, None))
}

/// The page cache may hold what the disk does not: a killed server's last, unacknowledged writes,
/// and the names that it was about to sync, of a checkpoint or of the overlay itself.
fn sync_all<D: Disk>(files: &Files<D>) -> Result<(), OpenError> {
    if !files.durable {
        return Ok(());
    }
    for dir in [create::parent(&files.dir), &files.dir] {
        let synced = files.disk.sync_dir(dir);
        synced.map_err(during("sync of a directory"))?;
    }
    let [even, odd] = &files.journals;
    for (file, step) in [
        (&files.data, "sync of the data file"),
        (even, "sync of the journal"),
        (odd, "sync of the journal"),
    ] {
        files.sync(file, step)?;
        // A sync that failed in an earlier process has left pages that are called clean and are
        // not on the disk: a sync that succeeds now says nothing of them.
        file.forget_cached().map_err(during(step))?;
    }
    Ok(())
}

fn open_files<D: Disk>(disk: &D, dir: &Path, header: &Header) -> Result<Files<D>, OpenError> {
    let open = |name| disk.open(&dir.join(name));
    let [a, b] = JOURNALS;
    let files = Files {
        disk: disk.clone(),
        dir: dir.to_owned(),
        data: open(DATA).map_err(during("opening the data file"))?,
        journals: [
            open(a).map_err(during("opening journal.a"))?,
            open(b).map_err(during("opening journal.b"))?,
        ],
        uuid: header.uuid,
        durable: header.mode == OverlayMode::Persistent,
    };
    let found = files
        .data
        .size()
        .map_err(during("reading the size of the data file"))?;
    let expected = BlockIndex(block_count(header.base.size)).start();
    if found != expected {
        return Err(OpenError::DataSize { found, expected });
    }
    Ok(files)
}

fn newest_checkpoint<D: Disk>(
    disk: &D,
    dir: &Path,
    header: &Header,
) -> Result<Snapshot, OpenError> {
    let names = disk.list(dir).map_err(during("listing the overlay"))?;
    let newest = names
        .iter()
        .filter_map(|name| checkpoint::generation_of(name))
        .max();
    let generation = newest.ok_or(OpenError::NoCheckpoint)?;
    checkpoint::read(
        disk,
        dir,
        &header.uuid,
        generation,
        block_count(header.base.size),
    )
    .map_err(|source| OpenError::Checkpoint { generation, source })
}

/// What checkpoint and journals say together.
struct Found {
    map: BlockMap,
    /// Where the live journal goes on; `None` where it was never begun.
    cursor: Option<Cursor>,
    /// The checkpoint that was to replace the older of two live journals.
    owed: Option<Snapshot>,
}

fn replay_journals<D: Disk>(files: &Files<D>, snapshot: Snapshot) -> Result<Found, OpenError> {
    let Snapshot {
        generation,
        chain,
        mut map,
    } = snapshot;
    let Some(first) = replay(files, generation, chain)? else {
        return Ok(Found {
            map,
            cursor: None,
            owed: None,
        });
    };
    apply(&mut map, &first.changes);
    let (generation, chain) = (generation + 1, first.cursor.chain);
    let Some(second) = replay(files, generation, chain)? else {
        return Ok(Found {
            map,
            cursor: Some(first.cursor),
            owed: None,
        });
    };
    let owed = Snapshot {
        generation,
        chain,
        map: map.clone(),
    };
    apply(&mut map, &second.changes);
    Ok(Found {
        map,
        cursor: Some(second.cursor),
        owed: Some(owed),
    })
}

/// The journal behind a checkpoint that was made in place of one, and whose start frame is missing:
/// the server ended just between the two.
fn begin_journal<D: Disk>(
    files: &Files<D>,
    generation: u64,
    chain: ChainEnd,
) -> Result<Cursor, OpenError> {
    let start = journal::start_frame(&files.uuid, generation, chain);
    let cursor = start.after;
    Cycle {
        files: files.clone(),
        steps: vec![Step::Append(start)],
    }
    .run()?;
    Ok(cursor)
}

fn replay<D: Disk>(
    files: &Files<D>,
    generation: u64,
    chain: ChainEnd,
) -> Result<Option<journal::Replay>, OpenError> {
    replay_up_to(files, generation, chain, JOURNAL_BYTES)
}

/// As [`replay`], of the first `end` bytes of the journal.
fn replay_up_to<D: Disk>(
    files: &Files<D>,
    generation: u64,
    chain: ChainEnd,
    end: usize,
) -> Result<Option<journal::Replay>, OpenError> {
    let mut bytes = vec![0; end.min(JOURNAL_BYTES)];
    files
        .journal(generation)
        .read_at(&mut bytes, 0)
        .map_err(during("reading a journal"))?;
    journal::replay(&files.uuid, generation, chain, &bytes)
        .map_err(|source| OpenError::Journal { generation, source })
}

fn apply(map: &mut BlockMap, changes: &[Change]) {
    for change in changes {
        map.set(change.blocks, change.state, |_, _| {});
    }
}

/// An overlay as recovery would find it.
pub(super) struct Seen<D: Disk> {
    pub(super) header: Header,
    pub(super) data: D::File,
    pub(super) map: BlockMap,
    pub(super) cursor: Cursor,
}

/// Looks at the overlay in `dir` and writes nothing; `None` where there is none.
pub(super) fn look<D: Disk>(disk: &D, dir: &Path) -> Result<Option<Seen<D>>, OpenError> {
    let Some(header) = read_header(disk, dir)? else {
        return Ok(None);
    };
    let files = open_files(disk, dir, &header)?;
    let snapshot = newest_checkpoint(disk, dir, &header)?;
    let unbegun = Cursor {
        generation: snapshot.generation,
        offset: 0,
        chain: snapshot.chain,
    };
    let found = replay_journals(&files, snapshot)?;
    Ok(Some(Seen {
        header,
        data: files.data,
        map: found.map,
        cursor: found.cursor.unwrap_or(unbegun),
    }))
}

/// Temporary files of an interrupted checkpoint, and checkpoints that a newer one has replaced.
/// What can't be removed is no harm.
fn remove_leftovers<D: Disk>(disk: &D, dir: &Path, newest: u64) {
    for name in disk.list(dir).unwrap_or_default() {
        let is_older = checkpoint::generation_of(&name).is_some_and(|old| old < newest);
        if is_older || name.ends_with(".tmp") {
            let _ = disk.remove(&dir.join(name));
        }
    }
}
