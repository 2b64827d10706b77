//! Images over real files and devices.

use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::Advice;

use super::*;
use crate::limits::WARM_FOR_TICKS;

const MIB: u64 = 1024 * 1024;

/// A file of `len` bytes that are no zeros, on disk and not only in memory.
fn make(path: &Path, len: u64) {
    let bytes: Vec<u8> = (1..=251u8)
        .cycle()
        .take(usize::try_from(len).unwrap())
        .collect();
    std::fs::write(path, bytes).unwrap();
    File::open(path).unwrap().sync_all().unwrap();
}

pub(super) fn with_image(len: u64) -> (tempfile::TempDir, Image) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    make(&path, len);
    let image = Image::open(&path).unwrap();
    (dir, image)
}

fn open_error(name: &str, prepare: impl FnOnce(&Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    prepare(&path);
    let message = Image::open(&path).unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

/// Drops the file's pages from memory; `false` (said aloud) where its file system keeps them there.
pub(super) fn chill(image: &Image) -> bool {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    if rustix::fs::fstatfs(&**image.file()).unwrap().f_type == TMPFS_MAGIC {
        println!("SKIPPED: files on tmpfs are never out of memory");
        return false;
    }
    // The kernel keeps a page that somebody looks at just then.
    let deadline = Instant::now() + Duration::from_secs(10);
    while is_partly_resident(image) {
        assert!(Instant::now() < deadline, "it stays in memory");
        rustix::fs::fadvise(&**image.file(), 0, None, Advice::DontNeed).unwrap();
    }
    true
}

fn is_partly_resident(image: &Image) -> bool {
    let mapping = image.mapping().unwrap();
    let mut pages = ByteRange::between(0, image.size()).chunks(4096);
    pages.any(|page| mapping.resident(page).unwrap())
}

#[test]
fn an_image_is_named_after_its_file() {
    let (_dir, image) = with_image(5000);
    assert_eq!(image.name().as_str(), "disk");
    assert_eq!(image.size(), 5000);
}

#[test]
fn only_one_extension_is_dropped() {
    for (file, name) in [
        ("arch", "arch"),
        ("arch.tar.img", "arch.tar"),
        ("a-1.raw", "a-1"),
    ] {
        assert_eq!(Image::name_of(Path::new(file)).unwrap().as_str(), name);
    }
}

#[test]
fn a_file_that_can_not_name_an_image_says_what_to_rename() {
    for file in ["2024.img", "my disk.img", ".img", "é.img"] {
        let message = open_error(file, |path| make(path, 1));
        assert!(message.contains("rename the file"), "{message}");
    }
}

#[test]
fn what_is_no_image_is_refused_in_one_line() {
    assert!(open_error("no", |_| ()).contains("no such file"));
    let directory = open_error("dir", |path| std::fs::create_dir(path).unwrap());
    assert!(directory.contains("is a directory"));
    let empty = open_error("empty", |path| make(path, 0));
    assert!(empty.contains("is empty"));
    let null = open_error("null", |path| symlink("/dev/null", path).unwrap());
    assert!(null.contains("neither a file nor a block device"));
    let circle = open_error("loop", |path| symlink(path, path).unwrap());
    assert!(circle.contains("can't be opened"));
}

#[test]
fn an_unreadable_image_is_told_from_a_missing_one() {
    let error = io::Error::from(io::ErrorKind::PermissionDenied);
    let message = ImageError::opening(Path::new("x.img"), error).to_string();
    assert!(message.contains("no permission"));
}

#[test]
fn a_touched_image_has_another_identity_of_the_same_content() {
    let (_dir, image) = with_image(MIB);
    let recorded = image.identity().clone();
    let file = File::options().write(true).open(image.path()).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    let touched = Image::open(image.path()).unwrap();
    let difference = touched.identity().compare(&recorded).unwrap_err();
    assert!(matches!(difference, Difference::Modified { is: 0, .. }));
}

#[test]
fn the_advised_touch_brings_the_identity_back() {
    let (_dir, image) = with_image(MIB);
    let recorded = image.identity().clone();
    let touch = |time: &str| {
        let mut touch = Command::new("touch");
        touch.args(["-d", time]).arg(image.path());
        assert!(touch.status().unwrap().success());
        Image::open(image.path()).unwrap().identity().clone()
    };
    let moved = touch("@1000000000.5");
    let advice = moved.compare(&recorded).unwrap_err().touch().unwrap();
    assert_eq!(touch(&advice), recorded);
}

/// Overlays on disk were made under this sample: it must never change.
#[test]
fn the_sample_of_a_known_image_never_changes() {
    let (_dir, image) = with_image(32 * MIB + 100);
    assert_eq!(image.identity().sample_crc, 0xd7e2_b6e4);
}

#[test]
fn another_content_is_another_identity() {
    let (dir, image) = with_image(6 * MIB);
    let other = dir.path().join("other.img");
    let mut bytes = std::fs::read(image.path()).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&other, bytes).unwrap();
    let other = Image::open(&other).unwrap();
    let difference = other.identity().compare(image.identity());
    assert_eq!(difference, Err(Difference::Content));
}

#[test]
fn reads_give_the_file_and_zeros_past_its_end() {
    let (_dir, image) = with_image(5000);
    let mut buf = [1u8; 8192];
    image.read(&mut buf, 0).unwrap();
    assert_eq!(buf[..5000], std::fs::read(image.path()).unwrap());
    assert!(buf[5000..].iter().all(|&b| b == 0));
    let mut cached = [1u8; 8192];
    assert!(image.read_cached(&mut cached, 0).unwrap());
    assert_eq!(cached, buf);
}

#[test]
fn a_cold_read_is_told_and_not_waited_for() {
    let (_dir, image) = with_image(32 * MIB);
    if !chill(&image) {
        return;
    }
    let mut buf = [0u8; 4096];
    assert!(!image.read_cached(&mut buf, 20 * MIB + 4096).unwrap());
    image.read(&mut buf, 20 * MIB + 4096).unwrap();
    assert!(image.read_cached(&mut buf, 20 * MIB + 4096).unwrap());
}

#[test]
fn a_range_is_warm_once_it_was_read() {
    let (_dir, image) = with_image(32 * MIB);
    let range = ByteRange::new(20 * MIB + 100, 300_000).unwrap();
    if chill(&image) {
        assert!(!image.warm(range));
    }
    image.read(&mut vec![0; 300_000], range.start()).unwrap();
    assert!(image.warm(range));
}

#[test]
fn a_warm_mark_is_believed_until_it_expires() {
    let (_dir, image) = with_image(32 * MIB);
    let granule = ByteRange::new(20 * MIB, crate::limits::WARM_GRANULE).unwrap();
    let mut buf = vec![0; granule.len_usize()];
    image.read(&mut buf, granule.start()).unwrap();
    assert!(image.warm(granule));
    if !chill(&image) {
        return;
    }
    assert!(image.warm(granule), "no system call as long as it is fresh");
    (0..WARM_FOR_TICKS).for_each(|_| image.warmth.advance());
    assert!(!image.warm(granule));
}

#[test]
fn no_mark_is_believed_while_the_mapping_is_doubted() {
    let (_dir, image) = with_image(32 * MIB);
    let granule = ByteRange::new(20 * MIB, crate::limits::WARM_GRANULE).unwrap();
    image
        .read(&mut vec![0; granule.len_usize()], granule.start())
        .unwrap();
    assert!(image.warm(granule));
    if !chill(&image) {
        return;
    }
    image.mapping().unwrap().doubt(2);
    assert!(!image.warm(granule));
    (0..2).for_each(|_| image.tick());
    assert!(image.warm(granule), "the doubt has faded before the mark");
}

#[test]
fn nothing_is_warm_past_the_end() {
    let (_dir, image) = with_image(5000);
    assert!(image.warm(ByteRange::between(0, 5000)));
    assert!(!image.warm(ByteRange::between(0, 5001)));
}

#[test]
fn nothing_is_warm_where_the_kernel_would_lie() {
    let (_dir, mut image) = with_image(5000);
    image.warmth = Warmth::new(5000, false);
    assert!(!image.warm(ByteRange::between(0, 5000)));
}

#[test]
fn the_owner_is_told_the_truth_about_pages() {
    let (_dir, image) = with_image(5000);
    assert!(image.file.tells_residency());
}

#[test]
fn a_foreign_read_only_file_would_be_lied_about() {
    let foreign = Path::new("/proc/version");
    if rustix::process::geteuid().is_root() {
        println!("SKIPPED: to root the kernel tells the truth about every file");
        return;
    }
    assert!(!ImageFile::open(foreign).unwrap().tells_residency());
}

/// A loop device that goes away with the test.
struct Loop(String);

impl Loop {
    fn over(file: &Path) -> Option<Self> {
        let mut losetup = Command::new("losetup");
        losetup.args(["--find", "--show"]).arg(file);
        let made = losetup.output().ok().filter(|made| made.status.success())?;
        Some(Self(String::from_utf8(made.stdout).unwrap().trim().into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn a_block_device_is_served_like_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let backing = dir.path().join("backing");
    make(&backing, 3 * MIB + 512);
    let Some(device) = Loop::over(&backing) else {
        println!("SKIPPED: no loop device to be had (needs root and losetup)");
        return;
    };
    let image = Image::open(Path::new(&device.0)).unwrap();
    assert_eq!(image.size(), 3 * MIB + 512);
    assert_eq!(image.identity().mtime_ns, 0);
    let mut buf = [0u8; 4096];
    image.read(&mut buf, 3 * MIB).unwrap();
    assert_eq!(buf[..512], std::fs::read(&backing).unwrap()[3 << 20..]);
    assert!(image.warm(ByteRange::between(0, 4096)));
    assert_eq!(image.verify_now(), Ok(()));
}
