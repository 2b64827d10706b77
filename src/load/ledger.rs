//! What every block has to hold, so that reads can be checked. Pure.
//!
//! Invariants:
//! - A block has one request under way at most, so it is never in doubt what a read has to give.
//! - A block that was not written in this run has to stay as it was first read.
//! - After a write that failed nothing is known of its block.

use std::collections::{HashMap, HashSet};

use super::work::{Kind, Request};

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    /// What was read first, by its checksum.
    Seen(u32),
    /// The bytes of this mark.
    Written(u64),
    /// Zeros.
    Zeros,
}

/// A block that did not hold what it has to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Its first byte on the export.
    pub offset: u64,
    /// Its bytes.
    pub length: u32,
}

/// What is known of the blocks of a client.
#[derive(Debug, Default)]
pub struct Ledger {
    blocks: HashMap<u64, Holds>,
    under_way: HashSet<u64>,
}

impl Ledger {
    /// Takes notice of a request, unless its block has another one under way.
    pub fn begin(&mut self, request: &Request) -> bool {
        request.kind == Kind::Flush || self.under_way.insert(request.offset)
    }

    /// Takes notice of the end of a request; with the data of a read that succeeded.
    ///
    /// # Errors
    /// The read gave something else than it had to.
    pub fn end(
        &mut self,
        request: &Request,
        mark: u64,
        succeeded: bool,
        data: &[u8],
    ) -> Result<(), Wrong> {
        if request.kind == Kind::Flush {
            return Ok(());
        }
        self.under_way.remove(&request.offset);
        let holds = match (request.kind, succeeded) {
            (Kind::Read, true) => return self.check(request, data),
            (Kind::Read | Kind::Flush, _) => return Ok(()),
            (Kind::Write, true) => Holds::Written(mark),
            (Kind::Zero, true) => Holds::Zeros,
            // What is left by a trim, or by a change that failed, is for the server to say.
            (Kind::Trim, _) | (_, false) => {
                self.blocks.remove(&request.offset);
                return Ok(());
            }
        };
        self.blocks.insert(request.offset, holds);
        Ok(())
    }

    fn check(&mut self, request: &Request, data: &[u8]) -> Result<(), Wrong> {
        let seen = || crc32fast::hash(data);
        let holds = *self
            .blocks
            .entry(request.offset)
            .or_insert_with(|| Holds::Seen(seen()));
        let is_right = match holds {
            Holds::Seen(sum) => sum == seen(),
            Holds::Zeros => data.iter().all(|byte| *byte == 0),
            Holds::Written(mark) => is_stamped(data, mark),
        };
        match is_right && data.len() == request.length as usize {
            true => Ok(()),
            false => Err(Wrong {
                offset: request.offset,
                length: request.length,
            }),
        }
    }
}

/// Appends the bytes that a write with this mark writes.
pub fn stamp(out: &mut Vec<u8>, mark: u64, length: u32) {
    let end = out.len() + length as usize;
    let words = words(mark).take((length as usize).div_ceil(8));
    out.extend(words.flat_map(u64::to_le_bytes));
    out.truncate(end);
}

fn is_stamped(data: &[u8], mark: u64) -> bool {
    let right = |(chunk, word): (&[u8], u64)| word.to_le_bytes().starts_with(chunk);
    data.chunks(8).zip(words(mark)).all(right)
}

/// Words without an end that no two marks have in common (splitmix64).
fn words(mark: u64) -> impl Iterator<Item = u64> {
    (1..).map(move |index: u64| {
        let mixed = mark
            .wrapping_mul(0xd6e8_feb8_6659_fd93)
            .wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: Kind) -> Request {
        Request {
            kind,
            offset: 4096,
            length: 100,
            due: None,
        }
    }

    fn stamped(mark: u64) -> Vec<u8> {
        let mut data = Vec::new();
        stamp(&mut data, mark, 100);
        data
    }

    const WRONG: Result<(), Wrong> = Err(Wrong {
        offset: 4096,
        length: 100,
    });

    #[test]
    fn a_read_has_to_give_what_was_written_last() {
        let mut ledger = Ledger::default();
        for mark in [1, 2] {
            assert_eq!(ledger.end(&request(Kind::Write), mark, true, &[]), Ok(()));
        }
        let read = request(Kind::Read);
        assert_eq!(ledger.end(&read, 3, true, &stamped(2)), Ok(()));
        assert_eq!(ledger.end(&read, 4, true, &stamped(1)), WRONG);
        let mut last_byte = stamped(2);
        last_byte[99] ^= 1;
        assert_eq!(ledger.end(&read, 5, true, &last_byte), WRONG);
        assert_eq!(ledger.end(&read, 6, true, &stamped(2)[..96]), WRONG);
    }

    #[test]
    fn what_was_read_first_has_to_stay() {
        let (mut ledger, read) = (Ledger::default(), request(Kind::Read));
        assert_eq!(ledger.end(&read, 1, true, &[7; 100]), Ok(()));
        assert_eq!(ledger.end(&read, 2, true, &[7; 100]), Ok(()));
        assert_eq!(ledger.end(&read, 3, true, &[8; 100]), WRONG);
    }

    #[test]
    fn what_was_zeroed_has_to_be_zeros() {
        let (mut ledger, read) = (Ledger::default(), request(Kind::Read));
        assert_eq!(ledger.end(&request(Kind::Zero), 1, true, &[]), Ok(()));
        assert_eq!(ledger.end(&read, 2, true, &[0; 100]), Ok(()));
        assert_eq!(ledger.end(&read, 3, true, &[1; 100]), WRONG);
    }

    #[test]
    fn after_a_trim_or_a_failure_anything_may_be_read() {
        for (kind, succeeded) in [(Kind::Trim, true), (Kind::Write, false)] {
            let (mut ledger, read) = (Ledger::default(), request(Kind::Read));
            assert_eq!(ledger.end(&request(Kind::Write), 1, true, &[]), Ok(()));
            assert_eq!(ledger.end(&request(kind), 2, succeeded, &[]), Ok(()));
            assert_eq!(ledger.end(&read, 3, true, &[9; 100]), Ok(()));
        }
    }

    #[test]
    fn a_block_has_one_request_under_way() {
        let (mut ledger, write) = (Ledger::default(), request(Kind::Write));
        assert!(ledger.begin(&write) && !ledger.begin(&request(Kind::Read)));
        assert_eq!(ledger.end(&write, 1, true, &[]), Ok(()));
        assert!(ledger.begin(&request(Kind::Read)));
    }
}
