//! Why an image can't be served, one line each, with what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::export::name::NameError;
use crate::limits::DISK_SIZE_MAX;

/// Why an image can't be served.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is its variant's description")]
pub enum ImageError {
    #[error("image {}: there is no such file; check the path", .0.display())]
    Missing(PathBuf),
    #[error("image {}: no permission to read it; let this user read it (chmod, chgrp), or run as \
             one who may", .0.display())]
    Forbidden(PathBuf),
    #[error("image {}: can't be opened ({reason}); check the path and the disk it is \
             on", path.display())]
    Unopened { path: PathBuf, reason: io::Error },
    #[error("image {}: is a directory; name the image file itself", .0.display())]
    Directory(PathBuf),
    #[error("image {}: is neither a file nor a block device; name one of these", .0.display())]
    NoDisk(PathBuf),
    #[error("image {}: is empty; put a disk image there first", .0.display())]
    Empty(PathBuf),
    #[error("image {}: has {size} bytes, and at most {DISK_SIZE_MAX} can be served; use a smaller \
             one", path.display())]
    TooLarge { path: PathBuf, size: u64 },
    #[error("image {}: can't be called {stem:?}: {reason}; rename the file or link to it under \
             another name", path.display())]
    Name {
        path: PathBuf,
        stem: String,
        reason: NameError,
    },
    #[error("image {}: can't be read ({reason}); check the disk it is on", path.display())]
    Sample { path: PathBuf, reason: io::Error },
    #[error("image {}: is being written right now; wait until that is done", .0.display())]
    BeingWritten(PathBuf),
}

impl ImageError {
    pub(super) fn opening(path: &Path, reason: io::Error) -> Self {
        let path = path.to_owned();
        match reason.kind() {
            io::ErrorKind::NotFound => Self::Missing(path),
            io::ErrorKind::PermissionDenied => Self::Forbidden(path),
            _ => Self::Unopened { path, reason },
        }
    }
}
