//! What happens to the machines, seen where it happens: see [`crate::status`].
//!
//! Invariants:
//! - The data path is not concerned: shards are asked what their sessions have done.
//! - Nothing waits for a disk here, and nobody holds the timelines across an await. What is known
//!   is saved beside: a crash loses the last seconds of it, and never what was saved before.

mod dhcp;
mod file;
mod log;
mod neighbour;
mod sessions;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::herd::Herd;
use super::host;
use super::state_dir::StateDir;
use crate::dhcp::Moment;
use crate::status::report::{Client, State};
use crate::status::timelines::{Key, Saved};
use crate::status::{At, Event, FileStep, Sign, Timelines};
use sessions::Sessions;

/// How often shards are asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often what has changed is saved, at most.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// All that is known of the machines.
#[derive(Debug)]
pub(super) struct Watch {
    timelines: Mutex<Timelines>,
    sessions: Mutex<Sessions>,
    /// How the machines were doing when the log was told last.
    logged: Mutex<HashMap<Key, State>>,
    clock: Clock,
    /// Something is not saved yet.
    unsaved: AtomicBool,
    /// Where it is saved; `None` where nothing is kept.
    path: Option<PathBuf>,
}

/// Makes moments of this host into moments since 1970 that never go back.
#[derive(Clone, Copy, Debug)]
struct Clock {
    start: Moment,
    at: u64,
}

impl Clock {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_millis());
        Self {
            start: host::moment(),
            at: u64::try_from(now).unwrap_or(u64::MAX),
        }
    }

    const fn at(self, moment: Moment) -> At {
        let (Moment(start), Moment(moment)) = (self.start, moment);
        At(self.at.saturating_add(moment).saturating_sub(start))
    }

    fn now(self) -> At {
        self.at(host::moment())
    }
}

impl Watch {
    /// With what was saved in the state directory, where there is one.
    pub(super) fn new(state: Option<&StateDir>) -> Arc<Self> {
        let path = state.map(|state| state.path().join(file::NAME));
        let saved = path.as_deref().map(file::read).unwrap_or_default();
        Arc::new(Self {
            timelines: Mutex::new(Timelines::restored(saved)),
            sessions: Mutex::default(),
            logged: Mutex::default(),
            clock: Clock::new(),
            unsaved: AtomicBool::new(false),
            path,
        })
    }

    fn timelines(&self) -> MutexGuard<'_, Timelines> {
        self.timelines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was seen of a machine just now.
    pub(super) fn note(&self, sign: &Sign, event: &Event) {
        self.timelines().handle(self.clock.now(), sign, event);
        self.unsaved.store(true, Ordering::Relaxed);
    }

    /// Something was seen of the machine at `address`.
    pub(super) fn note_at(&self, address: IpAddr, event: &Event) {
        self.note(&self.sign_of(address), event);
    }

    /// A file is on its way to the machine at `client`, by whatever transport.
    pub(super) fn file(&self, client: Ipv4Addr, path: &str, step: FileStep) {
        let path = path.to_owned();
        self.note_at(IpAddr::V4(client), &Event::File { path, step });
    }

    /// Where another server gives addresses, the neighbours of this host tell whose one is.
    fn sign_of(&self, address: IpAddr) -> Sign {
        let mut sign = Sign::of_address(address);
        if !self.timelines().knows(address) {
            sign.mac = neighbour::mac_of(address);
        }
        sign
    }

    /// All machines, with their newest boots.
    pub(super) fn clients(&self) -> Vec<Client> {
        self.timelines().clients(self.clock.now())
    }

    /// One machine, by its name, MAC address or address.
    pub(super) fn client(&self, who: &str) -> Option<Client> {
        self.timelines().client(self.clock.now(), who)
    }

    /// The same, with how long answers took.
    pub(super) async fn client_with_latencies(&self, herd: &Herd, who: &str) -> Option<Client> {
        let mut client = self.client(who)?;
        let totals = herd.totals().await;
        let export = client.export.as_deref().unwrap_or_default();
        let mut own = totals.iter();
        if let Some((_, own)) = own.find(|(key, _)| key.to_string() == export) {
            client.latencies = own.latencies.by_name();
        }
        Some(client)
    }

    /// Forgets the boots of a machine, and the machine where it is off; whether there was one.
    pub(super) fn forget(&self, who: &str) -> bool {
        self.unsaved.store(true, Ordering::Relaxed);
        self.timelines().forget(who)
    }

    /// The moment that reports are of.
    pub(super) fn now(&self) -> At {
        self.clock.now()
    }

    /// Asks the shards what their sessions have done.
    pub(super) async fn look(&self, herd: &Herd) {
        let measured = herd.measure().await;
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let has_changed = sessions.take(
            measured,
            &mut self.timelines(),
            self.clock,
            &herd.offer().signs,
        );
        if has_changed {
            self.unsaved.store(true, Ordering::Relaxed);
        }
    }

    /// Looks after the machines until it is dropped.
    pub(super) async fn run(self: Arc<Self>, herd: Arc<Herd>) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = 0_u64;
        // Who was well when the last server ended, that one has told.
        let known = self.changes();
        let known = known.iter().filter(|client| client.state.wants_help());
        known.for_each(log::tell);
        let mut saving: Option<JoinHandle<()>> = None;
        loop {
            tick.tick().await;
            self.look(&herd).await;
            self.changes().iter().for_each(log::tell);
            ticks += 1;
            // Its disk may be the one that does not answer: that has to be seen.
            let is_free = saving.as_ref().is_none_or(JoinHandle::is_finished);
            if is_free && ticks.is_multiple_of(SAVE_EVERY.as_secs()) {
                let watch = Arc::clone(&self);
                saving = Some(tokio::task::spawn_blocking(move || watch.save()));
            }
        }
    }

    fn changes(&self) -> Vec<Client> {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        self.timelines().changes(self.clock.now(), &mut logged)
    }

    /// All there is to be kept.
    pub(super) fn saved(&self) -> Saved {
        self.timelines().saved()
    }

    /// From now on this is what is known.
    pub(super) fn replace(&self, saved: Saved) {
        *self.timelines() = Timelines::restored(saved);
        self.unsaved.store(true, Ordering::Relaxed);
    }

    /// Saves what is known, where it has changed. This waits for a disk.
    pub(super) fn save(&self) {
        let Some(path) = &self.path else {
            return;
        };
        if !self.unsaved.swap(false, Ordering::Relaxed) {
            return;
        }
        let saved = self.saved();
        if let Err(error) = file::write(path, &saved) {
            self.unsaved.store(true, Ordering::Relaxed);
            tracing::warn!(
                "boots can't be saved to {}: {error}; they are forgotten when the server ends",
                path.display()
            );
        }
    }
}
