//! A shard as the control plane sees it, and what goes between the two.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::measure::{AllTotals, Measured};
use crate::disk::RealDisk;
use crate::nbd::ExportInfo;
use crate::nbd::agreed::Agreed;
use crate::overlay::inspect::View;
use crate::overlay::{OpenError, Voucher};
use crate::serve::catalog::{Target, VolumeKey};
use crate::serve::placement::Placement;
use crate::serve::prefetch::Machine;
use crate::serve::seats::Seat;
use crate::tls::Channel;

/// A connection whose handshake has ended.
#[derive(Debug)]
pub(in crate::serve) struct Accepted {
    pub(in crate::serve) socket: OwnedFd,
    pub(in crate::serve) standing: Standing,
}

/// How far a connection is.
#[derive(Debug)]
pub(in crate::serve) struct Standing {
    /// Where it is encrypted: the channel, and what came for it and was not decrypted yet.
    pub(in crate::serve) channel: Option<(Channel, Vec<u8>)>,
    /// Given back when the session has ended.
    #[expect(dead_code, reason = "what counts is that it lives")]
    pub(in crate::serve) seat: Seat,
    /// What came behind the handshake.
    pub(in crate::serve) leftover: Vec<u8>,
    pub(in crate::serve) info: ExportInfo,
    pub(in crate::serve) agreed: Agreed,
    /// For the log.
    pub(in crate::serve) peer: String,
    /// Where it is; `None` where it came by a socket of this host.
    pub(in crate::serve) address: Option<IpAddr>,
    /// Whether it comes after the connections to its overlay that are there before it. One that
    /// goes on was beside them already.
    pub(in crate::serve) is_successor: bool,
    /// It had stopped, here or in another process, and goes on.
    pub(in crate::serve) goes_on: bool,
}

/// A session that has stopped between two requests, all of which are answered. It can go on in any
/// process that has its overlay.
#[derive(Debug)]
pub(in crate::serve) struct Suspended {
    pub(in crate::serve) target: Arc<Target>,
    pub(in crate::serve) accepted: Accepted,
    /// What can be said of its overlay, where that was not closed.
    pub(in crate::serve) voucher: Option<Voucher>,
}

impl Suspended {
    /// Whose session of what it is, for the log.
    pub(in crate::serve) fn names(&self) -> (&str, &VolumeKey) {
        (&self.accepted.standing.peer, &self.target.key)
    }

    /// Whether another process can go on with it: what is agreed on with TLS can't be told.
    pub(in crate::serve) const fn can_move(&self) -> bool {
        self.accepted.standing.channel.is_none()
    }
}

/// What becomes of overlays whose sessions are suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::serve) enum Leaving {
    /// Another process goes on with them while this one is there: see [`Voucher`].
    Open,
    /// All is made durable, and they are closed.
    Closed,
}

/// Sessions that were suspended, in the order in which they began.
pub(super) type AllSuspended = oneshot::Sender<Vec<Suspended>>;

#[derive(Debug)]
pub(super) enum Order {
    Open {
        target: Arc<Target>,
        voucher: Option<Voucher>,
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
    Vacate {
        lease: Lease,
        answer: oneshot::Sender<Held>,
    },
    Has {
        machine: Machine,
        answer: oneshot::Sender<bool>,
    },
    Measure(oneshot::Sender<Vec<Measured>>),
    Totals(oneshot::Sender<AllTotals>),
    Release(VolumeKey),
    Forget(VolumeKey),
    Flush(oneshot::Sender<()>),
    Tell(oneshot::Sender<Vec<Arc<Target>>>),
    Suspend(AllSuspended, Leaving),
    Resume(AllSuspended),
    Drain,
    Conclude,
    Cut,
}

/// A shard as the control plane sees it.
#[derive(Clone, Debug)]
pub(in crate::serve) struct ShardHandle {
    pub(super) index: usize,
    pub(super) orders: UnboundedSender<Order>,
    pub(super) placement: Arc<Placement>,
}

/// The right to use a volume; dropping it gives the volume up.
#[derive(Debug)]
pub(in crate::serve) struct Lease {
    pub(super) key: VolumeKey,
    shard: ShardHandle,
    pub(super) state: LeaseState,
    /// What tells its overlay from all others, once that is open.
    pub(in crate::serve) overlay: Option<[u8; 16]>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum LeaseState {
    /// The volume is not open yet.
    Fresh,
    /// The volume is open, or held back, for this lease too.
    Open,
    /// Others have it open.
    Looked,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Self {
            key, shard, state, ..
        } = self;
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
pub(in crate::serve) enum Held {
    /// No client has it open, and none gets it until the lease is dropped.
    Alone(#[expect(dead_code, reason = "what counts is that it lives")] Lease),
    /// Clients have it open.
    Live(Box<Live>),
}

/// A look at an overlay that is open.
#[derive(Debug)]
pub(in crate::serve) struct Live {
    pub(in crate::serve) view: View<RealDisk>,
    /// The peers whose sessions use it.
    pub(in crate::serve) users: Vec<String>,
}

impl ShardHandle {
    /// Opens the volume of `target`, which must have been placed here by [`Placement::join`].
    /// `None` where the shard is gone.
    pub(in crate::serve) async fn open(
        &self,
        target: Arc<Target>,
        voucher: Option<Voucher>,
    ) -> Option<Result<Lease, OpenError>> {
        let lease = self.fresh_lease(target.key.clone());
        let (answer, opened) = oneshot::channel();
        self.orders
            .send(Order::Open {
                target,
                voucher,
                lease,
                answer,
            })
            .ok()?;
        opened.await.ok()
    }

    /// Holds an overlay back from clients, or looks at it where one has it open; it must have been
    /// placed here by [`Placement::join`]. `None` where the shard is gone.
    pub(in crate::serve) async fn hold(&self, key: VolumeKey) -> Option<Held> {
        let lease = self.fresh_lease(key);
        let (answer, held) = oneshot::channel();
        self.orders.send(Order::Hold { lease, answer }).ok()?;
        held.await.ok()
    }

    /// As [`Self::hold`], but sessions whose machine does not know of them any more are cut first:
    /// it has been switched on anew.
    pub(in crate::serve) async fn vacate(&self, key: VolumeKey) -> Option<Held> {
        let lease = self.fresh_lease(key);
        let (answer, held) = oneshot::channel();
        self.orders.send(Order::Vacate { lease, answer }).ok()?;
        held.await.ok()
    }

    /// Whether a machine has a session here, and is there at its other end.
    pub(in crate::serve) async fn has(&self, machine: Machine) -> bool {
        let (answer, told) = oneshot::channel();
        // A shard that is gone has none.
        let _ = self.orders.send(Order::Has { machine, answer });
        told.await.unwrap_or(false)
    }

    fn fresh_lease(&self, key: VolumeKey) -> Lease {
        Lease {
            key,
            shard: self.clone(),
            state: LeaseState::Fresh,
            overlay: None,
        }
    }

    /// Hands a connection over for the transmission phase.
    pub(in crate::serve) fn serve(&self, lease: Lease, accepted: Accepted) {
        // A shard that is gone has ended its sessions; this one ends with it.
        let _ = self.orders.send(Order::Serve { accepted, lease });
    }

    /// Flushes all overlays, for there to be less to do when they are closed.
    pub(in crate::serve) async fn flush(&self) {
        let (answer, flushed) = oneshot::channel();
        // A shard that is gone has none.
        let _ = self.orders.send(Order::Flush(answer));
        let _ = flushed.await;
    }

    /// What volumes are open.
    pub(in crate::serve) async fn open_now(&self) -> Vec<Arc<Target>> {
        let (answer, told) = oneshot::channel();
        // A shard that is gone has none.
        let _ = self.orders.send(Order::Tell(answer));
        told.await.unwrap_or_default()
    }

    /// Stops all sessions between two requests, and parts with all volumes: once this has an answer
    /// the shard writes to no file of an overlay before [`Self::resume`]. `None` where the shard is
    /// gone. To give up waiting is no harm.
    pub(in crate::serve) async fn suspend(&self, leaving: Leaving) -> Option<Vec<Suspended>> {
        let (answer, suspended) = oneshot::channel();
        self.orders.send(Order::Suspend(answer, leaving)).ok()?;
        suspended.await.ok()
    }

    /// Opens volumes again for who asks. The sessions that are suspended and were not taken come
    /// back; the others go on by themselves.
    pub(in crate::serve) async fn resume(&self) -> Vec<Suspended> {
        let (answer, suspended) = oneshot::channel();
        // A shard that is gone has none.
        let _ = self.orders.send(Order::Resume(answer));
        suspended.await.unwrap_or_default()
    }

    /// Ends all sessions as if their clients had left, and then the shard.
    pub(in crate::serve) fn drain(&self) {
        // One that is gone has drained.
        let _ = self.orders.send(Order::Drain);
    }

    /// Has sessions that drain begin nothing more, of what their clients asked for, either.
    pub(in crate::serve) fn conclude(&self) {
        // One that is gone has ended.
        let _ = self.orders.send(Order::Conclude);
    }

    /// Cuts the connections of all sessions that are still there.
    pub(in crate::serve) fn cut(&self) {
        // One that is gone has none.
        let _ = self.orders.send(Order::Cut);
    }
}
