//! The bytes that came from a socket and were not parsed yet.
//!
//! Invariants: `start <= end <= memory.len()`; the bytes between the two are those received and not
//! yet consumed, in order.

use super::memory::Memory;
use crate::limits;

/// A queue of received bytes in one piece of memory, which is had when the first bytes come: an
/// empty one that only stands in for another costs nothing.
#[derive(Debug, Default)]
pub struct ReceiveBuffer {
    memory: Option<Memory>,
    start: usize,
    end: usize,
}

impl ReceiveBuffer {
    /// An empty buffer of [`limits::RECEIVE_BUFFER`] bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A buffer that starts with `leftover`: bytes that came with the end of the handshake.
    ///
    /// Where they are more than [`limits::RECEIVE_BUFFER`] the buffer is as large as they are.
    #[must_use]
    pub fn with_leftover(leftover: &[u8]) -> Self {
        let mut memory = Memory::zeroed(limits::RECEIVE_BUFFER.max(leftover.len()));
        if let Some(front) = memory.as_mut_slice().get_mut(..leftover.len()) {
            front.copy_from_slice(leftover);
        }
        Self {
            memory: Some(memory),
            start: 0,
            end: leftover.len(),
        }
    }

    /// The bytes received and not yet consumed.
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        let memory = self.memory.as_ref().map_or(&[][..], Memory::as_slice);
        memory.get(self.start..self.end).unwrap_or_default()
    }

    /// Forgets the first `count` bytes, or all where there are fewer.
    pub fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
    }

    /// How many bytes it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.memory
            .as_ref()
            .map_or(limits::RECEIVE_BUFFER, Memory::len)
    }

    /// Whether nothing can be received before something is consumed.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.end - self.start == self.capacity()
    }

    /// Room for what comes next, empty only where the buffer is full.
    pub fn spare(&mut self) -> &mut [u8] {
        self.compact();
        let end = self.end;
        self.memory()
            .as_mut_slice()
            .get_mut(end..)
            .unwrap_or_default()
    }

    fn memory(&mut self) -> &mut Memory {
        self.memory
            .get_or_insert_with(|| Memory::zeroed(limits::RECEIVE_BUFFER))
    }

    /// Takes the first `count` bytes of [`Self::spare`] as received.
    pub fn received(&mut self, count: usize) {
        self.end = self.end.saturating_add(count).min(self.capacity());
    }

    /// Moves what is there to the front once more than half of the memory lies behind its end.
    fn compact(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 && self.end > self.capacity() / 2 {
            let filled = self.start..self.end;
            self.memory().as_mut_slice().copy_within(filled, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn receive(buffer: &mut ReceiveBuffer, bytes: &[u8]) -> usize {
        let spare = buffer.spare();
        let count = bytes.len().min(spare.len());
        spare[..count].copy_from_slice(&bytes[..count]);
        buffer.received(count);
        count
    }

    #[test]
    fn consumed_room_is_used_again() {
        let mut buffer = ReceiveBuffer::new();
        let all = vec![1; buffer.capacity()];
        assert_eq!(receive(&mut buffer, &all), all.len());
        assert!(buffer.is_full() && buffer.spare().is_empty());
        buffer.consume(5);
        assert_eq!(receive(&mut buffer, &[2; 9]), 5);
        assert!(buffer.is_full());
        assert_eq!(buffer.filled()[all.len() - 5..], [2; 5]);
    }

    #[test]
    fn consuming_more_than_there_is_empties_it() {
        let mut buffer = ReceiveBuffer::with_leftover(b"abc");
        buffer.consume(usize::MAX);
        assert_eq!(buffer.filled(), b"");
        assert_eq!(buffer.spare().len(), limits::RECEIVE_BUFFER);
    }

    #[test]
    fn leftover_beyond_the_usual_size_fits() {
        let leftover: Vec<u8> = (0..=255).cycle().take(150_001).collect();
        let mut buffer = ReceiveBuffer::with_leftover(&leftover);
        assert_eq!(buffer.filled(), leftover);
        buffer.consume(150_000);
        assert!(!buffer.spare().is_empty());
        assert_eq!(buffer.filled(), &leftover[150_000..]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Receive(Vec<u8>),
        Consume(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let sizes = prop_oneof![1..100usize, 1..limits::RECEIVE_BUFFER];
        prop_oneof![
            (sizes, any::<u8>()).prop_map(|(len, seed)| {
                Step::Receive((seed..=255).chain(0..seed).cycle().take(len).collect())
            }),
            prop_oneof![0..100usize, 0..limits::RECEIVE_BUFFER + 9].prop_map(Step::Consume),
        ]
    }

    proptest! {
        #[test]
        fn it_acts_like_a_bounded_queue(steps in proptest::collection::vec(step(), 1..60)) {
            let mut buffer = ReceiveBuffer::new();
            let mut oracle = VecDeque::<u8>::new();
            for step in steps {
                match step {
                    Step::Receive(bytes) => {
                        let full = oracle.len() == limits::RECEIVE_BUFFER;
                        let count = receive(&mut buffer, &bytes);
                        prop_assert_eq!(count == 0, full);
                        oracle.extend(&bytes[..count]);
                    }
                    Step::Consume(count) => {
                        buffer.consume(count);
                        oracle.drain(..count.min(oracle.len()));
                    }
                }
                prop_assert!(buffer.filled() == oracle.make_contiguous());
            }
        }
    }
}
