//! What the file says, against the networks that there are.
//!
//! Invariant: in the [`Settings`] that come out, all that `dhcp::settings` promises is true.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use super::super::error::{ConfigError, Mistake};
use super::super::value::Located;
use super::value::{Cidr, Range};
use super::{DhcpConfig, OwnNetwork, Router, RouterOf, first_of};
use crate::dhcp::boot::Mode;
use crate::dhcp::settings::{Network, Settings, Told};
use crate::limits::DHCP_RANGE_ADDRESSES_MAX;

impl DhcpConfig {
    /// What the DHCP server goes by, where `own` are our addresses on its interfaces.
    ///
    /// # Errors
    /// In one line what does not fit together.
    pub fn settings(&self, own: &[OwnNetwork]) -> Result<Settings, ConfigError> {
        self.fit(own).map_err(|mistake| self.in_file(mistake))
    }

    /// What can be said before anybody looks at an interface.
    pub(super) fn check_alone(&self) -> Result<(), Mistake> {
        self.check_mode()?;
        self.check_ranges()?;
        self.relayed()?;
        match self.said_network() {
            Some(own) => self.fit(&[own]).map(drop),
            None => Ok(()),
        }
    }

    fn all_ranges(&self) -> impl Iterator<Item = &Located<Range>> {
        let relayed = self.relayed.iter().flat_map(|network| &network.ranges);
        self.ranges.iter().chain(relayed)
    }

    fn check_mode(&self) -> Result<(), Mistake> {
        match (self.mode, self.all_ranges().next()) {
            (Mode::Proxy, Some(range)) => Err(Mistake::new(
                range.at,
                "a proxy gives no addresses: take the range out, or say mode = \"server\"",
            )),
            _ => Ok(()),
        }
    }

    fn check_ranges(&self) -> Result<(), Mistake> {
        let mut ranges: Vec<_> = self.all_ranges().collect();
        ranges.sort_by_key(|range| *range.value.0.start());
        for pair in ranges.windows(2) {
            let [one, other] = pair else { continue };
            if other.value.0.start() <= one.value.0.end() {
                let what = format!("{} and {} overlap", one.value, other.value);
                return Err(Mistake::new(one.at.max(other.at), what));
            }
        }
        let mut addresses = 0;
        for range in ranges {
            let (first, last) = (range.value.0.start(), range.value.0.end());
            addresses += u64::from(last.to_bits() - first.to_bits()) + 1;
            if addresses > u64::from(DHCP_RANGE_ADDRESSES_MAX) {
                let what = format!("more than {DHCP_RANGE_ADDRESSES_MAX} addresses in all ranges");
                return Err(Mistake::new(range.at, what));
            }
        }
        Ok(())
    }

    fn fit(&self, own: &[OwnNetwork]) -> Result<Settings, Mistake> {
        let mut networks = self.own_networks(own)?;
        for (network, located) in self.relayed()?.into_iter().zip(&self.relayed) {
            apart(&network, &networks, located.network.at)?;
            networks.push(network);
        }
        if self.mode == Mode::Server {
            self.check_routers(&networks, own)?;
            self.check_addresses(&networks, own)?;
        }
        let machines = self.machines.iter();
        Ok(Settings {
            mode: self.mode,
            networks,
            told: self.told.clone(),
            machines: machines.map(|located| located.machine.clone()).collect(),
            boot: self.boot.clone(),
            unknown: self.unknown,
            probe: self.probe,
        })
    }

    /// The networks behind relays.
    fn relayed(&self) -> Result<Vec<Network>, Mistake> {
        let mut networks = Vec::new();
        for relayed in &self.relayed {
            let Cidr { address, prefix } = relayed.network.value;
            let mut network = Network {
                address,
                prefix,
                ranges: Vec::new(),
                told: relayed.told.clone(),
            };
            apart(&network, &networks, relayed.network.at)?;
            for range in &relayed.ranges {
                inside(range, &network)?;
                not_the_router(range, &relayed.told)?;
                network.ranges.push(range.value.0.clone());
            }
            networks.push(network);
        }
        Ok(networks)
    }

    /// The networks of our own interfaces, each with those ranges of [dhcp] that are in it.
    fn own_networks(&self, own: &[OwnNetwork]) -> Result<Vec<Network>, Mistake> {
        let mut networks: Vec<Network> = Vec::new();
        for of in own {
            let network = Network {
                address: first_of(of.address, of.prefix),
                prefix: of.prefix,
                ranges: Vec::new(),
                told: Told::default(),
            };
            let named = self
                .interfaces
                .iter()
                .find(|name| name.value == of.interface);
            let at = named.map_or(0, |name| name.at);
            if !(8..=30).contains(&of.prefix) {
                let what = format!(
                    "{} has the address {}/{}: networks that are served have 8 to 30 bits",
                    of.interface, of.address, of.prefix
                );
                return Err(Mistake::new(at, what));
            }
            apart(&network, &networks, at)?;
            networks.push(network);
        }
        for range in &self.ranges {
            let of = networks.iter_mut();
            let mut of = of.filter(|network| network.contains(*range.value.0.start()));
            let network = of.next().ok_or_else(|| no_network(range, own))?;
            inside(range, network)?;
            not_the_router(range, &self.told)?;
            network.ranges.extend(without(range, own));
        }
        Ok(networks)
    }

    /// A machine reaches no router outside of its network.
    fn check_routers(&self, networks: &[Network], own: &[OwnNetwork]) -> Result<(), Mistake> {
        for Router { address, of } in &self.routers {
            let ours = networks.get(..own.len()).unwrap_or_default();
            let its = match of {
                RouterOf::Ours => ours.iter().collect(),
                RouterOf::Relayed(of) => {
                    let mut networks = networks.iter();
                    let found = networks.find(|network| network.address == of.address);
                    found.into_iter().collect()
                }
                RouterOf::Clients => networks.iter().collect::<Vec<_>>(),
            };
            let Located { value: router, at } = address;
            let holds =
                |network: &&Network| network.contains(*router) && !is_at_an_end(*router, network);
            if !its.iter().any(holds) {
                let of = its.iter();
                let of = of.map(|network| format!("{}/{}", network.address, network.prefix));
                let of = of.collect::<Vec<_>>().join(", ");
                let what = format!("no machine reaches the router {router}: it is not in {of}");
                return Err(Mistake::new(*at, what));
            }
        }
        self.check_ranges_of_clients()
    }

    /// The routers of clients, which may be in any network, lie in no range.
    fn check_ranges_of_clients(&self) -> Result<(), Mistake> {
        let mut machines = self.machines.iter().map(|located| &located.machine.told);
        machines.try_for_each(|told| {
            let mut ranges = self.all_ranges();
            ranges.try_for_each(|range| not_the_router(range, told))
        })
    }

    fn check_addresses(&self, networks: &[Network], own: &[OwnNetwork]) -> Result<(), Mistake> {
        for located in &self.machines {
            let Some(address) = located.machine.address else {
                continue;
            };
            let (name, told) = (&located.machine.name, &located.machine.told);
            let network = networks.iter().find(|network| network.contains(address));
            let wrong = match network {
                None => format!("the address of client {name} is in no network that is served"),
                Some(network) if is_at_an_end(address, network) => {
                    format!("no client can have {address}, which is at an end of its network")
                }
                Some(network) if is_router(address, [&self.told, &network.told, told]) => {
                    format!("{address} is a router, and can't be that of client {name}")
                }
                Some(_) if own.iter().any(|own| own.address == address) => {
                    format!("{address} is cowherd's own, and can't be that of client {name}")
                }
                Some(_) => continue,
            };
            return Err(Mistake::new(located.at, wrong));
        }
        Ok(())
    }
}

fn is_router(address: Ipv4Addr, told: [&Told; 3]) -> bool {
    let mut routers = told.into_iter().flat_map(|told| &told.routers);
    routers.any(|router| *router == address)
}

fn is_at_an_end(address: Ipv4Addr, network: &Network) -> bool {
    [network.address, network.broadcast()].contains(&address)
}

/// `network` must share no address with the `others`.
fn apart(network: &Network, others: &[Network], at: usize) -> Result<(), Mistake> {
    let meets =
        |other: &&Network| other.contains(network.address) || network.contains(other.address);
    let Some(other) = others.iter().find(meets) else {
        return Ok(());
    };
    let what = format!(
        "{}/{} and {}/{} overlap",
        network.address, network.prefix, other.address, other.prefix
    );
    Err(Mistake::new(at, what))
}

fn no_network(range: &Located<Range>, own: &[OwnNetwork]) -> Mistake {
    let networks = own.iter().map(|own| {
        let first = first_of(own.address, own.prefix);
        format!("{first}/{} of {}", own.prefix, own.interface)
    });
    let networks = networks.collect::<Vec<_>>().join(", ");
    let what = format!(
        "{} is not in {networks}; a network behind a relay is a [dhcp.network.NAME]",
        range.value
    );
    Mistake::new(range.at, what)
}

fn inside(range: &Located<Range>, network: &Network) -> Result<(), Mistake> {
    let (first, last) = (*range.value.0.start(), *range.value.0.end());
    let within = network.contains(first) && network.contains(last);
    if !within {
        let what = format!(
            "{} is not in {}/{}",
            range.value, network.address, network.prefix
        );
        return Err(Mistake::new(range.at, what));
    }
    match is_at_an_end(first, network) || is_at_an_end(last, network) {
        true => Err(Mistake::new(
            range.at,
            format!(
                "no client can have the first and the last address of {}/{}: leave them out",
                network.address, network.prefix
            ),
        )),
        false => Ok(()),
    }
}

fn not_the_router(range: &Located<Range>, told: &Told) -> Result<(), Mistake> {
    let mut routers = told.routers.iter();
    match routers.find(|router| range.value.0.contains(*router)) {
        Some(router) => {
            let what = format!("{} has the router's address, {router}, in it", range.value);
            Err(Mistake::new(range.at, what))
        }
        None => Ok(()),
    }
}

/// The addresses of `range` that are not our own.
fn without(range: &Located<Range>, own: &[OwnNetwork]) -> Vec<RangeInclusive<Ipv4Addr>> {
    let mut pieces = vec![range.value.0.clone()];
    for own in own {
        let split = |piece: RangeInclusive<Ipv4Addr>| {
            let address = own.address.to_bits();
            let (first, last) = (piece.start().to_bits(), piece.end().to_bits());
            if !(first..=last).contains(&address) {
                return vec![piece];
            }
            let before = (address > first).then(|| first..=address - 1);
            let behind = (address < last).then(|| address + 1..=last);
            let of_bits = |bits: RangeInclusive<u32>| {
                Ipv4Addr::from_bits(*bits.start())..=Ipv4Addr::from_bits(*bits.end())
            };
            before.into_iter().chain(behind).map(of_bits).collect()
        };
        pieces = pieces.into_iter().flat_map(split).collect();
    }
    pieces
}
