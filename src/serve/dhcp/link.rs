//! The sockets of one interface, and how replies leave through it.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::config::{DhcpConfig, OwnNetwork};
use crate::dhcp::boot::Mode;
use crate::dhcp::server::{Destination, Link, Port, Reply};
use crate::io::interface::{self, InterfaceAddress};
use crate::io::{ArpProbe, ArpSocket, CardSender, DatagramSocket, Datagrams};
use crate::serve::options::Failure;

/// The port of DHCP clients.
const CLIENT_PORT: u16 = 68;

const fn number(port: Port) -> u16 {
    match port {
        Port::Server => 67,
        Port::Boot => 4011,
    }
}

/// An interface whose sockets are open, but not watched yet.
#[derive(Debug)]
pub(super) struct OpenLink {
    pub(super) own: OwnNetwork,
    link: Link,
    server: DatagramSocket,
    boot: DatagramSocket,
    /// `None` without the right to raw sockets.
    raw: Option<(CardSender, ArpSocket)>,
}

impl OpenLink {
    /// Opens all sockets on an interface that the config names.
    pub(super) fn open(name: &str, config: &DhcpConfig) -> Result<Self, Failure> {
        let found = address_of(name, config.address())?;
        let link = Link {
            interface: found.index,
            address: found.address,
        };
        // Beside a proxy there may be the other server, on this very host.
        let shared = config.mode() == Mode::Proxy;
        let bind = |port| {
            let port = number(port);
            let bound = DatagramSocket::bind(name, found.index, port, shared);
            bound.map_err(|error| cannot_listen(name, port, &error))
        };
        Ok(Self {
            server: bind(Port::Server)?,
            boot: bind(Port::Boot)?,
            raw: raw(name, found.index)?,
            own: OwnNetwork {
                interface: found.interface,
                address: found.address,
                prefix: found.prefix,
            },
            link,
        })
    }

    /// Watches the sockets. Inside of a runtime only.
    pub(super) fn watched(self) -> io::Result<OpenedLink> {
        let raw = self.raw.map(|(cards, arp)| Ok((cards, arp.watched()?)));
        let (cards, arp) = raw
            .transpose()
            .map(Option::unzip)
            .map_err(|e: io::Error| e)?;
        Ok(OpenedLink {
            link: self.link,
            prefix: self.own.prefix,
            server: self.server.watched()?,
            boot: self.boot.watched()?,
            cards,
            arp,
        })
    }
}

/// The address that is meant on an interface.
fn address_of(name: &str, said: Option<Ipv4Addr>) -> Result<InterfaceAddress, Failure> {
    let failed = |error: io::Error| Failure::failed(format!("network interfaces: {error}"));
    let all = interface::addresses().map_err(failed)?;
    let mut of_it = all.into_iter().filter(|one| one.interface == name);
    let found = of_it.find(|one| said.is_none_or(|said| said == one.address));
    let Some(found) = found else {
        return Err(Failure::failed(
            match (interface::exists(name).map_err(failed)?, said) {
                (false, _) => {
                    format!("interface {name}: there is none; check [network] in the config")
                }
                (true, Some(said)) => {
                    format!("interface {name} does not have the address {said}; check [network]")
                }
                (true, None) => {
                    format!(
                        "interface {name} has no IPv4 address; give it one before cowherd starts"
                    )
                }
            },
        ));
    };
    if !found.is_up {
        tracing::warn!("interface {name} is down: nobody is served until it is up");
    }
    Ok(found)
}

fn cannot_listen(name: &str, port: u16, error: &io::Error) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "stop the other DHCP or PXE server on this host",
        io::ErrorKind::PermissionDenied => {
            "run as root, or with the capabilities CAP_NET_BIND_SERVICE and CAP_NET_RAW"
        }
        _ => "check [network] in the config",
    };
    Failure::failed(format!(
        "DHCP on {name}, UDP port {port}: {error}; {advice}"
    ))
}

/// The sockets below UDP, which DHCP can do without.
fn raw(name: &str, index: u32) -> Result<Option<(CardSender, ArpSocket)>, Failure> {
    let opened = CardSender::open(index).and_then(|cards| Ok((cards, ArpSocket::open(index)?)));
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) => {
            tracing::warn!(
                "no raw sockets on {name} ({error}): new machines are answered by broadcast, and \
                 addresses are not looked for before they are offered"
            );
            Ok(None)
        }
    }
}

/// An interface whose sockets are watched.
#[derive(Debug)]
pub(super) struct OpenedLink {
    pub(super) link: Link,
    prefix: u32,
    server: Datagrams,
    boot: Datagrams,
    cards: Option<CardSender>,
    pub(super) arp: Option<ArpProbe>,
}

impl OpenedLink {
    pub(super) const fn socket(&self, port: Port) -> &Datagrams {
        match port {
            Port::Server => &self.server,
            Port::Boot => &self.boot,
        }
    }

    /// Whether an address is of the network on this link, so that ARP finds it.
    pub(super) fn is_near(&self, address: Ipv4Addr) -> bool {
        let bits = |address: Ipv4Addr| address.to_bits() >> (32 - self.prefix.clamp(1, 32));
        bits(address) == bits(self.link.address)
    }

    /// Sends a reply.
    pub(super) fn send(&self, reply: &Reply) -> io::Result<()> {
        let bytes = reply.message.write(reply.room).bytes;
        let socket = self.socket(reply.port);
        let from = self.link.address;
        let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT);
        match (reply.to, &self.cards) {
            (Destination::Relay(to) | Destination::Unicast(to), _) => socket.send(&bytes, from, to),
            (Destination::Hardware { mac, ip }, Some(cards)) => {
                let from = SocketAddrV4::new(from, number(reply.port));
                cards.send(&bytes, from, SocketAddrV4::new(ip, CLIENT_PORT), mac)
            }
            // RFC 2131, section 4.1: "If unicasting is not possible, the message MAY be sent as an
            // IP broadcast".
            (Destination::Broadcast | Destination::Hardware { .. }, _) => {
                socket.send(&bytes, from, everybody)
            }
        }
    }
}
