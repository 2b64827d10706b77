//! Other DHCP servers on our links.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::{Arrival, Effect, Event, Report, Server};
use crate::dhcp::boot::Mode;
use crate::dhcp::moment::Moment;
use crate::dhcp::wire::{Message, MessageType, code};
use crate::limits::{DHCP_RIVAL_EVERY, DHCP_RIVALS_MAX};

/// When each was last reported.
#[derive(Clone, Debug, Default)]
pub(super) struct Rivals(BTreeMap<Ipv4Addr, Moment>);

impl Rivals {
    /// Whether it is time to report this one.
    fn is_news(&mut self, now: Moment, server: Ipv4Addr) -> bool {
        let last = self.0.get(&server);
        if last.is_some_and(|last| now.since(*last) < DHCP_RIVAL_EVERY) {
            return false;
        }
        self.0.retain(|_, last| now.since(*last) < DHCP_RIVAL_EVERY);
        // Whoever makes up servers makes up no more reports than this.
        let has_room = self.0.len() < DHCP_RIVALS_MAX;
        if has_room {
            self.0.insert(server, now);
        }
        has_room
    }
}

impl Server {
    /// A reply of a server, perhaps of another one.
    pub(super) fn overhear(&mut self, arrival: &Arrival<'_>) {
        let message = arrival.message;
        let kinds = [MessageType::Offer, MessageType::Ack, MessageType::Nak];
        let is_answer = matches!(message.kind(), Ok(Some(kind)) if kinds.contains(&kind));
        let server = message.options.address(code::SERVER_IDENTIFIER);
        if let Some(server) = server.filter(|_| is_answer) {
            self.see_rival(message, server);
        }
    }

    /// `message` shows that there is a server at this address. A proxy needs one.
    pub(super) fn see_rival(&mut self, message: &Message, server: Ipv4Addr) {
        let is_rival = self.settings.mode == Mode::Server && !self.is_ours(server, message);
        if is_rival && self.rivals.is_news(self.now, server) {
            self.effects.push_back(Effect::Report(Report {
                what: Event::Rival(server),
                mac: message.chaddr,
                kind: message.kind().ok().flatten(),
                why: vec![format!(
                    "{server} gives addresses too: machines take those of the first that answers"
                )],
            }));
        }
    }
}
