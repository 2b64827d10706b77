//! What outlives a disconnect, a clean stop and a SIGKILL, up to the last byte of odd-sized images.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use support::nbd::{Client, Request, command, flag};
use support::{Fingerprint, Server, Setup, Tool, assert_same, btrfs_image, pseudo_random, require};

/// Sizes that are no multiple of a block, of a sector, or just are.
const SIZES: [usize; 9] = [1, 511, 512, 513, 4095, 4096, 4097, 70_000, 10_000_001];

/// One image of every size, named after it.
fn serve_all_sizes() -> Server {
    SIZES
        .iter()
        .fold(Setup::new(), |setup, size| {
            setup.with_bytes(&format!("s{size}.img"), &image_of(*size))
        })
        .start()
}

fn image_of(size: usize) -> Vec<u8> {
    pseudo_random(size as u64, size)
}

/// Writes three pieces and flushes; the disk as it must be from then on.
fn write_some(client: &mut Client, mut disk: Vec<u8>, seed: u64) -> Vec<u8> {
    let size = disk.len();
    for (turn, at) in [0, size / 3, size - size.min(5)].into_iter().enumerate() {
        let piece = pseudo_random(seed + turn as u64, (size - at).min(9001));
        client.write(at as u64, &piece).expect("a write");
        disk[at..at + piece.len()].copy_from_slice(&piece);
    }
    client.flush().expect("a flush");
    disk
}

#[test]
fn images_of_every_size_are_served_to_their_last_byte() {
    let server = serve_all_sizes();
    for size in SIZES {
        let mut client = server.client(&format!("s{size}@a"));
        assert_eq!(client.size, size as u64);
        let disk = client.read_all().expect("a read of all");
        assert_same(&disk, &image_of(size), &format!("{size} bytes"));
        let last = client.read(size as u64 - 1, 1).expect("the last byte");
        assert_eq!(last, disk[size - 1..]);
    }
}

#[test]
fn images_of_every_size_are_written_to_their_last_byte_and_kept() {
    let server = serve_all_sizes();
    let mut disks = Vec::new();
    for size in SIZES {
        let mut client = server.client(&format!("s{size}@a"));
        disks.push(write_some(&mut client, image_of(size), 100));
        let seen = client.read_all().expect("a read of all");
        assert_same(&seen, &disks[disks.len() - 1], "before the kill");
    }
    let server = server.kill().start();
    for (size, disk) in SIZES.into_iter().zip(&disks) {
        let mut client = server.client(&format!("s{size}@a"));
        let seen = client.read_all().expect("a read of all");
        assert_same(&seen, disk, &format!("{size} bytes after the kill"));
    }
}

#[test]
fn the_last_byte_can_be_zeroed_and_stays_zero() {
    let server = serve_all_sizes();
    for size in SIZES {
        let mut client = server.client(&format!("s{size}@a"));
        client.zero(size as u64 - 1, 1).expect("one zero");
        client.flush().expect("a flush");
    }
    let server = server.kill().start();
    for size in SIZES {
        let mut client = server.client(&format!("s{size}@a"));
        let mut disk = image_of(size);
        disk[size - 1] = 0;
        let seen = client.read_all().expect("a read of all");
        assert_same(&seen, &disk, &format!("{size} bytes"));
    }
}

#[test]
fn flushed_bytes_outlive_a_disconnect() {
    let image = image_of(500_000);
    let server = Setup::of_bytes(&image).start();
    let mut client = server.client("disk@a");
    let disk = write_some(&mut client, image, 1);
    client.disconnect();
    let seen = server.client("disk@a").read_all().expect("a read of all");
    assert_same(&seen, &disk, "after reconnecting");
}

#[test]
fn flushed_bytes_outlive_a_kill_after_disconnect() {
    let image = image_of(500_000);
    let server = Setup::of_bytes(&image).start();
    let before = Fingerprint::of(server.setup().image());
    let mut client = server.client("disk@a");
    let disk = write_some(&mut client, image, 1);
    client.disconnect();
    let server = server.kill().start();
    let seen = server.client("disk@a").read_all().expect("a read of all");
    assert_same(&seen, &disk, "after the kill");
    assert_eq!(Fingerprint::of(server.setup().image()), before);
}

#[test]
fn flushed_bytes_outlive_a_kill_in_the_middle_of_a_session() {
    let image = image_of(500_000);
    let server = Setup::of_bytes(&image).start();
    let mut client = server.client("disk@a");
    let disk = write_some(&mut client, image, 1);
    let server = server.kill().start();
    let seen = server.client("disk@a").read_all().expect("a read of all");
    assert_same(&seen, &disk, "after the kill");
}

#[test]
fn a_write_with_fua_outlives_a_kill_without_any_flush() {
    let mut disk = image_of(100_000);
    let server = Setup::of_bytes(&disk).start();
    let mut client = server.client("disk@a");
    for at in [0_usize, 5000, 99_999] {
        let piece = pseudo_random(at as u64, 700.min(disk.len() - at));
        let write = Request::write(at as u64, &piece).flagged(flag::FUA);
        client.call(&write).expect("a write");
        disk[at..at + piece.len()].copy_from_slice(&piece);
    }
    let server = server.kill().start();
    let seen = server.client("disk@a").read_all().expect("a read of all");
    assert_same(&seen, &disk, "after the kill");
}

#[test]
fn zeroes_with_fua_outlive_a_kill_without_any_flush() {
    let mut disk = image_of(100_000);
    let server = Setup::of_bytes(&disk).start();
    let mut client = server.client("disk@a");
    for flags in [flag::FUA, flag::FUA | flag::NO_HOLE] {
        let at = 10_000 * usize::from(flags);
        let request = Request::plain(command::WRITE_ZEROES, at as u64, 9_000);
        client.call(&request.flagged(flags)).expect("zeroes");
        disk[at..at + 9_000].fill(0);
    }
    let server = server.kill().start();
    let seen = server.client("disk@a").read_all().expect("a read of all");
    assert_same(&seen, &disk, "after the kill");
}

/// Writes, zeroes and writes again what was zeroed, and never flushes; the disk as it must be.
fn change_without_flush(client: &mut Client, mut disk: Vec<u8>, seed: usize) -> Vec<u8> {
    for turn in 0..40 {
        let at = (seed * 7919 + turn * 2741) % (disk.len() - 9000);
        if turn % 3 == 1 {
            let request = Request::plain(command::WRITE_ZEROES, at as u64, 9000);
            client.call(&request).expect("zeroes");
            disk[at..at + 9000].fill(0);
        } else {
            let piece = pseudo_random((seed + turn) as u64, 1 + turn * 200);
            client.write(at as u64, &piece).expect("a write");
            disk[at..at + piece.len()].copy_from_slice(&piece);
        }
    }
    disk
}

#[test]
fn all_that_was_acknowledged_outlives_any_number_of_kills_without_a_flush() {
    // A persistent overlay and an ephemeral one.
    for export in ["disk@a", "disk"] {
        let mut disk = image_of(200_000);
        let mut server = Setup::of_bytes(&disk).start();
        for round in 0..4 {
            disk = change_without_flush(&mut server.client(export), disk, round);
            server = server.kill().start();
            let seen = server.client(export).read_all().expect("a read of all");
            assert_same(&seen, &disk, &format!("{export} after kill {round}"));
        }
        let mut client = server.client(export);
        client.flush().expect("a flush");
        disk = change_without_flush(&mut client, disk, 77);
        server = server.kill().start();
        let seen = server.client(export).read_all().expect("a read of all");
        assert_same(&seen, &disk, &format!("{export} after a flush and more"));
    }
}

#[test]
fn replied_writes_outlive_a_clean_stop_without_any_flush() {
    let mut disk = image_of(100_000);
    let server = Setup::of_bytes(&disk).start();
    let mut client = server.client("disk@a");
    let piece = pseudo_random(9, 30_000);
    client.write(33_333, &piece).expect("a write");
    disk[33_333..63_333].copy_from_slice(&piece);
    let server = server.terminate().start();
    let seen = server.client("disk@a").read_all().expect("a read of all");
    assert_same(&seen, &disk, "after the stop");
}

#[test]
fn overlays_of_two_clients_stay_apart_over_restarts() {
    let image = image_of(300_000);
    let mut server = Setup::of_bytes(&image).start();
    let (mut a, mut b) = (image.clone(), image.clone());
    for turn in 0..4 {
        a = write_some(&mut server.client("disk@a"), a, 10 + turn);
        b = write_some(&mut server.client("disk@b"), b, 20 + turn);
        server = if turn % 2 == 0 {
            server.kill().start()
        } else {
            server.terminate().start()
        };
        let seen = server.client("disk@a").read_all().expect("a read of all");
        assert_same(&seen, &a, "disk@a");
        let seen = server.client("disk@b").read_all().expect("a read of all");
        assert_same(&seen, &b, "disk@b");
    }
    let seen = server.client("disk@c").read_all().expect("a read of all");
    assert_same(&seen, &image, "disk@c, which nobody wrote");
}

#[test]
fn overlays_of_two_images_of_one_client_stay_apart() {
    let image = image_of(50_000);
    let setup = Setup::new()
        .with_bytes("red.img", &image)
        .with_bytes("blue.img", &image);
    let server = setup.start();
    let red = write_some(&mut server.client("red@a"), image.clone(), 1);
    let server = server.kill().start();
    let seen = server.client("red@a").read_all().expect("a read of all");
    assert_same(&seen, &red, "red@a");
    let seen = server.client("blue@a").read_all().expect("a read of all");
    assert_same(&seen, &image, "blue@a");
}

#[test]
fn the_number_of_shards_may_change_between_starts() {
    let image = image_of(50_000);
    let server = Setup::of_bytes(&image).with_arg("--shards=1").start();
    let disk = write_some(&mut server.client("disk@a"), image, 1);
    let stopped = server.kill();
    let server = Setup::new()
        .with_image(stopped.image())
        .with_state(stopped.state())
        .with_arg("--shards=3")
        .start();
    let seen = server.client("disk@a").read_all().expect("a read of all");
    assert_same(&seen, &disk, "disk@a");
}

#[test]
fn a_btrfs_image_stays_bit_identical_through_writes_and_a_kill() {
    if !require(&["mkfs.btrfs", "qemu-io"]) {
        return;
    }
    let image = btrfs_image();
    let before = Fingerprint::of(&image);
    let server = Setup::new().with_image(&image).start();
    Tool::new("qemu-io")
        .args(["-f", "raw", "-c", "write -P 0x3c 64k 96M", "-c", "flush"])
        .args(["-c", "write -z 1M 1M", "-c", "write -f -P 0x5a 3M 13"])
        .arg(server.uri("herd-btrfs-1@a"))
        .ok();
    let server = server.kill().start();
    let said = Tool::new("qemu-io")
        .args(["-f", "raw", "-c", "read -P 0x3c 64k 960k"])
        .args(["-c", "read -P 0 1M 1M", "-c", "read -P 0x3c 2M 1M"])
        .args(["-c", "read -P 0x5a 3M 13", "-c", "read -P 0x3c 4M 92M"])
        .arg(server.uri("herd-btrfs-1@a"))
        .ok();
    assert!(!said.contains("failed"), "{said}");
    assert_eq!(Fingerprint::of(&image), before, "the image was written");
}
