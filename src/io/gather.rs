//! What a session sends, from many places of memory, in order and without a copy.
//!
//! Invariants:
//! - Every segment owns, or shares, the memory it names; none is empty, and none leaves its memory.
//! - `front_sent` is less than the length of the first segment, and `len` is what is still unsent.
//! - `iovecs` and `message` point at the segments only from [`Gather::prepare`] to the next change;
//!   whoever hands them to the kernel owns the whole gather meanwhile. They live on the heap, so
//!   that they stay in place when the gather is moved into an operation.
//! - Mapped bytes are never dereferenced (see [`ImageMapping`]).

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use thiserror::Error;

use super::buffer::Buffer;
use crate::disk::ImageMapping;
use crate::limits;
use crate::units::ByteRange;

/// A range that leaves the memory it should name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("bytes {start} to {end} leave the memory they should come from")]
pub struct OutOfRange {
    /// The first byte asked for.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
}

/// Bytes that may not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("bytes of a mapping are for the kernel only")]
pub struct Mapped;

/// An ordered queue of bytes to send.
#[derive(Debug, Default)]
pub struct Gather {
    segments: VecDeque<Segment>,
    /// Bytes of the first segment that are out already.
    front_sent: u64,
    len: u64,
    iovecs: Vec<libc::iovec>,
    /// None or one; a `Vec` for its fixed place on the heap.
    message: Vec<libc::msghdr>,
    /// What the message has of images.
    images: Images,
}

/// What a message has of images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Images {
    #[default]
    None,
    /// Bytes of images, all unchanged as far as is known.
    Good,
    /// Bytes of an image that has changed.
    Disowned,
}

impl Gather {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes still to be sent.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends the header of a reply.
    pub fn push_header(&mut self, header: [u8; 16]) {
        self.push(Segment::Header(header));
    }

    /// Appends bytes that nobody else has.
    pub fn push_bytes(&mut self, bytes: Vec<u8>) {
        self.push(Segment::Owned(bytes));
    }

    /// Appends bytes of an image, by address; the kernel reads them when they are sent.
    ///
    /// # Errors
    /// [`OutOfRange`] where `range` leaves the mapping.
    pub fn push_mapped(
        &mut self,
        mapping: Arc<ImageMapping>,
        range: ByteRange,
    ) -> Result<(), OutOfRange> {
        let address = mapping.address(range).ok_or_else(|| OutOfRange {
            start: range.start(),
            end: range.end(),
        })?;
        self.push(Segment::Memory {
            address,
            len: range.len(),
            owner: Owner::Mapping(mapping, range.start()),
        });
        Ok(())
    }

    /// Appends a range of a buffer, which goes back to its pool once it is sent.
    ///
    /// The caller must have filled the range: the rest of a buffer may hold another client's bytes.
    ///
    /// # Errors
    /// [`OutOfRange`] where `range` leaves the buffer.
    pub fn push_buffer(
        &mut self,
        buffer: impl Into<Rc<Buffer>>,
        range: Range<usize>,
    ) -> Result<(), OutOfRange> {
        let buffer = buffer.into();
        let bytes = buffer.as_slice().get(range.clone()).ok_or(OutOfRange {
            start: range.start as u64,
            end: range.end as u64,
        })?;
        self.push(Segment::Memory {
            address: bytes.as_ptr(),
            len: bytes.len() as u64,
            owner: Owner::Buffer(buffer),
        });
        Ok(())
    }

    /// Moves the first bytes, at most `most`, to the end of `into`.
    ///
    /// # Errors
    /// [`Mapped`] where the next bytes are of a mapping, which is for the kernel only.
    pub fn take_bytes(&mut self, most: usize, into: &mut Vec<u8>) -> Result<(), Mapped> {
        let mut left = most as u64;
        while left > 0 {
            let Some(front) = self.segments.front() else {
                break;
            };
            let count = (front.len() - self.front_sent).min(left);
            front.copy(self.front_sent, count, into)?;
            left -= count;
            self.advance(count);
        }
        Ok(())
    }

    /// Appends `len` zero bytes.
    pub fn push_zeros(&mut self, len: u64) {
        self.push(Segment::Zeros(len));
    }

    /// Forgets the first `count` bytes, or all where there are fewer.
    pub fn advance(&mut self, count: u64) {
        let mut left = count.min(self.len);
        self.len -= left;
        while let Some(front) = self.segments.front() {
            let rest = front.len() - self.front_sent;
            if left < rest {
                self.front_sent += left;
                return;
            }
            left -= rest;
            self.front_sent = 0;
            self.segments.pop_front();
        }
    }

    fn push(&mut self, segment: Segment) {
        let len = segment.len();
        if len > 0 {
            self.len = self.len.saturating_add(len);
            self.segments.push_back(segment);
        }
    }

    /// Makes a message of what comes first, and says how many bytes it has.
    pub(super) fn prepare(&mut self) -> u64 {
        let batch = self.list_batch();
        // SAFETY: a msghdr is made of pointers and integers, for which zero is a valid value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.iovecs.as_mut_ptr();
        message.msg_iovlen = self.iovecs.len() as _;
        self.message.clear();
        self.message.push(message);
        batch
    }

    /// What the message that [`Self::prepare`] made has of images, as of now.
    pub(super) fn images(&self) -> Images {
        self.images
    }

    /// The message that [`Self::prepare`] made; null where it made none.
    pub(super) fn message(&self) -> *const libc::msghdr {
        self.message.first().map_or(std::ptr::null(), |first| first)
    }

    /// The parts of images in the message that [`Self::prepare`] made.
    pub(super) fn image_parts(&self) -> impl Iterator<Item = (&Arc<ImageMapping>, ByteRange)> {
        let mut left = self
            .iovecs
            .iter()
            .map(|piece| piece.iov_len as u64)
            .sum::<u64>();
        let mut skip = self.front_sent;
        self.segments
            .iter()
            .map_while(move |segment| {
                let len = (segment.len() - skip).min(left);
                let part = segment.image_part(skip, len);
                (left, skip) = (left - len, 0);
                (len > 0).then_some(part)
            })
            .flatten()
    }

    /// Fills `iovecs` up to the limits of one call.
    fn list_batch(&mut self) -> u64 {
        self.iovecs.clear();
        self.images = Images::None;
        let mut batch = 0;
        let mut at = self.front_sent;
        for segment in &self.segments {
            self.images = self.images.max(segment.images());
            while at < segment.len() {
                let room = limits::GATHER_BYTES_MAX - batch;
                if room == 0 || self.iovecs.len() == limits::GATHER_SEGMENTS_MAX {
                    return batch;
                }
                let piece = segment.piece(at, room);
                at += piece.iov_len as u64;
                batch += piece.iov_len as u64;
                self.iovecs.push(piece);
            }
            at = 0;
        }
        batch
    }
}

#[derive(Debug)]
enum Segment {
    Header([u8; 16]),
    Owned(Vec<u8>),
    Memory {
        address: *const u8,
        len: u64,
        owner: Owner,
    },
    Zeros(u64),
}

/// What keeps the memory of a segment alive.
#[derive(Debug)]
enum Owner {
    /// And where in it the segment starts.
    Mapping(Arc<ImageMapping>, u64),
    Buffer(Rc<Buffer>),
}

impl Segment {
    fn len(&self) -> u64 {
        match self {
            Self::Header(bytes) => bytes.len() as u64,
            Self::Owned(bytes) => bytes.len() as u64,
            Self::Memory { len, .. } | Self::Zeros(len) => *len,
        }
    }

    /// Appends `count` bytes from byte `at` on, which lie inside, to `into`.
    fn copy(&self, at: u64, count: u64, into: &mut Vec<u8>) -> Result<(), Mapped> {
        let (at, count) = (bytes_of(at), bytes_of(count));
        let part = at..at.saturating_add(count);
        match self {
            Self::Zeros(_) => into.resize(into.len() + count, 0),
            Self::Header(bytes) => into.extend_from_slice(bytes.get(part).unwrap_or_default()),
            Self::Memory {
                owner: Owner::Mapping(..),
                ..
            } => return Err(Mapped),
            Self::Owned(bytes) => into.extend_from_slice(bytes.get(part).unwrap_or_default()),
            Self::Memory {
                address,
                owner: Owner::Buffer(buffer),
                ..
            } => {
                let whole = buffer.as_slice();
                let start = address.addr() - whole.as_ptr().addr();
                let part = start + part.start..start + part.end;
                into.extend_from_slice(whole.get(part).unwrap_or_default());
            }
        }
        Ok(())
    }

    fn images(&self) -> Images {
        match self {
            Self::Memory {
                owner: Owner::Mapping(mapping, _),
                ..
            } if mapping.is_disowned() => Images::Disowned,
            Self::Memory {
                owner: Owner::Mapping(..),
                ..
            } => Images::Good,
            _ => Images::None,
        }
    }

    /// `len` bytes from byte `at` on as a part of an image, if they are that.
    fn image_part(&self, at: u64, len: u64) -> Option<(&Arc<ImageMapping>, ByteRange)> {
        let Self::Memory {
            owner: Owner::Mapping(mapping, start),
            ..
        } = self
        else {
            return None;
        };
        Some((mapping, ByteRange::new(start + at, len)?))
    }

    /// The memory from byte `at`, which lies inside, for at most `most` bytes.
    fn piece(&self, at: u64, most: u64) -> libc::iovec {
        let rest = (self.len() - at).min(most);
        let (start, len) = match self {
            Self::Header(bytes) => (bytes.as_ptr().wrapping_add(bytes_of(at)), rest),
            Self::Owned(bytes) => (bytes.as_ptr().wrapping_add(bytes_of(at)), rest),
            Self::Memory { address, .. } => (address.wrapping_add(bytes_of(at)), rest),
            Self::Zeros(_) => (ZEROS.0.as_ptr(), rest.min(ZEROS.0.len() as u64)),
        };
        libc::iovec {
            iov_base: start.cast_mut().cast(),
            iov_len: bytes_of(len),
        }
    }
}

/// A count of bytes of memory, for pointers; `usize` has 64 bits where cowherd runs.
fn bytes_of(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[repr(align(4096))]
struct ZeroPage([u8; 64 * 1024]);

static ZEROS: ZeroPage = ZeroPage([0; 64 * 1024]);

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::io::Pool;

    fn mapping(bytes: &[u8]) -> Arc<ImageMapping> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Arc::new(ImageMapping::new(&file, bytes.len()).unwrap())
    }

    /// The lengths of the pieces of the next message.
    fn pieces(gather: &mut Gather) -> Vec<usize> {
        gather.prepare();
        gather.iovecs.iter().map(|piece| piece.iov_len).collect()
    }

    #[test]
    fn a_range_outside_the_mapping_is_refused() {
        let mut gather = Gather::new();
        let refused = gather.push_mapped(mapping(&[1; 100]), ByteRange::between(50, 101));
        assert_eq!(
            refused,
            Err(OutOfRange {
                start: 50,
                end: 101
            })
        );
        assert!(gather.is_empty());
    }

    #[test]
    fn a_range_outside_the_buffer_is_refused() {
        let mut gather = Gather::new();
        let buffer = Pool::new().take(100).unwrap();
        assert!(gather.push_buffer(buffer, 0..101).is_err());
        assert!(gather.is_empty());
    }

    #[test]
    fn empty_segments_are_left_out() {
        let mut gather = Gather::new();
        let buffer = Pool::new().take(100).unwrap();
        gather.push_buffer(buffer, 7..7).unwrap();
        gather.push_zeros(0);
        gather
            .push_mapped(mapping(&[1; 9]), ByteRange::between(9, 9))
            .unwrap();
        assert!(gather.is_empty() && gather.segments.is_empty());
    }

    #[test]
    fn zeros_repeat_one_page() {
        let mut gather = Gather::new();
        gather.push_zeros(150_000);
        assert_eq!(pieces(&mut gather), [65_536, 65_536, 18_928]);
        assert_eq!(gather.iovecs[0].iov_base, gather.iovecs[1].iov_base);
    }

    #[test]
    fn a_message_has_at_most_the_segments_the_kernel_takes() {
        let mut gather = Gather::new();
        (0..3000).for_each(|_| gather.push_header([7; 16]));
        assert_eq!(gather.prepare(), 16 * 1024);
        assert_eq!(gather.iovecs.len(), limits::GATHER_SEGMENTS_MAX);
    }

    #[test]
    fn a_message_has_at_most_the_bytes_of_one_turn() {
        let mut gather = Gather::new();
        gather.push_header([0; 16]);
        gather.push_zeros(2 * limits::GATHER_BYTES_MAX);
        assert_eq!(gather.prepare(), limits::GATHER_BYTES_MAX);
    }

    #[test]
    fn progress_goes_on_inside_a_segment() {
        let mut gather = Gather::new();
        gather.push_header([1; 16]);
        gather
            .push_mapped(mapping(&[2; 1000]), ByteRange::between(0, 1000))
            .unwrap();
        gather.push_zeros(100);
        assert_eq!(pieces(&mut gather), [16, 1000, 100]);
        gather.advance(10);
        assert_eq!(pieces(&mut gather), [6, 1000, 100]);
        gather.advance(7);
        assert_eq!(pieces(&mut gather), [999, 100]);
        gather.advance(999);
        assert_eq!(gather.len_bytes(), 100);
        gather.advance(1000);
        assert!(gather.is_empty());
        assert_eq!(pieces(&mut gather), [] as [usize; 0]);
    }

    #[test]
    fn a_sent_buffer_goes_back_to_its_pool() {
        let pool = Pool::new();
        let mut gather = Gather::new();
        let buffer = Rc::new(pool.take(4096).unwrap());
        gather.push_buffer(buffer.clone(), 0..2048).unwrap();
        gather.push_buffer(buffer, 2048..4096).unwrap();
        gather.advance(4095);
        assert_eq!(pool.idle_bytes(), 0);
        gather.advance(1);
        assert_eq!(pool.idle_bytes(), 4096);
    }

    #[test]
    fn bytes_are_taken_out_in_order_and_in_pieces() {
        let mut gather = Gather::new();
        let pool = Pool::new();
        let mut buffer = pool.take(100).unwrap();
        buffer.as_mut_slice().fill(2);
        gather.push_header([1; 16]);
        gather.push_buffer(buffer, 10..30).unwrap();
        gather.push_zeros(5);
        gather.push_bytes(vec![3; 4]);
        let mut taken = Vec::new();
        while !gather.is_empty() {
            gather.take_bytes(7, &mut taken).unwrap();
        }
        assert_eq!(taken, [&[1; 16][..], &[2; 20], &[0; 5], &[3; 4]].concat());
    }

    #[test]
    fn bytes_of_a_mapping_are_not_taken_out() {
        let mut gather = Gather::new();
        gather.push_header([1; 16]);
        gather
            .push_mapped(mapping(&[2; 100]), ByteRange::between(0, 100))
            .unwrap();
        let mut taken = Vec::new();
        assert_eq!(gather.take_bytes(17, &mut taken), Err(Mapped));
        assert_eq!((taken.len(), gather.len_bytes()), (16, 100));
    }
}
