//! A load generator for NBD servers, ours and others.
//!
//! - [`target`] reads URIs, [`trace`] the requests of a boot, [`work`] makes requests up; pure.
//! - [`course`] says what a client does next, [`session`] does it after a handshake, [`ledger`]
//!   checks what is read; pure.
//! - [`tally`] counts, [`report`] says what it came to, [`svg`] draws it; pure.
//! - [`drive`] has the sockets, [`offline`] none: it drives exports and overlays in process.
//!
//! Invariant: a run in which a request failed, or a read gave something else than was written, is
//! not a good one, whatever its speed.

pub mod course;
pub mod drive;
pub mod ledger;
pub mod offline;
pub mod report;
pub mod session;
pub mod svg;
pub mod tally;
pub mod target;
pub mod trace;
pub mod work;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::nbd::wire::TransmissionFlags;
use course::{Course, Rules};
use drive::{ClientError, Connection, Meter};
use ledger::Ledger;
use offline::Offline;
use report::Report;
use session::Session;
use tally::Tally;
use target::Target;
use trace::Trace;
use work::{Area, Kind, Made, Pattern, Shape, Work};

/// How often somebody who watches is told.
const TELL: Duration = Duration::from_millis(250);

/// A run.
#[derive(Clone, Debug)]
pub struct Job {
    /// Exports, which clients take in turns; one at least, unless it is offline.
    pub targets: Vec<Target>,
    /// What is driven instead of a server.
    pub offline: Option<Offline>,
    /// Connections.
    pub clients: usize,
    /// Requests of each under way.
    pub depth: usize,
    /// What is asked for, where there is no trace.
    pub shape: Shape,
    /// What is asked for instead.
    pub trace: Option<Trace>,
    /// Whether writes ask to be durable.
    pub fua: bool,
    /// How long it is counted.
    pub time: Duration,
    /// How long it runs before.
    pub warm_up: Duration,
    /// Bytes of the export that are used, from its start; all of them by itself.
    pub range: Option<u64>,
    /// Where random numbers begin.
    pub seed: u64,
    /// Whether reads are checked.
    pub check: bool,
}

/// Why a run has no result.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A client could not open its export, or lost it.
    #[error("client {number}, {target}: {error}")]
    Client {
        /// Which one.
        number: usize,
        /// The export that it was to open.
        target: String,
        /// What happened.
        error: ClientError,
    },
    /// An export can't be used like that.
    #[error("{target}: {why}")]
    Unfit {
        /// Which one.
        target: String,
        /// What is wrong with it.
        why: String,
    },
    /// A thread could not be started.
    #[error("a thread for each client: {0}")]
    Thread(#[from] std::io::Error),
    /// A client's thread panicked.
    #[error("client {0} broke down")]
    Panicked(usize),
    /// Numbers that make no histogram.
    #[error("{0}")]
    Histogram(#[from] hdrhistogram::CreationError),
}

/// How far a run has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Time from its start, warm-up included.
    pub elapsed: Duration,
    /// Requests that were answered.
    pub requests: u64,
    /// Bytes that were received.
    pub bytes: u64,
}

struct Ready {
    connection: Connection,
    session: Session,
}

impl Job {
    /// Runs to its end; `watch` is told how far it has come.
    ///
    /// # Errors
    /// [`LoadError`]. Errors of the server and wrong data are in the report.
    pub fn run(&self, watch: &mut dyn FnMut(Progress)) -> Result<Report, LoadError> {
        match &self.offline {
            Some(offline) => offline.run(self, watch),
            None => self.run_clients(watch),
        }
    }

    fn run_clients(&self, watch: &mut dyn FnMut(Progress)) -> Result<Report, LoadError> {
        // All are connected before the first request is made.
        let ready: Vec<_> = (0..self.clients)
            .map(|number| self.connect(number))
            .collect::<Result<_, _>>()?;
        let meter = Arc::new(Meter::default());
        let start = Instant::now();
        let threads = ready
            .into_iter()
            .map(|ready| start_client(ready, start, Arc::clone(&meter)))
            .collect::<Result<Vec<_>, _>>()?;
        watch_threads(&threads, start, &meter, watch);
        let mut ends = Vec::with_capacity(threads.len());
        for (number, thread) in threads.into_iter().enumerate() {
            let ended = thread.join().map_err(|_| LoadError::Panicked(number))?;
            ends.push(ended.map_err(|error| self.lost(number, error))?);
        }
        Ok(Report::of(self, Tally::new()?, &ends))
    }

    fn connect(&self, number: usize) -> Result<Ready, LoadError> {
        let target = self.target(number);
        let connection =
            Connection::open(target, number).map_err(|error| self.lost(number, error))?;
        let (size, flags) = (connection.export.size, connection.export.flags);
        let unfit = |why| LoadError::Unfit {
            target: target.to_string(),
            why,
        };
        self.check_flags(flags).map_err(unfit)?;
        let work = self.work(number, size).map_err(unfit)?;
        Ok(Ready {
            connection,
            session: Session::new(self.course(work)?),
        })
    }

    fn course(&self, work: Work) -> Result<Course, LoadError> {
        let rules = Rules {
            depth: self.depth,
            fua: self.fua,
            counted_from: self.warm_up,
            ends: match self.trace {
                Some(_) => Duration::MAX,
                None => self.warm_up + self.time,
            },
        };
        let ledger = self.check.then(Ledger::default);
        Ok(Course::new(rules, work, ledger, Tally::new()?))
    }

    fn target(&self, number: usize) -> &Target {
        &self.targets[number % self.targets.len()]
    }

    fn lost(&self, number: usize, error: ClientError) -> LoadError {
        LoadError::Client {
            number,
            target: self.target(number).to_string(),
            error,
        }
    }

    fn asks_for(&self, kind: Kind) -> bool {
        let in_mix = || {
            self.shape
                .mix
                .iter()
                .any(|(of, weight)| *of == kind && *weight > 0)
        };
        match (&self.trace, kind) {
            (Some(trace), _) => trace.has(kind),
            (None, Kind::Flush) => self.shape.flush_every.is_some(),
            (None, _) => in_mix(),
        }
    }

    fn check_flags(&self, flags: TransmissionFlags) -> Result<(), String> {
        let changes = Kind::ALL.into_iter().filter(|kind| kind.is_change());
        if flags.contains(TransmissionFlags::READ_ONLY) && changes.clone().any(|k| self.asks_for(k))
        {
            return Err("it is read-only: ask for reads only, or another export".to_owned());
        }
        let needs = [
            (Kind::Flush, TransmissionFlags::SEND_FLUSH, "flushes"),
            (Kind::Trim, TransmissionFlags::SEND_TRIM, "trims"),
            (Kind::Zero, TransmissionFlags::SEND_WRITE_ZEROES, "zeroing"),
        ];
        for (kind, flag, name) in needs {
            if self.asks_for(kind) && !flags.contains(flag) {
                return Err(format!("the server takes no {name} for it"));
            }
        }
        if self.fua && !flags.contains(TransmissionFlags::SEND_FUA) {
            return Err("the server takes no writes with FUA for it".to_owned());
        }
        Ok(())
    }

    fn work(&self, number: usize, size: u64) -> Result<Work, String> {
        let used = self.range.unwrap_or(size);
        if used > size {
            return Err(format!("it has {size} bytes: fewer than the range"));
        }
        if let Some(trace) = &self.trace {
            return match trace.end() <= size {
                true => Ok(Work::Traced(trace.clone())),
                false => Err(format!("it has {size} bytes, and the trace goes beyond")),
            };
        }
        let area = self.area(number, used)?;
        let seed = self.seed.wrapping_add(number as u64);
        Ok(Work::Made(Made::new(self.shape.clone(), area, seed)))
    }

    /// Clients that check what they read share no block; others use all, from places of their own.
    fn area(&self, number: usize, used: u64) -> Result<Area, String> {
        let blocks = used / u64::from(self.shape.block);
        let (number, clients) = (number as u64, self.clients as u64);
        let is_own = self.offline.is_some() || self.target(0).is_each_their_own();
        let (start, blocks) = match self.check && !is_own {
            true => (number * (blocks / clients), blocks / clients),
            false => (0, blocks),
        };
        if blocks == 0 {
            return Err("it has less than one block for each client".to_owned());
        }
        let is_shared = !self.check && !is_own && self.shape.pattern == Pattern::Sequential;
        Ok(Area {
            start: start * u64::from(self.shape.block),
            blocks,
            first: if is_shared {
                number * blocks / clients
            } else {
                0
            },
        })
    }
}

/// What a client came to, and when it had its last answer.
#[derive(Clone, Debug)]
pub struct Ended {
    /// What came in.
    pub tally: Tally,
    /// From the start of the run.
    pub at: Duration,
}

type Client = JoinHandle<Result<Ended, ClientError>>;

fn start_client(ready: Ready, start: Instant, meter: Arc<Meter>) -> std::io::Result<Client> {
    let thread = thread::Builder::new().stack_size(256 << 10);
    thread.spawn(move || {
        let Ready {
            connection,
            mut session,
        } = ready;
        let ended = connection.drive(&mut session, start, &meter);
        if ended.is_err() {
            meter.stop.store(true, Ordering::Relaxed);
        }
        ended.map(|()| Ended {
            tally: session.tally().clone(),
            at: start.elapsed(),
        })
    })
}

fn watch_threads<T>(
    threads: &[JoinHandle<T>],
    start: Instant,
    meter: &Meter,
    watch: &mut dyn FnMut(Progress),
) {
    while !threads.iter().all(JoinHandle::is_finished) {
        watch(Progress {
            elapsed: start.elapsed(),
            requests: meter.requests.load(Ordering::Relaxed),
            bytes: meter.bytes.load(Ordering::Relaxed),
        });
        thread::sleep(TELL);
    }
}
