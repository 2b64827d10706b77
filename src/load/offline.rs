//! Clients without a socket: exports and overlays are driven in process, on threads with a ring
//! each as a server has them.
//!
//! Every client has an overlay of its own, made for the run. What of an image is in memory is found
//! there and not copied, unless reads are checked: that is what a server hands to the kernel.
//!
//! Invariant: a task gives way after so many requests, so that the ring is served and the clients
//! of a thread have their turns.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tokio::sync::Notify;

use super::course::{Course, Flight, Next};
use super::drive::Meter;
use super::ledger::stamp;
use super::report::Report;
use super::tally::Tally;
use super::work::Kind;
use super::{Ended, Job, LoadError, Progress, watch_threads};
use crate::disk::RealDisk;
use crate::export::merge::base_of;
use crate::export::{Piece, Volume, VolumeError};
use crate::image::{Image, Watch};
use crate::io::{self, Pool};
use crate::nbd::wire::Errno;
use crate::overlay::{Overlay, OverlayMode, Spec};
use crate::units::ByteRange;

/// Requests that one task may have done before the others get a turn.
const TURN: u32 = 64;

/// What is driven without a server.
#[derive(Clone, Debug)]
pub struct Offline {
    /// The image below all overlays.
    pub image: PathBuf,
    /// Where a directory is made for the overlays, which goes with the run; `None` is the place of
    /// temporary files.
    pub state: Option<PathBuf>,
}

type Failed = Result<Vec<Ended>, LoadError>;

/// A client whose disk is open.
struct Ready {
    course: Course,
    overlay: Overlay<RealDisk>,
}

impl Offline {
    fn unfit(&self, why: impl std::fmt::Display) -> LoadError {
        LoadError::Unfit {
            target: self.image.display().to_string(),
            why: why.to_string(),
        }
    }

    /// Runs a job to its end; `watch` is told how far it has come.
    pub(super) fn run(
        &self,
        job: &Job,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<Report, LoadError> {
        let image = Image::open(&self.image).map_err(|error| self.unfit(error))?;
        let image = Arc::new(image);
        let watching = Watch::start()?;
        watching.add(Arc::clone(&image));
        let place = self.place()?;
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let mut shards: Vec<Vec<Ready>> = Vec::new();
        shards.resize_with(processors.min(job.clients), Vec::new);
        for number in 0..job.clients {
            let ready = self.ready(job, number, &image, place.path())?;
            let shard = number % shards.len();
            if let Some(shard) = shards.get_mut(shard) {
                shard.push(ready);
            }
        }
        let (start, meter) = (Instant::now(), Arc::new(Meter::default()));
        let threads = shards
            .into_iter()
            .map(|clients| start_shard(clients, &image, start, &meter))
            .collect::<Result<Vec<_>, _>>()?;
        watch_threads(&threads, start, &meter, watch);
        let mut ends = Vec::with_capacity(job.clients);
        for (number, thread) in threads.into_iter().enumerate() {
            ends.extend(thread.join().map_err(|_| LoadError::Panicked(number))??);
        }
        Ok(Report::of(job, Tally::new()?, &ends))
    }

    /// The directory of all overlays, which goes when it is dropped.
    fn place(&self) -> Result<tempfile::TempDir, LoadError> {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("cowherd-bench-");
        let made = match &self.state {
            Some(dir) => builder.tempdir_in(dir),
            None => builder.tempdir(),
        };
        made.map_err(|error| self.unfit(format_args!("a directory for its overlays: {error}")))
    }

    fn ready(
        &self,
        job: &Job,
        number: usize,
        image: &Image,
        place: &Path,
    ) -> Result<Ready, LoadError> {
        let work = job.work(number, image.size());
        let work = work.map_err(|why| self.unfit(why))?;
        let spec = Spec {
            base: base_of(image.identity()),
            mode: OverlayMode::Persistent,
            boot_id: [0; 16],
            uuid: u128::try_from(number).unwrap_or_default().to_le_bytes(),
            now: 0,
        };
        let overlay = Overlay::open(&RealDisk, &place.join(number.to_string()), &spec);
        Ok(Ready {
            course: job.course(work)?,
            overlay: overlay.map_err(|error| self.unfit(error))?,
        })
    }
}

fn start_shard(
    clients: Vec<Ready>,
    image: &Arc<Image>,
    start: Instant,
    meter: &Arc<Meter>,
) -> std::io::Result<JoinHandle<Failed>> {
    let (image, meter) = (Arc::clone(image), Arc::clone(meter));
    let thread = thread::Builder::new().name("shard".to_owned());
    thread.spawn(move || {
        let ended = match io::run(run_all(clients, image, start, Arc::clone(&meter))) {
            Ok(ended) => ended,
            Err(no_ring) => Err(no_ring.into()),
        };
        if ended.is_err() {
            meter.stop.store(true, Ordering::Relaxed);
        }
        ended
    })
}

async fn run_all(
    clients: Vec<Ready>,
    image: Arc<Image>,
    start: Instant,
    meter: Arc<Meter>,
) -> Failed {
    let pool = Pool::new();
    let clients = clients.into_iter().map(|Ready { course, overlay }| {
        let volume = Volume::new(Arc::clone(&image), Some(overlay), pool.clone());
        Rc::new(Client {
            volume: Rc::new(volume),
            pool: pool.clone(),
            course: RefCell::new(course),
            answered: Notify::new(),
            start,
            meter: Arc::clone(&meter),
        })
    });
    let running: Vec<_> = clients
        .map(|client| io::spawn(async move { client.run().await }))
        .collect();
    let mut ends = Vec::with_capacity(running.len());
    for client in running {
        // The tasks end before the ring does; were one to panic, the others don't count.
        ends.push(client.await.map_err(std::io::Error::other)??);
    }
    Ok(ends)
}

/// A client that runs.
struct Client {
    volume: Rc<Volume>,
    pool: Pool,
    course: RefCell<Course>,
    /// Told when a request has ended.
    answered: Notify,
    start: Instant,
    meter: Arc<Meter>,
}

impl Client {
    async fn run(self: Rc<Self>) -> Result<Ended, LoadError> {
        let depth = self.course.borrow().rules().depth;
        let lanes: Vec<_> = (0..u32::try_from(depth).unwrap_or(u32::MAX))
            .map(|place| {
                let client = Rc::clone(&self);
                io::spawn(async move { client.take_course(place).await })
            })
            .collect();
        for lane in lanes {
            lane.await.map_err(std::io::Error::other)?;
        }
        let ended = Ended {
            tally: self.course.borrow().tally().clone(),
            at: self.start.elapsed(),
        };
        // What is not flushed by now nobody asked to be: the overlay goes anyway.
        let _ = Rc::clone(&self.volume).close().await;
        Ok(ended)
    }

    /// Makes one request after the other.
    async fn take_course(&self, place: u32) {
        let mut turn = 0;
        while !self.meter.stop.load(Ordering::Relaxed) {
            let answered = self.answered.notified();
            let next = self.course.borrow_mut().next(self.start.elapsed(), place);
            match next {
                Next::Over => return,
                Next::Wait(due) => {
                    let pause = due.saturating_sub(self.start.elapsed());
                    tokio::time::sleep(pause).await;
                }
                Next::WaitForAnswer => answered.await,
                Next::Make(flight) => self.fly(&flight).await,
            }
            turn += 1;
            if turn >= TURN {
                turn = 0;
                io::yield_now().await;
            }
        }
    }

    async fn fly(&self, flight: &Flight) {
        let (fua, checks) = {
            let course = self.course.borrow();
            (course.rules().fua, course.checks())
        };
        let result = self.perform(flight, fua, checks).await;
        let result = result.map_err(|error| errno(&error));
        let now = self.start.elapsed();
        let data = result.as_deref().map_err(|errno| *errno);
        self.course.borrow_mut().ended(flight, now, data);
        self.meter.requests.fetch_add(1, Ordering::Relaxed);
        let bytes = flight.request.length.into();
        self.meter.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.answered.notify_waiters();
    }

    /// Does what is asked for; what a read gave, where reads are checked.
    async fn perform(
        &self,
        flight: &Flight,
        fua: bool,
        checks: bool,
    ) -> Result<Vec<u8>, VolumeError> {
        let request = &flight.request;
        let end = request.offset.saturating_add(request.length.into());
        let range = ByteRange::between(request.offset, end);
        match request.kind {
            Kind::Read => {
                let pieces = match self.volume.read_cached(range)? {
                    Some(pieces) => pieces,
                    None => self.volume.read(range).await?,
                };
                match checks {
                    true => return self.bytes_of(&pieces),
                    false => return Ok(Vec::new()),
                }
            }
            Kind::Write => self.write(flight, range, fua).await?,
            Kind::Trim => self.volume.trim(range).await?,
            Kind::Zero => self.volume.zero(range, false).await?,
            Kind::Flush => self.volume.flush().await?,
        }
        Ok(Vec::new())
    }

    async fn write(&self, flight: &Flight, range: ByteRange, fua: bool) -> Result<(), VolumeError> {
        let blocks = range.blocks_touched();
        let mut buffer = self.pool.take(blocks.bytes().len_usize())?;
        let mut content = Vec::with_capacity(range.len_usize());
        stamp(&mut content, flight.mark, flight.request.length);
        if let Some(place) = buffer.as_mut_slice().get_mut(range.place_in(blocks)) {
            place.copy_from_slice(&content);
        }
        self.volume.write(range, buffer).await?;
        match fua {
            true => self.volume.flush().await,
            false => Ok(()),
        }
    }

    fn bytes_of(&self, pieces: &[Piece]) -> Result<Vec<u8>, VolumeError> {
        let mut bytes = Vec::new();
        for piece in pieces {
            let at = bytes.len();
            bytes.resize(at + usize::try_from(piece.len()).unwrap_or_default(), 0);
            let place = bytes.get_mut(at..).unwrap_or_default();
            match piece {
                Piece::Mapped(range) => self.volume.image().read(place, range.start())?,
                Piece::Copied(buffer) => place.copy_from_slice(buffer.as_slice()),
                Piece::Zeros(_) => {}
            }
        }
        Ok(bytes)
    }
}

/// As a server would tell it.
const fn errno(error: &VolumeError) -> Errno {
    match error {
        VolumeError::NoSpace => Errno::ENOSPC,
        VolumeError::ReadOnly => Errno::EPERM,
        _ => Errno::EIO,
    }
}
