//! The header `Range`: which part of a file a client asks for.

use std::ops::Range;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    All,
    /// Never an empty part.
    Part(Range<u64>),
    /// A part that the file does not have.
    Nothing,
}

impl Asked {
    /// What the header means for a file of `size` bytes.
    ///
    /// RFC 9110, section 14.2: "A server MAY ignore the Range header field". That is done with
    /// units that are not bytes, with several ranges, and with what is no range.
    pub(super) fn read(header: &[u8], size: u64) -> Self {
        let text = std::str::from_utf8(header).unwrap_or_default();
        let Some((unit, range)) = text.split_once('=') else {
            return Self::All;
        };
        // Section 14.1: "range unit names are case-insensitive".
        let range = Some(range.trim()).filter(|_| unit.trim().eq_ignore_ascii_case("bytes"));
        let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
            return Self::All;
        };
        match (number(first), number(last)) {
            // The last bytes. Section 14.1.2: where the file has fewer, "the entire
            // representation is used".
            (None, Some(count)) if first.is_empty() => Self::part(size.saturating_sub(count), size),
            (Some(first), None) if last.is_empty() => Self::part(first, size),
            // "An int-range is invalid if the last-pos value is present and less than first-pos."
            (Some(first), Some(last)) if first <= last => {
                Self::part(first, last.saturating_add(1).min(size))
            }
            _ => Self::All,
        }
    }

    fn part(start: u64, end: u64) -> Self {
        match start < end {
            true => Self::Part(start..end),
            false => Self::Nothing,
        }
    }
}

/// Digits only; a number that is too large is as good as the largest.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_1000(header: &str) -> Asked {
        Asked::read(header.as_bytes(), 1000)
    }

    #[test]
    fn one_range_is_the_part_that_it_names() {
        for (header, part) in [
            ("bytes=0-0", 0..1),
            ("bytes=10-19", 10..20),
            ("bytes=10-", 10..1000),
            ("bytes=999-", 999..1000),
            ("bytes=990-5000", 990..1000),
            ("bytes=-1", 999..1000),
            ("bytes=-5000", 0..1000),
            ("Bytes= 1-2 ", 1..3),
            ("bytes=1-99999999999999999999999", 1..1000),
        ] {
            assert_eq!(of_1000(header), Asked::Part(part), "{header}");
        }
    }

    #[test]
    fn a_range_behind_the_end_is_nothing() {
        for header in [
            "bytes=1000-",
            "bytes=2000-3000",
            "bytes=-0",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(of_1000(header), Asked::Nothing, "{header}");
        }
        assert_eq!(Asked::read(b"bytes=0-", 0), Asked::Nothing);
    }

    #[test]
    fn what_is_not_understood_is_ignored() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-1",
            "bytes=+1-2",
            "bytes=0-1,5-6",
            "lines=1-2",
            "bytes=1--2",
        ] {
            assert_eq!(of_1000(header), Asked::All, "{header}");
        }
        assert_eq!(Asked::read(b"bytes=\xff-", 1000), Asked::All);
    }
}
