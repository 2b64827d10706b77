//! REQUEST: an offer is accepted, or an address is to be kept (RFC 2131, section 4.3.2).

use std::net::Ipv4Addr;

use super::ask::Asked;
use super::{Reason, Server};
use crate::dhcp::lease::{Binding, State};
use crate::dhcp::settings::Network;
use crate::dhcp::wire::MessageType;

/// What a machine that asks for an address is told. `Err` is silence.
type Verdict = Result<Result<(), &'static str>, Reason>;

impl Server {
    pub(super) fn request(&mut self, asked: &mut Asked<'_>) -> Result<(), Reason> {
        let client = asked.message.ciaddr;
        let client = (!client.is_unspecified()).then_some(client);
        let (address, runs, verdict) = match (asked.server(), asked.requested(), client) {
            (Some(server), _, _) if !self.is_ours(server, asked.message) => {
                return self.chose_another(asked, server);
            }
            (Some(_), requested, client) => {
                let address = requested.or(client).ok_or(Reason::Incomplete)?;
                (address, false, self.selecting(asked, address))
            }
            (None, _, Some(client)) => (client, true, self.extending(asked, client)),
            (None, Some(requested), None) => (requested, false, self.rebooting(asked, requested)),
            (None, None, None) => return Err(Reason::Incomplete),
        };
        match verdict? {
            // A machine that runs with the address would answer to it itself.
            Ok(()) if !runs && self.must_probe(asked, address) => {
                self.hold(asked, address);
                return self.probe(asked, address);
            }
            Ok(()) => self.grant(asked, address),
            Err(why) => {
                self.take_away(asked, address);
                self.refuse(asked, address, why);
            }
        }
        Ok(())
    }

    /// Notes that the sender, which has the address, is told that the config gives it to another
    /// machine.
    fn take_away(&mut self, asked: &Asked<'_>, address: Ipv4Addr) {
        let binding = self.leases.get(address);
        let mac = asked.message.chaddr;
        let has = binding.is_some_and(|binding| binding.is_leased_to(&asked.key, mac));
        if has && self.is_another_s(asked, address) {
            self.leases.refuse(address);
        }
    }

    /// RFC 2131, section 3.1, 4: "Those servers not selected by the DHCPREQUEST message use the
    /// message as notification that the client has declined that server's offer."
    fn chose_another(&mut self, asked: &mut Asked<'_>, server: Ipv4Addr) -> Result<(), Reason> {
        asked.say(format!("it has accepted the offer of {server}"));
        let bindings = self.leases.of(&asked.key);
        let offered = bindings.filter(|(_, binding)| binding.state == State::Offered);
        let offered: Vec<_> = offered.map(|(address, _)| address).collect();
        for address in offered {
            self.waiting.remove(&address);
            self.leases.give_back(self.now, address);
        }
        self.see_rival(asked.message, server);
        Err(Reason::OtherServer)
    }

    /// "DHCPREQUEST generated during SELECTING state". An offer that was forgotten meanwhile, by a
    /// restart, is as good as one that was not, but nothing shows that there was one: like what a
    /// machine remembers, the address is probed as before an offer, for somebody may have it.
    fn selecting(&self, asked: &mut Asked<'_>, address: Ipv4Addr) -> Verdict {
        let (place, network) = asked.network()?;
        asked.say(format!("it accepts our offer of {address}"));
        if let Some(why) = self.is_wrong(asked, network, address) {
            return Ok(Err(why));
        }
        let own = self.own(asked, network);
        match self.has(asked, place, own, address) || self.is_free(asked, place, address) {
            true => Ok(Ok(())),
            false => Ok(Err("the address is no longer free")),
        }
    }

    /// "DHCPREQUEST generated during INIT-REBOOT state": "If the DHCP server has no record of this
    /// client, then it MUST remain silent".
    fn rebooting(&self, asked: &mut Asked<'_>, address: Ipv4Addr) -> Verdict {
        let (place, network) = asked.network()?;
        asked.say(format!("it has booted and remembers {address}"));
        if let Some(why) = self.is_wrong(asked, network, address) {
            return Ok(Err(why));
        }
        let own = self.own(asked, network);
        if own.is_some_and(|own| own != address) {
            return Ok(Err("another address is the machine's own"));
        }
        if self.has(asked, place, own, address) {
            return Ok(Ok(()));
        }
        match self.leases.get(address) {
            Some(holder) if holder.state == State::Declined => {
                return Ok(Err("somebody else uses the address"));
            }
            Some(holder) if self.is_used_by_another_card(asked, holder) => {
                return Ok(Err("another card of the machine uses the address"));
            }
            Some(holder) if holder.state == State::Leased => {
                return Ok(Err("the address is leased to another machine"));
            }
            _ => {}
        }
        let mut others = self.leases.of(&asked.key);
        match others.any(|(address, _)| network.contains(address)) {
            true => Ok(Err("the machine has another address here")),
            false => Err(Reason::NoRecord),
        }
    }

    /// "DHCPREQUEST generated during RENEWING state" and "REBINDING state". The machine runs with
    /// this address, so it keeps it where nobody else may have it, recorded or not.
    fn extending(&self, asked: &mut Asked<'_>, address: Ipv4Addr) -> Verdict {
        let (place, network) = asked.network()?;
        asked.say(format!("it has {address} and wants to keep it"));
        if !network.contains(address) && asked.message.giaddr.is_unspecified() {
            // Another server's, perhaps, on the same wire.
            return Err(Reason::NoRecord);
        }
        if let Some(why) = self.is_wrong(asked, network, address) {
            return Ok(Err(why));
        }
        let own = self.own(asked, network);
        if self.has(asked, place, own, address) || self.is_free(asked, place, address) {
            return Ok(Ok(()));
        }
        match self.leases.get(address) {
            Some(_) => Ok(Err("the address is no longer the machine's")),
            None => Err(Reason::NoRecord),
        }
    }

    /// Why the address can't be the machine's, as far as the config goes.
    fn is_wrong(
        &self,
        asked: &Asked<'_>,
        network: &Network,
        address: Ipv4Addr,
    ) -> Option<&'static str> {
        if !network.contains(address) {
            return Some("the address is of another network");
        }
        if self.ours.contains(&address) {
            return Some("the address is the server's");
        }
        let is_another_s = self.is_another_s(asked, address);
        is_another_s.then_some("the config gives the address to another machine")
    }

    /// Whether the machine has the address, or may have it again, or it is its own.
    fn has(
        &self,
        asked: &Asked<'_>,
        place: usize,
        own: Option<Ipv4Addr>,
        address: Ipv4Addr,
    ) -> bool {
        let binding = self.leases.get(address);
        let binding = binding.filter(|binding| {
            binding.key == asked.key && !self.is_used_by_another_card(asked, binding)
        });
        let is_usable = |binding: &Binding| {
            binding.state == State::Leased
                || self.leases.is_pooled(place, address)
                    && self.may_have_again(asked, place, binding)
        };
        own == Some(address) || binding.is_some_and(is_usable)
    }

    fn is_free(&self, asked: &Asked<'_>, place: usize, address: Ipv4Addr) -> bool {
        self.leases.is_free(place, address, asked.is_known())
    }

    /// Gives the address to the sender.
    fn grant(&mut self, asked: &mut Asked<'_>, address: Ipv4Addr) {
        let term = self.term(asked, address);
        self.waiting.remove(&address);
        let mac = asked.message.chaddr;
        let record = self.leases.lease(self.now, address, &asked.key, mac, term);
        asked.say(match record {
            Some(_) => format!("{address} is leased for {} s", term.as_secs()),
            None => format!("{address} stays leased: {} s are left", term.as_secs()),
        });
        self.save(record);
        let mut ack = self.compose(asked, Some(MessageType::Ack), Some(address), Some(term));
        ack.ciaddr = asked.message.ciaddr;
        self.reply(asked, ack);
    }
}
