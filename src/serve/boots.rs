//! Machines that are being switched on: what their ephemeral overlays held is of the boot before.
//!
//! The rule. When the firmware of a machine asks for an address, its ephemeral overlays go. If
//! connections are open to one, the machine behind them is asked first (`absence`): where it is
//! there, somebody else has asked, and nothing changes. Where it is gone the connections are cut:
//! they are of the boot before. Until that is settled, nobody opens an ephemeral overlay of that
//! machine nor reads its disk, so kernel and root of a boot are of one state.
//!
//! Firmware asks several times in one boot. That is harmless: what is dropped a second time is not
//! there, as long as no system has run; and when it runs, it answers.
//!
//! Invariants:
//! - No overlay goes while a machine that runs has it open.
//! - What of a machine is settled is settled once at a time; how many wait is bounded.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::catalog::VolumeKey;
use super::herd::Herd;
use super::prefetch::{self, Machine};
use super::shard::Held;
use super::state_dir::StateDir;
use crate::access::{Peer, name_of};
use crate::dhcp::server::Beginning;
use crate::disk::RealDisk;
use crate::limits::BOOTS_UNSETTLED_MAX;
use crate::name::Name;
use crate::overlay::inspect;
use crate::overlay::{OverlayMode, remove};

/// Warnings come no faster.
const WARN_EVERY: Duration = Duration::from_secs(5);

/// The machines that have just been switched on.
#[derive(Debug, Default)]
pub(super) struct Boots {
    unsettled: Mutex<BTreeMap<Name, Unsettled>>,
    changed: Notify,
    warned: Mutex<Option<Instant>>,
}

/// What waits to be seen to.
#[derive(Debug)]
struct Unsettled {
    stage: Stage,
    /// The machine; `None` where this is but another name of it.
    machine: Option<Machine>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    UnderWay,
}

impl Boots {
    /// A machine is being switched on.
    pub(super) fn begin(&self, boot: &Beginning) {
        let address = boot.address.map(of_address);
        let mut names = boot.client.clone().into_iter().chain(address);
        if let Some(name) = names.next() {
            let address = boot.address;
            self.wait_for(name.clone(), Some(Machine { name, address }));
        }
        names.for_each(|name| self.add(name));
    }

    /// The machines that are not seen to yet.
    pub(super) fn names(&self) -> Vec<String> {
        self.unsettled().keys().map(Name::to_string).collect()
    }

    /// A machine has been switched on that another server knows of.
    pub(super) fn add(&self, name: Name) {
        self.wait_for(name, None);
    }

    fn wait_for(&self, name: Name, machine: Option<Machine>) {
        let mut unsettled = self.unsettled();
        if unsettled.len() >= BOOTS_UNSETTLED_MAX && !unsettled.contains_key(&name) {
            drop(unsettled);
            let what = "too many machines begin to boot";
            return self.warn(&format!("{what}: {name} may find what it changed before"));
        }
        let stage = Stage::Waiting;
        unsettled
            .entry(name)
            .or_insert(Unsettled { stage, machine });
        drop(unsettled);
        self.changed.notify_waiters();
    }

    /// Waits until what a machine changed in an earlier boot is gone, if it boots.
    pub(super) async fn settled(&self, name: &Name) {
        self.until(|unsettled| (!unsettled.contains_key(name)).then_some(()))
            .await;
    }

    /// The next machine to be seen to.
    async fn next(&self) -> (Name, Option<Machine>) {
        self.until(|unsettled| {
            let mut all = unsettled.iter_mut();
            let (name, next) = all.find(|(_, one)| one.stage == Stage::Waiting)?;
            next.stage = Stage::UnderWay;
            Some((name.clone(), next.machine.take()))
        })
        .await
    }

    /// Warns of what strangers can bring about any number of times: not of all of it.
    fn warn(&self, what: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_some_and(|last| last.elapsed() < WARN_EVERY) {
            return tracing::debug!("{what}");
        }
        *warned = Some(Instant::now());
        tracing::warn!("{what}");
    }

    fn settle(&self, name: &Name) {
        self.unsettled().remove(name);
        self.changed.notify_waiters();
    }

    async fn until<T>(
        &self,
        mut look: impl FnMut(&mut BTreeMap<Name, Unsettled>) -> Option<T>,
    ) -> T {
        loop {
            let changed = self.changed.notified();
            let found = look(&mut self.unsettled());
            if let Some(found) = found {
                return found;
            }
            changed.await;
        }
    }

    fn unsettled(&self) -> MutexGuard<'_, BTreeMap<Name, Unsettled>> {
        self.unsettled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a machine is called that the config does not name.
fn of_address(address: Ipv4Addr) -> Name {
    name_of(&Peer::Ip(IpAddr::V4(address)))
}

/// Sees to all machines that begin to boot, for as long as it is not dropped.
pub(super) async fn see_to(herd: Arc<Herd>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            (name, machine) = herd.boots().next() => {
                let settling = Settling { herd: Arc::clone(&herd), name };
                let herd = Arc::clone(&herd);
                tasks.spawn(async move {
                    settling.run().await;
                    if let Some(machine) = machine {
                        prefetch::for_machine(&herd, machine).await;
                    }
                });
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// A machine that is being seen to; settled when this is dropped, however that came.
struct Settling {
    herd: Arc<Herd>,
    name: Name,
}

impl Drop for Settling {
    fn drop(&mut self) {
        self.herd.boots().settle(&self.name);
    }
}

impl Settling {
    async fn run(self) {
        let Some(state) = self.herd.state().cloned() else {
            return;
        };
        let name = self.name.clone();
        let found = tokio::task::spawn_blocking(move || ephemeral_of(&state, &name)).await;
        match found.map_err(|error| error.to_string()) {
            Ok(Ok(keys)) => {
                for key in keys {
                    self.herd.drop_overlay(key).await;
                }
            }
            Ok(Err(error)) | Err(error) => {
                tracing::error!("{} boots with what it changed before: {error}", self.name);
            }
        }
    }
}

/// The ephemeral overlays of a machine.
fn ephemeral_of(state: &StateDir, client: &Name) -> Result<Vec<VolumeKey>, String> {
    let keys = state.overlays_of_client(client);
    let mut keys = keys.map_err(|error| error.to_string())?;
    keys.retain(|key| {
        let header = inspect::header(&RealDisk, &state.overlay_dir(key));
        matches!(header, Ok(Some(header)) if header.mode == OverlayMode::Ephemeral)
    });
    Ok(keys)
}

impl Herd {
    /// Drops an overlay of a machine that is being switched on.
    async fn drop_overlay(&self, key: VolumeKey) {
        let (Some(state), Some(held)) = (self.state(), self.vacate(&key).await) else {
            return;
        };
        let alone = match held {
            alone @ Held::Alone(_) => alone,
            Held::Live(live) => {
                let users = live.users.join(", ");
                let who = format!("{key}: a machine of this name begins to boot");
                let boots = self.boots();
                return boots.warn(&format!(
                    "{who}, but {users} uses it and is there: it stays"
                ));
            }
        };
        let dir = state.overlay_dir(&key);
        let removed = tokio::task::spawn_blocking(move || {
            let removed = remove(&RealDisk, &dir);
            drop(alone);
            removed
        });
        match removed.await {
            Ok(Ok(())) => tracing::info!("{key}: its machine boots, so the overlay is dropped"),
            Ok(Err(error)) => tracing::error!("{key} can't be dropped for a boot: {error}"),
            Err(error) => tracing::error!("{key} can't be dropped for a boot: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::poll_once::now;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn boot(client: &str) -> Beginning {
        Beginning {
            client: Some(name(client)),
            address: None,
        }
    }

    #[test]
    fn a_machine_that_boots_waits_until_that_is_settled_and_others_do_not() {
        let boots = Boots::default();
        boots.begin(&boot("a"));
        assert!(now(boots.settled(&name("a"))).is_none());
        assert!(now(boots.settled(&name("b"))).is_some());
        boots.settle(&name("a"));
        assert!(now(boots.settled(&name("a"))).is_some());
    }

    #[test]
    fn a_machine_that_asks_again_while_it_is_seen_to_is_seen_to_once() {
        let boots = Boots::default();
        boots.begin(&boot("a"));
        assert!(now(boots.next()).is_some_and(|(next, _)| next == name("a")));
        boots.begin(&boot("a"));
        assert_eq!(now(boots.next()), None);
        boots.settle(&name("a"));
        boots.begin(&boot("a"));
        assert!(now(boots.next()).is_some_and(|(next, _)| next == name("a")));
    }

    #[test]
    fn a_machine_is_known_by_its_name_and_by_the_address_that_it_gets() {
        let boots = Boots::default();
        let address = Some(Ipv4Addr::new(10, 77, 0, 12));
        boots.begin(&Beginning {
            address,
            ..boot("a")
        });
        for name in [name("a"), name("10-77-0-12")] {
            assert!(now(boots.settled(&name)).is_none());
        }
    }

    #[test]
    fn a_machine_of_two_names_is_one_machine() {
        let boots = Boots::default();
        let address = Some(Ipv4Addr::new(10, 77, 0, 12));
        boots.begin(&Beginning {
            address,
            ..boot("a")
        });
        let next = [now(boots.next()), now(boots.next())];
        let machines: Vec<_> = next.into_iter().flatten().filter_map(|one| one.1).collect();
        let name = name("a");
        assert_eq!(machines, [Machine { name, address }]);
    }

    #[test]
    fn no_storm_makes_more_wait_than_are_allowed() {
        let boots = Boots::default();
        for number in 0..=BOOTS_UNSETTLED_MAX {
            boots.begin(&boot(&format!("m{number}")));
        }
        assert_eq!(boots.unsettled().len(), BOOTS_UNSETTLED_MAX);
    }
}
