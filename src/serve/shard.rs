//! A shard: one data-plane thread with a ring of its own, and the sessions that live on it.
//!
//! Invariants: whoever opened a volume releases it exactly once; a shard that drains takes nothing
//! new, and ends when its sessions have ended and its volumes are closed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Shutdown};
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;

use super::absence;
use super::catalog::{Target, VolumeKey};
use super::link::Link;
use super::memory::ShardMemory;
use super::meter::Meter;
use super::outbox::Outbox;
use super::placement::Placement;
use super::prefetch::Machine;
use super::session::{End, Outcome, Session};
use super::succession::{Elder, Progress};
use super::volumes::Volumes;
use crate::io::{self, Pool, Socket};
use crate::overlay::{OpenError, Voucher};
use crate::status::traffic::Totals;
use handle::{LeaseState, Order};
use measure::Measured;
use suspension::Suspension;

mod handle;
pub(super) mod measure;
mod suspension;

pub(super) use handle::{Accepted, Held, Lease, Leaving, Live, ShardHandle, Standing, Suspended};

/// Starts shard `index` on a thread of its own; an error where it has no ring.
pub(super) fn start(
    index: usize,
    placement: Arc<Placement>,
    keepalive: Duration,
) -> std::io::Result<(ShardHandle, JoinHandle<()>)> {
    let (orders, received) = unbounded_channel();
    let handle = ShardHandle {
        index,
        orders,
        placement,
    };
    let (started, ready) = std::sync::mpsc::channel();
    let placement = Arc::clone(&handle.placement);
    let thread = std::thread::Builder::new()
        .name(format!("shard-{index}"))
        .spawn(move || {
            let ran = io::run(async {
                let _ = started.send(Ok(()));
                Shard::new(placement, keepalive).run(received).await;
            });
            if let Err(error) = ran {
                let _ = started.send(Err(error));
            }
        })?;
    match ready.recv() {
        Ok(Ok(())) => Ok((handle, thread)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(std::io::Error::other("the thread of a shard ended at once")),
    }
}

/// A session that is under way.
#[derive(Debug)]
struct Entry {
    key: VolumeKey,
    peer: String,
    address: Option<IpAddr>,
    is_read_only: bool,
    goes_on: bool,
    meter: Rc<Meter>,
    elder: Elder,
    outbox: Weak<Outbox>,
}

/// What lives on the shard's thread.
#[derive(Debug)]
struct Shard {
    volumes: Volumes,
    pool: Pool,
    memory: Rc<ShardMemory>,
    sessions: RefCell<BTreeMap<u64, Entry>>,
    /// Sessions that have ended and that nobody was told of yet.
    ended: RefCell<Vec<Measured>>,
    /// What was asked in sessions that have ended, and how long answers took.
    past: RefCell<HashMap<VolumeKey, Totals>>,
    next: Cell<u64>,
    draining: Cell<bool>,
    suspension: Suspension,
    /// A volume has been given up.
    released: Notify,
    placement: Arc<Placement>,
    /// A peer that is silent this long is asked whether it is still there.
    keepalive: Duration,
}

impl Shard {
    fn new(placement: Arc<Placement>, keepalive: Duration) -> Rc<Self> {
        Rc::new(Self {
            volumes: Volumes::default(),
            pool: Pool::new(),
            memory: Rc::new(ShardMemory::new()),
            sessions: RefCell::default(),
            ended: RefCell::default(),
            past: RefCell::default(),
            next: Cell::new(0),
            draining: Cell::new(false),
            suspension: Suspension::default(),
            released: Notify::new(),
            placement,
            keepalive,
        })
    }

    async fn run(self: Rc<Self>, mut orders: UnboundedReceiver<Order>) {
        while !(self.draining.get() && self.is_idle()) {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.follow(order),
                    None => return,
                },
                () = self.released.notified() => {}
            }
            self.tell_if_suspended();
        }
    }

    fn follow(self: &Rc<Self>, order: Order) {
        let shard = Rc::clone(self);
        match order {
            Order::Open {
                target,
                voucher,
                lease,
                answer,
            } => drop(io::spawn(async move {
                // Who asked may be gone; the lease that comes back then is dropped, and released.
                let _ = answer.send(shard.open(&target, voucher, lease).await);
            })),
            Order::Serve { accepted, lease } => self.start_session(accepted, lease),
            Order::Hold { lease, answer } => drop(io::spawn(async move {
                // Who asked may be gone; what comes back then is dropped, and released.
                let _ = answer.send(shard.hold(lease).await);
            })),
            Order::Has { machine, answer } => drop(io::spawn(async move {
                // Who asked may be gone.
                let _ = answer.send(shard.has(&machine).await);
            })),
            // Who asked may be gone.
            Order::Measure(answer) => drop(answer.send(shard.measure())),
            Order::Totals(answer) => drop(io::spawn(async move {
                let _ = answer.send(shard.totals().await);
            })),
            Order::Vacate { lease, answer } => drop(io::spawn(async move {
                shard.vacate(&lease.key).await;
                let _ = answer.send(shard.hold(lease).await);
            })),
            Order::Forget(key) => {
                if !self.volumes.has(&key) {
                    self.placement.forget(&key);
                }
            }
            Order::Release(key) => drop(io::spawn(async move { shard.release(key).await })),
            Order::Flush(answer) => drop(io::spawn(async move {
                shard.volumes.flush().await;
                let _ = answer.send(());
            })),
            // Who asked is waiting.
            Order::Tell(answer) => drop(answer.send(self.volumes.open_now())),
            Order::Suspend(answer, leaving) => self.suspend(answer, leaving),
            Order::Resume(answer) => self.resume(answer),
            Order::Drain => {
                self.draining.set(true);
                self.each_session(Elder::drain);
            }
            Order::Conclude => self.each_session(Elder::conclude),
            Order::Cut => self.each_session(|session| {
                // One that is closed already is as good.
                let _ = session.socket.shutdown(Shutdown::Both);
            }),
        }
    }

    async fn open(
        &self,
        target: &Arc<Target>,
        voucher: Option<Voucher>,
        mut lease: Lease,
    ) -> Result<Lease, OpenError> {
        self.volumes.open(target, voucher, &self.pool).await?;
        lease.state = LeaseState::Open;
        let volume = self.volumes.get(&target.key);
        lease.overlay = volume.and_then(|(volume, _)| volume.uuid());
        Ok(lease)
    }

    async fn hold(&self, mut lease: Lease) -> Held {
        let volume = self.volumes.hold(&lease.key).await;
        match volume.and_then(|volume| volume.view()) {
            None => {
                lease.state = LeaseState::Open;
                Held::Alone(lease)
            }
            Some(view) => {
                lease.state = LeaseState::Looked;
                let users = self.users(&lease.key);
                Held::Live(Box::new(Live { view, users }))
            }
        }
    }

    /// Cuts the sessions of a volume if the machine at their other ends is not there any more.
    async fn vacate(&self, key: &VolumeKey) {
        let sessions = self.elders(key);
        if !absence::is_gone(&sessions, self.keepalive).await {
            return;
        }
        for session in &sessions {
            session.cut();
        }
        // A disk that is stuck, or who is just connecting, keeps it open.
        let closed = self.volumes.until_closed(key);
        let _ = tokio::time::timeout(absence::PATIENCE, closed).await;
    }

    /// Whether a machine is at the other end of any session of it.
    async fn has(&self, machine: &Machine) -> bool {
        let sessions = self.of_machine(machine);
        !absence::is_gone(&sessions, self.keepalive).await
    }

    fn of_machine(&self, machine: &Machine) -> Vec<Elder> {
        let is_its = |entry: &&Entry| {
            let is_named = entry.key.client.as_ref() == Some(&machine.name);
            is_named || (entry.address.is_some() && entry.address == machine.ip())
        };
        let sessions = self.sessions.borrow();
        let its = sessions.values().filter(is_its);
        its.map(|entry| entry.elder.clone()).collect()
    }

    /// The peers whose sessions use a volume.
    fn users(&self, key: &VolumeKey) -> Vec<String> {
        let sessions = self.sessions.borrow();
        let of_key = sessions.values().filter(|entry| entry.key == *key);
        of_key.map(|entry| entry.peer.clone()).collect()
    }

    async fn release(&self, key: VolumeKey) {
        if self.suspension.is_on() {
            let leaving = self.suspension.leaving();
            let parted = self.volumes.part_with(&key, leaving).await;
            self.suspension.parted(&key, parted);
        } else {
            // Whoever used it is gone, and the log says why.
            let _ = self.volumes.release(&key).await;
        }
        self.placement.forget(&key);
        self.released.notify_one();
    }

    fn start_session(self: &Rc<Self>, accepted: Accepted, lease: Lease) {
        let Some((volume, target)) = self.volumes.get(&lease.key) else {
            return;
        };
        if self.suspension.is_on() {
            // It comes back when sessions go on.
            return self
                .suspension
                .keep_if_whole(self.next_number(), target, Ok(accepted));
        }
        let Accepted {
            socket,
            mut standing,
        } = accepted;
        let Some(socket) = self.prepared(socket, &standing.peer) else {
            return;
        };
        let progress = Rc::new(Progress::default());
        progress.received(standing.leftover.len() as u64);
        let elders = standing.is_successor.then(|| self.elders(&lease.key));
        let elders = elders.unwrap_or_default();
        let elder = Elder {
            socket: socket.clone(),
            progress: Rc::clone(&progress),
        };
        let link = Link::new(socket, standing.channel.take(), Rc::clone(&progress));
        let (pool, meter) = (self.pool.clone(), Meter::new());
        let same = Rc::clone(&meter);
        let mut session = Session::new(link, volume, pool, &self.memory, progress, same);
        // One that goes on is no boot.
        if standing.is_successor {
            session.record_boot();
        }
        let number = self.next_number();
        let entry = Entry {
            key: lease.key.clone(),
            peer: standing.peer.clone(),
            address: standing.address,
            is_read_only: standing.info.read_only,
            goes_on: standing.goes_on,
            meter,
            elder: elder.clone(),
            outbox: session.outbox(),
        };
        self.sessions.borrow_mut().insert(number, entry);
        let shard = Rc::clone(self);
        drop(io::spawn(async move {
            let (peer, key) = (&standing.peer, &lease.key);
            tracing::info!("{peer} uses {key}");
            let is_settled = settle(elders, &elder, peer, key).await;
            let Standing { info, agreed, .. } = standing;
            match session.run(info, agreed, &standing.leftover).await {
                Outcome::Ended(end) => {
                    log_end(&standing.peer, &lease.key, &end);
                    shard.retire(number, &end);
                }
                Outcome::Suspended(rest) => {
                    shard.retire(number, &End::Suspended);
                    standing.is_successor = !is_settled;
                    standing.goes_on = true;
                    (standing.leftover, standing.channel) = (rest.leftover, rest.channel);
                    let accepted = |socket| Accepted { socket, standing };
                    let whole = elder.socket.to_owned_fd().map(accepted);
                    shard.suspension.keep_if_whole(number, target, whole);
                }
            }
            drop(lease);
        }));
    }

    /// The socket of a session that begins, unless there is none to begin any more.
    fn prepared(&self, socket: OwnedFd, peer: &str) -> Option<Socket> {
        prepare(socket, self.keepalive)
            .inspect_err(|error| {
                tracing::warn!("{peer}: connection lost before its first request: {error}");
            })
            .ok()
            .filter(|_| !self.draining.get())
    }

    /// The sessions that a new one of the overlay must come after.
    fn elders(&self, key: &VolumeKey) -> Vec<Elder> {
        let sessions = self.sessions.borrow();
        let of_key = sessions
            .values()
            .filter(|entry| entry.key == *key && key.client.is_some());
        of_key.map(|entry| entry.elder.clone()).collect()
    }

    fn next_number(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    fn each_session(&self, act: impl Fn(&Elder)) {
        let sessions = self.sessions.borrow();
        sessions.values().for_each(|entry| act(&entry.elder));
    }

    fn is_idle(&self) -> bool {
        self.sessions.borrow().is_empty() && self.volumes.is_empty()
    }
}

/// Waits until the older sessions of an overlay have done what had come for them; whether that came
/// to its end before `own` was told to stop.
async fn settle(elders: Vec<Elder>, own: &Elder, peer: &str, key: &VolumeKey) -> bool {
    // All at once, so that many stuck ones take no longer than one.
    let mut settling = JoinSet::new();
    for elder in elders {
        settling.spawn_local(async move { elder.settle().await });
    }
    loop {
        let settled = tokio::select! {
            settled = settling.join_next() => settled,
            () = own.progress.until_suspending() => return false,
        };
        match settled {
            None => return true,
            // The task can't panic; were it to, its session is not waited for.
            Some(was_cut) => {
                if was_cut.unwrap_or(false) {
                    tracing::warn!("{peer}: an older connection to {key} was stuck: cut");
                }
            }
        }
    }
}

fn prepare(socket: OwnedFd, keepalive: Duration) -> std::io::Result<Socket> {
    let socket = Socket::new(socket)?;
    socket.set_nodelay()?;
    socket.set_keepalive(keepalive)?;
    Ok(socket)
}

fn log_end(peer: &str, key: &VolumeKey, end: &End) {
    match end {
        End::Violation(_) | End::Cut => tracing::warn!("{peer} used {key}: {end}"),
        End::Disconnected | End::Closed | End::Failed(_) | End::Suspended => {
            tracing::info!("{peer} used {key}: {end}");
        }
    }
}
