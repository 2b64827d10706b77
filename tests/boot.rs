//! Whole boots: machines of QEMU, from power-on to a login on their root over NBD.
//!
//! `tools/make-image` makes the image, once for every change of it, and `tools/boot-in-qemu` boots
//! it; what came of that is looked at here. `tests/boot/` has what is done in the machines. Each
//! test takes minutes, and all processors.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cowherd::status::Stage;
use rustix::fs::FlockOperation;
use serde::Deserialize;
use serde_json::{Value, json};
use support::{
    Browser, NetBoot, Room, is_root, picture, read_file, require, row, skipped, write_file,
};

/// What is called, and what has no command but a file.
const TOOLS: [&str; 7] = [
    "python3",
    "mmdebstrap",
    "mkfs.btrfs",
    "qemu-system-x86_64",
    "grub-mkimage",
    "ip",
    "fincore",
];
const FILES: [&str; 6] = [
    "/usr/share/OVMF/OVMF_CODE_4M.fd",
    "/usr/share/OVMF/OVMF_CODE_4M.ms.fd",
    "/usr/lib/shim/shimx64.efi.signed",
    "/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed",
    "/usr/lib/grub/i386-pc",
    "/usr/lib/grub/x86_64-efi",
];

/// An image, by what tools/make-image is told.
struct Recipe {
    name: &'static str,
    words: &'static str,
    /// Whether it has `cowherd-attach`, and the hooks that use it.
    has_attach: bool,
}

/// The least, and a GRUB that nothing in it uses.
const PLAIN: Recipe = Recipe {
    name: "plain",
    words: "--include grub-pc-bin,grub-efi-amd64-bin",
    has_attach: false,
};

/// With the hooks of tools/install-client, and with another kernel that is not installed.
const HOOKED: Recipe = Recipe {
    name: "hooked",
    words: "--include fio --spare-kernel",
    has_attach: true,
};

const ATTACH: &str = env!("CARGO_BIN_EXE_cowherd-attach");

/// What `tools/boot-in-qemu --json` writes.
#[derive(Debug, Deserialize)]
struct Outcome {
    troubles: Vec<String>,
    boots: Vec<Boot>,
    scripts: Vec<Script>,
    log: String,
    /// What each machine had on its console in its last boot.
    consoles: BTreeMap<String, String>,
}

/// A machine that came up.
#[derive(Debug, Deserialize)]
struct Boot {
    boot: u32,
    client: String,
    /// How often the system on this root was booted, by a file on it.
    count: u32,
    root: String,
    kernel: String,
}

/// A script that was run in a machine.
#[derive(Debug, Deserialize)]
struct Script {
    boot: u32,
    client: String,
    script: String,
    said: String,
    /// Bytes that each overlay took when it had ended.
    overlays: BTreeMap<String, Option<u64>>,
}

impl Outcome {
    fn boot(&self, client: &str, boot: u32) -> &Boot {
        let mut all = self.boots.iter();
        let found = all.find(|one| one.client == client && one.boot == boot);
        found.expect("the machine came up")
    }

    fn script(&self, name: &str, boot: u32) -> &Script {
        let mut all = self.scripts.iter();
        let is_it = |one: &&Script| one.script == name && one.boot == boot;
        let found = all.find(|one| is_it(one) && one.client == "herd-0");
        found.expect("the script was run")
    }
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn can_boot() -> bool {
    if !is_root() {
        skipped("root");
        return false;
    }
    if let Some(missing) = FILES.iter().find(|file| !Path::new(file).exists()) {
        assert!(std::env::var_os("CI").is_none(), "no {missing}");
        skipped(missing);
        return false;
    }
    require(&TOOLS)
}

/// Where images are kept, and the lock by which one test boots at a time.
fn home() -> (PathBuf, File) {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot");
    fs::create_dir_all(&home).expect("a folder");
    let lock = File::create(home.join("lock")).expect("a file");
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).expect("a lock");
    (home, lock)
}

/// Runs one of the tools; whether it went well. How long it may take, the runner of tests says.
fn tool(name: &str, words: impl FnOnce(&mut Command)) -> bool {
    let mut command = Command::new(top().join("tools").join(name));
    words(&mut command);
    let said = command.output().expect("the tool can be run");
    for text in [&said.stdout, &said.stderr] {
        eprintln!("{}", String::from_utf8_lossy(text));
    }
    said.status.success()
}

/// The image by a recipe: made where it is not there yet, or was by another one.
fn image(home: &Path, recipe: &Recipe) -> PathBuf {
    let mut key = crc32fast::Hasher::new();
    key.update(recipe.words.as_bytes());
    for file in made_of() {
        key.update(&read_file(&file));
    }
    if recipe.has_attach {
        key.update(&read_file(Path::new(ATTACH)));
    }
    let Recipe { name, words, .. } = recipe;
    let image = home.join(format!("{name}-{:08x}.img", key.finalize()));
    if !image.exists() {
        let old = fs::read_dir(home).expect("a folder").flatten();
        let is_of_it = |file: &Path| {
            let file = file.file_name().unwrap_or_default().to_string_lossy();
            file.starts_with(&format!("{name}-"))
        };
        for old in old.filter(|entry| is_of_it(&entry.path())) {
            fs::remove_file(old.path()).expect("an image of before goes");
        }
        let made = tool("make-image", |make| {
            make.arg(&image).args(words.split_whitespace());
            if recipe.has_attach {
                make.args(["--attach", ATTACH]);
            }
        });
        assert!(made, "no image");
    }
    image
}

/// The tools that an image comes of.
fn made_of() -> Vec<PathBuf> {
    let tools = top().join("tools");
    let mut files = vec![tools.join("make-image"), tools.join("install-client")];
    let folders = fs::read_dir(tools.join("client"))
        .expect("a folder")
        .flatten();
    for folder in folders {
        let inside = fs::read_dir(folder.path()).expect("a folder").flatten();
        files.extend(inside.map(|entry| entry.path()));
    }
    files.sort();
    files
}

/// Boots, by these options of tools/boot-in-qemu.
fn boot(recipe: &Recipe, options: &str) -> Outcome {
    let (home, _lock) = home();
    let image = image(&home, recipe);
    let json = tempfile::NamedTempFile::new().expect("a file");
    let booted = tool("boot-in-qemu", |boot| {
        boot.current_dir(top().join("tests/boot"));
        // Everywhere the same, whatever KVM does.
        boot.args(["--accel", "tcg", "--program"]);
        boot.args([env!("CARGO_BIN_EXE_cowherd"), "--json"]);
        boot.arg(json.path())
            .args(options.split_whitespace())
            .arg(&image);
    });
    let text = read_file(json.path());
    let outcome: Outcome = serde_json::from_slice(&text).expect("an outcome");
    // That the image is as it was is among what it looks at.
    assert_eq!(outcome.troubles, Vec::<String>::new());
    assert!(booted);
    outcome
}

#[test]
fn bios_and_uefi_find_what_they_wrote_or_not_after_a_clean_reboot() {
    if !can_boot() {
        return;
    }
    let options = "--firmware bios --firmware uefi --overlay persistent --overlay ephemeral \
                   --boots 2 --down reboot";
    let outcome = boot(&PLAIN, options);
    for client in ["herd-0", "herd-1"] {
        assert_eq!(outcome.boot(client, 1).root, "/dev/nbd0,btrfs");
        assert_eq!(outcome.boot(client, 1).count, 1);
    }
    assert_eq!(outcome.boot("herd-0", 2).count, 2);
    assert_eq!(outcome.boot("herd-1", 2).count, 1);
}

#[test]
fn machines_use_disks_update_kernels_and_are_switched_off_without_a_word() {
    if !can_boot() {
        return;
    }
    let options = "--firmware bios --firmware uefi --overlay ephemeral --overlay persistent \
                   --boots 2 --down kill --scratch 256 --cmdline cowherd.attach=no \
                   --run parts.sh --run disk.sh --run trim.sh --run busy.sh --run kernel.sh";
    let outcome = boot(&HOOKED, options);
    assert_eq!(outcome.boot("herd-0", 2).count, 1);
    assert_eq!(outcome.boot("herd-1", 2).count, 2);
    // The kernel that was installed is the one that is booted, where it was installed.
    let kernel = |client, number| outcome.boot(client, number).kernel.as_str();
    assert_ne!(kernel("herd-1", 2), kernel("herd-1", 1));
    assert_eq!(kernel("herd-0", 2), kernel("herd-0", 1));
    // The kernel's own client had four connections in each boot.
    let connections = outcome.log.matches("uses scratch+1@work").count();
    assert_eq!(connections, 8);
    let space = |script| outcome.script(script, 1).overlays["scratch+1@work"].expect("a size");
    let (before, after) = (space("disk.sh"), space("trim.sh"));
    // More comes back later: the server gives space back behind its answers.
    assert!(after + (8 << 20) < before, "{after} after {before}");
    let again = &outcome.script("disk.sh", 2).said;
    assert!(again.contains("recovery complete"), "{again}");
}

#[test]
fn beside_another_dhcp_server_machines_boot_from_ours() {
    if !can_boot() || !require(&["dnsmasq"]) {
        return;
    }
    let outcome = boot(&PLAIN, "--dhcp proxy --firmware bios --firmware uefi");
    for client in ["herd-0", "herd-1"] {
        assert_eq!(outcome.boot(client, 1).root, "/dev/nbd0,btrfs");
    }
}

#[test]
fn where_the_host_has_no_grub_machines_boot_by_that_in_their_image() {
    if !can_boot() {
        return;
    }
    let outcome = boot(&PLAIN, "--grub image --firmware bios --firmware uefi");
    let cores = ["i386-pc/core.0", "x86_64-efi/core.efi"];
    for (client, core) in ["herd-0", "herd-1"].into_iter().zip(cores) {
        assert_eq!(outcome.boot(client, 1).root, "/dev/nbd0,btrfs");
        let made = format!("boot/grub/{core} of the GRUB in disk+1 for 10.77.0.1: ");
        assert!(outcome.log.contains(&made), "{}", outcome.log);
    }
}

#[test]
fn uefi_boots_by_http() {
    if !can_boot() {
        return;
    }
    let outcome = boot(&PLAIN, "--firmware uefi-http");
    assert_eq!(outcome.boot("herd-0", 1).root, "/dev/nbd0,btrfs");
    let log = &outcome.log;
    assert!(
        log.contains("disk/disk+1/kernel") && !log.contains("INFO tftp: "),
        "{log}"
    );
}

#[test]
fn uefi_with_the_keys_of_microsoft_boots_securely() {
    if !can_boot() {
        return;
    }
    let outcome = boot(&PLAIN, "--firmware uefi-secure --run secure.sh");
    let said = &outcome.script("secure.sh", 1).said;
    assert!(said.contains("Secure boot enabled"), "{said}");
}

#[test]
fn a_root_outlives_kills_of_its_server_and_shuts_down_cleanly() {
    if !can_boot() {
        return;
    }
    let options = "--firmware bios --overlay ephemeral --run outage.sh --outage 1 --outage 6 \
                   --down reboot";
    let outcome = boot(&HOOKED, options);
    let starts = outcome.log.lines().filter(|line| *line == "ready");
    assert_eq!(starts.count(), 3, "{}", outcome.log);
    let console = &outcome.consoles["herd-0"];
    for end in ["All filesystems unmounted", "reboot: Restarting system"] {
        assert!(console.contains(end), "{console}");
    }
    for trouble in ["I/O error", "Failed unmounting", "BTRFS error"] {
        assert!(!console.contains(trouble), "{console}");
    }
}

#[test]
fn machines_whose_root_is_on_nfs_have_what_is_their_own_in_memory() {
    if !can_boot() || !require(&["ganesha.nfsd", "rpcbind"]) {
        return;
    }
    let options = "--root nfs --firmware bios --run shared.sh --down reboot";
    let outcome = boot(&HOOKED, options);
    let root = &outcome.boot("herd-0", 1).root;
    assert!(
        root.starts_with("10.77.0.1:/") && root.ends_with(",nfs"),
        "{root}"
    );
    // That of its network card.
    let said = &outcome.script("shared.sh", 1).said;
    let id = "machine-id 636f7768657264000000525400770010";
    assert!(said.contains(id), "{said}");
    let console = &outcome.consoles["herd-0"];
    assert!(console.contains("reboot: Restarting system"), "{console}");
}

#[test]
fn kernels_are_served_as_a_mount_shows_them_before_and_after_a_client_replaced_them() {
    if !can_boot() || !require(&["nbdfuse", "curl", "mkfs.ext4"]) {
        return;
    }
    let (home, _lock) = home();
    let image = image(&home, &PLAIN);
    let is_same = tool("check-boot-files", |check| {
        let program = env!("CARGO_BIN_EXE_cowherd");
        check.env("COWHERD", program).arg(&image);
    });
    assert!(is_same);
}

/// A room whose machines boot from an image, by what the server makes itself.
fn room_of(image: &Path) -> Option<Room> {
    let mut room = Room::new("")?;
    let tree = room.setup.file("tree");
    for file in ["core.0", "grub.cfg", "vmlinuz", "initrd.img"] {
        fs::remove_file(tree.join(file)).expect("it was there");
    }
    let text = fs::read_to_string(&room.config).expect("a config");
    let small = format!("file = {:?}\n", room.setup.file("disk.img"));
    let bootable = format!(
        "file = {image:?}\nkernel = \"vmlinuz\"\ninitrd = \"initrd.img\"\n\
         initramfs = \"initramfs-tools\"\ncmdline = \"net.ifnames=0 rootfstype=btrfs\"\n"
    );
    write_file(&room.config, text.replace(&small, &bootable).as_bytes());
    room.start();
    Some(room)
}

/// As long as the page is open, it notes what stands in the row of the machine.
fn note_stages(who: &str) -> String {
    let row = row(who);
    format!(
        "window.stages = []; setInterval(() => {{
            const now = {row}?.cells[2].textContent.replace(' …', '');
            if (now && stages.at(-1) !== now) stages.push(now); }}, 50); undefined"
    )
}

#[test]
fn a_machine_is_watched_on_the_page_from_its_firmware_to_its_mounted_root() {
    if !can_boot() || !require(&["chromium"]) {
        return;
    }
    let (home, _lock) = home();
    let image = image(&home, &PLAIN);
    let Some(room) = room_of(&image) else { return };
    let Some(mut page) = Browser::open(Some(&room.host), &room.admin().url()) else {
        return;
    };
    let mac = "52:54:00:00:00:77";
    page.value(&note_stages(mac));
    let host = room.lan.host();
    let _machine = NetBoot::new(&host, mac, 512);
    let is_up = format!("{}.cells[1].textContent === 'up'", row(mac));
    page.until_within(Duration::from_secs(280), &is_up);
    let titles = Stage::ALL.map(Stage::title);
    let place = |title: &Value| titles.iter().position(|one| title == one);
    let seen = page.value("stages");
    let seen: Vec<_> = seen.as_array().expect("some").iter().map(place).collect();
    assert!(seen.is_sorted() && !seen.contains(&None), "{seen:?}");
    // And all of them in its timeline, with when each was done and how much was sent for it.
    page.click("#rows button", mac);
    page.until("document.querySelector('#boots tbody tr') !== null");
    let table = page.value(
        "[...document.querySelectorAll('#boots section:first-of-type tbody tr')]
            .map((row) => [...row.children].map((cell) => cell.textContent))",
    );
    page.screenshot(&picture("qemu"), (1280, 900), false);
    let rows: Vec<Vec<String>> = serde_json::from_value(table).expect("a table");
    let stages: Vec<_> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(stages, titles, "{rows:?}");
    for row in &rows {
        assert!(row[1].ends_with(" s"), "{row:?}");
        let is_loaded = ["boot loader", "boot menu", "kernel", "initramfs"].contains(&&*row[0]);
        assert_eq!(!row[4].is_empty(), is_loaded, "{row:?}");
    }
    // The page hears what changed once a second: what took two seconds or more went by in it.
    let done = |row: &Vec<String>| {
        row[1]
            .trim_end_matches(" s")
            .parse::<f64>()
            .expect("seconds")
    };
    let slow: Vec<_> = (1..rows.len())
        .filter(|&place| done(&rows[place]) - done(&rows[place - 1]) >= 2.0)
        .collect();
    assert!(!slow.is_empty(), "a kernel takes longer to start: {rows:?}");
    for place in slow {
        let is_seen = seen.contains(&Some(place - 1)) || seen.contains(&Some(place));
        assert!(is_seen, "{} of {seen:?}, {rows:?}", titles[place]);
    }
    let said = room.cowherd(&["status", mac]).ok();
    assert!(titles.iter().all(|title| said.contains(title)), "{said}");
    eprintln!("{said}");
    assert_eq!(
        page.value("document.getElementById('trouble').hidden"),
        json!(true)
    );
    assert_eq!(page.complaints, Vec::<String>::new());
}
