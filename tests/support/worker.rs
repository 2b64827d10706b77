//! Clients that work without an end, each in a thread of its own, until they are told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::nbd::Client;

/// What a client does. It panics where an answer is not what it has to be.
pub(crate) trait Work: Send + 'static {
    /// The time between two steps, which is none of theirs.
    const PAUSE: Duration = Duration::ZERO;

    /// One operation, or a few that belong together.
    fn step(&mut self, client: &mut Client);

    /// Looked at once, behind the last step.
    fn finish(&mut self, _client: &mut Client) {}
}

/// Writes and reads at one place without end.
pub(crate) struct Rewriter {
    offset: u64,
    turn: u8,
}

impl Rewriter {
    pub(crate) fn at(offset: u64) -> Self {
        Self { offset, turn: 0 }
    }
}

impl Work for Rewriter {
    fn step(&mut self, client: &mut Client) {
        self.turn = self.turn.wrapping_add(1);
        let bytes = [self.turn; 900];
        client.write(self.offset, &bytes).expect("a write");
        if self.turn % 16 == 3 {
            client.flush().expect("a flush");
        }
        let read = client.read(self.offset, 900).expect("a read");
        assert_eq!(read, bytes);
    }
}

/// What a worker and its test both know.
#[derive(Default)]
struct Progress {
    steps: AtomicU64,
    /// The longest that a step took since this was last asked, in microseconds.
    longest: AtomicU64,
    stop: AtomicBool,
}

/// Such a client.
pub(crate) struct Worker {
    progress: Arc<Progress>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Begins to work.
    pub(crate) fn start<W: Work>(mut client: Client, mut work: W) -> Self {
        let progress = Arc::<Progress>::default();
        let shared = Arc::clone(&progress);
        let thread = thread::spawn(move || {
            while !shared.stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                work.step(&mut client);
                let took = u64::try_from(begun.elapsed().as_micros()).expect("not for ever");
                shared.longest.fetch_max(took, Ordering::Relaxed);
                shared.steps.fetch_add(1, Ordering::Relaxed);
                thread::sleep(W::PAUSE);
            }
            work.finish(&mut client);
            client.disconnect();
        });
        Self { progress, thread }
    }

    /// Waits until it has done so many steps more.
    #[track_caller]
    pub(crate) fn goes_on(&self, more: u64) {
        let steps = &self.progress.steps;
        let goal = steps.load(Ordering::Relaxed) + more;
        let deadline = Instant::now() + PATIENCE;
        while steps.load(Ordering::Relaxed) < goal {
            assert!(!self.thread.is_finished(), "a worker has ended");
            assert!(Instant::now() < deadline, "a worker gets nowhere");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Has it stop, and waits for its last look.
    #[track_caller]
    pub(crate) fn end(self) {
        self.progress.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a worker without an error");
    }
}

/// The longest step of all these since this was last asked, in microseconds.
pub(crate) fn longest_step(workers: &[Worker]) -> u64 {
    let all = workers.iter().map(|worker| &worker.progress.longest);
    let longest = all.map(|longest| longest.swap(0, Ordering::Relaxed));
    longest.max().unwrap_or(0)
}

/// How long sessions waited for a take-over, and how much of that it took them to stop, in
/// milliseconds, as a line of the old server's log has it.
pub(crate) fn pause_in(line: &str) -> (u64, u64) {
    let number = |text: &str| text.parse().expect("a number");
    let (_, rest) = line.split_once("waited for ").expect("a time");
    let (pause, _) = rest.split_once(" ms").expect("in milliseconds");
    let (before, _) = line.split_once(" of them to stop").expect("a time");
    let (_, stop) = before.rsplit_once(' ').expect("a number");
    (number(pause), number(stop))
}

/// The one in the middle.
pub(crate) fn median(mut all: Vec<u64>) -> u64 {
    all.sort_unstable();
    all[all.len() / 2]
}
