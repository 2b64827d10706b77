//! Sockets of generic netlink: bytes to the kernel and back.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{Domain, Protocol, Socket, Type};

/// A socket of generic netlink.
#[derive(Debug)]
pub struct NetlinkSocket(Socket);

/// How long the kernel may take for an answer. It gives most before a request is sent at all.
const PATIENCE: Duration = Duration::from_secs(30);

impl NetlinkSocket {
    /// Opens it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        let domain = Domain::from(libc::AF_NETLINK);
        let protocol = Protocol::from(libc::NETLINK_GENERIC);
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(socket))
    }

    /// Hears from now on what is told to a group, and waits for nothing.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn join(&self, group: u32) -> io::Result<()> {
        self.0.set_nonblocking(true)?;
        // SAFETY: the value is four bytes, as said.
        let set = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_NETLINK,
                libc::NETLINK_ADD_MEMBERSHIP,
                (&raw const group).cast(),
                4,
            )
        };
        match set {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Sends one message; the kernel has dealt with it when this returns.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send(&self, message: &[u8]) -> io::Result<()> {
        send(&self.0, message, SendFlags::empty())?;
        Ok(())
    }

    /// Receives what came at once.
    ///
    /// # Errors
    /// What the kernel says: `ENOBUFS` where something was lost.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (length, _) = recv(&self.0, buffer, RecvFlags::empty())?;
        Ok(length)
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
