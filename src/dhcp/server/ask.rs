//! One message, and what is known of its sender and of where that is.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{Arrival, Link, Port, Reason, Server};
use crate::dhcp::boot::BootConfig;
use crate::dhcp::lease::Key;
use crate::dhcp::settings::{Machine, Network, Settings, Told};
use crate::dhcp::wire::{Message, code};

/// One message that wants an answer.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) settings: &'a Settings,
    pub(super) link: Link,
    pub(super) port: Port,
    pub(super) from: SocketAddrV4,
    pub(super) message: &'a Message,
    /// What its sender's bindings go by.
    pub(super) key: Key,
    pub(super) machine: Option<&'a Machine>,
    /// Where its sender is: the place in the settings.
    pub(super) place: Option<usize>,
    /// The rules that were gone by, for people.
    pub(super) why: Vec<String>,
}

impl Server {
    pub(super) fn ask<'a>(&self, settings: &'a Settings, arrival: &Arrival<'a>) -> Asked<'a> {
        let message = arrival.message;
        let machines = &settings.machines;
        let (key, machine) = self.machines.identify(machines, &self.leases, message);
        let mut asked = Asked {
            settings,
            link: arrival.link,
            port: arrival.port,
            from: arrival.from,
            message,
            key,
            machine: machine.map(|(machine, _)| machine),
            place: None,
            why: Vec::new(),
        };
        match machine {
            Some((machine, how)) => asked.say(format!("it is {}, by {how}", machine.name)),
            None => asked.say(format!("{} is in no config", message.chaddr)),
        }
        asked.locate();
        asked
    }
}

impl<'a> Asked<'a> {
    pub(super) fn say(&mut self, why: impl Into<String>) {
        self.why.push(why.into());
    }

    pub(super) const fn is_known(&self) -> bool {
        self.machine.is_some()
    }

    /// The network that the sender is in, and its place in the settings.
    pub(super) fn network(&self) -> Result<(usize, &'a Network), Reason> {
        let place = self.place.ok_or(Reason::Network)?;
        let network = self.settings.networks.get(place).ok_or(Reason::Network)?;
        Ok((place, network))
    }

    /// RFC 2131, section 4.3.1: the address is to be of the network "from which the message was
    /// received (if 'giaddr' is 0) or ... of the relay agent that forwarded the message". RFC 3527
    /// and RFC 3011 come before that, and a message from an address of ours comes from there,
    /// though a router brought it.
    fn locate(&mut self) {
        let message = self.message;
        let (address, how) = match (message.link_selection(), message.giaddr, message.ciaddr) {
            (Some(link), _, _) => (link, "its relay or it itself selects it"),
            (None, relay, _) if !relay.is_unspecified() => (relay, "its relay is there"),
            (None, _, client) if self.place_of(client).is_some() => {
                (client, "its address is there")
            }
            _ => (self.link.address, "our address on its link is there"),
        };
        self.place = self.place_of(address);
        match self.network() {
            Ok((_, network)) => {
                self.say(format!(
                    "network {}/{}: {how}",
                    network.address, network.prefix
                ));
            }
            Err(_) => self.say(format!("{address} is in no network that is served")),
        }
    }

    fn place_of(&self, address: Ipv4Addr) -> Option<usize> {
        self.settings.place_of(address)
    }

    /// Replies go to the relay or to the sender: neither of them can have an address that is
    /// nobody's or everybody's. RFC 1812, section 5.3.7, has such sources dropped by routers.
    pub(super) fn check_addresses(&mut self) -> Result<(), Reason> {
        let said = [self.message.giaddr, self.message.ciaddr];
        let mut said = said.into_iter().filter(|said| !said.is_unspecified());
        match said.find(|said| !self.can_be_of_a_host(*said)) {
            Some(address) => {
                self.say(format!("nobody can have {address}, so nothing goes there"));
                Err(Reason::Network)
            }
            None => Ok(()),
        }
    }

    fn can_be_of_a_host(&self, address: Ipv4Addr) -> bool {
        let [first, ..] = address.octets();
        let networks = &self.settings.networks;
        let is_end = |network: &Network| [network.address, network.broadcast()].contains(&address);
        (1..=223).contains(&first) && !networks.iter().any(is_end)
    }

    /// What the sender is told, the narrowest first.
    pub(super) fn told(&self) -> impl Iterator<Item = &'a Told> {
        let network = self.network().ok().map(|(_, network)| &network.told);
        let machine = self.machine.map(|machine| &machine.told);
        [machine, network, Some(&self.settings.told)]
            .into_iter()
            .flatten()
    }

    pub(super) fn boot(&self) -> &'a BootConfig {
        let own = self.machine.and_then(|machine| machine.boot.as_ref());
        own.unwrap_or(&self.settings.boot)
    }

    /// The address by which the client is to know us.
    pub(super) fn server_identifier(&self) -> Ipv4Addr {
        self.message.server_override().unwrap_or(self.link.address)
    }

    /// Option 50.
    pub(super) fn requested(&self) -> Option<Ipv4Addr> {
        self.message.options.address(code::REQUESTED_ADDRESS)
    }

    /// Option 54.
    pub(super) fn server(&self) -> Option<Ipv4Addr> {
        self.message.options.address(code::SERVER_IDENTIFIER)
    }
}
