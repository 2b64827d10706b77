//! The bytes of the lease file: a chain of frames, each with one record.
//!
//! ```text
//! frame:   magic[4] length[2] last[1] kind[1] sequence[8] batch[8] previous[4] payload crc[4]
//! start:   kind 1, the boot id[16] of the host whose moments the records have
//! record:  kind 2, address[4] mac[6] state[1] until[8] length[8] key's kind[1] key
//! ```
//!
//! Numbers are big-endian; `length` is that of the payload, `crc` the CRC-32 of all before it in
//! the frame, `previous` the `crc` of the frame before.
//!
//! Invariants:
//! - The frames that are written and synced together are one batch; only the last of them says so.
//!   A batch is written once the one before is durable.
//! - So behind a frame that does not validate there may be frames of the same batch: a write that
//!   was cut by a power failure, of which nobody was told. But a frame of a later batch means that
//!   the medium lost what it had acknowledged.
//! - Moments mean nothing under another boot id. Leases then count as given just now, for as long
//!   as they were given: never shorter than promised.

#![deny(clippy::indexing_slicing)]

use std::net::Ipv4Addr;

use thiserror::Error;

use super::{Key, Record, Saved};
use crate::dhcp::moment::Moment;
use crate::mac::MacAddress;

const MAGIC: [u8; 4] = *b"CWL1";
/// Bytes before the payload.
const HEAD: usize = 28;
/// Bytes of the checksum.
const TAIL: usize = 4;
const START: u8 = 1;
const RECORD: u8 = 2;

/// Which boot of the host it is, as the kernel says.
pub type BootId = [u8; 16];

/// The end of a lease file: what the next batch continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    sequence: u64,
    batch: u64,
    crc: u32,
}

/// What a lease file held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Its records, in order, with moments of the present boot.
    pub records: Vec<Record>,
    /// How many bytes at the end were cut off: the last write was not finished.
    pub torn: usize,
}

/// Why a lease file is not to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Damaged {
    /// It does not begin like one.
    #[error("it does not begin like a lease file")]
    Start,
    /// The frame at this byte is broken, and good ones that are newer come later.
    #[error("the record at byte {0} is damaged, and there are newer ones behind it")]
    Middle(usize),
    /// The frame at this byte is whole, but does not follow the one before.
    #[error("the record at byte {0} does not belong there")]
    Order(usize),
    /// The frame at this byte is whole, but says what no record says.
    #[error("the record at byte {0} says what this version does not understand")]
    Content(usize),
}

/// A new file with these records, and its end. It replaces the old one as a whole.
#[must_use]
pub fn start(boot: &BootId, records: impl IntoIterator<Item = Record>) -> (Vec<u8>, Chain) {
    let mut chain = Chain {
        sequence: 0,
        batch: 0,
        crc: 0,
    };
    let mut bytes = Vec::new();
    let mut records = records.into_iter().peekable();
    let alone = records.peek().is_none();
    chain.frame(START, alone, boot, &mut bytes);
    while let Some(record) = records.next() {
        let last = records.peek().is_none();
        chain.frame(RECORD, last, &payload(&record), &mut bytes);
    }
    chain.batch += 1;
    (bytes, chain)
}

impl Chain {
    /// The bytes of one batch, to be appended and synced before the next.
    #[must_use]
    pub fn append(&mut self, records: &[Record]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let Some((last, before)) = records.split_last() else {
            return bytes;
        };
        for record in before {
            self.frame(RECORD, false, &payload(record), &mut bytes);
        }
        self.frame(RECORD, true, &payload(last), &mut bytes);
        self.batch += 1;
        bytes
    }

    fn frame(&mut self, kind: u8, last: bool, payload: &[u8], out: &mut Vec<u8>) {
        let mut frame = Vec::with_capacity(HEAD + payload.len() + TAIL);
        frame.extend(MAGIC);
        frame.extend(
            u16::try_from(payload.len())
                .unwrap_or(u16::MAX)
                .to_be_bytes(),
        );
        frame.extend([u8::from(last), kind]);
        frame.extend(self.sequence.to_be_bytes());
        frame.extend(self.batch.to_be_bytes());
        frame.extend(self.crc.to_be_bytes());
        frame.extend_from_slice(payload);
        self.crc = crc32fast::hash(&frame);
        self.sequence += 1;
        out.extend_from_slice(&frame);
        out.extend(self.crc.to_be_bytes());
    }
}

/// Reads a lease file under the boot `boot`, at the moment `now`.
///
/// # Errors
/// It is damaged: what it says must not be gone by, since an address might be given twice.
pub fn read(bytes: &[u8], boot: &BootId, now: Moment) -> Result<Recovered, Damaged> {
    let (start, mut rest) = Frame::split(bytes).ok_or(Damaged::Start)?;
    let written = BootId::try_from(start.payload).map_err(|_| Damaged::Start)?;
    if start.kind != START || start.sequence != 0 {
        return Err(Damaged::Start);
    }
    let is_same = written == *boot;
    let mut before = start;
    let mut records = Vec::new();
    while let Some((frame, behind)) = Frame::split(rest) {
        let at = bytes.len() - rest.len();
        if !frame.follows(&before) {
            return Err(Damaged::Order(at));
        }
        let record = frame.record().ok_or(Damaged::Content(at))?;
        records.push(record.under(is_same, now));
        (before, rest) = (frame, behind);
    }
    match has_later(rest, before.next_batch()) {
        true => Err(Damaged::Middle(bytes.len() - rest.len())),
        false => Ok(Recovered {
            records,
            torn: rest.len(),
        }),
    }
}

/// Whether there is a whole frame of a later batch than `batch` anywhere.
fn has_later(bytes: &[u8], batch: u64) -> bool {
    let starts = bytes.windows(MAGIC.len()).enumerate();
    let mut starts = starts.filter(|(_, window)| *window == MAGIC);
    starts.any(|(at, _)| {
        let found = bytes.get(at..).and_then(Frame::split);
        found.is_some_and(|(frame, _)| frame.batch > batch)
    })
}

/// A frame that validates.
struct Frame<'a> {
    last: bool,
    kind: u8,
    sequence: u64,
    batch: u64,
    previous: u32,
    crc: u32,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut at = Reader(bytes);
        (at.take()? == MAGIC).then_some(())?;
        let length = usize::from(u16::from_be_bytes(at.take()?));
        let [last, kind] = at.take()?;
        let mut frame = Self {
            last: last == 1,
            kind,
            sequence: u64::from_be_bytes(at.take()?),
            batch: u64::from_be_bytes(at.take()?),
            previous: u32::from_be_bytes(at.take()?),
            crc: 0,
            payload: &[],
        };
        (frame.payload, at.0) = at.0.split_at_checked(length)?;
        let checked = bytes.get(..HEAD + length)?;
        frame.crc = u32::from_be_bytes(at.take()?);
        (frame.crc == crc32fast::hash(checked)).then_some((frame, at.0))
    }

    const fn next_batch(&self) -> u64 {
        if self.last {
            self.batch + 1
        } else {
            self.batch
        }
    }

    fn follows(&self, before: &Self) -> bool {
        self.sequence == before.sequence + 1
            && self.previous == before.crc
            && self.batch == before.next_batch()
    }

    fn record(&self) -> Option<Record> {
        let mut at = Reader(self.payload);
        let address = Ipv4Addr::from(at.take::<4>()?);
        let mac = MacAddress(at.take()?);
        let state = match at.take()? {
            [1] => Saved::Leased,
            [2] => Saved::Ended,
            [3] => Saved::Declined,
            _ => return None,
        };
        let until = Moment(u64::from_be_bytes(at.take()?));
        let length = u64::from_be_bytes(at.take()?);
        let key = match at.take()? {
            [1] => Key::Mac(MacAddress(at.0.try_into().ok()?)),
            [2] => Key::Client(at.0.into()),
            [3] => Key::Uuid(at.0.try_into().ok()?),
            _ => return None,
        };
        (self.kind == RECORD).then_some(Record {
            address,
            key,
            mac,
            state,
            until,
            length,
        })
    }
}

fn payload(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend(record.address.octets());
    bytes.extend(record.mac.0);
    bytes.push(match record.state {
        Saved::Leased => 1,
        Saved::Ended => 2,
        Saved::Declined => 3,
    });
    bytes.extend(record.until.0.to_be_bytes());
    bytes.extend(record.length.to_be_bytes());
    match &record.key {
        Key::Mac(mac) => bytes.extend([&[1], mac.0.as_slice()].concat()),
        Key::Client(identifier) => bytes.extend([&[2], &**identifier].concat()),
        Key::Uuid(uuid) => bytes.extend([&[3], uuid.as_slice()].concat()),
    }
    bytes
}

impl Record {
    /// The record in moments of the present boot.
    fn under(mut self, is_same_boot: bool, now: Moment) -> Self {
        let whole = Moment(now.0.saturating_add(self.length));
        self.until = match (is_same_boot, self.state) {
            // A clock that went back after all must not make it longer than it was.
            (true, Saved::Leased | Saved::Declined) => self.until.min(whole),
            (true, Saved::Ended) => self.until.min(now),
            (false, Saved::Leased | Saved::Declined) => whole,
            (false, Saved::Ended) => Moment(0),
        };
        self
    }
}

/// Fields of fixed size, one after the other.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }
}
