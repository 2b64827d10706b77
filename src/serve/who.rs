//! The one place that decides which client a peer is, and who has which address.
//!
//! Invariants:
//! - Two addresses never give one name, except an IPv4 address and its IPv4-mapped IPv6 form.
//! - A name made from an address is a valid [`Name`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, PoisonError, RwLock};

use crate::config::{ClientConfig, HerdConfig, Keep};
use crate::name::Name;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Over TCP, from this address.
    Ip(IpAddr),
    /// Over a unix socket.
    Local,
}

/// A machine, and what it gets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// The name its overlay goes by.
    pub name: Name,
    /// What becomes of its changes.
    pub keep: Keep,
    /// The image it gets where it asks for none; `None` is the first one.
    pub image: Option<Name>,
}

/// Who is who. What the config says of it can be exchanged while it is asked.
#[derive(Debug, Default)]
pub struct Directory {
    known: RwLock<Arc<Known>>,
}

impl Directory {
    /// Knows whom the config names.
    #[must_use]
    pub fn new(herd: HerdConfig) -> Self {
        let known = RwLock::new(Arc::new(Known::new(herd)));
        Self { known }
    }

    /// From now on the config says this.
    pub fn replace(&self, herd: HerdConfig) {
        let known = Arc::new(Known::new(herd));
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    fn known(&self) -> Arc<Known> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&known)
    }

    /// The name of the client whose address this is; `None` where nobody is known to have it.
    #[must_use]
    pub fn holder_of(&self, address: IpAddr) -> Option<Name> {
        let known = self.known();
        known.by_address(address).map(|client| client.name.clone())
    }

    /// Who `peer` is, which `asked` to be this client in its export name.
    ///
    /// DESIGN section 3: "Without `@client` the client is the lease holder of the peer's address,
    /// else the address itself, with an ephemeral overlay. Where no config says otherwise,
    /// `@client` gives a persistent overlay."
    #[must_use]
    pub fn client_of(&self, peer: &Peer, asked: Option<&Name>) -> Client {
        let known = self.known();
        let name = match (asked, peer) {
            (Some(name), _) => Some(name.clone()),
            (None, Peer::Ip(address)) => self.holder_of(*address),
            (None, Peer::Local) => None,
        };
        match name {
            Some(name) => known.named(name),
            None => known.nameless(name_of(peer)),
        }
    }
}

/// What the config says of clients, by what is asked for.
#[derive(Debug, Default)]
struct Known {
    clients: HashMap<Name, ClientConfig>,
    addresses: HashMap<Ipv4Addr, Name>,
    default_image: Option<Name>,
    default_overlay: Option<Keep>,
}

impl Known {
    fn new(herd: HerdConfig) -> Self {
        let address = |client: &ClientConfig| Some((client.address?, client.name.clone()));
        Self {
            addresses: herd.clients.iter().filter_map(address).collect(),
            default_image: herd.default_image,
            default_overlay: herd.default_overlay,
            clients: herd
                .clients
                .into_iter()
                .map(|client| (client.name.clone(), client))
                .collect(),
        }
    }

    fn by_address(&self, address: IpAddr) -> Option<&ClientConfig> {
        match address.to_canonical() {
            IpAddr::V4(address) => self.clients.get(self.addresses.get(&address)?),
            IpAddr::V6(_) => None,
        }
    }

    fn named(&self, name: Name) -> Client {
        let said = self.clients.get(&name);
        let keep = said.and_then(|client| client.overlay);
        Client {
            keep: keep.or(self.default_overlay).unwrap_or(Keep::Persistent),
            image: said
                .and_then(|client| client.image.clone())
                .or_else(|| self.default_image.clone()),
            name,
        }
    }

    /// An address may be another machine's tomorrow: what it changed is never kept for long.
    fn nameless(&self, name: Name) -> Client {
        let keep = match self.default_overlay {
            Some(Keep::ReadOnly) => Keep::ReadOnly,
            _ => Keep::Ephemeral,
        };
        Client {
            name,
            keep,
            image: self.default_image.clone(),
        }
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
        Directory::default().client_of(&peer, None).name.to_string()
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn peer(address: &str) -> Peer {
        Peer::Ip(address.parse().unwrap())
    }

    /// One client `a` at 10.0.0.1 that says this of its changes.
    fn herd(overlay: Option<Keep>, default_overlay: Option<Keep>) -> Directory {
        Directory::new(HerdConfig {
            default_image: Some(name("usual")),
            default_overlay,
            clients: vec![ClientConfig {
                name: name("a"),
                mac: None,
                address: Some([10, 0, 0, 1].into()),
                image: Some(name("own")),
                overlay,
            }],
        })
    }

    #[test]
    fn a_client_that_names_itself_keeps_its_changes() {
        let asked = name("studio-3");
        let client = Directory::default().client_of(&Peer::Local, Some(&asked));
        assert_eq!(client.name, asked);
        assert_eq!(client.keep, Keep::Persistent);
    }

    #[test]
    fn a_client_without_a_name_is_its_address_for_a_while() {
        let client = Directory::default().client_of(&peer("10.77.0.12"), None);
        assert_eq!(client.name.as_str(), "10-77-0-12");
        assert_eq!(client.keep, Keep::Ephemeral);
    }

    #[test]
    fn a_peer_is_the_client_whose_address_it_has() {
        let directory = herd(Some(Keep::ReadOnly), None);
        for address in ["10.0.0.1", "::ffff:10.0.0.1"] {
            let client = directory.client_of(&peer(address), None);
            assert_eq!(client.name.as_str(), "a");
            assert_eq!(client.keep, Keep::ReadOnly);
            assert_eq!(client.image, Some(name("own")));
        }
        assert_eq!(directory.holder_of([10, 0, 0, 2].into()), None);
    }

    #[test]
    fn what_a_client_says_goes_before_what_the_defaults_say() {
        let ephemeral = Some(Keep::Ephemeral);
        let keep = |directory: Directory, asked: &str| {
            let client = directory.client_of(&Peer::Local, Some(&name(asked)));
            client.keep
        };
        assert_eq!(
            keep(herd(Some(Keep::ReadOnly), ephemeral), "a"),
            Keep::ReadOnly
        );
        assert_eq!(keep(herd(None, ephemeral), "a"), Keep::Ephemeral);
        assert_eq!(keep(herd(None, ephemeral), "b"), Keep::Ephemeral);
        assert_eq!(keep(herd(None, None), "a"), Keep::Persistent);
    }

    #[test]
    fn changes_of_an_address_are_never_kept_for_good() {
        let keep = |said| herd(None, said).client_of(&peer("10.0.0.9"), None).keep;
        assert_eq!(keep(Some(Keep::Persistent)), Keep::Ephemeral);
        assert_eq!(keep(Some(Keep::ReadOnly)), Keep::ReadOnly);
    }

    #[test]
    fn what_is_replaced_counts_no_more() {
        let directory = herd(None, None);
        directory.replace(HerdConfig::default());
        assert_eq!(directory.holder_of([10, 0, 0, 1].into()), None);
    }

    #[test]
    fn a_unix_socket_peer_is_local() {
        let client = Directory::default().client_of(&Peer::Local, None);
        assert_eq!(client.name.as_str(), "local");
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
            let name = Directory::default().client_of(&Peer::Ip(address), None).name;
            prop_assert_eq!(address_of(name.as_str()), address.to_canonical());
        }

        #[test]
        fn every_v4_address_can_be_told_from_its_name(address in any::<[u8; 4]>()) {
            let address = IpAddr::from(address);
            let name = Directory::default().client_of(&Peer::Ip(address), None).name;
            prop_assert_eq!(address_of(name.as_str()), address);
        }
    }
}
