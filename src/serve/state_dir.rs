//! The state directory: one server's overlays and what else it keeps.
//!
//! Invariants:
//! - One server per directory, held by a lock for as long as [`StateDir`] lives.
//! - An overlay directory carries the identity of its image, durably, before any overlay is made in
//!   it.

mod contents;
pub(super) mod durable;
mod lock;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::image::{Difference, Identity, IdentityTextError};
use crate::name::Name;

pub(super) use contents::LeftOver;
use lock::Lock;
pub(super) use lock::holder_of;

/// The file in an overlay directory that tells which image its overlays were made over. No client
/// can have this name: names never begin with a dot.
const IDENTITY: &str = ".identity";

/// The file in an overlay directory that tells where its image was when it was served last; the
/// same goes for its name.
const IMAGE: &str = ".image";

/// The file in an overlay directory that tells what boots read of its image.
const BOOT_SET: &str = ".boot-set";

/// The socket in the state directory that a running server answers commands on.
pub const CONTROL_SOCKET: &str = "control.sock";

/// Longest identity or lock file that is read; a longer one is damaged.
const SMALL_FILE_MAX: u64 = 4096;

/// A state directory that this process holds the lock of.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    lock: Lock,
}

/// Why the state directory can't be used, one line each, with what to do about it.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is its variant's description")]
pub enum StateError {
    #[error("state directory {} is held by another cowherd{}: stop it, or choose another \
             directory with --state", path.display(), holder(*pid))]
    Locked { path: PathBuf, pid: Option<u32> },
    #[error("state {}: no permission; choose another directory with --state, or let this user \
             write there", .0.display())]
    Forbidden(PathBuf),
    #[error("state {}: the file system is read-only; choose another directory with \
             --state", .0.display())]
    ReadOnly(PathBuf),
    #[error("state {}: that, or what is above it, is a file and no directory; choose a directory \
             with --state", .0.display())]
    NoDirectory(PathBuf),
    #[error("state {}: {reason}; choose another directory with --state", path.display())]
    Failed { path: PathBuf, reason: io::Error },
    #[error("state {}: there is no such directory; name the one that the server uses with \
             --state", .0.display())]
    Missing(PathBuf),
    #[error("image {image} is another one than the overlays in {} were made over: {difference}; \
             {}", directory.display(), advice(difference, directory))]
    OtherImage {
        image: Name,
        directory: PathBuf,
        difference: Difference,
    },
    #[error("{}: {reason}; restore the file, or move the directory it is in away to start \
             afresh", path.display())]
    BadIdentity {
        path: PathBuf,
        reason: IdentityTextError,
    },
    #[error("{} holds overlays, but not the file `{IDENTITY}` that tells of which image; restore \
             it, or move the directory away to start afresh", .0.display())]
    NoIdentity(PathBuf),
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

fn advice(difference: &Difference, directory: &Path) -> String {
    let touch = difference.touch().map_or_else(String::new, |time| {
        format!("if its content is surely the same, run `touch -d {time}` on the image; else ")
    });
    format!(
        "{touch}restore the image, serve this one as another `generation` (cowherd.toml(5)) or \
         under another name, or move {} away to start afresh",
        directory.display()
    )
}

impl StateError {
    fn new(path: &Path, reason: io::Error) -> Self {
        let path = path.to_owned();
        match reason.kind() {
            io::ErrorKind::PermissionDenied => Self::Forbidden(path),
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly(path),
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => Self::NoDirectory(path),
            _ => Self::Failed { path, reason },
        }
    }
}

impl StateDir {
    /// Where state is kept if nobody says otherwise: `$XDG_STATE_HOME/cowherd`, else
    /// `~/.local/state/cowherd`, else (a service without a home) `/var/lib/cowherd`.
    #[must_use]
    pub fn default_path() -> PathBuf {
        default_path(std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME"))
    }

    /// Makes the directory if it is not there, readable by this user only, and takes its lock.
    ///
    /// # Errors
    /// Another server holds it, or it can't be written.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let failed = |reason| StateError::new(path, reason);
        durable::create_dirs(path).map_err(failed)?;
        // Absolute, so that messages and overlays don't depend on where the process stands.
        let path = path.canonicalize().map_err(failed)?;
        let lock = Lock::take(&path)?;
        Ok(Self { path, lock })
    }

    /// The directory of a server that runs, whose lock is handed over later.
    ///
    /// # Errors
    /// There is none, or it can't be read.
    pub(super) fn of_server(path: &Path) -> Result<Self, StateError> {
        let path = existing(path)?;
        let lock = Lock::default();
        Ok(Self { path, lock })
    }

    /// Holds the lock from now on that its server has handed over.
    pub(super) fn hold(&self, lock: OwnedFd) {
        self.lock.hold(lock.into());
    }

    /// The lock, for a server that takes over.
    pub(super) fn lock(&self) -> io::Result<OwnedFd> {
        self.lock.share()
    }

    /// Takes the lock again that another server has had meanwhile; whether that was to be.
    pub(super) fn hold_again(&self) -> bool {
        self.lock.take_again()
    }

    /// The lock is another server's from now on: this process gives it up by its end, and does not
    /// release it.
    pub(super) fn leave(&self) {
        self.lock.leave();
    }

    /// Takes the lock of a directory that some server has used before.
    ///
    /// # Errors
    /// There is none, a server holds it, or it can't be written.
    pub fn open_existing(path: &Path) -> Result<Self, StateError> {
        let path = existing(path)?;
        let lock = Lock::take(&path)?;
        Ok(Self { path, lock })
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory for the overlays over one generation of an image. It need not be there.
    #[must_use]
    pub fn overlays_of(&self, image: &Name, generation: u32) -> PathBuf {
        self.path
            .join("overlays")
            .join(format!("{image}+{generation}"))
    }

    /// Where is kept what boots read of one generation of an image.
    pub(super) fn boot_set(&self, image: &Name, generation: u32) -> PathBuf {
        self.overlays_of(image, generation).join(BOOT_SET)
    }

    /// Records where an image lies that is served now, for commands that need it later.
    ///
    /// # Errors
    /// The disk failed.
    pub fn record_image(
        &self,
        image: &Name,
        generation: u32,
        file: &Path,
    ) -> Result<(), StateError> {
        let path = self.overlays_of(image, generation).join(IMAGE);
        let failed = |reason| StateError::new(&path, reason);
        let file = file.canonicalize().map_err(failed)?;
        if self.image_path(image, generation)?.as_ref() == Some(&file) {
            return Ok(());
        }
        durable::write(&path, file.as_os_str().as_bytes()).map_err(failed)
    }

    /// Where the image of an overlay directory was when it was served last, if that was recorded.
    ///
    /// # Errors
    /// The disk failed.
    pub fn image_path(&self, image: &Name, generation: u32) -> Result<Option<PathBuf>, StateError> {
        let path = self.overlays_of(image, generation).join(IMAGE);
        let recorded = read_bytes(&path).map_err(|reason| StateError::new(&path, reason))?;
        Ok(recorded.map(|bytes| PathBuf::from(OsString::from_vec(bytes))))
    }

    /// Makes the overlay directory of an image that is served for the first time, and records its
    /// identity there; at every later time compares it.
    ///
    /// # Errors
    /// Another image had this name, the record is damaged, or the disk failed.
    pub fn bind_identity(
        &self,
        image: &Name,
        generation: u32,
        identity: &Identity,
    ) -> Result<(), StateError> {
        let directory = self.overlays_of(image, generation);
        let path = directory.join(IDENTITY);
        let failed = |reason| StateError::new(&path, reason);
        durable::create_dirs(&directory).map_err(failed)?;
        match read_small(&path).map_err(failed)? {
            Some(text) => compare_with_record(image, identity, &path, &text)?,
            // Without its record an overlay must not be put over whatever image comes along.
            None if holds_a_directory(&directory).map_err(failed)? => {
                return Err(StateError::NoIdentity(directory));
            }
            None => durable::write(&path, identity.to_text().as_bytes()).map_err(failed)?,
        }
        // A server killed before it came to this leaves names behind that are only in memory.
        directory
            .ancestors()
            .take_while(|above| above.starts_with(&self.path))
            .try_for_each(durable::sync)
            .map_err(failed)
    }

    /// Whether this image is the one that had its name before; a record of none says yes. Nothing
    /// is written, so that it takes no lock.
    pub(super) fn check_identity(
        &self,
        image: &Name,
        generation: u32,
        identity: &Identity,
    ) -> Result<(), StateError> {
        let path = self.overlays_of(image, generation).join(IDENTITY);
        let recorded = read_small(&path).map_err(|reason| StateError::new(&path, reason))?;
        match recorded {
            Some(text) => compare_with_record(image, identity, &path, &text),
            None => Ok(()),
        }
    }
}

fn compare_with_record(
    image: &Name,
    identity: &Identity,
    path: &Path,
    text: &str,
) -> Result<(), StateError> {
    let recorded = Identity::from_text(text).map_err(|reason| StateError::BadIdentity {
        path: path.to_owned(),
        reason,
    })?;
    identity
        .compare(&recorded)
        .map_err(|difference| StateError::OtherImage {
            image: image.clone(),
            directory: path.parent().unwrap_or(path).to_owned(),
            difference,
        })
}

/// The absolute path of a directory that is there.
fn existing(path: &Path) -> Result<PathBuf, StateError> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(StateError::Missing(path.to_owned()))
        }
        found => found.map_err(|reason| StateError::new(path, reason)),
    }
}

fn default_path(xdg_state_home: Option<OsString>, home: Option<OsString>) -> PathBuf {
    let given = |value: Option<OsString>| value.map(PathBuf::from);
    // XDG base directory specification: "If an implementation encounters a relative path in any of
    // these variables it should consider the path invalid and ignore it."
    if let Some(state) = given(xdg_state_home).filter(|path| path.is_absolute()) {
        return state.join("cowherd");
    }
    match given(home).filter(|home| home.is_absolute() && home != Path::new("/")) {
        Some(home) => home.join(".local/state/cowherd"),
        None => PathBuf::from("/var/lib/cowherd"),
    }
}

/// The text of a small file, or `None` where there is none. What is no text reads as damaged text.
fn read_small(path: &Path) -> io::Result<Option<String>> {
    let bytes = read_bytes(path)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn read_bytes(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.take(SMALL_FILE_MAX).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn holds_a_directory(directory: &Path) -> io::Result<bool> {
    for entry in directory.read_dir()? {
        if entry?.file_type()?.is_dir() {
            return Ok(true);
        }
    }
    Ok(false)
}
