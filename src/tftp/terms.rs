//! What a request's options come to (RFC 2347).
//!
//! Invariants:
//! - An OACK has only options that were asked for, under the names they were asked by: EDK2 gives
//!   up on any other, and GRUB compares names by case.
//! - No block is larger than what was asked for, or than the link carries; no window is wider.
//! - An option that is not understood, or has no number, is left out, as if it had not been sent.

use std::time::Duration;

use super::wire::Request;
use crate::limits::{TFTP_BLOCK_MIN, TFTP_WINDOW_MAX};

/// What a transfer goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Bytes of a block; only the last is shorter.
    pub block: u16,
    /// Blocks that are sent before an answer is waited for.
    pub window: u16,
    /// How long an answer is waited for, where the client says so.
    pub timeout: Option<Duration>,
    /// Options of the OACK; with none, the first block is sent instead.
    pub agreed: Vec<(Vec<u8>, u64)>,
}

/// Block size without options (RFC 1350).
const BLOCK_DEFAULT: u16 = 512;

/// Agrees on the options of `request` for a file of `size` bytes on the wire, over a link that
/// carries blocks of `block_max` bytes.
///
/// `size` is `None` where it is not to be told.
#[must_use]
pub fn agree(request: &Request<'_>, size: Option<u64>, block_max: u16) -> Terms {
    let mut terms = Terms {
        block: BLOCK_DEFAULT,
        window: 1,
        timeout: None,
        agreed: Vec::new(),
    };
    for &(name, value) in &request.options {
        let Some(value) = decimal(value) else {
            continue;
        };
        if terms
            .agreed
            .iter()
            .any(|(agreed, _)| agreed.eq_ignore_ascii_case(name))
        {
            continue;
        }
        if let Some(value) = terms.take(name, value, size, block_max) {
            terms.agreed.push((name.to_vec(), value));
        }
    }
    terms
}

impl Terms {
    /// The value that an option is granted with.
    fn take(&mut self, name: &[u8], asked: u64, size: Option<u64>, block_max: u16) -> Option<u64> {
        match () {
            // RFC 2348: "Valid values range between "8" and "65464" octets, inclusive", and what is
            // granted "must be less than or equal to the value specified by the client".
            () if name.eq_ignore_ascii_case(b"blksize") => {
                self.block = within(asked, TFTP_BLOCK_MIN, block_max)?;
                Some(self.block.into())
            }
            // RFC 7440, section 3: 1 to 65535 blocks; no more is granted than was asked for.
            () if name.eq_ignore_ascii_case(b"windowsize") => {
                self.window = within(asked, 1, TFTP_WINDOW_MAX)?;
                Some(self.window.into())
            }
            // RFC 2349: "Valid values range between "1" and "255" seconds"; "The specified timeout
            // value must match the value specified by the client."
            () if name.eq_ignore_ascii_case(b"timeout") => {
                self.timeout = (1..=255)
                    .contains(&asked)
                    .then(|| Duration::from_secs(asked));
                self.timeout.map(|_| asked)
            }
            // RFC 2349: "In Read Request packets, a size of "0" is specified in the request and the
            // size of the file, in octets, is returned in the OACK."
            () if name.eq_ignore_ascii_case(b"tsize") => size,
            () => None,
        }
    }
}

/// `asked`, but no more than `most`; nothing where it is less than `least`.
fn within(asked: u64, least: u16, most: u16) -> Option<u16> {
    (asked >= u64::from(least)).then(|| u16::try_from(asked).map_or(most, |asked| asked.min(most)))
}

/// RFC 2347: values are decimal digits in ASCII.
fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tftp::wire::Mode;

    fn terms(options: &[(&str, &str)]) -> Terms {
        let request = Request {
            name: b"a",
            mode: Mode::Octet,
            options: options
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
                .collect(),
        };
        agree(&request, Some(70_000), 1468)
    }

    fn agreed(options: &[(&str, &str)]) -> Vec<(String, u64)> {
        let text = |name: Vec<u8>| String::from_utf8(name).unwrap();
        let agreed = terms(options).agreed.into_iter();
        agreed.map(|(name, value)| (text(name), value)).collect()
    }

    #[test]
    fn without_options_it_is_the_protocol_of_1350() {
        let plain = terms(&[]);
        assert_eq!((plain.block, plain.window), (512, 1));
        assert_eq!((plain.timeout, plain.agreed), (None, vec![]));
    }

    #[test]
    fn what_firmware_asks_for_is_granted_under_its_own_names() {
        let asked = [("TSIZE", "0"), ("BlkSize", "1468"), ("windowsize", "4")];
        let granted = [("TSIZE", 70_000), ("BlkSize", 1468), ("windowsize", 4)];
        assert_eq!(
            agreed(&asked),
            granted.map(|(name, value)| (name.to_owned(), value))
        );
    }

    #[test]
    fn blocks_and_windows_are_made_to_fit() {
        let terms = terms(&[("blksize", "65464"), ("windowsize", "70000")]);
        assert_eq!((terms.block, terms.window), (1468, TFTP_WINDOW_MAX));
    }

    #[test]
    fn a_timeout_is_taken_as_it_is_or_not_at_all() {
        assert_eq!(
            terms(&[("timeout", "6")]).timeout,
            Some(Duration::from_secs(6))
        );
        assert_eq!(agreed(&[("timeout", "0")]), []);
        assert_eq!(agreed(&[("timeout", "256")]), []);
    }

    #[test]
    fn what_is_senseless_or_unknown_is_left_out() {
        for (name, value) in [
            ("blksize", "7"),
            ("blksize", ""),
            ("blksize", "-8"),
            ("blksize", "0x200"),
            ("blksize", "99999999999999999999999"),
            ("windowsize", "0"),
            ("multicast", "1"),
        ] {
            let terms = terms(&[(name, value)]);
            assert_eq!(terms.agreed, [], "{name}={value}");
            assert_eq!((terms.block, terms.window), (512, 1));
        }
    }

    #[test]
    fn of_an_option_that_comes_twice_the_first_counts() {
        let terms = terms(&[("blksize", "1024"), ("BLKSIZE", "600")]);
        assert_eq!((terms.block, terms.agreed.len()), (1024, 1));
    }
}
