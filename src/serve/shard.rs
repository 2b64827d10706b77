//! A shard: one data-plane thread with a ring of its own, and the sessions that live on it.
//!
//! Invariants: whoever opened a volume releases it exactly once; a shard that drains takes nothing
//! new, and ends when its sessions have ended and its volumes are closed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::budget::Budget;
use super::catalog::{Target, VolumeKey};
use super::placement::Placement;
use super::session::{End, Session};
use super::volumes::Volumes;
use crate::io::{self, Pool, Socket};
use crate::limits::SHARD_BYTES_MAX;
use crate::nbd::ExportInfo;
use crate::overlay::OpenError;

/// A peer that is silent this long is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A connection whose handshake has ended.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) socket: OwnedFd,
    /// What came behind the handshake.
    pub(super) leftover: Vec<u8>,
    pub(super) info: ExportInfo,
    /// For the log.
    pub(super) peer: String,
}

#[derive(Debug)]
enum Order {
    Open { target: Arc<Target>, answer: oneshot::Sender<Result<(), OpenError>> },
    Serve { key: VolumeKey, accepted: Accepted, lease: Lease },
    Release(VolumeKey),
    Drain,
}

/// A shard as the control plane sees it.
#[derive(Clone, Debug)]
pub(super) struct ShardHandle {
    orders: UnboundedSender<Order>,
    placement: Arc<Placement>,
}

/// The right to use an open volume; dropping it gives the volume up.
#[derive(Debug)]
pub(super) struct Lease {
    key: VolumeKey,
    shard: ShardHandle,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shard.placement.leave(&self.key);
        // A shard that is gone has closed its volumes.
        let _ = self.shard.orders.send(Order::Release(self.key.clone()));
    }
}

impl ShardHandle {
    /// Opens the volume of `target`, which must have been placed here. `None` where the shard is gone.
    pub(super) async fn open(&self, target: &Arc<Target>) -> Option<Result<Lease, OpenError>> {
        let (answer, opened) = oneshot::channel();
        let order = Order::Open { target: Arc::clone(target), answer };
        let opened = match self.orders.send(order) {
            Ok(()) => opened.await.ok(),
            Err(_) => None,
        };
        if let Some(Ok(())) = opened {
            return Some(Ok(Lease { key: target.key.clone(), shard: self.clone() }));
        }
        self.placement.leave(&target.key);
        self.placement.forget(&target.key);
        opened?.err().map(Err)
    }

    /// Hands a connection over for the transmission phase.
    pub(super) fn serve(&self, lease: Lease, accepted: Accepted) {
        let key = lease.key.clone();
        // A shard that is gone has ended its sessions; this one ends with it.
        let _ = self.orders.send(Order::Serve { key, accepted, lease });
    }

    /// Ends all sessions as if their clients had left, and then the shard.
    pub(super) fn drain(&self) {
        // One that is gone has drained.
        let _ = self.orders.send(Order::Drain);
    }
}

/// Starts shard `index` on a thread of its own; an error where it has no ring.
pub(super) fn start(
    index: usize,
    placement: Arc<Placement>,
) -> std::io::Result<(ShardHandle, JoinHandle<()>)> {
    let (orders, received) = unbounded_channel();
    let handle = ShardHandle { orders, placement };
    let (started, ready) = std::sync::mpsc::channel();
    let placement = Arc::clone(&handle.placement);
    let thread = std::thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
        let ran = io::run(async {
            let _ = started.send(Ok(()));
            Shard::new(placement).run(received).await;
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

/// What lives on the shard's thread.
#[derive(Debug)]
struct Shard {
    volumes: Volumes,
    pool: Pool,
    bytes: Rc<Budget>,
    sockets: RefCell<HashMap<u64, Socket>>,
    next: Cell<u64>,
    draining: Cell<bool>,
    placement: Arc<Placement>,
}

impl Shard {
    fn new(placement: Arc<Placement>) -> Rc<Self> {
        Rc::new(Self {
            volumes: Volumes::default(),
            pool: Pool::new(),
            bytes: Rc::new(Budget::new(SHARD_BYTES_MAX)),
            sockets: RefCell::default(),
            next: Cell::new(0),
            draining: Cell::new(false),
            placement,
        })
    }

    async fn run(self: Rc<Self>, mut orders: UnboundedReceiver<Order>) {
        let drained = io::spawn({
            let shard = Rc::clone(&self);
            async move {
                while let Some(order) = orders.recv().await {
                    shard.follow(order);
                    if shard.draining.get() && shard.is_idle().await {
                        return;
                    }
                }
            }
        });
        // The task can't panic; were it to, there is nothing left to serve.
        let _ = drained.await;
    }

    fn follow(self: &Rc<Self>, order: Order) {
        let shard = Rc::clone(self);
        match order {
            Order::Open { target, answer } => {
                drop(io::spawn(async move {
                    let opened = shard.volumes.open(&target, &shard.pool).await;
                    let key = target.key.clone();
                    if answer.send(opened.map(|_| ())).is_err() {
                        shard.release(key).await;
                    }
                }));
            }
            Order::Serve { key, accepted, lease } => self.start_session(&key, accepted, lease),
            Order::Release(key) => drop(io::spawn(async move { shard.release(key).await })),
            Order::Drain => self.start_drain(),
        }
    }

    async fn release(&self, key: VolumeKey) {
        self.volumes.release(&key).await;
        self.placement.forget(&key);
    }

    fn start_session(self: &Rc<Self>, key: &VolumeKey, accepted: Accepted, lease: Lease) {
        let Some(volume) = self.volumes.get(key) else { return };
        let Accepted { socket, leftover, info, peer } = accepted;
        let socket = match prepare(socket) {
            Ok(socket) if !self.draining.get() => socket,
            Ok(_) => return,
            Err(error) => {
                tracing::warn!("{peer}: connection lost before its first request: {error}");
                return;
            }
        };
        let id = self.next.get();
        self.next.set(id + 1);
        self.sockets.borrow_mut().insert(id, socket.clone());
        let session = Session::new(socket, volume, self.pool.clone(), Rc::clone(&self.bytes));
        let shard = Rc::clone(self);
        drop(io::spawn(async move {
            tracing::info!("{peer} uses {}", lease.key);
            let end = session.run(info, &leftover).await;
            log_end(&peer, &lease.key, &end);
            shard.sockets.borrow_mut().remove(&id);
            drop(lease);
        }));
    }

    fn start_drain(&self) {
        self.draining.set(true);
        for socket in self.sockets.borrow().values() {
            // What was received is still served; a socket that is closed already is as good.
            let _ = socket.shutdown(Shutdown::Read);
        }
    }

    /// Whether all has ended; volumes that are being closed are waited for.
    async fn is_idle(&self) -> bool {
        if !self.sockets.borrow().is_empty() {
            return false;
        }
        self.volumes.all_closed().await;
        true
    }
}

fn prepare(socket: OwnedFd) -> std::io::Result<Socket> {
    let socket = Socket::new(socket)?;
    socket.set_nodelay()?;
    socket.set_keepalive(KEEPALIVE)?;
    Ok(socket)
}

fn log_end(peer: &str, key: &VolumeKey, end: &End) {
    match end {
        End::Violation(_) => tracing::warn!("{peer} used {key}: {end}"),
        End::Disconnected | End::Closed | End::Failed(_) => {
            tracing::info!("{peer} used {key}: {end}");
        }
    }
}
