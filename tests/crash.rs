//! What a power loss may leave of an overlay, explored: seeded histories, and after each call of
//! the disk the disks that a crash may leave there, recovered and compared with what is allowed.
//!
//! A history that fails is made as short as can be and printed. `tools/crash-explore` runs one seed
//! again, or new ones for as long as is wanted.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(
    clippy::print_stdout,
    reason = "numbers of what was explored, and progress"
)]
#![cfg_attr(
    not(debug_assertions),
    allow(
        dead_code,
        unused_imports,
        reason = "some is for rules that are broken"
    )
)]

#[path = "crash/client.rs"]
mod client;
#[path = "crash/damage.rs"]
mod damage;
#[path = "crash/disk.rs"]
mod disk;
#[path = "crash/explore.rs"]
mod explore;
#[path = "crash/faults.rs"]
mod faults;
#[path = "crash/history.rs"]
mod history;
#[path = "crash/job.rs"]
mod job;
#[path = "crash/long.rs"]
mod long;
#[path = "crash/machine.rs"]
mod machine;
// Builds without debug assertions have no switches that break rules.
#[cfg(debug_assertions)]
#[path = "crash/mutations.rs"]
mod mutations;
#[path = "crash/oracle.rs"]
mod oracle;
#[path = "crash/owed.rs"]
mod owed;
#[path = "crash/regressions.rs"]
mod regressions;
#[path = "crash/run.rs"]
mod run;
#[path = "crash/seeded.rs"]
mod seeded;
#[path = "crash/slow.rs"]
mod slow;

use explore::Effort;
use run::{Setting, check_seed};

/// Crashes that each of the eight parts of the exploration looks at: 104,000 in all. A disk that is
/// recovered a second time is not a crash of its own.
const STATES: u64 = 13_000;

/// Explores the seeds of a part until enough crashes were seen.
fn explore(part: u64, setting: Setting, at_least: u64) {
    if part == 1 && long::asked_for() {
        return;
    }
    let mut states = 0;
    let mut seed = part * 1_000_000;
    while states < at_least {
        states += check_seed(seed, setting);
        seed += 1;
    }
    println!("{states} crashes of {} histories", seed - part * 1_000_000);
}

macro_rules! parts {
    ($($name:ident = $part:expr;)*) => {
        $(
            #[test]
            fn $name() {
                explore($part, Setting::sound(Effort::QUICK), STATES);
            }
        )*
    };
}

parts! {
    no_crash_loses_what_was_acknowledged_1 = 1;
    no_crash_loses_what_was_acknowledged_2 = 2;
    no_crash_loses_what_was_acknowledged_3 = 3;
    no_crash_loses_what_was_acknowledged_4 = 4;
    no_crash_loses_what_was_acknowledged_5 = 5;
    no_crash_loses_what_was_acknowledged_6 = 6;
    no_crash_loses_what_was_acknowledged_7 = 7;
    no_crash_loses_what_was_acknowledged_8 = 8;
}

#[test]
fn no_kill_and_no_hand_over_loses_what_was_acknowledged() {
    explore(9, Setting::noted(Effort::LIGHT), STATES / 3);
}
