//! The options of a message, in the order in which they came or are to be sent.
//!
//! Invariants:
//! - Each code is there once: what came in several pieces is one value (RFC 3396).
//! - Neither PAD nor END nor OVERLOAD is among them: they say how the others are written.

use std::net::Ipv4Addr;

use super::code::{
    BOOT_FILE, CLIENT_IDENTIFIER, END, IPXE, LEASE_TIME, MESSAGE_TYPE, OVERLOAD, PAD, RELAY_AGENT,
    ROUTER, SERVER_IDENTIFIER, SUBNET_MASK, VENDOR, VENDOR_CLASS,
};

/// Longest value that one piece of an option can have.
const PIECE_MAX: usize = 255;

/// What a client can do nothing without: not even what a relay added may take their room.
const VITAL: [u8; 4] = [MESSAGE_TYPE, SERVER_IDENTIFIER, LEASE_TIME, SUBNET_MASK];

/// What has the first claim to room, in this order; the rest follows in its own. The client is
/// told who it is by RFC 6842; without its router it reaches no server that is behind a relay, and
/// without what follows it boots nothing.
const FIRST: [u8; 10] = [
    MESSAGE_TYPE,
    SERVER_IDENTIFIER,
    LEASE_TIME,
    SUBNET_MASK,
    ROUTER,
    CLIENT_IDENTIFIER,
    BOOT_FILE,
    VENDOR_CLASS,
    VENDOR,
    IPXE,
];

/// Options in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(Vec<(u8, Vec<u8>)>);

/// An option says that it is longer than what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CutShort(pub(super) u8);

impl Options {
    /// The value of an option.
    #[must_use]
    pub fn get(&self, code: u8) -> Option<&[u8]> {
        let found = self.0.iter().find(|(known, _)| *known == code);
        found.map(|(_, value)| value.as_slice())
    }

    /// An option that is one number of 32 bits.
    #[must_use]
    pub fn number(&self, code: u8) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(code)?.try_into().ok()?))
    }

    /// An option that is one address.
    #[must_use]
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.number(code).map(Ipv4Addr::from)
    }

    /// Adds an option behind the others, or gives it another value where it stands.
    pub fn set(&mut self, code: u8, value: impl Into<Vec<u8>>) {
        if matches!(code, PAD | END | OVERLOAD) {
            return;
        }
        match self.0.iter_mut().find(|(known, _)| *known == code) {
            Some((_, old)) => *old = value.into(),
            None => self.0.push((code, value.into())),
        }
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        self.0.iter().map(|(code, value)| (*code, value.as_slice()))
    }

    /// Takes an option out.
    pub fn remove(&mut self, code: u8) {
        self.0.retain(|(known, _)| *known != code);
    }

    /// Adds the options that are written in `bytes`, up to END or, where a client forgot that, to
    /// the end.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), CutShort> {
        let mut rest = bytes;
        while let Some((&code, behind)) = rest.split_first() {
            rest = behind;
            match code {
                PAD => continue,
                END => break,
                _ => {}
            }
            let (&length, behind) = rest.split_first().ok_or(CutShort(code))?;
            let cut = behind.split_at_checked(length.into());
            let (value, behind) = cut.ok_or(CutShort(code))?;
            self.join(code, value);
            rest = behind;
        }
        Ok(())
    }

    /// RFC 3396, section 7: "the decoding agent MUST concatenate them in the order they appear".
    fn join(&mut self, code: u8, piece: &[u8]) {
        match self.0.iter_mut().find(|(known, _)| *known == code) {
            Some((_, value)) => value.extend_from_slice(piece),
            None => self.0.push((code, piece.to_vec())),
        }
    }

    /// Writes them and END into at most `room` bytes. What does not fit as a whole is left out, and
    /// its codes are returned.
    pub(super) fn write(&self, room: usize, bytes: &mut Vec<u8>) -> Vec<u8> {
        let room = room.saturating_sub(1);
        let relayed = self.get(RELAY_AGENT);
        // RFC 3046, section 2.2: "If a server is unable to copy a full Relay Agent Information
        // field into a response, it SHALL send the response without the Relay Information Field".
        let vital = VITAL.iter().filter_map(|code| self.get(*code));
        let vital: usize = vital.map(written_len).sum();
        let kept = relayed.filter(|value| written_len(value) + vital <= room);
        let mut left_out = self.too_much(room - kept.map_or(0, written_len));
        for (code, value) in self.iter().filter(|(code, _)| *code != RELAY_AGENT) {
            if !left_out.contains(&code) {
                write_one(code, value, bytes);
            }
        }
        // The same place: "Servers SHOULD copy the Relay Agent Information option as the last DHCP
        // option in the response."
        match kept {
            Some(value) => write_one(RELAY_AGENT, value, bytes),
            None => left_out.extend(relayed.map(|_| RELAY_AGENT)),
        }
        // GRUB finds no option in a message without it.
        bytes.push(END);
        left_out
    }

    /// What does not fit, besides what a relay added.
    fn too_much(&self, room: usize) -> Vec<u8> {
        let others = self.iter().filter(|(code, _)| *code != RELAY_AGENT);
        let mut others: Vec<_> = others.collect();
        others.sort_by_key(|(code, _)| {
            let place = FIRST.iter().position(|first| first == code);
            place.unwrap_or(FIRST.len())
        });
        let mut free = room;
        others.retain(|(_, value)| match free.checked_sub(written_len(value)) {
            Some(rest) => {
                free = rest;
                false
            }
            None => true,
        });
        others.into_iter().map(|(code, _)| code).collect()
    }

    /// Forgets which option says how the others are written.
    pub(super) fn take_overload(&mut self) -> Option<u8> {
        let at = self.0.iter().position(|(code, _)| *code == OVERLOAD)?;
        let (_, value) = self.0.remove(at);
        value.first().copied()
    }
}

fn written_len(value: &[u8]) -> usize {
    value.len() + 2 * value.len().div_ceil(PIECE_MAX).max(1)
}

/// RFC 3396, section 6: an option that is longer than 255 bytes is split, in order.
fn write_one(code: u8, value: &[u8], bytes: &mut Vec<u8>) {
    if value.is_empty() {
        bytes.extend([code, 0]);
    }
    for piece in value.chunks(PIECE_MAX) {
        bytes.push(code);
        bytes.push(u8::try_from(piece.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(piece);
    }
}

impl<V: Into<Vec<u8>>> FromIterator<(u8, V)> for Options {
    fn from_iter<T: IntoIterator<Item = (u8, V)>>(options: T) -> Self {
        let mut all = Self::default();
        for (code, value) in options {
            all.set(code, value);
        }
        all
    }
}
