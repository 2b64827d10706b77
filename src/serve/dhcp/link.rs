//! The sockets of one interface, and how replies leave through it.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::config::{DhcpConfig, OwnNetwork};
use crate::dhcp::boot::Mode;
use crate::dhcp::server::{Destination, Link, Port, Reply};
use crate::io::interface::{self, InterfaceAddress};
use crate::io::{
    ArpProbe, ArpSocket, CardSender, DatagramSocket, Datagrams, Ear, EarSocket, Hears, RoutedSender,
};
use crate::serve::host;
use crate::serve::options::Failure;
use crate::serve::takeover::Given;
use passed::Passed;

mod passed;

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
    pub(super) link: Link,
    /// `None` in proxy mode, where `raw` is there: the port is the other server's then.
    server: Option<DatagramSocket>,
    boot: DatagramSocket,
    /// `None` without the right to raw sockets.
    raw: Option<Raw>,
}

/// The sockets below UDP, which DHCP can do without.
#[derive(Debug)]
struct Raw {
    cards: CardSender,
    arp: ArpSocket,
    routed: RoutedSender,
    /// Of a proxy, what comes to the port of servers; else what other servers tell clients.
    ear: EarSocket,
}

impl Raw {
    fn open(index: u32, mode: Mode) -> io::Result<Self> {
        Ok(Self {
            cards: CardSender::open(index)?,
            arp: ArpSocket::open(index)?,
            routed: RoutedSender::open()?,
            ear: match mode {
                Mode::Proxy => EarSocket::open(index, number(Port::Server), Hears::All),
                Mode::Server => EarSocket::open(index, CLIENT_PORT, Hears::Broadcasts),
            }?,
        })
    }
}

impl OpenLink {
    /// Opens all sockets on an interface that the config names.
    ///
    /// Those of `given` are taken that were opened for the same.
    pub(super) fn open(
        name: &str,
        config: &DhcpConfig,
        given: &mut Given,
    ) -> Result<Self, Failure> {
        Self::on(&address_of(name, config.address())?, config, given)
    }

    /// Opens all sockets on an interface that was found.
    pub(super) fn on(
        found: &InterfaceAddress,
        config: &DhcpConfig,
        given: &mut Given,
    ) -> Result<Self, Failure> {
        let name = found.interface.as_str();
        let mut passed = Passed::new(given, found.index, config.mode());
        let link = Link {
            interface: found.index,
            address: found.address,
        };
        let mode = config.mode();
        let raw = match passed.raw() {
            Some(raw) => Ok(raw),
            None => Raw::open(found.index, mode),
        };
        let mut bind = |port, address| {
            if let Some(socket) = passed.datagrams(port) {
                return Ok(socket);
            }
            let address = SocketAddrV4::new(address, number(port));
            let shared = mode == Mode::Proxy;
            let bound = DatagramSocket::bind(name, found.index, address, shared);
            bound.map_err(|error| cannot_listen(name, address.port(), mode, &error))
        };
        let server = match (mode, &raw) {
            (Mode::Server, _) => Some(bind(Port::Server, Ipv4Addr::UNSPECIFIED)?),
            // There may be the other server on this very host. What is sent to it alone, such as
            // a renewal, must not come here.
            (Mode::Proxy, Err(_)) => Some(bind(Port::Server, Ipv4Addr::BROADCAST)?),
            (Mode::Proxy, Ok(_)) => None,
        };
        Ok(Self {
            server,
            boot: bind(Port::Boot, Ipv4Addr::UNSPECIFIED)?,
            // Last, so that whoever can't be served at all hears of one thing only.
            raw: or_warn(name, raw),
            own: OwnNetwork {
                interface: found.interface.clone(),
                address: found.address,
                prefix: found.prefix,
            },
            link,
        })
    }

    /// Watches the sockets. Inside of a runtime only.
    pub(super) fn watched(self) -> io::Result<OpenedLink> {
        let raw = self.raw.map(|raw| {
            let below = Below {
                cards: raw.cards,
                routed: raw.routed,
                ear: raw.ear.watched()?,
            };
            Ok::<_, io::Error>((below, raw.arp.watched()?))
        });
        let (below, arp) = raw.transpose()?.unzip();
        Ok(OpenedLink {
            server: self.server.map(DatagramSocket::watched).transpose()?,
            boot: self.boot.watched()?,
            below,
            arp,
        })
    }
}

/// The address that is meant on an interface.
fn address_of(name: &str, said: Option<Ipv4Addr>) -> Result<InterfaceAddress, Failure> {
    let all = interface::addresses().map_err(host::no_interfaces)?;
    let Some(found) = chosen(&all, name, said) else {
        return Err(host::no_address(name, said));
    };
    if !found.is_up {
        tracing::warn!("interface {name} is down: nobody is served until it is up");
    }
    Ok(found.clone())
}

/// The address that is meant on an interface, of `all` that there are: the first, if none is said.
pub(super) fn chosen<'a>(
    all: &'a [InterfaceAddress],
    name: &str,
    said: Option<Ipv4Addr>,
) -> Option<&'a InterfaceAddress> {
    let mut of_it = all.iter().filter(|one| one.interface == name);
    of_it.find(|one| said.is_none_or(|said| said == one.address))
}

fn cannot_listen(name: &str, port: u16, mode: Mode, error: &io::Error) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse if mode == Mode::Proxy => {
            "give cowherd the capability CAP_NET_RAW too, or have the other server share the \
             port: dnsmasq does with bind-dynamic or bind-interfaces"
        }
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

fn or_warn(name: &str, raw: io::Result<Raw>) -> Option<Raw> {
    let warn = |error: &io::Error| {
        tracing::warn!(
            "no raw sockets on {name} ({error}): new machines are answered by broadcast, and \
             addresses are not looked for before they are offered"
        );
    };
    raw.inspect_err(warn).ok()
}

/// An interface whose sockets are watched.
#[derive(Debug)]
pub(super) struct OpenedLink {
    server: Option<Datagrams>,
    boot: Datagrams,
    below: Option<Below>,
    pub(super) arp: Option<ArpProbe>,
}

/// As [`Raw`].
#[derive(Debug)]
struct Below {
    cards: CardSender,
    routed: RoutedSender,
    ear: Ear,
}

impl OpenedLink {
    pub(super) const fn socket(&self, port: Port) -> Option<&Datagrams> {
        match port {
            Port::Server => self.server.as_ref(),
            Port::Boot => Some(&self.boot),
        }
    }

    /// Where requests come from that no socket receives, or else the answers of other servers.
    pub(super) fn ear(&self) -> Option<&Ear> {
        self.below.as_ref().map(|below| &below.ear)
    }

    /// Sends a reply.
    pub(super) fn send(&self, reply: &Reply) -> io::Result<()> {
        let bytes = reply.message.write(reply.room).bytes;
        let from = SocketAddrV4::new(reply.link.address, number(reply.port));
        match (reply.to, &self.below) {
            (Destination::Relay(to) | Destination::Unicast(to), below) => {
                match (self.socket(reply.port), below) {
                    (Some(socket), _) => socket.send(&bytes, *from.ip(), to),
                    (None, Some(below)) => below.routed.send(&bytes, from, to),
                    (None, None) => Err(io::ErrorKind::NotConnected.into()),
                }
            }
            (Destination::Hardware { mac, ip }, Some(Below { cards, .. })) => {
                cards.send(&bytes, from, SocketAddrV4::new(ip, CLIENT_PORT), mac)
            }
            // RFC 2131, section 4.1: "If unicasting is not possible, the message MAY be sent as an
            // IP broadcast".
            (Destination::Broadcast | Destination::Hardware { .. }, below) => {
                match (self.socket(reply.port), below) {
                    (Some(socket), _) => {
                        let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT);
                        socket.send(&bytes, *from.ip(), everybody)
                    }
                    (None, Some(below)) => below.cards.broadcast(&bytes, from, CLIENT_PORT),
                    (None, None) => Err(io::ErrorKind::NotConnected.into()),
                }
            }
        }
    }
}
