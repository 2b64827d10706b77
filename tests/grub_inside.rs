//! GRUB out of the image that a machine boots, in place of the host's.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use support::{
    Finished, Server, Setup, Tool, assert_same, make_file_system, read_file, require, skipped,
    write_file,
};
use tempfile::TempDir;

const UEFI: &str = "boot/grub/x86_64-efi/core.efi";
const BIOS: &str = "boot/grub/i386-pc/core.0";

/// A system with GRUB for UEFI, to make an image of.
struct System(TempDir);

impl System {
    /// `None`, loudly, where the host has no GRUB to copy.
    fn new() -> Option<Self> {
        let host = Path::new("/usr/lib/grub/x86_64-efi");
        if !host.is_dir() {
            assert!(std::env::var_os("CI").is_none(), "no {host:?}");
            skipped("/usr/lib/grub/x86_64-efi");
            return None;
        }
        if !require(&["grub-mkimage", "curl", "mkfs.ext4"]) {
            return None;
        }
        let system = Self(tempfile::tempdir().expect("a folder"));
        let grub = system.grub();
        fs::create_dir_all(&grub).expect("folders");
        for entry in fs::read_dir(host).expect("a folder") {
            let entry = entry.expect("an entry");
            if entry.path().is_file() {
                fs::copy(entry.path(), grub.join(entry.file_name())).expect("room");
            }
        }
        // It differs from the host's: it is without a module that images usually have, and has a
        // list that no other has.
        let modules = fs::read_to_string(grub.join("moddep.lst")).expect("a list");
        let modules = modules.lines().filter(|line| !line.starts_with("sleep:"));
        let modules: String = modules.map(|line| format!("{line}\n")).collect();
        write_file(&grub.join("moddep.lst"), modules.as_bytes());
        fs::remove_file(grub.join("sleep.mod")).expect("it is there");
        write_file(&grub.join("parttool.lst"), b"of the image");
        Some(system)
    }

    fn grub(&self) -> std::path::PathBuf {
        self.0.path().join("usr/lib/grub/x86_64-efi")
    }

    /// A file as it is in the image.
    fn file(&self, name: &str) -> Vec<u8> {
        read_file(&self.grub().join(name))
    }

    /// A config file with an image of it.
    fn config(&self, setup: &Setup, more: &str) -> std::path::PathBuf {
        let disk = setup.file("arch.img");
        let from = self.0.path().to_str().expect("a plain path");
        make_file_system(&["mkfs.ext4", "-q", "-d", from], &disk, 60);
        let config = setup.file("cowherd.toml");
        let text = format!(
            "[image.arch]\nfile = {disk:?}\nkernel = \"vmlinuz\"\ninitramfs = \"dracut\"\n\
             grub = \"image\"\n{more}"
        );
        write_file(&config, text.as_bytes());
        config
    }

    fn serve(&self) -> Bench {
        let setup = Setup::new();
        let config = self.config(&setup, "[tftp]\nlisten = \"127.0.0.1:0\"\n");
        let server = setup.with_arg("--config").with_arg(config).start();
        let at = server.said("tftp on ").replace("tftp on ", "").parse();
        let at = at.expect("an address and a port");
        Bench { server, at }
    }
}

struct Bench {
    server: Server,
    at: SocketAddr,
}

impl Bench {
    fn curl(&self, path: &str) -> Finished {
        let target = self.server.setup().file("fetched");
        let _ = fs::remove_file(&target);
        let from = format!("tftp://{}/{path}", self.at);
        Tool::new("curl")
            .args(["--silent", "--show-error", &from, "--output"])
            .arg(target)
            .run()
    }

    fn fetch(&self, path: &str) -> Vec<u8> {
        let finished = self.curl(path);
        assert_eq!(finished.code, Some(0), "{path}: {finished}");
        read_file(&self.server.setup().file("fetched"))
    }
}

/// What the host's grub-mkimage makes of the GRUB in a directory.
fn made_of(directory: &Path, modules: &[&str]) -> Vec<u8> {
    let home = tempfile::tempdir().expect("a folder");
    let to = home.path().join("core");
    let prefix = "(tftp,127.0.0.1)/boot/grub";
    let tool = Tool::new("grub-mkimage").args(["--format", "x86_64-efi", "--prefix", prefix]);
    let tool = tool.arg("--directory").arg(directory);
    tool.arg("--output").arg(&to).args(modules).ok();
    read_file(&to)
}

/// Those that our images have; the last one is not in the image of this test.
const MODULES: [&str; 22] = [
    "efinet",
    "all_video",
    "tftp",
    "http",
    "normal",
    "configfile",
    "linux",
    "echo",
    "test",
    "regexp",
    "serial",
    "terminal",
    "gzio",
    "minicmd",
    "reboot",
    "halt",
    "cat",
    "ls",
    "chain",
    "true",
    "net",
    "sleep",
];

#[test]
fn the_boot_image_is_made_of_the_grub_inside_of_the_image() {
    let Some(system) = System::new() else { return };
    let bench = system.serve();
    let core = bench.fetch(UEFI);
    let expected = made_of(&system.grub(), &MODULES[..21]);
    assert_same(&core, &expected, "core.efi");
    let host = made_of(Path::new("/usr/lib/grub/x86_64-efi"), &MODULES);
    assert_ne!(core.len(), host.len(), "this is how they are told apart");
    assert!(
        core.windows(27)
            .any(|bytes| bytes == b"(tftp,127.0.0.1)/boot/grub\0")
    );
    let log = &["core.efi of the GRUB in arch+1 for 127.0.0.1"];
    bench.server.wait_for_log(log);
}

#[test]
fn modules_come_out_of_the_image_that_grub_came_out_of() {
    let Some(system) = System::new() else { return };
    let bench = system.serve();
    for name in ["btrfs.mod", "parttool.lst"] {
        let seen = bench.fetch(&format!("boot/grub/x86_64-efi/{name}"));
        assert_same(&seen, &system.file(name), name);
    }
    let missing = bench.curl("boot/grub/x86_64-efi/sleep.mod");
    assert_ne!(
        missing.code,
        Some(0),
        "the host has it, and the image has not"
    );
}

#[test]
fn a_platform_that_the_image_has_no_grub_for_gets_the_host_s() {
    let Some(system) = System::new() else { return };
    if !Path::new("/usr/lib/grub/i386-pc").is_dir() {
        return skipped("/usr/lib/grub/i386-pc");
    }
    let mut bench = system.serve();
    assert!(bench.fetch(BIOS).len() > 64 << 10);
    let module = bench.fetch("boot/grub/i386-pc/btrfs.mod");
    assert_same(
        &module,
        &read_file(Path::new("/usr/lib/grub/i386-pc/btrfs.mod")),
        "btrfs",
    );
    bench.fetch(BIOS);
    let told = [
        "arch+1",
        "get the host's boot/grub/i386-pc/core.0",
        "grub-pc-bin",
    ];
    bench.server.wait_for_log(&told);
    assert_eq!(bench.server.logged_in_all(&told), 1);
}

#[test]
fn a_grub_that_no_image_can_be_made_of_is_replaced_with_all_its_modules() {
    let Some(system) = System::new() else { return };
    write_file(&system.grub().join("kernel.img"), b"no program");
    let bench = system.serve();
    let host = Path::new("/usr/lib/grub/x86_64-efi");
    assert!(bench.fetch(UEFI).starts_with(b"MZ"));
    bench
        .server
        .wait_for_log(&["arch+1: no boot/grub/x86_64-efi/core.efi can be made"]);
    let list = bench.fetch("boot/grub/x86_64-efi/parttool.lst");
    assert_same(&list, &read_file(&host.join("parttool.lst")), "of the host");
}

#[test]
fn a_grub_that_lacks_a_part_is_told_of_by_the_name_of_that() {
    let Some(system) = System::new() else { return };
    fs::remove_file(system.grub().join("normal.mod")).expect("it is there");
    let bench = system.serve();
    assert!(bench.fetch(UEFI).starts_with(b"MZ"));
    let missing = "usr/lib/grub/x86_64-efi/normal.mod is missing";
    bench.server.wait_for_log(&["arch+1", missing]);
}

#[test]
fn shim_and_the_grub_behind_it_come_out_of_an_image_that_has_both() {
    let Some(system) = System::new() else { return };
    let put = |path: &str| {
        let path = system.0.path().join(path);
        fs::create_dir_all(path.parent().expect("not the root")).expect("folders");
        write_file(&path, path.to_str().expect("a plain path").as_bytes());
        read_file(&path)
    };
    let shim = put("usr/lib/shim/shimx64.efi.signed");
    let bench = system.serve();
    bench.curl("grub/shimx64.efi");
    bench
        .server
        .wait_for_log(&["arch+1 has no usr/lib/grub/x86_64-efi-signed/grubnetx64"]);
    let grub = put("usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed");
    let bench = system.serve();
    assert_same(&bench.fetch("grub/shimx64.efi"), &shim, "shim");
    assert_same(&bench.fetch("grub/grubx64.efi"), &grub, "GRUB");
}

#[test]
fn a_tree_for_another_server_has_the_grub_of_the_image() {
    let Some(system) = System::new() else { return };
    write_file(&system.0.path().join("vmlinuz"), b"a kernel");
    let setup = Setup::new();
    let config = system.config(&setup, "[network]\naddress = \"10.77.0.1/24\"\n");
    let tree = setup.file("tree");
    let tool = Tool::new(env!("CARGO_BIN_EXE_cowherd")).args(["grub", "--output"]);
    tool.arg(&tree).arg("--config").arg(config).ok();
    let list = read_file(&tree.join("boot/grub/x86_64-efi/parttool.lst"));
    assert_same(&list, b"of the image", "parttool.lst");
    assert!(!tree.join("boot/grub/x86_64-efi/sleep.mod").exists());
    let core = read_file(&tree.join(UEFI));
    let prefix = b"(tftp,10.77.0.1)/boot/grub\0";
    assert!(core.windows(prefix.len()).any(|bytes| bytes == prefix));
    let of_host = Path::new("/usr/lib/grub/i386-pc").is_dir();
    assert_eq!(tree.join(BIOS).exists(), of_host);
}
