//! An image and what a client changed of it, written to a new image.
//!
//! Invariants:
//! - Neither the image nor the overlay is changed.
//! - The new file is there as a whole or not at all, and replaces nothing.
//! - What is a hole in the image, or reads as zeros for the client, is a hole in the new file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::plan::{Run, Source, plan};
use crate::disk::{NewImage, RealDisk, RealFile, next_data};
use crate::image::{Difference, Identity, Image, ImageChanged};
use crate::overlay::header::Base;
use crate::overlay::inspect::{Report, View};
use crate::units::ByteRange;

/// Bytes between two reports of progress, and two chances to stop.
const STEP: u64 = 16 << 20;

/// What an overlay's header records of the image below.
#[must_use]
pub fn base_of(identity: &Identity) -> Base {
    Base {
        size: identity.size,
        // Nanoseconds have 63 bits until the year 2262.
        mtime_ns: i64::try_from(identity.mtime_ns).unwrap_or(i64::MAX),
        sample: identity.sample_crc,
    }
}

/// A new image that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Bytes, as many as the image has.
    pub size: u64,
    /// Bytes that are allocated to it; shared ones count too.
    pub space: u64,
    /// Whether it shares unchanged blocks with the image.
    pub shared: bool,
}

/// Why no new image was written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message is its variant's description")]
pub enum MergeError {
    #[error("{}: there is such a file already; name one that is not there", .0.display())]
    Exists(PathBuf),
    #[error("{}: another commit is writing it just now; wait for that, or name another file",
            .0.display())]
    Busy(PathBuf),
    #[error("{}: {reason}; nothing was written", path.display())]
    Failed { path: PathBuf, reason: io::Error },
    #[error("image {} is another one than the overlay was made over: {difference}; name that one \
             with --image", path.display())]
    OtherImage {
        path: PathBuf,
        difference: Difference,
    },
    #[error("{0}; nothing was written")]
    Changed(#[from] ImageChanged),
    #[error("it was stopped; nothing was written")]
    Stopped,
}

impl MergeError {
    fn failed(path: &Path, reason: io::Error) -> Self {
        let path = path.to_owned();
        match reason.kind() {
            io::ErrorKind::AlreadyExists => Self::Exists(path),
            io::ErrorKind::WouldBlock => Self::Busy(path),
            _ => Self::Failed { path, reason },
        }
    }
}

/// Writes what the client of `view` sees over `image` to the new file `target`.
///
/// # Errors
/// [`MergeError`]; there is no file `target` then, unless it was there before.
pub fn merge(
    image: &Image,
    view: &View<RealDisk>,
    target: &Path,
    report: Report<'_>,
) -> Result<Merged, MergeError> {
    check_base(image, view)?;
    let failed = |reason| MergeError::failed(target, reason);
    let new = NewImage::begin(target, image.size()).map_err(failed)?;
    let below = RealFile::from(Arc::clone(image.file()));
    let mut writer = Writer {
        shared: new.share(&below).map_err(failed)?,
        image: &below,
        data: &view.data,
        new,
    };
    let whole = ByteRange::between(0, image.size());
    for run in plan(Some(&view.map), whole) {
        for range in run.range.chunks(STEP) {
            writer.write(Run { range, ..run }).map_err(failed)?;
            if report(range.end(), whole.end()).is_break() {
                return Err(MergeError::Stopped);
            }
        }
    }
    image.verify_now()?;
    let space = writer.new.space().map_err(failed)?;
    writer.new.finish().map_err(failed)?;
    Ok(Merged {
        size: image.size(),
        space,
        shared: writer.shared,
    })
}

fn check_base(image: &Image, view: &View<RealDisk>) -> Result<(), MergeError> {
    let base = view.header.base;
    if base_of(image.identity()) == base {
        return Ok(());
    }
    let recorded = Identity {
        size: base.size,
        mtime_ns: base.mtime_ns.into(),
        sample_crc: base.sample,
    };
    let compared = image.identity().compare(&recorded);
    compared.map_err(|difference| MergeError::OtherImage {
        path: image.path().to_owned(),
        difference,
    })
}

struct Writer<'a> {
    image: &'a RealFile,
    data: &'a RealFile,
    new: NewImage,
    /// The new file began as the image; else it began as one hole.
    shared: bool,
}

impl Writer<'_> {
    fn write(&mut self, run: Run) -> io::Result<()> {
        match run.source {
            Source::Image if self.shared => Ok(()),
            Source::Image => self.copy(self.image, run.range),
            Source::Overlay => self.copy(self.data, run.range),
            Source::Zero => self.clear(run.range),
        }
    }

    /// Copies what is data in `source`; what is a hole there becomes one.
    fn copy(&mut self, source: &RealFile, range: ByteRange) -> io::Result<()> {
        let mut at = range.start();
        while at < range.end() {
            let data = next_data(source, ByteRange::between(at, range.end()))?;
            let data = data.unwrap_or_else(|| ByteRange::between(range.end(), range.end()));
            self.clear(ByteRange::between(at, data.start()))?;
            self.new.copy(source, data)?;
            at = data.end();
        }
        Ok(())
    }

    fn clear(&self, range: ByteRange) -> io::Result<()> {
        if self.shared {
            self.new.clear(range)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
