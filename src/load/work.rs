//! What a client asks for, one request after the other, and when. Pure.
//!
//! Invariants:
//! - Every request lies in the client's area.
//! - The same seed and options give the same requests, in the same order.

use std::time::Duration;

use fastrand::Rng;

use super::trace::Trace;

/// What kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "their names are what they are")]
pub enum Kind {
    Read,
    Write,
    Trim,
    Zero,
    Flush,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Read, Self::Write, Self::Trim, Self::Zero, Self::Flush];

    /// As options and reports call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Trim => "trim",
            Self::Zero => "zero",
            Self::Flush => "flush",
        }
    }

    /// Whether it changes what is read later.
    #[must_use]
    pub const fn is_change(self) -> bool {
        matches!(self, Self::Write | Self::Trim | Self::Zero)
    }
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is wanted.
    pub kind: Kind,
    /// Its first byte; 0 for a flush.
    pub offset: u64,
    /// Its bytes; 0 for a flush.
    pub length: u32,
    /// When it is due, from the start of the run; `None` as soon as there is room.
    pub due: Option<Duration>,
}

/// In what order places are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Anywhere, every place as likely as the others.
    Random,
    /// One place after the other, and again from the start.
    Sequential,
}

/// Bytes of the export that a client keeps to, in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// The first byte.
    pub start: u64,
    /// How many blocks; one at least.
    pub blocks: u64,
    /// Where, in blocks from the start, a sequential client begins.
    pub first: u64,
}

/// How often which kind is asked for, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Kinds and their weights; their sum is not 0.
    pub mix: Vec<(Kind, u32)>,
    /// The order of places.
    pub pattern: Pattern,
    /// Bytes of one request.
    pub block: u32,
    /// A flush behind so many changes.
    pub flush_every: Option<u32>,
    /// From one request to the next, where they come by the clock.
    pub interval: Option<Duration>,
}

/// The requests of one client.
#[derive(Debug)]
pub enum Work {
    /// Made up, without an end.
    Made(Made),
    /// Those of a trace, once.
    Traced(Trace),
}

/// Requests that are made up.
#[derive(Debug)]
pub struct Made {
    shape: Shape,
    area: Area,
    dice: Rng,
    next_block: u64,
    changes: u32,
    due: Option<Duration>,
}

impl Made {
    /// The requests of a client with this seed.
    #[must_use]
    pub fn new(shape: Shape, area: Area, seed: u64) -> Self {
        let mut dice = Rng::with_seed(seed);
        // Clients that go by the clock do not all begin at once.
        let due = shape.interval.map(|interval| interval.mul_f64(dice.f64()));
        Self {
            next_block: area.first % area.blocks.max(1),
            shape,
            area,
            dice,
            changes: 0,
            due,
        }
    }

    fn next(&mut self) -> Request {
        let due = self.due;
        if let (Some(due), Some(interval)) = (&mut self.due, self.shape.interval) {
            *due += interval;
        }
        if self
            .shape
            .flush_every
            .is_some_and(|every| self.changes >= every)
        {
            self.changes = 0;
            return Request {
                kind: Kind::Flush,
                offset: 0,
                length: 0,
                due,
            };
        }
        let kind = self.kind();
        self.changes += u32::from(kind.is_change());
        Request {
            kind,
            offset: self.area.start + self.block() * u64::from(self.shape.block),
            length: self.shape.block,
            due,
        }
    }

    fn kind(&mut self) -> Kind {
        let mix = &self.shape.mix;
        let all: u32 = mix.iter().map(|(_, weight)| weight).sum();
        let mut at = self.dice.u32(0..all.max(1));
        for (kind, weight) in mix {
            if at < *weight {
                return *kind;
            }
            at -= weight;
        }
        Kind::Read
    }

    fn block(&mut self) -> u64 {
        let blocks = self.area.blocks.max(1);
        match self.shape.pattern {
            Pattern::Random => self.dice.u64(0..blocks),
            Pattern::Sequential => {
                let block = self.next_block;
                self.next_block = (block + 1) % blocks;
                block
            }
        }
    }
}

impl Work {
    /// When the next request is due: `Some(None)` at any time, `None` where there is none.
    #[must_use]
    pub fn due(&self) -> Option<Option<Duration>> {
        match self {
            Self::Made(made) => Some(made.due),
            Self::Traced(trace) => trace.due(),
        }
    }

    /// The next request; `None` behind the last one.
    #[allow(
        clippy::should_implement_trait,
        reason = "it is no iterator: see `due`"
    )]
    pub fn next(&mut self) -> Option<Request> {
        match self {
            Self::Made(made) => Some(made.next()),
            Self::Traced(trace) => trace.take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(mix: &[(Kind, u32)], pattern: Pattern) -> Shape {
        Shape {
            mix: mix.to_vec(),
            pattern,
            block: 4096,
            flush_every: None,
            interval: None,
        }
    }

    const AREA: Area = Area {
        start: 1 << 20,
        blocks: 10,
        first: 8,
    };

    fn take(shape: Shape, count: usize) -> Vec<Request> {
        let mut made = Made::new(shape, AREA, 1);
        std::iter::repeat_with(|| made.next()).take(count).collect()
    }

    #[test]
    fn requests_lie_in_their_area() {
        for pattern in [Pattern::Random, Pattern::Sequential] {
            for request in take(shape(&[(Kind::Read, 1)], pattern), 1000) {
                let block = (request.offset - AREA.start) / 4096;
                assert!(block < 10 && request.offset % 4096 == 0, "{request:?}");
            }
        }
    }

    #[test]
    fn a_sequence_begins_where_it_should_and_begins_again() {
        let all = take(shape(&[(Kind::Read, 1)], Pattern::Sequential), 4);
        let blocks: Vec<_> = all
            .iter()
            .map(|request| (request.offset - AREA.start) / 4096)
            .collect();
        assert_eq!(blocks, [8, 9, 0, 1]);
    }

    #[test]
    fn kinds_come_by_their_weights() {
        let all = take(
            shape(&[(Kind::Read, 3), (Kind::Write, 1)], Pattern::Random),
            4000,
        );
        let writes = all.iter().filter(|request| request.kind == Kind::Write);
        let writes = writes.count();
        assert!((900..1100).contains(&writes), "{writes} of 4000");
    }

    #[test]
    fn a_flush_follows_so_many_changes() {
        let shape = Shape {
            flush_every: Some(2),
            ..shape(&[(Kind::Write, 1)], Pattern::Random)
        };
        let kinds: Vec<_> = take(shape, 6).iter().map(|request| request.kind).collect();
        let (write, flush) = (Kind::Write, Kind::Flush);
        assert_eq!(kinds, [write, write, flush, write, write, flush]);
    }

    #[test]
    fn by_the_clock_one_is_due_in_each_interval() {
        let interval = Duration::from_millis(10);
        let shape = Shape {
            interval: Some(interval),
            ..shape(&[(Kind::Read, 1)], Pattern::Random)
        };
        let due: Vec<_> = take(shape, 3).iter().filter_map(|next| next.due).collect();
        assert!(due[0] < interval);
        assert_eq!([due[1] - due[0], due[2] - due[1]], [interval; 2]);
    }
}
