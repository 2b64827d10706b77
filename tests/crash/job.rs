//! Work on other threads that goes on by one call of the disk at a time, when it is told to.
//!
//! So the calls of flushes, checkpoints and punches mix with those of writes in any order, and
//! still the same seed gives the same run.

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use cowherd::overlay::sabotage;

struct Gate {
    /// Tells that a call is about to be made.
    arrived: Box<dyn Fn()>,
    go: Receiver<()>,
}

thread_local! {
    static GATE: RefCell<Option<Gate>> = const { RefCell::new(None) };
}

/// Holds a job up before its next call of the disk. Threads that are no jobs go on.
pub(crate) fn wait_at_gate() {
    GATE.with_borrow(|gate| {
        if let Some(gate) = gate {
            (gate.arrived)();
            // An error: nobody leads the job any more, so it runs to its end.
            let _ = gate.go.recv();
        }
    });
}

enum At<T> {
    Call,
    End(T),
}

/// Work that waits before its next call of the disk.
pub(crate) struct Job<T> {
    go: Option<Sender<()>>,
    at: Receiver<At<T>>,
    thread: Option<JoinHandle<()>>,
}

/// How far a job has come.
pub(crate) enum Progress<T> {
    Waits(Job<T>),
    Ended(T),
}

impl<T: Send + 'static> Job<T> {
    /// Starts `work`, up to its first call.
    pub(crate) fn start(work: impl FnOnce() -> T + Send + 'static) -> Progress<T> {
        let (go, gate) = channel();
        let (arrive, at) = channel();
        let sabotage = sabotage::chosen();
        let thread = std::thread::spawn(move || {
            let arrived = arrive.clone();
            let arrived = Box::new(move || {
                let _ = arrived.send(At::Call);
            });
            sabotage::choose(sabotage);
            GATE.set(Some(Gate { arrived, go: gate }));
            let _ = arrive.send(At::End(work()));
        });
        let job = Self {
            go: Some(go),
            at,
            thread: Some(thread),
        };
        job.arrive()
    }

    /// Lets it make one call.
    pub(crate) fn step(self) -> Progress<T> {
        if let Some(go) = &self.go {
            let _ = go.send(());
        }
        self.arrive()
    }

    fn arrive(self) -> Progress<T> {
        match self.at.recv().expect("the job did not panic") {
            At::Call => Progress::Waits(self),
            At::End(result) => Progress::Ended(result),
        }
    }
}

impl<T> Drop for Job<T> {
    /// It runs to its end: on a disk that has been restarted, all of its calls fail.
    fn drop(&mut self) {
        self.go = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
