//! A server's work on one overlay, one call of the disk at a time, with crashes after each.

use std::io;
use std::sync::{Arc, OnceLock};

use cowherd::disk::sim::Moment;
use cowherd::overlay::Overlay;
use cowherd::overlay::commit::GroupCommit;
use cowherd::overlay::cycle::{CheckpointJob, CycleError};
use cowherd::overlay::flush::Begin;
use cowherd::overlay::sabotage::{self, Sabotage};
use cowherd::overlay::store::{BaseBlocks, WriteError, Zeroing};
use cowherd::units::{BlockIndex, ByteRange};

use super::client::{bytes_of, content_of, open_vouched, prepared, with_image};
use super::disk::TestDisk;
use super::explore::{Explorer, Recorder, crash};
use super::history::{Op, Start, Step, Work};
use super::job::{Job, Progress};
use super::oracle::{Content, Oracle};
use super::seeded::Seeded;
use super::slow::SlowWrite;

/// A rule that the server breaks, not the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Haste {
    /// FUA is answered without a flush.
    Fua,
    /// A flush that comes while one runs is answered by that one's end.
    Join,
    /// The map learns of a write before its data is written.
    Publish,
}

/// A change of the overlay, given what it needs of the image.
pub(crate) type Change<'a> =
    dyn FnMut(&mut Overlay<TestDisk>, &BaseBlocks) -> Result<(), WriteError> + 'a;
type Checkpoint = (CheckpointJob<TestDisk>, Result<(), CycleError>);

/// One overlay, all that is under way with it, and what may come of it.
pub(crate) struct Machine {
    disk: TestDisk,
    recorder: Arc<Recorder>,
    overlay: Option<Overlay<TestDisk>>,
    pub(crate) oracle: Oracle,
    commit: GroupCommit<u64>,
    cycle: Option<Job<Result<(), CycleError>>>,
    checkpoint: Option<Job<Checkpoint>>,
    punch: Option<Job<io::Result<()>>>,
    pub(crate) writes: Vec<SlowWrite>,
    pub(crate) explorer: Explorer,
    pub(crate) random: Seeded,
    pub(crate) haste: Option<Haste>,
    scattered: u64,
}

impl Machine {
    /// The server is started.
    pub(crate) fn start(
        start: Start,
        explorer: Explorer,
        haste: Option<Haste>,
    ) -> Result<Self, String> {
        let (moment, content) = begin(start);
        let sim = moment.running();
        let recorder = Recorder::on(&sim);
        let mut machine = Self {
            disk: TestDisk::new(sim, explorer.leak),
            recorder,
            overlay: None,
            oracle: Oracle::of(content),
            commit: GroupCommit::default(),
            cycle: None,
            checkpoint: None,
            punch: None,
            writes: Vec::new(),
            explorer,
            random: Seeded::new(0),
            haste,
            scattered: 0,
        };
        machine.open()?;
        Ok(machine)
    }

    /// Does one step and looks at all crashes on the way.
    pub(crate) fn perform(&mut self, step: Step) -> Result<(), String> {
        self.random = Seeded::new(step.seed);
        match step.op {
            Op::Write { range, fua } => self.write(range, step.seed, fua)?,
            Op::Begin { range } => self.begin_write(range, step.seed),
            Op::Zero {
                range,
                reserve,
                fua,
            } => self.zero(range, reserve, fua)?,
            Op::Trim { range, fua } => self.trim(range, fua)?,
            Op::Flush => {
                self.commit.join(self.oracle.mark());
                self.flush_if_due()?;
            }
            Op::Scatter { blocks } => self.scatter(blocks)?,
            Op::Punch { all } => self.begin_punch(all)?,
            Op::Advance { work, calls } => {
                for _ in 0..calls {
                    self.advance(work)?;
                }
            }
            Op::Drain => self.drain()?,
            Op::Kill => self.kill()?,
            Op::PowerLoss => self.lose_power()?,
            Op::Reopen => self.reopen()?,
            Op::HandOver => self.hand_over()?,
        }
        self.look()?;
        let content = content_of(self.overlay())?;
        let read = self.oracle.check_read(&content);
        read.map_err(|error| format!("a read is wrong: {error}"))
    }

    pub(crate) fn overlay(&mut self) -> &mut Overlay<TestDisk> {
        self.overlay.as_mut().expect("it is open")
    }

    /// Explores the crashes at every call that was made since it last did.
    pub(crate) fn look(&mut self) -> Result<(), String> {
        for moment in self.recorder.take() {
            let Self {
                explorer,
                oracle,
                random,
                ..
            } = self;
            explorer.explore(&moment, oracle, random)?;
        }
        Ok(())
    }

    fn look_now(&mut self) -> Result<(), String> {
        self.look()?;
        let moment = self.disk.sim.moment();
        self.explorer
            .explore(&moment, &self.oracle, &mut self.random)
    }

    fn write(&mut self, range: ByteRange, tag: u64, fua: bool) -> Result<(), String> {
        self.make_way_for(range)?;
        let data = bytes_of(range, tag);
        self.oracle.change(range, Some(&data));
        self.change(&mut |overlay, image| overlay.write(range, &data, image))?;
        self.after_change(fua)
    }

    fn zero(&mut self, range: ByteRange, reserve: bool, fua: bool) -> Result<(), String> {
        let how = if reserve {
            Zeroing::Reserve
        } else {
            Zeroing::Free
        };
        self.make_way_for(range)?;
        self.oracle.change(range, None);
        self.change(&mut |overlay, image| overlay.zero(range, how, image))?;
        self.after_change(fua)
    }

    fn trim(&mut self, range: ByteRange, fua: bool) -> Result<(), String> {
        self.make_way_for(range)?;
        self.oracle.trim(range);
        self.change(&mut |overlay, _| overlay.trim(range))?;
        self.after_change(fua)
    }

    fn scatter(&mut self, blocks: u64) -> Result<(), String> {
        for _ in 0..blocks {
            let block = BlockIndex(100 + self.scattered % 7000 * 2);
            self.scattered += 1;
            self.change(&mut |overlay, _| overlay.trim(block.bytes()))?;
        }
        Ok(())
    }

    fn change(&mut self, change: &mut Change<'_>) -> Result<(), String> {
        loop {
            let overlay = self.overlay();
            match with_image(|image| change(overlay, image)) {
                Ok(()) => return self.look(),
                Err(WriteError::Busy) => self.make_way()?,
                Err(error) => return Err(format!("refused: {error}")),
            }
        }
    }

    fn after_change(&mut self, fua: bool) -> Result<(), String> {
        if fua && self.haste == Some(Haste::Fua) {
            self.oracle.durable(self.oracle.mark());
            self.look_now()
        } else if fua {
            self.commit.join(self.oracle.mark());
            self.flush_if_due()
        } else {
            Ok(())
        }
    }

    fn flush_if_due(&mut self) -> Result<(), String> {
        while self.commit.is_due() {
            match self.overlay().begin_cycle() {
                Ok(Begin::Clean) => {
                    self.commit.begin();
                    self.answer()?;
                }
                Ok(Begin::WaitForCheckpoint) => self.finish(Work::Checkpoint)?,
                Ok(Begin::Run(cycle)) => {
                    self.commit.begin();
                    return self.cycle_at(Job::start(move || cycle.run()));
                }
                Err(error) => return Err(format!("a flush is refused: {error}")),
            }
        }
        Ok(())
    }

    /// Those who waited for the flush that has ended are told.
    fn answer(&mut self) -> Result<(), String> {
        let mut marks = self.commit.finish();
        if self.haste == Some(Haste::Join) {
            self.commit.begin();
            marks.extend(self.commit.finish());
        }
        for mark in marks {
            self.oracle.durable(mark);
        }
        self.look_now()
    }

    fn cycle_at(&mut self, at: Progress<Result<(), CycleError>>) -> Result<(), String> {
        let result = match at {
            Progress::Waits(job) => {
                self.cycle = Some(job);
                return self.look();
            }
            Progress::Ended(result) => result,
        };
        self.look()?;
        let job = self.overlay().finish_cycle(result);
        let job = job.map_err(|error| format!("a flush fails: {error}"))?;
        self.answer()?;
        if let Some(job) = job {
            let run = move || {
                let result = job.run();
                (job, result)
            };
            self.checkpoint_at(Job::start(run))?;
        }
        self.flush_if_due()
    }

    fn checkpoint_at(&mut self, at: Progress<Checkpoint>) -> Result<(), String> {
        match at {
            Progress::Waits(job) => self.checkpoint = Some(job),
            Progress::Ended((job, result)) => {
                if let Err(error) = &result {
                    return Err(format!("a checkpoint fails: {error}"));
                }
                self.overlay().finish_checkpoint(job, result);
            }
        }
        self.look()
    }

    fn begin_punch(&mut self, all: bool) -> Result<(), String> {
        if self.punch.is_some() {
            return Ok(());
        }
        match self.overlay().begin_punch(all) {
            None => Ok(()),
            Some(job) => self.punch_at(Job::start(move || job.run())),
        }
    }

    fn punch_at(&mut self, at: Progress<io::Result<()>>) -> Result<(), String> {
        match at {
            Progress::Waits(job) => self.punch = Some(job),
            Progress::Ended(result) => self.overlay().finish_punch(result),
        }
        self.look()
    }

    /// One call of some work, if it is under way.
    fn advance(&mut self, work: Work) -> Result<(), String> {
        match work {
            Work::Flush => match self.cycle.take() {
                Some(job) => self.cycle_at(job.step()),
                None => Ok(()),
            },
            Work::Checkpoint => match self.checkpoint.take() {
                Some(job) => self.checkpoint_at(job.step()),
                None => Ok(()),
            },
            Work::Punch => match self.punch.take() {
                Some(job) => self.punch_at(job.step()),
                None => Ok(()),
            },
            Work::Write => self.advance_a_write(),
        }
    }

    pub(crate) const fn is_punching(&self) -> bool {
        self.punch.is_some()
    }

    const fn is_under_way(&self, work: Work) -> bool {
        match work {
            Work::Flush => self.cycle.is_some(),
            Work::Checkpoint => self.checkpoint.is_some(),
            Work::Punch => self.punch.is_some(),
            Work::Write => !self.writes.is_empty(),
        }
    }

    fn finish(&mut self, work: Work) -> Result<(), String> {
        if !self.is_under_way(work) {
            return Err(format!("it waits for a {work:?} that nobody does"));
        }
        while self.is_under_way(work) {
            self.advance(work)?;
        }
        Ok(())
    }

    /// Writes under way that share a block with `range` are done before it.
    fn make_way_for(&mut self, range: ByteRange) -> Result<(), String> {
        let blocks = range.blocks_touched();
        if self.writes.iter().any(|write| write.shares(blocks)) {
            return self.finish(Work::Write);
        }
        Ok(())
    }

    /// What holds a change up goes to its end.
    pub(crate) fn make_way(&mut self) -> Result<(), String> {
        let holds_up = [Work::Punch, Work::Write];
        let work = holds_up.into_iter().find(|&work| self.is_under_way(work));
        self.finish(work.ok_or("it is busy with nothing")?)
    }

    /// All that is under way goes to its end, in some order.
    pub(crate) fn drain(&mut self) -> Result<(), String> {
        let all = [Work::Flush, Work::Checkpoint, Work::Punch, Work::Write];
        while all.iter().any(|&work| self.is_under_way(work)) {
            let work = all[self.random.index(4)];
            self.advance(work)?;
        }
        Ok(())
    }

    fn kill(&mut self) -> Result<(), String> {
        let sim = self.disk.sim.restart();
        self.abandon();
        self.disk = TestDisk::new(sim, self.explorer.leak);
        let overlay = self.explorer.open(&self.disk, self.explorer.boot);
        let overlay = overlay.map_err(|error| format!("it can't be opened: {error}"))?;
        if !self.explorer.notes {
            return self.opened(overlay);
        }
        // Nothing is durable that was not before, and nothing is lost that was acknowledged.
        self.go_on_with(overlay, "a kill")
    }

    /// Another server goes on with what this one parts with.
    fn hand_over(&mut self) -> Result<(), String> {
        if !self.explorer.notes {
            return self.reopen();
        }
        if self.is_patient() {
            self.drain()?;
        }
        let voucher = self.overlay().vouch();
        let Some(voucher) = voucher.map_err(|error| error.to_string())? else {
            return Ok(());
        };
        let sim = self.disk.sim.restart();
        self.abandon();
        self.disk = TestDisk::new(sim, self.explorer.leak);
        let overlay = open_vouched(&self.disk, self.explorer.boot, &voucher)?;
        self.go_on_with(overlay, "a hand-over")
    }

    /// Whether a server lets all end that is under way before it parts with an overlay.
    fn is_patient(&self) -> bool {
        sabotage::chosen() != Some(Sabotage::HastyVoucher)
    }

    fn go_on_with(&mut self, overlay: Overlay<TestDisk>, what: &str) -> Result<(), String> {
        let content = content_of(&overlay)?;
        self.overlay = Some(overlay);
        let read = self.oracle.check_read(&content);
        read.map_err(|error| format!("after {what}: {error}"))?;
        self.oracle.observe_unanswered(&content);
        self.look_now()
    }

    fn lose_power(&mut self) -> Result<(), String> {
        let moment = self.disk.sim.moment();
        let _ = self.disk.sim.restart();
        self.abandon();
        let sample = self.random.below(8);
        let sim = crash(&moment, sample, &mut self.random);
        self.recorder = Recorder::on(&sim);
        self.disk = TestDisk::new(sim, self.explorer.leak);
        self.explorer.boot += 1;
        self.open()
    }

    fn reopen(&mut self) -> Result<(), String> {
        self.commit.join(self.oracle.mark());
        self.flush_if_due()?;
        self.drain()?;
        self.kill()
    }

    /// The process is gone; the disk must have been restarted, so that its work can do no more.
    fn abandon(&mut self) {
        self.overlay = None;
        self.cycle = None;
        self.checkpoint = None;
        self.punch = None;
        self.writes.clear();
        self.commit = GroupCommit::default();
        self.recorder.take();
    }

    /// Opens the overlay; what it holds then is durable.
    fn open(&mut self) -> Result<(), String> {
        let opened = self.explorer.open(&self.disk, self.explorer.boot);
        let overlay = opened.map_err(|error| format!("it can't be opened: {error}"))?;
        self.opened(overlay)
    }

    fn opened(&mut self, overlay: Overlay<TestDisk>) -> Result<(), String> {
        let content = content_of(&overlay)?;
        self.overlay = Some(overlay);
        self.oracle.check_recovered(&content)?;
        self.look()?;
        self.oracle = Oracle::of(&content);
        self.look_now()
    }
}

/// The disk to begin with, made once.
pub(crate) fn begin(start: Start) -> &'static (Moment, Content) {
    static STARTS: [OnceLock<(Moment, Content)>; 3] =
        [OnceLock::new(), OnceLock::new(), OnceLock::new()];
    let place = match start {
        Start::Nothing => 0,
        Start::NearlyFull => 1,
        Start::Owed => 2,
    };
    STARTS[place].get_or_init(|| {
        if start == Start::Nothing {
            // Nothing is there yet: the client sees the image.
            return (super::client::empty_disk().moment(), image_content());
        }
        let sabotage = sabotage::chosen();
        sabotage::choose(None);
        let begin = prepared(start);
        sabotage::choose(sabotage);
        begin
    })
}

fn image_content() -> Content {
    let mut content = Content::new();
    for block in super::oracle::followed() {
        let bytes = super::oracle::image_block(block);
        super::oracle::sectors_of(block, &bytes, &mut content);
    }
    content
}
