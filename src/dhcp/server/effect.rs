//! What comes into the server and what it wants done.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::dhcp::lease::Record;
use crate::dhcp::wire::{Message, MessageType};
use crate::mac::MacAddress;
use crate::name::Name;

/// A network card of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// Its index, by which replies leave through it.
    pub interface: u32,
    /// Our address there, which clients are told.
    pub address: Ipv4Addr,
}

/// Where a message was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    /// The port of DHCP servers, 67.
    Server,
    /// The port of PXE boot servers, 4011.
    Boot,
}

/// A message that has arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The card that it came through.
    pub link: Link,
    /// Where it was sent to.
    pub port: Port,
    /// Where it came from.
    pub from: SocketAddrV4,
    /// What it says.
    pub message: &'a Message,
}

/// Whether somebody answers to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Probed {
    /// Nobody does.
    Free,
    /// Somebody does.
    Taken,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Append it to the lease file. Where that fails, nothing more may be sent until a new file
    /// with all of `Server::records` is durable: the server takes it for saved.
    Save(Record),
    /// Send it, once all that was to be saved before is durable.
    Send(Reply),
    /// See whether anybody answers to an address, and tell by `handle_probed`.
    Probe {
        /// The card through which it is looked for.
        link: Link,
        /// The address.
        address: Ipv4Addr,
        /// The machine that is to get it; that one itself may answer.
        mac: MacAddress,
    },
    /// A machine is being switched on. Firmware says so several times in a row.
    Begin(Beginning),
    /// Count it, log it.
    Report(Report),
}

/// The beginning of a boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The machine, by its name in the config.
    pub client: Option<Name>,
    /// The address that it gets.
    pub address: Option<Ipv4Addr>,
}

/// A message to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The card that it leaves through; its address is where it comes from.
    pub link: Link,
    /// Our port, that it comes from.
    pub port: Port,
    /// Where it goes.
    pub to: Destination,
    /// What it says.
    pub message: Message,
    /// How many bytes it may have.
    pub room: usize,
    /// The rules that led here, in order, for people.
    pub why: Vec<String>,
}

/// Where a reply goes (RFC 2131, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// To the relay that the machine is behind.
    Relay(SocketAddrV4),
    /// To an address that the machine has.
    Unicast(SocketAddrV4),
    /// To the network card of a machine that does not have this address yet, and so answers to no
    /// question for it.
    Hardware {
        /// The card.
        mac: MacAddress,
        /// The address, with port 68.
        ip: Ipv4Addr,
    },
    /// To everybody on the link, port 68.
    Broadcast,
}

/// Something that people may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What.
    pub what: Event,
    /// The machine it is about.
    pub mac: MacAddress,
    /// The type of its message; `None` for one of BOOTP.
    pub kind: Option<MessageType>,
    /// The rules that led here, in order, for people.
    pub why: Vec<String>,
}

/// What a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A message got no reply.
    Ignored(Reason),
    /// A machine found that its address is somebody else's.
    Declined(Ipv4Addr),
    /// Somebody answers to an address that was to be offered.
    Taken(Ipv4Addr),
    /// One network card of a machine uses its address, or that of another machine that says the
    /// same of itself, and another card asks for it.
    Shared {
        /// The address.
        address: Ipv4Addr,
        /// The card that uses it.
        holder: MacAddress,
    },
    /// A machine gave its address back.
    Released(Ipv4Addr),
    /// A machine can't have its own address yet.
    OwnLeased {
        /// The address.
        address: Ipv4Addr,
        /// The network card of the machine that still has it.
        holder: MacAddress,
        /// For how long that has it at most.
        left: Duration,
    },
    /// A reply to a relay has no room for what the relay added, and goes without it.
    RelayLeftOut,
    /// Another DHCP server answers on our link.
    Rival(Ipv4Addr),
}

/// Why a message got no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// It is of a type that there is not, or that no client sends.
    Type,
    /// An option that its type needs is missing.
    Incomplete,
    /// It came from a network that is not served.
    Network,
    /// The machine is in no config, and those are not to be served.
    Unknown,
    /// The machine is in no config, and BOOTP is for machines with an own address.
    Bootp,
    /// The machine has accepted the offer of another server.
    OtherServer,
    /// Nothing is known of the address that the machine believes to have.
    NoRecord,
    /// There is no address left that this machine may have.
    NoAddress,
    /// It waits for the answer to a probe, and another request of the machine came.
    Probing,
    /// The machine boots nothing that is served here; a proxy has nothing else to say.
    NotBooting,
    /// Addresses are given by another server.
    Proxy,
}

impl Reason {
    /// Every reason there is.
    pub const ALL: [Self; 11] = [
        Self::Type,
        Self::Incomplete,
        Self::Network,
        Self::Unknown,
        Self::Bootp,
        Self::OtherServer,
        Self::NoRecord,
        Self::NoAddress,
        Self::Probing,
        Self::NotBooting,
        Self::Proxy,
    ];

    /// Its name, as counters and logs have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Incomplete => "incomplete",
            Self::Network => "network",
            Self::Unknown => "unknown",
            Self::Bootp => "bootp",
            Self::OtherServer => "other-server",
            Self::NoRecord => "no-record",
            Self::NoAddress => "no-address",
            Self::Probing => "probing",
            Self::NotBooting => "not-booting",
            Self::Proxy => "proxy",
        }
    }
}
