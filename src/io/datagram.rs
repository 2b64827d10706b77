//! UDP sockets that are bound to one interface, know where each datagram was sent to, and send from
//! an address that is said with each.
//!
//! A socket is made outside of a runtime, while there are privileges for it, and watched inside of
//! one later.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::limits::DATAGRAM_BATCH;

/// Bytes of a datagram that are read. Longer ones are cut, and count as such.
const DATAGRAM_BYTES: usize = 2048;

/// Bytes that the kernel keeps of datagrams which nobody has received yet.
const WAITING_BYTES: usize = 4 << 20;

/// In place of an interface's index: the kernel goes by its routes.
const ANY_INTERFACE: u32 = 0;

/// A UDP socket on one port, of one interface or of all.
#[derive(Debug)]
pub struct DatagramSocket {
    socket: Socket,
    interface: u32,
}

impl DatagramSocket {
    /// Opens one on an address of ours, or on all of them, which `shares` it with sockets that
    /// allow that.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn bind_to(address: SocketAddrV4, shares: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        set_flag(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_PKTINFO)?;
        // Less than that is a question of speed only.
        let _ = socket.set_recv_buffer_size(WAITING_BYTES);
        socket.set_reuse_port(shares)?;
        socket.bind(&address.into())?;
        socket.set_reuse_port(false)?;
        Ok(Self {
            socket,
            interface: ANY_INTERFACE,
        })
    }

    /// One that another process has opened: of an interface, or of all.
    #[must_use]
    pub fn passed(socket: OwnedFd, interface: Option<u32>) -> Self {
        Self {
            socket: socket.into(),
            interface: interface.unwrap_or(ANY_INTERFACE),
        }
    }

    /// The socket once more, for another process.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn share(&self) -> io::Result<OwnedFd> {
        Ok(self.socket.try_clone()?.into())
    }

    /// The address and port that it is bound to.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn address(&self) -> io::Result<SocketAddrV4> {
        let address = self.socket.local_addr()?.as_socket_ipv4();
        address.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// Opens one on `port` of an interface, for what is sent to any address or to one only. With
    /// `shared`, other programs may have the same port.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn bind(
        interface: &str,
        index: u32,
        address: SocketAddrV4,
        shared: bool,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        // Before it is bound: else datagrams of other interfaces could be in it already.
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_reuse_address(shared)?;
        socket.set_broadcast(true)?;
        set_flag(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_PKTINFO)?;
        // Less than that is a question of speed only.
        let _ = socket.set_recv_buffer_size(WAITING_BYTES);
        socket.bind(&address.into())?;
        Ok(Self {
            socket,
            interface: index,
        })
    }

    /// Watches it. Inside of a runtime only.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn watched(self) -> io::Result<Datagrams> {
        let interface = self.interface;
        let socket = watch(self.socket.into())?;
        Ok(Datagrams { socket, interface })
    }
}

/// Has the present runtime watch a descriptor, for reading only.
pub(super) fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` keeps its descriptor open, and always names the same one.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    Ok(watched?)
}

/// A [`DatagramSocket`] that a runtime watches.
#[derive(Debug)]
pub struct Datagrams {
    socket: AsyncFd<OwnedFd>,
    interface: u32,
}

/// Where a datagram came from, and where it was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The sender.
    pub from: SocketAddrV4,
    /// The address that the sender wrote on it: ours, or one of many.
    pub to: Ipv4Addr,
}

impl Datagrams {
    /// Waits until there is something to receive.
    ///
    /// # Errors
    /// The runtime is going down.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket
            .readable()
            .await
            .map(|mut ready| ready.retain_ready())
    }

    /// Receives what is there, up to the size of `batch`, and waits for nothing.
    ///
    /// # Errors
    /// What the kernel says; `WouldBlock` where there is nothing.
    pub fn receive(&self, batch: &mut Batch) -> io::Result<()> {
        self.socket.try_io(Interest::READABLE, |socket| {
            batch.receive(socket.as_raw_fd())
        })
    }

    /// Sends a datagram from our address `from`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send(&self, bytes: &[u8], from: Ipv4Addr, to: SocketAddrV4) -> io::Result<()> {
        send(self.socket.as_raw_fd(), self.interface, bytes, from, to)
    }
}

impl AsFd for Datagrams {
    /// The descriptor, for another process.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Room for the control message with a `in_pktinfo`, aligned as control messages are.
#[repr(C)]
pub(super) union Control {
    _align: libc::cmsghdr,
    bytes: [u8; 64],
}

pub(super) const fn no_control() -> Control {
    Control { bytes: [0; 64] }
}

/// Datagrams that are received together.
pub struct Batch {
    bytes: Box<[[u8; DATAGRAM_BYTES]; DATAGRAM_BATCH]>,
    received: Vec<(Envelope, usize)>,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let received = &self.received;
        f.debug_struct("Batch")
            .field("received", received)
            .finish_non_exhaustive()
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            bytes: vec![[0; DATAGRAM_BYTES]; DATAGRAM_BATCH]
                .try_into()
                .unwrap_or_else(|_| unreachable!("as many as asked for")),
            received: Vec::with_capacity(DATAGRAM_BATCH),
        }
    }
}

impl Batch {
    /// What was received last.
    pub fn iter(&self) -> impl Iterator<Item = (Envelope, &[u8])> {
        let pairs = self.received.iter().zip(self.bytes.iter());
        pairs.map(|((envelope, length), bytes)| (*envelope, bytes.get(..*length).unwrap_or(bytes)))
    }

    /// Whether it was full, so that more may be waiting.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.received.len() == DATAGRAM_BATCH
    }

    fn receive(&mut self, socket: RawFd) -> io::Result<()> {
        self.received.clear();
        let mut names = [const { MaybeUninit::<libc::sockaddr_in>::zeroed() }; DATAGRAM_BATCH];
        let mut controls = [const { no_control() }; DATAGRAM_BATCH];
        let mut pieces = [const { MaybeUninit::<libc::iovec>::zeroed() }; DATAGRAM_BATCH];
        let mut heads = [const { MaybeUninit::<libc::mmsghdr>::zeroed() }; DATAGRAM_BATCH];
        for (index, head) in heads.iter_mut().enumerate() {
            pieces[index].write(libc::iovec {
                iov_base: self.bytes[index].as_mut_ptr().cast(),
                iov_len: DATAGRAM_BYTES,
            });
            // SAFETY: all zeros is a value of this plain struct.
            let head = unsafe { head.assume_init_mut() };
            head.msg_hdr.msg_name = names[index].as_mut_ptr().cast();
            head.msg_hdr.msg_namelen =
                libc::socklen_t::try_from(size_of::<libc::sockaddr_in>()).unwrap_or_default();
            head.msg_hdr.msg_iov = pieces[index].as_mut_ptr();
            head.msg_hdr.msg_iovlen = 1;
            head.msg_hdr.msg_control = (&raw mut controls[index]).cast();
            head.msg_hdr.msg_controllen = size_of::<Control>();
        }
        let count = libc::c_uint::try_from(DATAGRAM_BATCH).unwrap_or_default();
        // SAFETY: each of the `count` heads points at memory of its own, of the length that it
        // says, and all of it is alive and ours until the call is back.
        let received = unsafe {
            let heads = heads.as_mut_ptr().cast::<libc::mmsghdr>();
            libc::recvmmsg(
                socket,
                heads,
                count,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for (head, name) in heads.iter().zip(&names).take(received) {
            // SAFETY: both were all zeros, which is a value of them, and what the kernel wrote is
            // one too.
            let (head, name) = unsafe { (head.assume_init_ref(), name.assume_init_ref()) };
            let length = usize::try_from(head.msg_len).unwrap_or(DATAGRAM_BYTES);
            let to = destination(&head.msg_hdr).unwrap_or(Ipv4Addr::UNSPECIFIED);
            let from = Ipv4Addr::from_bits(u32::from_be(name.sin_addr.s_addr));
            let from = SocketAddrV4::new(from, u16::from_be(name.sin_port));
            self.received.push((Envelope { from, to }, length));
        }
        Ok(())
    }
}

/// The address that a datagram was sent to.
fn destination(head: &libc::msghdr) -> Option<Ipv4Addr> {
    // SAFETY: `head` is as recvmmsg left it, with its control buffer, which is alive.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(head) };
    // SAFETY: the macros give null or a whole header within the control buffer.
    while let Some(found) = unsafe { control.as_ref() } {
        if (found.cmsg_level, found.cmsg_type) == (libc::IPPROTO_IP, libc::IP_PKTINFO) {
            // SAFETY: the kernel puts a whole in_pktinfo behind a header of this kind; it is
            // copied, since its alignment is not ours to know.
            let info = unsafe {
                libc::CMSG_DATA(control)
                    .cast::<libc::in_pktinfo>()
                    .read_unaligned()
            };
            return Some(Ipv4Addr::from_bits(u32::from_be(info.ipi_addr.s_addr)));
        }
        // SAFETY: as for the first.
        control = unsafe { libc::CMSG_NXTHDR(head, control) };
    }
    None
}

fn send(
    socket: RawFd,
    interface: u32,
    bytes: &[u8],
    from: Ipv4Addr,
    to: SocketAddrV4,
) -> io::Result<()> {
    let mut name = socket_address(to);
    let mut piece = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let mut control = no_control();
    // SAFETY: all zeros is a value of this plain struct.
    let mut head: libc::msghdr = unsafe { std::mem::zeroed() };
    head.msg_name = (&raw mut name).cast();
    head.msg_namelen = libc::socklen_t::try_from(size_of_val(&name)).unwrap_or_default();
    head.msg_iov = &raw mut piece;
    head.msg_iovlen = 1;
    head.msg_control = (&raw mut control).cast();
    put_source(&mut head, interface, from);
    // SAFETY: all that `head` points at is alive until the call is back, and as long as it says;
    // the bytes are only read.
    match unsafe { libc::sendmsg(socket, &raw const head, libc::MSG_DONTWAIT) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Says in the control message of `head` where a datagram comes from.
fn put_source(head: &mut libc::msghdr, interface: u32, from: Ipv4Addr) {
    let length = libc::c_uint::try_from(size_of::<libc::in_pktinfo>()).unwrap_or_default();
    let info = libc::in_pktinfo {
        ipi_ifindex: libc::c_int::try_from(interface).unwrap_or_default(),
        ipi_spec_dst: libc::in_addr {
            s_addr: from.to_bits().to_be(),
        },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    // SAFETY: only arithmetic.
    head.msg_controllen = unsafe { libc::CMSG_SPACE(length) } as usize;
    // SAFETY: `msg_control` points at 64 bytes, aligned for headers, and a header with an
    // in_pktinfo takes fewer; so the header that comes back is there, and its data behind it.
    unsafe {
        let control = libc::CMSG_FIRSTHDR(head);
        (*control).cmsg_level = libc::IPPROTO_IP;
        (*control).cmsg_type = libc::IP_PKTINFO;
        (*control).cmsg_len = libc::CMSG_LEN(length) as usize;
        libc::CMSG_DATA(control)
            .cast::<libc::in_pktinfo>()
            .write_unaligned(info);
    }
}

const _: () = assert!(size_of::<libc::cmsghdr>() + size_of::<libc::in_pktinfo>() + 8 <= 64);

fn socket_address(to: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default(),
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: to.ip().to_bits().to_be(),
        },
        sin_zero: [0; 8],
    }
}

fn set_flag(socket: RawFd, level: libc::c_int, name: libc::c_int) -> io::Result<()> {
    set_option(socket, level, name, 1)
}

pub(super) fn set_option(
    socket: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or_default();
    // SAFETY: `value` is an int, as long as said.
    match unsafe { libc::setsockopt(socket, level, name, (&raw const value).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

    fn any(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)
    }

    /// A socket on a free port of the loopback, and its port.
    fn socket() -> (Datagrams, u16) {
        let socket = DatagramSocket::bind("lo", 1, any(0), false).unwrap();
        let port = socket.address().unwrap().port();
        (socket.watched().unwrap(), port)
    }

    async fn received(socket: &Datagrams) -> Vec<(Envelope, Vec<u8>)> {
        let mut batch = Batch::default();
        loop {
            socket.readable().await.unwrap();
            match socket.receive(&mut batch) {
                Ok(()) => return batch.iter().map(|(e, bytes)| (e, bytes.to_vec())).collect(),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    }

    #[tokio::test]
    async fn a_datagram_tells_both_of_its_ends() {
        let (receiver, port) = socket();
        let (sender, from) = socket();
        let to = SocketAddrV4::new([127, 0, 0, 9].into(), port);
        sender.send(b"hello", [127, 0, 0, 7].into(), to).unwrap();
        let envelope = Envelope {
            from: SocketAddrV4::new([127, 0, 0, 7].into(), from),
            to: [127, 0, 0, 9].into(),
        };
        assert_eq!(received(&receiver).await, [(envelope, b"hello".to_vec())]);
    }

    #[tokio::test]
    async fn what_waits_is_received_together_and_in_order() {
        let (receiver, port) = socket();
        let (sender, _) = socket();
        let to = SocketAddrV4::new(LOOPBACK, port);
        for number in 0..DATAGRAM_BATCH + 1 {
            let bytes = [u8::try_from(number).unwrap()];
            sender.send(&bytes, LOOPBACK, to).unwrap();
        }
        let first = received(&receiver).await;
        assert_eq!(first.len(), DATAGRAM_BATCH);
        assert_eq!(first[3].1, [3]);
        assert_eq!(received(&receiver).await.len(), 1);
    }

    #[tokio::test]
    async fn a_datagram_that_is_too_long_is_cut_and_fills_no_memory_but_its_own() {
        let (receiver, port) = socket();
        let (sender, _) = socket();
        let long = vec![7; DATAGRAM_BYTES + 100];
        let to = SocketAddrV4::new(LOOPBACK, port);
        sender.send(&long, LOOPBACK, to).unwrap();
        sender.send(b"next", LOOPBACK, to).unwrap();
        let found = received(&receiver).await;
        let lengths: Vec<_> = found.iter().map(|(_, bytes)| bytes.len()).collect();
        assert_eq!(lengths, [DATAGRAM_BYTES, 4]);
    }

    #[test]
    fn a_port_is_one_socket_s_unless_it_is_shared() {
        let one = DatagramSocket::bind("lo", 1, any(0), true).unwrap();
        let port = one.address().unwrap().port();
        assert!(DatagramSocket::bind("lo", 1, any(port), true).is_ok());
        assert!(DatagramSocket::bind("lo", 1, any(port), false).is_err());
    }
}
