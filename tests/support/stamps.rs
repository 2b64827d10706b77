//! A writer that stamps every sector it writes, and knows which stamps a sector may have later.
//!
//! A stamp is the number of the write, repeated over the sector: a torn or foreign sector shows at
//! once. Sectors never written hold stamp 0, so the image must be zeros.

use super::data::Seeded;
use super::nbd::{Client, Request, command, flag};

pub(crate) const SECTOR: usize = 512;

/// What the writer knows of its disk.
#[derive(Debug)]
pub(crate) struct Stamps {
    random: Seeded,
    next: u64,
    /// For each sector the stamps it may have, the durable one first.
    allowed: Vec<Vec<u64>>,
    /// Writes sent since the last flush was sent: `(sector, stamp)`.
    unflushed: Vec<(usize, u64)>,
}

impl Stamps {
    /// For a disk of so many sectors, all zeros.
    pub(crate) fn new(seed: u64, sectors: usize) -> Self {
        Self {
            random: Seeded(seed),
            next: 1,
            allowed: vec![vec![0]; sectors],
            unflushed: Vec::new(),
        }
    }

    /// Writes and flushes, each waited for; about one in `rarity` is a flush.
    pub(crate) fn work(&mut self, client: &mut Client, operations: u64, rarity: u64) {
        for _ in 0..operations {
            if self.random.below(rarity) == 0 {
                client.flush().expect("a flush");
                self.flushed();
            } else {
                let (at, bytes, fua) = self.write();
                let mut request = Request::write(at, &bytes);
                if fua {
                    request = request.flagged(flag::FUA);
                }
                client.call(&request).expect("a write");
                if fua {
                    self.durable(at, bytes.len());
                }
            }
        }
    }

    /// Sends writes and a flush, and takes no answer.
    pub(crate) fn burst(&mut self, client: &mut Client, writes: u64) {
        for _ in 0..writes {
            let (at, bytes, _) = self.write();
            client
                .submit(&Request::write(at, &bytes))
                .expect("room to send");
        }
        let flush = Request::plain(command::FLUSH, 0, 0);
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

    /// A write of up to 24 sectors at any of them, and whether it is to be durable at once.
    fn write(&mut self) -> (u64, Vec<u8>, bool) {
        let sectors = self.allowed.len() as u64;
        let len = 1 + self.random.below(24.min(sectors));
        let first = self.random.below(sectors - len + 1);
        let stamp = self.next;
        self.next += 1;
        for sector in first..first + len {
            let sector = usize::try_from(sector).expect("a small disk");
            self.allowed[sector].push(stamp);
            self.unflushed.push((sector, stamp));
        }
        let bytes = usize::try_from(len).expect("few sectors") * SECTOR;
        let fua = self.random.below(16) == 0;
        (
            first * SECTOR as u64,
            stamp.to_be_bytes().repeat(bytes / 8),
            fua,
        )
    }

    /// A flush was acknowledged: the last stamp sent for each sector is durable.
    fn flushed(&mut self) {
        for (sector, _) in std::mem::take(&mut self.unflushed) {
            self.keep_last(sector);
        }
    }

    fn durable(&mut self, at: u64, len: usize) {
        let first = usize::try_from(at).expect("a small disk") / SECTOR;
        (first..first + len / SECTOR).for_each(|sector| self.keep_last(sector));
    }

    fn keep_last(&mut self, sector: usize) {
        let allowed = &mut self.allowed[sector];
        allowed.drain(..allowed.len() - 1);
    }
}

fn stamp_of(sector: &[u8]) -> Option<u64> {
    let (stamp, _) = sector.split_first_chunk::<8>()?;
    let same = sector.chunks(8).all(|part| part == stamp);
    same.then_some(u64::from_be_bytes(*stamp))
}
