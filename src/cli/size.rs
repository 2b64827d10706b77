//! Sizes as people write and read them: powers of 1024.

use std::num::NonZeroU64;

use crate::units::BLOCK_SIZE;

const UNITS: [(char, u32); 4] = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];

/// Reads a limit on an overlay: `20G`, `512M`, or plain bytes; one block at least.
pub(super) fn parse_limit(text: &str) -> Result<NonZeroU64, String> {
    let bytes = parse(text).ok_or("not a size: write a number and K, M, G or T, such as 20G")?;
    NonZeroU64::new(bytes)
        .filter(|bytes| bytes.get() >= BLOCK_SIZE)
        .ok_or_else(|| format!("less than one block of {BLOCK_SIZE} bytes"))
}

/// Reads a number of bytes: `20G`, `512M`, or plain.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let bytes = parse(text).ok_or("not a size: write a number and K, M, G or T, such as 64K")?;
    Ok(bytes)
}

/// `None` where it is no size, or more bytes than 64 bits hold.
fn parse(text: &str) -> Option<u64> {
    let unit = UNITS
        .iter()
        .find(|(unit, _)| text.ends_with([*unit, unit.to_ascii_lowercase()]));
    let (digits, shift) = match unit {
        Some((_, shift)) => (text.get(..text.len() - 1)?, *shift),
        None => (text, 0),
    };
    // `parse` takes a sign too.
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A number of bytes in three or four digits, such as `1.5 GiB`.
pub(super) fn readable(bytes: u64) -> String {
    let largest = UNITS.iter().rev().find(|(_, shift)| bytes >> shift > 0);
    let Some((unit, shift)) = largest else {
        return format!("{bytes} B");
    };
    let whole = bytes >> shift;
    let tenths = ((bytes & ((1 << shift) - 1)) * 10) >> shift;
    match whole {
        0..100 => format!("{whole}.{tenths} {unit}iB"),
        _ => format!("{whole} {unit}iB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024() {
        for (text, bytes) in [
            ("4096", 4096),
            ("4K", 4096),
            ("20G", 20 << 30),
            ("1t", 1 << 40),
            ("3M", 3 << 20),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "G",
            "-1",
            "+1",
            "1.5G",
            "1GB",
            "1 G",
            "G1",
            "99999999999T",
            "é",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_limit_is_one_block_at_least() {
        assert!(parse_limit("4095").is_err() && parse_limit("0").is_err());
        assert_eq!(parse_limit("4K").map(NonZeroU64::get), Ok(4096));
    }

    #[test]
    fn sizes_are_shown_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (200 << 20, "200 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16777215 TiB"),
        ] {
            assert_eq!(readable(bytes), text);
        }
    }
}
