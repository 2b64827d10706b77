//! The boots of all machines.
//!
//! Invariants:
//! - There are at most [`STATUS_CLIENTS_MAX`] machines with [`STATUS_BOOTS_MAX`] boots each. Whoever
//!   makes up machines pushes out machines that never loaded anything before any other.
//! - A machine has one entry, by its network card where that is known.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::At;
use super::boot::Boot;
use super::event::{Asker, Event, FileStep, Sign, Speaker};
use super::stage::{self, Stage};
use super::text::harmless;
use super::usual::Usual;
use crate::limits::{STATUS_BOOTS_MAX, STATUS_CLIENTS_MAX};
use crate::mac::MacAddress;

mod describe;
#[cfg(test)]
mod tests;

/// After so long without a sign of life a boot that got nowhere is not gone on with.
const FORGOTTEN: u64 = 10 * 60 * 1000;
/// A machine without a connection for so long has been started anew when it comes again.
const AWAY: u64 = 5 * 60 * 1000;

/// What tells one machine from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Mac(MacAddress),
    Address(IpAddr),
    Name(String),
}

/// A machine and its boots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Machine {
    #[serde(default, with = "as_text", skip_serializing_if = "Option::is_none")]
    mac: Option<MacAddress>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vendor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    architecture: Option<String>,
    seen: At,
    /// The newest last.
    boots: VecDeque<Boot>,
    /// Its system has asked for an address since its last connection ended.
    #[serde(skip)]
    asked_since: bool,
    #[serde(skip)]
    connections: u32,
}

/// MAC addresses as people write them.
mod as_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::mac::MacAddress;

    #[allow(clippy::ref_option, reason = "serde asks for it")]
    pub(super) fn serialize<S: Serializer>(
        mac: &Option<MacAddress>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match mac {
            Some(mac) => serializer.collect_str(mac),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<MacAddress>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let mac = text.map(|text| text.parse());
        mac.transpose().map_err(serde::de::Error::custom)
    }
}

/// All machines, as they are kept across restarts.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Saved {
    /// Of this form; one that is not known is not read.
    version: u32,
    machines: Vec<Machine>,
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

    /// Something was seen of a machine.
    pub fn handle(&mut self, now: At, sign: &Sign, event: &Event) {
        if is_stranger_s(event)
            && sign.name.is_none()
            && !self.machines.contains_key(&self.key(sign))
        {
            return;
        }
        let key = self.find(now, sign);
        let Some(machine) = self.machines.get_mut(&key) else {
            return;
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
    }

    /// Whether it is known whose address this is.
    #[must_use]
    pub fn knows(&self, address: IpAddr) -> bool {
        self.at.contains_key(&address)
    }

    /// No machine is known by this name any more, or address, or MAC address.
    pub fn forget(&mut self, who: &str) -> bool {
        let Some(key) = self.key_named(who).cloned() else {
            return false;
        };
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

/// What any telephone does that wants an address.
const fn is_stranger_s(event: &Event) -> bool {
    match event {
        Event::Asked(asker) => matches!(asker.speaker, Speaker::System),
        Event::Offered | Event::Acknowledged | Event::Ignored(_) => true,
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

impl Machine {
    fn newest(&self) -> Option<&Boot> {
        self.boots.back()
    }

    fn has_loaded(&self) -> bool {
        let of_boot = |boot: &Boot| boot.passages.iter().any(|one| one.stage > Stage::Ack);
        self.boots.iter().any(of_boot)
    }

    fn handle(&mut self, now: At, event: &Event) {
        match event {
            Event::Asked(asker) => self.asked(now, asker),
            Event::Offered => self.answered(now, Stage::Offer),
            Event::Acknowledged => self.answered(now, Stage::Ack),
            Event::Ignored(why) => self.ignored(now, why),
            Event::File { path, step } => self.file(now, path, step),
            Event::Refused(why) => {
                let boot = self.boot_from_here(now);
                boot.begin(now, Stage::Connect);
                boot.fail(now, Stage::Connect, harmless(why));
            }
            Event::Connected {
                export,
                is_read_only,
            } => self.connected(now, export, *is_read_only),
            Event::Reads => {
                self.boot_from_here(now).begin(now, Stage::FirstRead);
            }
            Event::HasRead => {
                self.boot_from_here(now).reach(now, Stage::FirstRead);
            }
            Event::HasWritten => {
                self.boot_from_here(now).reach(now, Stage::Mounted);
            }
            Event::Disconnected { is_clean } => self.disconnected(now, *is_clean),
        }
    }

    /// The newest boot, where it can still go on to its disk.
    fn open(&mut self, now: At) -> Option<&mut Boot> {
        let newest = self.boots.back_mut();
        newest.filter(|boot| !boot.has(Stage::Connect) && now.since(boot.last) < FORGOTTEN)
    }

    fn start(&mut self, now: At) -> &mut Boot {
        if let Some(last) = self.boots.back_mut() {
            last.over.get_or_insert(now);
        }
        if self.boots.len() >= STATUS_BOOTS_MAX {
            self.boots.pop_front();
        }
        self.asked_since = false;
        self.boots.push_back(Boot::new(now));
        let last = self.boots.len() - 1;
        &mut self.boots[last]
    }

    /// The newest boot; one that begins in the middle where there is none.
    fn boot_from_here(&mut self, now: At) -> &mut Boot {
        match self.boots.len() {
            0 => self.start(now),
            count => &mut self.boots[count - 1],
        }
    }

    fn asked(&mut self, now: At, asker: &Asker) {
        let told = |text: &Option<String>| text.as_deref().map(harmless);
        self.hostname = told(&asker.hostname).or_else(|| self.hostname.take());
        self.vendor = told(&asker.vendor).or_else(|| self.vendor.take());
        let architecture = asker.architecture.map(str::to_owned);
        self.architecture = architecture.or_else(|| self.architecture.take());
        if asker.speaker == Speaker::System {
            self.asked_since = true;
            if let Some(boot) = self.open(now)
                && boot.newest().is_some_and(|one| one.stage > Stage::Ack)
            {
                boot.begin(now, Stage::DhcpAgain);
            }
            return;
        }
        let by_ipxe = asker.speaker == Speaker::Ipxe;
        if let Some(boot) = self.open(now) {
            let newest = boot.newest().map(|newest| newest.stage);
            if newest <= Some(Stage::Ack) {
                boot.begin(now, Stage::Discover);
                return;
            }
            // It was loaded by firmware of another kind, and asks for itself.
            if by_ipxe && !boot.by_ipxe && newest < Some(Stage::Kernel) {
                boot.last = now;
                return;
            }
        }
        let boot = self.start(now);
        boot.by_ipxe = by_ipxe;
        // To have asked is all there is to it.
        boot.reach(now, Stage::Discover);
    }

    fn answered(&mut self, now: At, stage: Stage) {
        let Some(boot) = self.open(now) else {
            return;
        };
        match boot.newest().map(|newest| newest.stage) {
            Some(Stage::DhcpAgain) if stage == Stage::Ack => {
                boot.reach(now, Stage::DhcpAgain);
            }
            newest if newest <= Some(Stage::Ack) => {
                boot.reach(now, stage);
            }
            _ => boot.last = now,
        }
    }

    fn ignored(&mut self, now: At, why: &str) {
        let Some(boot) = self.open(now) else {
            return;
        };
        let stage = match boot.newest().map(|newest| newest.stage) {
            Some(Stage::DhcpAgain) => Stage::DhcpAgain,
            Some(Stage::Offer | Stage::Ack) => Stage::Ack,
            Some(Stage::Discover) => Stage::Offer,
            _ => return,
        };
        boot.fail(now, stage, harmless(why));
    }

    fn file(&mut self, now: At, path: &str, step: &FileStep) {
        if self.open(now).is_none() {
            // Its addresses are another server's business, or it was switched on long ago.
            self.start(now);
        }
        let boot = self.boot_from_here(now);
        boot.last = now;
        let Some(stage) = stage::of_file(path) else {
            return;
        };
        match step {
            FileStep::Begun(_) => {
                boot.begin(now, stage).detail = harmless(path);
            }
            FileStep::Sent(bytes) => {
                let passage = boot.reach(now, stage);
                passage.detail = harmless(path);
                passage.bytes = passage.bytes.saturating_add(*bytes);
            }
            FileStep::Probed => {}
            // Boot loaders look for their menus under many names.
            FileStep::Missing if stage == Stage::Config => {}
            FileStep::Missing => {
                boot.begin(now, stage).detail = harmless(path);
                boot.fail(now, stage, "there is no such file".to_owned());
            }
            FileStep::Failed { sent, why } => {
                let passage = boot.begin(now, stage);
                passage.detail = harmless(path);
                let why = format!("{} after {sent} bytes", harmless(why));
                boot.fail(now, stage, why);
            }
        }
    }

    fn connected(&mut self, now: At, export: &str, is_read_only: bool) {
        let was_up = self.boots.back().filter(|boot| boot.has(Stage::Connect));
        let again = was_up.is_some_and(|boot| {
            let is_near = boot.down.is_none_or(|down| now.since(down) < AWAY);
            let has_left = self.connections == 0 && boot.is_clean;
            self.connections > 0 || (is_near && !has_left && !self.asked_since)
        });
        let has_other = self.connections > 0;
        self.connections = self.connections.saturating_add(1);
        self.asked_since = false;
        if !again && self.open(now).is_none() {
            self.start(now);
        }
        let boot = self.boot_from_here(now);
        if again {
            boot.last = now;
            boot.down = None;
            boot.reconnects = boot.reconnects.saturating_add(u32::from(!has_other));
            return;
        }
        boot.export = Some(harmless(export));
        boot.is_read_only = is_read_only;
        boot.reach(now, Stage::Connect).detail = harmless(export);
    }

    fn disconnected(&mut self, now: At, is_clean: bool) {
        self.connections = self.connections.saturating_sub(1);
        self.asked_since = false;
        let is_last = self.connections == 0;
        if let (Some(boot), true) = (self.boots.back_mut(), is_last) {
            boot.last = now;
            boot.down = Some(now);
            boot.is_clean = is_clean;
        }
    }
}
