//! Files read out of the file systems of disks, as a mount shows them.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cowherd::boot::inside::{Blocks, InsideError, Whereabouts, read_file};
use support::{Mount, Tool, assert_same, is_root, make_file_system, pseudo_random, require};
use tempfile::TempDir;

/// A disk image as a file.
struct Image(fs::File);

impl Image {
    fn open(path: &Path) -> Arc<dyn Blocks> {
        Arc::new(Self(fs::File::open(path).expect("an image")))
    }
}

impl Blocks for Image {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }

    fn size(&self) -> u64 {
        self.0.metadata().expect("a size").len()
    }
}

const EXT4: &[&str] = &["mkfs.ext4", "-q"];
const BTRFS: &[&str] = &["mkfs.btrfs", "-q"];

/// Half of it can be compressed, as in a kernel with its padding.
fn kernel() -> Vec<u8> {
    let mut bytes = pseudo_random(1, 9_000_001);
    for piece in bytes.chunks_mut(8192) {
        let half = piece.len() / 2;
        piece[..half].fill(7);
    }
    bytes
}

/// A file system with what a root has in /boot; none where it can't be mounted here.
struct Root {
    home: TempDir,
    image: PathBuf,
}

impl Root {
    fn new(tool: &[&str], prepare: impl Fn(&Path)) -> Option<Self> {
        if !require(&["mount", tool[0]]) {
            return None;
        }
        if !is_root() {
            support::skipped("root, to mount");
            return None;
        }
        let home = tempfile::tempdir().expect("a folder");
        let image = home.path().join("root.img");
        make_file_system(tool, &image, 200);
        let root = Self { home, image };
        root.change(|at| {
            prepare(at);
            fill(&at.join("boot"));
        })?;
        Some(root)
    }

    /// Mounts it for a while.
    fn change(&self, change: impl FnOnce(&Path)) -> Option<()> {
        let mount = Mount::new(&self.image, &self.home.path().join("mnt"))?;
        change(&mount.at);
        Some(())
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, InsideError> {
        read_file(&Image::open(&self.image), &Whereabouts::default(), path)
    }

    /// Compares every file of the tree with what a mount shows.
    fn is_as_mounted(&self) {
        let mount = Mount::new(&self.image, &self.home.path().join("mnt")).expect("a mount");
        let mut count = 0;
        for name in NAMES {
            let shown = fs::read(mount.at.join("boot").join(name)).expect("a file");
            let seen = self.read(&format!("boot/{name}")).expect("it can be read");
            assert_same(&seen, &shown, name);
            count += 1;
        }
        assert_eq!(count, NAMES.len());
    }
}

const NAMES: [&str; 8] = [
    "vmlinuz", "empty", "one", "page", "holes", "small", "link", "far",
];

fn fill(boot: &Path) {
    fs::create_dir_all(boot.join("deep/er")).expect("folders");
    let write = |name: &str, bytes: &[u8]| fs::write(boot.join(name), bytes).expect("room");
    write("vmlinuz", &kernel());
    write("empty", &[]);
    write("one", &[1]);
    write("page", &pseudo_random(2, 4096));
    write("small", &pseudo_random(3, 1500));
    let holes = fs::File::create(boot.join("holes")).expect("room");
    holes.set_len(3 << 20).expect("a hole");
    holes
        .write_all_at(b"in the middle", 1_234_567)
        .expect("room");
    symlink("vmlinuz", boot.join("link")).expect("a link");
    symlink("deep/er/../../link", boot.join("far")).expect("a link");
    symlink("/boot/vmlinuz", boot.join("absolute")).expect("a link");
    symlink("../../../../../boot/one", boot.join("upwards")).expect("a link");
    symlink("../..", boot.join("deep/er/base")).expect("a link");
    symlink("deep/er/base/small", boot.join("through")).expect("a link");
    symlink("/etc/hostname", boot.join("elsewhere")).expect("a link");
    symlink("round", boot.join("round")).expect("a link");
}

/// Has files in `at` compressed.
fn compressed(at: &Path, how: &str) {
    Tool::new("btrfs")
        .args(["property", "set"])
        .arg(at)
        .args(["compression", how])
        .ok();
}

#[test]
fn a_btrfs_whose_machine_lost_its_power_is_read_as_of_its_last_commit() {
    let Some(root) = Root::new(BTRFS, |_| {}) else {
        return;
    };
    let cut = root.home.path().join("cut.img");
    root.change(|at| {
        fs::write(at.join("synced"), "by fsync").expect("room");
        fs::File::open(at.join("synced"))
            .expect("a file")
            .sync_all()
            .expect("a sync");
        fs::copy(&root.image, &cut).expect("a copy");
    });
    let superblock = fs::read(&cut).expect("a copy")[0x1_0000..][..4096].to_vec();
    assert_ne!(superblock[0x60..0x68], [0; 8], "it has a log");
    let read = read_file(&Image::open(&cut), &Whereabouts::default(), "boot/vmlinuz");
    assert_same(&read.expect("it can be read"), &kernel(), "the kernel");
}

#[test]
fn ext4_is_read_as_a_mount_shows_it() {
    if let Some(root) = Root::new(EXT4, |_| {}) {
        root.is_as_mounted();
    }
}

#[test]
fn ext4_whose_inodes_are_too_short_for_checksums_is_read_as_a_mount_shows_it() {
    if let Some(root) = Root::new(&["mkfs.ext4", "-q", "-I", "128"], |_| {}) {
        root.is_as_mounted();
    }
}

#[test]
fn btrfs_is_read_as_a_mount_shows_it_however_it_is_compressed() {
    for how in ["", "lzo", "zlib", "zstd"] {
        if let Some(root) = Root::new(BTRFS, |at| compressed(at, how)) {
            root.is_as_mounted();
        }
    }
}

#[test]
fn links_stay_inside_of_the_disk() {
    for tool in [EXT4, BTRFS] {
        let Some(root) = Root::new(tool, |_| {}) else {
            return;
        };
        assert_same(&root.read("boot/absolute").expect("it"), &kernel(), tool[0]);
        assert_eq!(root.read("boot/upwards").expect("it"), [1]);
        assert_same(
            &root.read("boot/through").expect("it"),
            &pseudo_random(3, 1500),
            tool[0],
        );
        // The host has this file, and the disk has not.
        let elsewhere = root.read("boot/elsewhere");
        assert!(
            matches!(elsewhere, Err(InsideError::NotFound)),
            "{elsewhere:?}"
        );
        assert!(root.read("boot/round").is_err());
    }
}

/// What an EFI system partition holds.
const ESP: [(&str, usize); 4] = [
    ("EFI/debian/shimx64.efi", 934_240),
    ("EFI/BOOT/BOOTX64.EFI", 1),
    ("EFI/a name that is longer than eight and three.cfg", 4097),
    ("EMPTY", 0),
];

/// mtools, another reader and writer of FAT: not every kernel can mount it.
fn mtools(tool: &str, image: &Path, arguments: &[&str]) {
    Tool::new(tool).arg("-i").arg(image).args(arguments).ok();
}

#[test]
fn fat_is_read_as_mtools_reads_it() {
    if !require(&["mkfs.vfat", "mcopy"]) {
        return;
    }
    // 12, 16 and 32 bits of a cluster's number, as the size has it.
    for (bits, mebibytes) in [("12", 4), ("16", 64), ("32", 300)] {
        let home = tempfile::tempdir().expect("a folder");
        let (image, copy) = (home.path().join("esp.img"), home.path().join("copy"));
        let copy_name = copy.to_str().expect("a plain path");
        make_file_system(&["mkfs.vfat", "-F", bits], &image, mebibytes);
        mtools("mmd", &image, &["::EFI", "::EFI/debian", "::EFI/BOOT"]);
        for (name, size) in ESP {
            fs::write(&copy, pseudo_random(size as u64, size)).expect("room");
            mtools("mcopy", &image, &[copy_name, &format!("::{name}")]);
        }
        let disk = Image::open(&image);
        let read = |path: &str| read_file(&disk, &Whereabouts::default(), path);
        for (name, size) in ESP {
            fs::remove_file(&copy).expect("it is there");
            mtools("mcopy", &image, &[&format!("::{name}"), copy_name]);
            let shown = fs::read(&copy).expect("a file");
            assert_eq!(shown.len(), size);
            assert_same(&read(name).expect("it can be read"), &shown, name);
        }
        let other_case = read("efi/DEBIAN/ShimX64.efi").expect("it can be read");
        assert_eq!(other_case.len(), 934_240, "{bits}");
        for missing in ["EFI/none", "none/none", "EMPTY/none"] {
            assert!(
                matches!(read(missing), Err(InsideError::NotFound)),
                "{missing}"
            );
        }
        assert!(read("EFI").is_err());
    }
}

#[test]
fn what_is_missing_or_no_file_is_told() {
    for tool in [EXT4, BTRFS] {
        let Some(root) = Root::new(tool, |_| {}) else {
            return;
        };
        for path in ["boot/none", "none/none", "boot/one/none"] {
            assert!(
                matches!(root.read(path), Err(InsideError::NotFound)),
                "{path}"
            );
        }
        assert!(root.read("boot").is_err());
    }
}

#[test]
fn the_default_subvolume_counts_and_others_can_be_named() {
    let prepare = |at: &Path| {
        for name in ["main", "other"] {
            let path = at.join(name);
            Tool::new("btrfs")
                .args(["subvolume", "create"])
                .arg(&path)
                .ok();
            fs::create_dir(path.join("boot")).expect("a folder");
            fs::write(path.join("boot/which"), name).expect("room");
        }
        let main = at.join("main");
        Tool::new("btrfs")
            .args(["subvolume", "set-default"])
            .arg(main)
            .ok();
    };
    let Some(root) = Root::new(BTRFS, prepare) else {
        return;
    };
    assert_eq!(root.read("boot/which").expect("it"), b"main");
    let disk = Image::open(&root.image);
    let place = |subvolume: &str| Whereabouts {
        partition: None,
        subvolume: Some(subvolume.to_owned()),
    };
    let read = read_file(&disk, &place("other"), "boot/which");
    assert_eq!(read.expect("it"), b"other");
    assert!(read_file(&disk, &place("none"), "boot/which").is_err());
    // The one that holds them all has no name of its own.
    let read = read_file(&disk, &place("/"), "boot/one");
    assert_eq!(read.expect("it"), [1]);
}

/// A disk with this table of partitions, by sfdisk, and the image at a sector.
fn partitioned(root: &Root, label: &str, partitions: &str, sector: u64) -> PathBuf {
    let disk = root.home.path().join(format!("{label}.img"));
    let file = fs::File::create(&disk).expect("room");
    file.set_len(300 << 20).expect("room");
    let table = root.home.path().join("table");
    fs::write(&table, format!("label: {label}\n{partitions}")).expect("room");
    let script = format!("sfdisk -q {} < {}", disk.display(), table.display());
    Tool::new("sh").args(["-c", &script]).ok();
    let content = fs::read(&root.image).expect("an image");
    file.write_all_at(&content, sector * 512).expect("room");
    disk
}

#[test]
fn a_partition_is_found_in_both_kinds_of_tables() {
    if !require(&["sfdisk"]) {
        return;
    }
    let Some(root) = Root::new(EXT4, |_| {}) else {
        return;
    };
    for label in ["gpt", "dos"] {
        let partitions = "start=2048, size=4096\nstart=8192\n";
        let disk = Image::open(&partitioned(&root, label, partitions, 8192));
        let read = |partition| {
            let place = Whereabouts {
                partition,
                subvolume: None,
            };
            read_file(&disk, &place, "boot/one")
        };
        assert_eq!(read(None).expect("it"), [1], "{label}");
        assert_eq!(read(Some(2)).expect("it"), [1], "{label}");
        assert!(
            matches!(read(Some(1)), Err(InsideError::NoFileSystem)),
            "{label}"
        );
        assert!(
            matches!(read(Some(7)), Err(InsideError::NoPartition(7))),
            "{label}"
        );
    }
}

#[test]
fn a_logical_partition_has_the_number_that_linux_gives_it() {
    if !require(&["sfdisk"]) {
        return;
    }
    let Some(root) = Root::new(EXT4, |_| {}) else {
        return;
    };
    let partitions = "start=2048, size=4096\nstart=8192, type=5\nstart=10240, size=4096\n\
                      start=16384, size=2048\nstart=20480, type=83\n";
    let image = partitioned(&root, "dos", partitions, 20480);
    let disk = Image::open(&image);
    let read = |partition| {
        let place = Whereabouts {
            partition,
            subvolume: None,
        };
        read_file(&disk, &place, "boot/one")
    };
    assert_eq!(read(None).expect("it"), [1]);
    assert_eq!(read(Some(7)).expect("it"), [1]);
    for (number, is_there) in [(1, true), (2, false), (5, true), (6, true), (8, false)] {
        let seen = read(Some(number)).expect_err("it is not here");
        let is_seen = matches!(seen, InsideError::NoFileSystem);
        assert_eq!(is_seen, is_there, "{number}: {seen}");
    }
}

/// An ext4 without privileges: with files, and made with these options.
fn ext4_of(files: &[(&str, &[u8])], options: &[&str]) -> (TempDir, Arc<dyn Blocks>) {
    let home = tempfile::tempdir().expect("a folder");
    let (root, image) = (home.path().join("root"), home.path().join("ext4.img"));
    fs::create_dir(&root).expect("room");
    for (name, bytes) in files {
        fs::write(root.join(name), bytes).expect("room");
    }
    let from = root.to_str().expect("a plain path");
    let tool = [&["mkfs.ext4", "-q", "-b", "4096", "-d", from], options].concat();
    make_file_system(&tool, &image, 100);
    let image = Image::open(&image);
    (home, image)
}

#[test]
fn an_ext4_that_is_beyond_its_reader_is_refused_with_the_reason() {
    if !require(&["mkfs.ext4"]) {
        return;
    }
    for feature in ["inline_data", "large_dir", "casefold", "ea_inode"] {
        let (_home, disk) = ext4_of(&[("vmlinuz", b"kernel")], &["-O", feature]);
        let read = read_file(&disk, &Whereabouts::default(), "vmlinuz");
        let why = read.expect_err(feature).to_string();
        assert!(why.contains(feature) && why.contains("without"), "{why}");
    }
}

#[test]
fn a_file_without_extents_is_read_and_one_with_a_large_hole_refused_with_the_reason() {
    if !require(&["mkfs.ext4", "debugfs"]) {
        return;
    }
    let whole = pseudo_random(6, 9_000_001);
    let (home, _) = ext4_of(&[("whole", &whole)], &["-O", "^extent,^64bit"]);
    let image = home.path().join("ext4.img");
    // 12 blocks are in the inode, 1024 in each table.
    let holes = home.path().join("holes");
    let file = fs::File::create(&holes).expect("room");
    file.write_all_at(b"first", 0).expect("room");
    file.write_all_at(b"last", 20 << 20).expect("room");
    let write = format!("write {} holes", holes.display());
    Tool::new("debugfs")
        .args(["-w", "-R", &write])
        .arg(&image)
        .ok();
    let read = |name| read_file(&Image::open(&image), &Whereabouts::default(), name);
    assert_same(&read("whole").expect("it"), &whole, "whole");
    let why = read("holes").expect_err("it has a hole").to_string();
    assert!(why.contains("large hole"), "{why}");
}

#[test]
fn a_damaged_file_system_is_refused_or_read_and_never_more() {
    for tool in [EXT4, BTRFS] {
        let Some(root) = Root::new(tool, |_| {}) else {
            return;
        };
        let damaged = fs::OpenOptions::new().write(true).open(&root.image);
        let damaged = damaged.expect("an image");
        let good = fs::read(&root.image).expect("an image");
        let used: Vec<usize> = (0..good.len()).step_by(512).collect();
        let used: Vec<usize> = used
            .into_iter()
            .filter(|at| good[*at..*at + 512].iter().any(|byte| *byte != 0))
            .take(4000)
            .collect();
        let seed = pseudo_random(5, 4 * 300);
        for words in seed.chunks(4) {
            let number = u16::from_le_bytes([words[0], words[1]]) as usize;
            let at = used[number % used.len()] + usize::from(words[2]);
            damaged.write_all_at(&[words[3]], at as u64).expect("room");
            // Neither a panic nor a loop without an end; what is read is not looked at.
            let _ = root.read("boot/vmlinuz");
            let _ = root.read("boot/far");
            damaged
                .write_all_at(&good[at..=at], at as u64)
                .expect("room");
        }
    }
}
