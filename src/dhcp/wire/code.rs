//! The numbers of options and message types that are spoken here.

/// Fills space; it has no length.
pub const PAD: u8 = 0;
/// Subnet mask.
pub const SUBNET_MASK: u8 = 1;
/// Routers, the preferred one first.
pub const ROUTER: u8 = 3;
/// Servers of the domain name system.
pub const DNS: u8 = 6;
/// The client's name.
pub const HOST_NAME: u8 = 12;
/// Size of the boot file in 512-byte units, 16 bits wide. No reply of ours has it: EDK2 believes it
/// instead of asking how large the file is, and a file may be larger than it can say.
pub const BOOT_FILE_SIZE: u8 = 13;
/// The domain that names are completed with.
pub const DOMAIN: u8 = 15;
/// Broadcast address.
pub const BROADCAST_ADDRESS: u8 = 28;
/// NTP servers.
pub const NTP: u8 = 42;
/// Vendor specific information; PXE's suboptions for a PXE client.
pub const VENDOR: u8 = 43;
/// The address that a client wants.
pub const REQUESTED_ADDRESS: u8 = 50;
/// Seconds that a lease lasts.
pub const LEASE_TIME: u8 = 51;
/// Says that `file` and `sname` hold options. Understood, never sent: GRUB takes no boot file from
/// a message that has it.
pub const OVERLOAD: u8 = 52;
/// The type of a DHCP message.
pub const MESSAGE_TYPE: u8 = 53;
/// The address of the server that an offer is of.
pub const SERVER_IDENTIFIER: u8 = 54;
/// The options that a client would like.
pub const PARAMETER_REQUEST: u8 = 55;
/// A text about an error.
pub const ERROR_MESSAGE: u8 = 56;
/// The longest IP datagram that a client takes.
pub const MAX_SIZE: u8 = 57;
/// Seconds until a client renews with its own server.
pub const RENEWAL_TIME: u8 = 58;
/// Seconds until a client asks any server.
pub const REBINDING_TIME: u8 = 59;
/// What kind of client: `PXEClient:...`, `HTTPClient:...`.
pub const VENDOR_CLASS: u8 = 60;
/// What a client calls itself; other programs of one machine call it otherwise.
pub const CLIENT_IDENTIFIER: u8 = 61;
/// The boot server as a text.
pub const SERVER_NAME: u8 = 66;
/// The boot file as a text.
pub const BOOT_FILE: u8 = 67;
/// User class: `iPXE`.
pub const USER_CLASS: u8 = 77;
/// What a relay added, to come back unchanged (RFC 3046).
pub const RELAY_AGENT: u8 = 82;
/// Architectures of a booting client, 16 bits each (RFC 4578).
pub const ARCHITECTURE: u8 = 93;
/// Version of the network device interface (RFC 4578).
pub const NETWORK_INTERFACE: u8 = 94;
/// The UUID of a machine, after a byte 0 (RFC 4578).
pub const MACHINE_UUID: u8 = 97;
/// The network that a client wants an address of (RFC 3011).
pub const SUBNET_SELECTION: u8 = 118;
/// Options of iPXE.
pub const IPXE: u8 = 175;
/// Ends the options.
pub const END: u8 = 255;

/// What a DHCP message is for: the value of option 53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// A client looks for servers.
    Discover = 1,
    /// A server has an address.
    Offer = 2,
    /// A client wants an address, or to keep it.
    Request = 3,
    /// A client found its address in use.
    Decline = 4,
    /// The address is the client's.
    Ack = 5,
    /// The address is not the client's.
    Nak = 6,
    /// A client gives its address back.
    Release = 7,
    /// A client has an address and wants the rest.
    Inform = 8,
}

impl MessageType {
    /// Every type there is.
    pub const ALL: [Self; 8] = [
        Self::Discover,
        Self::Offer,
        Self::Request,
        Self::Decline,
        Self::Ack,
        Self::Nak,
        Self::Release,
        Self::Inform,
    ];

    /// The type that has this number.
    #[must_use]
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// As people write it: `DISCOVER`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Discover => "DISCOVER",
            Self::Offer => "OFFER",
            Self::Request => "REQUEST",
            Self::Decline => "DECLINE",
            Self::Ack => "ACK",
            Self::Nak => "NAK",
            Self::Release => "RELEASE",
            Self::Inform => "INFORM",
        }
    }
}
