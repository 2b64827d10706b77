//! Partitions of a disk: GPT, or MBR with its primary ones.
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

/// The four entries of the first sector. Logical partitions inside of extended ones are not looked
/// for.
fn mbr(disk: &Slice) -> io::Result<Vec<(u32, Slice)>> {
    let mut sector = [0; 512];
    match disk.fill(&mut sector, 0) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Vec::new()),
        read => read?,
    }
    if sector.get(510..) != Some(&[0x55, 0xaa]) {
        return Ok(Vec::new());
    }
    let entries = (0..4).filter_map(|index| {
        let at = 446 + 16 * index;
        let kind = *sector.get(at + 4)?;
        let (first, count) = (u32_at(&sector, at + 8), u32_at(&sector, at + 12));
        let part = disk.part(u64::from(first) * 512, u64::from(count) * 512)?;
        (kind != 0).then_some((u32::try_from(index + 1).ok()?, part))
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
