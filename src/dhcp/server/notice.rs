//! DECLINE, RELEASE, INFORM, and BOOTP.

use super::ask::Asked;
use super::{Event, Reason, Server};
use crate::dhcp::lease::State;
use crate::dhcp::wire::MessageType;

impl Server {
    /// RFC 2131, section 4.3.3: "the server MUST mark the network address as not available".
    pub(super) fn decline(&mut self, asked: &mut Asked<'_>) -> Result<(), Reason> {
        self.is_for_us(asked)?;
        let address = asked.requested().ok_or(Reason::Incomplete)?;
        let binding = self.leases.get(address);
        let has = binding.is_some_and(|binding| {
            let is_live = matches!(binding.state, State::Offered | State::Leased);
            binding.key == asked.key && is_live
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
        let leased =
            binding.filter(|binding| binding.key == asked.key && binding.state == State::Leased);
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
    /// lease expiration time to the client and SHOULD NOT fill in 'yiaddr'."
    pub(super) fn inform(&mut self, asked: &mut Asked<'_>) -> Result<(), Reason> {
        asked.network()?;
        if asked.message.ciaddr.is_unspecified() {
            return Err(Reason::Incomplete);
        }
        asked.say("it has an address and wants to know the rest");
        let mut ack = self.compose(asked, Some(MessageType::Ack), None, None);
        ack.ciaddr = asked.message.ciaddr;
        self.reply(asked, ack);
        Ok(())
    }

    /// RFC 1534, section 2: a client of BOOTP keeps its address for ever, so it gets none but its
    /// own.
    pub(super) fn bootp(&mut self, asked: &mut Asked<'_>) -> Result<(), Reason> {
        let (_, network) = asked.network()?;
        asked.say("BOOTP: no type of message, so no lease either");
        let own = self.own(asked, network).ok_or(Reason::Bootp)?;
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
