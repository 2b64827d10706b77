//! What people are told of DHCP. What strangers can bring about any number of times is told at most
//! once in a while, with how often it happened.

use std::io;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use crate::dhcp::server::{Event, Reply, Report};
use crate::dhcp::wire::{Malformed, Message};

/// Time between two lines of one kind.
const EVERY: Duration = Duration::from_secs(60);

/// The kinds of lines that are not repeated at once.
#[derive(Debug, Default)]
pub(super) struct Log {
    malformed: Seldom,
    rival: Seldom,
    not_sent: Seldom,
    not_saved: Seldom,
    no_address: Seldom,
}

/// How often something happened, and when that was told last.
#[derive(Debug, Default)]
struct Seldom {
    told: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// Counts; how many there are to be told of, where it is time for that.
    fn count(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self
            .told
            .is_some_and(|told| now.duration_since(told) < EVERY)
        {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

impl Log {
    pub(super) fn malformed(&mut self, from: SocketAddrV4, why: Malformed) {
        tracing::debug!("dropped a datagram from {from}: {why}");
        if let Some(count) = self.malformed.count(Instant::now()) {
            tracing::warn!("dropped {count} malformed DHCP datagrams, the last from {from}: {why}");
        }
    }

    pub(super) fn sent(&self, reply: &Reply) {
        let Reply { message, to, .. } = reply;
        tracing::debug!(
            "{} {} to {} ({to:?}): {}",
            kind(message),
            message.yiaddr,
            message.chaddr,
            reply.why.join("; ")
        );
    }

    pub(super) fn not_sent(&mut self, reply: &Reply, error: &io::Error) {
        let Reply { message, to, .. } = reply;
        if let Some(count) = self.not_sent.count(Instant::now()) {
            let kind = kind(message);
            let mac = message.chaddr;
            tracing::warn!(
                "{count} replies not sent, the last a {kind} to {mac} ({to:?}): {error}"
            );
        }
    }

    pub(super) fn not_saved(&mut self, error: &io::Error, replies: usize) {
        if self.not_saved.count(Instant::now()).is_some() {
            tracing::error!(
                "leases can't be saved ({error}): {replies} replies are not sent, machines get no \
                 addresses until that works again"
            );
        }
    }

    pub(super) fn report(&mut self, report: &Report) {
        let Report { what, mac, why, .. } = report;
        let why = why.join("; ");
        match what {
            Event::Rival(address) => {
                if self.rival.count(Instant::now()).is_some() {
                    tracing::warn!(
                        "another DHCP server, {address}, answers on this network: machines may \
                         boot what it says; stop it, or use mode = \"proxy\""
                    );
                }
            }
            Event::OwnLeased {
                address,
                holder,
                left,
            } => {
                let left = left.as_secs();
                tracing::warn!(
                    "{mac}: its own address {address} is still leased to {holder}, for {left} s \
                     at most; it is free as soon as that machine begins anew"
                );
            }
            Event::Declined(address) => {
                tracing::warn!("{mac} found that {address} is in use by somebody else: {why}");
            }
            Event::Taken(address) => {
                tracing::warn!("somebody uses {address} without a lease: it is not given to {mac}");
            }
            Event::Released(address) => tracing::debug!("{mac} has given {address} back"),
            Event::Ignored(reason) => self.ignored(*reason, report, &why),
        }
    }

    fn ignored(&mut self, reason: crate::dhcp::server::Reason, report: &Report, why: &str) {
        let mac = report.mac;
        let kind = report.kind.map_or("BOOTP request", |kind| kind.name());
        tracing::debug!("{kind} of {mac} ignored ({}): {why}", reason.name());
        if reason == crate::dhcp::server::Reason::NoAddress
            && let Some(count) = self.no_address.count(Instant::now())
        {
            tracing::warn!(
                "no address left for {count} requests, the last of {mac}: make the ranges larger"
            );
        }
    }
}

/// What a message is, as people write it.
fn kind(message: &Message) -> &'static str {
    match message.kind() {
        Ok(Some(kind)) => kind.name(),
        _ => "BOOTP reply",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_often_is_told_seldom_and_with_how_often() {
        let (mut seldom, now) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.count(now), Some(1));
        assert_eq!(seldom.count(now + EVERY / 2), None);
        assert_eq!(seldom.count(now + EVERY), Some(2));
    }
}
