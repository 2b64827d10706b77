//! `tools/make-image` of a directory and of an Arch, whose programs only say how they were called:
//! nobody here has pacman. Images of Debian are made, and booted, in `boot.rs`.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Finished, Mount, Tool, is_root, require, skipped};
use tempfile::TempDir;

/// Says how it was called, where the system's root is.
const SAYS: &str = "#!/bin/sh\necho \"${0##*/} $*\" >>/calls\n";

/// A system of which little more is there than what is called, and the image that is made of it.
struct Bench {
    home: TempDir,
}

impl Bench {
    /// `None`, loudly, where no image can be made.
    fn new() -> Option<Self> {
        if !is_root() {
            skipped("root");
            return None;
        }
        if !require(&["mkfs.btrfs", "unshare", "ldd"]) {
            return None;
        }
        let home = tempfile::tempdir().expect("a folder");
        let bench = Self { home };
        for folder in [
            "dev",
            "etc/systemd/system",
            "proc",
            "sys",
            "usr/bin",
            "usr/lib/systemd",
            "var",
        ] {
            fs::create_dir_all(bench.path("system").join(folder)).expect("folders");
        }
        bench.shell();
        for program in ["usr/bin/chpasswd", "usr/bin/systemctl"] {
            bench.program(&format!("system/{program}"), SAYS);
        }
        bench.write("system/etc/hostname", "old\n");
        bench.write(
            "system/etc/machine-id",
            "0123456789abcdef0123456789abcdef\n",
        );
        Some(bench)
    }

    /// The host's shell, with what it is linked with.
    fn shell(&self) {
        let shell = fs::canonicalize("/bin/sh").expect("a shell");
        let linked = Tool::new("ldd").arg(&shell).ok();
        let libraries = linked
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        for library in libraries {
            self.copy(Path::new(library), library);
        }
        self.copy(&shell, "/bin/sh");
    }

    fn copy(&self, from: &Path, to: &str) {
        let to = self.path("system").join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a folder above")).expect("folders");
        fs::copy(from, to).expect("a copy");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder above")).expect("folders");
        fs::write(path, text).expect("a file");
    }

    fn program(&self, name: &str, text: &str) {
        self.write(name, text);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.path(name), mode).expect("a mode");
    }

    /// What makes an initramfs on Arch.
    fn is_arch(&self, mkinitcpio: &str) {
        self.program("system/usr/bin/mkinitcpio", mkinitcpio);
        let config = "MODULES=()\nHOOKS=(base udev autodetect block filesystems fsck)\n";
        self.write("system/etc/mkinitcpio.conf", config);
        let pacstrap = format!(
            "#!/bin/sh\necho \"$*\" >{}\ncp -a {}/. \"$2\"\n",
            self.path("said").display(),
            self.path("system").display(),
        );
        self.program("bin/pacstrap", &pacstrap);
    }

    fn make(&self, words: &[&str]) -> Finished {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/make-image");
        let mut command = Command::new(tool);
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .arg(self.path("disk.img"))
            .args(["--size", "256M"])
            .args(words);
        Tool::from_command(command, "make-image").run()
    }

    fn mount(&self) -> Option<Mount> {
        Mount::new(&self.path("disk.img"), &self.path("mnt"))
    }
}

fn text(folder: &Mount, name: &str) -> String {
    fs::read_to_string(folder.at.join(name)).expect("a file")
}

#[test]
fn an_arch_is_made_by_its_own_programs() {
    let Some(bench) = Bench::new() else { return };
    bench.is_arch(SAYS);
    let made = bench.make(&["--arch", "--include", "vim,openssh"]);
    assert_eq!(made.code, Some(0), "{made}");
    let said = fs::read_to_string(bench.path("said")).expect("words");
    let wanted = "base linux mkinitcpio mkinitcpio-nfs-utils nbd btrfs-progs dhcpcd vim openssh\n";
    assert!(said.starts_with("-c /") && said.ends_with(wanted), "{said}");
    for line in [
        "kernel = \"boot/vmlinuz-linux\"",
        "initrd = \"boot/initramfs-linux.img\"",
        "initramfs = \"mkinitcpio-nbd\"",
    ] {
        assert!(made.stdout.contains(line), "{made}");
    }
    let Some(disk) = bench.mount() else { return };
    let config = text(&disk, "etc/mkinitcpio.conf");
    let hooks = "HOOKS=(base udev modconf keyboard block cowherd filesystems)\n";
    assert!(config.contains(hooks), "{config}");
    assert!(disk.at.join("etc/initcpio/hooks/cowherd").exists());
    let calls = text(&disk, "calls");
    assert!(calls.ends_with("mkinitcpio -P\n"), "{calls}");
}

#[test]
fn a_directory_is_copied_and_knows_no_machine_and_no_disk_any_more() {
    let Some(bench) = Bench::new() else { return };
    bench.program("system/usr/sbin/update-initramfs", SAYS);
    bench.write("system/etc/initramfs-tools/modules", "");
    let table = "UUID=1-2 / ext4\n/dev/sda2 none swap\nserver:/home /home nfs\n";
    bench.write("system/etc/fstab", table);
    let from = bench.path("system");
    let made = bench.make(&["--from", from.to_str().expect("a plain path"), "--hooks"]);
    assert_eq!(made.code, Some(0), "{made}");
    let before = fs::read_to_string(from.join("etc/hostname")).expect("a name");
    assert_eq!(before, "old\n", "the directory was changed");
    let Some(disk) = bench.mount() else { return };
    assert!(!disk.at.join("etc/hostname").exists());
    assert_eq!(text(&disk, "etc/machine-id"), "");
    let table = text(&disk, "etc/fstab");
    let mounted: Vec<_> = table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert_eq!(mounted, ["server:/home /home nfs"]);
    let calls = text(&disk, "calls");
    assert_eq!(calls, "update-initramfs -u -k all\n");
    assert!(disk.at.join("etc/initramfs-tools/hooks/cowherd").exists());
}

#[test]
fn an_image_whose_initramfs_fails_is_not_made() {
    let Some(bench) = Bench::new() else { return };
    bench.is_arch("#!/bin/sh\nexit 3\n");
    let made = bench.make(&["--arch"]);
    assert_eq!(made.code, Some(3), "{made}");
    assert!(made.stderr.contains("== prepare it: failed"), "{made}");
    let left: Vec<_> = fs::read_dir(bench.home.path())
        .expect("a folder")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("disk"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_is_missing_for_an_arch_is_named() {
    let Some(bench) = Bench::new() else { return };
    if Path::new("/usr/bin/pacstrap").exists() {
        return;
    }
    let made = bench.make(&["--arch"]);
    assert_eq!(made.code, Some(2), "{made}");
    assert!(made.stderr.contains("pacstrap is missing"), "{made}");
}

#[test]
fn a_directory_is_not_copied_into_itself() {
    let Some(bench) = Bench::new() else { return };
    let made = bench.make(&["--from", "/"]);
    assert_eq!(made.code, Some(2), "{made}");
    assert!(made.stderr.contains("set TMPDIR"), "{made}");
}
