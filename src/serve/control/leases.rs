//! The leases of a running server, and ending one before its time.

use std::net::Ipv4Addr;

use super::answer::Lease;
use super::workshop::Workshop;
use crate::serve::dhcp::{self, Steward};
use crate::serve::options::Failure;

impl Workshop {
    fn steward(&self) -> Result<&Steward, Failure> {
        if self.herd.is_none() {
            return Err(Failure::failed(
                "no server runs on this state directory, and only a server knows its leases: start \
                 it, or name its directory with --state",
            ));
        }
        self.dhcp.as_ref().ok_or_else(|| {
            Failure::failed("the server gives no addresses: there is no [dhcp] in its config")
        })
    }

    /// All leases, by their addresses.
    pub(super) async fn leases(&self) -> Result<Vec<Lease>, Failure> {
        let leases = self.steward()?.leases().await;
        let told = |lease: dhcp::Lease| Lease {
            address: lease.address,
            mac: lease.mac.to_string(),
            name: lease.name.map(|name| name.to_string()),
            seconds_left: lease.left.as_secs(),
        };
        Ok(leases.into_iter().map(told).collect())
    }

    /// Ends the leases of a machine; which ones.
    pub(super) async fn forget_lease(&self, who: &str) -> Result<Vec<Ipv4Addr>, Failure> {
        let mut leases = self.leases().await?;
        leases.retain(|lease| is_of(lease, who));
        if leases.is_empty() {
            return Err(Failure::failed(format!(
                "{who} has no lease: `cowherd lease list` shows those there are"
            )));
        }
        for lease in &leases {
            self.is_away(lease)?;
        }
        let mut forgotten = Vec::new();
        for Lease { address, mac, .. } in leases {
            if self.steward()?.forget(address).await {
                tracing::info!("the lease of {address} for {mac} was forgotten, by order");
                forgotten.push(address);
            }
        }
        Ok(forgotten)
    }

    /// The root of a machine that is connected hangs on its address.
    fn is_away(&self, lease: &Lease) -> Result<(), Failure> {
        let Some(herd) = &self.herd else {
            return Ok(());
        };
        let client = herd.watch().client(&lease.address.to_string());
        match client.filter(|client| client.connections > 0) {
            None => Ok(()),
            Some(client) => Err(Failure::failed(format!(
                "{} is connected to its disk from {}: switch it off first",
                client.id, lease.address
            ))),
        }
    }
}

fn is_of(lease: &Lease, who: &str) -> bool {
    let is_address = || who.parse() == Ok(lease.address);
    let is_mac = || who.replace('-', ":").eq_ignore_ascii_case(&lease.mac);
    lease.name.as_deref() == Some(who) || is_address() || is_mac()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_found_by_name_card_and_address() {
        let lease = Lease {
            address: Ipv4Addr::new(10, 0, 0, 1),
            mac: "52:54:00:00:00:0a".to_owned(),
            name: Some("pc-1".to_owned()),
            seconds_left: 7,
        };
        for who in ["pc-1", "10.0.0.1", "52:54:00:00:00:0a", "52-54-00-00-00-0A"] {
            assert!(is_of(&lease, who), "{who}");
        }
        for who in ["pc", "10.0.0.10", ""] {
            assert!(!is_of(&lease, who), "{who}");
        }
    }
}
