//! How many connections there are: in all, from each address, and in their handshakes.
//!
//! Invariants: a seat that was taken is given back, once, when its connection has ended; one
//! address can't take the seats of all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::access::Peer;
use crate::limits::{
    CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, HANDSHAKES_CROWDED, HANDSHAKES_MAX,
};

/// Lines about connections that were refused come no faster.
const COMPLAIN_EVERY: Duration = Duration::from_secs(1);

/// How many there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    in_all: usize,
    per_address: usize,
    handshakes: usize,
    /// Handshakes of one address where half of all are taken.
    crowded: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_all: CONNECTIONS_MAX,
            per_address: CONNECTIONS_PER_ADDRESS_MAX,
            handshakes: HANDSHAKES_MAX,
            crowded: HANDSHAKES_CROWDED,
        }
    }
}

impl Limits {
    /// Where there are no handshakes.
    pub(super) const fn of_connections(in_all: usize, per_address: usize) -> Self {
        Self {
            in_all,
            per_address,
            handshakes: usize::MAX,
            crowded: usize::MAX,
        }
    }
}

/// Why a connection has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    #[error("there are {0} connections already")]
    InAll(usize),
    #[error("there are {0} connections from its address already")]
    Address(usize),
    #[error("{0} handshakes are under way already")]
    Handshakes(usize),
}

/// All seats.
#[derive(Debug, Default)]
pub(super) struct Seats {
    limits: Limits,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    by_address: HashMap<Peer, Count>,
    handshakes: usize,
    complained: Option<Instant>,
    /// Refused since, without a line.
    unsaid: u64,
}

/// What one address has.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    connections: usize,
    /// Of these, in their handshakes.
    handshakes: usize,
}

/// The place of one connection; dropped with it.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    address: Peer,
    in_handshake: bool,
}

impl Seats {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            taken: Mutex::default(),
        }
    }

    /// A seat for a connection from `peer` that begins its handshake.
    pub(super) fn take(self: &Arc<Self>, peer: &Peer) -> Result<Seat, Full> {
        let address = whole(peer);
        let mut taken = self.taken();
        let mut of_address = taken.by_address.get(&address).copied().unwrap_or_default();
        if taken.in_all >= self.limits.in_all {
            return Err(Full::InAll(taken.in_all));
        }
        if of_address.connections >= self.limits.per_address {
            return Err(Full::Address(of_address.connections));
        }
        let is_crowded = taken.handshakes >= self.limits.handshakes / 2;
        let has_many = is_crowded && of_address.handshakes >= self.limits.crowded;
        if has_many || taken.handshakes >= self.limits.handshakes {
            return Err(Full::Handshakes(taken.handshakes));
        }
        taken.in_all += 1;
        taken.handshakes += 1;
        of_address.connections += 1;
        of_address.handshakes += 1;
        taken.by_address.insert(address, of_address);
        Ok(Seat {
            seats: Arc::clone(self),
            address,
            in_handshake: true,
        })
    }

    /// Whether a refusal at `now` is worth a line, and how many there were before it without one.
    pub(super) fn complain(&self, now: Instant) -> Option<u64> {
        let mut taken = self.taken();
        let is_due = |last| now.saturating_duration_since(last) >= COMPLAIN_EVERY;
        if !taken.complained.is_none_or(is_due) {
            taken.unsaid += 1;
            return None;
        }
        taken.complained = Some(now);
        Some(std::mem::take(&mut taken.unsaid))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// The handshake is over.
    pub(super) fn shook_hands(&mut self) {
        if std::mem::take(&mut self.in_handshake) {
            let mut taken = self.seats.taken();
            taken.handshakes -= 1;
            if let Some(count) = taken.by_address.get_mut(&self.address) {
                count.handshakes -= 1;
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shook_hands();
        let mut taken = self.seats.taken();
        taken.in_all -= 1;
        if let Some(count) = taken.by_address.get_mut(&self.address) {
            count.connections -= 1;
            if count.connections == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// What counts as one address: of IPv6, a machine has at least all that share the first 64 bits.
fn whole(peer: &Peer) -> Peer {
    match peer {
        Peer::Local => Peer::Local,
        Peer::Ip(address) => match address.to_canonical() {
            IpAddr::V4(address) => Peer::Ip(address.into()),
            IpAddr::V6(address) => {
                let network = address.to_bits() & !u128::from(u64::MAX);
                Peer::Ip(Ipv6Addr::from_bits(network).into())
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn seats(in_all: usize, per_address: usize, handshakes: usize) -> Arc<Seats> {
        let limits = Limits {
            in_all,
            per_address,
            handshakes,
            crowded: usize::MAX,
        };
        Arc::new(Seats {
            limits,
            taken: Mutex::default(),
        })
    }

    fn peer(address: &str) -> Peer {
        Peer::Ip(address.parse().unwrap())
    }

    #[test]
    fn a_connection_too_many_in_all_is_refused_until_one_ends() {
        let seats = seats(2, 9, 9);
        let first = seats.take(&peer("10.0.0.1")).unwrap();
        let _second = seats.take(&peer("10.0.0.2")).unwrap();
        let full = seats.take(&peer("10.0.0.3")).unwrap_err();
        assert_eq!(full, Full::InAll(2));
        drop(first);
        seats.take(&peer("10.0.0.3")).unwrap();
    }

    #[test]
    fn so_many_connections_are_served_and_no_more() {
        let seats = Arc::new(Seats::default());
        let address = |n: usize| Ipv4Addr::from_bits(u32::try_from(n).unwrap());
        let take = |n| seats.take(&Peer::Ip(address(n / CONNECTIONS_PER_ADDRESS_MAX).into()));
        let session = |n| {
            let mut seat = take(n).unwrap();
            seat.shook_hands();
            seat
        };
        let mut sessions: Vec<_> = (0..CONNECTIONS_MAX).map(session).collect();
        let full = Full::InAll(CONNECTIONS_MAX);
        assert_eq!(take(CONNECTIONS_MAX).unwrap_err(), full);
        sessions.pop();
        take(CONNECTIONS_MAX).unwrap();
    }

    #[test]
    fn an_address_with_too_many_is_refused_and_others_are_not() {
        let seats = seats(9, 1, 9);
        let _first = seats.take(&peer("10.0.0.1")).unwrap();
        for same in ["10.0.0.1", "::ffff:10.0.0.1"] {
            assert_eq!(seats.take(&peer(same)).unwrap_err(), Full::Address(1));
        }
        seats.take(&peer("10.0.0.2")).unwrap();
        seats.take(&Peer::Local).unwrap();
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one() {
        let seats = seats(9, 1, 9);
        let _first = seats.take(&peer("2001:db8::1")).unwrap();
        assert!(seats.take(&peer("2001:db8::2")).is_err());
        seats.take(&peer("2001:db8:0:1::1")).unwrap();
    }

    #[test]
    fn addresses_that_never_end_their_handshakes_shut_nobody_else_out() {
        let seats = Arc::new(Seats::default());
        let greedy = (1..=4).map(|n| Peer::Ip(Ipv4Addr::new(10, 0, 0, n).into()));
        let hundreds = greedy.flat_map(|peer| std::iter::repeat_n(peer, HANDSHAKES_MAX));
        let taken: Vec<_> = hundreds.filter_map(|peer| seats.take(&peer).ok()).collect();
        assert!(taken.len() < HANDSHAKES_MAX);
        seats.take(&peer("10.0.0.5")).unwrap();
    }

    #[test]
    fn a_handshake_that_is_over_makes_room_for_another() {
        let seats = seats(9, 9, 1);
        let mut first = seats.take(&peer("10.0.0.1")).unwrap();
        assert_eq!(seats.take(&Peer::Local).unwrap_err(), Full::Handshakes(1));
        first.shook_hands();
        let second = seats.take(&Peer::Local).unwrap();
        drop((first, second));
        let taken = seats.taken();
        assert_eq!((taken.in_all, taken.handshakes), (0, 0));
        assert!(taken.by_address.is_empty());
    }

    #[test]
    fn refusals_are_told_of_once_a_second() {
        let seats = seats(0, 0, 0);
        let start = Instant::now();
        assert_eq!(seats.complain(start), Some(0));
        assert_eq!(seats.complain(start), None);
        assert_eq!(seats.complain(start + COMPLAIN_EVERY / 2), None);
        assert_eq!(seats.complain(start + COMPLAIN_EVERY), Some(2));
    }
}
