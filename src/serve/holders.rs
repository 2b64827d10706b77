//! Which client has the lease of which address now.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{PoisonError, RwLock};

use super::host;
use crate::dhcp::Moment;
use crate::name::Name;

/// The clients of the config that have leases. DHCP changes it while NBD asks it.
#[derive(Debug, Default)]
pub struct Holders(RwLock<HashMap<Ipv4Addr, (Name, Moment)>>);

impl Holders {
    /// The client that has the lease of an address.
    #[must_use]
    pub fn of(&self, address: Ipv4Addr) -> Option<Name> {
        self.at(address, host::moment())
    }

    fn at(&self, address: Ipv4Addr, now: Moment) -> Option<Name> {
        let leases = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let lease = leases.get(&address).filter(|(_, until)| *until > now);
        lease.map(|(name, _)| name.clone())
    }

    /// From now on an address is leased to this client until then; with `None` to none.
    pub fn set(&self, address: Ipv4Addr, lease: Option<(Name, Moment)>) {
        let mut leases = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match lease {
            Some(lease) => leases.insert(address, lease),
            None => leases.remove(&address),
        };
    }

    /// These are all leases.
    pub fn replace(&self, all: HashMap<Ipv4Addr, (Name, Moment)>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = all;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_until_it_ends() {
        let holders = Holders::default();
        let (address, name) = (Ipv4Addr::new(10, 0, 0, 1), Name::new("a").unwrap());
        holders.set(address, Some((name.clone(), Moment(5))));
        assert_eq!(holders.at(address, Moment(4)), Some(name));
        assert_eq!(holders.at(address, Moment(5)), None);
        holders.set(address, None);
        assert_eq!(holders.at(address, Moment(4)), None);
    }
}
