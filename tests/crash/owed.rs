//! A checkpoint that fails, and life after it until the journals have been switched once more: the
//! older one is needed until a checkpoint has replaced it.

use cowherd::disk::sim::Fault;
use cowherd::overlay::cycle::CheckpointJob;
use cowherd::overlay::flush::Begin;
use cowherd::units::BlockIndex;

use super::client::{Client, open};
use super::disk::TestDisk;
use super::explore::{Effort, Explorer};
use super::history::Start;
use super::machine::begin;
use super::oracle::Oracle;
use super::seeded::Seeded;

/// Changes of an epoch that fills the journal soon.
const MANY: u64 = 3000;

/// A client, and what it may find after a crash.
struct Life {
    client: Client,
    oracle: Oracle,
    random: Seeded,
    rounds: u64,
}

impl Life {
    fn new() -> Result<Self, String> {
        let (moment, content) = begin(Start::NearlyFull);
        let disk = TestDisk::new(moment.running(), None);
        let overlay = open(&disk).map_err(|error| error.to_string())?;
        Ok(Self {
            client: Client::new(disk, overlay),
            oracle: Oracle::of(content),
            random: Seeded::new(1),
            rounds: 0,
        })
    }

    /// Writes something, changes `many` blocks that nobody looks at, and flushes.
    fn flush(&mut self, many: u64) -> Result<Option<CheckpointJob<TestDisk>>, String> {
        let Self { client, oracle, .. } = self;
        client.write_somewhere(oracle, &mut self.random)?;
        for block in (0..many).map(|number| BlockIndex(100 + 2 * number)) {
            let range = block.bytes();
            let overlay = &mut client.overlay;
            let changed = if self.rounds.is_multiple_of(2) {
                overlay.trim(range)
            } else {
                let turn = overlay.join(range.blocks_touched());
                let begun = overlay.begin_write(&turn, range);
                let told = begun.and_then(|write| overlay.finish_write(&turn, &write, Ok(())));
                overlay.leave(turn);
                told
            };
            changed.map_err(|error| format!("a change fails: {error}"))?;
        }
        self.rounds += 1;
        let told = |error| format!("a flush fails: {error}");
        let Begin::Run(cycle) = client.overlay.begin_cycle().map_err(told)? else {
            return Err("there was nothing to flush".to_owned());
        };
        let job = client.overlay.finish_cycle(cycle.run()).map_err(told)?;
        oracle.durable(oracle.mark());
        Ok(job)
    }

    fn generation(&self) -> u64 {
        self.client.overlay.view().journal.generation
    }

    /// A kill or a power loss now loses nothing.
    fn look(&mut self) -> Result<(), String> {
        let moment = self.client.disk.sim.moment();
        let mut explorer = Explorer::new(Effort::LIGHT, None);
        explorer.explore(&moment, &self.oracle, &mut self.random)?;
        explorer.check(moment.running(), &self.oracle, &mut self.random, (1, 1))
    }

    /// Makes a checkpoint that meets `fault` at this one of its calls. Whether it failed.
    fn fails(&mut self, job: CheckpointJob<TestDisk>, fault: Fault, call: u64) -> bool {
        let sim = &self.client.disk.sim;
        sim.fail(sim.calls() + call, fault);
        let result = job.run();
        let failed = result.is_err();
        self.client.overlay.finish_checkpoint(job, result);
        failed
    }

    /// Flushes until a checkpoint is due.
    fn until_checkpoint(&mut self) -> Result<CheckpointJob<TestDisk>, String> {
        loop {
            if let Some(job) = self.flush(0)? {
                return Ok(job);
            }
        }
    }
}

/// The first checkpoint, and `more` behind it, find no space at one of their calls. `false` where
/// they do not have so many.
fn finds_no_space(call: u64, more: u64) -> Result<bool, String> {
    let mut life = Life::new()?;
    let mut due = Some(life.until_checkpoint()?);
    let first = life.generation();
    let mut failures = 0;
    while life.generation() < first + 2 {
        life.look()?;
        if let Some(job) = due {
            let call = if failures <= more { call } else { u64::MAX / 2 };
            let failed = life.fails(job, Fault::NoSpace, call);
            if failures == 0 && !failed {
                return Ok(false);
            }
            failures += 1;
            if let Some(why) = life.client.overlay.poison() {
                return Err(format!("a full disk has poisoned it: {why}"));
            }
            life.look()?;
        }
        due = life.flush(MANY)?;
    }
    life.look()?;
    Ok(true)
}

#[track_caller]
fn find_no_space(more: u64) {
    let fails = |call: &u64| {
        let found = finds_no_space(*call, more);
        found.unwrap_or_else(|error| panic!("no space at call {call} of a checkpoint: {error}"))
    };
    let calls = (1..).take_while(fails).count();
    assert!(calls >= 4, "create, write, sync, rename, not {calls}");
}

#[test]
fn a_checkpoint_that_found_no_space_is_made_before_its_journal_is_used_again() {
    find_no_space(0);
}

/// Then the flush that finds no room for its records makes it.
#[test]
fn a_checkpoint_that_never_finds_space_is_made_before_its_journal_is_used_again() {
    find_no_space(u64::MAX);
}

#[test]
fn a_checkpoint_that_failed_ends_all_changes() {
    let fails = |call: &u64| {
        let mut life = Life::new().unwrap();
        let job = life.until_checkpoint().unwrap();
        if !life.fails(job, Fault::Io, *call) {
            return false;
        }
        let poison = life.client.overlay.poison().cloned();
        let why = poison.unwrap_or_else(|| panic!("EIO at call {call}, and it does not know"));
        assert!(why.contains("checkpoint"), "{why}");
        let refused = life
            .flush(0)
            .expect_err("a flush although its disk has failed");
        assert!(refused.contains(&*why), "{refused}");
        // What was flushed before is there all the same; the last write was refused.
        life.look().unwrap();
        true
    };
    let calls = (1..).take_while(fails).count();
    assert!(calls >= 4, "create, write, sync, rename, not {calls}");
}
