//! What people are told of DHCP. What strangers can bring about any number of times is told at most
//! once in a while, with how often it happened.

use std::collections::BTreeMap;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Malformed,
    NotSent,
    NoAddress,
    NoRoom,
    Declined,
    Taken,
    Shared,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    seldom: BTreeMap<Kind, Seldom>,
    not_saved: Seldom,
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

impl Kind {
    fn tell(self, (count, last): (u64, String)) {
        let others = match count - 1 {
            0 => String::new(),
            others => format!(" ({others} others before)"),
        };
        match self {
            Self::Malformed => {
                tracing::warn!("dropped {count} malformed DHCP datagrams, the last from {last}");
            }
            Self::NotSent => tracing::warn!("{count} replies not sent, the last a {last}"),
            Self::NoAddress => tracing::warn!(
                "no address left for {count} requests, the last of {last}: make the ranges larger"
            ),
            Self::NoRoom => tracing::warn!(
                "{count} replies go to relays without their option 82, for which there was no \
                 room, the last to {last}: a relay may drop those"
            ),
            Self::Declined | Self::Taken | Self::Shared => tracing::warn!("{last}{others}"),
        }
    }
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
        self.seldom.values().filter_map(Seldom::next).min()
    }

    /// Tells what has been held back for long enough.
    pub(super) fn tell_due(&mut self, now: Instant) {
        self.tell(|seldom| seldom.due(now));
    }

    fn tell(&mut self, mut take: impl FnMut(&mut Seldom) -> Option<(u64, String)>) {
        for (kind, seldom) in &mut self.seldom {
            take(seldom).into_iter().for_each(|told| kind.tell(told));
        }
    }

    fn count(&mut self, kind: Kind, last: impl FnOnce() -> String) {
        let seldom = self.seldom.entry(kind).or_default();
        let told = seldom.count(Instant::now(), last);
        told.into_iter().for_each(|told| kind.tell(told));
    }

    pub(super) fn malformed(&mut self, from: SocketAddrV4, why: Malformed) {
        tracing::debug!("dropped a datagram from {from}: {why}");
        self.count(Kind::Malformed, || format!("{from}: {why}"));
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
        self.count(Kind::NotSent, last);
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
            // The core says when it is time for one of them again.
            Event::Rival(address) => tracing::warn!(
                "another DHCP server, {address}, answers on this network: machines may boot what \
                 it says; stop it, or use mode = \"proxy\""
            ),
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
            Event::Declined(address) => self.count(Kind::Declined, || {
                format!("{mac} found that {address} is in use by somebody else: {why}")
            }),
            Event::Taken(address) => self.count(Kind::Taken, || {
                format!("somebody uses {address} without a lease: it is not given to {mac}")
            }),
            Event::Shared { address, holder } => self.count(Kind::Shared, || {
                format!(
                    "{mac} says that it is the machine of {holder}, which uses {address}: it gets \
                     another address; two machines may have one UUID or client identifier"
                )
            }),
            Event::Released(address) => tracing::debug!("{mac} has given {address} back"),
            Event::RelayLeftOut => self.count(Kind::NoRoom, || mac.to_string()),
            Event::Ignored(reason) => self.ignored(*reason, report, &why),
        }
    }

    fn ignored(&mut self, reason: crate::dhcp::server::Reason, report: &Report, why: &str) {
        let mac = report.mac;
        let kind = report.kind.map_or("BOOTP request", |kind| kind.name());
        tracing::debug!("{kind} of {mac} ignored ({}): {why}", reason.name());
        if reason == crate::dhcp::server::Reason::NoAddress {
            self.count(Kind::NoAddress, || mac.to_string());
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
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::mac::MacAddress;

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

    /// What people are told while `work` is done.
    fn told(work: impl FnOnce()) -> String {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || Kept(Arc::clone(&kept)))
            .finish();
        tracing::subscriber::with_default(subscriber, work);
        let lines = lines.lock().unwrap().clone();
        String::from_utf8(lines).unwrap()
    }

    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn report(what: Event) -> Report {
        Report {
            what,
            mac: MacAddress([2, 0, 0, 0, 0, 9]),
            kind: None,
            why: Vec::new(),
        }
    }

    #[test]
    fn each_other_server_that_is_reported_is_named() {
        let lines = told(|| {
            let mut log = Log::default();
            for last in [7, 8, 9] {
                log.report(&report(Event::Rival([10, 0, 0, last].into())));
            }
        });
        for last in [7, 8, 9] {
            assert!(lines.contains(&format!("10.0.0.{last}")), "{lines}");
        }
    }

    #[test]
    fn addresses_that_machines_decline_are_told_once_in_a_while() {
        let lines = told(|| {
            let mut log = Log::default();
            for last in 1..=100 {
                log.report(&report(Event::Declined([10, 0, 0, last].into())));
            }
        });
        let lines: Vec<_> = lines.lines().collect();
        assert_eq!(lines.len(), 2, "the first, and the rest at the end");
        assert!(lines[0].contains("10.0.0.1 "), "{lines:?}");
        assert!(lines[1].contains("10.0.0.100 ") && lines[1].contains("98 others"));
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
