//! Partitions of a disk: those of a GPT, or the primary and the logical ones of an MBR.
//!
//! Invariant: a slice lies inside of its disk, whatever a table says.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::Blocks;
use crate::limits::PARTITIONS_MAX;

/// A part of a disk, or all of it.
#[derive(Clone)]
pub(super) struct Slice {
    disk: Arc<dyn Blocks>,
    start: u64,
    size: u64,
}

impl Slice {
    pub(super) fn whole(disk: Arc<dyn Blocks>) -> Self {
        let size = disk.size();
        Self {
            disk,
            start: 0,
            size,
        }
    }

    /// The part at `start`, as far as it lies on the disk.
    fn part(&self, start: u64, size: u64) -> Option<Self> {
        let size = size.min(self.size.checked_sub(start)?);
        (size > 0).then(|| Self {
            disk: Arc::clone(&self.disk),
            start: self.start + start,
            size,
        })
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn fill(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(into.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.disk.read_at(into, self.start + offset)
    }
}

/// Bytes of a sector that tables count in, unless a GPT begins at another.
const SECTORS: [u64; 2] = [512, 4096];

/// The partitions with their numbers, in order.
pub(super) fn find(disk: &Slice) -> io::Result<Vec<(u32, Slice)>> {
    for sector in SECTORS {
        if let Some(found) = gpt(disk, sector)? {
            return Ok(found);
        }
    }
    mbr(disk)
}

/// UEFI 2.10, section 5.3.2: the header is in the second sector, and says where the table is.
fn gpt(disk: &Slice, sector: u64) -> io::Result<Option<Vec<(u32, Slice)>>> {
    let mut header = [0; 92];
    match disk.fill(&mut header, sector) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    if !header.starts_with(b"EFI PART") {
        return Ok(None);
    }
    let (table, count, length) = (
        u64_at(&header, 72),
        u32_at(&header, 80),
        u32_at(&header, 84),
    );
    if !(128..=4096).contains(&length) {
        return Err(io::Error::other("the partition table is damaged"));
    }
    let mut found = Vec::new();
    for index in 0..count.min(PARTITIONS_MAX) {
        let mut entry = [0; 128];
        let at = u64::from(index) * u64::from(length);
        let Some(at) = table
            .checked_mul(sector)
            .and_then(|table| table.checked_add(at))
        else {
            break;
        };
        disk.fill(&mut entry, at)?;
        found.extend(gpt_entry(disk, &entry, sector).map(|slice| (index + 1, slice)));
    }
    Ok(Some(found))
}

fn gpt_entry(disk: &Slice, entry: &[u8; 128], sector: u64) -> Option<Slice> {
    // Table 5.6: a type of zeros is an unused entry; the last sector belongs to the partition.
    let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
    let sectors = last.checked_sub(first)?.checked_add(1)?;
    let is_used = entry.iter().take(16).any(|byte| *byte != 0);
    let part = disk.part(first.checked_mul(sector)?, sectors.checked_mul(sector)?)?;
    is_used.then_some(part)
}

/// An entry of a table in a sector: of an MBR, or of those that an extended partition has.
struct Entry {
    kind: u8,
    first: u64,
    count: u64,
}

impl Entry {
    fn is_used(&self) -> bool {
        self.kind != 0 && self.count > 0
    }

    /// It holds logical partitions, by the three types that Linux takes for that.
    fn is_extended(&self) -> bool {
        self.is_used() && [0x05, 0x0f, 0x85].contains(&self.kind)
    }

    /// `base` is the sector from which it counts.
    fn slice(&self, disk: &Slice, base: u64) -> Option<Slice> {
        disk.part((base + self.first) * 512, self.count * 512)
    }
}

/// The four entries of the first sector, and what is in one that is extended.
fn mbr(disk: &Slice) -> io::Result<Vec<(u32, Slice)>> {
    let mut found = Vec::new();
    let mut extended = None;
    for (number, entry) in (1..).zip(table_at(disk, 0)?) {
        match entry.is_extended() {
            true => extended = extended.or(Some(entry.first)),
            false if entry.is_used() => {
                found.extend(entry.slice(disk, 0).map(|slice| (number, slice)));
            }
            false => {}
        }
    }
    if let Some(start) = extended {
        found.extend(logical(disk, start)?);
    }
    Ok(found)
}

/// The logical partitions of the extended one at the sector `start`: each has a table of its own,
/// with where it lies, and where the next table does. Linux numbers them from 5.
fn logical(disk: &Slice, start: u64) -> io::Result<Vec<(u32, Slice)>> {
    let mut found = Vec::new();
    let mut number = 5;
    let mut at = start;
    // A table that leads back to one before leads round for as long as it is followed.
    for _ in 0..PARTITIONS_MAX {
        // What is behind these two is garbage on some disks.
        let table: Vec<_> = table_at(disk, at)?.into_iter().take(2).collect();
        for entry in table.iter().filter(|entry| entry.is_used()) {
            if !entry.is_extended() {
                found.extend(entry.slice(disk, at).map(|slice| (number, slice)));
                number += 1;
            }
        }
        match table.iter().find(|entry| entry.is_extended()) {
            Some(next) => at = start + next.first,
            None => break,
        }
    }
    Ok(found)
}

/// The entries of the table in a sector; none where that has no table.
fn table_at(disk: &Slice, at: u64) -> io::Result<Vec<Entry>> {
    let mut sector = [0; 512];
    match disk.fill(&mut sector, at * 512) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Vec::new()),
        read => read?,
    }
    if sector.get(510..) != Some(&[0x55, 0xaa]) {
        return Ok(Vec::new());
    }
    let entries = (446..510).step_by(16).filter_map(|at| {
        Some(Entry {
            kind: *sector.get(at + 4)?,
            first: u32_at(&sector, at + 8).into(),
            count: u32_at(&sector, at + 12).into(),
        })
    });
    Ok(entries.collect())
}

/// The number at `at`; 0 past the end, where no caller reads.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let found = bytes
        .get(at..at + 8)
        .and_then(|bytes| bytes.try_into().ok());
    found.map_or(0, u64::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let found = bytes
        .get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok());
    found.map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bytes(Vec<u8>);

    impl Blocks for Bytes {
        fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
            let start = usize::try_from(offset).unwrap();
            into.copy_from_slice(&self.0[start..start + into.len()]);
            Ok(())
        }

        fn size(&self) -> u64 {
            self.0.len() as u64
        }
    }

    /// Type, first sector, and how many there are.
    type Entry = (u8, u32, u32);

    /// A disk of 64 sectors with tables in these sectors.
    fn disk(tables: &[(usize, &[Entry])]) -> Slice {
        let mut bytes = vec![0; 64 * 512];
        for (sector, entries) in tables {
            let table = &mut bytes[sector * 512..][..512];
            table[510..].copy_from_slice(&[0x55, 0xaa]);
            for (index, (kind, first, count)) in entries.iter().enumerate() {
                let entry = &mut table[446 + 16 * index..][..16];
                entry[4] = *kind;
                entry[8..12].copy_from_slice(&first.to_le_bytes());
                entry[12..].copy_from_slice(&count.to_le_bytes());
            }
        }
        Slice::whole(Arc::new(Bytes(bytes)))
    }

    /// Number, first sector and sectors of what is found.
    fn found(disk: &Slice) -> Vec<(u32, u64, u64)> {
        let found = find(disk).unwrap().into_iter();
        let told = found.map(|(number, slice)| (number, slice.start / 512, slice.size / 512));
        told.collect()
    }

    #[test]
    fn a_table_that_leads_back_to_itself_is_left() {
        let round = (0x05, 0, 32);
        let disk = disk(&[
            (0, &[(0x83, 1, 7), (0x05, 8, 32)]),
            (8, &[(0x83, 1, 4), round]),
        ]);
        let found = found(&disk);
        assert_eq!(found[..2], [(1, 1, 7), (5, 9, 4)]);
        assert_eq!(found.len(), 1 + PARTITIONS_MAX as usize);
    }

    #[test]
    fn what_lies_behind_the_end_of_the_disk_is_left_out() {
        let far = (0x83, u32::MAX, u32::MAX);
        let tables: [(usize, &[_]); 2] = [
            (0, &[far, (0x0f, 8, u32::MAX)]),
            (8, &[(0x83, 8, u32::MAX), (0x05, u32::MAX, u32::MAX)]),
        ];
        assert_eq!(found(&disk(&tables)), [(5, 16, 48)]);
    }
}
