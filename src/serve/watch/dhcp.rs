//! Messages of DHCP as events.

use std::net::{IpAddr, Ipv4Addr};

use super::Watch;
use crate::dhcp::boot::ARCHITECTURES;
use crate::dhcp::server::{Event as Told, Reason, Reply, Report};
use crate::dhcp::wire::{Message, MessageType, Op, code};
use crate::status::event::{Asker, Speaker};
use crate::status::text::harmless_bytes;
use crate::status::{Event, Sign};

impl Watch {
    /// A machine asks for an address, or what to boot.
    pub(in crate::serve) fn dhcp_asks(&self, message: &Message) {
        if message.op != Op::Request {
            return;
        }
        let speaker = speaker(message);
        let is_question = match message.kind() {
            Ok(Some(MessageType::Discover) | None) => true,
            // One that takes an offer has asked before.
            Ok(Some(MessageType::Request)) => {
                let takes_offer = message.options.address(code::SERVER_IDENTIFIER).is_some();
                speaker == Speaker::System && !takes_offer
            }
            _ => false,
        };
        if !is_question {
            return;
        }
        let text = |bytes: &[u8]| (!bytes.is_empty()).then(|| harmless_bytes(bytes));
        let listed = message.architectures();
        let of_table = ARCHITECTURES
            .iter()
            .find(|one| listed.contains(&one.number));
        let asker = Asker {
            speaker,
            architecture: of_table.map(|one| one.name),
            hostname: message.options.get(code::HOST_NAME).and_then(text),
            vendor: text(message.vendor_class()),
        };
        self.note(&sign(message, None, None), &Event::Asked(asker));
    }

    /// A machine was answered; `name` is what the config calls it.
    pub(in crate::serve) fn dhcp_replied(&self, reply: &Reply, name: Option<String>) {
        let message = &reply.message;
        let own = [message.yiaddr, message.ciaddr];
        let address = own.into_iter().find(|address| !address.is_unspecified());
        let (address, event) = match message.kind() {
            Ok(Some(MessageType::Offer)) => (None, Event::Offered),
            Ok(Some(MessageType::Nak)) => {
                let why = format!("it was refused its address: {}", reply.why.join("; "));
                (None, Event::Ignored(why))
            }
            _ => (address, Event::Acknowledged),
        };
        self.note(&sign(message, address, name), &event);
    }

    /// A message was not answered.
    pub(in crate::serve) fn dhcp_reported(&self, report: &Report) {
        let Told::Ignored(reason) = report.what else {
            return;
        };
        // What is usual, or is about to be answered.
        if matches!(
            reason,
            Reason::Type | Reason::Probing | Reason::NotBooting | Reason::Proxy
        ) {
            return;
        }
        let sign = Sign {
            mac: Some(report.mac),
            ..Sign::default()
        };
        let why = format!("{} ({})", report.why.join("; "), reason.name());
        self.note(&sign, &Event::Ignored(why));
    }
}

fn sign(message: &Message, address: Option<Ipv4Addr>, name: Option<String>) -> Sign {
    Sign {
        mac: Some(message.chaddr),
        address: address.map(IpAddr::V4),
        name,
    }
}

fn speaker(message: &Message) -> Speaker {
    let class = message.vendor_class();
    let is_boot = class.starts_with(b"PXEClient") || class.starts_with(b"HTTPClient");
    if message.is_ipxe() {
        Speaker::Ipxe
    } else if is_boot || !message.architectures().is_empty() || matches!(message.kind(), Ok(None)) {
        Speaker::Firmware
    } else {
        Speaker::System
    }
}
