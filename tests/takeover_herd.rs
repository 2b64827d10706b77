//! Take-overs of a whole herd: sixty machines that all write, and what is known of them.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use support::{PATIENCE, Seeded, Server, Setup, Tool};

const BLOCK: usize = 4096;
const BLOCKS: u64 = 1024;
/// Machines.
const HERD: usize = 60;

/// A machine that writes blocks, flushes now and then, and reads what it wrote.
struct Machine {
    done: Arc<AtomicU64>,
    /// The longest that a request took since this was last asked, in microseconds.
    longest: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Machine {
    fn start(server: &Server, number: usize) -> Self {
        let mut client = server.client(&format!("disk@pc-{number}"));
        let (done, longest) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let stop = Arc::<AtomicBool>::default();
        let shared = (Arc::clone(&done), Arc::clone(&longest), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let (done, longest, stop) = shared;
            let mut random = Seeded(number as u64);
            for turn in (1..=u8::MAX).cycle() {
                let at = random.below(BLOCKS) * BLOCK as u64;
                let begun = Instant::now();
                client.write(at, &[turn; BLOCK]).expect("a write");
                if turn % 32 == 0 {
                    client.flush().expect("a flush");
                }
                let read = client.read(at, 4096).expect("a read");
                let took = u64::try_from(begun.elapsed().as_micros()).expect("not for ever");
                assert!(read == [turn; BLOCK], "what is read");
                longest.fetch_max(took, Ordering::Relaxed);
                done.fetch_add(1, Ordering::Relaxed);
                if stop.load(Ordering::Relaxed) {
                    return client.disconnect();
                }
                // A machine is no benchmark.
                thread::sleep(Duration::from_millis(20));
            }
        });
        Self {
            done,
            longest,
            stop,
            thread,
        }
    }

    fn goes_on(&self, more: u64) {
        let goal = self.done.load(Ordering::Relaxed) + more;
        let deadline = Instant::now() + PATIENCE;
        while self.done.load(Ordering::Relaxed) < goal {
            assert!(!self.thread.is_finished(), "a machine has ended");
            assert!(Instant::now() < deadline, "a machine gets nowhere");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// How long the sessions waited, as the old server has it.
fn pause_in(line: &str) -> u64 {
    let (_, rest) = line.split_once("waited for ").expect("a time");
    let (time, _) = rest.split_once(" ms").expect("in milliseconds");
    time.parse().expect("a number")
}

/// How much of that it took them to stop.
fn stop_in(line: &str) -> u64 {
    let (before, _) = line.split_once(" of them to stop").expect("a time");
    let (_, time) = before.rsplit_once(' ').expect("a number");
    time.parse().expect("a number")
}

fn longest(herd: &[Machine]) -> u64 {
    let all = herd.iter();
    let longest = all.map(|machine| machine.longest.swap(0, Ordering::Relaxed));
    longest.max().unwrap_or(0) / 1000
}

fn median(mut all: Vec<u64>) -> u64 {
    all.sort_unstable();
    all[all.len() / 2]
}

#[test]
fn sixty_machines_that_write_wait_for_a_moment() {
    let mut server = Setup::of_bytes(&vec![0; BLOCK * 1024]).start();
    let herd: Vec<_> = (0..HERD)
        .map(|number| Machine::start(&server, number))
        .collect();
    let (mut pauses, mut stops, mut felt) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..10 {
        herd.iter().for_each(|machine| machine.goes_on(8));
        let usual = longest(&herd);
        let mut next = server.successor(|_| {});
        next.wait_until_ready();
        let line = server.wait_for_log(&["has taken over, with 60 sessions"]);
        assert_eq!(server.ended().code(), Some(0), "of the old server");
        server = next;
        herd.iter().for_each(|machine| machine.goes_on(2));
        pauses.push(pause_in(&line));
        stops.push(stop_in(&line));
        felt.push((longest(&herd), usual));
    }
    for machine in herd {
        machine.stop.store(true, Ordering::Relaxed);
        machine.thread.join().expect("a machine without an error");
    }
    println!("pauses in ms: {pauses:?}, of which to stop: {stops:?}");
    println!("longest write and read in ms, with a take-over and before it: {felt:?}");
    server.terminate();
    let median = median(pauses);
    // The aim is 100 ms; what a busy machine adds is not what this is about.
    assert!(median < 1000, "the median of pauses is {median} ms");
}

/// What is known of the machine `a`, as text.
fn status(server: &Server) -> String {
    Tool::new(env!("CARGO_BIN_EXE_cowherd"))
        .args(["status", "a", "--json", "--state"])
        .arg(server.setup().state())
        .ok()
}

#[test]
fn what_is_known_of_a_boot_goes_on_with_the_new_server() {
    let server = Setup::of_bytes(&[7; 16 * BLOCK]).start();
    let mut client = server.client("disk@a");
    client.read(0, 4096).expect("a read");
    client.write(0, &[1; 4096]).expect("a write");
    let boot = |text: &str| {
        let began = text.split_once("\"began\":").expect("a boot").1;
        began.split_once(',').expect("a moment").0.to_owned()
    };
    let before = status(&server);
    assert!(before.contains("\"reconnects\":0"), "{before}");
    let server = server.taken_over();
    client.read(0, 4096).expect("a read");
    let after = status(&server);
    assert_eq!(boot(&before), boot(&after), "{after}");
    assert!(after.contains("\"reconnects\":0"), "{after}");
    server.terminate();
}
