//! Asks by ICMP whether anybody has an address that ARP does not reach.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{RecvFlags, SendFlags, recv, sendto};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::datagram::watch;
use super::packet::checksum;

/// A socket for echo requests and their replies.
#[derive(Debug)]
pub struct EchoSocket(Socket);

/// icmp(7): an option of raw sockets, "a 32-bit value whose bits are the types to be filtered".
const ICMP_FILTER: libc::c_int = 1;
const SOL_RAW: libc::c_int = 255;

/// Types of ICMP.
const REPLY: u8 = 0;
const REQUEST: u8 = 8;

impl EchoSocket {
    /// Opens it.
    ///
    /// # Errors
    /// What the kernel says; `PermissionDenied` without the right to raw sockets.
    pub fn open() -> io::Result<Self> {
        let kind = Type::RAW.nonblocking();
        let socket = Socket::new(Domain::IPV4, kind, Some(Protocol::ICMPV4))?;
        let all_but_replies = !(1_u32 << REPLY);
        // SAFETY: the value is four bytes, as said.
        let set = unsafe {
            let value = (&raw const all_but_replies).cast();
            libc::setsockopt(socket.as_raw_fd(), SOL_RAW, ICMP_FILTER, value, 4)
        };
        match set {
            0 => Ok(Self(socket)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// One that another process has opened.
    #[must_use]
    pub fn passed(socket: OwnedFd) -> Self {
        Self(socket.into())
    }

    /// Watches it. Inside of a runtime only.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn watched(self) -> io::Result<EchoProbe> {
        // Other programs of this host ask, too; a number tells whose answers are whose.
        let identifier = std::process::id().to_be_bytes();
        let [_, _, identifier @ ..] = identifier;
        watch(self.0.into()).map(|socket| EchoProbe { socket, identifier })
    }
}

/// An [`EchoSocket`] that a runtime watches.
#[derive(Debug)]
pub struct EchoProbe {
    socket: AsyncFd<OwnedFd>,
    identifier: [u8; 2],
}

impl EchoProbe {
    /// Asks whoever has `address` to answer.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn ask(&self, address: Ipv4Addr) -> io::Result<()> {
        let to = SocketAddrV4::new(address, 0);
        let question = question(self.identifier);
        sendto(self.socket.get_ref(), &question, SendFlags::DONTWAIT, &to)?;
        Ok(())
    }

    /// Waits until somebody answers; the address.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn hear(&self) -> io::Result<Ipv4Addr> {
        loop {
            let mut ready = self.socket.readable().await?;
            let mut packet = [0; 128];
            let read = ready.try_io(|socket| {
                let received = recv(socket, &mut packet[..], RecvFlags::DONTWAIT);
                received.map_err(io::Error::from)
            });
            if let Ok(read) = read {
                let (length, _) = read?;
                let bytes = packet.get(..length).unwrap_or_default();
                if let Some(address) = answer(bytes, self.identifier) {
                    return Ok(address);
                }
            }
        }
    }
}

impl AsFd for EchoProbe {
    /// The descriptor, for another process.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// RFC 792: type, code, checksum, identifier, sequence number.
fn question(identifier: [u8; 2]) -> [u8; 8] {
    let [high, low] = identifier;
    let mut question = [REQUEST, 0, 0, 0, high, low, 0, 0];
    let sum = checksum([&question[..]]).to_be_bytes();
    question[2..4].copy_from_slice(&sum);
    question
}

/// Who answers a question of ours with this packet.
fn answer(packet: &[u8], identifier: [u8; 2]) -> Option<Ipv4Addr> {
    let words = packet.first()? & 15;
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let message = packet.get(usize::from(words) * 4..)?;
    let is_ours = message.first() == Some(&REPLY) && message.get(4..6) == Some(&identifier);
    is_ours.then(|| source.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_sums_up_to_zero() {
        assert_eq!(checksum([&question([0x12, 0x34])[..]]), 0);
    }

    #[test]
    fn an_answer_is_one_to_our_own_question() {
        let mut packet = [&[0x45][..], &[0; 11], &[10, 0, 0, 9], &[0; 4]].concat();
        packet.extend([REPLY, 0, 0, 0, 7, 8, 0, 0]);
        assert_eq!(answer(&packet, [7, 8]), Some([10, 0, 0, 9].into()));
        assert_eq!(answer(&packet, [7, 9]), None);
        for length in 0..26 {
            assert_eq!(answer(&packet[..length], [7, 8]), None);
        }
        packet[20] = REQUEST;
        assert_eq!(answer(&packet, [7, 8]), None);
    }
}
