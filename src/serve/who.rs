//! The one place that decides which client a peer is.
//!
//! Invariants:
//! - Two addresses never give one name, except an IPv4 address and its IPv4-mapped IPv6 form.
//! - A name made from an address is a valid [`Name`].

use std::net::{IpAddr, Ipv6Addr};

use crate::export::name::Name;
use crate::overlay::OverlayMode;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Over TCP, from this address.
    Ip(IpAddr),
    /// Over a unix socket.
    Local,
}

/// A machine, and how long its changes are kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// The name its overlay goes by.
    pub name: Name,
    /// The life of its overlay.
    pub mode: OverlayMode,
}

/// Who `peer` is, which `asked` to be this client in its export name.
///
/// DESIGN section 3: "Where no config says otherwise, `@client` gives a persistent overlay";
/// without it the client is its address, "with an ephemeral overlay".
#[must_use]
pub fn client_of(peer: &Peer, asked: Option<&Name>) -> Client {
    match asked {
        Some(name) => Client {
            name: name.clone(),
            mode: OverlayMode::Persistent,
        },
        None => Client {
            name: name_of(peer),
            mode: OverlayMode::Ephemeral,
        },
    }
}

fn name_of(peer: &Peer) -> Name {
    let text = match peer {
        Peer::Local => "local".to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(address: &str) -> String {
        let peer = Peer::Ip(address.parse().unwrap());
        client_of(&peer, None).name.to_string()
    }

    #[test]
    fn a_client_that_names_itself_keeps_its_changes() {
        let asked = Name::new("studio-3").unwrap();
        let client = client_of(&Peer::Local, Some(&asked));
        assert_eq!(client.name, asked);
        assert_eq!(client.mode, OverlayMode::Persistent);
    }

    #[test]
    fn a_client_without_a_name_is_its_address_for_a_while() {
        let peer = Peer::Ip("10.77.0.12".parse().unwrap());
        let client = client_of(&peer, None);
        assert_eq!(client.name.as_str(), "10-77-0-12");
        assert_eq!(client.mode, OverlayMode::Ephemeral);
    }

    #[test]
    fn a_unix_socket_peer_is_local() {
        assert_eq!(client_of(&Peer::Local, None).name.as_str(), "local");
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
            let name = client_of(&Peer::Ip(address), None).name;
            prop_assert_eq!(address_of(name.as_str()), address.to_canonical());
        }

        #[test]
        fn every_v4_address_can_be_told_from_its_name(address in any::<[u8; 4]>()) {
            let address = IpAddr::from(address);
            let name = client_of(&Peer::Ip(address), None).name;
            prop_assert_eq!(address_of(name.as_str()), address);
        }
    }
}
