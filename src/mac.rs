//! Hardware addresses of Ethernet and Wi-Fi.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::name::Name;

/// A MAC address. Shown as `52:54:00:12:34:56`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Whether it may be the address of one machine: no group address, and not all zeros.
    #[must_use]
    pub const fn is_unicast(self) -> bool {
        let Self([first, ..]) = self;
        first & 1 == 0 && u64::from_be_bytes(self.padded()) != 0
    }

    const fn padded(self) -> [u8; 8] {
        let Self([a, b, c, d, e, f]) = self;
        [0, 0, a, b, c, d, e, f]
    }

    /// The name of a machine that nobody gave one: `52-54-00-12-34-56`.
    #[must_use]
    pub fn name(self) -> Name {
        Name::new(&self.to_string().replace(':', "-")).expect("hex digits and dashes only")
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([first, rest @ ..]) = self;
        write!(f, "{first:02x}")?;
        rest.iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MacError {
    /// Not six pairs of digits.
    #[error("no MAC address: write six pairs of hex digits, as in 52:54:00:12:34:56")]
    Form,
    /// All zeros, or the address of many.
    #[error("this MAC address can't be that of one machine")]
    Group,
}

impl FromStr for MacAddress {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let mut bytes = [0; 6];
        let mut pairs = text.split([':', '-']);
        for byte in &mut bytes {
            *byte = pairs.next().and_then(pair).ok_or(MacError::Form)?;
        }
        let address = Self(bytes);
        match pairs.next() {
            Some(_) => Err(MacError::Form),
            None if address.is_unicast() => Ok(address),
            None => Err(MacError::Group),
        }
    }
}

fn pair(digits: &str) -> Option<u8> {
    let plain = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_usual_spellings_are_read() {
        let address = MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0xab]);
        assert_eq!("52:54:00:12:34:AB".parse(), Ok(address));
        assert_eq!("52-54-00-12-34-ab".parse(), Ok(address));
        assert_eq!(address.to_string(), "52:54:00:12:34:ab");
        assert_eq!(address.name().as_str(), "52-54-00-12-34-ab");
    }

    #[test]
    fn what_is_no_address_of_one_machine_is_refused() {
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "5:54:00:12:34:56",
            "+2:54:00:12:34:56",
        ] {
            assert_eq!(text.parse::<MacAddress>(), Err(MacError::Form), "{text}");
        }
        for text in [
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
            "01:00:5e:00:00:01",
        ] {
            assert_eq!(text.parse::<MacAddress>(), Err(MacError::Group), "{text}");
        }
    }

    #[test]
    fn a_name_of_digits_alone_is_still_a_name() {
        assert_eq!(
            MacAddress([2, 0, 0, 0, 0, 1]).name().as_str(),
            "02-00-00-00-00-01"
        );
    }
}
