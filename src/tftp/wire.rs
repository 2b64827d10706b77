//! Packets of TFTP as bytes (RFC 1350, section 5; RFC 2347).
//!
//! Invariant: what is read borrows from the datagram; nothing is sized by a number of a peer.

use thiserror::Error;

use crate::limits::{TFTP_NAME_MAX, TFTP_OPTIONS_MAX};

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// RRQ: it wants a file.
    Read(Request<'a>),
    /// WRQ: it wants to write one.
    Write,
    /// ACK: it has this block, the last 16 bits of its number, and all before.
    Ack(u16),
    /// ERROR: it ends the transfer.
    Error(ErrorCode, &'a [u8]),
    /// DATA or OACK, which only servers send.
    OfServer,
}

/// A read request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// What it calls the file.
    pub name: &'a [u8],
    /// How it wants to have it.
    pub mode: Mode,
    /// Options in its order, as it wrote them.
    pub options: Vec<RequestOption<'a>>,
}

/// The name of an option, and the value that is asked for.
pub type RequestOption<'a> = (&'a [u8], &'a [u8]);

/// The form of the bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As they are.
    Octet,
    /// As text: see [`super::netascii`].
    Netascii,
}

/// RFC 1350, appendix "Error Codes"; 8 is of RFC 2347.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u16);

#[allow(missing_docs, reason = "the names are those of the RFCs")]
impl ErrorCode {
    pub const UNDEFINED: Self = Self(0);
    pub const NOT_FOUND: Self = Self(1);
    pub const ACCESS: Self = Self(2);
    pub const FULL: Self = Self(3);
    pub const ILLEGAL: Self = Self(4);
    pub const UNKNOWN_ID: Self = Self(5);
    pub const OPTIONS: Self = Self(8);
}

/// What makes a datagram no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[allow(missing_docs, reason = "each message is its variant's description")]
pub enum Malformed {
    #[error("{0} bytes are too few for a packet")]
    Short(usize),
    #[error("operation {0} is none of TFTP")]
    Operation(u16),
    #[error("a string does not end")]
    Unterminated,
    #[error("the mode is neither octet nor netascii")]
    Mode,
    #[error("a file name of {0} bytes is too long")]
    Name(usize),
    #[error("too many options")]
    Options,
}

/// Operations (RFC 1350, section 5; OACK of RFC 2347).
mod operation {
    pub(super) const READ: u16 = 1;
    pub(super) const WRITE: u16 = 2;
    pub(super) const DATA: u16 = 3;
    pub(super) const ACK: u16 = 4;
    pub(super) const ERROR: u16 = 5;
    pub(super) const OACK: u16 = 6;
}

/// Bytes of a DATA packet before its data.
pub const DATA_HEADER: usize = 4;

/// The first two bytes and the rest.
fn number(bytes: &[u8]) -> Result<(u16, &[u8]), Malformed> {
    let (number, rest) = bytes
        .split_first_chunk()
        .ok_or(Malformed::Short(bytes.len()))?;
    Ok((u16::from_be_bytes(*number), rest))
}

/// A string up to its NUL, and what is behind.
fn string(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let end = bytes.iter().position(|&byte| byte == 0);
    let (string, rest) = bytes.split_at(end.ok_or(Malformed::Unterminated)?);
    Ok((string, rest.get(1..).unwrap_or_default()))
}

impl<'a> Packet<'a> {
    /// Reads a datagram.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let (operation, rest) = number(datagram)?;
        match operation {
            operation::READ => Request::read(rest).map(Self::Read),
            operation::WRITE => Ok(Self::Write),
            operation::ACK => Ok(Self::Ack(number(rest)?.0)),
            operation::ERROR => {
                let (code, message) = number(rest)?;
                // The NUL behind the message is missing in packets of some clients.
                let message = string(message).map_or(message, |(message, _)| message);
                Ok(Self::Error(ErrorCode(code), message))
            }
            operation::DATA | operation::OACK => Ok(Self::OfServer),
            other => Err(Malformed::Operation(other)),
        }
    }
}

impl<'a> Request<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (name, rest) = string(bytes)?;
        if name.len() > TFTP_NAME_MAX {
            return Err(Malformed::Name(name.len()));
        }
        let (mode, rest) = string(rest)?;
        Ok(Self {
            name,
            mode: Mode::of(mode)?,
            options: options(rest)?,
        })
    }
}

impl Mode {
    /// RFC 1350, section 5: "The mode field contains the string "netascii", "octet", or "mail" (or
    /// any combination of upper and lower case ...)".
    fn of(text: &[u8]) -> Result<Self, Malformed> {
        match text {
            _ if text.eq_ignore_ascii_case(b"octet") => Ok(Self::Octet),
            _ if text.eq_ignore_ascii_case(b"netascii") => Ok(Self::Netascii),
            _ => Err(Malformed::Mode),
        }
    }
}

/// Pairs of name and value. What is behind the last whole pair is padding of old boot ROMs.
fn options(mut rest: &[u8]) -> Result<Vec<RequestOption<'_>>, Malformed> {
    let mut options = Vec::new();
    while let Ok((name, behind)) = string(rest) {
        let Ok((value, behind)) = string(behind) else {
            break;
        };
        rest = behind;
        if name.is_empty() {
            continue;
        }
        if options.len() == TFTP_OPTIONS_MAX {
            return Err(Malformed::Options);
        }
        options.push((name, value));
    }
    Ok(options)
}

/// Whether a datagram says that it is a read request, which it may be badly.
#[must_use]
pub fn is_read_request(datagram: &[u8]) -> bool {
    datagram.starts_with(&operation::READ.to_be_bytes())
}

/// The header of a DATA packet: `block` is a number of 64 bits, which goes on from 0 after 65535.
///
/// RFC 1350 has no such block; all clients of boot loaders take 0 here, and GRUB nothing else.
#[must_use]
pub fn data_header(block: u64) -> [u8; DATA_HEADER] {
    let [a, b] = operation::DATA.to_be_bytes();
    let [.., c, d] = block.to_be_bytes();
    [a, b, c, d]
}

/// An OACK with these options.
#[must_use]
pub fn oack(options: &[(Vec<u8>, u64)]) -> Vec<u8> {
    let mut bytes = operation::OACK.to_be_bytes().to_vec();
    for (name, value) in options {
        bytes.extend_from_slice(name);
        bytes.push(0);
        bytes.extend_from_slice(value.to_string().as_bytes());
        bytes.push(0);
    }
    bytes
}

/// An ERROR with a message for people.
#[must_use]
pub fn error(code: ErrorCode, message: &str) -> Vec<u8> {
    let mut bytes = operation::ERROR.to_be_bytes().to_vec();
    bytes.extend_from_slice(&code.0.to_be_bytes());
    bytes.extend_from_slice(message.as_bytes());
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_its_name_its_mode_and_its_options_in_order() {
        let packet = Packet::read(b"\0\x01core.0\0OcTet\0tsize\x000\0blksize\x001468\0");
        assert_eq!(
            packet,
            Ok(Packet::Read(Request {
                name: b"core.0",
                mode: Mode::Octet,
                options: vec![(b"tsize", b"0"), (b"blksize", b"1468")],
            }))
        );
    }

    #[test]
    fn padding_behind_a_request_is_no_option() {
        for padding in [&b"\0"[..], b"\0\0\0\0\0", b"\xff\xff", b"blksize\0"] {
            let datagram = [b"\0\x01a\0netascii\0", padding].concat();
            let packet = Packet::read(&datagram);
            assert!(matches!(packet, Ok(Packet::Read(request)) if request.options.is_empty()));
        }
    }

    #[test]
    fn a_request_that_does_not_end_is_none() {
        let whole = b"\0\x01core.0\0octet\0";
        for len in 0..whole.len() {
            assert!(Packet::read(&whole[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn long_names_and_many_options_are_refused() {
        let long = [b"\0\x01", &[b'a'; TFTP_NAME_MAX + 1][..], b"\0octet\0"].concat();
        assert_eq!(Packet::read(&long), Err(Malformed::Name(TFTP_NAME_MAX + 1)));
        let many = [
            b"\0\x01a\0octet\0",
            &b"x\0y\0".repeat(TFTP_OPTIONS_MAX + 1)[..],
        ]
        .concat();
        assert_eq!(Packet::read(&many), Err(Malformed::Options));
    }

    #[test]
    fn mail_is_no_mode() {
        assert_eq!(Packet::read(b"\0\x01a\0mail\0"), Err(Malformed::Mode));
    }

    #[test]
    fn an_error_may_lack_its_nul() {
        let closed = Packet::Error(ErrorCode(0), b"closed");
        assert_eq!(Packet::read(b"\0\x05\0\0closed\0"), Ok(closed.clone()));
        assert_eq!(Packet::read(b"\0\x05\0\0closed"), Ok(closed));
    }

    #[test]
    fn the_block_after_65535_is_0() {
        assert_eq!(data_header(65_535), [0, 3, 255, 255]);
        assert_eq!(data_header(65_536), [0, 3, 0, 0]);
    }

    #[test]
    fn replies_have_the_form_of_the_specification() {
        let agreed = [(b"tsize".to_vec(), 70_000), (b"BlkSize".to_vec(), 1468)];
        assert_eq!(oack(&agreed), b"\0\x06tsize\x0070000\0BlkSize\x001468\0");
        let missing = error(ErrorCode::NOT_FOUND, "no such file");
        assert_eq!(missing, b"\0\x05\0\x01no such file\0");
    }

    proptest::proptest! {
        #[test]
        fn any_datagram_is_a_packet_or_refused(
            operation in 0..8_u16,
            rest in proptest::collection::vec(proptest::num::u8::ANY, 0..600),
        ) {
            let datagram = [&operation.to_be_bytes()[..], &rest].concat();
            if let Ok(Packet::Read(request)) = Packet::read(&datagram) {
                // What it has is all in the datagram.
                let options = request.options.iter().map(|(name, value)| name.len() + value.len());
                let used = request.name.len() + options.sum::<usize>();
                proptest::prop_assert!(used <= datagram.len());
                if let Ok(path) = crate::tftp::name::path_of(request.name) {
                    let is_plain = |part: &str| !matches!(part, "" | "." | "..");
                    proptest::prop_assert!(path.split('/').all(is_plain));
                }
            }
        }
    }
}
