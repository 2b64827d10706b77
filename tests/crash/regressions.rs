//! What the explorer has found, each as small as it could be made.

use super::client::{Client, content_of, dir, empty_disk, open, open_as};
use super::disk::TestDisk;
use super::explore::{Effort, Recorder, crash};
use super::history::{History, Op, Start, Work};
use super::machine::begin;
use super::oracle::Oracle;
use super::run::{Setting, run};
use super::seeded::Seeded;
use cowherd::overlay::{OverlayMode, inspect};
use cowherd::units::BlockIndex;

#[track_caller]
fn check(start: Start, ops: &[Op], effort: Effort) {
    let history = History::of_steps(start, ops);
    if let Err(failure) = run(&history, Setting::sound(effort)) {
        panic!("at step {}: {}\n{history}", failure.step, failure.what);
    }
}

/// The one before was removed while the name of the newer one was in the page cache only.
#[test]
fn a_checkpoint_found_after_a_kill_is_durable_before_the_one_before_goes() {
    let write = Op::Write {
        range: BlockIndex(2).bytes(),
        fua: true,
    };
    let flush = Op::Advance {
        work: Work::Flush,
        calls: 9,
    };
    let checkpoint = Op::Advance {
        work: Work::Checkpoint,
        calls: 4,
    };
    check(
        Start::Owed,
        &[write, flush, checkpoint, Op::Kill],
        Effort::THOROUGH,
    );
}

/// Its directory had its name in the page cache only.
#[test]
fn an_overlay_found_after_a_kill_is_durable_before_a_flush_is_answered() {
    let disk = empty_disk();
    let recorder = Recorder::on(&disk);
    open(&TestDisk::new(disk, None)).unwrap();
    for moment in recorder.take() {
        let disk = TestDisk::new(moment.running(), None);
        let overlay = open(&disk).unwrap();
        let mut oracle = Oracle::of(&content_of(&overlay).unwrap());
        let mut client = Client::new(disk.clone(), overlay);
        let random = &mut Seeded::new(1);
        client.write_somewhere(&mut oracle, random).unwrap();
        client.flush().unwrap();
        oracle.durable(oracle.mark());
        let crashed = disk.sim.moment().crash(&mut |_| 0);
        let overlay = open(&TestDisk::new(crashed, None)).unwrap();
        let content = content_of(&overlay).unwrap();
        oracle.check_recovered(&content).unwrap();
    }
}

/// How far the record of a freed block has come when the block is written again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Freed {
    /// It is not on its way yet.
    Unrecorded,
    /// A flush is at work on it.
    OnItsWay,
    /// It is durable.
    Durable,
}

/// A block is freed and written again, and what is freed is given back.
pub(crate) fn rewritten(freed: Freed) -> Vec<Op> {
    let (range, fua) = (BlockIndex(2).bytes(), false);
    let (write, trim) = (Op::Write { range, fua }, Op::Trim { range, fua });
    let flush: &[Op] = match freed {
        Freed::Unrecorded => &[],
        Freed::OnItsWay => &[Op::Flush],
        Freed::Durable => &[Op::Flush, Op::Drain],
    };
    let punch = Op::Punch { all: true };
    let before = [write, Op::Flush, Op::Drain, trim];
    let after = [write, Op::Drain, Op::Flush, Op::Drain, punch, Op::Drain];
    [&before, flush, &after].concat()
}

#[test]
fn a_freed_block_that_was_written_again_keeps_what_was_written() {
    for freed in [Freed::Unrecorded, Freed::OnItsWay, Freed::Durable] {
        check(Start::Nothing, &rewritten(freed), Effort::QUICK);
    }
}

/// A freed block is being written, as far as `written` calls bring it, when what is freed is given
/// back.
pub(crate) fn punched_while_it_is_written(written: u64, punched: u64) -> Vec<Op> {
    let (range, fua) = (BlockIndex(2).bytes(), true);
    let advance = |work, calls| Op::Advance { work, calls };
    vec![
        Op::Write { range, fua },
        Op::Drain,
        Op::Trim { range, fua },
        Op::Drain,
        Op::Begin { range },
        advance(Work::Write, written),
        Op::Punch { all: true },
        advance(Work::Punch, punched),
        Op::Drain,
        Op::Flush,
        Op::Drain,
    ]
}

#[test]
fn a_block_is_not_punched_while_it_is_being_written() {
    for (written, punched) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
        let story = punched_while_it_is_written(written, punched);
        check(Start::Nothing, &story, Effort::QUICK);
    }
}

/// Its header was in the page cache only, and what a power loss left of it kept its client out.
#[test]
fn an_ephemeral_overlay_gives_way_after_a_power_loss_whenever_that_comes() {
    let (sim, random) = (empty_disk(), &mut Seeded::new(1));
    let recorder = Recorder::on(&sim);
    let disk = TestDisk::new(sim, None);
    let overlay = open_as(&disk, OverlayMode::Ephemeral, 1).unwrap();
    let mut client = Client::new(disk, overlay);
    let (_, image) = begin(Start::Nothing);
    for _ in 0..3 {
        let mut oracle = Oracle::of(image);
        client.write_somewhere(&mut oracle, random).unwrap();
        client.flush().unwrap();
    }
    for moment in recorder.take() {
        for sample in 0..40 {
            let disk = TestDisk::new(crash(&moment, sample, random), None);
            // The server looks through all overlays when it starts.
            inspect::header(&disk, &dir()).unwrap();
            let overlay = open_as(&disk, OverlayMode::Ephemeral, 2).unwrap();
            let content = content_of(&overlay).unwrap();
            Oracle::of(image).check_recovered(&content).unwrap();
        }
    }
}
