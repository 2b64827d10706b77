//! Whether the machine at the other end still knows of a connection.

use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use super::{KEEPALIVE_PROBES, Socket};

/// Time between probes of a peer that is asked now: the least that the kernel takes.
const EVERY: Duration = Duration::from_secs(1);

impl Socket {
    /// Has the peer's kernel asked, in a second and every second from then on, whether it knows of
    /// the connection; one that was switched off and on does not. [`Self::set_keepalive`] ends it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn ask_peer(&self) -> std::io::Result<()> {
        let probes = TcpKeepalive::new()
            .with_time(EVERY)
            .with_interval(EVERY)
            .with_retries(KEEPALIVE_PROBES);
        SockRef::from(&*self.descriptor).set_tcp_keepalive(&probes)
    }

    /// How long ago the peer's kernel was heard of last; `None` where there is no such thing, as
    /// between processes of one host.
    #[must_use]
    pub fn last_heard(&self) -> Option<Duration> {
        // SAFETY: all of it is numbers, for which zeros are values.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = libc::socklen_t::try_from(size_of_val(&info)).ok()?;
        // SAFETY: the kernel writes at most `length` bytes into `info`, and the descriptor is open.
        let failed = unsafe {
            libc::getsockopt(
                self.descriptor.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut length,
            )
        };
        let millis = u64::from(info.tcpi_last_ack_recv);
        (failed == 0).then(|| Duration::from_millis(millis))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::*;

    fn until(heard: impl Fn(Duration) -> bool, socket: &Socket) {
        let begun = Instant::now();
        while !heard(socket.last_heard().unwrap()) {
            assert!(begun.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_peer_that_says_nothing_is_heard_of_when_it_is_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = Socket::new(listener.accept().unwrap().0.into()).unwrap();
        socket.set_keepalive(Duration::from_secs(60)).unwrap();
        until(|ago| ago > Duration::from_millis(500), &socket);
        socket.ask_peer().unwrap();
        until(|ago| ago < Duration::from_millis(400), &socket);
    }

    #[test]
    fn of_a_process_of_this_host_there_is_nothing_to_be_heard() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert_eq!(Socket::new(ours.into()).unwrap().last_heard(), None);
    }
}
