//! Packets below UDP, on one interface: IPv4 to a network card that has no address yet, and ARP.
//!
//! Both need the right to raw sockets. The kernel writes the Ethernet header.

use std::io;
use std::mem::size_of;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;

use crate::mac::MacAddress;

/// A packet socket of one interface and one protocol.
#[derive(Debug)]
pub(super) struct Packets {
    descriptor: OwnedFd,
    interface: u32,
    protocol: u16,
}

/// EtherType of IPv4.
const IPV4: u16 = 0x0800;
/// EtherType of ARP.
const ARP: u16 = 0x0806;
/// Everybody on a link.
const EVERYBODY: MacAddress = MacAddress([0xff; 6]);

impl Packets {
    const fn passed(descriptor: OwnedFd, interface: u32, protocol: u16) -> Self {
        Self {
            descriptor,
            interface,
            protocol,
        }
    }

    /// With `receives`, packets of `protocol` come in; else it is for sending only.
    fn open(interface: u32, protocol: u16, receives: bool) -> io::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // packet(7): with protocol 0, "no packets are received".
        // SAFETY: a call without pointers.
        let descriptor = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nobody else's.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let packets = Self {
            descriptor,
            interface,
            protocol,
        };
        if receives {
            packets.bind()?;
        }
        Ok(packets)
    }

    /// One for receiving IPv4 packets that pass a filter.
    pub(super) fn open_filtered(
        interface: u32,
        filter: &[libc::sock_filter],
    ) -> io::Result<OwnedFd> {
        let packets = Self::open(interface, IPV4, false)?;
        let program = libc::sock_fprog {
            len: libc::c_ushort::try_from(filter.len()).unwrap_or_default(),
            filter: filter.as_ptr().cast_mut(),
        };
        // SAFETY: `program` and the steps that it points at are alive, as long as said, and are
        // only read.
        let set = unsafe {
            libc::setsockopt(
                packets.descriptor.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                PROGRAM_LEN,
            )
        };
        match set {
            0 => packets.bind().map(|()| packets.descriptor),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn bind(&self) -> io::Result<()> {
        let address = self.address(EVERYBODY);
        // SAFETY: `address` is as long as said.
        let bound = unsafe {
            let address = (&raw const address).cast::<libc::sockaddr>();
            libc::bind(self.descriptor.as_raw_fd(), address, ADDRESS_LEN)
        };
        match bound {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn send(&self, packet: &[u8], to: MacAddress) -> io::Result<()> {
        let address = self.address(to);
        // SAFETY: packet and address are alive and as long as said, and are only read.
        let sent = unsafe {
            let address = (&raw const address).cast::<libc::sockaddr>();
            let socket = self.descriptor.as_raw_fd();
            libc::sendto(
                socket,
                packet.as_ptr().cast(),
                packet.len(),
                libc::MSG_DONTWAIT,
                address,
                ADDRESS_LEN,
            )
        };
        match sent {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The card that it is bound to.
    fn own_card(&self) -> io::Result<MacAddress> {
        let mut address = self.address(EVERYBODY);
        let mut length = ADDRESS_LEN;
        // SAFETY: `address` has room for as many bytes as `length` says.
        let found = unsafe {
            let address = (&raw mut address).cast::<libc::sockaddr>();
            libc::getsockname(self.descriptor.as_raw_fd(), address, &raw mut length)
        };
        let [a, b, c, d, e, f, ..] = address.sll_addr;
        match (found, address.sll_halen) {
            (0, 6) => Ok(MacAddress([a, b, c, d, e, f])),
            (0, _) => Err(io::Error::from(io::ErrorKind::Unsupported)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn address(&self, MacAddress(mac): MacAddress) -> libc::sockaddr_ll {
        let [a, b, c, d, e, f] = mac;
        libc::sockaddr_ll {
            sll_family: libc::c_ushort::try_from(libc::AF_PACKET).unwrap_or_default(),
            sll_protocol: self.protocol.to_be(),
            sll_ifindex: libc::c_int::try_from(self.interface).unwrap_or_default(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [a, b, c, d, e, f, 0, 0],
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "20 bytes")]
const ADDRESS_LEN: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;

#[allow(clippy::cast_possible_truncation, reason = "16 bytes")]
const PROGRAM_LEN: libc::socklen_t = size_of::<libc::sock_fprog>() as libc::socklen_t;

/// Sends UDP datagrams to network cards whose address nobody can ask for yet.
#[derive(Debug)]
pub struct CardSender(Packets);

impl CardSender {
    /// Opens it on an interface.
    ///
    /// # Errors
    /// What the kernel says; `PermissionDenied` without the right to raw sockets.
    pub fn open(interface: u32) -> io::Result<Self> {
        Packets::open(interface, IPV4, false).map(Self)
    }

    /// One that another process has opened on an interface.
    #[must_use]
    pub const fn passed(descriptor: OwnedFd, interface: u32) -> Self {
        Self(Packets::passed(descriptor, interface, IPV4))
    }

    /// Sends a datagram to the card `mac`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send(
        &self,
        bytes: &[u8],
        from: SocketAddrV4,
        to: SocketAddrV4,
        mac: MacAddress,
    ) -> io::Result<()> {
        let Some(packet) = ipv4_packet(bytes, from, to) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        self.0.send(&packet, mac)
    }

    /// Sends a datagram to everybody on the link.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn broadcast(&self, bytes: &[u8], from: SocketAddrV4, port: u16) -> io::Result<()> {
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, port);
        self.send(bytes, from, to, EVERYBODY)
    }
}

/// Sends UDP datagrams from a port that is another program's, where the kernel's routes lead.
#[derive(Debug)]
pub struct RoutedSender(Socket);

impl RoutedSender {
    /// Opens it.
    ///
    /// # Errors
    /// What the kernel says; `PermissionDenied` without the right to raw sockets.
    pub fn open() -> io::Result<Self> {
        // raw(7): this protocol "implies enabled IP_HDRINCL", and receives nothing.
        let protocol = Protocol::from(libc::IPPROTO_RAW);
        Socket::new(Domain::IPV4, Type::RAW.nonblocking(), Some(protocol)).map(Self)
    }

    /// One that another process has opened.
    #[must_use]
    pub fn passed(socket: OwnedFd) -> Self {
        Self(socket.into())
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send(&self, bytes: &[u8], from: SocketAddrV4, to: SocketAddrV4) -> io::Result<()> {
        let packet = ipv4_packet(bytes, from, to).ok_or(io::ErrorKind::InvalidInput)?;
        self.0
            .send_to(&packet, &SocketAddrV4::new(*to.ip(), 0).into())?;
        Ok(())
    }
}

const IP_HEAD: usize = 20;
const UDP_HEAD: usize = 8;

/// An IPv4 packet with a UDP datagram; `None` where that is longer than a packet may be.
fn ipv4_packet(bytes: &[u8], from: SocketAddrV4, to: SocketAddrV4) -> Option<Vec<u8>> {
    let datagram = u16::try_from(UDP_HEAD + bytes.len()).ok()?;
    let length = datagram.checked_add(u16::try_from(IP_HEAD).ok()?)?;
    let ends = [from.ip().octets(), to.ip().octets()].concat();
    // Version 4, five words of header; no fragments; 64 hops; UDP.
    let mut head = vec![0x45, 0];
    head.extend(length.to_be_bytes());
    head.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    head.extend(&ends);
    let sum = checksum([head.as_slice()]);
    head.splice(10..12, sum.to_be_bytes());
    let mut udp = Vec::new();
    udp.extend(from.port().to_be_bytes());
    udp.extend(to.port().to_be_bytes());
    udp.extend(datagram.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(bytes);
    let pseudo = [&ends[..], &[0, 17], &datagram.to_be_bytes()].concat();
    // RFC 768: "If the computed checksum is zero, it is transmitted as all ones".
    let sum = match checksum([pseudo.as_slice(), udp.as_slice()]) {
        0 => u16::MAX,
        sum => sum,
    };
    udp.splice(6..8, sum.to_be_bytes());
    head.extend(udp);
    Some(head)
}

/// Who sent the UDP datagram in an IPv4 packet, and where in the packet its bytes are.
pub(super) fn udp_datagram(packet: &[u8]) -> Option<(SocketAddrV4, Range<usize>)> {
    let head = usize::from(packet.first()? & 15) * 4;
    let ip: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let udp = packet.get(head..)?.first_chunk::<UDP_HEAD>()?;
    let [port_high, port_low, _, _, high, low, _, _] = *udp;
    let from = SocketAddrV4::new(ip.into(), u16::from_be_bytes([port_high, port_low]));
    let end = head + usize::from(u16::from_be_bytes([high, low]));
    let start = head + UDP_HEAD;
    // The card pads what is short; what was too long to be read is cut.
    let end = end.min(packet.len());
    (head >= IP_HEAD && start <= end).then_some((from, start..end))
}

/// The checksum of the internet over parts of which all but the last have an even length.
pub(super) fn checksum<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            let high = pair.first().copied().unwrap_or_default();
            let low = pair.get(1).copied().unwrap_or_default();
            sum += u64::from(u16::from_be_bytes([high, low]));
        }
    }
    while sum > u64::from(u16::MAX) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

impl AsFd for CardSender {
    /// The descriptor, for another process.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.descriptor.as_fd()
    }
}

impl AsFd for RoutedSender {
    /// The descriptor, for another process.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for ArpProbe {
    /// The descriptor, for another process.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.packets.descriptor.as_fd()
    }
}

/// Asks by ARP whether anybody on a link has an address.
#[derive(Debug)]
pub struct ArpSocket {
    packets: Packets,
    /// The card of the interface.
    own: MacAddress,
}

/// Somebody has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The address.
    pub address: Ipv4Addr,
    /// The card of whoever has it.
    pub mac: MacAddress,
}

impl ArpSocket {
    /// Opens it on an interface.
    ///
    /// # Errors
    /// What the kernel says; `PermissionDenied` without the right to raw sockets.
    pub fn open(interface: u32) -> io::Result<Self> {
        let packets = Packets::open(interface, ARP, true)?;
        let own = packets.own_card()?;
        Ok(Self { packets, own })
    }

    /// One that another process has opened on an interface.
    ///
    /// # Errors
    /// The interface has no card any more.
    pub fn passed(descriptor: OwnedFd, interface: u32) -> io::Result<Self> {
        let packets = Packets::passed(descriptor, interface, ARP);
        let own = packets.own_card()?;
        Ok(Self { packets, own })
    }

    /// Watches it. Inside of a runtime only.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn watched(self) -> io::Result<ArpProbe> {
        let own = self.own;
        let Packets {
            descriptor,
            interface,
            protocol,
        } = self.packets;
        let readiness = super::datagram::watch(descriptor.try_clone()?)?;
        let packets = Packets {
            descriptor,
            interface,
            protocol,
        };
        Ok(ArpProbe {
            packets,
            own,
            readiness,
        })
    }
}

/// An [`ArpSocket`] that a runtime watches.
#[derive(Debug)]
pub struct ArpProbe {
    packets: Packets,
    own: MacAddress,
    readiness: AsyncFd<OwnedFd>,
}

impl ArpProbe {
    /// Asks who has `address`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn ask(&self, address: Ipv4Addr) -> io::Result<()> {
        self.packets.send(&question(self.own, address), EVERYBODY)
    }

    /// Waits until somebody says that they have an address.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn hear(&self) -> io::Result<Heard> {
        loop {
            let mut ready = self.readiness.readable().await?;
            let mut packet = [0; 64];
            let read = ready.try_io(|descriptor| {
                rustix::net::recv(
                    descriptor,
                    &mut packet[..],
                    rustix::net::RecvFlags::DONTWAIT,
                )
                .map_err(io::Error::from)
            });
            match read {
                Ok(Ok((length, _))) => {
                    if let Some(heard) = packet.get(..length).and_then(answer) {
                        return Ok(heard);
                    }
                }
                // The interface went down for a moment.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
                Ok(Err(error)) => return Err(error),
                Err(_not_ready) => {}
            }
        }
    }
}

/// RFC 5227, section 2.1.1: "a host probes to see if an address is already in use by broadcasting
/// an ARP Request", whose sender address "MUST be set to all zeroes".
fn question(MacAddress(own): MacAddress, address: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    [&head[..], &own, &[0; 4], &[0; 6], &address.octets()].concat()
}

/// Who says with this packet that an address is theirs: by a reply, or by asking from it.
fn answer(packet: &[u8]) -> Option<Heard> {
    let (head, rest) = packet.split_first_chunk::<8>()?;
    let (mac, rest) = rest.split_first_chunk::<6>()?;
    let (address, _) = rest.split_first_chunk::<4>()?;
    let address = Ipv4Addr::from(*address);
    let is_arp = matches!(head, [0, 1, 8, 0, 6, 4, 0, 1 | 2]);
    (is_arp && !address.is_unspecified()).then_some(Heard {
        address,
        mac: MacAddress(*mac),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_sums_up_to_zero() {
        let from = SocketAddrV4::new([10, 0, 0, 1].into(), 67);
        let to = SocketAddrV4::new([10, 0, 0, 2].into(), 68);
        for bytes in [&b"even"[..], b"odd"] {
            let packet = ipv4_packet(bytes, from, to).unwrap();
            let (head, udp) = packet.split_at(IP_HEAD);
            assert_eq!(checksum([head]), 0);
            let length = u16::try_from(udp.len()).unwrap().to_be_bytes();
            let pseudo = [&head[12..20], &[0, 17], &length].concat();
            assert_eq!(checksum([&pseudo[..], udp]), 0);
            assert_eq!(&udp[UDP_HEAD..], bytes);
            assert_eq!(
                u16::from_be_bytes([head[2], head[3]]) as usize,
                packet.len()
            );
        }
    }

    #[test]
    fn a_packet_that_is_made_is_read_again_without_its_padding() {
        let from = SocketAddrV4::new([10, 0, 0, 1].into(), 67);
        let to = SocketAddrV4::new([10, 0, 0, 2].into(), 68);
        let packet = ipv4_packet(b"text", from, to).unwrap();
        let padded = [&packet[..], &[0; 14]].concat();
        let (sender, inside) = udp_datagram(&padded).unwrap();
        assert_eq!((sender, &padded[inside]), (from, &b"text"[..]));
        for length in 0..IP_HEAD + UDP_HEAD {
            assert_eq!(udp_datagram(&packet[..length]), None, "{length}");
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_example_in_rfc_1071() {
        // Section 3: "0001 f203 f4f5 f6f7" sums up to ddf2.
        let bytes = [0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum([&bytes[..]]), !0xddf2);
    }

    #[test]
    fn what_is_too_long_for_a_packet_is_no_packet() {
        let end = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
        assert_eq!(ipv4_packet(&[0; 65_536], end, end), None);
        assert_eq!(ipv4_packet(&[0; 65_510], end, end), None);
    }

    #[test]
    fn a_reply_and_a_question_tell_who_has_an_address() {
        let mac = [2, 0, 0, 0, 0, 9];
        let heard = Heard {
            address: [10, 0, 0, 9].into(),
            mac: MacAddress(mac),
        };
        for kind in [1, 2] {
            let packet = [
                &[0, 1, 8, 0, 6, 4, 0, kind][..],
                &mac,
                &[10, 0, 0, 9],
                &[0; 10],
            ];
            assert_eq!(answer(&packet.concat()), Some(heard));
        }
    }

    #[test]
    fn a_probe_of_somebody_tells_of_nobody() {
        let probe = question(MacAddress([2; 6]), [10, 0, 0, 9].into());
        assert_eq!(probe.len(), 28);
        assert_eq!(answer(&probe), None);
    }

    #[test]
    fn what_is_no_arp_packet_tells_nothing() {
        let packet = [0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 9, 10, 0, 0, 9];
        for length in 0..packet.len() {
            assert_eq!(answer(&packet[..length]), None);
        }
        assert_eq!(answer(&[7; 28]), None);
    }
}
