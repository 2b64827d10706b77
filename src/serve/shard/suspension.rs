//! Sessions that stop between two requests, so that they can go on elsewhere, or here later.
//!
//! A session stops when what it has begun is answered and its answers are sent. It has until then
//! all the time it takes a disk; who asked may give up waiting. But a client that takes no answers,
//! or does not send the rest of a request, holds up all others: it is cut.
//!
//! Invariants:
//! - From the answer to [`Order::Suspend`](super::handle::Order) to the next resumption no file of
//!   an overlay is written to or opened here. What was open stays open: see
//!   [`Voucher`](crate::overlay::Voucher).
//! - A session is suspended as a whole or is cut: no byte that came for it is lost, none is sent
//!   twice.
//! - A session whose overlay could not be closed well does not go on: what it wrote and did not
//!   flush may be gone, and only the end of its connection tells its client so.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::rc::Weak;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handle::{Accepted, AllSuspended, Leaving, Suspended};
use super::{Shard, Target, VolumeKey};
use crate::export::VolumeError;
use crate::io::spawn;
use crate::limits::SUSPEND_PATIENCE;
use crate::serve::outbox::Outbox;
use crate::serve::succession::Elder;
use crate::serve::volumes::Parted;

/// How often a session that goes on is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What is suspended, and who is to be told.
#[derive(Debug, Default)]
pub(super) struct Suspension {
    /// For what; `None` where sessions are to go on.
    leaving: Cell<Option<Leaving>>,
    answer: RefCell<Option<AllSuspended>>,
    /// By their numbers, so in the order in which they began.
    sessions: RefCell<BTreeMap<u64, Suspended>>,
    /// Volumes that could not be closed well.
    lost: RefCell<HashSet<VolumeKey>>,
    /// Volumes that were not closed, as another process may go on with them as they are.
    parted: RefCell<HashMap<VolumeKey, Parted>>,
}

impl Suspension {
    /// Whether sessions are to stop.
    pub(super) const fn is_on(&self) -> bool {
        self.leaving.get().is_some()
    }

    /// What is to become of volumes.
    pub(super) fn leaving(&self) -> Leaving {
        self.leaving.get().unwrap_or(Leaving::Closed)
    }

    /// A session has stopped.
    pub(super) fn keep(&self, number: u64, session: Suspended) {
        self.sessions.borrow_mut().insert(number, session);
    }

    /// A session has stopped, and its descriptor was to be had or not.
    pub(super) fn keep_if_whole(
        &self,
        number: u64,
        target: Arc<Target>,
        accepted: io::Result<Accepted>,
    ) {
        match accepted {
            Ok(accepted) => self.keep(
                number,
                Suspended {
                    target,
                    accepted,
                    voucher: None,
                },
            ),
            Err(error) => tracing::error!("a session of {} is closed: {error}", target.key),
        }
    }

    /// A volume was parted with, or could not be closed well.
    pub(super) fn parted(&self, key: &VolumeKey, parted: Result<Option<Parted>, VolumeError>) {
        match parted {
            Ok(None) => {}
            Ok(Some(parted)) => {
                self.parted.borrow_mut().insert(key.clone(), parted);
            }
            Err(_) => {
                self.lost.borrow_mut().insert(key.clone());
            }
        }
    }

    /// The sessions that can go on.
    fn take(&self) -> Vec<Suspended> {
        let lost = self.lost.take();
        let parted = self.parted.borrow();
        let sessions = self.sessions.take().into_values().map(|mut session| {
            let parted = parted.get(&session.target.key);
            session.voucher = parted.map(|parted| parted.voucher);
            session
        });
        let is_whole = |session: &Suspended| {
            let is_lost = lost.contains(&session.target.key);
            if is_lost {
                let (peer, key) = (&session.accepted.standing.peer, &session.target.key);
                tracing::error!("{peer} used {key}, which could not be closed well: cut");
            }
            !is_lost
        };
        sessions.filter(is_whole).collect()
    }
}

impl Shard {
    /// Has all sessions stop, and no volume opened any more.
    pub(super) fn suspend(&self, answer: AllSuspended, leaving: Leaving) {
        self.suspension.leaving.set(Some(leaving));
        self.suspension.answer.replace(Some(answer));
        self.volumes.freeze(true);
        for entry in self.sessions.borrow().values() {
            entry.elder.progress.suspend(true);
            let (elder, outbox) = (entry.elder.clone(), Weak::clone(&entry.outbox));
            let name = format!("{} used {}", entry.peer, entry.key);
            drop(spawn(async move { stop(elder, outbox, &name).await }));
        }
    }

    /// Tells who waits for it that all have stopped, and nothing is open.
    pub(super) fn tell_if_suspended(&self) {
        if !self.suspension.is_on() || !self.is_idle() {
            return;
        }
        if let Some(answer) = self.suspension.answer.take() {
            let sessions = self.suspension.take();
            if let Err(sessions) = answer.send(sessions) {
                // Who asked has given up, and will have them back with the resumption.
                for (number, session) in (0..).zip(sessions) {
                    self.suspension.keep(number, session);
                }
            }
        }
    }

    /// Lets sessions go on that have not stopped, and gives those back that have.
    pub(super) fn resume(&self, answer: AllSuspended) {
        self.suspension.leaving.set(None);
        self.suspension.answer.take();
        self.volumes.freeze(false);
        for entry in self.sessions.borrow().values() {
            entry.elder.progress.suspend(false);
        }
        let sessions = self.suspension.take();
        self.suspension.parted.take();
        // Who asked is waiting.
        let _ = answer.send(sessions);
    }
}

/// Has a session stop as soon as all is answered, and cuts one whose client does not let it.
async fn stop(elder: Elder, outbox: Weak<Outbox>, name: &str) {
    let begun = Instant::now();
    while elder.progress.is_suspending() && !elder.has_ended() {
        let is_quiet = outbox.upgrade().is_some_and(|outbox| outbox.is_quiet());
        if is_quiet {
            // Nothing is being sent, and nothing that came is begun any more: all that can be
            // under way is the wait for the next request.
            elder.socket.end_receive().await;
        }
        let waits_for_peer = outbox
            .upgrade()
            .is_some_and(|outbox| outbox.is_sending() || elder.progress.is_half_received());
        if waits_for_peer && begun.elapsed() >= SUSPEND_PATIENCE && elder.cut() {
            tracing::warn!("{name}: it takes no answers, or sends no more of a request: cut");
        }
        let _ = tokio::time::timeout(LOOK, elder.progress.until_step()).await;
    }
}
