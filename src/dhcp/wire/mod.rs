//! Datagrams and messages of BOOTP (RFC 951) and DHCP (RFC 2131).
//!
//! Invariants:
//! - Whatever a datagram holds, reading it ends, and takes no more memory than a few times its
//!   size.
//! - What is written is read back the same, apart from options that did not fit.
//! - A message is never written with option 52 (overload), which GRUB misreads.

#![deny(clippy::indexing_slicing)]

pub mod code;
mod fields;
mod options;

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;

use thiserror::Error;

use crate::limits::{DHCP_DATAGRAM_MAX, DHCP_REPLY_MIN};
use crate::mac::MacAddress;
pub use code::MessageType;
pub use fields::NotAType;
pub(super) use fields::suboption;
pub use options::Options;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A client, perhaps through a relay.
    Request,
    /// A server.
    Reply,
}

/// One message, of a client or of a server. The names of addresses are those of RFC 2131.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub op: Op,
    /// How many relays it came through.
    pub hops: u8,
    /// A number that a reply has from its request.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// Whether the client can't be reached by its address yet.
    pub broadcast: bool,
    /// The address that the client has and answers to.
    pub ciaddr: Ipv4Addr,
    /// The address that the client is given.
    pub yiaddr: Ipv4Addr,
    /// The server that has the boot file.
    pub siaddr: Ipv4Addr,
    /// The relay that the client is behind.
    pub giaddr: Ipv4Addr,
    /// The client's network card.
    pub chaddr: MacAddress,
    /// The name of the boot server, without the NUL behind it.
    pub sname: Vec<u8>,
    /// The boot file, without the NUL behind it.
    pub file: Vec<u8>,
    /// The rest.
    pub options: Options,
}

/// What makes a datagram no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[allow(missing_docs, reason = "each message is its variant's description")]
pub enum Malformed {
    #[error("{0} bytes are too few for a message")]
    Short(usize),
    #[error("{0} bytes are too many for a message")]
    Long(usize),
    #[error("operation {0} is neither request nor reply")]
    Op(u8),
    #[error("hardware type {0} with addresses of {1} bytes is not Ethernet")]
    Hardware(u8, u8),
    #[error("{0} is not the address of one network card")]
    GroupAddress(MacAddress),
    #[error("the options don't begin with the magic number")]
    Cookie,
    #[error("option {0} is longer than the message")]
    CutShort(u8),
}

/// A message as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The payload of the datagram.
    pub bytes: Vec<u8>,
    /// Options that were left out, since the client takes no longer message.
    pub left_out: Vec<u8>,
}

/// Ethernet (RFC 1700, "Hardware Type").
const ETHERNET: u8 = 1;
/// Bytes before the options.
const HEADER: usize = 236;
/// RFC 1497: "99.130.83.99".
const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];
/// RFC 2131, section 2: the leftmost bit of the flags; the others "MUST be ignored by servers".
const BROADCAST: u16 = 0x8000;
const SNAME: usize = 64;
const FILE: usize = 128;
/// Bytes of chaddr that Ethernet leaves empty.
const CHADDR_REST: usize = 10;

impl Message {
    /// An empty request of `chaddr`.
    #[must_use]
    pub fn request(xid: u32, chaddr: MacAddress) -> Self {
        Self {
            op: Op::Request,
            hops: 0,
            xid,
            secs: 0,
            broadcast: false,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            chaddr,
            sname: Vec::new(),
            file: Vec::new(),
            options: Options::default(),
        }
    }

    /// An empty reply to this message, to be filled.
    #[must_use]
    pub fn reply(&self) -> Self {
        Self {
            op: Op::Reply,
            broadcast: self.broadcast,
            giaddr: self.giaddr,
            ..Self::request(self.xid, self.chaddr)
        }
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// What makes it no message. It is to be dropped: DHCP has no reply for that.
    pub fn read(datagram: &[u8]) -> Result<Self, Malformed> {
        if datagram.len() > DHCP_DATAGRAM_MAX {
            return Err(Malformed::Long(datagram.len()));
        }
        let short = || Malformed::Short(datagram.len());
        let (header, options) = datagram.split_at_checked(HEADER).ok_or_else(short)?;
        let mut at = Fields(header);
        let [op, htype, hlen, hops] = at.take().ok_or_else(short)?;
        let op = match op {
            1 => Op::Request,
            2 => Op::Reply,
            other => return Err(Malformed::Op(other)),
        };
        if (htype, hlen) != (ETHERNET, 6) {
            return Err(Malformed::Hardware(htype, hlen));
        }
        let mut message = Self {
            op,
            hops,
            xid: u32::from_be_bytes(at.take().ok_or_else(short)?),
            secs: u16::from_be_bytes(at.take().ok_or_else(short)?),
            broadcast: u16::from_be_bytes(at.take().ok_or_else(short)?) & BROADCAST != 0,
            ciaddr: at.address().ok_or_else(short)?,
            yiaddr: at.address().ok_or_else(short)?,
            siaddr: at.address().ok_or_else(short)?,
            giaddr: at.address().ok_or_else(short)?,
            chaddr: MacAddress(at.take().ok_or_else(short)?),
            sname: Vec::new(),
            file: Vec::new(),
            options: Options::default(),
        };
        if !message.chaddr.is_unicast() {
            return Err(Malformed::GroupAddress(message.chaddr));
        }
        at.take::<CHADDR_REST>().ok_or_else(short)?;
        let sname: [u8; SNAME] = at.take().ok_or_else(short)?;
        let file: [u8; FILE] = at.take().ok_or_else(short)?;
        message.read_options(&sname, &file, options)?;
        Ok(message)
    }

    /// RFC 3396, section 5: the options field, then `file`, then `sname` are read as one, as far as
    /// option 52 says that they hold options.
    fn read_options(&mut self, sname: &[u8], file: &[u8], field: &[u8]) -> Result<(), Malformed> {
        let Some(options) = field.strip_prefix(&COOKIE) else {
            // A client of RFC 951 leaves the field empty.
            let empty = field.iter().all(|byte| *byte == 0);
            self.sname = up_to_nul(sname).to_vec();
            self.file = up_to_nul(file).to_vec();
            return if empty {
                Ok(())
            } else {
                Err(Malformed::Cookie)
            };
        };
        let cut = |options::CutShort(code)| Malformed::CutShort(code);
        self.options.read(options).map_err(cut)?;
        let overload = self.options.take_overload().unwrap_or(0);
        for (flag, field, text) in [(1, file, &mut self.file), (2, sname, &mut self.sname)] {
            match overload & flag != 0 {
                true => self.options.read(field).map_err(cut)?,
                false => *text = up_to_nul(field).to_vec(),
            }
        }
        // An option 52 in there means nothing.
        self.options.take_overload();
        Ok(())
    }

    /// Writes the message into at most `room` bytes. Options that don't fit are left out, and so is
    /// a `file` or `sname` that is too long for its field.
    #[must_use]
    pub fn write(&self, room: usize) -> Written {
        let mut bytes = Vec::with_capacity(DHCP_REPLY_MIN);
        let op = match self.op {
            Op::Request => 1,
            Op::Reply => 2,
        };
        bytes.extend([op, ETHERNET, 6, self.hops]);
        bytes.extend(self.xid.to_be_bytes());
        bytes.extend(self.secs.to_be_bytes());
        let flags = if self.broadcast { BROADCAST } else { 0 };
        bytes.extend(flags.to_be_bytes());
        for address in [self.ciaddr, self.yiaddr, self.siaddr, self.giaddr] {
            bytes.extend(address.octets());
        }
        bytes.extend(self.chaddr.0);
        bytes.extend([0; CHADDR_REST]);
        bytes.extend(field::<SNAME>(&self.sname));
        bytes.extend(field::<FILE>(&self.file));
        bytes.extend(COOKIE);
        let room = room.saturating_sub(bytes.len());
        let left_out = self.options.write(room, &mut bytes);
        // RFC 1542, section 2.1: "the minimum-length BOOTP message is 300 octets". Old boot ROMs
        // and relays drop what is shorter.
        if bytes.len() < DHCP_REPLY_MIN {
            bytes.resize(DHCP_REPLY_MIN, code::PAD);
        }
        Written { bytes, left_out }
    }
}

/// The longest text that fits in `file` with a NUL behind it.
pub const FILE_TEXT_MAX: usize = FILE - 1;

/// A text in a field of fixed size, with at least one NUL behind it.
fn field<const N: usize>(text: &[u8]) -> [u8; N] {
    let mut field = [0; N];
    if text.len() < N {
        field
            .iter_mut()
            .zip(text)
            .for_each(|(to, from)| *to = *from);
    }
    field
}

fn up_to_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Fields of fixed size, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn address(&mut self) -> Option<Ipv4Addr> {
        self.take::<4>().map(Ipv4Addr::from)
    }
}
