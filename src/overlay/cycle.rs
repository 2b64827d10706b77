//! The steps by which a flush makes data and map durable, in their order.
//!
//! Invariants:
//! - Rule R2, "data before map": every cycle begins by making the data durable, and no record is
//!   written before that is complete. The reverse would let a crash leave a record that points at
//!   bytes which never came to be.
//! - Rule R6: the other journal is begun before the checkpoint that will replace this one is
//!   written, unless the checkpoint itself carries the epoch.
//! - Rule R9: a failed sync is final. Nothing is tried again, the overlay is poisoned.
//!
//! A cycle owns all it needs, so that it runs on any thread while writes go on.

use std::io;
use std::path::PathBuf;

use super::checkpoint::{self, Snapshot};
use super::journal::Frames;
use super::sabotage::{self, Sabotage};
use crate::disk::{Disk, DiskFile};
use crate::units::ByteRange;

/// The files of an open overlay.
#[derive(Clone, Debug)]
pub struct Files<D: Disk> {
    /// The disk they are on.
    pub disk: D,
    /// Their directory.
    pub dir: PathBuf,
    /// The blocks, each at its own offset.
    pub data: D::File,
    /// The journals of even and odd generations.
    pub journals: [D::File; 2],
    /// Tells this overlay's records from all others.
    pub uuid: [u8; 16],
    /// Whether anything is synced at all: an ephemeral overlay never outlives the page cache.
    pub durable: bool,
}

/// One step of a cycle.
#[derive(Clone, Debug)]
pub enum Step {
    /// Makes all that was written to the data file durable.
    SyncData,
    /// Writes frames to the journal of their generation and makes them durable.
    Append(Frames),
    /// Writes a checkpoint and makes it durable under its name.
    Checkpoint(Snapshot),
}

/// Why a cycle failed.
#[derive(Debug, thiserror::Error)]
pub enum CycleError {
    /// No space for records or checkpoint. Nothing was lost; the same can be tried again.
    #[error("no space left for the overlay's records")]
    NoSpace,
    /// The disk failed; what was not durable before must be taken for lost.
    #[error("{step}: {source}")]
    Failed {
        /// What was being done.
        step: &'static str,
        /// What the disk said.
        source: io::Error,
    },
}

/// A flush under way: steps to be done one after the other.
#[derive(Debug)]
pub struct Cycle<D: Disk> {
    pub(super) files: Files<D>,
    pub(super) steps: Vec<Step>,
}

impl<D: Disk> Cycle<D> {
    /// Does the steps. It blocks on the disk: not for a data-plane thread.
    ///
    /// # Errors
    /// [`CycleError`] of the first step that failed; the ones after it were not begun.
    pub fn run(mut self) -> Result<(), CycleError> {
        if sabotage::breaks(Sabotage::JournalBeforeData) {
            self.steps.reverse();
        }
        self.steps.iter().try_for_each(|step| self.files.run(step))
    }
}

impl<D: Disk> Files<D> {
    fn run(&self, step: &Step) -> Result<(), CycleError> {
        match step {
            Step::SyncData => self.sync(&self.data, "sync of the data file"),
            Step::Append(frames) => self.append(frames),
            Step::Checkpoint(snapshot) => self.write_checkpoint(snapshot),
        }
    }

    /// The journal file of a generation.
    #[must_use]
    pub fn journal(&self, generation: u64) -> &D::File {
        let [even, odd] = &self.journals;
        if generation.is_multiple_of(2) {
            even
        } else {
            odd
        }
    }

    fn append(&self, frames: &Frames) -> Result<(), CycleError> {
        let journal = self.journal(frames.after.generation);
        let written = journal.write_at(&frames.bytes, frames.offset as u64);
        written.map_err(|error| write_error("write to the journal", error))?;
        self.sync(journal, "sync of the journal")
    }

    fn write_checkpoint(&self, snapshot: &Snapshot) -> Result<(), CycleError> {
        checkpoint::write(&self.disk, &self.dir, &self.uuid, snapshot, self.durable)
            .map_err(|error| write_error("write of a checkpoint", error))?;
        self.remove_checkpoints_before(snapshot.generation);
        Ok(())
    }

    /// Older checkpoints are never read again. One that can't be removed is no harm.
    fn remove_checkpoints_before(&self, generation: u64) {
        for name in self.disk.list(&self.dir).unwrap_or_default() {
            if checkpoint::generation_of(&name).is_some_and(|old| old < generation) {
                let _ = self.disk.remove(&self.dir.join(name));
            }
        }
    }

    pub(super) fn sync(&self, file: &D::File, step: &'static str) -> Result<(), CycleError> {
        if !self.durable {
            return Ok(());
        }
        file.sync()
            .map_err(|source| CycleError::Failed { step, source })
    }
}

/// A failed write: out of space is no failure of the disk.
fn write_error(step: &'static str, source: io::Error) -> CycleError {
    if is_out_of_space(&source) {
        return CycleError::NoSpace;
    }
    CycleError::Failed { step, source }
}

/// ENOSPC and EDQUOT: the disk is well, but full.
pub(super) fn is_out_of_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// A checkpoint to be written while flushes go on.
#[derive(Debug)]
pub struct CheckpointJob<D: Disk> {
    pub(super) files: Files<D>,
    pub(super) snapshot: Snapshot,
}

impl<D: Disk> CheckpointJob<D> {
    /// Writes it. It blocks on the disk: not for a data-plane thread.
    ///
    /// # Errors
    /// [`CycleError`]; the checkpoint before and both journals are as they were.
    pub fn run(&self) -> Result<(), CycleError> {
        self.files.write_checkpoint(&self.snapshot)
    }
}

/// Space to be given back to the file system.
#[derive(Debug)]
pub struct PunchJob<D: Disk> {
    pub(super) data: D::File,
    pub(super) ranges: Vec<ByteRange>,
}

impl<D: Disk> PunchJob<D> {
    /// Punches the ranges. It blocks on the disk: not for a data-plane thread.
    ///
    /// # Errors
    /// Whatever the disk answers: then some space is kept, and nothing else is wrong.
    pub fn run(self) -> io::Result<()> {
        self.ranges
            .iter()
            .try_for_each(|&range| self.data.punch(range))
    }
}
