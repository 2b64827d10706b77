//! What the options of a message mean.
//!
//! Where a client writes an option in a form that it can't have, the option counts as not there:
//! a machine that boots is better served without it than not at all.

use std::net::Ipv4Addr;

use super::code;
use super::{Message, MessageType};
use crate::limits::{DHCP_CLIENT_IDENTIFIER_MAX, DHCP_DATAGRAM_MAX, DHCP_DATAGRAM_MIN};

/// Option 53 has a value that no message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAType;

/// Bytes of the IP and UDP headers that a datagram has besides the message.
const IP_AND_UDP: usize = 28;

impl Message {
    /// What the message is for; `None` where it is of BOOTP.
    ///
    /// # Errors
    /// It is of DHCP and has no type that there is.
    pub fn kind(&self) -> Result<Option<MessageType>, NotAType> {
        match self.options.get(code::MESSAGE_TYPE) {
            None => Ok(None),
            Some([number]) => MessageType::of_number(*number).map(Some).ok_or(NotAType),
            Some(_) => Err(NotAType),
        }
    }

    /// How many bytes of payload the client takes in one datagram.
    ///
    /// RFC 2132, section 9.10: "The minimum legal value is 576 octets."
    #[must_use]
    pub fn room(&self) -> usize {
        let asked = self.options.get(code::MAX_SIZE);
        let asked = asked.and_then(|value| Some(u16::from_be_bytes(value.try_into().ok()?)));
        let datagram = asked.map_or(DHCP_DATAGRAM_MIN, usize::from);
        datagram.clamp(DHCP_DATAGRAM_MIN, DHCP_DATAGRAM_MAX) - IP_AND_UDP
    }

    /// What the client calls itself.
    #[must_use]
    pub fn client_identifier(&self) -> Option<&[u8]> {
        let identifier = self.options.get(code::CLIENT_IDENTIFIER)?;
        // RFC 2132, section 9.14: "its minimum length is 2".
        let lengths = 2..=DHCP_CLIENT_IDENTIFIER_MAX;
        Some(identifier).filter(|identifier| lengths.contains(&identifier.len()))
    }

    /// The UUID of the machine. RFC 4578, section 2.3: type 0, then 16 bytes.
    #[must_use]
    pub fn uuid(&self) -> Option<[u8; 16]> {
        match self.options.get(code::MACHINE_UUID)?.split_first_chunk() {
            Some(([0], uuid)) => uuid.try_into().ok(),
            _ => None,
        }
    }

    /// The architectures that the client can boot, the best first.
    ///
    /// RFC 4578, section 2.1: "a list of one or more 16-bit values". Boot ROMs that leave the
    /// option out say the same in their vendor class: `PXEClient:Arch:00007:UNDI:003016`.
    #[must_use]
    pub fn architectures(&self) -> Vec<u16> {
        let listed = self.options.get(code::ARCHITECTURE).unwrap_or_default();
        let pair = |pair: &[u8]| Some(u16::from_be_bytes(pair.try_into().ok()?));
        let listed: Vec<_> = listed.chunks_exact(2).filter_map(pair).collect();
        match listed.is_empty() {
            true => self.architecture_of_class().into_iter().collect(),
            false => listed,
        }
    }

    fn architecture_of_class(&self) -> Option<u16> {
        let class = std::str::from_utf8(self.vendor_class()).ok()?;
        let (_, arch) = class.split_once(":Arch:")?;
        arch.get(..5)?.parse().ok()
    }

    /// The vendor class, without a NUL behind it; empty where there is none.
    #[must_use]
    pub fn vendor_class(&self) -> &[u8] {
        super::up_to_nul(self.options.get(code::VENDOR_CLASS).unwrap_or_default())
    }

    /// Whether it is iPXE that asks, and not the firmware below it.
    ///
    /// iPXE sends the text as it is; RFC 3004 would have its length before it.
    #[must_use]
    pub fn is_ipxe(&self) -> bool {
        let user_class = self.options.get(code::USER_CLASS).unwrap_or_default();
        matches!(user_class, b"iPXE" | b"\x04iPXE") || self.options.get(code::IPXE).is_some()
    }

    /// The network that the client is on, where a relay says that this is not the relay's own.
    ///
    /// RFC 3527, section 3: the link selection suboption "MUST be used" before giaddr. RFC 3011 is
    /// the same in the words of a client.
    #[must_use]
    pub fn link_selection(&self) -> Option<Ipv4Addr> {
        let by_client = self.options.address(code::SUBNET_SELECTION);
        self.relayed_address(LINK_SELECTION).or(by_client)
    }

    /// The address that the relay wants to be named as the server.
    ///
    /// RFC 5107, section 4: a server that gets this suboption "MUST" use it as the server
    /// identifier, so that the client renews through the relay.
    #[must_use]
    pub fn server_override(&self) -> Option<Ipv4Addr> {
        self.relayed_address(SERVER_OVERRIDE)
    }

    /// Whether the relay wants its answer at the port that it asked from (RFC 8357).
    #[must_use]
    pub fn wants_relay_port(&self) -> bool {
        self.relayed(RELAY_PORT).is_some()
    }

    fn relayed_address(&self, wanted: u8) -> Option<Ipv4Addr> {
        let octets: [u8; 4] = self.relayed(wanted)?.try_into().ok()?;
        Some(octets.into())
    }

    /// What the relay says in option 82. Nobody but a relay may speak for one.
    fn relayed(&self, wanted: u8) -> Option<&[u8]> {
        let relayed = self.options.get(code::RELAY_AGENT)?;
        suboption(relayed, wanted).filter(|_| !self.giaddr.is_unspecified())
    }
}

/// The suboption of option 82 with the address of the client's network.
const LINK_SELECTION: u8 = 5;
/// The suboption with the address that the client is to take for the server's.
const SERVER_OVERRIDE: u8 = 11;
/// The suboption of a relay that does not ask from port 67.
const RELAY_PORT: u8 = 19;

/// An option inside an option. It has neither PAD nor END.
pub(in crate::dhcp) fn suboption(value: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = value;
    while let Some(([code, length], behind)) = rest.split_first_chunk::<2>() {
        let (value, behind) = behind.split_at_checked(usize::from(*length))?;
        if *code == wanted {
            return Some(value);
        }
        rest = behind;
    }
    None
}
