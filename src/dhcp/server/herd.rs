//! The machines of the config, found by what a message says of its sender.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::dhcp::lease::{Herd, Key, Leases};
use crate::dhcp::settings::{Machine, Settings};
use crate::dhcp::wire::Message;

/// Where each machine stands in the settings.
#[derive(Clone, Debug, Default)]
pub(super) struct Machines {
    /// By all that each is known by.
    of: HashMap<Key, usize>,
    /// By the address that is its own.
    at: HashMap<Ipv4Addr, usize>,
    herd: Herd,
}

impl Machines {
    pub(super) fn of(settings: &Settings) -> Self {
        let mut all = Self::default();
        let mut floating = HashSet::new();
        for (index, machine) in settings.machines.iter().enumerate() {
            let keys: Vec<_> = keys(machine).collect();
            let own = machine.address.map(|address| (address, index));
            all.at.extend(own);
            // The first one is what its bindings go by.
            if let Some(key) = keys.first() {
                all.herd.known.insert(key.clone());
                match machine.address {
                    Some(address) => {
                        let place = settings.place_of(address);
                        let own = place.map(|place| (address, (key.clone(), place)));
                        all.herd.own.extend(own);
                    }
                    None => drop(floating.insert(key.clone())),
                }
            }
            all.of.extend(keys.into_iter().map(|key| (key, index)));
        }
        all.herd.floating = Arc::new(floating);
        all
    }

    pub(super) fn herd(&self) -> Herd {
        self.herd.clone()
    }

    /// The machine that has this address of its own.
    pub(super) fn at<'a>(&self, machines: &'a [Machine], own: Ipv4Addr) -> Option<&'a Machine> {
        machines.get(*self.at.get(&own)?)
    }

    pub(super) fn of_key<'a>(&self, machines: &'a [Machine], key: &Key) -> Option<&'a Machine> {
        machines.get(*self.of.get(key)?)
    }

    /// Who sent `message`, and how that is known.
    ///
    /// The network card comes first: it is the one thing that firmware, GRUB, initramfs and system
    /// of a machine all say alike.
    pub(super) fn identify<'a>(
        &self,
        machines: &'a [Machine],
        leases: &Leases,
        message: &Message,
    ) -> (Key, Option<(&'a Machine, &'static str)>) {
        let card = Key::Mac(message.chaddr);
        let uuid = message.uuid().map(Key::Uuid);
        let client = message.client_identifier();
        let client = client.map(|identifier| Key::Client(identifier.into()));
        // The initramfs says no UUID where the firmware did.
        let seen = leases.machine_of_card(message.chaddr).cloned();
        let seen = seen.filter(|_| uuid.is_none());
        let said = [
            (Some(&card), "its MAC address"),
            (client.as_ref(), "its client identifier"),
            (uuid.as_ref(), "its UUID"),
            (
                seen.as_ref(),
                "its network card, which it had when it said more",
            ),
        ];
        let found = said
            .into_iter()
            .find_map(|(key, how)| Some((self.of_key(machines, key?)?, how)));
        let key = found.and_then(|(machine, _)| keys(machine).next());
        (key.unwrap_or(card), found)
    }
}

/// All that a machine is known by. Its bindings go by the first.
fn keys(machine: &Machine) -> impl Iterator<Item = Key> {
    let mac = machine.mac.map(Key::Mac);
    let client = machine.client_identifier.as_deref();
    let client = client.map(|identifier| Key::Client(Arc::from(identifier)));
    let uuid = machine.uuid.map(Key::Uuid);
    [mac, client, uuid].into_iter().flatten()
}

impl Settings {
    /// The network that an address is in: its place.
    pub(super) fn place_of(&self, address: Ipv4Addr) -> Option<usize> {
        let mut networks = self.networks.iter();
        networks.position(|network| network.contains(address))
    }

    /// Addresses that somebody has anyhow: machines to which the config gives them, routers and
    /// servers that it names to anybody, the networks themselves and everybody.
    pub(super) fn addresses_in_use(&self) -> HashSet<Ipv4Addr> {
        let own = self.machines.iter().filter_map(|machine| machine.address);
        let networks = self.networks.iter();
        let of_networks = networks.clone().map(|network| &network.told);
        let of_machines = self.machines.iter().map(|machine| &machine.told);
        let told = of_networks.chain(of_machines).chain([&self.told]);
        let named = told.flat_map(|told| {
            let lists = [&told.routers, &told.dns, &told.ntp];
            lists.into_iter().flatten().copied()
        });
        let ends = networks.flat_map(|network| [network.address, network.broadcast()]);
        own.chain(named).chain(ends).collect()
    }
}
