//! Names made of addresses, for clients that have no other.
//!
//! Invariants:
//! - Two peers never give one name, except an IPv4 address and its IPv4-mapped IPv6 form.
//! - A name made from a peer is a valid [`Name`], and [`is_of_a_peer`] says that it is one.

use std::net::{IpAddr, Ipv6Addr};

use super::Peer;
use crate::name::Name;

/// What all peers of unix sockets are called.
const LOCAL: &str = "local";

/// The name of a peer of which nothing is known but where it comes from.
#[must_use]
pub fn name_of(peer: &Peer) -> Name {
    let text = match peer {
        Peer::Local => LOCAL.to_owned(),
        Peer::Ip(address) => match address.to_canonical() {
            IpAddr::V4(address) => address.to_string().replace('.', "-"),
            IpAddr::V6(address) => spell_v6(address),
        },
    };
    Name::new(&text).expect("an address has hex digits and dashes only, and at least one dash")
}

/// The usual short form with `-` for `:`, and a 0 where it would start or end with a dash:
/// `fe80::1` is `fe80--1`, `::1` is `0--1`.
///
/// The 0 takes nothing from uniqueness, since the short form never has a lone 0 beside `::`. An
/// IPv4 name has three single dashes, this one seven dashes or a double one.
fn spell_v6(address: Ipv6Addr) -> String {
    let text = address.to_string().replace(':', "-");
    let before = if text.starts_with('-') { "0" } else { "" };
    let after = if text.ends_with('-') { "0" } else { "" };
    format!("{before}{text}{after}")
}

/// Whether `name` is what some peer is called by its address.
#[must_use]
pub fn is_of_a_peer(name: &Name) -> bool {
    let text = name.as_str();
    let v4 = text.replace('-', ".").parse().map(IpAddr::V4);
    let v6 = text.replace('-', ":").parse().map(IpAddr::V6);
    let address = v4.or(v6).map(|address| name_of(&Peer::Ip(address)));
    text == LOCAL || address.is_ok_and(|spelled| spelled == *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(address: &str) -> String {
        name_of(&Peer::Ip(address.parse().unwrap())).to_string()
    }

    #[test]
    fn v6_addresses_keep_their_short_form() {
        assert_eq!(named("fe80::5054:ff:fe12:3456"), "fe80--5054-ff-fe12-3456");
        assert_eq!(named("::1"), "0--1");
        assert_eq!(named("2001:db8::"), "2001-db8--0");
        assert_eq!(named("::"), "0--0");
        assert_eq!(named("1:2:3:4:5:6:7:8"), "1-2-3-4-5-6-7-8");
    }

    #[test]
    fn an_ipv4_mapped_address_is_the_ipv4_address() {
        assert_eq!(named("::ffff:10.77.0.12"), "10-77-0-12");
    }

    #[test]
    fn a_unix_socket_peer_is_local() {
        assert_eq!(name_of(&Peer::Local).as_str(), "local");
        assert!(is_of_a_peer(&name_of(&Peer::Local)));
    }

    #[test]
    fn names_that_people_give_are_of_no_peer() {
        for text in ["studio-3", "52-54-00-12-34-56", "10-0-0", "10-00-0-1", "a"] {
            assert!(!is_of_a_peer(&Name::new(text).unwrap()), "{text}");
        }
    }

    /// The inverse, which shows that no two addresses share a name.
    fn address_of(name: &str) -> IpAddr {
        if !name.contains("--") && name.matches('-').count() == 3 {
            return name.replace('-', ".").parse().unwrap();
        }
        name.replace('-', ":").parse().unwrap()
    }

    /// Groups of zero are where short forms differ, so they come often.
    fn v6() -> impl Strategy<Value = Ipv6Addr> {
        proptest::array::uniform8(prop_oneof![Just(0u16), Just(0xffff), any::<u16>()])
            .prop_map(Ipv6Addr::from)
    }

    proptest! {
        #[test]
        fn every_v6_address_can_be_told_from_its_name(address in v6()) {
            let address = IpAddr::V6(address);
            let name = name_of(&Peer::Ip(address));
            prop_assert_eq!(address_of(name.as_str()), address.to_canonical());
            prop_assert!(is_of_a_peer(&name));
        }

        #[test]
        fn every_v4_address_can_be_told_from_its_name(address in any::<[u8; 4]>()) {
            let address = IpAddr::from(address);
            let name = name_of(&Peer::Ip(address));
            prop_assert_eq!(address_of(name.as_str()), address);
            prop_assert!(is_of_a_peer(&name));
        }
    }
}
