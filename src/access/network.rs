//! Networks as people write them: `10.77.0.0/24`, `fd00::/8`, or one address.
//!
//! Invariants: the address of a network has no bit behind its prefix; an IPv4 address and its
//! IPv4-mapped IPv6 form are the same.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// Whether `address` is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        bits(address) == bits(self.address) && first_bits(address, self.prefix) == self.value()
    }

    fn value(&self) -> u128 {
        first_bits(self.address, self.prefix)
    }
}

/// Bits of an address of this family.
const fn bits(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The first `prefix` bits of an address as a number.
fn first_bits(address: IpAddr, prefix: u32) -> u128 {
    let value = match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    value
        .checked_shr(bits(address).saturating_sub(prefix))
        .unwrap_or(0)
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let address = address.to_canonical();
        let prefix = match prefix {
            None => bits(address),
            Some(digits) if digits.starts_with(['+', '-']) => return Err(NetworkError::Prefix),
            Some(digits) => digits.parse().map_err(|_| NetworkError::Prefix)?,
        };
        if prefix > bits(address) {
            return Err(NetworkError::Prefix);
        }
        let network = Self { address, prefix };
        // Who writes 10.77.0.1/24 may have meant the address alone: better ask.
        match first_bits(address, bits(address)) == shifted(&network) {
            true => Ok(network),
            false => Err(NetworkError::HostBits(prefix)),
        }
    }
}

/// The network's first address as a number.
fn shifted(network: &Network) -> u128 {
    let rest = bits(network.address) - network.prefix;
    network.value().checked_shl(rest).unwrap_or(0)
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        match self.prefix == bits(self.address) {
            true => Ok(()),
            false => write!(f, "/{}", self.prefix),
        }
    }
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "each message is its variant's description")]
pub enum NetworkError {
    #[error("not an address, as in 10.77.0.1, nor a network, as in 10.77.0.0/24 or fd00::/8")]
    Address,
    #[error("after '/' comes how many bits the addresses share: at most 32, or 128 with IPv6")]
    Prefix,
    #[error("the address has bits behind the first {0}: leave them 0, or leave '/{0}' out")]
    HostBits(u32),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[track_caller]
    fn check(text: &str, inside: &[&str], outside: &[&str]) {
        let network = network(text);
        let contains = |address: &&str| network.contains(address.parse().unwrap());
        assert!(inside.iter().all(contains), "{text} is too small");
        assert!(!outside.iter().any(contains), "{text} is too large");
    }

    #[test]
    fn a_network_has_the_addresses_that_share_its_first_bits() {
        let edges = ["10.77.1.0", "10.76.255.255"];
        check("10.77.0.0/24", &["10.77.0.0", "10.77.0.255"], &edges);
        check("10.77.0.9", &["10.77.0.9"], &["10.77.0.8"]);
        check("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::1"]);
        check("fd00::/8", &["fd00::1", "fdff::"], &["fe00::", "10.0.0.1"]);
        check("::/0", &["::1", "fe80::1"], &["10.0.0.1"]);
    }

    #[test]
    fn an_ipv4_mapped_address_is_the_ipv4_address() {
        check("10.0.0.0/8", &["::ffff:10.1.2.3"], &["::ffff:11.1.2.3"]);
        check("::ffff:10.1.2.3", &["10.1.2.3"], &[]);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        let refused = |text: &str| text.parse::<Network>().unwrap_err();
        for text in ["", "lan", "10.0.0", "10.0.0.0/8/8 "] {
            refused(text);
        }
        for text in ["10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8"] {
            assert_eq!(refused(text), NetworkError::Prefix, "{text}");
        }
        assert_eq!(refused("10.77.0.1/24"), NetworkError::HostBits(24));
    }

    proptest! {
        #[test]
        fn parsing_undoes_display(address in any::<IpAddr>(), prefix in 0..=128_u32) {
            let address = address.to_canonical();
            let prefix = prefix.min(bits(address));
            let first = shifted(&Network { address, prefix });
            let address = match address {
                IpAddr::V4(_) => IpAddr::V4(u32::try_from(first).unwrap().into()),
                // The mapped form of a short prefix would be an IPv4 network with a long one.
                IpAddr::V6(_) => IpAddr::V6(first.into()),
            };
            prop_assume!(address == address.to_canonical());
            let network = Network { address, prefix };
            prop_assert_eq!(network.to_string().parse(), Ok(network));
            prop_assert!(network.contains(address));
        }
    }
}
