//! Disks that a machine has written to, and could have written anything to.
//!
//! Promises: reading a file out of one neither panics nor takes long nor much memory; and a disk
//! that nobody has touched gives the file that is on it.
//!
//! A panic inside of a crate that reads file systems is made an error by the program. The ones for
//! ext4 and btrfs have none that is known, and must not; fatfs has its numbers checked by the
//! compiler only, and may.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use cowherd::boot::inside::{Blocks, InsideError, Whereabouts, read_file};

use super::Input;

const SECTOR: usize = 512;

/// What is on all of them.
const KERNEL: &[u8] = include_bytes!("../images/kernel");

/// File systems as `images/make` made them.
const IMAGES: [&[u8]; 8] = [
    include_bytes!("../images/ext4"),
    include_bytes!("../images/ext2"),
    include_bytes!("../images/btrfs-lzo"),
    include_bytes!("../images/btrfs-zlib"),
    include_bytes!("../images/btrfs-zstd"),
    include_bytes!("../images/fat12"),
    include_bytes!("../images/fat32"),
    include_bytes!("../images/gpt"),
];

/// Which of them are FAT.
const FATS: [usize; 2] = [5, 6];

/// A sparse disk.
#[derive(Clone)]
struct Disk {
    size: u64,
    /// Where a sector is in `bytes`.
    places: Arc<HashMap<u64, usize>>,
    bytes: Vec<u8>,
    /// Places and lengths of what has a checksum of btrfs in front: a superblock, or a node.
    sealed: Arc<Vec<(u64, usize)>>,
}

impl Disk {
    fn read(image: &[u8]) -> Self {
        let (count, sectors) = image.split_first_chunk().unwrap();
        let mut places = HashMap::new();
        let mut bytes = Vec::new();
        for sector in sectors.chunks_exact(4 + SECTOR) {
            let (number, content) = sector.split_first_chunk().unwrap();
            places.insert(u64::from(u32::from_le_bytes(*number)), bytes.len());
            bytes.extend_from_slice(content);
        }
        let mut disk = Self {
            size: u64::from(u32::from_le_bytes(*count)) * SECTOR as u64,
            places: Arc::new(places),
            bytes,
            sealed: Arc::default(),
        };
        disk.sealed = Arc::new(disk.find_sealed());
        disk
    }

    /// What begins with the checksum of what is behind it.
    fn find_sealed(&self) -> Vec<(u64, usize)> {
        let mut found: Vec<_> = self
            .places
            .keys()
            .map(|sector| (sector * SECTOR as u64, 4096))
            .filter(|&(at, length)| {
                let block = self.block(at, length);
                at % 4096 == 0 && block[..4] == crc32c(&block[32..]).to_le_bytes()
            })
            .collect();
        found.sort_unstable();
        found
    }

    fn block(&self, at: u64, length: usize) -> Vec<u8> {
        let mut block = vec![0; length];
        let _ = self.read_at(&mut block, at);
        block
    }

    /// Makes the checksums fit: who writes to the disk can do that too.
    fn seal(&mut self) {
        for (at, length) in Arc::clone(&self.sealed).iter() {
            let sum = crc32c(&self.block(*at, *length)[32..]);
            if let Some(place) = self.places.get(&(at / SECTOR as u64)) {
                self.bytes[*place..place + 4].copy_from_slice(&sum.to_le_bytes());
            }
        }
    }
}

impl Blocks for Disk {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.saturating_add(into.len() as u64) > self.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < into.len() {
            let at = offset + done as u64;
            let within = (at % SECTOR as u64) as usize;
            let count = (SECTOR - within).min(into.len() - done);
            let part = &mut into[done..done + count];
            match self.places.get(&(at / SECTOR as u64)) {
                Some(place) => part.copy_from_slice(&self.bytes[place + within..][..count]),
                None => part.fill(0),
            }
            done += count;
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        self.size
    }
}

/// The checksum of btrfs (Castagnoli).
fn crc32c(bytes: &[u8]) -> u32 {
    static TABLE: OnceLock<[u32; 256]> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        std::array::from_fn(|index| {
            (0..8).fold(index as u32, |sum, _| {
                (sum >> 1) ^ (0x82f6_3b78 * (sum & 1))
            })
        })
    });
    let step = |sum: u32, byte: &u8| (sum >> 8) ^ table[((sum ^ u32::from(*byte)) & 0xff) as usize];
    !bytes.iter().fold(!0, step)
}

fn disks() -> &'static [Disk] {
    static DISKS: OnceLock<Vec<Disk>> = OnceLock::new();
    DISKS.get_or_init(|| IMAGES.map(Disk::read).to_vec())
}

/// Bytes of address space that the process has had at most.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmPeak:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1024
}

/// `image[1] flags[1]`, and then patches: `sector[2] offset[2] length[1]` and so many bytes.
/// Sectors are counted among those that are not zeros.
pub(crate) fn run(data: &[u8]) {
    static BEFORE: OnceLock<u64> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock();
    let before = *BEFORE.get_or_init(peak);
    let mut input = Input(data);
    let disks = disks();
    let kind = usize::from(input.byte()) % disks.len();
    let mut disk = disks[kind].clone();
    let flags = input.byte();
    let is_whole = input.0.is_empty();
    while !input.0.is_empty() {
        let sector = usize::from(u16::from_be_bytes(input.array()));
        let offset = usize::from(u16::from_be_bytes(input.array())) % SECTOR;
        let length = usize::from(input.byte()) % 17;
        let patch = input.bytes(length);
        let at = (sector * SECTOR) % disk.bytes.len() + offset;
        let end = (at + patch.len()).min(disk.bytes.len());
        disk.bytes[at..end].copy_from_slice(&patch[..end - at]);
    }
    if flags & 1 == 0 {
        disk.seal();
    }
    let disk: Arc<dyn Blocks> = Arc::new(disk);
    let place = Whereabouts {
        partition: None,
        subvolume: (flags & 2 != 0).then(|| "main".to_owned()),
    };
    for path in ["vmlinuz", "boot/vmlinuz-6.1", "boot/none"] {
        let begun = Instant::now();
        let read = read_file(&disk, &place, path);
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(20), "{path} took {took:?}");
        match read {
            Ok(bytes) if is_whole => assert!(bytes == KERNEL, "{path}"),
            Err(InsideError::NotFound) if is_whole => assert_eq!(path, "boot/none"),
            Err(error) => {
                assert!(!is_whole, "{path}: {error}");
                let text = error.to_string();
                let may_panic = FATS.contains(&kind);
                assert!(
                    may_panic || !text.contains("did not expect"),
                    "{path}: {text}"
                );
            }
            Ok(_) => {}
        }
    }
    let grown = peak().saturating_sub(before);
    assert!(grown < 2 << 30, "{grown} bytes of memory more");
}
