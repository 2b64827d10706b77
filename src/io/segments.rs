//! Many datagrams of one length in one call, on sockets that are connected to one peer, and how
//! long datagrams may be on the way to it.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::datagram::{Control, no_control, set_option};

/// Bytes that the kernel takes at once for datagrams of IPv4, without their headers.
const TOGETHER_MAX: usize = 65_507;

/// Datagrams that it takes at once: udp(7), `UDP_MAX_SEGMENTS` of older kernels.
const SEGMENTS_MAX: usize = 64;

/// A UDP socket that is connected to one peer.
#[derive(Debug)]
pub struct Conversation {
    socket: UdpSocket,
    /// Whether the kernel cuts datagrams here; it does not on every way out.
    cuts: bool,
}

impl From<UdpSocket> for Conversation {
    /// `socket` is connected.
    fn from(socket: UdpSocket) -> Self {
        // Routers that cut datagrams are better than ones that drop them and tell nobody. Without
        // it, most networks carry them too.
        let whole = libc::IP_PMTUDISC_DONT;
        let _ = set_option(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            whole,
        );
        Self { socket, cuts: true }
    }
}

impl Conversation {
    /// Bytes of the longest packet of IP that goes to the peer in one piece, as far as is known.
    #[must_use]
    pub fn packet_max(&self) -> Option<usize> {
        let mut found: libc::c_int = 0;
        let mut length = libc::socklen_t::try_from(size_of_val(&found)).ok()?;
        let (place, size) = ((&raw mut found).cast(), &raw mut length);
        let socket = self.socket.as_raw_fd();
        // SAFETY: `found` is an int, as long as `length` says; both outlive the call.
        match unsafe { libc::getsockopt(socket, libc::IPPROTO_IP, libc::IP_MTU, place, size) } {
            0 => usize::try_from(found).ok(),
            _ => None,
        }
    }

    /// Waits for a datagram, and puts what fits of it into `into`.
    ///
    /// # Errors
    /// What the kernel says, which tells of ICMP errors so.
    pub async fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        self.socket.recv(into).await
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send(bytes).await.map(drop)
    }

    /// Sends `bytes` as datagrams of `length` bytes; the last may be shorter.
    ///
    /// # Errors
    /// What the kernel says; some of them may have been sent.
    pub async fn send_many(&mut self, bytes: &[u8], length: usize) -> io::Result<()> {
        let many = (TOGETHER_MAX / length.max(1)).min(SEGMENTS_MAX);
        for part in bytes.chunks(length.max(1) * many.max(1)) {
            if self.cuts && part.len() > length {
                match self.send_cut(part, length).await {
                    Ok(()) => continue,
                    Err(error) if cannot_cut(&error) => self.cuts = false,
                    Err(error) => return Err(error),
                }
            }
            for one in part.chunks(length.max(1)) {
                self.send(one).await?;
            }
        }
        Ok(())
    }

    async fn send_cut(&self, bytes: &[u8], length: usize) -> io::Result<()> {
        let Ok(length) = u16::try_from(length) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let descriptor = self.socket.as_raw_fd();
        let send = || send_cut(descriptor, bytes, length);
        self.socket.async_io(Interest::WRITABLE, send).await
    }
}

/// udp(7), `UDP_SEGMENT`: it needs checksums of the card, and kernels since 4.18.
fn cannot_cut(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    matches!(
        number,
        Some(libc::EIO | libc::EINVAL | libc::EOPNOTSUPP | libc::EMSGSIZE | libc::ENOPROTOOPT)
    )
}

fn send_cut(socket: RawFd, bytes: &[u8], length: u16) -> io::Result<()> {
    let mut piece = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let mut control = no_control();
    // SAFETY: all zeros is a value of this plain struct.
    let mut head: libc::msghdr = unsafe { std::mem::zeroed() };
    head.msg_iov = &raw mut piece;
    head.msg_iovlen = 1;
    head.msg_control = (&raw mut control).cast();
    put_length(&mut head, length);
    // SAFETY: all that `head` points at is alive until the call is back, and as long as it says;
    // the bytes are only read.
    match unsafe { libc::sendmsg(socket, &raw const head, libc::MSG_DONTWAIT) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Says in the control message of `head` how long datagrams are to be.
fn put_length(head: &mut libc::msghdr, length: u16) {
    let size = libc::c_uint::try_from(size_of::<u16>()).unwrap_or_default();
    // SAFETY: only arithmetic.
    head.msg_controllen = unsafe { libc::CMSG_SPACE(size) } as usize;
    // SAFETY: `msg_control` points at a `Control`, aligned for headers, and a header with two bytes
    // takes less than it has; so the header that comes back is there, and its data behind it.
    unsafe {
        let control = libc::CMSG_FIRSTHDR(head);
        (*control).cmsg_level = libc::SOL_UDP;
        (*control).cmsg_type = libc::UDP_SEGMENT;
        (*control).cmsg_len = libc::CMSG_LEN(size) as usize;
        libc::CMSG_DATA(control)
            .cast::<u16>()
            .write_unaligned(length);
    }
}

const _: () = assert!(size_of::<libc::cmsghdr>() + 8 <= size_of::<Control>());

#[cfg(test)]
mod tests {
    use super::*;

    async fn pair() -> (Conversation, UdpSocket) {
        let receiver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        sender
            .connect(receiver.local_addr().unwrap())
            .await
            .unwrap();
        (sender.into(), receiver)
    }

    async fn lengths(receiver: &UdpSocket, count: usize) -> Vec<usize> {
        let mut lengths = Vec::new();
        for _ in 0..count {
            lengths.push(receiver.recv(&mut [0; 2000]).await.unwrap());
        }
        lengths
    }

    #[tokio::test]
    async fn bytes_arrive_as_datagrams_of_a_length_and_a_shorter_last_one() {
        for cuts in [true, false] {
            let (mut sender, receiver) = pair().await;
            sender.cuts = cuts;
            let bytes = vec![7; 1472 * 45 + 5];
            sender.send_many(&bytes, 1472).await.unwrap();
            let mut expected = vec![1472; 45];
            expected.push(5);
            assert_eq!(lengths(&receiver, 46).await, expected, "{cuts}");
        }
    }

    #[tokio::test]
    async fn one_datagram_is_sent_as_it_is() {
        let (mut sender, receiver) = pair().await;
        sender.send_many(&[7; 4], 1472).await.unwrap();
        assert_eq!(lengths(&receiver, 1).await, [4]);
    }

    #[tokio::test]
    async fn the_way_is_as_wide_as_its_interface() {
        let (sender, _receiver) = pair().await;
        let interface = std::fs::read_to_string("/sys/class/net/lo/mtu").unwrap();
        // Packets of IPv4 can't be as long as the loopback would let them be.
        let longest = interface.trim().parse::<usize>().unwrap().min(65_535);
        assert_eq!(sender.packet_max(), Some(longest));
    }
}
