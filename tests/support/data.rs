//! Bytes to serve and to compare: seeded noise, files, a real btrfs image.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::Tool;

/// A small seeded generator (splitmix64), so that every test can be run again bit by bit.
#[derive(Clone, Debug)]
pub(crate) struct Seeded(pub(crate) u64);

impl Seeded {
    /// The next number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// `len` bytes of noise.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// `len` bytes that depend on `seed` only.
pub(crate) fn pseudo_random(seed: u64, len: usize) -> Vec<u8> {
    Seeded(seed).bytes(len)
}

/// Panics with the first difference, not with megabytes.
#[track_caller]
pub(crate) fn assert_same(actual: &[u8], expected: &[u8], what: &str) {
    assert_eq!(actual.len(), expected.len(), "length of {what}");
    if actual == expected {
        return;
    }
    let at = actual
        .iter()
        .zip(expected)
        .position(|(a, b)| a != b)
        .expect("they differ somewhere");
    let end = (at + 16).min(actual.len());
    let differing = actual.iter().zip(expected).filter(|(a, b)| a != b).count();
    panic!(
        "{what}: {differing} bytes differ, from byte {at} on: {:02x?} instead of {:02x?}",
        &actual[at..end],
        &expected[at..end]
    );
}

/// The whole of a file.
pub(crate) fn read_file(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Makes a file of these bytes.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// What must not change about an image that is being served.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    size: u64,
    crc: u32,
    /// Seconds and nanoseconds of the last modification.
    modified: (i64, i64),
}

impl Fingerprint {
    /// Reads the whole file.
    pub(crate) fn of(path: &Path) -> Self {
        let mut file = File::open(path).expect("the image can be opened");
        let mut crc = crc32fast::Hasher::new();
        let mut piece = vec![0; 1 << 20];
        loop {
            let len = file.read(&mut piece).expect("the image can be read");
            if len == 0 {
                break;
            }
            crc.update(&piece[..len]);
        }
        let facts = file.metadata().expect("an open file has metadata");
        Self {
            size: facts.len(),
            crc: crc.finalize(),
            modified: (facts.mtime(), facts.mtime_nsec()),
        }
    }
}

/// Size of [`btrfs_image`].
const BTRFS_SIZE: u64 = 256 << 20;

/// A btrfs file system with files in it, 256 MiB; needs `mkfs.btrfs`.
///
/// Made once and shared by all tests, which never write to it: that is what they are about.
pub(crate) fn btrfs_image() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let image = folder.join("herd-btrfs-1.img");
    let lock = File::create(folder.join("herd-btrfs.lock")).expect("target/tmp is writable");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .expect("a lock can be waited for");
    if !image.exists() {
        make_btrfs(folder, &image);
    }
    image
}

/// Makes it beside its place and moves it in whole, so that a killed test leaves no half image.
fn make_btrfs(folder: &Path, image: &Path) {
    let files = tempfile::tempdir_in(folder).expect("target/tmp is writable");
    fill_with_files(files.path());
    let half = folder.join("herd-btrfs.half");
    File::create(&half)
        .and_then(|file| file.set_len(BTRFS_SIZE))
        .expect("target/tmp has room");
    Tool::new("mkfs.btrfs")
        .args(["-q", "-f", "-L", "herd", "--rootdir"])
        .arg(files.path())
        .arg(&half)
        .ok();
    fs::rename(&half, image).expect("a rename within one folder");
}

/// Noise, text, many small files, a hole with something behind it.
fn fill_with_files(folder: &Path) {
    write_file(&folder.join("noise"), &pseudo_random(1, 24 << 20));
    let text = "The herd is led home by one cowherd.\n".repeat(60_000);
    write_file(&folder.join("text"), text.as_bytes());
    let small = folder.join("small");
    fs::create_dir(&small).expect("a new folder");
    for number in 0..200_u64 {
        let len = usize::try_from(number * 37).expect("a small number");
        write_file(
            &small.join(format!("file-{number}")),
            &pseudo_random(number, len),
        );
    }
    let sparse = File::create(folder.join("sparse")).expect("a new file");
    sparse
        .write_all_at(&pseudo_random(2, 100_000), 16 << 20)
        .expect("a write behind a hole");
}
