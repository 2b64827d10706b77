//! The transmission phase: a stream of bytes becomes commands, one at a time.
//!
//! Invariants: the machine always knows whether the next byte is of a header or of a payload; the
//! payload of an accepted WRITE is the driver's, that of a rejected one is skipped here; after DISC
//! or a violation nothing more is taken.

pub use super::wire::Cookie;

use super::ExportInfo;
use super::validate::validate;
use super::wire::{Errno, REQUEST_HEADER, RequestHeader, RequestType};
use crate::limits::NBD_PAYLOAD_MAX;
use crate::units::ByteRange;

/// One thing that was read from the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Do this, and reply.
    Command(Cookie, Command),
    /// Reply with this error; nothing is to be done, and what payload there was is gone.
    Reject(Cookie, Errno),
    /// Finish what is begun, and close: "There is no reply to an NBD_CMD_DISC."
    Disconnect,
}

/// A request that passed [`validate`]: its range lies in the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Reply with these bytes.
    Read {
        /// At most [`NBD_PAYLOAD_MAX`] bytes.
        range: ByteRange,
    },
    /// Store the payload, which follows in the stream.
    Write {
        /// Where; as long as the payload.
        range: ByteRange,
        /// Reply only when it is durable.
        fua: bool,
    },
    /// Reply when everything replied to before is durable.
    Flush,
    /// The bytes are no longer needed.
    Trim {
        /// Which; may be far larger than a payload.
        range: ByteRange,
        /// Reply only when it is durable.
        fua: bool,
    },
    /// Make the bytes read as zero.
    WriteZeroes {
        /// Which; may be far larger than a payload.
        range: ByteRange,
        /// Reply only when it is durable.
        fua: bool,
        /// Later writes there must not run out of space.
        no_hole: bool,
        /// Fail with [`Errno::ENOTSUP`] at once unless it is faster than writing; only then may
        /// that error be sent.
        fast: bool,
    },
    /// The bytes will be needed soon.
    Cache {
        /// Which; may be far larger than a payload.
        range: ByteRange,
    },
}

/// What makes the stream unreadable: "Either side MAY initiate a hard disconnect if it detects a
/// violation by the other party of a mandatory condition within this document."
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Where a request should start, something else is.
    #[error("a request does not start with the magic number of requests")]
    RequestMagic,
    /// A write carries more than we are ready to take, or to skip.
    #[error("a write carries {0} bytes, more than the advertised maximum")]
    PayloadTooLarge(u32),
}

/// One connection after its handshake.
#[derive(Debug)]
pub struct Session {
    info: ExportInfo,
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The next byte is the first of a header.
    Header,
    /// The next bytes are the payload of a write the driver was told of.
    Payload { left: u64 },
    /// The next bytes are the payload of a rejected write, and then the rejection is told. Other
    /// rejected requests pass here too, with nothing left to skip.
    Skip { left: u64, rejection: Event },
    /// Nothing more is taken.
    Ended,
}

impl Session {
    /// A session of the export that the handshake ended with.
    #[must_use]
    pub const fn new(info: ExportInfo) -> Self {
        Self {
            info,
            phase: Phase::Header,
        }
    }

    /// Parses at most one request from the front of `input`: how many bytes were used, and what
    /// they say. The driver drops the used bytes and calls again. Without an event, no more can be
    /// done before further bytes have come; a part of a header stays unused until the rest is
    /// there.
    ///
    /// After a [`Command::Write`] the payload must first be reported to [`Session::payload_taken`];
    /// to call this before is a mistake of the driver, and takes nothing. A write that fails must
    /// be replied to after its whole payload was taken, like one that succeeds.
    ///
    /// # Errors
    /// The stream is broken; close the connection.
    pub fn handle_bytes(&mut self, input: &[u8]) -> Result<(usize, Option<Event>), Violation> {
        debug_assert!(self.payload_left() == 0, "the payload comes first");
        let mut rest = input;
        let event = match self.read_request(&mut rest)? {
            Some(event) => Some(event),
            None => self.skip(&mut rest),
        };
        Ok((input.len() - rest.len(), event))
    }

    /// Reports that the driver took `bytes` of a write's payload from the stream.
    pub fn payload_taken(&mut self, bytes: u64) {
        let left = self.payload_left();
        debug_assert!(bytes <= left, "more was taken than the write has");
        if let Phase::Payload { .. } = self.phase {
            self.phase = payload_phase(left.saturating_sub(bytes));
        }
    }

    /// How many of the next bytes of the stream are payload for the driver to take.
    #[must_use]
    pub const fn payload_left(&self) -> u64 {
        match self.phase {
            Phase::Payload { left } => left,
            _ => 0,
        }
    }

    /// Takes a header off the front of `input`, where one starts there and is complete.
    fn read_request(&mut self, input: &mut &[u8]) -> Result<Option<Event>, Violation> {
        let Phase::Header = self.phase else {
            return Ok(None);
        };
        let Some((bytes, rest)) = input.split_first_chunk() else {
            return Ok(None);
        };
        *input = rest;
        let read = self.understand(bytes);
        if read.is_err() {
            self.phase = Phase::Ended;
        }
        read
    }

    /// What the header in `bytes` says; nothing yet where a rejected request has a payload to be
    /// skipped.
    fn understand(&mut self, bytes: &[u8; REQUEST_HEADER]) -> Result<Option<Event>, Violation> {
        let header = RequestHeader::from_bytes(bytes).ok_or(Violation::RequestMagic)?;
        if header.kind == RequestType::DISC {
            self.phase = Phase::Ended;
            return Ok(Some(Event::Disconnect));
        }
        let left = payload_of(&header)?;
        let cookie = header.cookie;
        Ok(match validate(&header, &self.info) {
            Ok(command) => {
                self.phase = payload_phase(left);
                Some(Event::Command(cookie, command))
            }
            Err(errno) => {
                let rejection = Event::Reject(cookie, errno);
                self.phase = Phase::Skip { left, rejection };
                None
            }
        })
    }

    /// Drops what `input` holds of a rejected request's payload; the rejection, once all of it is
    /// gone.
    ///
    /// Not before: libnbd takes a reply to a command that it is still sending for a server's
    /// mistake, and leaves.
    fn skip(&mut self, input: &mut &[u8]) -> Option<Event> {
        let Phase::Skip { left, rejection } = self.phase else {
            return None;
        };
        let dropped = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
        *input = input.split_at(dropped).1;
        let left = left - dropped as u64;
        if left > 0 {
            self.phase = Phase::Skip { left, rejection };
            return None;
        }
        self.phase = Phase::Header;
        Some(rejection)
    }
}

/// How many bytes follow the header. Without extended headers only WRITE has a payload.
fn payload_of(header: &RequestHeader) -> Result<u64, Violation> {
    if header.kind != RequestType::WRITE {
        return Ok(0);
    }
    // "either the server or the client MAY initiate a hard disconnect if the payload of an
    // NBD_CMD_WRITE request [...] would be large enough to be deemed a denial of service attack"
    if header.length > NBD_PAYLOAD_MAX {
        return Err(Violation::PayloadTooLarge(header.length));
    }
    Ok(u64::from(header.length))
}

const fn payload_phase(left: u64) -> Phase {
    if left == 0 {
        Phase::Header
    } else {
        Phase::Payload { left }
    }
}

#[cfg(test)]
mod tests;
