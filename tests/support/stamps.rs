//! A writer that stamps every sector it writes, and knows which stamps a sector may have later.
//!
//! A stamp is the number of the write, repeated over the sector: a torn or foreign sector shows at
//! once. Sectors never written hold stamp 0, so the image must be zeros; those that are trimmed or
//! zeroed get it back.

use std::ops::Range;

use super::data::Seeded;
use super::nbd::{Client, Request, command, flag};

pub(crate) const SECTOR: usize = 512;
/// Sectors of a block of the overlay.
const BLOCK: u64 = 8;

/// What the writer knows of its disk.
#[derive(Debug)]
pub(crate) struct Stamps {
    random: Seeded,
    next: u64,
    scatters: usize,
    /// For each sector the stamps it may have, the durable one first.
    allowed: Vec<Vec<u64>>,
    /// Changes sent since the last flush was sent: `(sector, stamp)`.
    unflushed: Vec<(usize, u64)>,
}

impl Stamps {
    /// For a disk of so many sectors, all zeros.
    pub(crate) fn new(seed: u64, sectors: usize) -> Self {
        Self {
            random: Seeded(seed),
            next: 1,
            scatters: 0,
            allowed: vec![vec![0]; sectors],
            unflushed: Vec::new(),
        }
    }

    /// Changes and flushes, each waited for, of a client that has several connections; about one in
    /// `rarity` is a flush.
    pub(crate) fn work(&mut self, clients: &mut [Client], operations: u64, rarity: u64) {
        for _ in 0..operations {
            let client = any_of(&mut self.random, clients);
            if self.random.below(rarity) == 0 {
                client.flush().expect("a flush");
                self.flushed();
            } else {
                let mut change = self.change();
                change.fua = self.random.below(16) == 0;
                client.call(&change.request()).expect("a change");
                if change.fua {
                    self.durable(&change);
                }
            }
        }
    }

    /// Writes into every second of the first blocks, or trims them, in turns, and flushes: many
    /// records at once.
    pub(crate) fn scatter(&mut self, client: &mut Client, blocks: u64) {
        self.scatters += 1;
        let command = [command::TRIM, command::WRITE][self.scatters % 2];
        for block in 0..blocks {
            let sectors = if command == command::TRIM { BLOCK } else { 1 };
            let change = self.change_at(command, 2 * block * BLOCK, sectors);
            client.submit(&change.request()).expect("room to send");
        }
        for _ in 0..blocks {
            client.answer().expect("an answer").1.expect("a change");
        }
        client.flush().expect("a flush");
        self.flushed();
    }

    /// Sends changes and a flush on any of the connections, and takes no answer.
    pub(crate) fn burst(&mut self, clients: &mut [Client], changes: u64) {
        for _ in 0..changes {
            let change = self.change();
            let client = any_of(&mut self.random, clients);
            client.submit(&change.request()).expect("room to send");
        }
        let flush = Request::plain(command::FLUSH, 0, 0);
        let client = any_of(&mut self.random, clients);
        client.submit(&flush).expect("room to send");
    }

    /// What the disk holds after an end without warning: every sector has a stamp it may have. From
    /// now on it has that one only.
    pub(crate) fn check(&mut self, disk: &[u8]) {
        for (number, (sector, allowed)) in disk.chunks(SECTOR).zip(&mut self.allowed).enumerate() {
            let stamp = stamp_of(sector).unwrap_or_else(|| panic!("sector {number} is torn"));
            assert!(
                allowed.contains(&stamp),
                "sector {number} has stamp {stamp}, and only {allowed:?} are allowed"
            );
            *allowed = vec![stamp];
        }
        self.unflushed.clear();
    }

    /// A change of up to 24 sectors at any of them.
    fn change(&mut self) -> Change {
        let sectors = self.allowed.len() as u64;
        let len = 1 + self.random.below(24.min(sectors));
        let first = self.random.below(sectors - len + 1);
        let command = match self.random.below(8) {
            0 => command::TRIM,
            1 => command::WRITE_ZEROES,
            _ => command::WRITE,
        };
        self.change_at(command, first, len)
    }

    fn change_at(&mut self, command: u16, first: u64, len: u64) -> Change {
        let is_write = command == command::WRITE;
        let stamp = if is_write { self.next } else { 0 };
        self.next += 1;
        let sectors = match command {
            // The parts of blocks at its ends are left as they are.
            command::TRIM => first.next_multiple_of(BLOCK)..(first + len) / BLOCK * BLOCK,
            _ => first..first + len,
        };
        for sector in sectors.clone() {
            let sector = usize::try_from(sector).expect("a small disk");
            self.allowed[sector].push(stamp);
            self.unflushed.push((sector, stamp));
        }
        let bytes = usize::try_from(len).expect("few sectors") * SECTOR;
        Change {
            command,
            at: first * SECTOR as u64,
            len: u32::try_from(bytes).expect("few sectors"),
            payload: stamp
                .to_be_bytes()
                .repeat(if is_write { bytes / 8 } else { 0 }),
            fua: false,
            keep_space: command == command::WRITE_ZEROES && self.random.below(2) == 0,
            sectors,
        }
    }

    /// A flush was acknowledged: the last stamp sent for each sector is durable.
    fn flushed(&mut self) {
        for (sector, _) in std::mem::take(&mut self.unflushed) {
            self.keep_last(sector);
        }
    }

    fn durable(&mut self, change: &Change) {
        for sector in change.sectors.clone() {
            self.keep_last(usize::try_from(sector).expect("a small disk"));
        }
    }

    fn keep_last(&mut self, sector: usize) {
        let allowed = &mut self.allowed[sector];
        allowed.drain(..allowed.len() - 1);
    }
}

/// One change of the disk.
#[derive(Debug)]
struct Change {
    command: u16,
    at: u64,
    len: u32,
    payload: Vec<u8>,
    fua: bool,
    keep_space: bool,
    /// The sectors that it changes.
    sectors: Range<u64>,
}

impl Change {
    fn request(&self) -> Request<'_> {
        let fua = if self.fua { flag::FUA } else { 0 };
        let no_hole = if self.keep_space { flag::NO_HOLE } else { 0 };
        Request {
            command: self.command,
            flags: fua | no_hole,
            offset: self.at,
            len: self.len,
            payload: &self.payload,
        }
    }
}

fn any_of<'a>(random: &mut Seeded, clients: &'a mut [Client]) -> &'a mut Client {
    let number = random.below(clients.len() as u64);
    &mut clients[usize::try_from(number).expect("few")]
}

fn stamp_of(sector: &[u8]) -> Option<u64> {
    let (stamp, _) = sector.split_first_chunk::<8>()?;
    let same = sector.chunks(8).all(|part| part == stamp);
    same.then_some(u64::from_be_bytes(*stamp))
}
