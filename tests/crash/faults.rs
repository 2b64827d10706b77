//! Every call of the disk fails once, in every way: the client is told, nothing that was
//! acknowledged is lost, and the overlay is good again once it was opened anew.
//!
//! Here each piece of work goes to its end before the next begins, so that calls have numbers.

use cowherd::disk::sim::{Fault, Moment};
use cowherd::overlay::Overlay;
use cowherd::overlay::cycle::{CheckpointJob, CycleError};
use cowherd::overlay::flush::Begin;
use cowherd::overlay::sabotage::{self, Sabotage};
use cowherd::overlay::store::{WriteError, Zeroing};
use cowherd::units::{BLOCK_SIZE, BlockIndex, ByteRange};

use super::client::{bytes_of, content_of, open, with_image};
use super::disk::{Leak, TestDisk};
use super::explore::{Effort, Explorer};
use super::history::{Op, Start};
use super::machine::{Change, begin};
use super::oracle::{AREAS, Oracle};
use super::seeded::Seeded;

/// A client whose disk may fail.
struct Patient {
    disk: TestDisk,
    overlay: Option<Overlay<TestDisk>>,
    oracle: Oracle,
    random: Seeded,
    leak: Option<Leak>,
    /// Errors that the client was told.
    told: Vec<String>,
    /// Since the last time it was opened.
    failed: bool,
    /// What goes wrong with the disk, at some time.
    fault: Option<Fault>,
    /// A checkpoint found no space: the next flush must ask for it again.
    owed: bool,
}

impl Patient {
    fn new(start: Start, leak: Option<Leak>, seed: u64) -> Self {
        let (moment, content) = begin(start);
        Self {
            disk: TestDisk::new(moment.running(), leak),
            overlay: None,
            oracle: Oracle::of(content),
            random: Seeded::new(seed),
            leak,
            told: Vec::new(),
            failed: false,
            fault: None,
            owed: false,
        }
    }

    /// All of `ops`, with crashes looked at after one that failed and at the end.
    fn live(&mut self, ops: &[Op]) -> Result<(), String> {
        self.open()?;
        for (number, &op) in ops.iter().enumerate() {
            let told = self.told.len();
            let in_step = |error| format!("at step {number} ({op}): {error}");
            self.perform(op).map_err(in_step)?;
            self.check_read().map_err(in_step)?;
            if self.told.len() > told {
                self.look().map_err(in_step)?;
            }
        }
        self.look().map_err(|error| format!("at the end: {error}"))
    }

    fn look(&mut self) -> Result<(), String> {
        let moment = self.disk.sim.moment();
        let mut explorer = Explorer::new(Effort::LIGHT, self.leak);
        explorer.explore(&moment, &self.oracle, &mut self.random)?;
        self.look_after_kill(&moment)
    }

    /// The process ends, another one opens the overlay, and works on.
    fn look_after_kill(&mut self, moment: &Moment) -> Result<(), String> {
        let mut explorer = Explorer::new(Effort::LIGHT, self.leak);
        for _ in 0..2 {
            explorer
                .check(moment.running(), &self.oracle, &mut self.random, (1, 1))
                .map_err(|error| format!("after a kill: {error}"))?;
        }
        Ok(())
    }

    fn perform(&mut self, op: Op) -> Result<(), String> {
        match op {
            Op::Write { range, fua } => {
                let data = bytes_of(range, self.random.number());
                self.oracle.change(range, Some(&data));
                self.change(fua, &mut |overlay, image| {
                    overlay.write(range, &data, image)
                })
            }
            Op::Zero {
                range,
                reserve,
                fua,
            } => {
                let how = [Zeroing::Free, Zeroing::Reserve][usize::from(reserve)];
                self.oracle.change(range, None);
                self.change(fua, &mut |overlay, image| overlay.zero(range, how, image))
            }
            Op::Trim { range, fua } => {
                self.oracle.trim(range);
                self.change(fua, &mut |overlay, _| overlay.trim(range))
            }
            Op::Flush => self.flush(),
            Op::Punch { all } => {
                let overlay = self.overlay();
                if let Some(job) = overlay.begin_punch(all) {
                    let result = job.run();
                    overlay.finish_punch(result);
                }
                Ok(())
            }
            Op::Kill => self.reopen(),
            other => Err(format!("{other} can't be done here")),
        }
    }

    fn overlay(&mut self) -> &mut Overlay<TestDisk> {
        self.overlay.as_mut().expect("it is open")
    }

    fn change(&mut self, fua: bool, change: &mut Change<'_>) -> Result<(), String> {
        let failed = self.failed;
        let overlay = self.overlay();
        match with_image(|image| change(overlay, image)) {
            Ok(()) if failed => Err("it takes changes although its disk has failed".to_owned()),
            Ok(()) if fua => self.flush(),
            Ok(()) => Ok(()),
            Err(error) => {
                self.tell(&error)?;
                // All or part of it may have been done: a client that was told can't know.
                let content = self.read()?;
                self.oracle.check_failed(&content)?;
                self.oracle.observe(&content);
                Ok(())
            }
        }
    }

    fn tell(&mut self, error: &WriteError) -> Result<(), String> {
        self.told.push(error.to_string());
        match error {
            WriteError::NoSpace if self.fault == Some(Fault::Io) => {
                Err("its disk has failed, and it is told that it is full".to_owned())
            }
            WriteError::NoSpace => Ok(()),
            WriteError::Poisoned(_) => {
                self.failed = true;
                match self.overlay().poison() {
                    Some(_) => Ok(()),
                    None => Err("its disk has failed, and it does not know".to_owned()),
                }
            }
            other => Err(format!("it is told {other}")),
        }
    }

    fn flush(&mut self) -> Result<(), String> {
        let mark = self.oracle.mark();
        let failed = self.failed;
        let overlay = self.overlay();
        let generation = overlay.view().journal.generation;
        let mut ran = false;
        let ended = match overlay.begin_cycle() {
            Ok(Begin::Clean) => Ok(None),
            Ok(Begin::Run(cycle)) => {
                ran = true;
                let result = cycle.run();
                overlay.finish_cycle(result)
            }
            Ok(Begin::WaitForCheckpoint) => return Err("no checkpoint is under way".to_owned()),
            Err(error) => Err(error),
        };
        match ended {
            Ok(_) if failed => Err("it flushes although its disk has failed".to_owned()),
            Ok(job) => {
                self.oracle.durable(mark);
                match job {
                    Some(job) => self.checkpoint(job),
                    // A flush that found no room in the journal has made one itself.
                    None if self.overlay().view().journal.generation > generation => Ok(()),
                    None if ran && self.owed => Err("a checkpoint is owed, and forgotten".into()),
                    None => Ok(()),
                }
            }
            Err(error) => self.tell(&error),
        }
    }

    fn checkpoint(&mut self, job: CheckpointJob<TestDisk>) -> Result<(), String> {
        let result = job.run();
        self.owed = matches!(result, Err(CycleError::NoSpace));
        self.failed = matches!(result, Err(CycleError::Failed { .. }));
        let failed = self.failed;
        let overlay = self.overlay();
        overlay.finish_checkpoint(job, result);
        match overlay.poison() {
            None if failed => Err("its checkpoint has failed, and it does not know".to_owned()),
            Some(why) if !failed => Err(format!("a checkpoint has not failed: {why}")),
            _ => Ok(()),
        }
    }

    fn reopen(&mut self) -> Result<(), String> {
        let sim = self.disk.sim.restart();
        self.overlay = None;
        self.disk = TestDisk::new(sim, self.leak);
        self.open()
    }

    /// Opens it, the second time at the latest.
    fn open(&mut self) -> Result<(), String> {
        let overlay = match open(&self.disk) {
            Ok(overlay) => overlay,
            Err(error) => {
                self.told.push(error.to_string());
                let again = open(&self.disk);
                again.map_err(|error| format!("it can't be opened: {error}"))?
            }
        };
        self.overlay = Some(overlay);
        self.failed = false;
        self.owed = false;
        let content = self.read()?;
        self.oracle.check_recovered(&content)?;
        self.oracle = Oracle::of(&content);
        Ok(())
    }

    fn read(&mut self) -> Result<super::oracle::Content, String> {
        let first = content_of(self.overlay());
        first.or_else(|error| {
            self.told.push(error);
            content_of(self.overlay())
        })
    }

    fn check_read(&mut self) -> Result<(), String> {
        let content = self.read()?;
        let read = self.oracle.check_read(&content);
        read.map_err(|error| format!("a read is wrong: {error}"))
    }
}

fn write(first: u64, bytes: u64, fua: bool) -> Op {
    let start = BlockIndex(first).start();
    let range = ByteRange::between(start, start + bytes);
    Op::Write { range, fua }
}

fn trim(first: u64, blocks: u64) -> Op {
    let start = BlockIndex(first).start();
    let range = ByteRange::between(start, start + blocks * BLOCK_SIZE);
    Op::Trim { range, fua: false }
}

/// From the making of an overlay on.
fn first_days() -> (Start, Vec<Op>) {
    let border = AREAS[1].0;
    let ops = vec![
        write(1, 3 * BLOCK_SIZE, false),
        Op::Flush,
        write(2, 700, false),
        write(border, 5000, true),
        trim(1, 2),
        zero(3, 5000, true),
        Op::Flush,
        Op::Punch { all: true },
        Op::Kill,
        write(1, 100, false),
        zero(6, 4096, false),
        Op::Flush,
        write(1, 200, true),
    ];
    (Start::Nothing, ops)
}

fn zero(first: u64, bytes: u64, reserve: bool) -> Op {
    let start = BlockIndex(first).start();
    Op::Zero {
        range: ByteRange::between(start, start + bytes),
        reserve,
        fua: false,
    }
}

/// Across a checkpoint.
fn a_checkpoint() -> (Start, Vec<Op>) {
    let mut ops = Vec::new();
    for round in 0..5 {
        ops.push(write(round, 6000, false));
        ops.push(Op::Flush);
        ops.push(trim(round + 1, 1));
    }
    ops.extend([Op::Flush, Op::Kill, write(2, 500, true), Op::Kill]);
    (Start::NearlyFull, ops)
}

/// With a checkpoint that is owed, until the journal is full.
fn a_debt() -> (Start, Vec<Op>) {
    let mut ops = Vec::new();
    for round in 0..4 {
        ops.push(write(round * 2, 4096, true));
        ops.push(trim(round * 2, 1));
        ops.push(Op::Flush);
    }
    ops.extend([Op::Kill, write(2, 500, true)]);
    (Start::Owed, ops)
}

/// Runs `story` once for each of its calls, with `fault` there. Gives what clients were told.
fn each_call_fails(
    story: (Start, Vec<Op>),
    fault: Fault,
    leak: Option<Leak>,
) -> Result<(), String> {
    let (start, ops) = story;
    let mut patient = Patient::new(start, leak, 0);
    patient
        .live(&ops)
        .map_err(|error| format!("without a fault: {error}"))?;
    let calls = patient.disk.sim.calls();
    assert!(patient.told.is_empty(), "{:?}", patient.told);
    let mut told = 0;
    for call in 1..=calls {
        let mut patient = Patient::new(start, leak, call);
        patient.disk.sim.fail(call, fault);
        patient.fault = Some(fault);
        let lived = patient.live(&ops);
        lived.map_err(|error| {
            let told = &patient.told;
            format!("{fault:?} at call {call}: {error}\nthe client was told {told:?}")
        })?;
        let quiet = matches!(fault, Fault::Interrupted | Fault::Short);
        if quiet && !patient.told.is_empty() {
            return Err(format!(
                "{fault:?} at call {call} is told: {:?}",
                patient.told
            ));
        }
        told += u64::from(!patient.told.is_empty());
    }
    println!("{fault:?} at each of {calls} calls: {told} clients were told");
    Ok(())
}

#[track_caller]
fn survives(story: fn() -> (Start, Vec<Op>), faults: &[Fault]) {
    for &fault in faults {
        if let Err(error) = each_call_fails(story(), fault, None) {
            panic!("{error}");
        }
    }
}

const QUIET: &[Fault] = &[Fault::Interrupted, Fault::Short];

#[test]
fn eio_at_any_call_of_the_first_days_is_survived() {
    survives(first_days, &[Fault::Io]);
}

#[test]
fn eio_at_any_call_of_a_checkpoint_is_survived() {
    survives(a_checkpoint, &[Fault::Io]);
}

#[test]
fn eio_at_any_call_with_a_checkpoint_owed_is_survived() {
    survives(a_debt, &[Fault::Io]);
}

#[test]
fn enospc_at_any_call_is_survived() {
    for story in [first_days, a_checkpoint, a_debt] {
        survives(story, &[Fault::NoSpace]);
    }
}

#[test]
fn short_and_interrupted_calls_are_not_noticed() {
    for story in [first_days, a_checkpoint, a_debt] {
        survives(story, QUIET);
    }
}

/// Before any step of a story the disk is full, and before any later one it has space again.
#[test]
fn a_disk_that_is_full_for_a_while_is_survived() {
    for story in [first_days, a_checkpoint, a_debt] {
        let (start, ops) = story();
        for (full, steps) in (0..ops.len()).flat_map(|full| [(full, 1), (full, 4)]) {
            let mut patient = Patient::new(start, None, 1);
            patient.open().unwrap();
            for (number, &op) in ops.iter().enumerate() {
                let is_full = (full..full + steps).contains(&number);
                patient.disk.sim.set_full(is_full);
                let told = patient.told.len();
                patient.perform(op).unwrap();
                patient.check_read().unwrap();
                assert!(is_full || patient.told.len() == told, "{op}");
                assert!(!patient.failed, "{op}: {:?}", patient.told);
            }
            patient.look().unwrap();
        }
    }
}

#[test]
fn r9_a_sync_that_is_tried_again_is_noticed() {
    let error = each_call_fails(first_days(), Fault::Io, Some(Leak::Retry)).unwrap_err();
    println!("{error}");
}

#[cfg(debug_assertions)]
#[test]
fn r9_a_failed_sync_that_is_forgotten_is_noticed() {
    sabotage::choose(Some(Sabotage::NoPoison));
    let error = each_call_fails(first_days(), Fault::Io, None).unwrap_err();
    sabotage::choose(None);
    println!("{error}");
}
