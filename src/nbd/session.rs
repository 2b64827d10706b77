//! The transmission phase: a stream of bytes becomes commands, one at a time.
//!
//! Invariants: the machine always knows whether the next byte is of a header or of a payload; the
//! payload of an accepted WRITE is the driver's, that of a BLOCK_STATUS is read here, and that of
//! anything rejected is skipped; after DISC or a violation nothing more is taken.

pub use super::validate::Rejection;
pub use super::wire::Cookie;

use super::ExportInfo;
use super::agreed::{Agreed, Contexts, Headers};
use super::validate::{Rules, STATUS_PAYLOAD_MAX, block_status_of, validate};
use super::wire::{CommandFlags, RequestHeader, RequestType};
use crate::limits::NBD_PAYLOAD_MAX;
use crate::units::ByteRange;

/// One thing that was read from the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Do this, and reply.
    Command(Cookie, Command),
    /// Reply with this error; nothing is to be done, and what payload there was is gone.
    Reject(Cookie, Rejection),
    /// Finish what is begun, and close: "There is no reply to an NBD_CMD_DISC."
    Disconnect,
}

/// A request that is allowed: its range lies in the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Reply with these bytes.
    Read {
        /// At most [`NBD_PAYLOAD_MAX`] bytes.
        range: ByteRange,
        /// In one chunk, if replies come in chunks.
        in_one: bool,
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
    /// Reply with one chunk for each context. Replies come in chunks, then.
    BlockStatus {
        /// Of these bytes, of which there is at least one; may be far larger than a payload.
        range: ByteRange,
        /// At least one.
        contexts: Contexts,
        /// Each chunk holds one extent only, which ends in `range`.
        only_one: bool,
    },
}

/// What makes the stream unreadable: "Either side MAY initiate a hard disconnect if it detects a
/// violation by the other party of a mandatory condition within this document."
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Where a request should start, something else is.
    #[error("a request does not start with the magic number of requests")]
    RequestMagic,
    /// A request carries more than we are ready to take, or to skip.
    #[error("a request carries {0} bytes, more than the advertised maximum")]
    PayloadTooLarge(u64),
}

/// One connection after its handshake.
#[derive(Debug)]
pub struct Session {
    rules: Rules,
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The next byte is the first of a header.
    Header,
    /// The next bytes are the payload of a write the driver was told of.
    Payload { left: u64 },
    /// The next bytes are the payload of a rejected request, and then the rejection is told. Those
    /// without a payload pass here too, with nothing left to skip.
    Skip { left: u64, rejection: Event },
    /// The next bytes are the payload of a BLOCK_STATUS, which is known to be short.
    Status(StatusRequest),
    /// Nothing more is taken.
    Ended,
}

/// A BLOCK_STATUS whose payload comes.
#[derive(Clone, Copy, Debug)]
struct StatusRequest {
    header: RequestHeader,
    payload: [u8; STATUS_PAYLOAD_MAX],
    length: usize,
    filled: usize,
}

impl StatusRequest {
    /// The request of `header`; `None` where its payload can't be one that we take: too long for
    /// all contexts once, or none to begin with.
    fn begin(header: RequestHeader, agreed: Agreed) -> Option<Self> {
        let has_payload = header.kind == RequestType::BLOCK_STATUS
            && header.flags.contains(CommandFlags::PAYLOAD_LEN)
            && agreed.has_status_payload();
        let length = usize::try_from(header.length).ok()?;
        (has_payload && length <= STATUS_PAYLOAD_MAX).then_some(Self {
            header,
            payload: [0; STATUS_PAYLOAD_MAX],
            length,
            filled: 0,
        })
    }

    /// Takes what is missing from the front of `input`; the payload, once it is complete.
    fn fill(&mut self, input: &mut &[u8]) -> Option<&[u8]> {
        let missing = self.length - self.filled;
        let (taken, rest) = input.split_at(missing.min(input.len()));
        *input = rest;
        for (slot, byte) in self.payload.iter_mut().skip(self.filled).zip(taken) {
            *slot = *byte;
        }
        self.filled += taken.len();
        let payload = self.payload.get(..self.length)?;
        (self.filled == self.length).then_some(payload)
    }
}

impl Session {
    /// A session of the export that the handshake ended with.
    #[must_use]
    pub const fn new(info: ExportInfo, agreed: Agreed) -> Self {
        Self {
            rules: Rules { info, agreed },
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
            None => self.read_payload(&mut rest),
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

    /// Whether the next byte is the first of a request: a session of the same export can go on from
    /// here.
    #[must_use]
    pub const fn is_between_requests(&self) -> bool {
        matches!(self.phase, Phase::Header)
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
        let Some(header) = self.take_header(input) else {
            return Ok(None);
        };
        let read = header.ok_or(Violation::RequestMagic);
        let read = read.and_then(|header| self.understand(&header));
        if read.is_err() {
            self.phase = Phase::Ended;
        }
        read
    }

    /// The header at the front of `input`, if all of it is there; none in it where it starts with
    /// another magic number than what was agreed on: "the client MUST use the 32-byte extended
    /// request header".
    fn take_header(&self, input: &mut &[u8]) -> Option<Option<RequestHeader>> {
        let header = if self.rules.agreed.headers == Headers::Extended {
            let (bytes, rest) = input.split_first_chunk()?;
            *input = rest;
            RequestHeader::from_extended(bytes)
        } else {
            let (bytes, rest) = input.split_first_chunk()?;
            *input = rest;
            RequestHeader::from_bytes(bytes)
        };
        Some(header)
    }

    /// What a header says; nothing yet where it depends on a payload, or one must be skipped.
    fn understand(&mut self, header: &RequestHeader) -> Result<Option<Event>, Violation> {
        if header.kind == RequestType::DISC {
            self.phase = Phase::Ended;
            return Ok(Some(Event::Disconnect));
        }
        let left = payload_of(header, self.rules.agreed)?;
        if let Some(request) = StatusRequest::begin(*header, self.rules.agreed) {
            self.phase = Phase::Status(request);
            return Ok(None);
        }
        let cookie = header.cookie();
        Ok(match validate(header, &self.rules) {
            Ok(command) => {
                self.phase = payload_phase(left);
                Some(Event::Command(cookie, command))
            }
            Err(rejection) => {
                let rejection = Event::Reject(cookie, rejection);
                self.phase = Phase::Skip { left, rejection };
                None
            }
        })
    }

    fn read_payload(&mut self, input: &mut &[u8]) -> Option<Event> {
        match self.phase {
            Phase::Status(_) => self.read_status(input),
            _ => self.skip(input),
        }
    }

    /// What a BLOCK_STATUS asks for, once its whole payload is there.
    fn read_status(&mut self, input: &mut &[u8]) -> Option<Event> {
        let Phase::Status(request) = &mut self.phase else {
            return None;
        };
        let header = request.header;
        let payload = request.fill(input)?;
        let event = match block_status_of(&header, payload, &self.rules) {
            Ok(command) => Event::Command(header.cookie(), command),
            Err(rejection) => Event::Reject(header.cookie(), rejection),
        };
        self.phase = Phase::Header;
        Some(event)
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

/// How many bytes follow the header.
fn payload_of(header: &RequestHeader, agreed: Agreed) -> Result<u64, Violation> {
    let has_payload = match agreed.headers {
        // "the only command where *length* represents payload length instead of effect length is
        // NBD_CMD_WRITE"
        Headers::Simple | Headers::Structured => header.kind == RequestType::WRITE,
        // "the meaning of the *length* field depends on whether *flags* contains
        // NBD_CMD_FLAG_PAYLOAD_LEN", and "NBD_CMD_WRITE MUST use the flag". But qemu (seen in
        // 10.0.2) leaves it out, and sends the payload all the same.
        Headers::Extended => {
            header.kind == RequestType::WRITE || header.flags.contains(CommandFlags::PAYLOAD_LEN)
        }
    };
    if !has_payload {
        return Ok(0);
    }
    // "either the server or the client MAY initiate a hard disconnect if the payload of an
    // NBD_CMD_WRITE request [...] would be large enough to be deemed a denial of service attack";
    // "A server SHOULD initiate hard disconnect if a client sets the NBD_CMD_FLAG_PAYLOAD_LEN flag
    // and uses a *length* larger than a server's advertised or default maximum payload length"; "in
    // all other cases, a server SHOULD gracefully consume *length* bytes of payload".
    if header.length > u64::from(NBD_PAYLOAD_MAX) {
        return Err(Violation::PayloadTooLarge(header.length));
    }
    Ok(header.length)
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
