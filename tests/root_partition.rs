//! Roots in partitions of an image: what kernels are told of them.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use support::{Finished, Setup, Tool, make_file_system, read_file, require, write_file};
use tempfile::TempDir;

const SECTOR: u64 = 512;

/// A disk with a partition for EFI, one for /boot, one for the root, and one more.
struct Disk(TempDir);

/// The first sectors of the partitions, and the last of all.
const STARTS: [u64; 5] = [2048, 34_816, 67_584, 411_648, 450_560];

impl Disk {
    /// `None`, loudly, where a tool is missing.
    fn new(label: &str) -> Option<Self> {
        if !require(&["sfdisk", "mkfs.ext4", "mkfs.vfat", "mkfs.btrfs"]) {
            return None;
        }
        let disk = Self(tempfile::tempdir().expect("a folder"));
        let file = fs::File::create(disk.image()).expect("room");
        file.set_len((STARTS[4] + 2048) * SECTOR).expect("room");
        let sizes = STARTS.windows(2).map(|pair| (pair[0], pair[1] - pair[0]));
        let lines = sizes.map(|(start, size)| format!("start={start}, size={size}\n"));
        let table = format!("label: {label}\n{}", lines.collect::<String>());
        write_file(&disk.path("table"), table.as_bytes());
        let script = format!("sfdisk -q {:?} < {:?}", disk.image(), disk.path("table"));
        Tool::new("sh").args(["-c", &script]).ok();
        Some(disk)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn image(&self) -> PathBuf {
        self.path("disk.img")
    }

    /// Puts a file system with these files into a partition.
    fn put(&self, number: usize, tool: &[&str], files: &[&str]) {
        let root = self.path("root");
        let _ = fs::remove_dir_all(&root);
        fs::create_dir(&root).expect("room");
        for file in files {
            let at = root.join(file);
            fs::create_dir_all(at.parent().expect("a folder")).expect("room");
            write_file(&at, file.as_bytes());
        }
        let one = self.path("one.img");
        let mebibytes = ((STARTS[number] - STARTS[number - 1]) * SECTOR) >> 20;
        let with_files: Vec<_> = tool
            .iter()
            .map(|word| word.replace("ROOT", path(&root)))
            .collect();
        let tool: Vec<_> = with_files.iter().map(String::as_str).collect();
        make_file_system(&tool, &one, mebibytes);
        let disk = fs::OpenOptions::new().write(true).open(self.image());
        let bytes = read_file(&one);
        let written = disk
            .expect("a disk")
            .write_all_at(&bytes, STARTS[number - 1] * SECTOR);
        written.expect("room");
    }

    /// The menu of a machine that nobody knows.
    fn menu(&self, more: &str) -> Finished {
        let text = format!(
            "[network]\naddress = \"10.77.0.1/24\"\n[image.arch]\nfile = {:?}\n{more}",
            self.image()
        );
        write_file(&self.path("c.toml"), text.as_bytes());
        Tool::new(env!("CARGO_BIN_EXE_cowherd"))
            .args(["grub", "--print", "--config"])
            .arg(self.path("c.toml"))
            .run()
    }

    /// The line of a kernel in it, which GRUB can read.
    fn line(&self, more: &str) -> String {
        let menu = self.menu(more);
        assert_eq!((menu.code, menu.stderr.as_str()), (Some(0), ""), "{menu}");
        if require(&["grub-script-check"]) {
            write_file(&self.path("grub.cfg"), menu.stdout.as_bytes());
            Tool::new("grub-script-check")
                .arg(self.path("grub.cfg"))
                .ok();
        }
        let mut lines = menu.stdout.lines();
        let line = lines.find(|line| line.trim_start().starts_with("linux "));
        line.unwrap_or_else(|| panic!("{menu}")).replace('\'', "")
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

const EXT4: &[&str] = &["mkfs.ext4", "-q", "-d", "ROOT"];
const BTRFS: &[&str] = &["mkfs.btrfs", "-q", "--rootdir", "ROOT"];
const FAT: &[&str] = &["mkfs.vfat"];

const KERNEL: &str = "kernel = \"vmlinuz\"\ninitramfs = \"initramfs-tools\"\n";

/// A disk whose kernel is in a partition for /boot, and its root behind that.
fn with_boot_partition(label: &str) -> Option<Disk> {
    let disk = Disk::new(label)?;
    disk.put(1, FAT, &[]);
    disk.put(2, EXT4, &["vmlinuz", "initrd.img"]);
    disk.put(3, BTRFS, &["etc/os-release", "usr/bin/true"]);
    Some(disk)
}

#[test]
fn the_root_is_the_partition_with_a_system_in_it() {
    for label in ["gpt", "dos"] {
        let Some(disk) = with_boot_partition(label) else {
            return;
        };
        for (initramfs, words) in [
            (
                "initramfs-tools",
                "root=/dev/nbd0p3 nbdroot=10.77.0.1,arch+1,nbd0 ip=dhcp rw",
            ),
            (
                "mkinitcpio-nbd",
                "root=/dev/nbd0p3 nbd_host=10.77.0.1 nbd_name=arch+1 ip=dhcp rw",
            ),
            (
                "dracut",
                "root=/dev/nbd0p3 netroot=nbd:10.77.0.1:arch+1 ip=dhcp rd.neednet=1 rw",
            ),
        ] {
            let line = disk.line(&KERNEL.replace("initramfs-tools", initramfs));
            assert!(line.contains(words), "{label}: {line}");
        }
    }
}

#[test]
fn the_root_is_the_partition_of_the_kernel_where_that_has_a_system_too() {
    let Some(disk) = with_boot_partition("gpt") else {
        return;
    };
    disk.put(4, EXT4, &["other/vmlinuz", "etc/fstab"]);
    let line = disk.line(&KERNEL.replace("vmlinuz", "other/vmlinuz"));
    assert!(line.contains(" root=/dev/nbd0p4 "), "{line}");
    let line = disk.line(&format!("{KERNEL}partition = 4\n"));
    assert!(line.contains(" root=/dev/nbd0p4 "), "{line}");
}

#[test]
fn where_nothing_tells_it_the_root_is_where_the_kernel_is() {
    let Some(disk) = Disk::new("gpt") else {
        return;
    };
    disk.put(2, EXT4, &["vmlinuz"]);
    let line = disk.line(KERNEL);
    assert!(line.contains(" root=/dev/nbd0p2 "), "{line}");
    let line = disk.line(&format!("{KERNEL}cmdline = \"root=/dev/nbd0p9\"\n"));
    assert!(line.ends_with(" root=/dev/nbd0p9"), "{line}");
}

#[test]
fn a_disk_without_partitions_is_the_root() {
    let Some(disk) = Disk::new("gpt") else {
        return;
    };
    disk.put(2, EXT4, &["vmlinuz", "etc/os-release"]);
    fs::copy(disk.path("one.img"), disk.image()).expect("room");
    let line = disk.line(KERNEL);
    assert!(line.contains(" root=/dev/nbd0 "), "{line}");
}

#[test]
fn an_image_that_is_not_there_goes_by_the_config_and_that_is_said() {
    let Some(disk) = Disk::new("gpt") else {
        return;
    };
    fs::remove_file(disk.image()).expect("it is there");
    let menu = disk.menu(&format!("{KERNEL}partition = 2\n"));
    assert!(menu.stdout.contains("'root=/dev/nbd0p2'"), "{menu}");
    assert!(menu.stderr.contains("the root of arch+1"), "{menu}");
}

#[test]
fn a_running_server_says_the_same() {
    if !require(&["curl"]) {
        return;
    }
    let Some(disk) = with_boot_partition("gpt") else {
        return;
    };
    let setup = Setup::new();
    let config = setup.file("cowherd.toml");
    let text = format!(
        "[tftp]\nlisten = \"127.0.0.1:0\"\n[image.arch]\nfile = {:?}\n{KERNEL}",
        disk.image()
    );
    write_file(&config, text.as_bytes());
    let server = setup.with_arg("--config").with_arg(config).start();
    let at = server.said("tftp on ").replace("tftp on ", "");
    let from = format!("tftp://{at}/boot/grub/grub.cfg");
    let menu = Tool::new("curl").args(["--silent", &from]).ok();
    assert!(menu.contains("'root=/dev/nbd0p3'"), "{menu}");
    server.terminate();
}
