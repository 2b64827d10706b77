//! What the DHCP server is told by its config: the links it serves, the machines it knows.
//!
//! Values here fit together already; `config/` sees to that. Invariants:
//! - No two networks overlap, and neither do two ranges.
//! - No two machines share a hardware address, a client identifier, a UUID or an address.
//! - The address of a machine lies in one of the networks.
//! - No option that is said has a code which the server sets by itself (see [`is_ours`]).

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use super::boot::{BootConfig, Mode};
use super::wire::code;
use crate::mac::MacAddress;
use crate::name::Name;

/// All that the server goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether addresses are ours to give.
    pub mode: Mode,
    /// The networks whose machines are served, on our own links and behind relays.
    pub networks: Vec<Network>,
    /// What machines are told that neither their network nor their group says.
    pub told: Told,
    /// The machines that are known by name.
    pub machines: Vec<Machine>,
    /// What machines boot where their group says nothing else.
    pub boot: BootConfig,
    /// Whether machines that are in no config are given addresses.
    pub unknown: Unknown,
    /// Whether an address that was never leased, or not for long, is probed before it is offered.
    pub probe: bool,
}

/// What becomes of machines that are in no config.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unknown {
    /// They are served from the ranges.
    #[default]
    Serve,
    /// They are not answered.
    Ignore,
}

/// One IPv4 network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its first address.
    pub address: Ipv4Addr,
    /// Bits that all its addresses begin with: 8 to 30.
    pub prefix: u32,
    /// Addresses for machines without one of their own, in this order.
    pub ranges: Vec<RangeInclusive<Ipv4Addr>>,
    /// What its machines are told.
    pub told: Told,
}

/// What a machine is told besides its address. What is empty here is looked for in the next
/// wider: machine, group, network, all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Routers, the best first.
    pub routers: Vec<Ipv4Addr>,
    /// Name servers, the best first.
    pub dns: Vec<Ipv4Addr>,
    /// The domain that names are looked up in.
    pub domain: Option<String>,
    /// Time servers.
    pub ntp: Vec<Ipv4Addr>,
    /// For how long addresses are given, in seconds: 60 to 31,536,000.
    pub lease: Option<u32>,
    /// Any other options, each code once.
    pub options: Vec<(u8, Vec<u8>)>,
}

/// A machine that is known by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its name, which is its host name too.
    pub name: Name,
    /// Its network card.
    pub mac: Option<MacAddress>,
    /// Option 61 of its requests, where it is known by that.
    pub client_identifier: Option<Vec<u8>>,
    /// The UUID in its firmware, as it comes in option 97.
    pub uuid: Option<[u8; 16]>,
    /// The address that is its own. Without one it gets one of a range.
    pub address: Option<Ipv4Addr>,
    /// What it is told, its group's words included.
    pub told: Told,
    /// How it boots, where it or its group says so.
    pub boot: Option<BootConfig>,
}

impl Network {
    /// Its mask: `255.255.255.0` for a prefix of 24.
    #[must_use]
    pub fn mask(&self) -> Ipv4Addr {
        let zeros = 32_u32.saturating_sub(self.prefix);
        Ipv4Addr::from_bits(u32::MAX.checked_shl(zeros).unwrap_or(0))
    }

    /// Whether `address` is in it.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address & self.mask() == self.address
    }

    /// Its last address, which is everybody's.
    #[must_use]
    pub fn broadcast(&self) -> Ipv4Addr {
        self.address | !self.mask()
    }
}

/// Options that the server sets by itself, or that no reply may have: 13, since a size of the boot
/// file in 16 bits is wrong for most, and 52, since GRUB reads it wrongly.
#[must_use]
pub fn is_ours(option: u8) -> bool {
    [
        code::PAD,
        code::SUBNET_MASK,
        code::BOOT_FILE_SIZE,
        code::REQUESTED_ADDRESS,
        code::LEASE_TIME,
        code::OVERLOAD,
        code::MESSAGE_TYPE,
        code::SERVER_IDENTIFIER,
        code::PARAMETER_REQUEST,
        code::MAX_SIZE,
        code::CLIENT_IDENTIFIER,
        code::RELAY_AGENT,
        code::END,
    ]
    .contains(&option)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: [u8; 4], prefix: u32) -> Network {
        Network {
            address: address.into(),
            prefix,
            ranges: Vec::new(),
            told: Told::default(),
        }
    }

    #[test]
    fn a_network_holds_its_own_addresses_only() {
        let network = network([10, 77, 0, 0], 23);
        assert!(network.contains([10, 77, 1, 255].into()));
        assert!(!network.contains([10, 77, 2, 0].into()));
        assert!(!network.contains([10, 76, 255, 255].into()));
    }

    #[test]
    fn mask_and_last_address_follow_from_the_prefix() {
        let network = network([10, 77, 0, 128], 25);
        assert_eq!(network.mask(), Ipv4Addr::new(255, 255, 255, 128));
        assert_eq!(network.broadcast(), Ipv4Addr::new(10, 77, 0, 255));
    }
}
