//! Addresses that are looked for before they are offered: on our own links by ARP, behind relays by
//! ICMP.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::mac::MacAddress;

/// How often an address is asked for: once more than one lost packet needs.
const TIMES: u8 = 2;

/// Time that an answer has. Whoever has an address on the same link answers within a few
/// milliseconds; the machine that waits for its offer asks again after a second or more.
const PATIENCE: Duration = Duration::from_millis(200);

/// How an address is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By ARP, on this one of the links.
    Arp(usize),
    /// By ICMP.
    Echo,
}

/// What is being looked for.
#[derive(Debug, Default)]
pub(super) struct Probes(HashMap<Ipv4Addr, Probe>);

#[derive(Debug)]
struct Probe {
    way: Way,
    /// The machine that is to get the address: it may answer, since it had it before.
    mac: MacAddress,
    asked: u8,
    next: Instant,
}

/// What to do about a probe whose time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Ask again.
    Ask {
        /// How.
        way: Way,
        /// For this.
        address: Ipv4Addr,
    },
    /// Nobody has it.
    Free(Ipv4Addr),
}

impl Probes {
    /// Looks for an address; it is asked for the first time by this.
    pub(super) fn begin(&mut self, way: Way, address: Ipv4Addr, mac: MacAddress, now: Instant) {
        let probe = Probe {
            way,
            mac,
            asked: 1,
            next: now + PATIENCE,
        };
        self.0.insert(address, probe);
    }

    /// Somebody has an address. Whether that was asked for, and is not who may have it.
    pub(super) fn heard(&mut self, address: Ipv4Addr, mac: Option<MacAddress>) -> bool {
        let is_other = |probe: &Probe| mac != Some(probe.mac);
        let is_taken = self.0.get(&address).is_some_and(is_other);
        if is_taken {
            self.0.remove(&address);
        }
        is_taken
    }

    /// When [`Self::due`] has something to tell.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|probe| probe.next).min()
    }

    /// What is to be done now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        self.0.retain(|address, probe| {
            if probe.next > now {
                return true;
            }
            let (way, address) = (probe.way, *address);
            if probe.asked == TIMES {
                due.push(Due::Free(address));
                return false;
            }
            probe.asked += 1;
            probe.next = now + PATIENCE;
            due.push(Due::Ask { way, address });
            true
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);

    fn begun() -> (Probes, Instant) {
        let (mut probes, now) = (Probes::default(), Instant::now());
        probes.begin(Way::Arp(3), ADDRESS, MAC, now);
        (probes, now)
    }

    #[test]
    fn an_address_that_nobody_answers_to_is_free_after_two_questions() {
        let (mut probes, now) = begun();
        assert_eq!(probes.due(now), []);
        assert_eq!(probes.next(), Some(now + PATIENCE));
        let again = Due::Ask {
            way: Way::Arp(3),
            address: ADDRESS,
        };
        assert_eq!(probes.due(now + PATIENCE), [again]);
        assert_eq!(probes.due(now + PATIENCE), []);
        assert_eq!(probes.due(now + 2 * PATIENCE), [Due::Free(ADDRESS)]);
        assert_eq!(probes.next(), None);
    }

    #[test]
    fn whoever_answers_has_it() {
        let (mut probes, now) = begun();
        assert!(probes.heard(ADDRESS, Some(MacAddress([2; 6]))));
        assert!(
            !probes.heard(ADDRESS, Some(MacAddress([2; 6]))),
            "told once"
        );
        assert_eq!(probes.due(now + 9 * PATIENCE), []);
    }

    #[test]
    fn an_answer_of_the_machine_itself_does_not_count() {
        let (mut probes, _) = begun();
        assert!(!probes.heard(ADDRESS, Some(MAC)));
        assert!(probes.next().is_some());
    }

    #[test]
    fn an_answer_that_nobody_asked_for_does_not_count() {
        let (mut probes, _) = begun();
        assert!(!probes.heard([10, 0, 0, 8].into(), None));
    }
}
