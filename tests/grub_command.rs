//! `cowherd grub`: menus and trees without a server, and what GRUB and TFTP servers make of them.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{
    Finished, Mount, Tool, assert_same, is_root, make_file_system, pseudo_random, read_file,
    require, skipped, write_file,
};
use tempfile::TempDir;

/// What is in the file of every test behind the image.
const CONFIG: &str = r#"
kernel = "vmlinuz"
initrd = "initrd"
initramfs = "initramfs-tools"
title = "Arch"
[network]
address = "10.77.0.1/24"
[client.a]
mac = "52:54:00:77:00:10"
address = "10.77.0.10"
uuid = "00102030405060708090a0b0c0d0e0f0"
"#;

const CARD: &str = "01-52-54-00-77-00-10";

struct Bench {
    home: TempDir,
}

impl Bench {
    /// With an image that has no file system: enough for menus.
    fn new(more: &str) -> Self {
        let bench = Self {
            home: tempfile::tempdir().expect("a folder"),
        };
        write_file(&bench.path("arch.img"), &[7; 4096]);
        bench.configure(more);
        bench
    }

    fn configure(&self, more: &str) {
        let image = self.path("arch.img");
        let text = format!("[image.arch]\nfile = {image:?}\n{CONFIG}{more}");
        write_file(&self.path("c.toml"), text.as_bytes());
    }

    /// With an image that has a kernel; none where nothing can be mounted.
    fn bootable() -> Option<Self> {
        if !require(&["mount", "mkfs.ext4"]) {
            return None;
        }
        if !is_root() {
            skipped("root, to mount");
            return None;
        }
        let bench = Self::new("");
        fs::remove_file(bench.path("arch.img")).expect("it is there");
        make_file_system(&["mkfs.ext4", "-q"], &bench.path("arch.img"), 60);
        let mount = Mount::new(&bench.path("arch.img"), &bench.path("mnt"))?;
        write_file(&mount.at.join("vmlinuz"), &kernel());
        write_file(&mount.at.join("initrd"), b"an initramfs");
        drop(mount);
        Some(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn run(&self, words: &str) -> Finished {
        Tool::new(env!("CARGO_BIN_EXE_cowherd"))
            .arg("grub")
            .args(words.split_whitespace())
            .arg("--config")
            .arg(self.path("c.toml"))
            .run()
    }

    fn said(&self, words: &str) -> String {
        let finished = self.run(words);
        assert_eq!(finished.code, Some(0), "{finished}");
        finished.stdout
    }

    fn write(&self) -> String {
        let tree = self.path("tree");
        self.said(&format!("--json --output {}", tree.display()))
    }

    fn read(&self, path: &str) -> String {
        let bytes = read_file(&self.path("tree").join(path));
        String::from_utf8(bytes).expect("text")
    }
}

fn kernel() -> Vec<u8> {
    pseudo_random(5, 3_000_000)
}

#[test]
fn a_menu_is_printed_for_whoever_is_meant() {
    let bench = Bench::new("");
    let nobody = bench.said("--print");
    assert!(nobody.contains("/disk/arch+1/kernel' "), "{nobody}");
    assert!(
        nobody.contains("'nbdroot=10.77.0.1,arch+1,nbd0'"),
        "{nobody}"
    );
    for who in ["a", "52:54:00:77:00:10", "10.77.0.10"] {
        let menu = bench.said(&format!("--print {who}"));
        assert!(menu.contains("arch+1@a,nbd0"), "{who}: {menu}");
        assert!(menu.contains("systemd.hostname=a"), "{who}: {menu}");
    }
    let card = bench.said("--print 52:54:00:77:00:99");
    assert!(card.contains("BOOTIF=01-52-54-00-77-00-99"), "{card}");
    assert!(
        bench
            .said("--print a --format ipxe")
            .starts_with("#!ipxe\n")
    );
    assert!(
        bench
            .said("--print a --format pxelinux")
            .contains("LABEL entry0\n")
    );
    let json = bench.said("--print a --json");
    assert!(
        json.contains("\"client\":\"a\",\"text\":\"# Made by"),
        "{json}"
    );
    let elsewhere = bench.said("--print --server 10.9.9.9");
    assert!(elsewhere.contains("(tftp,10.9.9.9)/"), "{elsewhere}");
}

#[test]
fn what_can_t_be_done_is_said() {
    let bench = Bench::new("");
    for (words, code, why) in [
        ("--print nobody", 2, "no [client.nobody]"),
        ("", 2, "--output"),
        ("--print a --format lilo", 2, "pxelinux"),
        ("--exports kernel", 2, "[nfs.NAME]"),
    ] {
        let finished = bench.run(words);
        assert_eq!(finished.code, Some(code), "{words}: {finished}");
        assert!(finished.stderr.contains(why), "{words}: {finished}");
    }
    bench.configure("[image.b]\nfile = \"/b\"\n[defaults]\nimage = \"b\"\n");
    let finished = bench.run("--print");
    assert_eq!(finished.code, Some(2), "{finished}");
    assert!(finished.stderr.contains("nothing to boot"), "{finished}");
}

#[test]
fn a_title_without_a_form_in_a_loader_is_an_error_and_no_other_menu() {
    let bench = Bench::new("[defaults.menu]\ntimeout = 3\n");
    let config = read_file(&bench.path("c.toml"));
    let config = String::from_utf8(config).expect("text");
    let config = config.replace("\"Arch\"", "\"Arch ${x} 'n\"");
    write_file(&bench.path("c.toml"), config.as_bytes());
    assert!(
        bench
            .said("--print")
            .contains("menuentry 'Arch ${x} '\\''n'")
    );
    let refused = bench.run("--print --format ipxe");
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(
        refused.stderr.contains("it would be a variable"),
        "{refused}"
    );
}

#[test]
fn a_tree_has_menus_kernels_and_grub_itself() {
    let Some(bench) = Bench::bootable() else {
        return;
    };
    bench.write();
    assert_same(
        &read_file(&bench.path("tree/disk/arch+1/kernel")),
        &kernel(),
        "kernel",
    );
    assert_eq!(bench.read("disk/arch+1/initrd0"), "an initramfs");
    for path in [
        &format!("boot/grub/grub.cfg-{CARD}"),
        &format!("grub/grub.cfg-{CARD}"),
        &format!("pxelinux.cfg/{CARD}"),
        &format!("ipxe/{CARD}.ipxe"),
        "grub/grub.cfg-00102030-4050-6070-8090-a0b0c0d0e0f0",
        "grub/grub.cfg-0A4D000A",
    ] {
        let menu = bench.read(path);
        assert!(menu.contains("systemd.hostname=a"), "{path}: {menu}");
        assert!(menu.contains("disk/arch+1/kernel"), "{path}: {menu}");
    }
    for path in ["boot/grub/grub.cfg", "pxelinux.cfg/default", "boot.ipxe"] {
        assert!(!bench.read(path).contains("systemd.hostname"), "{path}");
    }
    if Path::new("/usr/lib/grub/i386-pc/kernel.img").exists() && require(&["grub-mkimage"]) {
        let image = read_file(&bench.path("tree/boot/grub/i386-pc/core.0"));
        assert!(image.len() > 50_000, "{}", image.len());
        assert!(bench.path("tree/boot/grub/i386-pc/loopback.mod").exists());
    }
}

#[test]
fn grub_reads_every_menu_of_a_tree() {
    if !require(&["grub-script-check"]) {
        return;
    }
    let Some(bench) = Bench::bootable() else {
        return;
    };
    bench.configure(
        "[client.b]\nmac = \"52:54:00:77:00:11\"\n[defaults.menu]\nserial = \"ttyS0\"\n",
    );
    bench.write();
    let grub = fs::read_dir(bench.path("tree/grub")).expect("menus");
    let mut menus: Vec<_> = grub.map(|entry| entry.expect("a file").path()).collect();
    // shim is there too where the host has it.
    menus.retain(|path| path.extension().is_none_or(|kind| kind != "efi"));
    assert_eq!(menus.len(), 5);
    for menu in menus {
        Tool::new("grub-script-check").arg(menu).ok();
    }
    // Debian's signed GRUB asks for this one only: it leads every card to its own.
    let default = bench.read("grub/grub.cfg");
    for words in [
        "if [ \"$net_default_mac\" = '52:54:00:77:00:11' ]; then\n",
        "    configfile '(tftp,10.77.0.1)/boot/grub/grub.cfg-01-52-54-00-77-00-11'\n",
    ] {
        assert!(default.contains(words), "{words}\n{default}");
    }
}

#[test]
fn a_tree_that_is_written_again_follows_the_config_and_leaves_the_rest() {
    let Some(bench) = Bench::bootable() else {
        return;
    };
    let first = bench.write();
    assert!(first.contains("\"state\":\"new\""), "{first}");
    write_file(&bench.path("tree/notes"), b"own");
    bench.configure("[client.b]\nmac = \"52:54:00:77:00:11\"\n");
    let config = String::from_utf8(read_file(&bench.path("c.toml"))).expect("text");
    let config = config.replace("00:10\"", "00:12\"");
    write_file(&bench.path("c.toml"), config.as_bytes());
    let second = bench.write();
    assert!(
        second.contains(&format!("\"ipxe/{CARD}.ipxe\"")),
        "{second}"
    );
    assert!(!bench.path(&format!("tree/ipxe/{CARD}.ipxe")).exists());
    assert!(bench.path("tree/ipxe/01-52-54-00-77-00-12.ipxe").exists());
    assert_eq!(bench.read("notes"), "own");
    let third = bench.write();
    assert!(!third.contains("\"state\":\"new\""), "{third}");
    assert!(!third.contains("\"state\":\"changed\""), "{third}");
}

#[test]
fn roots_on_nfs_get_their_files_and_their_exports() {
    let Some(bench) = Bench::bootable() else {
        return;
    };
    let root = bench.path("nfs");
    fs::create_dir(&root).expect("room");
    write_file(&root.join("linux"), b"a kernel");
    bench.configure(&format!(
        "[nfs.deb]\npath = \"/srv/nfs/deb\"\nfiles = {root:?}\nkernel = \"linux\"\n\
         initramfs = \"none\"\n[defaults.menu]\nimages = \"deb\"\n"
    ));
    bench.write();
    assert_eq!(bench.read("nfs/deb/kernel"), "a kernel");
    let menu = bench.read("boot/grub/grub.cfg");
    assert!(
        menu.contains("'root=/dev/nfs' 'nfsroot=10.77.0.1:/srv/nfs/deb' 'ip=dhcp' 'ro'"),
        "{menu}"
    );
    assert_eq!(
        bench.said("--exports kernel"),
        "# deb\n/srv/nfs/deb 10.77.0.0/24(ro,sync,no_root_squash,no_subtree_check)\n"
    );
    assert!(
        bench
            .said("--exports ganesha")
            .contains("Pseudo = \"/srv/nfs/deb\";")
    );
}

#[test]
fn a_template_makes_the_menu_and_its_slips_have_their_lines() {
    let bench = Bench::new("");
    let template = bench.path("menu.j2");
    bench.configure(&format!("[defaults.menu]\ngrub = {template:?}\n"));
    write_file(&template, b"# {{ entries | length }}\n");
    assert_eq!(bench.said("--print"), "# 1\n");
    write_file(&template, b"#\n{{ entries[7].title }}\n");
    for task in ["--print", "--output /nowhere/at/all"] {
        let finished = bench.run(task);
        assert_eq!(finished.code, Some(2), "{finished}");
        assert!(finished.stderr.contains("menu.j2:2: "), "{finished}");
    }
}

/// Boots a machine of QEMU, whose own TFTP server serves the tree, until it has said all `words`.
fn boots(bench: &Bench, file: &str, words: &[&str]) {
    let tree = bench.path("tree");
    let screen = bench.path("screen");
    let count = words.len();
    let wanted: String = words.iter().map(|words| format!(" -e {words:?}")).collect();
    // The machine stays on when it finds no more to boot.
    let machine = format!(
        "rm -f {screen:?}; mkfifo {screen:?}
         timeout 120 qemu-system-x86_64 -accel tcg -m 256 -nographic -boot n -net none \
         -netdev user,id=n,tftp={},bootfile={file} \
         -device virtio-net-pci,netdev=n,mac=52:54:00:77:00:10 < /dev/null > {screen:?} &
         grep -a -F -m{count}{wanted} < {screen:?}; kill $!; wait",
        tree.display()
    );
    let said = Tool::new("sh").args(["-c", &machine]).ok();
    for words in words {
        assert!(said.contains(words), "{file}: {words} is not in {said}");
    }
}

#[test]
fn ipxe_and_pxelinux_boot_what_their_menus_say() {
    if !require(&["qemu-system-x86_64", "mkfs.ext4"]) {
        return;
    }
    let (kernel, pxelinux, library) = (
        "/usr/lib/ipxe/ipxe.lkrn",
        "/usr/lib/PXELINUX/pxelinux.0",
        "/usr/lib/syslinux/modules/bios/ldlinux.c32",
    );
    for file in [kernel, pxelinux, library] {
        if !Path::new(file).exists() {
            skipped(file);
            return;
        }
    }
    let bench = Bench::new("[defaults.menu]\ntimeout = 1\n");
    let root = bench.path("root");
    fs::create_dir(&root).expect("room");
    fs::copy(kernel, root.join("vmlinuz")).expect("room");
    write_file(&root.join("initrd"), b"an initramfs");
    let image = fs::File::create(bench.path("arch.img")).expect("room");
    image.set_len(20 << 20).expect("room");
    Tool::new("mkfs.ext4")
        .args(["-q", "-F", "-d"])
        .arg(&root)
        .arg(bench.path("arch.img"))
        .ok();
    let tree = bench.path("tree");
    bench.said(&format!("--server 10.0.2.2 --output {}", tree.display()));
    fs::copy(pxelinux, tree.join("pxelinux.0")).expect("room");
    fs::copy(library, tree.join("ldlinux.c32")).expect("room");
    // This kernel is one of iPXE, which takes its command line for a command.
    let command = "root=/dev/nbd0: command not found";
    boots(&bench, "pxelinux.0", &[command]);
    let own = format!("ipxe/{CARD}.ipxe... ok");
    boots(&bench, "boot.ipxe", &[&own, command]);
}
