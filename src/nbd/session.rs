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
    /// Reply with this error; nothing is to be done.
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
    /// The next bytes are the payload of a rejected write.
    Skip { left: u64 },
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
    /// to call this before is a mistake of the driver, and takes nothing.
    ///
    /// # Errors
    /// The stream is broken; close the connection.
    pub fn handle_bytes(&mut self, input: &[u8]) -> Result<(usize, Option<Event>), Violation> {
        debug_assert!(self.payload_left() == 0, "the payload comes first");
        let skipped = self.skip(input);
        if !matches!(self.phase, Phase::Header) {
            return Ok((skipped, None));
        }
        let header = input
            .get(skipped..)
            .and_then(<[u8]>::first_chunk::<REQUEST_HEADER>);
        let Some(header) = header else {
            return Ok((skipped, None));
        };
        match self.read_header(header) {
            Ok(event) => Ok((skipped + REQUEST_HEADER, Some(event))),
            Err(violation) => {
                self.phase = Phase::Ended;
                Err(violation)
            }
        }
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

    /// Skips what `input` holds of a rejected write's payload; how many bytes that was.
    fn skip(&mut self, input: &[u8]) -> usize {
        let Phase::Skip { left } = self.phase else {
            return 0;
        };
        let skipped = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
        self.phase = skip_phase(left - skipped as u64);
        skipped
    }

    fn read_header(&mut self, bytes: &[u8; REQUEST_HEADER]) -> Result<Event, Violation> {
        let header = RequestHeader::from_bytes(bytes).ok_or(Violation::RequestMagic)?;
        if header.kind == RequestType::DISC {
            self.phase = Phase::Ended;
            return Ok(Event::Disconnect);
        }
        let payload = payload_of(&header)?;
        Ok(match validate(&header, &self.info) {
            Ok(command) => {
                self.phase = payload_phase(payload);
                Event::Command(header.cookie, command)
            }
            Err(errno) => {
                self.phase = skip_phase(payload);
                Event::Reject(header.cookie, errno)
            }
        })
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

const fn skip_phase(left: u64) -> Phase {
    if left == 0 {
        Phase::Header
    } else {
        Phase::Skip { left }
    }
}

#[cfg(test)]
mod tests;
