//! The bytes that a boot set is saved in. Pure.
//!
//! Numbers are little-endian:
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 8 | magic |
//! | 8 | 4 | version: 1 |
//! | 12 | 4 | CRC-32 of what follows |
//! | 16 | 8, 16, 4 | size, last change and sample of the image |
//! | 44 | 4 | sessions that the younger table has seen |
//! | 48 | 8 | bytes of a granule |
//! | 56 | 4, 4 | number of runs of the younger table and of the elder one |
//! | 64 | 4 + 4 each | runs: first granule, how many; in their order |

use std::sync::PoisonError;

use thiserror::Error;

use super::{BootSet, Shape, Table};
use crate::image::Identity;
use crate::limits::{
    BOOT_SET_BYTES_MAX, BOOT_SET_FILE_MAX, BOOT_SET_GRANULE, BOOT_SET_GRANULES_MAX,
};
use crate::units::ByteRange;

const MAGIC: [u8; 8] = *b"cowboot\n";

const VERSION: u32 = 1;

/// Bytes before the checksum covers them.
const UNCOVERED: usize = 16;

// At the worst every other granule is remembered, in both tables.
const _: () = assert!(64 + 2 * 8 * (BOOT_SET_BYTES_MAX / BOOT_SET_GRANULE) <= BOOT_SET_FILE_MAX);
const _: () = assert!(BOOT_SET_GRANULES_MAX <= u32::MAX as u64);

/// Why bytes are no boot set of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BootSetError {
    /// Not what was saved.
    #[error("it is damaged")]
    Damaged,
    /// Saved by another version of the program.
    #[error("it is of version {0}, which this program does not read")]
    Version(u32),
    /// Saved for another image.
    #[error("it is of another image")]
    OtherImage,
}

impl BootSet {
    /// The bytes to save it in, for the image that is `identity`.
    #[must_use]
    pub fn to_bytes(&self, identity: &Identity) -> Vec<u8> {
        let sessions = self.tables.read();
        let sessions = sessions.unwrap_or_else(PoisonError::into_inner).sessions;
        let (young, old) = self.now();
        let (young, old) = (runs(&young), runs(&old));
        let mut body = head(identity);
        body.extend(sessions.to_le_bytes());
        body.extend(self.shape.granule.to_le_bytes());
        for runs in [&young, &old] {
            body.extend(u32::try_from(runs.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
        for (first, count) in young.into_iter().chain(old) {
            body.extend(first.to_le_bytes());
            body.extend(count.to_le_bytes());
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(crc32fast::hash(&body).to_le_bytes());
        bytes.extend(body);
        bytes
    }

    /// The inverse of [`BootSet::to_bytes`].
    ///
    /// # Errors
    /// The bytes are damaged, or of another image or version.
    pub fn from_bytes(bytes: &[u8], identity: &Identity) -> Result<Self, BootSetError> {
        let mut rest = Rest(bytes);
        if rest.take::<8>() != Ok(MAGIC) {
            return Err(BootSetError::Damaged);
        }
        match rest.u32()? {
            VERSION => {}
            version => return Err(BootSetError::Version(version)),
        }
        let is_whole = bytes.get(UNCOVERED..).map(crc32fast::hash);
        if Some(rest.u32()?) != is_whole {
            return Err(BootSetError::Damaged);
        }
        if rest.take::<28>()?.as_slice() != head(identity) {
            return Err(BootSetError::OtherImage);
        }
        let sessions = rest.u32()?;
        let shape = Shape::of(identity.size);
        if u64::from_le_bytes(rest.take()?) != shape.granule {
            return Err(BootSetError::Damaged);
        }
        let (young, old) = (rest.u32()?, rest.u32()?);
        let (young, old) = (rest.table(shape, young)?, rest.table(shape, old)?);
        match rest.0 {
            [] => Ok(Self::of_tables(shape, young, old, sessions)),
            _ => Err(BootSetError::Damaged),
        }
    }
}

/// What tells the image, as it is saved.
fn head(identity: &Identity) -> Vec<u8> {
    let mut bytes = identity.size.to_le_bytes().to_vec();
    bytes.extend(identity.mtime_ns.to_le_bytes());
    bytes.extend(identity.sample_crc.to_le_bytes());
    bytes
}

/// What a table has, as first granules and numbers of them.
fn runs(table: &Table) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    let numbers = 0..u32::try_from(table.shape.granules()).unwrap_or(u32::MAX);
    for granule in numbers.filter(|granule| table.has(u64::from(*granule))) {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == granule => *count += 1,
            _ => runs.push((granule, 1)),
        }
    }
    runs
}

/// Bytes that are not read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BootSetError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(BootSetError::Damaged)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u32(&mut self) -> Result<u32, BootSetError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    /// A table of so many runs, each behind the one before and inside the image: so all of them
    /// together have no more granules than that.
    fn table(&mut self, shape: Shape, runs: u32) -> Result<Table, BootSetError> {
        let table = Table::new(shape);
        let mut behind = 0;
        for _ in 0..runs {
            let (first, count) = (u64::from(self.u32()?), u64::from(self.u32()?));
            let end = first + count;
            if first < behind || end > shape.granules() {
                return Err(BootSetError::Damaged);
            }
            behind = end;
            table.note(ByteRange::between(
                first * shape.granule,
                end * shape.granule,
            ));
        }
        table
            .is_unsaved
            .store(false, std::sync::atomic::Ordering::Relaxed);
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{BOOT_SET_SESSIONS, BOOT_SET_TICKS};

    const SIZE: u64 = 1000 * BOOT_SET_GRANULE + 77;

    fn identity() -> Identity {
        Identity {
            size: SIZE,
            mtime_ns: -5,
            sample_crc: 7,
        }
    }

    /// Some in both tables.
    fn set() -> BootSet {
        let set = BootSet::new(SIZE);
        set.note(ByteRange::between(0, 1));
        set.note(ByteRange::between(SIZE - 1, SIZE));
        (0..=BOOT_SET_SESSIONS).for_each(|_| drop(set.begin(BOOT_SET_TICKS)));
        set.note(ByteRange::between(5 << 20, 9 << 20));
        set
    }

    #[test]
    fn what_was_saved_is_read_again() {
        let set = set();
        let bytes = set.to_bytes(&identity());
        let read = BootSet::from_bytes(&bytes, &identity()).unwrap();
        assert_eq!(read.ranges(), set.ranges());
        assert_eq!(read.to_bytes(&identity()), bytes);
        assert!(!read.take_unsaved());
    }

    #[test]
    fn no_damaged_byte_goes_unnoticed() {
        let bytes = set().to_bytes(&identity());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(BootSet::from_bytes(&damaged, &identity()).is_err(), "{at}");
            assert!(
                BootSet::from_bytes(&bytes[..at], &identity()).is_err(),
                "{at}"
            );
        }
    }

    #[test]
    fn that_of_another_image_is_refused() {
        let bytes = set().to_bytes(&identity());
        let others = [
            Identity {
                size: SIZE + 1,
                ..identity()
            },
            Identity {
                mtime_ns: 5,
                ..identity()
            },
            Identity {
                sample_crc: 8,
                ..identity()
            },
        ];
        for other in others {
            let read = BootSet::from_bytes(&bytes, &other);
            assert_eq!(read.map(|_| ()), Err(BootSetError::OtherImage));
        }
    }

    /// The bytes of a set with these runs, under a checksum that is right.
    fn with_runs(young: u32, runs: &[(u32, u32)]) -> Vec<u8> {
        let mut bytes = BootSet::new(SIZE).to_bytes(&identity());
        bytes[56..60].copy_from_slice(&young.to_le_bytes());
        for (first, count) in runs {
            bytes.extend(first.to_le_bytes());
            bytes.extend(count.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn runs_out_of_order_or_out_of_the_image_are_refused() {
        let read = |bytes: &[u8]| BootSet::from_bytes(bytes, &identity()).map(|set| set.ranges());
        assert!(read(&with_runs(2, &[(1, 2), (3, 4)])).is_ok());
        for wrong in [
            with_runs(2, &[(3, 4), (1, 2)]),
            with_runs(2, &[(1, 2), (2, 2)]),
            with_runs(1, &[(1000, 2)]),
            with_runs(1, &[(u32::MAX, u32::MAX)]),
            with_runs(u32::MAX, &[(1, 2)]),
            with_runs(0, &[(1, 2)]),
        ] {
            assert_eq!(read(&wrong), Err(BootSetError::Damaged));
        }
    }
}
