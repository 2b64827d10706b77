//! Every disk that a power loss may leave, recovered and compared with what is allowed.

use std::sync::{Arc, Mutex, PoisonError};

use cowherd::disk::sim::{Call, CallKind, Choice, Moment, Observer, SimDisk};
use cowherd::overlay::Overlay;

use super::client::{Client, content_of, open, open_noted};
use super::disk::{Leak, TestDisk};
use super::job::wait_at_gate;
use super::oracle::{Content, Oracle};
use super::seeded::Seeded;

/// How many of the possible disks are looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// All of them, where there are no more than this.
    pub(crate) exhaustive: u128,
    /// As many, drawn by seed, where there are.
    pub(crate) samples: u64,
}

impl Effort {
    pub(crate) const QUICK: Self = Self {
        exhaustive: 12,
        samples: 8,
    };
    /// For many moments that are much alike.
    pub(crate) const LIGHT: Self = Self {
        exhaustive: 4,
        samples: 4,
    };
    pub(crate) const THOROUGH: Self = Self {
        exhaustive: 1 << 10,
        samples: 60,
    };
}

/// Keeps the disk as it was after each call that changed it.
#[derive(Default)]
pub(crate) struct Recorder(Mutex<Vec<Moment>>);

impl Recorder {
    /// What has come since it was last asked.
    pub(crate) fn take(&self) -> Vec<Moment> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets one on a disk.
    pub(crate) fn on(disk: &SimDisk) -> Arc<Self> {
        let recorder = Arc::new(Self::default());
        disk.observe(Some(Arc::clone(&recorder) as Arc<dyn Observer>));
        recorder
    }
}

impl Observer for Recorder {
    fn before(&self, _kind: CallKind) {
        wait_at_gate();
    }

    fn after(&self, call: &Call, moment: &dyn Fn() -> Moment) {
        if call.kind.changes_disk() {
            let mut moments = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            moments.push(moment());
        }
    }
}

/// Looks at crashes, and counts them.
#[derive(Debug)]
pub(crate) struct Explorer {
    pub(crate) effort: Effort,
    pub(crate) leak: Option<Leak>,
    /// Whether changes are noted for a server that is killed.
    pub(crate) notes: bool,
    /// The boot of the host that the server runs in.
    pub(crate) boot: u8,
    /// Disks that a kill or a power loss left, recovered and compared.
    pub(crate) states: u64,
}

impl Explorer {
    pub(crate) const fn new(effort: Effort, leak: Option<Leak>) -> Self {
        Self {
            effort,
            leak,
            notes: false,
            boot: 1,
            states: 0,
        }
    }

    /// The same with notes.
    pub(crate) const fn noting(self, notes: bool) -> Self {
        Self { notes, ..self }
    }

    /// Opens the overlay as a server does that runs in this boot of the host.
    pub(crate) fn open(&self, disk: &TestDisk, boot: u8) -> Result<Overlay<TestDisk>, String> {
        match self.notes {
            true => open_noted(disk, boot),
            false => open(disk).map_err(|error| error.to_string()),
        }
    }

    /// Crashes at `moment` leave only what `oracle` allows.
    pub(crate) fn explore(
        &mut self,
        moment: &Moment,
        oracle: &Oracle,
        random: &mut Seeded,
    ) -> Result<(), String> {
        // The process may die and the machine live on: then the page cache is what recovery sees.
        if random.once_in(8) {
            self.check(moment.running(), oracle, random, (1, self.boot))
                .map_err(|error| format!("after a kill: {error}"))?;
        }
        let combinations = moment.combinations();
        if combinations <= self.effort.exhaustive {
            return self.explore_all(moment, oracle, random);
        }
        for sample in 0..self.effort.samples {
            let crashed = crash(moment, sample, random);
            self.check(crashed, oracle, random, (1, self.boot + 1))?;
        }
        Ok(())
    }

    fn explore_all(
        &mut self,
        moment: &Moment,
        oracle: &Oracle,
        random: &mut Seeded,
    ) -> Result<(), String> {
        // The answers are the digits of a number that counts up, each with its own base.
        let mut digits: Vec<usize> = Vec::new();
        loop {
            let mut bases = Vec::new();
            let crashed = moment.crash(&mut |choice| {
                bases.push(choice.options());
                digits.get(bases.len() - 1).copied().unwrap_or(0)
            });
            self.check(crashed, oracle, random, (1, self.boot + 1))?;
            digits.resize(bases.len(), 0);
            let next = (0..bases.len()).find(|&at| {
                digits[at] = (digits[at] + 1) % bases[at];
                digits[at] != 0
            });
            if next.is_none() {
                return Ok(());
            }
        }
    }

    /// Recovers `disk` in a boot of the host and compares; `depth` more crashes may follow.
    pub(crate) fn check(
        &mut self,
        disk: SimDisk,
        oracle: &Oracle,
        random: &mut Seeded,
        (depth, boot): (u32, u8),
    ) -> Result<(), String> {
        self.states += 1;
        let what_next = random.below(16);
        let crashes_again = depth > 0 && what_next < 3;
        let recorder = crashes_again.then(|| Recorder::on(&disk));
        let overlay = self.open(&TestDisk::new(disk.clone(), self.leak), boot);
        let overlay = overlay.map_err(|error| format!("recovery is refused: {error}"))?;
        let content = content_of(&overlay)?;
        oracle.check_recovered(&content)?;
        if let Some(recorder) = recorder {
            disk.observe(None);
            return self.crash_in_recovery(&recorder.take(), oracle, random, boot);
        }
        match what_next {
            4..7 => {
                drop(overlay);
                self.check_same(disk.restart(), &content, boot, "a second recovery")
            }
            // What recovery has shown is there to stay, but for what was noted only.
            7..9 if !self.notes => {
                self.states += 1;
                let later = crash(&disk.moment(), random.below(6), random);
                self.check_same(later, &content, boot + 1, "a power loss after recovery")
            }
            9..11 if depth > 0 => {
                let client = Client::new(TestDisk::new(disk, self.leak), overlay);
                self.live_on(client, &content, random, boot)
            }
            _ => Ok(()),
        }
    }

    /// The power fails again while recovery is at work.
    fn crash_in_recovery(
        &mut self,
        moments: &[Moment],
        oracle: &Oracle,
        random: &mut Seeded,
        boot: u8,
    ) -> Result<(), String> {
        if moments.is_empty() {
            return Ok(());
        }
        for sample in 0..2 {
            let moment = &moments[random.index(moments.len())];
            let crashed = crash(moment, 2 + sample, random);
            self.check(crashed, oracle, random, (0, boot + 1))
                .map_err(|error| format!("after a second crash, in recovery: {error}"))?;
        }
        Ok(())
    }

    fn check_same(
        &self,
        disk: SimDisk,
        content: &Content,
        boot: u8,
        what: &str,
    ) -> Result<(), String> {
        let overlay = self.open(&TestDisk::new(disk, self.leak), boot);
        let overlay = overlay.map_err(|error| format!("{what} is refused: {error}"))?;
        let again = content_of(&overlay)?;
        let same = Oracle::of(content).check_read(&again);
        same.map_err(|error| format!("{what} gives something else: {error}"))
    }

    /// What is recovered can be written to and flushed, and lose power once more.
    fn live_on(
        &mut self,
        mut client: Client,
        content: &Content,
        random: &mut Seeded,
        boot: u8,
    ) -> Result<(), String> {
        let mut oracle = Oracle::of(content);
        for _ in 0..=random.below(2) {
            client.write_somewhere(&mut oracle, random)?;
            client.flush()?;
            oracle.durable(oracle.mark());
        }
        let crashed = crash(&client.disk.sim.moment(), 2 + random.below(4), random);
        drop(client);
        self.check(crashed, &oracle, random, (0, boot + 1))
            .map_err(|error| format!("after recovery, a flush and another crash: {error}"))
    }
}

/// One of the disks that a power loss at `moment` may leave.
pub(crate) fn crash(moment: &Moment, sample: u64, random: &mut Seeded) -> SimDisk {
    let newest = |choice: &Choice<'_>| choice.calls.len();
    match sample {
        0 => moment.crash(&mut |_| 0),
        1 => moment.crash(&mut |choice| newest(choice)),
        // File by file: nothing, everything, a part.
        2.. => {
            let mut place = None;
            let mut mode = 0;
            moment.crash(&mut |choice| {
                if place != Some(choice.place) {
                    place = Some(choice.place);
                    mode = random.below(7);
                }
                match mode {
                    0 => 0,
                    1 | 2 => newest(choice),
                    3 => choice.options() - 1,
                    // All but a few.
                    4 if random.once_in(12) => 0,
                    5 if random.once_in(12) => newest(choice),
                    4 => newest(choice),
                    5 => 0,
                    _ => random.index(choice.options()),
                }
            })
        }
    }
}
