//! Runs histories, and makes small ones of those that fail.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use cowherd::overlay::sabotage::{self, Sabotage};

use super::disk::Leak;
use super::explore::{Effort, Explorer};
use super::history::{History, Step};
use super::machine::{Haste, Machine};

/// How a history is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) effort: Effort,
    pub(crate) leak: Option<Leak>,
    pub(crate) haste: Option<Haste>,
    pub(crate) sabotage: Option<Sabotage>,
    /// Changes are noted, and servers take over from each other.
    pub(crate) notes: bool,
}

impl Setting {
    /// The history of a seed.
    pub(crate) fn history(&self, seed: u64) -> History {
        let history = History::of_seed(seed);
        match self.notes {
            true => history.with_hand_overs(),
            false => history,
        }
    }

    /// Every rule is kept, and changes are noted.
    pub(crate) const fn noted(effort: Effort) -> Self {
        Self {
            notes: true,
            ..Self::sound(effort)
        }
    }

    /// Every rule is kept.
    pub(crate) const fn sound(effort: Effort) -> Self {
        Self {
            effort,
            leak: None,
            haste: None,
            sabotage: None,
            notes: false,
        }
    }
}

/// Where a history failed, and how.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The step, or the number of steps where it was after all of them.
    pub(crate) step: usize,
    pub(crate) what: String,
}

/// How many crashes of `history` were looked at, all of them fine.
pub(crate) fn run(history: &History, setting: Setting) -> Result<u64, Failure> {
    let mut step = 0;
    sabotage::choose(setting.sabotage);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let explorer = Explorer::new(setting.effort, setting.leak).noting(setting.notes);
        let mut machine = Machine::start(history.start, explorer, setting.haste)?;
        for next in &history.steps {
            machine.perform(*next)?;
            step += 1;
        }
        machine.drain()?;
        Ok(machine.explorer.states)
    }));
    sabotage::choose(None);
    let result = outcome.unwrap_or_else(|_| Err("panic, see above".to_owned()));
    result.map_err(|what| Failure { step, what })
}

/// The longest that a search for a smaller history takes.
const SHRINKING: Duration = Duration::from_secs(30);

/// A history that fails too, with as few steps as could be found.
pub(crate) fn shrunk(history: &History, setting: Setting, failure: Failure) -> (History, Failure) {
    let until = Instant::now() + SHRINKING;
    let mut best = (history.clone(), failure);
    best.0.steps.truncate(best.1.step + 1);
    let mut chunk = best.0.steps.len().div_ceil(2);
    while chunk > 0 && Instant::now() < until {
        let mut from = 0;
        let mut found = false;
        while from < best.0.steps.len() && Instant::now() < until {
            let mut smaller = best.0.clone();
            let end = (from + chunk).min(smaller.steps.len());
            smaller.steps.drain(from..end);
            match run(&smaller, setting) {
                Ok(_) => from += chunk,
                Err(failure) => {
                    smaller.steps.truncate(failure.step + 1);
                    best = (smaller, failure);
                    found = true;
                }
            }
        }
        if !found || chunk > 1 {
            chunk /= 2;
        }
    }
    best
}

/// Runs the history of `seed`; panics with a small one where it fails.
pub(crate) fn check_seed(seed: u64, setting: Setting) -> u64 {
    let history = setting.history(seed);
    match run(&history, setting) {
        Ok(states) => states,
        Err(failure) => panic!("{}", report(seed, &history, setting, failure)),
    }
}

fn report(seed: u64, history: &History, setting: Setting, failure: Failure) -> String {
    let len = history.steps.len();
    eprintln!(
        "seed {seed} fails: {}; looking for less than {len} steps",
        failure.what
    );
    let (small, failure) = shrunk(history, setting, failure);
    format!(
        "an acknowledged write is lost, or something else came to be\n\n{small}\
         at step {}: {}\n\nagain: tools/crash-explore --seed {seed}\n",
        failure.step, failure.what
    )
}

/// The first seed from `first` on whose history fails, among `count`.
pub(crate) fn first_failure(
    first: u64,
    count: u64,
    setting: Setting,
) -> Option<(u64, History, Failure)> {
    (first..first + count).find_map(|seed| {
        let history = setting.history(seed);
        let failure = run(&history, setting).err()?;
        Some((seed, history, failure))
    })
}

impl History {
    /// A history of these operations.
    pub(crate) fn of_steps(start: super::history::Start, ops: &[super::history::Op]) -> Self {
        let steps = ops.iter().zip(1..).map(|(&op, seed)| Step { op, seed });
        Self {
            start,
            steps: steps.collect(),
        }
    }
}
