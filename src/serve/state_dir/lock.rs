//! The lock of a state directory, which a server may hand to the next one.
//!
//! Invariant: from the first server on there is no moment at which nobody holds it: both have the
//! one open file, which the kernel unlocks when the last of them has closed it.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FlockOperation;

use super::{StateError, read_small};

/// A lock that is held, or will be once another server has handed it over.
#[derive(Debug, Default)]
pub(super) struct Lock {
    file: OnceLock<File>,
    /// Another server holds it now, too.
    is_left: AtomicBool,
}

impl Lock {
    /// Locks the directory, and leaves our process id for the message of whoever comes next.
    pub(super) fn take(directory: &Path) -> Result<Self, StateError> {
        let path = path_in(directory);
        let failed = |reason| StateError::new(&path, reason);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StateError::Locked {
                    path: directory.to_owned(),
                    pid: holder_of(directory),
                });
            }
            Err(error) => return Err(failed(error.into())),
        }
        sign(&lock).map_err(failed)?;
        Ok(Self {
            file: lock.into(),
            is_left: AtomicBool::default(),
        })
    }

    /// Holds a lock that another server has handed over.
    pub(super) fn hold(&self, file: File) {
        // It is for the message of whoever comes next: nothing depends on it.
        let _ = sign(&file);
        let _ = self.file.set(file);
    }

    /// The lock, for another server that is to hold it, too.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        let file = self.file.get().ok_or(io::ErrorKind::NotFound)?;
        Ok(file.try_clone()?.into())
    }

    /// Takes it again, should it not be held; false where somebody else holds it.
    pub(super) fn take_again(&self) -> bool {
        let Some(file) = self.file.get() else {
            return false;
        };
        let locked = rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive);
        locked.is_ok() && sign(file).is_ok()
    }

    /// It is another server's from now on.
    pub(super) fn leave(&self) {
        self.is_left.store(true, Ordering::Relaxed);
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(file) = self.file.get().filter(|_| !*self.is_left.get_mut()) {
            // Closing would do, but for a child process between its fork and exec that holds a
            // copy.
            let _ = rustix::fs::flock(file, FlockOperation::Unlock);
        }
    }
}

fn path_in(directory: &Path) -> PathBuf {
    directory.join("lock")
}

/// The process that has signed the lock last.
pub(in crate::serve) fn holder_of(directory: &Path) -> Option<u32> {
    let signed = read_small(&path_in(directory)).ok().flatten()?;
    signed.trim().parse().ok()
}

fn sign(mut lock: &File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}
