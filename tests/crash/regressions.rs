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
fn check(start: Start, ops: &[Op]) {
    let history = History::of_steps(start, ops);
    if let Err(failure) = run(&history, Setting::sound(Effort::THOROUGH)) {
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
    check(Start::Owed, &[write, flush, checkpoint, Op::Kill]);
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
