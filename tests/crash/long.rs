//! What `tools/crash-explore` runs: one seed with all effort, or new seeds for some minutes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::explore::Effort;
use super::run::{Setting, check_seed};

const PROGRESS: Duration = Duration::from_secs(10);

fn number_of(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Does what the environment asks for; `false` where it asks for nothing.
pub(crate) fn asked_for() -> bool {
    if let Some(seed) = number_of("CRASH_SEED") {
        for effort in [Effort::QUICK, Effort::THOROUGH] {
            let states = check_seed(seed, Setting::sound(effort));
            println!("seed {seed}: {states} crashes, all of them fine");
        }
        return true;
    }
    let Some(minutes) = number_of("CRASH_MINUTES") else {
        return false;
    };
    explore_for(Duration::from_secs(60 * minutes));
    true
}

fn explore_for(time: Duration) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let first = number_of("CRASH_FROM").unwrap_or(now.as_secs() * 1_000_000);
    let until = Instant::now() + time;
    let (seeds, states) = (AtomicU64::new(first), AtomicU64::new(0));
    let failed = AtomicBool::new(false);
    let explore = || {
        while Instant::now() < until && !failed.load(Ordering::Relaxed) {
            let seed = seeds.fetch_add(1, Ordering::Relaxed);
            let check = || check_seed(seed, Setting::sound(Effort::QUICK));
            match std::panic::catch_unwind(check) {
                Ok(count) => _ = states.fetch_add(count, Ordering::Relaxed),
                Err(_) => failed.store(true, Ordering::Relaxed),
            }
        }
    };
    println!("from seed {first} on");
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(explore)).collect();
        let mut shown = Instant::now();
        while workers.iter().any(|worker| !worker.is_finished()) {
            thread::sleep(Duration::from_millis(100));
            if shown.elapsed() >= PROGRESS {
                shown = Instant::now();
                show(seeds.load(Ordering::Relaxed) - first, &states, until);
            }
        }
    });
    show(seeds.load(Ordering::Relaxed) - first, &states, until);
    assert!(!failed.load(Ordering::Relaxed), "see above");
}

fn show(histories: u64, states: &AtomicU64, until: Instant) {
    let states = states.load(Ordering::Relaxed);
    let left = until.saturating_duration_since(Instant::now()).as_secs();
    println!("{histories} histories, {states} crashes, {left} s left");
}
