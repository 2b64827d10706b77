//! What the sessions of a shard have done, told to whoever asks.
//!
//! Invariants:
//! - Who asks waits, the shard does not: it answers between two requests.
//! - What is kept of sessions that have ended is bounded.

use std::net::IpAddr;

use tokio::sync::oneshot;

use super::{End, Entry, Order, Shard, ShardHandle, VolumeKey};
use crate::io;
use crate::limits::{STATUS_ENDED_MAX, STATUS_LATENCIES_MAX};
use crate::overlay::map::BlockCounts;
use crate::serve::meter::Reading;
use crate::status::traffic::Totals;

/// A session, and what it has done.
#[derive(Clone, Debug)]
pub(in crate::serve) struct Measured {
    /// Which of its shard.
    pub(in crate::serve) id: u64,
    pub(in crate::serve) key: VolumeKey,
    pub(in crate::serve) address: Option<IpAddr>,
    pub(in crate::serve) is_read_only: bool,
    pub(in crate::serve) reading: Reading,
    pub(in crate::serve) own_blocks: Option<BlockCounts>,
    /// It had stopped, and went on.
    pub(in crate::serve) goes_on: bool,
    /// How it has ended, if it has.
    pub(in crate::serve) ended: Option<Ended>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::serve) enum Ended {
    /// The client said so.
    Clean,
    /// Without a word.
    Broken,
    /// It has stopped, to go on later.
    Suspended,
}

/// What was asked, by whose disk it was asked of.
pub(in crate::serve) type AllTotals = Vec<(VolumeKey, Totals)>;

impl ShardHandle {
    /// All sessions, and those that have ended since this was asked last. `None` where the shard
    /// is gone.
    pub(in crate::serve) async fn measure(&self) -> Option<Vec<Measured>> {
        let (answer, measured) = oneshot::channel();
        self.orders.send(Order::Measure(answer)).ok()?;
        measured.await.ok()
    }

    /// What was asked of each disk, and how long answers took. `None` where the shard is gone.
    pub(in crate::serve) async fn totals(&self) -> Option<AllTotals> {
        let (answer, totals) = oneshot::channel();
        self.orders.send(Order::Totals(answer)).ok()?;
        totals.await.ok()
    }

    /// Which of the shards.
    pub(in crate::serve) const fn index(&self) -> usize {
        self.index
    }
}

impl Shard {
    pub(super) fn measure(&self) -> Vec<Measured> {
        let mut all = self.ended.take();
        let sessions = self.sessions.borrow();
        all.extend(sessions.iter().map(|(id, entry)| self.measured(*id, entry)));
        all
    }

    fn measured(&self, id: u64, entry: &Entry) -> Measured {
        let volume = self.volumes.get(&entry.key);
        Measured {
            id,
            key: entry.key.clone(),
            address: entry.address,
            is_read_only: entry.is_read_only,
            goes_on: entry.goes_on,
            reading: entry.meter.read(),
            own_blocks: volume.and_then(|volume| volume.0.own_blocks()),
            ended: None,
        }
    }

    /// A session has ended: what it did is still told of once, and in sums for longer.
    pub(super) fn retire(&self, id: u64, end: &End) {
        let Some(entry) = self.sessions.borrow_mut().remove(&id) else {
            return;
        };
        let ended = match end {
            End::Disconnected => Ended::Clean,
            End::Suspended => Ended::Suspended,
            _ => Ended::Broken,
        };
        let measured = Measured {
            ended: Some(ended),
            ..self.measured(id, &entry)
        };
        let mut ended = self.ended.borrow_mut();
        if ended.len() < STATUS_ENDED_MAX {
            ended.push(measured);
        }
        let mut past = self.past.borrow_mut();
        let mut key = entry.key;
        if past.len() >= STATUS_LATENCIES_MAX && !past.contains_key(&key) {
            // Of so many clients, all that is left is which image they used.
            key.client = None;
        }
        if past.len() < 2 * STATUS_LATENCIES_MAX || past.contains_key(&key) {
            entry.meter.add_to(past.entry(key).or_default());
        }
    }

    /// The neighbours have their turn between one session and the next.
    pub(super) async fn totals(&self) -> AllTotals {
        let mut all = self.past.borrow().clone();
        let live: Vec<_> = {
            let sessions = self.sessions.borrow();
            let live = sessions.values();
            live.map(|entry| (entry.key.clone(), std::rc::Rc::clone(&entry.meter)))
                .collect()
        };
        for (key, meter) in live {
            meter.add_to(all.entry(key).or_default());
            io::yield_now().await;
        }
        all.into_iter().collect()
    }
}
