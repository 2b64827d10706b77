//! Flushes of an open overlay: what a cycle has to do, and what its end means.
//!
//! Invariants:
//! - At most one cycle, one checkpoint and one punch job are under way; the journal's cursor moves
//!   only when the cycle that wrote the frames has ended well.
//! - A cycle covers every change that was made before it began, and none after.

use std::io;

use super::checkpoint::Snapshot;
use super::cycle::{CheckpointJob, Cycle, CycleError, PunchJob, Step};
use super::epoch::Epoch;
use super::journal::{self, Cursor, Frames, JOURNAL_BYTES};
use super::sabotage::{self, Sabotage};
use super::store::{Overlay, WriteError};
use crate::disk::Disk;

/// A journal this full is due for a checkpoint.
const CHECKPOINT_AT: usize = JOURNAL_BYTES / 4 * 3;

/// What a flush has to do.
#[derive(Debug)]
pub enum Begin<D: Disk> {
    /// Nothing was written since the last one.
    Clean,
    /// A checkpoint must end first.
    WaitForCheckpoint,
    /// This cycle is to be run, and its end told to [`Overlay::finish_cycle`].
    Run(Cycle<D>),
}

/// What a cycle under way will have done.
#[derive(Debug)]
pub(super) struct Flight {
    epoch: Epoch,
    after: Cursor,
    snapshot: Option<Snapshot>,
}

#[derive(Debug)]
pub(super) enum Checkpointing {
    Idle,
    Running,
    /// It found no space; both journals are needed until it succeeds.
    Owed(Snapshot),
}

impl<D: Disk> Overlay<D> {
    /// Plans the flush of all that was written so far.
    ///
    /// # Errors
    /// [`WriteError::Poisoned`].
    pub fn begin_cycle(&mut self) -> Result<Begin<D>, WriteError> {
        self.check_not_poisoned()?;
        if !self.dirty && self.epoch.is_empty() {
            return Ok(Begin::Clean);
        }
        let frames = self.frames_that_fit();
        let idle = !matches!(self.checkpointing, Checkpointing::Running);
        if frames.is_none() && !self.epoch.is_empty() && !idle {
            return Ok(Begin::WaitForCheckpoint);
        }
        let epoch = std::mem::take(&mut self.epoch);
        if let Some(recent) = &mut self.recent {
            recent.flush_begins();
        }
        self.space.seal();
        self.dirty = false;
        let (steps, after, snapshot) = self.plan(&epoch, frames);
        self.flight = Some(Flight {
            epoch,
            after,
            snapshot,
        });
        Ok(Begin::Run(Cycle {
            files: self.files.clone(),
            steps,
        }))
    }

    /// The open epoch as frames, where the live journal has room for them.
    fn frames_that_fit(&self) -> Option<Frames> {
        let changes = self.epoch.changes().filter(|changes| !changes.is_empty())?;
        let end = self.cursor.offset + journal::epoch_bytes(changes.len());
        (end <= JOURNAL_BYTES)
            .then(|| journal::epoch_frames(&self.files.uuid, self.cursor, changes))
    }

    fn plan(&self, epoch: &Epoch, frames: Option<Frames>) -> (Vec<Step>, Cursor, Option<Snapshot>) {
        let mut steps = vec![Step::SyncData];
        let Some(frames) = frames else {
            if epoch.is_empty() {
                return (steps, self.cursor, None);
            }
            // The checkpoint carries the epoch, which no journal can.
            let mut chain = self.cursor.chain;
            chain.epoch += 1;
            let (start, snapshot) = self.next_generation(chain);
            let after = start.after;
            steps.extend([Step::Checkpoint(snapshot), Step::Append(start)]);
            return (steps, after, None);
        };
        let after = frames.after;
        steps.push(Step::Append(frames));
        let idle = matches!(self.checkpointing, Checkpointing::Idle)
            || sabotage::breaks(Sabotage::EarlyReuse);
        if after.offset < CHECKPOINT_AT || !idle {
            return (steps, after, None);
        }
        // Rule R6: the journals are switched first, and the checkpoint is written behind the flush.
        let (start, snapshot) = self.next_generation(after.chain);
        let after = start.after;
        steps.push(Step::Append(start));
        (steps, after, Some(snapshot))
    }

    /// Whether nothing is under way or owed: the live journal follows the newest checkpoint.
    pub(super) fn is_settled(&self) -> bool {
        let is_idle = matches!(self.checkpointing, Checkpointing::Idle);
        self.flight.is_none() && is_idle && !self.space.is_punching_any()
    }

    fn next_generation(&self, chain: journal::ChainEnd) -> (Frames, Snapshot) {
        let generation = self.cursor.generation + 1;
        let start = journal::start_frame(&self.files.uuid, generation, chain);
        (
            start,
            Snapshot {
                generation,
                chain,
                map: self.map.clone(),
            },
        )
    }

    /// A cycle has ended. Where it asks for a checkpoint, that is to be run beside what follows,
    /// and its end told to [`Overlay::finish_checkpoint`].
    ///
    /// # Errors
    /// What the cycle's waiters must be told.
    pub fn finish_cycle(
        &mut self,
        result: Result<(), CycleError>,
    ) -> Result<Option<CheckpointJob<D>>, WriteError> {
        let Some(flight) = self.flight.take() else {
            return Ok(None);
        };
        match result {
            Ok(()) => {
                // A cycle that began a generation by a checkpoint of its own has paid what was
                // owed.
                let paid =
                    flight.snapshot.is_none() && flight.after.generation != self.cursor.generation;
                self.cursor = flight.after;
                if let Some(recent) = &mut self.recent {
                    recent.flushed();
                }
                self.space.sealed_is_durable();
                Ok(self.checkpoint_due(flight.snapshot, paid))
            }
            Err(CycleError::NoSpace) => {
                self.epoch.put_back(flight.epoch);
                self.space.unseal();
                self.dirty = true;
                Err(WriteError::NoSpace)
            }
            Err(CycleError::Failed { .. }) if sabotage::breaks(Sabotage::NoPoison) => {
                Err(WriteError::Poisoned("for this once".into()))
            }
            Err(CycleError::Failed { step, source }) => Err(WriteError::Poisoned(
                self.set_poison(&format!("{step}: {source}")),
            )),
        }
    }

    fn checkpoint_due(
        &mut self,
        snapshot: Option<Snapshot>,
        paid: bool,
    ) -> Option<CheckpointJob<D>> {
        let state = std::mem::replace(&mut self.checkpointing, Checkpointing::Idle);
        let snapshot = match (state, snapshot) {
            (Checkpointing::Running, _) => {
                self.checkpointing = Checkpointing::Running;
                return None;
            }
            (Checkpointing::Owed(_), None) if paid => return None,
            (Checkpointing::Owed(owed), _) => Some(owed),
            (Checkpointing::Idle, new) => new,
        }?;
        let snapshot = if sabotage::breaks(Sabotage::LateFreeze) {
            let map = self.map.clone();
            Snapshot { map, ..snapshot }
        } else {
            snapshot
        };
        self.checkpointing = Checkpointing::Running;
        Some(CheckpointJob {
            files: self.files.clone(),
            snapshot,
        })
    }

    /// A checkpoint has ended.
    pub fn finish_checkpoint(&mut self, job: CheckpointJob<D>, result: Result<(), CycleError>) {
        self.checkpointing = match result {
            Ok(()) => Checkpointing::Idle,
            Err(CycleError::NoSpace) => Checkpointing::Owed(job.snapshot),
            Err(CycleError::Failed { step, source }) => {
                self.set_poison(&format!("{step}: {source}"));
                Checkpointing::Idle
            }
        };
    }

    /// Space to give back, the short runs only if `all`. The end is to be told to
    /// [`Overlay::finish_punch`].
    pub fn begin_punch(&mut self, all: bool) -> Option<PunchJob<D>> {
        let ranges = self.space.begin_punch(all);
        (!ranges.is_empty()).then(|| PunchJob {
            data: self.files.data.clone(),
            ranges,
        })
    }

    /// A punch job has ended; where it failed, some space is kept.
    pub fn finish_punch(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::warn!(
                "overlay {}: space not given back: {error}",
                self.files.dir.display()
            );
        }
        self.space.finish_punch();
    }
}
