//! What tells one image from another.
//!
//! Invariants:
//! - The sample and the text form never change: overlays on disk were made under them.
//! - Equal identities mean the same image to the best of our knowledge: not every byte is read.

use std::io;
use std::{fmt, iter};

use thiserror::Error;

use crate::disk::{ImageFile, Stamp};
use crate::units::{BLOCK_SIZE, ByteRange};

/// Bytes at the start that are always in the sample: partition table, superblocks, boot files.
const SAMPLE_HEAD: u64 = 4 * 1024 * 1024;

/// Bytes at the end that are always in the sample: backup partition table and superblocks.
const SAMPLE_TAIL: u64 = 1024 * 1024;

/// Blocks of the sample between head and tail.
const SAMPLE_SPREAD: u64 = 64;

const FIRST_LINE: &str = "cowherd image identity 1";

/// Size, modification time and a checksum over a sample of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Bytes.
    pub size: u64,
    /// Last modification in nanoseconds since 1970; 0 for a block device, which has none.
    pub mtime_ns: i128,
    /// CRC-32 of the sample.
    pub sample_crc: u32,
}

impl Identity {
    pub(super) fn take(file: &ImageFile, stamp: Stamp) -> io::Result<Self> {
        let mut hasher = crc32fast::Hasher::new();
        let mut buf = Vec::new();
        for range in sample(stamp.size) {
            buf.resize(range.len_usize(), 0);
            file.read(&mut buf, range.start(), stamp.size)?;
            hasher.update(&buf);
        }
        Ok(Self {
            size: stamp.size,
            mtime_ns: stamp.mtime_ns,
            sample_crc: hasher.finalize(),
        })
    }

    /// Whether this image is the one whose identity was recorded.
    ///
    /// # Errors
    /// The most telling difference.
    pub fn compare(&self, recorded: &Self) -> Result<(), Difference> {
        if self.size != recorded.size {
            return Err(Difference::Size {
                is: self.size,
                was: recorded.size,
            });
        }
        if self.sample_crc != recorded.sample_crc {
            return Err(Difference::Content);
        }
        if self.mtime_ns != recorded.mtime_ns {
            return Err(Difference::Modified {
                is: self.mtime_ns,
                was: recorded.mtime_ns,
            });
        }
        Ok(())
    }

    /// Four lines of text, the same for ever.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!(
            "{FIRST_LINE}\nsize {}\nmodified {}\nsample {:08x}\n",
            self.size,
            Seconds(self.mtime_ns),
            self.sample_crc
        )
    }

    /// The inverse of [`Identity::to_text`].
    ///
    /// # Errors
    /// The text is no identity, or one of a later version.
    pub fn from_text(text: &str) -> Result<Self, IdentityTextError> {
        let mut lines = text.lines();
        let identity = Self {
            size: parse_first(&mut lines).ok_or(IdentityTextError)?,
            mtime_ns: field(lines.next(), "modified ")
                .and_then(parse_seconds)
                .ok_or(IdentityTextError)?,
            sample_crc: field(lines.next(), "sample ")
                .and_then(|hex| u32::from_str_radix(hex, 16).ok())
                .ok_or(IdentityTextError)?,
        };
        // One spelling only: whatever else is in the file means that it was damaged.
        if identity.to_text() == text {
            Ok(identity)
        } else {
            Err(IdentityTextError)
        }
    }
}

fn parse_first<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Option<u64> {
    if lines.next() != Some(FIRST_LINE) {
        return None;
    }
    field(lines.next(), "size ")?.parse().ok()
}

fn field<'a>(line: Option<&'a str>, key: &str) -> Option<&'a str> {
    line?.strip_prefix(key)
}

/// The ranges that are read for the sample: the whole of a small image, else head, spread and tail.
fn sample(size: u64) -> impl Iterator<Item = ByteRange> {
    let head = ByteRange::between(0, size.min(SAMPLE_HEAD));
    let tail = ByteRange::between(size.saturating_sub(SAMPLE_TAIL).max(head.end()), size);
    let middle = ByteRange::between(head.end(), tail.start());
    let step = middle.len() / SAMPLE_SPREAD;
    let spread = (0..SAMPLE_SPREAD).map(move |i| {
        let start = middle.start() + step * i;
        ByteRange::between(start, start + step.min(BLOCK_SIZE))
    });
    iter::once(head).chain(spread).chain(iter::once(tail))
}

/// Nanoseconds since 1970, shown as seconds with nine places, as `touch -d @` takes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seconds(pub(super) i128);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let ns = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
    }
}

fn parse_seconds(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.')?;
    if fraction.len() != 9 {
        return None;
    }
    let ns: i128 = fraction.parse().ok()?;
    let whole_ns = whole.parse::<i128>().ok()?.checked_mul(1_000_000_000)?;
    if whole.starts_with('-') {
        whole_ns.checked_sub(ns)
    } else {
        whole_ns.checked_add(ns)
    }
}

/// How an image differs from what was recorded of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Difference {
    /// In size, in bytes.
    #[error("it has {is} bytes and had {was}")]
    Size {
        /// Now.
        is: u64,
        /// When it was recorded.
        was: u64,
    },
    /// In the sampled bytes.
    #[error("its content is another")]
    Content,
    /// In the modification time alone, in nanoseconds since 1970.
    #[error("it was modified at @{} and before that at @{}", Seconds(*is), Seconds(*was))]
    Modified {
        /// Now.
        is: i128,
        /// When it was recorded.
        was: i128,
    },
}

impl Difference {
    /// The time to give to `touch -d` where the content is surely the same and only its time moved.
    #[must_use]
    pub fn touch(&self) -> Option<String> {
        match *self {
            // A block device is recorded with 0, and no `touch` can bring that about.
            Self::Modified { is, was } if is != 0 && was != 0 => Some(format!("@{}", Seconds(was))),
            _ => None,
        }
    }
}

/// The text is no identity that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it is damaged, or from a later version of cowherd")]
pub struct IdentityTextError;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn identity() -> Identity {
        Identity {
            size: 67_108_864,
            mtime_ns: 1_700_000_000_123_456_789,
            sample_crc: 0x00c0_ffee,
        }
    }

    #[test]
    fn the_text_form_never_changes() {
        let text = "cowherd image identity 1\nsize 67108864\n\
                    modified 1700000000.123456789\nsample 00c0ffee\n";
        assert_eq!(identity().to_text(), text);
        assert_eq!(Identity::from_text(text), Ok(identity()));
    }

    #[test]
    fn damaged_text_is_refused() {
        let text = identity().to_text();
        for cut in 0..text.len() {
            assert!(Identity::from_text(&text[..cut]).is_err(), "{cut}");
        }
        assert!(Identity::from_text(&format!("{text}more\n")).is_err());
        assert!(Identity::from_text(&text.replace("identity 1", "identity 2")).is_err());
    }

    #[test]
    fn the_most_telling_difference_is_named() {
        let (was, mut is) = (identity(), identity());
        assert_eq!(is.compare(&was), Ok(()));
        is.mtime_ns += 1;
        let difference = is.compare(&was).unwrap_err();
        assert_eq!(difference.touch().as_deref(), Some("@1700000000.123456789"));
        is.sample_crc += 1;
        assert_eq!(is.compare(&was), Err(Difference::Content));
        is.size += 1;
        assert!(matches!(is.compare(&was), Err(Difference::Size { .. })));
    }

    #[test]
    fn a_small_image_is_sampled_whole() {
        for size in [1, 4095, SAMPLE_HEAD, SAMPLE_HEAD + SAMPLE_TAIL] {
            assert_eq!(sample(size).map(ByteRange::len).sum::<u64>(), size);
        }
    }

    #[test]
    fn a_large_sample_stays_small_and_inside() {
        for size in [8 << 20, (1 << 40) + 1, crate::limits::DISK_SIZE_MAX] {
            let sampled: u64 = sample(size).map(ByteRange::len).sum();
            assert!(sampled <= SAMPLE_HEAD + SAMPLE_TAIL + SAMPLE_SPREAD * BLOCK_SIZE);
            assert!(sample(size).all(|range| range.end() <= size));
        }
    }

    proptest! {
        #[test]
        fn reading_undoes_writing(size: u64, s: i64, ns in 0i128..1_000_000_000, sample_crc: u32) {
            let mtime_ns = i128::from(s) * 1_000_000_000 + ns;
            let identity = Identity { size, mtime_ns, sample_crc };
            prop_assert_eq!(Identity::from_text(&identity.to_text()), Ok(identity));
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = Identity::from_text(&text);
        }
    }
}
