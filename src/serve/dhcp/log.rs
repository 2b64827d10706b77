//! What people are told of DHCP. What strangers can bring about any number of times is told at most
//! once in a while, with how often it happened.

use std::io;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use crate::dhcp::server::{Event, Reply, Report};
use crate::dhcp::wire::{Malformed, Message};

/// Time between two lines of one kind.
const EVERY: Duration = Duration::from_secs(60);
/// Time between the first line of a kind and the second: what comes in a burst is told of soon.
const SOON: Duration = Duration::from_secs(5);

/// The kinds of lines that are not repeated at once.
#[derive(Debug, Default)]
pub(super) struct Log {
    malformed: Seldom,
    rival: Seldom,
    not_sent: Seldom,
    not_saved: Seldom,
    no_address: Seldom,
    no_room: Seldom,
}

/// How often something happened, and when that was told last.
#[derive(Debug, Default)]
struct Seldom {
    /// When, and for how long nothing is told after it.
    told: Option<(Instant, Duration)>,
    untold: u64,
    /// What is to be said of the last that is untold.
    last: String,
}

impl Seldom {
    /// Counts; how many there are to be told of, where it is time for that.
    fn count(&mut self, now: Instant, last: impl FnOnce() -> String) -> Option<(u64, String)> {
        self.untold += 1;
        self.last = last();
        self.due(now)
    }

    /// When [`Self::due`] has something to tell.
    fn next(&self) -> Option<Instant> {
        let (told, pause) = self.told.filter(|_| self.untold > 0)?;
        Some(told + pause)
    }

    /// How many there are to be told of by now.
    fn due(&mut self, now: Instant) -> Option<(u64, String)> {
        let since = self
            .told
            .map(|(told, pause)| (now.duration_since(told), pause));
        if since.is_some_and(|(since, pause)| since < pause) {
            return None;
        }
        let rest = self.rest()?;
        let is_first = since.is_none_or(|(since, _)| since >= 2 * EVERY);
        self.told = Some((now, if is_first { SOON } else { EVERY }));
        Some(rest)
    }

    /// All that are untold.
    fn rest(&mut self) -> Option<(u64, String)> {
        let last = std::mem::take(&mut self.last);
        let untold = std::mem::take(&mut self.untold);
        (untold > 0).then_some((untold, last))
    }
}

fn tell_malformed((count, last): (u64, String)) {
    tracing::warn!("dropped {count} malformed DHCP datagrams, the last from {last}");
}

fn tell_not_sent((count, last): (u64, String)) {
    tracing::warn!("{count} replies not sent, the last a {last}");
}

fn tell_no_address((count, last): (u64, String)) {
    tracing::warn!(
        "no address left for {count} requests, the last of {last}: make the ranges larger"
    );
}

fn tell_no_room((count, last): (u64, String)) {
    tracing::warn!(
        "{count} replies go to relays without their option 82, for which there was no room, the \
         last to {last}: a relay may drop those"
    );
}

impl Drop for Log {
    /// What is untold at the end is told then.
    fn drop(&mut self) {
        self.tell(Seldom::rest);
    }
}

impl Log {
    /// When [`Self::tell_due`] has something to tell.
    pub(super) fn next(&self) -> Option<Instant> {
        let counted = [
            &self.malformed,
            &self.not_sent,
            &self.no_address,
            &self.no_room,
        ];
        counted.into_iter().filter_map(Seldom::next).min()
    }

    /// Tells what has been held back for long enough.
    pub(super) fn tell_due(&mut self, now: Instant) {
        self.tell(|seldom| seldom.due(now));
    }

    fn tell(&mut self, mut take: impl FnMut(&mut Seldom) -> Option<(u64, String)>) {
        take(&mut self.malformed)
            .into_iter()
            .for_each(tell_malformed);
        take(&mut self.not_sent).into_iter().for_each(tell_not_sent);
        take(&mut self.no_address)
            .into_iter()
            .for_each(tell_no_address);
        take(&mut self.no_room).into_iter().for_each(tell_no_room);
    }

    pub(super) fn malformed(&mut self, from: SocketAddrV4, why: Malformed) {
        tracing::debug!("dropped a datagram from {from}: {why}");
        let told = self
            .malformed
            .count(Instant::now(), || format!("{from}: {why}"));
        told.into_iter().for_each(tell_malformed);
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
        let last = || {
            let (kind, mac) = (kind(message), message.chaddr);
            format!("{kind} to {mac} ({to:?}): {error}")
        };
        let told = self.not_sent.count(Instant::now(), last);
        told.into_iter().for_each(tell_not_sent);
    }

    pub(super) fn not_saved(&mut self, error: &io::Error, replies: usize) {
        if self.not_saved.count(Instant::now(), String::new).is_some() {
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
                if self.rival.count(Instant::now(), String::new).is_some() {
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
                     at most; sooner where that is refused it or boots, and asks anew"
                );
            }
            Event::Declined(address) => {
                tracing::warn!("{mac} found that {address} is in use by somebody else: {why}");
            }
            Event::Taken(address) => {
                tracing::warn!("somebody uses {address} without a lease: it is not given to {mac}");
            }
            Event::Released(address) => tracing::debug!("{mac} has given {address} back"),
            Event::RelayLeftOut => self.no_room(report),
            Event::Ignored(reason) => self.ignored(*reason, report, &why),
        }
    }

    fn no_room(&mut self, report: &Report) {
        let told = self
            .no_room
            .count(Instant::now(), || report.mac.to_string());
        told.into_iter().for_each(tell_no_room);
    }

    fn ignored(&mut self, reason: crate::dhcp::server::Reason, report: &Report, why: &str) {
        let mac = report.mac;
        let kind = report.kind.map_or("BOOTP request", |kind| kind.name());
        tracing::debug!("{kind} of {mac} ignored ({}): {why}", reason.name());
        if reason == crate::dhcp::server::Reason::NoAddress {
            let told = self.no_address.count(Instant::now(), || mac.to_string());
            told.into_iter().for_each(tell_no_address);
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
        let mut count = |at| seldom.count(at, String::new).map(|(count, _)| count);
        assert_eq!(count(now), Some(1));
        assert_eq!(count(now + SOON / 2), None);
        assert_eq!(count(now + SOON), Some(2));
        assert_eq!(count(now + 2 * SOON), None);
        assert_eq!(count(now + SOON + EVERY), Some(2));
    }

    #[test]
    fn what_is_held_back_is_told_when_it_is_time_though_nothing_more_happens() {
        let (mut seldom, now) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.next(), None);
        let _ = seldom.count(now, || "first".to_owned());
        assert_eq!((seldom.next(), seldom.due(now + EVERY)), (None, None));
        let _ = seldom.count(now, || "second".to_owned());
        assert_eq!(seldom.next(), Some(now + SOON));
        assert_eq!(seldom.due(now + SOON), Some((1, "second".to_owned())));
        assert_eq!(seldom.rest(), None);
    }
}
