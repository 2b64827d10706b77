//! The file of a unix socket: cleared of a dead server's leftover, removed at the end.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use super::ListenError;

/// A socket's file; removed on drop if it is still the same file.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: another server may have put its own there since.
    made: (u64, u64),
}

impl SocketFile {
    pub(super) fn made(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            made: number_of(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if number_of(&self.path).is_ok_and(|number| number == self.made) {
            // A file left behind is cleared away by the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn number_of(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Removes a socket that no server listens on any more.
pub(super) fn make_way(path: &Path, address: &SockAddr) -> Result<(), ListenError> {
    let failed = |reason| ListenError::new(path.display().to_string(), reason);
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    if is_alive(address).map_err(failed)? {
        return Err(ListenError::InUse(path.display().to_string()));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

/// Whether a server has the socket open. Doubt counts as yes.
fn is_alive(address: &SockAddr) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A server with a full queue would keep us waiting.
    socket.set_nonblocking(true)?;
    let refused = [Errno::CONNREFUSED, Errno::NOENT].map(|errno| Some(errno.raw_os_error()));
    Ok(match socket.connect(address) {
        Err(error) => !refused.contains(&error.raw_os_error()),
        Ok(()) => true,
    })
}
