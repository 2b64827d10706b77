//! What becomes of an image that changes while it is served.
//!
//! Invariants: the first change seen is kept and told once; a renamed image is no changed image.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::{fmt, io};

use thiserror::Error;

use super::identity::Seconds;
use super::{Image, Stamp};
use crate::disk::FileKind;
use crate::name::Name;

/// What was seen to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Another size, in bytes.
    Size {
        /// When it was opened.
        was: u64,
        /// Now.
        is: u64,
    },
    /// Another modification time, in nanoseconds since 1970.
    Modified {
        /// When it was opened.
        was: i128,
        /// Now.
        is: i128,
    },
    /// The kernel told of a write, though size and time look the same.
    Written,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Size { was, is } => write!(f, "its size went from {was} to {is} bytes"),
            Self::Modified { was, is } => write!(
                f,
                "its modification time went from @{} to @{}",
                Seconds(was),
                Seconds(is)
            ),
            Self::Written => write!(f, "somebody wrote to it"),
        }
    }
}

/// The image is not what it was when its overlays were opened: nothing of it can be served any
/// more.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("image {image} changed while it was served: {change}")]
pub struct ImageChanged {
    /// Which image.
    pub image: Name,
    /// The first change that was seen.
    pub change: Change,
}

impl From<ImageChanged> for io::Error {
    fn from(changed: ImageChanged) -> Self {
        Self::other(changed)
    }
}

impl Image {
    /// Whether the image is still what it was, as far as is known by now. One atomic load.
    ///
    /// # Errors
    /// The first change that was seen.
    pub fn check(&self) -> Result<(), ImageChanged> {
        match self.change.get() {
            None => Ok(()),
            Some(&change) => Err(ImageChanged {
                image: self.name.clone(),
                change,
            }),
        }
    }

    /// Looks at the file at once: for the watch, and for whoever saw a send fail with EFAULT.
    ///
    /// # Errors
    /// The first change that was seen.
    pub fn verify_now(&self) -> Result<(), ImageChanged> {
        self.check()?;
        match self.file.stamp() {
            Ok(stamp) => self.compare_with(stamp),
            // Reads will tell by themselves whether the disk is lost.
            Err(error) => tracing::warn!("image {} can't be looked at: {error}", self.name),
        }
        self.check()
    }

    /// Has the file looked at by whom others wait for, and says what is known by then: where a
    /// process or another host answers for the file, a thread of its own does it.
    ///
    /// # Errors
    /// The first change that was seen.
    pub fn look(self: &Arc<Self>) -> Result<(), ImageChanged> {
        if !self.readers.are_apart() {
            return self.verify_now();
        }
        if !self.is_looked_at.swap(true, Ordering::AcqRel) {
            let image = Arc::clone(self);
            let look = move || {
                // A failed image has told so itself.
                let _ = image.verify_now();
                image.is_looked_at.store(false, Ordering::Release);
            };
            let name = "image-look".to_owned();
            if std::thread::Builder::new().name(name).spawn(look).is_err() {
                self.is_looked_at.store(false, Ordering::Release);
            }
        }
        self.check()
    }

    /// Takes notice of a read that failed at byte `at`.
    pub fn saw_failed_read(self: &Arc<Self>, at: u64, error: &io::Error) {
        if self.look().is_ok() && self.unreadable.is_due() {
            tracing::error!(
                "image {} ({}) can't be read at byte {at}: {error}; its clients get an I/O error: \
                 check its disk",
                self.name,
                self.path.display()
            );
        }
    }

    /// Takes notice of a write that the kernel told of.
    pub(super) fn saw_write(&self) {
        // What has changed is told better by a look, for which nobody can wait here.
        if self.readers.are_apart() || self.verify_now().is_ok() {
            self.fail(Change::Written);
        }
    }

    /// Takes notice of another name, or of none.
    pub(super) fn saw_rename(&self) {
        if self.renamed.set(()).is_ok() {
            tracing::info!(
                "image {} ({}) was renamed, removed or replaced: its clients go on with the file \
                 as it was; what is at that path now is served as another generation, see \
                 cowherd.toml(5), or after a restart",
                self.name,
                self.path.display()
            );
        }
    }

    fn compare_with(&self, now: Stamp) {
        let (was, is) = (self.identity.size, now.size);
        if was != is {
            return self.fail(Change::Size { was, is });
        }
        let (was, is) = (self.identity.mtime_ns, now.mtime_ns);
        if was != is {
            return self.fail(Change::Modified { was, is });
        }
        if now.unlinked {
            self.saw_rename();
        }
    }

    /// A device has no modification time that lasts: only a sample of its content tells it from
    /// another.
    fn fate_of_overlays(&self) -> &'static str {
        match self.file.kind() {
            FileKind::BlockDevice => {
                "overlays made over the old content are refused only if the change lies in the \
                 sample of the device: reset them all"
            }
            _ => "overlays made over the old content will be refused",
        }
    }

    fn fail(&self, change: Change) {
        if self.change.set(change).is_ok() {
            // Replies that a slow client has not taken yet name bytes that are others now.
            if let Some(mapping) = &self.mapping {
                mapping.disown();
            }
            tracing::error!(
                "image {} ({}) changed while it was served: {change}; its clients get I/O errors \
                 from now on; restart cowherd to serve the new content; {}",
                self.name,
                self.path.display(),
                self.fate_of_overlays()
            );
        }
    }
}
