//! Foreign clients writing to `disk@a` of a real image, while `disk@b` sees the image only.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::path::Path;
use std::thread;

use support::{
    Fingerprint, Server, Setup, Tool, assert_same, btrfs_image, pseudo_random, read_file, require,
    write_file,
};

const EXPORT_A: &str = "herd-btrfs-1@a";
const EXPORT_B: &str = "herd-btrfs-1@b";

fn serve_btrfs() -> Server {
    Setup::new().with_image(btrfs_image()).start()
}

/// qemu-io over `uri`, one argument a command; every pattern mismatch fails it.
fn qemu_io(uri: &str, commands: &[&str]) -> String {
    let mut tool = Tool::new("qemu-io").args(["-f", "raw", "-t", "writeback"]);
    for command in commands {
        tool = tool.args(["-c", command]);
    }
    let said = tool.arg(uri).ok();
    // qemu-io succeeds even when a read finds another pattern.
    assert!(!said.contains("Pattern verification failed"), "{said}");
    assert!(!said.contains("failed"), "{said}");
    said
}

fn copy_out(uri: &str, to: &Path) -> Vec<u8> {
    Tool::new("nbdcopy").arg(uri).arg(to).ok();
    read_file(to)
}

fn identical(uri: &str, image: &Path) {
    Tool::new("qemu-img")
        .args(["compare", "-f", "raw", "-F", "raw"])
        .arg(uri)
        .arg(image)
        .ok();
}

#[test]
fn unaligned_and_spanning_writes_read_back() {
    if !require(&["mkfs.btrfs", "qemu-io"]) {
        return;
    }
    let server = serve_btrfs();
    let write = [
        "write -P 0x11 1M 64k",
        "write -P 0x22 5000 100",
        "write -P 0x33 12287 2",
        "write -P 0x44 20001 70003",
        "write -P 0x55 1100k 1",
        "write -f -P 0x66 2M 4k",
    ];
    let read = [
        "read -P 0x11 1M 64k",
        "read -P 0x22 5000 100",
        "read -P 0x33 12287 2",
        "read -P 0x44 20001 70003",
        "read -P 0x55 1100k 1",
        "read -P 0x66 2M 4k",
    ];
    let uri = server.uri(EXPORT_A);
    qemu_io(&uri, &[write.as_slice(), &read].concat());
    qemu_io(&uri, &read);
}

#[test]
fn zeroes_read_back_as_zeroes_and_leave_their_neighbours() {
    if !require(&["mkfs.btrfs", "qemu-io"]) {
        return;
    }
    let server = serve_btrfs();
    qemu_io(
        &server.uri(EXPORT_A),
        &[
            "write -P 0x77 32M 1M",
            "write -z 33000k 100k",
            "write -z -u 33200k 7k",
            "write -z 34200001 1",
            "read -P 0 33000k 100k",
            "read -P 0 33200k 7k",
            "read -P 0 34200001 1",
            "read -P 0x77 33100k 100k",
            "read -P 0x77 34200002 1000",
        ],
    );
}

#[test]
fn a_large_zero_request_zeroes_all_of_its_range() {
    if !require(&["mkfs.btrfs", "qemu-io"]) {
        return;
    }
    // nbd-server stops after 64 MiB; ours must not.
    let server = serve_btrfs();
    qemu_io(
        &server.uri(EXPORT_A),
        &[
            "write -P 0x12 150M 64k",
            "write -z 1M 254M",
            "read -P 0 1M 16M",
            "read -P 0 150M 64k",
            "read -P 0 239M 16M",
        ],
    );
}

#[test]
fn a_discard_leaves_what_lies_around_it() {
    if !require(&["mkfs.btrfs", "qemu-io"]) {
        return;
    }
    let server = serve_btrfs();
    qemu_io(
        &server.uri(EXPORT_A),
        &[
            "write -P 0x21 1M 256k",
            "discard 1088k 64k",
            "read -P 0x21 1M 64k",
            "read -P 0x21 1152k 128k",
            "write -P 0x22 1088k 64k",
            "read -P 0x22 1088k 64k",
        ],
    );
}

#[test]
fn nbdcopy_writes_a_whole_disk_for_one_client_alone() {
    if !require(&["mkfs.btrfs", "nbdcopy", "qemu-img"]) {
        return;
    }
    let image = btrfs_image();
    let before = Fingerprint::of(&image);
    let server = serve_btrfs();
    let source = server.setup().file("source.img");
    // Noise over the whole, so that every block of the image is covered.
    write_file(&source, &pseudo_random(77, 256 << 20));
    Tool::new("nbdcopy")
        .args(["--flush", "--allocated"])
        .arg(&source)
        .arg(server.uri(EXPORT_A))
        .ok();
    identical(&server.uri(EXPORT_A), &source);
    identical(&server.uri(EXPORT_B), &image);
    server.terminate();
    assert_eq!(Fingerprint::of(&image), before, "the image was written");
}

#[test]
fn fio_verifies_its_random_writes_while_another_client_reads_the_image() {
    if !require(&["mkfs.btrfs", "fio", "nbdcopy"]) {
        return;
    }
    let image = btrfs_image();
    let server = serve_btrfs();
    let folder = server.setup().file("fio");
    std::fs::create_dir(&folder).expect("a new folder");
    let fio = fio_randwrite(&server.uri(EXPORT_A)).inside(&folder);
    let writing = thread::spawn(move || fio.ok());
    let out = server.setup().file("b.img");
    while !writing.is_finished() {
        let seen = copy_out(&server.uri(EXPORT_B), &out);
        assert_same(&seen, &read_file(&image), "disk@b while disk@a is written");
    }
    writing.join().expect("fio found what it wrote");
    let seen = copy_out(&server.uri(EXPORT_B), &out);
    assert_same(&seen, &read_file(&image), "disk@b");
}

fn fio_randwrite(uri: &str) -> Tool {
    Tool::new("fio")
        .args(["--name=v", "--ioengine=nbd", "--rw=randwrite"])
        .args(["--bssplit=4k/60:512/20:16k/10:128k/10", "--blockalign=512"])
        .args(["--size=200m", "--io_size=48m", "--iodepth=16"])
        .args(["--randseed=7", "--fsync=64"])
        .args(["--verify=crc32c", "--do_verify=1", "--verify_fatal=1"])
        .args(["--verify_state_save=0"])
        .arg(format!("--uri={uri}"))
}

#[test]
fn nbdkit_finds_all_of_its_disk_again() {
    if !require(&["nbdkit", "nbdcopy"]) {
        return;
    }
    // sparse-random knows its contents and checks them when it is the target of a copy.
    let server = Setup::of_bytes(&pseudo_random(8, 32 << 20)).start();
    let uri = server.uri("disk@a");
    let source = ["sparse-random", "32M", "seed=7", "percent=40"];
    Tool::new("nbdcopy")
        .args(["--flush", "--", "[", "nbdkit", "--exit-with-parent"])
        .args(source)
        .args(["]", &uri])
        .ok();
    Tool::new("nbdcopy")
        .args(["--", &uri, "[", "nbdkit", "--exit-with-parent"])
        .args(source)
        .arg("]")
        .ok();
}
