//! Writes that are under way together: begun, written by a job, finished, each in its own time.

use std::io;

use cowherd::disk::DiskFile;
use cowherd::overlay::store::{BaseBlocks, PendingWrite, Turn, WriteError};
use cowherd::units::{BLOCK_SIZE, BlockRange, ByteRange};

use super::client::{bytes_of, image_of};
use super::job::{Job, Progress};
use super::machine::{Haste, Machine};

/// A write, as far as it has come.
pub(crate) struct SlowWrite {
    turn: Turn,
    range: ByteRange,
    data: Vec<u8>,
    state: State,
}

impl SlowWrite {
    pub(crate) fn shares(&self, blocks: BlockRange) -> bool {
        self.turn.blocks().overlaps(blocks)
    }
}

enum State {
    /// For its turn.
    Waits,
    Writes(PendingWrite, Job<io::Result<()>>),
    Written(PendingWrite, io::Result<()>),
}

impl Machine {
    pub(crate) fn begin_write(&mut self, range: ByteRange, tag: u64) {
        let turn = self.overlay().join(range.blocks_touched());
        self.writes.push(SlowWrite {
            turn,
            range,
            data: bytes_of(range, tag),
            state: State::Waits,
        });
    }

    /// One step of one of them.
    pub(crate) fn advance_a_write(&mut self) -> Result<(), String> {
        if self.writes.is_empty() {
            return Ok(());
        }
        let at = self.random.index(self.writes.len());
        let SlowWrite {
            turn,
            range,
            data,
            state,
        } = self.writes.remove(at);
        let state = match state {
            State::Waits => self.start_write(&turn, range, &data)?,
            State::Writes(pending, job) => written(pending, job.step()),
            State::Written(pending, result) => {
                return self.end_write(turn, &pending, result, (range, &data));
            }
        };
        self.writes.insert(
            at,
            SlowWrite {
                turn,
                range,
                data,
                state,
            },
        );
        self.look()
    }

    fn start_write(&mut self, turn: &Turn, range: ByteRange, data: &[u8]) -> Result<State, String> {
        if !self.overlay().is_due(turn) {
            // So that it does not wait for ever: what holds it up goes on.
            if self.is_punching() {
                self.make_way()?;
            }
            return Ok(State::Waits);
        }
        let pending = match self.overlay().begin_write(turn, range) {
            Ok(pending) => pending,
            Err(WriteError::Busy) => return Ok(State::Waits),
            Err(error) => return Err(format!("a write is refused: {error}")),
        };
        self.oracle.begin(range, data);
        let touched = range.blocks_touched().bytes();
        let mut bytes = vec![0; touched.len_usize()];
        let place = |part: ByteRange| {
            let start = usize::try_from(part.start() - touched.start()).expect("small");
            start..start + part.len_usize()
        };
        bytes[place(range)].copy_from_slice(data);
        let mut image = BaseBlocks::default();
        for block in pending.needs() {
            image.add(block, image_of(block));
        }
        let filled = pending.fill(&image, &mut bytes);
        filled.map_err(|error| format!("a write can't be completed: {error}"))?;
        let extent = pending.extent();
        assert!(extent.start().is_multiple_of(BLOCK_SIZE) || extent.start() == range.start());
        if self.haste == Some(Haste::Publish) {
            let told = self.overlay().finish_write(turn, &pending, Ok(()));
            told.map_err(|error| error.to_string())?;
        }
        let file = self.overlay().data().clone();
        let part = bytes[place(extent)].to_vec();
        let job = Job::start(move || file.write_at(&part, extent.start()));
        Ok(written(pending, job))
    }

    fn end_write(
        &mut self,
        turn: Turn,
        pending: &PendingWrite,
        result: io::Result<()>,
        (range, data): (ByteRange, &[u8]),
    ) -> Result<(), String> {
        if self.haste != Some(Haste::Publish) {
            let told = self.overlay().finish_write(&turn, pending, result);
            told.map_err(|error| format!("a write fails: {error}"))?;
        }
        if let Some(note) = self.overlay().take_note() {
            let written = note.file.write_at(&note.bytes, note.offset);
            let noted = self.overlay().noted(&note, written);
            noted.map_err(|error| format!("a note fails: {error}"))?;
        }
        self.overlay().leave(turn);
        self.oracle.change(range, Some(data));
        self.look()
    }
}

fn written(pending: PendingWrite, at: Progress<io::Result<()>>) -> State {
    match at {
        Progress::Waits(job) => State::Writes(pending, job),
        Progress::Ended(result) => State::Written(pending, result),
    }
}
