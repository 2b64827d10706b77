//! Menus by TFTP: by the names that boot loaders ask for, for the machines that ask.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::net::SocketAddr;

use rustix::process::Signal;
use support::{Server, Setup, Tool, assert_same, read_file, require, skipped, write_file};

/// What is in the file of every test.
const CONFIG: &str = r#"
kernel = "vmlinuz"
initramfs = "initramfs-tools"
title = "Arch"
[client.a]
address = "127.0.0.1"
mac = "52:54:00:77:00:10"
[client.b]
mac = "52:54:00:77:00:11"
uuid = "00102030405060708090a0b0c0d0e0f0"
[client.c]
address = "127.0.0.3"
mac = "52:54:00:77:00:13"
"#;

/// A server of a disk with menus, to which 127.0.0.1 is the client `a`.
struct Bench {
    server: Server,
    at: SocketAddr,
}

impl Bench {
    fn new(more: &str) -> Self {
        let setup = Setup::new();
        let root = setup.file("tree");
        std::fs::create_dir_all(&root).expect("a new folder");
        let disk = setup.file("arch.img");
        write_file(&disk, &[7; 4096]);
        let config = setup.file("cowherd.toml");
        let tftp = format!("[tftp]\nroot = {root:?}\nlisten = \"127.0.0.1:0\"\n");
        let text = format!("{tftp}[image.arch]\nfile = {disk:?}\n{CONFIG}{more}");
        write_file(&config, text.as_bytes());
        let server = setup.with_arg("--config").with_arg(config).start();
        let at = server.said("tftp on ").replace("tftp on ", "").parse();
        let at = at.expect("an address and a port");
        Self { server, at }
    }

    /// Fetches a file from an address of the client's; `None` where there is none.
    fn fetch(&self, from: &str, path: &str) -> Option<String> {
        let (host, port) = (self.at.ip(), self.at.port());
        let fetched = Tool::new("curl")
            .args(["--silent", "--interface", from])
            .arg(format!("tftp://{host}:{port}/{path}"))
            .run();
        // curl(1): "68 File not found on TFTP server."
        match fetched.code {
            Some(0) => Some(fetched.stdout),
            Some(68) => None,
            _ => panic!("{path}: {fetched}"),
        }
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.server.setup().file("tree").join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("room");
        write_file(&path, text.as_bytes());
    }
}

fn has(menu: Option<String>, words: &str) -> bool {
    let menu = menu.expect("a menu");
    menu.contains(words)
}

#[test]
fn the_address_says_whose_menu_it_is_whatever_the_name_says() {
    if !require(&["curl"]) {
        return;
    }
    let bench = Bench::new("");
    for path in [
        "boot/grub/grub.cfg",
        "grub/grub.cfg",
        "grub/grub.cfg-01-52-54-00-77-00-10",
        "grub/grub.cfg-01-52-54-00-77-00-11",
        "grub/grub.cfg-00102030-4050-6070-8090-a0b0c0d0e0f0",
        "grub/grub.cfg-7F000001",
        "boot.ipxe",
        "pxelinux.cfg/default",
        "pxelinux.cfg/01-52-54-00-77-00-10",
    ] {
        let menu = bench.fetch("127.0.0.1", path).expect(path);
        assert!(menu.contains("systemd.hostname=a"), "{path}: {menu}");
        assert!(!menu.contains('@'), "{path}: {menu}");
    }
}

#[test]
fn who_has_no_lease_is_known_by_its_card_or_its_uuid() {
    if !require(&["curl"]) {
        return;
    }
    let bench = Bench::new("");
    for path in [
        "grub/grub.cfg-01-52-54-00-77-00-11",
        "grub/grub.cfg-00102030-4050-6070-8090-a0b0c0d0e0f0",
        "pxelinux.cfg/01-52-54-00-77-00-11",
    ] {
        let menu = bench.fetch("127.0.0.9", path).expect(path);
        assert!(menu.contains("systemd.hostname=b"), "{path}: {menu}");
        assert!(menu.contains("/arch+1@b"), "{path}: {menu}");
    }
    // A card of nobody's is one of a machine without a name; a UUID of nobody's says nothing yet.
    let card = bench.fetch("127.0.0.9", "grub/grub.cfg-01-52-54-00-77-00-99");
    assert!(has(
        card,
        "/arch+1' 'ip=dhcp' 'rw' 'BOOTIF=01-52-54-00-77-00-99'"
    ));
    for path in [
        "grub/grub.cfg-ff102030-4050-6070-8090-a0b0c0d0e0f0",
        "grub/grub.cfg-7F000001",
        "grub/grub.cfg-7F",
    ] {
        assert_eq!(bench.fetch("127.0.0.9", path), None, "{path}");
    }
}

#[test]
fn a_card_is_no_word_for_the_disk_of_a_client_at_another_address() {
    if !require(&["curl"]) {
        return;
    }
    let bench = Bench::new("");
    let menu = bench.fetch("127.0.0.9", "grub/grub.cfg-01-52-54-00-77-00-13");
    let menu = menu.expect("a menu");
    assert!(menu.contains("/arch+1' "), "{menu}");
    assert!(!menu.contains("@c"), "{menu}");
}

#[test]
fn a_file_of_the_admin_s_is_found_where_a_loader_looks_for_it_last() {
    if !require(&["curl"]) {
        return;
    }
    let bench = Bench::new("");
    let card = "grub/grub.cfg-01-52-54-00-77-00-10";
    assert!(bench.fetch("127.0.0.1", card).is_some());
    bench.put("grub/grub.cfg", "own");
    assert_eq!(bench.fetch("127.0.0.1", card), None);
    assert_eq!(
        bench.fetch("127.0.0.1", "grub/grub.cfg").as_deref(),
        Some("own")
    );
    assert!(bench.fetch("127.0.0.1", "boot/grub/grub.cfg").is_some());
    bench.put("pxelinux.cfg/7F0", "own");
    assert_eq!(bench.fetch("127.0.0.1", "pxelinux.cfg/7F000001"), None);
    assert_eq!(
        bench.fetch("127.0.0.1", "pxelinux.cfg/7F0").as_deref(),
        Some("own")
    );
    assert!(bench.fetch("127.0.0.1", "pxelinux.cfg/default").is_some());
}

#[test]
fn the_settings_of_menus_count_after_a_reload() {
    if !require(&["curl"]) {
        return;
    }
    let bench = Bench::new("[client.a.menu]\nserial = \"ttyS0\"\n");
    let menu = bench.fetch("127.0.0.1", "boot/grub/grub.cfg");
    assert!(has(menu, "serial --unit=0 --speed=115200\n"));
    let config = bench.server.setup().file("cowherd.toml");
    let text = std::fs::read_to_string(&config).expect("a config");
    let text = text.replace("serial = \"ttyS0\"", "serial = \"ttyS1,9600\"");
    write_file(&config, text.as_bytes());
    bench.server.signal(Signal::HUP);
    bench.server.wait_for_log(&["config reloaded"]);
    let menu = bench.fetch("127.0.0.1", "boot/grub/grub.cfg");
    assert!(has(menu, "console=ttyS1,9600"));
}

/// Puts a template beside the config; the line that names it.
fn with_template(bench: &Bench, text: &str) -> String {
    let path = bench.server.setup().file("menu.j2");
    write_file(&path, text.as_bytes());
    format!("grub = {path:?}\n")
}

fn reload(bench: &Bench, more: &str, word: &str) {
    let config = bench.server.setup().file("cowherd.toml");
    let mut text = std::fs::read_to_string(&config).expect("a config");
    text.push_str(more);
    write_file(&config, text.as_bytes());
    bench.server.signal(Signal::HUP);
    bench.server.wait_for_log(&[word]);
}

#[test]
fn a_template_is_served_in_place_of_the_menu() {
    if !require(&["curl"]) {
        return;
    }
    let bench = Bench::new("[client.a.menu]\n");
    let template = "# for {{ client.name }}\n{{ menu }}";
    let key = with_template(&bench, template);
    reload(&bench, &key, "config reloaded");
    let menu = bench
        .fetch("127.0.0.1", "boot/grub/grub.cfg")
        .expect("a menu");
    assert!(menu.starts_with("# for a\n# Made by cowherd"), "{menu}");
    // The template is one client's, and one for GRUB.
    for (from, path) in [
        ("127.0.0.3", "boot/grub/grub.cfg"),
        ("127.0.0.1", "pxelinux.cfg/default"),
    ] {
        let menu = bench.fetch(from, path).expect("a menu");
        assert!(!menu.contains("# for"), "{path}: {menu}");
    }
}

#[test]
fn a_template_that_fails_for_one_machine_leaves_it_the_menu_that_is_made() {
    if !require(&["curl"]) {
        return;
    }
    let bench = Bench::new("[defaults.menu]\n");
    let template = "own\n{% if client.mac == '52:54:00:77:00:99' %}{{ nothing }}{% endif %}\n";
    let key = with_template(&bench, template);
    reload(&bench, &key, "config reloaded");
    let of = |card: &str| bench.fetch("127.0.0.9", &format!("grub/grub.cfg-01-{card}"));
    assert!(has(of("52-54-00-77-00-98"), "own"));
    assert!(has(of("52-54-00-77-00-99"), "menuentry 'Arch'"));
    bench
        .server
        .wait_for_log(&["menu.j2:2:", "made without this template"]);
}

#[test]
fn a_template_with_a_slip_changes_nothing() {
    if !require(&["curl"]) {
        return;
    }
    let bench = Bench::new("[defaults.menu]\n");
    let key = with_template(&bench, "own\n\n{{ client.nothing }}\n");
    reload(&bench, &key, "config not reloaded");
    bench
        .server
        .wait_for_log(&["config not reloaded", "menu.j2:3:"]);
    let menu = bench.fetch("127.0.0.1", "boot/grub/grub.cfg");
    assert!(has(menu, "menuentry 'Arch'"));
    // Nor does a server start with one.
    let config = bench.server.setup().file("cowherd.toml");
    let other = Setup::new().with_arg("--config").with_arg(config);
    other.misused().says(&["menu.j2:3:"]);
}

#[test]
fn what_secure_boot_takes_is_served_where_the_host_has_it() {
    if !require(&["curl"]) {
        return;
    }
    let bench = Bench::new("");
    for (asked, file) in [
        ("grub/shimx64.efi", "/usr/lib/shim/shimx64.efi.signed"),
        (
            "grub/grubx64.efi",
            "/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed",
        ),
    ] {
        let Ok(signed) = std::fs::read(file) else {
            skipped(file);
            continue;
        };
        let to = bench.server.setup().file("fetched");
        let (host, port) = (bench.at.ip(), bench.at.port());
        Tool::new("curl")
            .args(["--silent", "--output"])
            .arg(&to)
            .arg(format!("tftp://{host}:{port}/{asked}"))
            .ok();
        assert_same(&read_file(&to), &signed, asked);
        bench.put(asked, "own");
        assert_eq!(bench.fetch("127.0.0.1", asked).as_deref(), Some("own"));
    }
    // shim asks for these too, and takes no answer but an error.
    assert_eq!(bench.fetch("127.0.0.1", "grub/revocations.efi"), None);
}
