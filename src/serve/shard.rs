//! A shard: one data-plane thread with a ring of its own, and the sessions that live on it.
//!
//! Invariants: whoever opened a volume releases it exactly once; a shard that drains takes nothing
//! new, and ends when its sessions have ended and its volumes are closed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Shutdown};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};

use super::absence;
use super::catalog::{Target, VolumeKey};
use super::link::Link;
use super::memory::ShardMemory;
use super::meter::Meter;
use super::placement::Placement;
use super::seats::Seat;
use super::session::{End, Session};
use super::succession::{Elder, Progress};
use super::volumes::Volumes;
use crate::disk::RealDisk;
use crate::io::{self, Pool, Socket};
use crate::nbd::ExportInfo;
use crate::nbd::agreed::Agreed;
use crate::overlay::OpenError;
use crate::overlay::inspect::View;
use crate::status::traffic::Latencies;
use crate::tls::Channel;
use measure::{AllLatencies, Measured};

pub(super) mod measure;

/// A connection whose handshake has ended.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) socket: OwnedFd,
    /// Where it is encrypted.
    pub(super) channel: Option<Channel>,
    /// Given back when the session has ended.
    pub(super) seat: Seat,
    /// What came behind the handshake.
    pub(super) leftover: Vec<u8>,
    pub(super) info: ExportInfo,
    pub(super) agreed: Agreed,
    /// For the log.
    pub(super) peer: String,
    /// Where it is; `None` where it came by a socket of this host.
    pub(super) address: Option<IpAddr>,
}

#[derive(Debug)]
enum Order {
    Open {
        target: Arc<Target>,
        lease: Lease,
        answer: oneshot::Sender<Result<Lease, OpenError>>,
    },
    Serve {
        accepted: Accepted,
        lease: Lease,
    },
    Hold {
        lease: Lease,
        answer: oneshot::Sender<Held>,
    },
    Measure(oneshot::Sender<Vec<Measured>>),
    Latencies(oneshot::Sender<AllLatencies>),
    Vacate {
        lease: Lease,
        answer: oneshot::Sender<Held>,
    },
    Release(VolumeKey),
    Forget(VolumeKey),
    Drain,
    Cut,
}

/// A shard as the control plane sees it.
#[derive(Clone, Debug)]
pub(super) struct ShardHandle {
    index: usize,
    orders: UnboundedSender<Order>,
    placement: Arc<Placement>,
}

/// The right to use a volume; dropping it gives the volume up.
#[derive(Debug)]
pub(super) struct Lease {
    key: VolumeKey,
    shard: ShardHandle,
    state: LeaseState,
}

#[derive(Clone, Copy, Debug)]
enum LeaseState {
    /// The volume is not open yet.
    Fresh,
    /// The volume is open, or held back, for this lease too.
    Open,
    /// Others have it open.
    Looked,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Self { key, shard, state } = self;
        shard.placement.leave(key, shard.index);
        // A shard that is gone has closed its volumes.
        let _ = match state {
            LeaseState::Open => shard.orders.send(Order::Release(key.clone())),
            // Only the shard knows whether the others have closed it by now.
            LeaseState::Looked => shard.orders.send(Order::Forget(key.clone())),
            LeaseState::Fresh => {
                shard.placement.forget(key);
                Ok(())
            }
        };
    }
}

/// An overlay as those who are no clients get it.
#[derive(Debug)]
pub(super) enum Held {
    /// No client has it open, and none gets it until the lease is dropped.
    Alone(#[expect(dead_code, reason = "what counts is that it lives")] Lease),
    /// Clients have it open.
    Live(Box<Live>),
}

/// A look at an overlay that is open.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) view: View<RealDisk>,
    /// The peers whose sessions use it.
    pub(super) users: Vec<String>,
}

impl ShardHandle {
    /// Opens the volume of `target`, which must have been placed here by [`Placement::join`].
    /// `None` where the shard is gone.
    pub(super) async fn open(&self, target: Arc<Target>) -> Option<Result<Lease, OpenError>> {
        let lease = self.fresh_lease(target.key.clone());
        let (answer, opened) = oneshot::channel();
        self.orders
            .send(Order::Open {
                target,
                lease,
                answer,
            })
            .ok()?;
        opened.await.ok()
    }

    /// Holds an overlay back from clients, or looks at it where one has it open; it must have been
    /// placed here by [`Placement::join`]. `None` where the shard is gone.
    pub(super) async fn hold(&self, key: VolumeKey) -> Option<Held> {
        let lease = self.fresh_lease(key);
        let (answer, held) = oneshot::channel();
        self.orders.send(Order::Hold { lease, answer }).ok()?;
        held.await.ok()
    }

    /// As [`Self::hold`], but sessions whose machine does not know of them any more are cut first:
    /// it has been switched on anew.
    pub(super) async fn vacate(&self, key: VolumeKey) -> Option<Held> {
        let lease = self.fresh_lease(key);
        let (answer, held) = oneshot::channel();
        self.orders.send(Order::Vacate { lease, answer }).ok()?;
        held.await.ok()
    }

    fn fresh_lease(&self, key: VolumeKey) -> Lease {
        Lease {
            key,
            shard: self.clone(),
            state: LeaseState::Fresh,
        }
    }

    /// Hands a connection over for the transmission phase.
    pub(super) fn serve(&self, lease: Lease, accepted: Accepted) {
        // A shard that is gone has ended its sessions; this one ends with it.
        let _ = self.orders.send(Order::Serve { accepted, lease });
    }

    /// Ends all sessions as if their clients had left, and then the shard.
    pub(super) fn drain(&self) {
        // One that is gone has drained.
        let _ = self.orders.send(Order::Drain);
    }

    /// Cuts the connections of all sessions that are still there.
    pub(super) fn cut(&self) {
        // One that is gone has none.
        let _ = self.orders.send(Order::Cut);
    }
}

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
    meter: Rc<Meter>,
    elder: Elder,
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
    /// How long answers of sessions took that have ended.
    past: RefCell<HashMap<VolumeKey, Latencies>>,
    next: Cell<u64>,
    draining: Cell<bool>,
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
        }
    }

    fn follow(self: &Rc<Self>, order: Order) {
        let shard = Rc::clone(self);
        match order {
            Order::Open {
                target,
                lease,
                answer,
            } => drop(io::spawn(async move {
                // Who asked may be gone; the lease that comes back then is dropped, and released.
                let _ = answer.send(shard.open(&target, lease).await);
            })),
            Order::Serve { accepted, lease } => self.start_session(accepted, lease),
            Order::Hold { lease, answer } => drop(io::spawn(async move {
                // Who asked may be gone; what comes back then is dropped, and released.
                let _ = answer.send(shard.hold(lease).await);
            })),
            // Who asked may be gone.
            Order::Measure(answer) => drop(answer.send(shard.measure())),
            Order::Latencies(answer) => drop(io::spawn(async move {
                let _ = answer.send(shard.latencies().await);
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
            Order::Drain => {
                self.draining.set(true);
                self.each_session(Elder::drain);
            }
            Order::Cut => self.each_session(|session| {
                // One that is closed already is as good.
                let _ = session.socket.shutdown(Shutdown::Both);
            }),
        }
    }

    async fn open(&self, target: &Target, mut lease: Lease) -> Result<Lease, OpenError> {
        self.volumes.open(target, &self.pool).await?;
        lease.state = LeaseState::Open;
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

    /// The peers whose sessions use a volume.
    fn users(&self, key: &VolumeKey) -> Vec<String> {
        let sessions = self.sessions.borrow();
        let of_key = sessions.values().filter(|entry| entry.key == *key);
        of_key.map(|entry| entry.peer.clone()).collect()
    }

    async fn release(&self, key: VolumeKey) {
        self.volumes.release(&key).await;
        self.placement.forget(&key);
        self.released.notify_one();
    }

    fn start_session(self: &Rc<Self>, accepted: Accepted, lease: Lease) {
        let Some(volume) = self.volumes.get(&lease.key) else {
            return;
        };
        let Accepted {
            socket,
            channel,
            seat,
            leftover,
            info,
            agreed,
            peer,
            address,
        } = accepted;
        let socket = match prepare(socket, self.keepalive) {
            Ok(socket) if !self.draining.get() => socket,
            Ok(_) => return,
            Err(error) => {
                tracing::warn!("{peer}: connection lost before its first request: {error}");
                return;
            }
        };
        let progress = Rc::new(Progress::default());
        progress.received(leftover.len() as u64);
        let elders = self.elders(&lease.key);
        let elder = Elder {
            socket: socket.clone(),
            progress: Rc::clone(&progress),
        };
        let meter = Meter::new();
        let id = self.register(Entry {
            key: lease.key.clone(),
            peer: peer.clone(),
            address,
            is_read_only: info.read_only,
            meter: Rc::clone(&meter),
            elder,
        });
        let link = Link::new(socket, channel, Rc::clone(&progress));
        let pool = self.pool.clone();
        let session = Session::new(link, volume, pool, &self.memory, progress, meter);
        let shard = Rc::clone(self);
        drop(io::spawn(async move {
            tracing::info!("{peer} uses {}", lease.key);
            // All at once, so that many stuck ones take no longer than one.
            let elders = elders.into_iter();
            let settled: Vec<_> = elders
                .map(|elder| io::spawn(async move { elder.settle().await }))
                .collect();
            for settled in settled {
                // The task can't panic; were it to, its session is not waited for.
                if settled.await.unwrap_or(false) {
                    tracing::warn!(
                        "{peer}: an older connection to {} was stuck: cut",
                        lease.key
                    );
                }
            }
            let end = session.run(info, agreed, &leftover).await;
            log_end(&peer, &lease.key, &end);
            shard.retire(id, &end);
            drop((lease, seat));
        }));
    }

    /// The sessions that a new one of the overlay must come after.
    fn elders(&self, key: &VolumeKey) -> Vec<Elder> {
        let sessions = self.sessions.borrow();
        let of_key = sessions
            .values()
            .filter(|entry| entry.key == *key && key.client.is_some());
        of_key.map(|entry| entry.elder.clone()).collect()
    }

    fn register(&self, entry: Entry) -> u64 {
        let id = self.next.replace(self.next.get() + 1);
        self.sessions.borrow_mut().insert(id, entry);
        id
    }

    fn each_session(&self, act: impl Fn(&Elder)) {
        let sessions = self.sessions.borrow();
        sessions.values().for_each(|entry| act(&entry.elder));
    }

    fn is_idle(&self) -> bool {
        self.sessions.borrow().is_empty() && self.volumes.is_empty()
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
        End::Disconnected | End::Closed | End::Failed(_) => {
            tracing::info!("{peer} used {key}: {end}");
        }
    }
}
