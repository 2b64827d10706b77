//! Pieces of a stream put together, so that it does not matter how the stream is cut.
//!
//! Invariants: no gatherer takes a byte past what it waits for, and none allocates before bytes
//! came.

/// A fixed number of bytes in the making.
#[derive(Debug)]
pub(super) struct FixedBytes<const N: usize> {
    bytes: [u8; N],
    filled: usize,
}

impl<const N: usize> FixedBytes<N> {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; N],
            filled: 0,
        }
    }

    /// Takes what is missing from the front of `input`; the bytes, once they are complete.
    pub(super) fn fill(&mut self, input: &mut &[u8]) -> Option<[u8; N]> {
        let taken = take(input, N - self.filled);
        for (slot, byte) in self.bytes.iter_mut().skip(self.filled).zip(taken) {
            *slot = *byte;
        }
        self.filled += taken.len();
        (self.filled == N).then_some(self.bytes)
    }
}

/// The data of an option in the making. Its length was compared with a limit before.
#[derive(Debug)]
pub(super) struct Payload {
    bytes: Vec<u8>,
    length: usize,
}

impl Payload {
    pub(super) const fn new(length: usize) -> Self {
        Self {
            bytes: Vec::new(),
            length,
        }
    }

    /// Takes what is missing from the front of `input`; the data, once they are complete.
    pub(super) fn fill(&mut self, input: &mut &[u8]) -> Option<Vec<u8>> {
        let taken = take(input, self.length - self.bytes.len());
        self.bytes.extend_from_slice(taken);
        (self.bytes.len() == self.length).then(|| std::mem::take(&mut self.bytes))
    }
}

/// Data that nobody wants, of any length.
#[derive(Debug)]
pub(super) struct Unwanted {
    left: u32,
}

impl Unwanted {
    pub(super) const fn new(length: u32) -> Self {
        Self { left: length }
    }

    /// Drops what it can from the front of `input`; whether all of it is gone.
    pub(super) fn drop_from(&mut self, input: &mut &[u8]) -> bool {
        let longest = usize::try_from(self.left).unwrap_or(usize::MAX);
        let dropped = take(input, longest).len();
        self.left -= u32::try_from(dropped).unwrap_or(self.left);
        self.left == 0
    }
}

/// Cuts at most `longest` bytes off the front of `input`.
fn take<'a>(input: &mut &'a [u8], longest: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(longest.min(input.len()));
    *input = rest;
    taken
}
