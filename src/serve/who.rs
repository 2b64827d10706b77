//! The one place that decides which client a peer is, and who has which address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::holders::Holders;
use crate::access::{Caller, Denial, Peer, Rules, Who, name_of};
use crate::config::{ClientConfig, HerdConfig, Keep, MenuConfig};
use crate::mac::MacAddress;
use crate::name::Name;

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

/// What the config says of clients, by what is asked for.
#[derive(Debug, Default)]
pub struct Known {
    clients: HashMap<Name, ClientConfig>,
    addresses: HashMap<Ipv4Addr, Name>,
    default_image: Option<Name>,
    default_overlay: Option<Keep>,
    default_menu: MenuConfig,
    access: Rules,
    leases: Arc<Holders>,
}

impl Known {
    /// Knows whom the config names, and which of them have leases.
    #[must_use]
    pub fn new(herd: HerdConfig, leases: Arc<Holders>) -> Self {
        let address = |client: &ClientConfig| Some((client.address?, client.name.clone()));
        Self {
            addresses: herd.clients.iter().filter_map(address).collect(),
            default_image: herd.default_image,
            default_overlay: herd.default_overlay,
            default_menu: herd.default_menu,
            access: herd.access,
            clients: herd
                .clients
                .into_iter()
                .map(|client| (client.name.clone(), client))
                .collect(),
            leases,
        }
    }

    /// The name of the client whose address this is, by the config or by a lease; `None` where
    /// nobody is known to have it.
    #[must_use]
    pub fn holder_of(&self, address: IpAddr) -> Option<Name> {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let own = self.addresses.get(&address).cloned();
                own.or_else(|| self.leases.of(address))
            }
            IpAddr::V6(_) => None,
        }
    }

    /// What the config says of a client.
    #[must_use]
    pub fn config_of(&self, name: &Name) -> Option<&ClientConfig> {
        self.clients.get(name)
    }

    /// The client of the config with this network card.
    #[must_use]
    pub fn with_card(&self, mac: MacAddress) -> Option<&ClientConfig> {
        let mut clients = self.clients.values();
        clients.find(|client| client.mac == Some(mac))
    }

    /// The client of the config with this UUID.
    #[must_use]
    pub fn with_uuid(&self, uuid: [u8; 16]) -> Option<&ClientConfig> {
        let mut clients = self.clients.values();
        clients.find(|client| client.uuid == Some(uuid))
    }

    /// How menus are made where nothing else says how.
    #[must_use]
    pub const fn default_menu(&self) -> &MenuConfig {
        &self.default_menu
    }

    /// Who `caller` is, which `asked` to be this client in its export name.
    ///
    /// DESIGN section 3: "Without `@client` the client is the lease holder of the peer's address,
    /// else the address itself, with an ephemeral overlay. Where no config says otherwise,
    /// `@client` gives a persistent overlay." A certificate goes before an address. Who asks for
    /// what its own address is called gets just that: a persistent overlay of this name would shut
    /// out those who don't ask.
    #[must_use]
    pub fn client_of(&self, caller: &Caller, asked: Option<&Name>) -> Client {
        let certified = || Name::new(caller.certificate()?).ok();
        let holder = || self.holder(caller);
        let address = name_of(&caller.peer);
        match asked.cloned().or_else(certified).or_else(holder) {
            Some(name) if name != address => self.named(name),
            _ => self.nameless(address),
        }
    }

    /// Whether `caller` may open anything at all.
    ///
    /// # Errors
    /// The rule that says no.
    pub fn may_connect(&self, caller: &Caller) -> Result<(), Denial> {
        let holder = self.holder(caller);
        self.access.may_connect(who(caller, holder.as_ref()))
    }

    /// Whether `caller` may know of an image.
    ///
    /// # Errors
    /// The rule that says no.
    pub fn may_see(&self, caller: &Caller, image: &Name) -> Result<(), Denial> {
        let holder = self.holder(caller);
        self.access.may_see(who(caller, holder.as_ref()), image)
    }

    /// Whether `caller` may open an image as `client`.
    ///
    /// # Errors
    /// The rule that says no.
    pub fn may_open(&self, caller: &Caller, image: &Name, client: &Name) -> Result<(), Denial> {
        let holder = self.holder(caller);
        let who = who(caller, holder.as_ref());
        self.access.may_open(who, image, client)
    }

    fn holder(&self, caller: &Caller) -> Option<Name> {
        match caller.peer {
            Peer::Ip(address) => self.holder_of(address),
            Peer::Local => None,
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

const fn who<'a>(caller: &'a Caller, holder: Option<&'a Name>) -> Who<'a> {
    Who { caller, holder }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Peer;
    use crate::dhcp::Moment;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn peer(address: &str) -> Caller {
        Caller::plain(Peer::Ip(address.parse().unwrap()))
    }

    fn local() -> Caller {
        Caller::plain(Peer::Local)
    }

    /// One client `a` at 10.0.0.1 that says this of its changes.
    fn herd(overlay: Option<Keep>, default_overlay: Option<Keep>) -> Known {
        let config = HerdConfig {
            default_image: Some(name("usual")),
            default_overlay,
            default_menu: MenuConfig::default(),
            access: Rules::default(),
            clients: vec![ClientConfig {
                name: name("a"),
                mac: None,
                address: Some([10, 0, 0, 1].into()),
                image: Some(name("own")),
                overlay,
                uuid: None,
                menu: MenuConfig::default(),
            }],
        };
        Known::new(config, Arc::default())
    }

    #[test]
    fn a_client_with_a_lease_is_known_by_its_address() {
        let known = herd(None, None);
        let (leased, later) = (Ipv4Addr::new(10, 0, 0, 2), Moment(u64::MAX));
        known.leases.set(leased, Some((name("b"), later)));
        assert_eq!(known.client_of(&peer("10.0.0.2"), None).name, name("b"));
        known.leases.set(leased, None);
        let nameless = known.client_of(&peer("10.0.0.2"), None);
        assert_eq!(nameless.name, name("10-0-0-2"));
    }

    #[test]
    fn the_address_of_the_config_goes_before_a_lease() {
        let known = herd(None, None);
        let own = Ipv4Addr::new(10, 0, 0, 1);
        known.leases.set(own, Some((name("b"), Moment(u64::MAX))));
        assert_eq!(known.client_of(&peer("10.0.0.1"), None).name, name("a"));
    }

    #[test]
    fn a_client_that_names_itself_keeps_its_changes() {
        let asked = name("studio-3");
        let client = Known::default().client_of(&local(), Some(&asked));
        assert_eq!(client.name, asked);
        assert_eq!(client.keep, Keep::Persistent);
    }

    #[test]
    fn a_client_that_calls_itself_by_its_address_is_one_without_a_name() {
        let known = Known::default();
        let asked = name("10-77-0-12");
        let client = known.client_of(&peer("10.77.0.12"), Some(&asked));
        assert_eq!(client, known.client_of(&peer("10.77.0.12"), None));
    }

    #[test]
    fn a_client_without_a_name_is_its_address_for_a_while() {
        let client = Known::default().client_of(&peer("10.77.0.12"), None);
        assert_eq!(client.name.as_str(), "10-77-0-12");
        assert_eq!(client.keep, Keep::Ephemeral);
    }

    #[test]
    fn a_peer_is_the_client_whose_address_it_has() {
        let known = herd(Some(Keep::ReadOnly), None);
        for address in ["10.0.0.1", "::ffff:10.0.0.1"] {
            let client = known.client_of(&peer(address), None);
            assert_eq!(client.name.as_str(), "a");
            assert_eq!(client.keep, Keep::ReadOnly);
            assert_eq!(client.image, Some(name("own")));
        }
        assert_eq!(known.holder_of([10, 0, 0, 2].into()), None);
    }

    #[test]
    fn what_a_client_says_goes_before_what_the_defaults_say() {
        let ephemeral = Some(Keep::Ephemeral);
        let keep = |known: Known, asked: &str| {
            let client = known.client_of(&local(), Some(&name(asked)));
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
        let keep = |said| {
            let known = herd(None, said);
            known.client_of(&peer("10.0.0.9"), None).keep
        };
        assert_eq!(keep(Some(Keep::Persistent)), Keep::Ephemeral);
        assert_eq!(keep(Some(Keep::ReadOnly)), Keep::ReadOnly);
    }

    #[test]
    fn a_certificate_says_who_it_is_before_an_address_does() {
        let certificate = |text: &str| Caller {
            tls: Some(crate::access::Secured {
                certificate: Some(text.to_owned()),
            }),
            ..peer("10.0.0.1")
        };
        let named = |text| herd(None, None).client_of(&certificate(text), None).name;
        assert_eq!(named("studio-3").as_str(), "studio-3");
        // No name of a client: it opens nothing, whoever it is taken for.
        let known = herd(None, None);
        let caller = certificate("Studio 3");
        let client = known.client_of(&caller, None).name;
        assert!(known.may_open(&caller, &name("disk"), &client).is_err());
    }
}
