//! The overlay's `header` file: what the overlay is, over which image, in which format. Pure.
//!
//! Invariants:
//! - Written once, when the overlay is made, and never changed.
//! - Two copies, each with its checksum, in pages of their own: either may be damaged.
//! - A reader refuses a version or an incompatible feature that it does not know, rather than
//!   guess.

use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::OverlayMode;
use crate::units::BLOCK_SIZE;

/// Bytes of the file: two copies of a page each.
pub const HEADER_BYTES: usize = 2 * COPY_BYTES;
const COPY_BYTES: usize = 4096;
const MAGIC: [u8; 8] = *b"cowherd\n";
const VERSION: u32 = 1;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Layout {
    magic: [u8; 8],
    version: U32,
    /// CRC-32 of the bytes after this field.
    checksum: U32,
    uuid: [u8; 16],
    block_size: U32,
    mode: U32,
    /// Features that a reader must know to open the overlay at all.
    incompatible: U64,
    disk_size: U64,
    base_mtime_ns: I64,
    base_sample: U32,
    reserved: U32,
    boot_id: [u8; 16],
    created: U64,
}

/// The image that an overlay was made over, as far as its content can be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Bytes of the image, which is also the size of the client's disk.
    pub size: u64,
    /// Its last change, in nanoseconds since 1970; 0 for a block device.
    pub mtime_ns: i64,
    /// Checksum of samples of its content.
    pub sample: u32,
}

/// What an overlay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Tells this overlay's frames from all others.
    pub uuid: [u8; 16],
    /// How long it is kept.
    pub mode: OverlayMode,
    /// The image below.
    pub base: Base,
    /// The boot of the host under which it was made; an ephemeral overlay ends with it.
    pub boot_id: [u8; 16],
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

/// Why a header can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Neither copy validates.
    #[error("both copies of the header are damaged")]
    Damaged,
    /// A newer cowherd made it.
    #[error("it has format version {0}, this cowherd knows version {VERSION}: use a newer cowherd")]
    Version(u32),
    /// A newer cowherd made it, with something this one can't leave out.
    #[error("it uses features ({0:#x}) that this cowherd does not know: use a newer cowherd")]
    Features(u64),
}

impl Header {
    /// The file's content.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut layout = Layout {
            magic: MAGIC,
            version: VERSION.into(),
            checksum: 0.into(),
            uuid: self.uuid,
            block_size: u32::try_from(BLOCK_SIZE).unwrap_or(u32::MAX).into(),
            mode: mode_code(self.mode).into(),
            incompatible: 0.into(),
            disk_size: self.base.size.into(),
            base_mtime_ns: self.base.mtime_ns.into(),
            base_sample: self.base.sample.into(),
            reserved: 0.into(),
            boot_id: self.boot_id,
            created: self.created.into(),
        };
        layout.checksum = checksum(&layout).into();
        let mut copy = layout.as_bytes().to_vec();
        copy.resize(COPY_BYTES, 0);
        copy.repeat(2)
    }

    /// Reads the file's content.
    ///
    /// # Errors
    /// [`HeaderError`], where neither copy can be used.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HeaderError> {
        let copies = bytes.chunks(COPY_BYTES).take(2);
        let layout = copies
            .filter_map(valid_copy)
            .next()
            .ok_or(HeaderError::Damaged)?;
        let features = layout.incompatible.get();
        if layout.version.get() != VERSION {
            return Err(HeaderError::Version(layout.version.get()));
        }
        let known_blocks = u64::from(layout.block_size.get()) == BLOCK_SIZE;
        let mode = mode_of(layout.mode.get()).filter(|_| known_blocks && features == 0);
        Ok(Self {
            uuid: layout.uuid,
            mode: mode.ok_or(HeaderError::Features(features))?,
            base: Base {
                size: layout.disk_size.get(),
                mtime_ns: layout.base_mtime_ns.get(),
                sample: layout.base_sample.get(),
            },
            boot_id: layout.boot_id,
            created: layout.created.get(),
        })
    }
}

/// Which of the two copies in the file's content can be used, each by itself.
#[must_use]
pub fn whole_copies(bytes: &[u8]) -> [bool; 2] {
    let is_whole = |at: usize| {
        let copy = bytes.get(at..).unwrap_or_default();
        valid_copy(copy.get(..COPY_BYTES).unwrap_or_default()).is_some()
    };
    [is_whole(0), is_whole(COPY_BYTES)]
}

fn valid_copy(copy: &[u8]) -> Option<Layout> {
    let (layout, _) = Layout::read_from_prefix(copy).ok()?;
    (layout.magic == MAGIC && checksum(&layout) == layout.checksum.get()).then_some(layout)
}

fn checksum(layout: &Layout) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&layout.version.get().to_le_bytes());
    hasher.update(layout.as_bytes().get(16..).unwrap_or_default());
    hasher.finalize()
}

const fn mode_code(mode: OverlayMode) -> u32 {
    match mode {
        OverlayMode::Persistent => 1,
        OverlayMode::Ephemeral => 2,
    }
}

const fn mode_of(code: u32) -> Option<OverlayMode> {
    match code {
        1 => Some(OverlayMode::Persistent),
        2 => Some(OverlayMode::Ephemeral),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            uuid: *b"0123456789abcdef",
            mode: OverlayMode::Persistent,
            base: Base {
                size: 10_000_001,
                mtime_ns: -5,
                sample: 99,
            },
            boot_id: [3; 16],
            created: 1_700_000_000,
        }
    }

    #[test]
    fn comes_back_as_it_was_written() {
        assert_eq!(Header::from_bytes(&header().to_bytes()), Ok(header()));
    }

    #[test]
    fn any_damage_to_one_copy_is_repaired_from_the_other() {
        for at in 0..HEADER_BYTES {
            let mut bytes = header().to_bytes();
            bytes[at] ^= 0x55;
            assert_eq!(Header::from_bytes(&bytes), Ok(header()), "byte {at}");
        }
    }

    #[test]
    fn a_damaged_copy_is_told_from_a_whole_one() {
        let mut bytes = header().to_bytes();
        assert_eq!(whole_copies(&bytes), [true, true]);
        bytes[40] ^= 1;
        assert_eq!(whole_copies(&bytes), [false, true]);
        assert_eq!(whole_copies(&bytes[..COPY_BYTES]), [false, false]);
    }

    #[test]
    fn damage_to_both_copies_is_refused() {
        let mut bytes = header().to_bytes();
        bytes[40] ^= 1;
        bytes[COPY_BYTES + 40] ^= 1;
        assert_eq!(Header::from_bytes(&bytes), Err(HeaderError::Damaged));
    }

    #[test]
    fn a_short_file_is_refused() {
        assert_eq!(Header::from_bytes(&[]), Err(HeaderError::Damaged));
    }

    #[test]
    fn the_format_has_not_changed() {
        let bytes = header().to_bytes();
        let text: String = bytes[..size_of::<Layout>()]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let expected = concat!(
            "636f77686572640a",
            "01000000",
            "CHECKSUM",
            "30313233343536373839616263646566",
            "00100000",
            "01000000",
            "0000000000000000",
            "8196980000000000",
            "fbffffffffffffff",
            "63000000",
            "00000000",
            "03030303030303030303030303030303",
            "00f1536500000000",
        );
        assert_eq!(text.replace(&text[24..32], "CHECKSUM"), expected);
    }
}
