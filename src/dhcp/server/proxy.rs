//! Proxy mode, and the port of boot servers (PXE 2.1, sections 2.2.3 to 2.2.5).
//!
//! Invariant: a proxy gives no address, and refuses none: `yiaddr` is 0, and there is no NAK.

use std::net::SocketAddrV4;

use super::ask::Asked;
use super::{Destination, Reason, Server};
use crate::dhcp::boot::{Decision, Mode, decide};
use crate::dhcp::wire::{Message, MessageType, code, suboption};

/// PXE 2.1, table "PXE boot server discovery": which boot server and layer is meant.
const BOOT_ITEM: u8 = 71;
/// The end of PXE's suboptions.
const SUBOPTIONS_END: u8 = 255;

impl Server {
    /// A message to port 67, beside the server that gives addresses.
    pub(super) fn proxy(
        &mut self,
        asked: &mut Asked<'_>,
        kind: Option<MessageType>,
    ) -> Result<(), Reason> {
        if kind == Some(MessageType::Request) {
            // Nobody but the server that gives it knows earlier which address this boot has.
            self.tell_of_boot(asked, asked.requested());
        }
        if kind != Some(MessageType::Discover) {
            asked.say("a proxy answers nothing but DISCOVER on this port");
            return Err(Reason::Proxy);
        }
        self.tell_of_boot(asked, None);
        let decision = what_to_boot(asked)?;
        let mut offer = self.boot_reply(asked, MessageType::Offer, &decision);
        // The client has no address yet, and gets none from us.
        offer.broadcast = true;
        let to = asked.relay().unwrap_or(Destination::Broadcast);
        self.send(asked, offer, to);
        Ok(())
    }

    /// A message to port 4011.
    ///
    /// UEFI asks there after an offer of a proxy without a list of boot servers, and also after an
    /// offer that it takes for one.
    pub(super) fn boot_server(
        &mut self,
        asked: &mut Asked<'_>,
        kind: Option<MessageType>,
    ) -> Result<(), Reason> {
        let asks = [
            MessageType::Request,
            MessageType::Inform,
            MessageType::Discover,
        ];
        if !kind.is_some_and(|kind| asks.contains(&kind)) {
            return Err(Reason::Type);
        }
        let decision = what_to_boot(asked)?;
        let mut ack = self.boot_reply(asked, MessageType::Ack, &decision);
        ack.ciaddr = asked.message.ciaddr;
        let to = asked.who_asks_the_boot_server().ok_or(Reason::Incomplete)?;
        asked.say("port 4011: the answer goes where the question came from");
        self.send(asked, ack, to);
        Ok(())
    }

    fn boot_reply(&self, asked: &mut Asked<'_>, kind: MessageType, decision: &Decision) -> Message {
        let mut reply = asked.message.reply();
        let server = asked.link.address;
        reply.options.set(code::MESSAGE_TYPE, [kind as u8]);
        reply.options.set(code::SERVER_IDENTIFIER, server.octets());
        asked.echo(&mut reply);
        decision.fill(&mut reply, server);
        asked.why.extend(decision.why.iter().cloned());
        echo_boot_item(asked, &mut reply);
        reply
    }
}

/// A proxy has nothing to say to a machine that boots nothing from us.
fn what_to_boot(asked: &mut Asked<'_>) -> Result<Decision, Reason> {
    let server = asked.link.address;
    let decision = decide(asked.boot(), Mode::Proxy, asked.message, server);
    if decision.file.is_none() {
        asked.why.extend(decision.why);
        return Err(Reason::NotBooting);
    }
    Ok(decision)
}

/// A boot server says for which of its items it answers.
fn echo_boot_item(asked: &mut Asked<'_>, reply: &mut Message) {
    let asked_for = asked.message.options.get(code::VENDOR);
    let item = asked_for.and_then(|options| suboption(options, BOOT_ITEM));
    let Some(item) = item.filter(|item| item.len() == 4) else {
        return;
    };
    let said = reply.options.get(code::VENDOR).unwrap_or_default();
    let said = said.strip_suffix(&[SUBOPTIONS_END]).unwrap_or(said);
    let all = [said, &[BOOT_ITEM, 4], item, &[SUBOPTIONS_END]].concat();
    reply.options.set(code::VENDOR, all);
    asked.say("it asks a boot server: suboption 71 goes back");
}

impl Asked<'_> {
    fn who_asks_the_boot_server(&mut self) -> Option<Destination> {
        if let Some(relay) = self.relay() {
            return Some(relay);
        }
        let ip = match self.from.ip().is_unspecified() {
            true => self.message.ciaddr,
            false => *self.from.ip(),
        };
        let to = SocketAddrV4::new(ip, self.from.port());
        (!ip.is_unspecified()).then_some(Destination::Unicast(to))
    }
}
