//! DISCOVER: an address is looked for, seen to be free, and offered.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::ask::Asked;
use super::{Arrival, Beginning, Effect, Event, Link, Port, Probed, Reason, Server};
use crate::dhcp::boot::is_of_firmware;
use crate::dhcp::lease::{Key, State};
use crate::dhcp::moment::Moment;
use crate::dhcp::wire::{Message, MessageType};
use crate::limits::{DHCP_PROBE_TIME, DHCP_TRUST_TIME};

/// A request that is answered once its address has been probed.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    key: Key,
    link: Link,
    port: Port,
    from: SocketAddrV4,
    message: Message,
    since: Moment,
}

impl Server {
    pub(super) fn discover(&mut self, asked: &mut Asked<'_>) -> Result<(), Reason> {
        let (place, network) = asked.network()?;
        self.free_what_was_taken(asked);
        let address = self.choose(asked, place, network);
        let address = address.ok_or(Reason::NoAddress)?;
        let must_probe = self.must_probe(asked, address);
        self.hold(asked, address);
        if must_probe {
            return self.probe(asked, address);
        }
        self.tell_of_boot(asked, Some(address));
        let term = self.term(asked, address);
        let offer = self.compose(asked, Some(MessageType::Offer), Some(address), Some(term));
        self.reply(asked, offer);
        Ok(())
    }

    /// Firmware asks for an address when its machine was switched on, and at no other time; what is
    /// loaded then asks again, under other names.
    pub(super) fn tell_of_boot(&mut self, asked: &mut Asked<'_>, address: Option<Ipv4Addr>) {
        if !is_of_firmware(asked.message) {
            return;
        }
        asked.say("firmware asks: a boot begins");
        self.effects.push_back(Effect::Begin(Beginning {
            client: asked.machine.map(|machine| machine.name.clone()),
            address,
        }));
    }

    /// Keeps an address for the sender. Whoever was to be offered it before no longer is.
    pub(super) fn hold(&mut self, asked: &Asked<'_>, address: Ipv4Addr) {
        let waits = self.waiting.get(&address);
        if waits.is_some_and(|waiting| waiting.key != asked.key) {
            self.waiting.remove(&address);
        }
        let mac = asked.message.chaddr;
        self.leases.offer(self.now, address, &asked.key, mac);
    }

    /// RFC 2131, section 3.1, 2: "the server SHOULD check that the offered network address is not
    /// already in use", but not while the sender's own card has it, or did a short while ago.
    /// Another card of the same machine may be another machine that says the same of itself.
    pub(super) fn must_probe(&self, asked: &mut Asked<'_>, address: Ipv4Addr) -> bool {
        if !self.settings.probe {
            return false;
        }
        let binding = self.leases.get(address);
        let seen = binding.filter(|binding| binding.key == asked.key);
        let trusted = seen.is_some_and(|binding| {
            let mac = asked.message.chaddr;
            let checked = binding.checked.filter(|(_, card)| *card == mac);
            (binding.state, binding.mac) == (State::Leased, mac)
                || checked.is_some_and(|(moment, _)| self.now.since(moment) < DHCP_TRUST_TIME)
        });
        if !trusted {
            asked.say(format!("{address} is probed first"));
        }
        !trusted
    }

    pub(super) fn probe(&mut self, asked: &Asked<'_>, address: Ipv4Addr) -> Result<(), Reason> {
        // The answer of the card that asks does not count, so that another one needs its own probe.
        let mac = asked.message.chaddr;
        let waits = self.waiting.get(&address);
        let waits = waits.filter(|waiting| waiting.message.chaddr == mac);
        let under_way = waits.map(|waiting| waiting.since);
        let under_way = under_way.filter(|since| self.now.since(*since) < DHCP_PROBE_TIME);
        let waiting = Waiting {
            key: asked.key.clone(),
            link: asked.link,
            port: asked.port,
            from: asked.from,
            message: asked.message.clone(),
            since: under_way.unwrap_or(self.now),
        };
        self.waiting.insert(address, waiting);
        if under_way.is_some() {
            return Err(Reason::Probing);
        }
        self.effects.push_back(Effect::Probe {
            link: asked.link,
            address,
            mac,
        });
        Ok(())
    }

    /// Goes on with a request whose address was probed.
    pub(super) fn probed(&mut self, address: Ipv4Addr, found: Probed, waiting: &Waiting) {
        let binding = self.leases.get(address);
        if binding.is_none_or(|binding| binding.key != waiting.key) {
            return;
        }
        let arrival = Arrival {
            link: waiting.link,
            port: waiting.port,
            from: waiting.from,
            message: &waiting.message,
        };
        match found {
            Probed::Free => {
                let mac = waiting.message.chaddr;
                self.leases.check(self.now, address, mac);
            }
            Probed::Taken => self.found_taken(address, &arrival),
        }
        self.answer(&arrival);
    }

    fn found_taken(&mut self, address: Ipv4Addr, arrival: &Arrival<'_>) {
        let settings = std::sync::Arc::clone(&self.settings);
        let mut asked = self.ask(&settings, arrival);
        let binding = self.leases.get(address);
        let holder = binding.filter(|binding| binding.state == State::Leased);
        let holder = holder.map(|binding| binding.mac);
        if let Some(holder) = holder.filter(|holder| *holder != arrival.message.chaddr) {
            // Whoever has the lease runs with the address: that it answers is as it should be.
            asked.say(format!("{address} is used by {holder}, which has it"));
            self.leases.see_in_use(self.now, address);
            return self.report(&mut asked, Event::Shared { address, holder });
        }
        let record = self.leases.decline(self.now, address);
        self.save(record);
        asked.say(format!(
            "somebody answers to {address}, so it is left alone for a while"
        ));
        self.report(&mut asked, Event::Taken(address));
    }
}
