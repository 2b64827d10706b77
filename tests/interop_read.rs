//! Foreign clients reading a real image: what they are told about it, and every byte of it.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use support::{Setup, Tool, btrfs_image, pseudo_random, require};

fn serve_btrfs() -> support::Server {
    Setup::new().with_image(btrfs_image()).start()
}

#[test]
fn nbdinfo_is_told_size_flags_and_block_sizes() {
    if !require(&["mkfs.btrfs", "nbdinfo"]) {
        return;
    }
    let server = serve_btrfs();
    let uri = server.uri("herd-btrfs-1@a");
    let plain = Tool::new("nbdinfo").arg(&uri).ok();
    assert!(plain.contains("export-size: 268435456 (256M)"), "{plain}");
    assert!(plain.contains("protocol: newstyle-fixed"), "{plain}");
    assert!(plain.contains("block_size_minimum: 1"), "{plain}");
    assert!(plain.contains("block_size_preferred: 4096"), "{plain}");
    assert!(plain.contains("block_size_maximum: 33554432"), "{plain}");
    let json = Tool::new("nbdinfo").arg("--json").arg(&uri).ok();
    assert!(json.contains("\"export-size\": 268435456"), "{json}");
    let size = Tool::new("nbdinfo").arg("--size").arg(&uri).ok();
    assert_eq!(size.trim(), "268435456");
}

#[test]
fn nbdinfo_lists_every_image_once() {
    if !require(&["nbdinfo"]) {
        return;
    }
    let server = Setup::new()
        .with_bytes("red.img", &pseudo_random(1, 8192))
        .with_bytes("blue.img", &pseudo_random(2, 12_288))
        .start();
    let list = Tool::new("nbdinfo")
        .args(["--list", "--json"])
        .arg(server.uri(""))
        .ok();
    for (name, size) in [("red", 8192), ("blue", 12_288)] {
        let export = format!("\"export-name\": \"{name}\"");
        assert_eq!(list.matches(&export).count(), 1, "{list}");
        assert!(list.contains(&format!("\"export-size\": {size}")), "{list}");
    }
}

#[test]
fn a_writable_export_can_do_everything_it_should() {
    if !require(&["nbdinfo"]) {
        return;
    }
    let server = Setup::of_bytes(&pseudo_random(1, 65_536)).start();
    let uri = server.uri("disk@a");
    for ability in [
        "connect",
        "read",
        "write",
        "flush",
        "fua",
        "trim",
        "zero",
        "fast-zero",
        "cache",
        "multi-conn",
    ] {
        let answer = Tool::new("nbdinfo").args(["--can", ability, &uri]).run();
        assert_eq!(answer.code, Some(0), "{ability}: {answer}");
    }
    let read_only = Tool::new("nbdinfo").args(["--is", "read-only", &uri]).run();
    assert_eq!(read_only.code, Some(2), "{read_only}");
}

#[test]
fn a_read_only_export_says_so() {
    if !require(&["nbdinfo"]) {
        return;
    }
    let server = Setup::of_bytes(&pseudo_random(1, 65_536))
        .with_arg("--read-only")
        .start();
    let uri = server.uri("disk");
    let read_only = Tool::new("nbdinfo").args(["--is", "read-only", &uri]).run();
    assert_eq!(read_only.code, Some(0), "{read_only}");
    let write = Tool::new("nbdinfo").args(["--can", "write", &uri]).run();
    assert_eq!(write.code, Some(2), "{write}");
}

#[test]
fn nbdcopy_reads_every_byte_of_the_image() {
    if !require(&["mkfs.btrfs", "nbdcopy", "cmp"]) {
        return;
    }
    let server = serve_btrfs();
    let out = server.setup().file("out.img");
    Tool::new("nbdcopy")
        .arg(server.uri("herd-btrfs-1@a"))
        .arg(&out)
        .ok();
    Tool::new("cmp").arg(&out).arg(btrfs_image()).ok();
}

#[test]
fn qemu_img_finds_export_and_image_identical() {
    if !require(&["mkfs.btrfs", "qemu-img"]) {
        return;
    }
    let server = serve_btrfs();
    let said = Tool::new("qemu-img")
        .args(["compare", "-f", "raw", "-F", "raw"])
        .arg(server.uri("herd-btrfs-1@a"))
        .arg(btrfs_image())
        .ok();
    assert_eq!(said.trim(), "Images are identical.");
}

#[test]
fn the_default_export_and_a_leading_slash_lead_to_the_image() {
    if !require(&["nbdinfo"]) {
        return;
    }
    let server = Setup::of_bytes(&pseudo_random(3, 20_480)).start();
    for export in [
        "",
        "disk",
        "/disk",
        "/disk@a",
        "disk+1@a",
        "disk@52-54-00-77-00-10",
    ] {
        let size = Tool::new("nbdinfo")
            .arg("--size")
            .arg(server.uri(export))
            .ok();
        assert_eq!(size.trim(), "20480", "export {export:?}");
    }
}

#[test]
fn qemu_nbd_accepts_the_server_as_a_strict_client() {
    if !require(&["qemu-nbd"]) {
        return;
    }
    let server = Setup::of_bytes(&pseudo_random(3, 20_480))
        .with_listen("127.0.0.1:0")
        .start();
    let support::nbd::Address::Tcp(at) = server.address() else {
        panic!("TCP was asked for");
    };
    let said = Tool::new("qemu-nbd")
        .args(["--list", "--bind", &at.ip().to_string()])
        .args(["--port", &at.port().to_string()])
        .ok();
    assert!(said.contains("export: 'disk'"), "{said}");
    assert!(said.contains("opt block: 4096"), "{said}");
}
