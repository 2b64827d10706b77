//! Replies: their options, their length, and where they go.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::ask::Asked;
use super::{Destination, Effect, Event, Reply, Report, Server};
use crate::dhcp::boot::decide;
use crate::dhcp::lease::State;
use crate::dhcp::settings::Told;
use crate::dhcp::wire::{Message, MessageType, code};
use crate::limits::{DHCP_LEASE_TIME, DHCP_LEASE_TIME_MIN, DHCP_REPLY_MIN};

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

impl Server {
    /// For how long the sender gets an address.
    ///
    /// A machine gets its address several times while it boots. Where nearly all of a lease is left
    /// it is told what is left, so that not each time something must reach the disk.
    pub(super) fn term(&self, asked: &Asked<'_>, address: Ipv4Addr) -> Duration {
        let said = asked.told().find_map(|told| told.lease);
        let said = said.map_or(DHCP_LEASE_TIME, |seconds| {
            Duration::from_secs(seconds.into())
        });
        let wished = asked.message.options.number(code::LEASE_TIME);
        let wished = wished.map(|seconds| Duration::from_secs(seconds.into()));
        let wished = wished.map_or(said, |wished| wished.max(DHCP_LEASE_TIME_MIN));
        let term = said.min(wished);
        let binding = self.leases.get(address);
        let own =
            binding.filter(|binding| binding.key == asked.key && binding.state == State::Leased);
        let left = own.map_or(Duration::ZERO, |binding| binding.until.since(self.now));
        let left = Duration::from_secs(left.as_secs());
        match left >= term - term / 8 {
            true => left.min(term),
            false => term,
        }
    }

    /// An OFFER or ACK, or a reply of BOOTP. What stands first in it has the first claim to room.
    pub(super) fn compose(
        &self,
        asked: &mut Asked<'_>,
        kind: Option<MessageType>,
        address: Option<Ipv4Addr>,
        term: Option<Duration>,
    ) -> Message {
        let mut reply = asked.message.reply();
        reply.yiaddr = address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        if let Some(kind) = kind {
            let server = asked.server_identifier();
            reply.options.set(code::MESSAGE_TYPE, [kind as u8]);
            reply.options.set(code::SERVER_IDENTIFIER, server.octets());
        }
        if let Some(term) = term {
            set_times(&mut reply, term);
        }
        asked.tell_way(&mut reply);
        asked.echo(&mut reply);
        let server = asked.link.address;
        let decision = decide(asked.boot(), self.settings.mode, asked.message, server);
        decision.fill(&mut reply, server);
        asked.why.extend(decision.why);
        asked.tell_rest(&mut reply);
        reply
    }

    /// A NAK.
    ///
    /// RFC 2131, section 4.3.2: "If 'giaddr' is set in the DHCPREQUEST message ... The server MUST
    /// set the broadcast bit in the DHCPNAK, so that the relay agent will broadcast the DHCPNAK to
    /// the client, because the client may not have a correct network address or subnet mask".
    pub(super) fn refuse(&mut self, asked: &mut Asked<'_>, address: Ipv4Addr, why: &str) {
        asked.say(format!("not {address}: {why}"));
        let mut nak = asked.message.reply();
        nak.broadcast |= !nak.giaddr.is_unspecified();
        let server = asked.server_identifier();
        nak.options
            .set(code::MESSAGE_TYPE, [MessageType::Nak as u8]);
        nak.options.set(code::SERVER_IDENTIFIER, server.octets());
        nak.options.set(code::ERROR_MESSAGE, why.as_bytes());
        asked.echo(&mut nak);
        // Section 4.1: "the server broadcasts any DHCPNAK messages to 0xffffffff" without a relay.
        let to = asked.relay().unwrap_or(Destination::Broadcast);
        self.send(asked, nak, to);
    }

    /// Sends an OFFER or ACK, or a reply of BOOTP, where RFC 2131, section 4.1, says.
    pub(super) fn reply(&mut self, asked: &mut Asked<'_>, reply: Message) {
        let to = asked.destination(reply.yiaddr);
        self.send(asked, reply, to);
    }

    pub(super) fn send(&mut self, asked: &mut Asked<'_>, message: Message, to: Destination) {
        // RFC 1542, section 3.3: a client of BOOTP need not take more than the shortest message.
        let is_dhcp = message.options.get(code::MESSAGE_TYPE).is_some();
        let room = if is_dhcp {
            asked.message.room()
        } else {
            DHCP_REPLY_MIN
        };
        self.count_left_out(asked, &message, room);
        self.effects.push_back(Effect::Send(Reply {
            link: asked.link,
            port: asked.port,
            to,
            message,
            room,
            why: std::mem::take(&mut asked.why),
        }));
    }
}

impl Server {
    /// RFC 3046, section 2.2: a server that can't copy what the relay added "SHALL send the
    /// response without the Relay Information Field, and SHOULD increment an error counter for the
    /// situation".
    fn count_left_out(&mut self, asked: &Asked<'_>, message: &Message, room: usize) {
        let is_relayed = message.options.get(code::RELAY_AGENT).is_some();
        if is_relayed && message.write(room).left_out.contains(&code::RELAY_AGENT) {
            self.effects.push_back(Effect::Report(Report {
                what: Event::RelayLeftOut,
                mac: asked.message.chaddr,
                kind: asked.message.kind().ok().flatten(),
                why: asked.why.clone(),
            }));
        }
    }
}

/// RFC 2131, section 4.4.5: "T1 defaults to (0.5 * duration_of_lease). T2 defaults to (0.875 *
/// duration_of_lease)."
fn set_times(reply: &mut Message, term: Duration) {
    let seconds = u32::try_from(term.as_secs()).unwrap_or(u32::MAX);
    let times = [
        (code::LEASE_TIME, seconds),
        (code::RENEWAL_TIME, seconds / 2),
        (code::REBINDING_TIME, seconds - seconds / 8),
    ];
    for (code, seconds) in times {
        reply.options.set(code, seconds.to_be_bytes());
    }
}

impl Asked<'_> {
    /// The relay that the sender is behind.
    pub(super) fn relay(&mut self) -> Option<Destination> {
        let relay = self.message.giaddr;
        if relay.is_unspecified() {
            return None;
        }
        self.say(format!("it goes to the relay at {relay}"));
        let port = match self.message.wants_relay_port() {
            true => self.from.port(),
            false => SERVER_PORT,
        };
        Some(Destination::Relay(SocketAddrV4::new(relay, port)))
    }

    /// An address that the sender has.
    pub(super) fn at(&mut self, has: Ipv4Addr) -> Destination {
        self.say(format!("it goes to {has}, which the machine has"));
        Destination::Unicast(SocketAddrV4::new(has, CLIENT_PORT))
    }

    fn destination(&mut self, address: Ipv4Addr) -> Destination {
        if let Some(relay) = self.relay() {
            return relay;
        }
        let has = self.message.ciaddr;
        if !has.is_unspecified() {
            return self.at(has);
        }
        if self.message.broadcast {
            self.say("it goes to everybody, as the flags ask");
            return Destination::Broadcast;
        }
        self.say("it goes to the machine's card, as the flags ask");
        Destination::Hardware {
            mac: self.message.chaddr,
            ip: address,
        }
    }

    /// RFC 6842, section 3: "the server MUST return the client identifier option, unaltered". RFC
    /// 4578, section 2.3: the same for the UUID, by which GRUB looks for its config. RFC 3046,
    /// section 2.2: the relay's option 82; `write` puts it last.
    pub(super) fn echo(&self, reply: &mut Message) {
        let mut codes = vec![code::CLIENT_IDENTIFIER, code::MACHINE_UUID];
        if !self.message.giaddr.is_unspecified() {
            codes.push(code::RELAY_AGENT);
        }
        for code in codes {
            if let Some(value) = self.message.options.get(code) {
                reply.options.set(code, value);
            }
        }
    }

    /// RFC 2132, section 3.3: "If both the subnet mask and the router option are specified in a
    /// DHCP reply, the subnet mask option MUST be first."
    fn tell_way(&self, reply: &mut Message) {
        if let Ok((_, network)) = self.network() {
            reply
                .options
                .set(code::SUBNET_MASK, network.mask().octets());
        }
        let routers = self.told().map(|told| &told.routers);
        set_list(reply, code::ROUTER, routers);
    }

    /// RFC 2132, section 9.8: the server "MUST try to insert the requested options in the order
    /// requested by the client". An option that the config gives by its number comes last, so that
    /// it has the last word.
    fn tell_rest(&self, reply: &mut Message) {
        let mut rest = self.rest();
        let asked = self.message.options.get(code::PARAMETER_REQUEST);
        let asked = asked.unwrap_or_default();
        rest.sort_by_key(|(code, _)| {
            let place = asked.iter().position(|wanted| wanted == code);
            place.unwrap_or(asked.len())
        });
        for (code, value) in rest {
            reply.options.set(code, value);
        }
    }

    fn rest(&self) -> Vec<(u8, Vec<u8>)> {
        let mut rest = Message::request(0, self.message.chaddr);
        if let Ok((_, network)) = self.network() {
            let everybody = network.broadcast();
            rest.options
                .set(code::BROADCAST_ADDRESS, everybody.octets());
        }
        if let Some(machine) = self.machine {
            rest.options
                .set(code::HOST_NAME, machine.name.as_str().as_bytes());
        }
        set_list(&mut rest, code::DNS, self.told().map(|told| &told.dns));
        set_list(&mut rest, code::NTP, self.told().map(|told| &told.ntp));
        if let Some(domain) = self.told().find_map(|told| told.domain.as_deref()) {
            rest.options.set(code::DOMAIN, domain.as_bytes());
        }
        let widest_first: Vec<&Told> = self.told().collect();
        for told in widest_first.into_iter().rev() {
            for (code, value) in &told.options {
                rest.options.set(*code, value.as_slice());
            }
        }
        let rest = rest.options.iter();
        rest.map(|(code, value)| (code, value.to_vec())).collect()
    }
}

/// The first list that has anything in it.
fn set_list<'a>(reply: &mut Message, code: u8, mut lists: impl Iterator<Item = &'a Vec<Ipv4Addr>>) {
    if let Some(list) = lists.find(|list| !list.is_empty()) {
        let octets: Vec<u8> = list.iter().flat_map(Ipv4Addr::octets).collect();
        reply.options.set(code, octets);
    }
}
