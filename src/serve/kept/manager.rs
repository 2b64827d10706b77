//! The service manager's end of sd_notify(3), as far as descriptors are concerned.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;

use crate::io::send_passing;

/// The manager answers as fast as it gets to it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The variable that names its socket.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// The socket that the manager listens on.
#[derive(Debug)]
pub(super) struct Manager(UnixDatagram);

impl Manager {
    /// `None` where there is no manager.
    pub(super) fn connect() -> Option<Self> {
        let path = std::env::var_os(VARIABLE)?;
        let socket = UnixDatagram::unbound().ok()?;
        let address = match path.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name).ok()?,
            None => SocketAddr::from_pathname(&path).ok()?,
        };
        socket.connect_addr(&address).ok()?;
        // A manager that hangs must not hang this.
        socket.set_write_timeout(Some(PATIENCE)).ok()?;
        Some(Self(socket))
    }

    /// Says which process the service is.
    pub(super) fn main_process(&self, pid: Pid) {
        self.say(&format!("MAINPID={}", pid.as_raw_nonzero()), &[]);
    }

    /// Has a descriptor kept, once.
    pub(super) fn keep(&self, name: &str, descriptor: BorrowedFd<'_>) {
        self.say(&format!("FDSTORE=1\nFDNAME={name}"), &[descriptor]);
    }

    /// Has all of this name closed.
    pub(super) fn forget(&self, name: &str) {
        self.say(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[]);
    }

    fn say(&self, words: &str, descriptors: &[BorrowedFd<'_>]) {
        if let Err(error) = send_passing(&self.0, words.as_bytes(), descriptors) {
            tracing::warn!("the service manager can't be told {words:?}: {error}");
        }
    }

    /// Waits until it has taken in all that it was told.
    pub(super) fn has_all(&self) -> bool {
        let Ok((reader, writer)) = io::pipe() else {
            return false;
        };
        self.say("BARRIER=1", &[writer.as_fd()]);
        drop(writer);
        until_closed(reader)
    }
}

/// Whether a process has a manager that this one does not know.
pub(super) fn is_of_another(process: u32) -> bool {
    let is_it = |variable: &[u8]| {
        let rest = variable.strip_prefix(VARIABLE.as_bytes());
        rest.is_some_and(|rest| rest.starts_with(b"="))
    };
    // Of a process that may not be looked at nothing is known.
    let all = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    std::env::var_os(VARIABLE).is_none() && all.split(|byte| *byte == 0).any(is_it)
}

/// Whether the other ends of a pipe are closed in time.
fn until_closed(mut reader: PipeReader) -> bool {
    let time = Timespec {
        tv_sec: PATIENCE.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    let mut waiting = [PollFd::new(&reader, PollFlags::IN)];
    matches!(poll(&mut waiting, Some(&time)), Ok(1)) && matches!(reader.read(&mut [0]), Ok(0))
}
