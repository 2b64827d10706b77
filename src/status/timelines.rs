//! The boots of all machines.
//!
//! Invariants:
//! - There are at most so many machines with so many boots each. Whoever makes up machines pushes
//!   out those that never loaded anything before any other.
//! - A machine has one entry, by its network card where that is known.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::At;
use super::boot::Boot;
use super::event::{Event, Sign, Speaker};
use super::stage::Stage;
use super::traffic::Counts;
use super::usual::Usual;
use crate::limits::{STATUS_BOOTS_MAX, STATUS_CLIENTS_MAX};
use crate::mac::MacAddress;
use machine::Machine;

mod describe;
mod load;
mod machine;
#[cfg(test)]
mod tests;

/// What tells one machine from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// Its network card.
    Mac(MacAddress),
    /// Its address, where no more is known.
    Address(IpAddr),
    /// Its name, where there is no address.
    Name(String),
}

/// What one connection has done since the last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// That.
    pub more: Counts,
    /// Requests that are being worked on.
    pub underway: u32,
    /// Bytes that the overlay holds; `None` where there is none.
    pub own_bytes: Option<u64>,
    /// For so long requests have waited for a disk, and none was answered by one.
    pub waits: Option<Duration>,
}

/// All machines, as they are kept across restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Of this form; one that is not known is not read.
    version: u32,
    machines: Vec<Machine>,
}

/// Machines in one part: what is known of one takes some KiB.
const PART: usize = 16;

impl Saved {
    /// The same in parts.
    #[must_use]
    pub fn in_parts(self) -> Vec<Self> {
        let part = |machines: &[Machine]| Self {
            version: self.version,
            machines: machines.to_vec(),
        };
        self.machines.chunks(PART).map(part).collect()
    }

    /// One more part.
    pub fn extend(&mut self, part: Self) {
        self.version = part.version;
        let room = STATUS_CLIENTS_MAX.saturating_sub(self.machines.len());
        self.machines.extend(part.machines.into_iter().take(room));
    }
}

/// The version of [`Saved`].
const VERSION: u32 = 1;

/// The boots of all machines.
#[derive(Debug, Default)]
pub struct Timelines {
    machines: HashMap<Key, Machine>,
    at: HashMap<IpAddr, Key>,
    usual: Usual,
}

impl Timelines {
    /// Those that were saved. Nobody is connected yet.
    #[must_use]
    pub fn restored(saved: Saved) -> Self {
        let mut all = Self::default();
        if saved.version != VERSION {
            return all;
        }
        let machines = saved.machines.into_iter().take(STATUS_CLIENTS_MAX);
        for mut machine in machines {
            let Some(key) = key_of(&machine) else {
                continue;
            };
            let surplus = machine.boots.len().saturating_sub(STATUS_BOOTS_MAX);
            machine.boots.drain(..surplus);
            for boot in &machine.boots {
                let stages = Stage::ALL.into_iter();
                let took = stages.filter_map(|stage| Some((stage, boot.took(stage)?)));
                took.for_each(|(stage, took)| all.usual.learn(stage, took));
            }
            if let Some(address) = machine.address {
                all.at.insert(address, key.clone());
            }
            all.machines.insert(key, machine);
        }
        all
    }

    /// All there is to be kept.
    #[must_use]
    pub fn saved(&self) -> Saved {
        Saved {
            version: VERSION,
            machines: self.machines.values().cloned().collect(),
        }
    }

    /// Something was seen of a machine, whose entry this gives.
    pub fn handle(&mut self, now: At, sign: &Sign, event: &Event) -> Key {
        if is_stranger_s(event)
            && sign.name.is_none()
            && !self.machines.contains_key(&self.key(sign))
        {
            return self.key(sign);
        }
        let key = self.find(now, sign);
        let Some(machine) = self.machines.get_mut(&key) else {
            return key;
        };
        machine.seen = now;
        if sign.name.is_some() {
            machine.name.clone_from(&sign.name);
        }
        let before = machine.newest().and_then(Boot::reached).map(|of| of.stage);
        machine.handle(now, event);
        let boot = machine.newest();
        let after = boot.and_then(Boot::reached).map(|passage| passage.stage);
        // What took how long is only known when the next stage is there: until then it may still
        // get another part.
        if let (Some(boot), Some(before), true) = (boot, before, after > before)
            && let Some(took) = boot.took(before)
        {
            self.usual.learn(before, took);
        }
        if let (Some(boot), Some(goal @ (Stage::FirstRead | Stage::Mounted)), true) =
            (boot, after, after > before)
            && boot.goal() == goal
            && let Some(took) = boot.took(goal)
        {
            self.usual.learn(goal, took);
        }
        key
    }

    /// A connection of a machine was looked at.
    pub fn count(&mut self, key: &Key, load: &Load) {
        if let Some(machine) = self.machines.get_mut(key) {
            machine.load.add(load);
        }
    }

    /// All connections were looked at; `since` the last time so long has passed.
    pub fn settle(&mut self, since: Duration) {
        for machine in self.machines.values_mut() {
            machine.load.settle(since);
        }
    }

    /// Whether it is known whose address this is.
    #[must_use]
    pub fn knows(&self, address: IpAddr) -> bool {
        self.at.contains_key(&address)
    }

    /// Forgets the boots of the machine with this name, address or MAC address, and the machine
    /// where it is not connected; whether there was one.
    pub fn forget(&mut self, who: &str) -> bool {
        let Some(key) = self.key_named(who).cloned() else {
            return false;
        };
        if let Some(machine) = self.machines.get_mut(&key)
            && machine.connections > 0
        {
            // It is running, and is not lost sight of: only its earlier boots go.
            let earlier = machine.boots.len().saturating_sub(1);
            machine.boots.drain(..earlier);
            return true;
        }
        self.at.retain(|_, of| *of != key);
        self.machines.remove(&key).is_some()
    }

    /// The machine that `sign` is of, which may be a new one.
    fn find(&mut self, now: At, sign: &Sign) -> Key {
        let key = self.key(sign);
        if let Some(address) = sign.address {
            // Of two that had it in turn, it is the one that was seen last.
            if self.at.get(&address) != Some(&key) {
                self.at.insert(address, key.clone());
            }
        }
        if !self.machines.contains_key(&key) {
            self.make_room();
            let new = Machine {
                seen: now,
                ..Machine::default()
            };
            self.machines.insert(key.clone(), new);
        }
        if let Some(machine) = self.machines.get_mut(&key) {
            machine.mac = sign.mac.or(machine.mac);
            if let Some(address) = sign.address
                && machine.address != Some(address)
            {
                let old = machine.address.replace(address);
                self.drop_address(old, &key);
            }
        }
        key
    }

    fn drop_address(&mut self, old: Option<IpAddr>, of: &Key) {
        if let Some(old) = old
            && self.at.get(&old) == Some(of)
        {
            self.at.remove(&old);
        }
    }

    fn key(&self, sign: &Sign) -> Key {
        if let Some(mac) = sign.mac {
            return Key::Mac(mac);
        }
        // All that a host runs itself has one address, and different names.
        let address = sign.address.filter(|address| !address.is_loopback());
        let by_address = address.and_then(|address| self.at.get(&address));
        if let Some(key) = by_address {
            return key.clone();
        }
        let by_name = sign.name.as_deref().and_then(|name| self.key_called(name));
        match (by_name, address, &sign.name) {
            (Some(key), ..) => key.clone(),
            (None, Some(address), _) => Key::Address(address),
            (None, None, Some(name)) => Key::Name(name.clone()),
            (None, None, None) => sign
                .address
                .map_or_else(|| Key::Name("local".to_owned()), Key::Address),
        }
    }

    fn key_called(&self, name: &str) -> Option<&Key> {
        let mut all = self.machines.iter();
        let found = all.find(|(_, machine)| machine.name.as_deref() == Some(name));
        found.map(|(key, _)| key)
    }

    fn key_named(&self, who: &str) -> Option<&Key> {
        let by_mac = || {
            let key = Key::Mac(who.replace('-', ":").parse().ok()?);
            self.machines.get_key_value(&key).map(|(key, _)| key)
        };
        let by_address = || self.at.get(&who.parse::<IpAddr>().ok()?);
        let found = self.key_called(who).or_else(by_mac).or_else(by_address);
        found.filter(|key| self.machines.contains_key(key))
    }

    /// Forgets one where there are too many: before all one that has never loaded anything.
    fn make_room(&mut self) {
        if self.machines.len() < STATUS_CLIENTS_MAX {
            return;
        }
        let idle = self.machines.iter();
        let idle = idle.filter(|(_, machine)| machine.connections == 0);
        let least = idle.min_by_key(|(_, machine)| (machine.has_loaded(), machine.seen));
        // Where all are connected, one of those.
        let least = least.or_else(|| self.machines.iter().min_by_key(|(_, one)| one.seen));
        if let Some(key) = least.map(|(key, _)| key.clone()) {
            self.at.retain(|_, of| *of != key);
            self.machines.remove(&key);
        }
    }
}

/// What any telephone does that wants an address, or anybody who fetches some file.
fn is_stranger_s(event: &Event) -> bool {
    match event {
        Event::File { path, step } => !machine::is_of_a_boot(path, step),
        Event::Asked(asker) => matches!(asker.speaker, Speaker::System),
        Event::Offered | Event::Acknowledged | Event::Ignored(_) | Event::Opens(_) => true,
        _ => false,
    }
}

fn key_of(machine: &Machine) -> Option<Key> {
    let by_mac = machine.mac.map(Key::Mac);
    let address = machine.address.filter(|address| !address.is_loopback());
    let by_address = || address.map(Key::Address);
    let by_name = || machine.name.clone().map(Key::Name);
    by_mac.or_else(by_address).or_else(by_name)
}
