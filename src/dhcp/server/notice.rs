//! DECLINE, RELEASE, INFORM, and BOOTP.

use super::ask::Asked;
use super::{Event, Reason, Server};
use crate::dhcp::lease::State;
use crate::dhcp::wire::{MessageType, code};

impl Server {
    /// RFC 2131, section 4.3.3: "the server MUST mark the network address as not available".
    pub(super) fn decline(&mut self, asked: &mut Asked<'_>) -> Result<(), Reason> {
        self.is_for_us(asked)?;
        let address = asked.requested().ok_or(Reason::Incomplete)?;
        let binding = self.leases.get(address);
        let place = asked.settings.place_of(address);
        let offers_stand = place.is_some_and(|place| self.leases.offers_stand(place))
            && !self.is_another_s(asked, address);
        let has = binding.is_some_and(|binding| {
            binding.key == asked.key
                && match binding.state {
                    // A known machine may need it as it is.
                    State::Offered => asked.is_known() || offers_stand,
                    // Another card that says the same of itself runs with it.
                    State::Leased => binding.mac == asked.message.chaddr,
                    State::Expired | State::Lapsed | State::Declined => false,
                }
        });
        if !has {
            asked.say(format!(
                "{address} is not its address, so it can't decline that"
            ));
            return Err(Reason::NoRecord);
        }
        asked.say(format!(
            "somebody else uses {address}, so it is left alone for a while"
        ));
        self.waiting.remove(&address);
        let record = self.leases.decline(self.now, address);
        self.save(record);
        self.report(asked, Event::Declined(address));
        Ok(())
    }

    /// RFC 2131, section 4.3.4: the server "SHOULD retain a record of the client's initialization
    /// parameters for possible reuse".
    pub(super) fn release(&mut self, asked: &mut Asked<'_>) -> Result<(), Reason> {
        self.is_for_us(asked)?;
        let address = asked.message.ciaddr;
        let binding = self.leases.get(address);
        let holder = (State::Leased, &asked.key, asked.message.chaddr);
        let leased = binding.filter(|binding| (binding.state, &binding.key, binding.mac) == holder);
        if leased.is_none() {
            asked.say(format!("{address} is not leased to it"));
            return Err(Reason::NoRecord);
        }
        asked.say(format!(
            "{address} is free, and kept for it as long as nobody needs it"
        ));
        let record = self.leases.give_back(self.now, address);
        self.save(record);
        self.report(asked, Event::Released(address));
        Ok(())
    }

    fn is_for_us(&self, asked: &mut Asked<'_>) -> Result<(), Reason> {
        match asked.server() {
            Some(server) if !self.is_ours(server, asked.message) => {
                asked.say(format!("it is for the server at {server}"));
                Err(Reason::OtherServer)
            }
            _ => Ok(()),
        }
    }

    /// RFC 2131, section 4.3.5: "The server responds to a DHCPINFORM message by sending a DHCPACK
    /// message directly to the address given in the 'ciaddr' field ... The server MUST NOT send a
    /// lease expiration time to the client and SHOULD NOT fill in 'yiaddr'." A relay could not pass
    /// it on: the address that those send to is 'yiaddr'.
    ///
    /// Clients that do not say their address are none of RFC 2131's. ISC's server takes the
    /// address that the datagram came from for theirs, and so do we; behind a relay nothing but a
    /// broadcast reaches them.
    pub(super) fn inform(&mut self, asked: &mut Asked<'_>) -> Result<(), Reason> {
        asked.network()?;
        asked.say("it has an address and wants to know the rest");
        let mut ack = self.compose(asked, Some(MessageType::Ack), None, None);
        ack.ciaddr = asked.message.ciaddr;
        let has = [asked.message.ciaddr, *asked.from.ip()];
        let said = has.first().filter(|said| !said.is_unspecified());
        let relay = match said {
            Some(_) => None,
            None => asked.relay(),
        };
        let to = match relay {
            Some(relay) => {
                ack.broadcast = true;
                relay
            }
            None => {
                // RFC 3046, section 2.1: only a relay is to see its option.
                ack.options.remove(code::RELAY_AGENT);
                let mut has = has.into_iter().filter(|has| !has.is_unspecified());
                asked.at(has.next().ok_or(Reason::Incomplete)?)
            }
        };
        self.send(asked, ack, to);
        Ok(())
    }

    /// RFC 1534, section 2: a client of BOOTP keeps its address for ever, so it gets none but its
    /// own.
    pub(super) fn bootp(&mut self, asked: &mut Asked<'_>) -> Result<(), Reason> {
        let (_, network) = asked.network()?;
        asked.say("BOOTP: no type of message, so no lease either");
        let own = self.own(asked, network).ok_or(Reason::Bootp)?;
        if self.must_probe(asked, own) {
            self.hold(asked, own);
            return self.probe(asked, own);
        }
        let term = self.term(asked, own);
        let mac = asked.message.chaddr;
        // What it is leased for is only who has the address; it stays the machine's own.
        let record = self.leases.lease(self.now, own, &asked.key, mac, term);
        self.save(record);
        let reply = self.compose(asked, None, Some(own), None);
        self.reply(asked, reply);
        Ok(())
    }
}
