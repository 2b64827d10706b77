//! What happens to an overlay: a list of steps that follows from a seed.

use std::fmt;

use cowherd::units::{BLOCK_SIZE, BlockIndex, ByteRange};

use super::oracle::{AREAS, SIZE};
use super::seeded::Seeded;

/// What the disk holds when a history begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Nothing: the overlay is made.
    Nothing,
    /// A journal that is soon due for a checkpoint, over the remains of an earlier use of its file.
    NearlyFull,
    /// Two live journals, the second one nearly full: the checkpoint between them is owed.
    Owed,
}

/// Work that goes on beside the client's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Flush,
    Checkpoint,
    Punch,
    /// Of those under way, any one.
    Write,
}

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Write {
        range: ByteRange,
        fua: bool,
    },
    /// Begins a write; it goes on with the calls of [`Work::Write`].
    Begin {
        range: ByteRange,
    },
    Zero {
        range: ByteRange,
        reserve: bool,
        fua: bool,
    },
    Trim {
        range: ByteRange,
        fua: bool,
    },
    /// Begins a flush, or joins the next; it ends when its calls have been made.
    Flush,
    /// Trims every second of some blocks that nobody looks at: many changes in one epoch.
    Scatter {
        blocks: u64,
    },
    /// Begins to give back freed space.
    Punch {
        all: bool,
    },
    /// This many calls of some work under way.
    Advance {
        work: Work,
        calls: u64,
    },
    /// All that is under way goes to its end.
    Drain,
    /// The process is killed, and another opens the overlay.
    Kill,
    /// The power fails, and what is left is opened.
    PowerLoss,
    /// The overlay is flushed, closed and opened.
    Reopen,
    /// Another server takes the overlay over.
    HandOver,
}

/// An operation, with a seed for whatever it leaves open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) op: Op,
    pub(crate) seed: u64,
}

/// A beginning and what follows.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) start: Start,
    pub(crate) steps: Vec<Step>,
}

impl History {
    /// The history of this seed.
    pub(crate) fn of_seed(seed: u64) -> Self {
        let mut random = Seeded::new(seed);
        let start = match random.below(8) {
            0 => Start::Nothing,
            1..=6 => Start::NearlyFull,
            _ => Start::Owed,
        };
        let ops = if random.once_in(2) {
            let len = 4 + random.below(24);
            (0..len).map(|_| any_op(&mut random)).collect()
        } else {
            quarrel(&mut random)
        };
        let steps = ops.into_iter().map(|op| Step {
            op,
            seed: random.number(),
        });
        Self {
            start,
            steps: steps.collect(),
        }
    }

    /// The same with more kills, and with servers that take over.
    pub(crate) fn with_hand_overs(mut self) -> Self {
        for step in &mut self.steps {
            step.op = match (step.op, step.seed % 4) {
                (Op::Reopen, _) | (Op::Drain | Op::Kill, 0) => Op::HandOver,
                (Op::Drain | Op::PowerLoss, 1) => Op::Kill,
                (op, _) => op,
            };
        }
        self
    }
}

/// One or two blocks that are written, freed and flushed again and again, while flushes,
/// checkpoints and punches are under way.
fn quarrel(random: &mut Seeded) -> Vec<Op> {
    let (first, end) = AREAS[random.index(2)];
    let first = BlockIndex(first + random.below(end - first - 2));
    let blocks = [1, 1, 2][random.index(3)];
    let all = ByteRange::between(first.start(), BlockIndex(first.0 + blocks).start());
    let mut ops = Vec::new();
    while ops.len() < 12 {
        for op in phrase(random, all) {
            // Now and then one is missing, or does less.
            match op {
                _ if random.once_in(8) => {}
                Op::Write { fua, .. } if random.once_in(4) => ops.push(Op::Write {
                    range: part_of(random, all),
                    fua,
                }),
                Op::Drain if random.once_in(4) => ops.push(advance(random)),
                op => ops.push(op),
            }
        }
    }
    ops
}

fn part_of(random: &mut Seeded, all: ByteRange) -> ByteRange {
    let start = all.start() + random.below(all.len()) / 512 * 512;
    let longest = all.end() - start;
    ByteRange::between(start, start + 1 + random.below(longest))
}

/// Operations that are more likely to meet a mistake in this order than in any other.
fn phrase(random: &mut Seeded, all: ByteRange) -> Vec<Op> {
    let fua = false;
    let (write, trim) = (Op::Write { range: all, fua }, Op::Trim { range: all, fua });
    let punch = Op::Punch { all: true };
    let calls = |work, random: &mut Seeded| Op::Advance {
        work,
        calls: 1 + random.below(3),
    };
    let durable = [write, Op::Flush, Op::Drain];
    let and_then = |rest: &[Op]| [&durable, rest].concat();
    match random.below(9) {
        // Freed, and written again before and while its space is given back.
        0 => and_then(&[trim, Op::Flush, Op::Drain, punch, write, Op::Drain]),
        1 => and_then(&[trim, Op::Flush, Op::Drain, write, punch, Op::Drain]),
        // Freed, and written again while the record of that is on its way.
        2 => {
            let flush = calls(Work::Flush, random);
            and_then(&[trim, punch, Op::Drain, Op::Flush, flush, write])
        }
        // Changed while a flush is on its way, and perhaps a checkpoint after it.
        3 | 4 => {
            let change = if random.once_in(3) { trim } else { write };
            let flush = calls(Work::Flush, random);
            vec![
                write,
                Op::Flush,
                flush,
                change,
                Op::Drain,
                Op::Flush,
                Op::Drain,
            ]
        }
        // Several writes of one block at once, and a flush that must not be for them.
        5 | 6 => {
            let (one, other) = (part_of(random, all), part_of(random, all));
            let (flush, work) = (calls(Work::Flush, random), calls(Work::Write, random));
            vec![
                Op::Begin { range: one },
                Op::Begin { range: other },
                calls(Work::Write, random),
                Op::Flush,
                flush,
                work,
                Op::Flush,
                Op::Drain,
            ]
        }
        // Freed, and being written again when its space is given back.
        7 => {
            let work = calls(Work::Write, random);
            let rest = [trim, Op::Flush, Op::Drain, Op::Begin { range: all }];
            and_then(&[&rest[..], &[work, punch, Op::Drain]].concat())
        }
        _ => vec![
            write_some(random, all),
            zero(random, all),
            [Op::Kill, Op::PowerLoss, Op::Reopen][random.index(3)],
        ],
    }
}

fn any_op(random: &mut Seeded) -> Op {
    let range = any_range(random);
    match random.below(40) {
        0..=7 => write_some(random, range),
        8..=11 => Op::Begin { range },
        12..=14 => zero(random, range),
        15..=17 => trim(random, range),
        18 => trim(random, ByteRange::between(0, SIZE)),
        19..=24 => Op::Flush,
        25 => Op::Scatter {
            blocks: [2, 60, 700][random.index(3)],
        },
        26 | 27 => punch(random),
        28..=33 => advance(random),
        34 | 35 => Op::Drain,
        36 | 37 => Op::Kill,
        38 => Op::PowerLoss,
        _ => Op::Reopen,
    }
}

fn write_some(random: &mut Seeded, range: ByteRange) -> Op {
    let fua = random.once_in(6);
    Op::Write { range, fua }
}

fn zero(random: &mut Seeded, range: ByteRange) -> Op {
    Op::Zero {
        range,
        reserve: random.once_in(3),
        fua: random.once_in(6),
    }
}

fn trim(random: &mut Seeded, range: ByteRange) -> Op {
    let fua = random.once_in(6);
    Op::Trim { range, fua }
}

fn punch(random: &mut Seeded) -> Op {
    Op::Punch {
        all: !random.once_in(4),
    }
}

fn advance(random: &mut Seeded) -> Op {
    let work = [Work::Flush, Work::Write, Work::Checkpoint, Work::Punch];
    Op::Advance {
        work: work[random.index(4)],
        calls: 1 + random.below(4),
    }
}

/// A range in one of the followed areas: of blocks, of sectors, or of bytes.
fn any_range(random: &mut Seeded) -> ByteRange {
    let (first, end) = AREAS[random.index(2)];
    let area = BlockIndex(first).start();
    let bytes = BlockIndex(end).start().min(SIZE) - area;
    let unit = [BLOCK_SIZE, BLOCK_SIZE, 512, 1][random.index(4)];
    let longest = [1, 3, 12, 9000][random.index(4)].min(4 * BLOCK_SIZE / unit);
    let start = random.below(bytes / unit) * unit;
    let len = (1 + random.below(longest)) * unit;
    ByteRange::between(area + start, area + bytes.min(start + len))
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = |range: &ByteRange| {
            format!(
                "{} bytes at {} (block {}+{})",
                range.len(),
                range.start(),
                range.start() / BLOCK_SIZE,
                range.start() % BLOCK_SIZE
            )
        };
        let and_wait = |fua: &bool| if *fua { " with FUA" } else { "" };
        match self {
            Self::Write { range, fua } => write!(f, "write {}{}", span(range), and_wait(fua)),
            Self::Begin { range } => write!(f, "begin to write {}", span(range)),
            Self::Zero {
                range,
                reserve,
                fua,
            } => {
                let how = if *reserve { ", space kept" } else { "" };
                write!(f, "zero {}{how}{}", span(range), and_wait(fua))
            }
            Self::Trim { range, fua } => write!(f, "trim {}{}", span(range), and_wait(fua)),
            Self::Flush => write!(f, "flush"),
            Self::Scatter { blocks } => write!(f, "trim {blocks} scattered blocks"),
            Self::Punch { all } => write!(f, "punch{}", if *all { " all" } else { "" }),
            Self::Advance { work, calls } => write!(f, "{calls} calls of the {work:?}"),
            Self::Drain => write!(f, "let all work end"),
            Self::Kill => write!(f, "kill -9"),
            Self::PowerLoss => write!(f, "power loss"),
            Self::Reopen => write!(f, "flush and reopen"),
            Self::HandOver => write!(f, "hand over"),
        }
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  start: {:?}", self.start)?;
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "  {number:3}: {}", step.op)?;
        }
        Ok(())
    }
}
