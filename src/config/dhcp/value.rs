//! Single values of `[network]` and `[dhcp]`: ranges, networks, times, options.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use super::super::value::OneOrMore;
use crate::dhcp::wire::FILE_TEXT_MAX;
use crate::limits::{DHCP_CLIENT_IDENTIFIER_MAX, DHCP_OPTION_MAX};

/// Why a text is no value of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(in crate::config) enum ValueError {
    #[error("no name of a network interface: it has 1 to 15 bytes, no space and no slash")]
    Interface,
    #[error("no address: write it as in 10.77.0.1, or with its network as in 10.77.0.1/24")]
    OwnAddress,
    #[error("no network: write its first address and its bits (8 to 30), as in 10.77.0.0/24")]
    Network,
    #[error("this is not the first address of the network: write {0}")]
    NotFirst(Ipv4Addr),
    #[error("no range: write its first and last address, as in 10.77.0.100-10.77.0.200")]
    Range,
    #[error("the range ends before it begins")]
    Reversed,
    #[error("no time of 60 seconds to a year: write it with its unit, as in 8h, 30m, 600s or 7d")]
    Lease,
    #[error("no option code: those are numbers from 1 to 254")]
    Code,
    #[error("no domain name: letters, digits, dashes and dots, at most 253")]
    Domain,
    #[error("no hex digits: write two for each byte, as in hex:0a4dff or hex:0a:4d:ff")]
    Hex,
    #[error(
        "an address must be written in a list, as in [\"10.77.0.1\"]; for its text write \
             \"text:10.77.0.1\""
    )]
    AddressOrText,
    #[error("no number of this size")]
    Number,
    #[error("longer than {DHCP_OPTION_MAX} bytes")]
    Long,
    #[error("a path of more than {FILE_TEXT_MAX} bytes, which the field for it in DHCP can't hold")]
    LongPath,
    #[error("empty, or with control characters")]
    Text,
    #[error(
        "no identifier: it has 2 to {DHCP_CLIENT_IDENTIFIER_MAX} bytes, as text or as in \
             hex:01525400770010"
    )]
    Identifier,
    #[error("no UUID: write 32 hex digits, as in 4c4c4544-0042-3510-8052-b4c04f4e3132")]
    Uuid,
}

/// The name of a network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct InterfaceName(pub(in crate::config) String);

impl FromStr for InterfaceName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let is_fine = |c: char| !c.is_whitespace() && !c.is_control() && c != '/';
        let fits = (1..=15).contains(&text.len()) && ![".", ".."].contains(&text);
        match fits && text.chars().all(is_fine) {
            true => Ok(Self(text.to_owned())),
            false => Err(ValueError::Interface),
        }
    }
}

/// An address of ours, perhaps with its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct OwnAddress {
    pub(in crate::config) address: Ipv4Addr,
    pub(in crate::config) prefix: Option<u32>,
}

impl FromStr for OwnAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(prefix(bits).ok_or(ValueError::OwnAddress)?)),
            None => (text, None),
        };
        let address = address.parse().map_err(|_| ValueError::OwnAddress)?;
        Ok(Self { address, prefix })
    }
}

fn prefix(bits: &str) -> Option<u32> {
    bits.parse().ok().filter(|bits| (8..=30).contains(bits))
}

/// A network as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Cidr {
    pub(in crate::config) address: Ipv4Addr,
    pub(in crate::config) prefix: u32,
}

impl FromStr for Cidr {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (address, bits) = text.split_once('/').ok_or(ValueError::Network)?;
        let address: Ipv4Addr = address.parse().map_err(|_| ValueError::Network)?;
        let prefix = prefix(bits).ok_or(ValueError::Network)?;
        let first = super::first_of(address, prefix);
        match first == address {
            true => Ok(Self { address, prefix }),
            false => Err(ValueError::NotFirst(first)),
        }
    }
}

/// Addresses to give, first and last included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Range(pub(in crate::config) RangeInclusive<Ipv4Addr>);

impl FromStr for Range {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (first, last) = text.split_once('-').ok_or(ValueError::Range)?;
        let address = |text: &str| text.trim().parse::<Ipv4Addr>();
        let first = address(first).map_err(|_| ValueError::Range)?;
        let last = address(last).map_err(|_| ValueError::Range)?;
        match first <= last {
            true => Ok(Self(first..=last)),
            false => Err(ValueError::Reversed),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.start(), self.0.end())
    }
}

/// How long addresses are given for, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Lease(pub(in crate::config) u32);

impl FromStr for Lease {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let unit = text.chars().next_back().ok_or(ValueError::Lease)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(ValueError::Lease),
        };
        let count: u32 = text
            .trim_end_matches(unit)
            .parse()
            .map_err(|_| ValueError::Lease)?;
        count
            .checked_mul(seconds)
            .filter(|all| (60..=31_536_000).contains(all))
            .map(Self)
            .ok_or(ValueError::Lease)
    }
}

/// The name of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Domain(pub(in crate::config) String);

impl FromStr for Domain {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        match text.len() <= 253 && text.split('.').all(is_label) {
            true => Ok(Self(text.to_owned())),
            false => Err(ValueError::Domain),
        }
    }
}

/// A path or URI of a boot file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct BootFile(pub(in crate::config) String);

impl FromStr for BootFile {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(ValueError::Text);
        }
        // Firmware that takes a path goes by the header field alone, or by that first; what takes a
        // URI knows option 67.
        if !text.contains("://") && text.len() > FILE_TEXT_MAX {
            return Err(ValueError::LongPath);
        }
        match text.len() < DHCP_OPTION_MAX {
            true => Ok(Self(text.to_owned())),
            false => Err(ValueError::Long),
        }
    }
}

/// The number of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::config) struct OptionCode(pub(in crate::config) u8);

impl FromStr for OptionCode {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let code = text.parse().ok().filter(|code| (1..=254).contains(code));
        code.map(Self).ok_or(ValueError::Code)
    }
}

/// The bytes of an option.
///
/// Servers that guess whether `10.0.0.1` is four bytes or eight letters guess wrongly for options
/// 66 and 150, so nothing is guessed here: a list holds addresses, a text is a text unless it
/// begins with what else it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct OptionValue(pub(in crate::config) Vec<u8>);

impl<'de> Deserialize<'de> for OptionValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = match Written::deserialize(deserializer)? {
            Written::Flag(is_on) => vec![u8::from(is_on)],
            Written::Texts(OneOrMore::One(text)) => {
                let bytes = bytes_of(&text);
                bytes.map_err(|why| D::Error::custom(format!("{text:?}: {why}")))?
            }
            Written::Texts(OneOrMore::More(addresses)) => {
                let octets = addresses.iter().flat_map(|address| address.value.octets());
                octets.collect()
            }
        };
        match bytes.len() {
            0 => Err(D::Error::custom("an option without a value")),
            1..=DHCP_OPTION_MAX => Ok(Self(bytes)),
            _ => Err(D::Error::custom(ValueError::Long)),
        }
    }
}

/// The value of an option, as it is written.
enum Written {
    Flag(bool),
    Texts(OneOrMore<Ipv4Addr>),
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WrittenVisitor)
    }
}

struct WrittenVisitor;

impl<'de> Visitor<'de> for WrittenVisitor {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a text, a list of addresses, true or false; for a number write how wide it is, as in \
             \"u16:1500\"",
        )
    }

    fn visit_bool<E: Error>(self, is_on: bool) -> Result<Written, E> {
        Ok(Written::Flag(is_on))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Written, E> {
        Ok(Written::Texts(OneOrMore::One(text.to_owned())))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Written, A::Error> {
        let mut addresses = Vec::new();
        while let Some(address) = list.next_element()? {
            addresses.push(address);
        }
        Ok(Written::Texts(OneOrMore::More(addresses)))
    }
}

fn bytes_of(text: &str) -> Result<Vec<u8>, ValueError> {
    if text.parse::<Ipv4Addr>().is_ok() {
        return Err(ValueError::AddressOrText);
    }
    match text.split_once(':') {
        Some(("hex", digits)) => hex(digits).ok_or(ValueError::Hex),
        Some(("text", text)) => Ok(text.as_bytes().to_vec()),
        Some(("u8", digits)) => number::<u8>(digits).map(|number| vec![number]),
        Some(("u16", digits)) => Ok(number::<u16>(digits)?.to_be_bytes().to_vec()),
        Some(("u32", digits)) => Ok(number::<u32>(digits)?.to_be_bytes().to_vec()),
        _ => Ok(text.as_bytes().to_vec()),
    }
}

fn number<N: FromStr>(text: &str) -> Result<N, ValueError> {
    text.parse().map_err(|_| ValueError::Number)
}

/// Pairs of digits, perhaps with something between the pairs.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<_> = text.bytes().filter(|b| !b":- ".contains(b)).collect();
    let pair = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair)
            .ok()
            .filter(|pair| pair.len() == 2)?;
        // A sign is no digit, but `from_str_radix` takes one.
        let pair = Some(pair).filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u8::from_str_radix(pair, 16).ok()
    };
    digits.chunks(2).map(pair).collect()
}

/// What a client calls itself in option 61.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::config) struct Identifier(pub(in crate::config) Vec<u8>);

impl FromStr for Identifier {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let bytes = match text.split_once(':') {
            Some(("hex", digits)) => hex(digits).ok_or(ValueError::Hex)?,
            Some(("text", text)) => text.as_bytes().to_vec(),
            _ => text.as_bytes().to_vec(),
        };
        match (2..=DHCP_CLIENT_IDENTIFIER_MAX).contains(&bytes.len()) {
            true => Ok(Self(bytes)),
            false => Err(ValueError::Identifier),
        }
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("client identifier hex:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The UUID of a machine, in the order of bytes that option 97 has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::config) struct Uuid(pub(in crate::config) [u8; 16]);

impl FromStr for Uuid {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let bytes = hex(text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(ValueError::Uuid)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UUID ")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
