//! Messages as people and programs read them.

use std::net::Ipv4Addr;

use serde::Serialize;

use crate::dhcp::server::Destination;
use crate::dhcp::wire::{Message, Op, code};

/// A message, its empty fields left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Its type: `DISCOVER`.
    pub kind: &'static str,
    /// The network card.
    pub mac: String,
    /// The address that the client is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yiaddr: Option<Ipv4Addr>,
    /// The address that the client has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ciaddr: Option<Ipv4Addr>,
    /// The server with the boot file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub siaddr: Option<Ipv4Addr>,
    /// The relay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub giaddr: Option<Ipv4Addr>,
    /// The boot file of the header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The options, in their order.
    pub options: Vec<ShownOption>,
}

/// An option.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownOption {
    /// Its number.
    pub code: u8,
    /// What it is called; `None` where that is not known here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'static str>,
    /// Its value.
    pub value: String,
}

impl Shown {
    /// Shows a message.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        let address = |address: Ipv4Addr| Some(address).filter(|one| !one.is_unspecified());
        let kind = match (message.kind(), message.op) {
            (Ok(Some(kind)), _) => kind.name(),
            (Ok(None), Op::Request) => "BOOTP request",
            (Ok(None), Op::Reply) => "BOOTP reply",
            (Err(_), _) => "of no type",
        };
        let file = Some(text(&message.file)).filter(|file| !file.is_empty());
        let options = message.options.iter();
        Self {
            kind,
            mac: message.chaddr.to_string(),
            yiaddr: address(message.yiaddr),
            ciaddr: address(message.ciaddr),
            siaddr: address(message.siaddr),
            giaddr: address(message.giaddr),
            file,
            options: options.map(|(code, value)| option(code, value)).collect(),
        }
    }
}

/// How a value is written.
#[derive(Clone, Copy)]
enum Form {
    Addresses,
    Text,
    Number,
    Numbers16,
    Bytes,
}

/// What the options that come up in boots are called.
const NAMES: &[(u8, &str, Form)] = &[
    (code::SUBNET_MASK, "subnet mask", Form::Addresses),
    (code::ROUTER, "routers", Form::Addresses),
    (code::DNS, "name servers", Form::Addresses),
    (code::HOST_NAME, "host name", Form::Text),
    (code::DOMAIN, "domain", Form::Text),
    (
        code::BROADCAST_ADDRESS,
        "broadcast address",
        Form::Addresses,
    ),
    (code::NTP, "time servers", Form::Addresses),
    (code::VENDOR, "vendor options", Form::Bytes),
    (
        code::REQUESTED_ADDRESS,
        "requested address",
        Form::Addresses,
    ),
    (code::LEASE_TIME, "lease time", Form::Number),
    (code::MESSAGE_TYPE, "message type", Form::Number),
    (code::SERVER_IDENTIFIER, "server", Form::Addresses),
    (code::PARAMETER_REQUEST, "wanted options", Form::Bytes),
    (code::ERROR_MESSAGE, "error", Form::Text),
    (code::MAX_SIZE, "longest datagram", Form::Number),
    (code::RENEWAL_TIME, "renewal time", Form::Number),
    (code::REBINDING_TIME, "rebinding time", Form::Number),
    (code::VENDOR_CLASS, "vendor class", Form::Text),
    (code::CLIENT_IDENTIFIER, "client identifier", Form::Bytes),
    (code::SERVER_NAME, "boot server", Form::Text),
    (code::BOOT_FILE, "boot file", Form::Text),
    (code::USER_CLASS, "user class", Form::Text),
    (code::RELAY_AGENT, "relay agent", Form::Bytes),
    (code::ARCHITECTURE, "architectures", Form::Numbers16),
    (code::NETWORK_INTERFACE, "network interface", Form::Bytes),
    (code::MACHINE_UUID, "UUID", Form::Bytes),
    (code::SUBNET_SELECTION, "subnet selection", Form::Addresses),
    (code::IPXE, "iPXE options", Form::Bytes),
];

fn option(code: u8, value: &[u8]) -> ShownOption {
    let known = NAMES.iter().find(|(of, _, _)| *of == code);
    let form = known.map_or(Form::Bytes, |(_, _, form)| *form);
    ShownOption {
        code,
        name: known.map(|(_, name, _)| *name),
        value: written(form, value).unwrap_or_else(|| hex(value)),
    }
}

/// A value in its form; `None` where it does not have it.
fn written(form: Form, value: &[u8]) -> Option<String> {
    match form {
        Form::Addresses => parts::<4>(value, |four| Ipv4Addr::from(four).to_string()),
        Form::Numbers16 => parts::<2>(value, |two| u16::from_be_bytes(two).to_string()),
        Form::Number if value.len() <= 4 => {
            let number = value
                .iter()
                .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
            Some(number.to_string())
        }
        Form::Text => Some(text(value)),
        Form::Number | Form::Bytes => None,
    }
}

fn parts<const N: usize>(value: &[u8], shown: impl Fn([u8; N]) -> String) -> Option<String> {
    let parts = value
        .chunks(N)
        .map(|part| Some(shown(part.try_into().ok()?)));
    let parts: Option<Vec<_>> = parts.collect();
    parts
        .filter(|parts| !parts.is_empty())
        .map(|parts| parts.join(", "))
}

/// A text without the NUL behind it; what can't be shown is escaped.
fn text(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}

fn hex(bytes: &[u8]) -> String {
    let pairs: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(":")
}

/// Where a reply goes, for people.
pub(super) fn destination(to: Destination) -> String {
    match to {
        Destination::Relay(relay) => format!("the relay at {relay}"),
        Destination::Unicast(to) => to.to_string(),
        Destination::Hardware { mac, ip } => format!("{ip}, at the card {mac}"),
        Destination::Broadcast => "everybody on the link".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(code: u8, bytes: &[u8]) -> String {
        option(code, bytes).value
    }

    #[test]
    fn options_are_written_in_their_form() {
        assert_eq!(
            value(code::ROUTER, &[10, 0, 0, 1, 10, 0, 0, 2]),
            "10.0.0.1, 10.0.0.2"
        );
        assert_eq!(value(code::LEASE_TIME, &[0, 0, 14, 16]), "3600");
        assert_eq!(value(code::ARCHITECTURE, &[0, 7, 0, 16]), "7, 16");
        assert_eq!(value(code::BOOT_FILE, b"a/b\0"), "a/b");
        assert_eq!(value(code::VENDOR, &[6, 1, 8, 255]), "06:01:08:ff");
    }

    #[test]
    fn what_does_not_have_its_form_is_written_as_bytes() {
        assert_eq!(value(code::ROUTER, &[10, 0, 0]), "0a:00:00");
        assert_eq!(value(code::ROUTER, &[]), "");
        assert_eq!(value(code::LEASE_TIME, &[1; 5]), "01:01:01:01:01");
        assert_eq!(value(code::HOST_NAME, b"a\x1b[2J"), "a\\u{1b}[2J");
    }
}
