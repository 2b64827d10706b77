//! The shared disk below all overlays.
//!
//! Invariants:
//! - An image is never written (promise 1): it is opened read-only, and nothing here could.
//! - Once an image was seen to change it stays failed; every read of it fails from then on.
//! - Its mapping is only handed to the kernel, and [`Image::warm`] reads no clock.

mod boot_set;
mod change;
mod complaint;
mod error;
mod holes;
mod identity;
mod prefetch;
mod warmth;
mod watch;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use crate::disk::{FileKind, ImageFile, ImageMapping, RealFile, Stamp};
use crate::io::Readers;
use crate::limits::DISK_SIZE_MAX;
use crate::name::Name;
use crate::units::ByteRange;

pub use boot_set::{BootSet, BootSetError};
pub use change::{Change, ImageChanged};
pub use complaint::Complaint;
pub use error::ImageError;
pub use holes::Holes;
pub use identity::{Difference, Identity, IdentityTextError};
pub use prefetch::{Recorder, Warmed, Warming};
pub use watch::Watch;

use prefetch::Turn;
use warmth::Warmth;

/// One immutable disk, shared by all clients.
#[derive(Debug)]
pub struct Image {
    name: Name,
    path: PathBuf,
    file: ImageFile,
    readers: Readers,
    /// A thread of its own is looking at the file.
    is_looked_at: AtomicBool,
    identity: Identity,
    mapping: Option<Arc<ImageMapping>>,
    warmth: Warmth,
    holes: OnceLock<Holes>,
    boot_set: OnceLock<BootSet>,
    turn: Turn,
    change: OnceLock<Change>,
    renamed: OnceLock<()>,
    unreadable: Complaint,
}

impl Image {
    /// Opens the image at `path`, named after the file: `disk.img` is `disk`.
    ///
    /// Reads a sample of about 5 MiB for its [`Identity`].
    ///
    /// # Errors
    /// In one line what is wrong with `path`, and what to do.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        Self::open_as(path, Self::name_of(path)?)
    }

    /// Opens the image at `path` under a name of its own.
    ///
    /// # Errors
    /// In one line what is wrong with `path`, and what to do.
    pub fn open_as(path: &Path, name: Name) -> Result<Self, ImageError> {
        let file = ImageFile::open(path).map_err(|error| ImageError::opening(path, error))?;
        let stamp = checked_stamp(&file, path)?;
        let identity = Identity::take(&file, stamp).map_err(|error| ImageError::Sample {
            path: path.to_owned(),
            reason: error,
        })?;
        let mapping = map(&file, stamp.size, &name);
        let warmth = Warmth::new(stamp.size, file.tells_residency());
        let image = Self {
            name,
            path: path.to_owned(),
            readers: Readers::of(file.file()),
            is_looked_at: AtomicBool::new(false),
            file,
            identity,
            mapping,
            warmth,
            holes: OnceLock::new(),
            boot_set: OnceLock::new(),
            turn: Turn::default(),
            change: OnceLock::new(),
            renamed: OnceLock::new(),
            unreadable: Complaint::default(),
        };
        match image.verify_now() {
            Ok(()) => Ok(image),
            Err(_) => Err(ImageError::BeingWritten(image.path)),
        }
    }

    /// The name of an image that is called after its file: without directory and extension.
    ///
    /// # Errors
    /// It makes no name.
    pub fn name_of(path: &Path) -> Result<Name, ImageError> {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        Name::new(&stem).map_err(|reason| ImageError::Name {
            path: path.to_owned(),
            stem: stem.into_owned(),
            reason,
        })
    }

    /// What clients call it.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Where it was found.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether no other file has been put at that place since.
    #[must_use]
    pub fn is_still_there(&self) -> bool {
        self.file.is_still_at(&self.path)
    }

    /// Bytes; any number, not only whole blocks.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.identity.size
    }

    /// What tells this image from another, or from itself after a change.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The mapping for sends straight from memory; `None` where the file could not be mapped.
    #[must_use]
    pub fn mapping(&self) -> Option<&Arc<ImageMapping>> {
        self.mapping.as_ref()
    }

    /// The open file, for reads through the ring.
    #[must_use]
    pub fn file(&self) -> &Arc<File> {
        self.file.file()
    }

    /// Who reads it where that may have to wait.
    #[must_use]
    pub const fn readers(&self) -> &Readers {
        &self.readers
    }

    /// Whether a send of `range` from the mapping will not wait for the disk, as far as one can
    /// tell.
    ///
    /// Costs no system call where the answer was yes a moment ago. Always `false` without a
    /// mapping, for a range past the end, and where the kernel would not tell us.
    #[must_use]
    pub fn warm(&self, range: ByteRange) -> bool {
        let Some(mapping) = self.mapping.as_deref() else {
            return false;
        };
        range.end() <= self.size() && self.warmth.covers(range, mapping)
    }

    /// Lets what was seen of its pages grow older by one tick.
    fn tick(&self) {
        self.warmth.advance();
        if let Some(mapping) = &self.mapping {
            mapping.calm();
        }
    }

    /// Where it has holes, once that was found out.
    #[must_use]
    pub fn known_holes(&self) -> Option<&Holes> {
        self.holes.get()
    }

    /// Finds out where it has holes, if nobody did before; may wait for the disk. Of a disk that
    /// does not tell, none is known.
    pub fn holes(&self) -> &Holes {
        self.holes.get_or_init(|| {
            let file = RealFile::from(Arc::clone(self.file()));
            Holes::find(&file, self.size()).unwrap_or_else(|error| {
                tracing::warn!("image {}: its holes can't be found: {error}", self.name);
                Holes::none(self.size())
            })
        })
    }

    /// Fills `buf` from `offset` if that needs no waiting for the disk; `false` where it would, and
    /// then `buf` holds nothing of use. Bytes past the end read as zeros.
    ///
    /// # Errors
    /// [`ImageChanged`] as an `io::Error`, or a failing disk.
    pub fn read_cached(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        self.check()?;
        self.file.read_cached(buf, offset, self.size())
    }

    /// Fills `buf` from `offset`, waiting for the disk where it must. Bytes past the end read as
    /// zeros.
    ///
    /// # Errors
    /// [`ImageChanged`] as an `io::Error`, or a failing disk.
    pub fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.check()?;
        self.file.read(buf, offset, self.size())
    }
}

fn checked_stamp(file: &ImageFile, path: &Path) -> Result<Stamp, ImageError> {
    let path = || path.to_owned();
    match file.kind() {
        FileKind::Regular | FileKind::BlockDevice => {}
        FileKind::Directory => return Err(ImageError::Directory(path())),
        FileKind::Other => return Err(ImageError::NoDisk(path())),
    }
    let stamp = file
        .stamp()
        .map_err(|error| ImageError::opening(&path(), error))?;
    match stamp.size {
        0 => Err(ImageError::Empty(path())),
        1..=DISK_SIZE_MAX => Ok(stamp),
        size => Err(ImageError::TooLarge { path: path(), size }),
    }
}

/// Serving works without a mapping too, only slower.
fn map(file: &ImageFile, size: u64, name: &Name) -> Option<Arc<ImageMapping>> {
    let mapped = usize::try_from(size)
        .map_err(io::Error::other)
        .and_then(|len| ImageMapping::new(file.file(), len));
    match mapped {
        Ok(mapping) => Some(Arc::new(mapping)),
        Err(error) => {
            tracing::warn!("image {name} can't be mapped ({error}): hot reads will cost a copy");
            None
        }
    }
}
