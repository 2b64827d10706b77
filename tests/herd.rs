//! Many clients at once, and many connections of one client.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::thread;

use support::nbd::{Address, Client, Request};
use support::{Seeded, Server, Setup, Tool, assert_same, pseudo_random, require, write_file};

const CLIENTS: u64 = 64;
const DISK: usize = 4 << 20;
const WRITES: usize = 24;

/// Writes seeded pieces with several in flight, flushes, and reads the whole disk back.
fn write_and_verify(address: &Address, name: &str, seed: u64, image: &[u8]) -> Vec<u8> {
    let mut client = Client::open(address, name).expect("an export");
    let mut random = Seeded(seed);
    let mut disk = image.to_vec();
    for _ in 0..WRITES / 4 {
        write_four(&mut client, &mut random, &mut disk);
    }
    client.flush().expect("a flush");
    let seen = client.read_all().expect("a read of all");
    assert_same(&seen, &disk, name);
    client.disconnect();
    disk
}

/// Four writes in flight at once, one in each quarter of the disk so that their order is no matter.
fn write_four(client: &mut Client, random: &mut Seeded, disk: &mut [u8]) {
    let quarter = disk.len() as u64 / 4;
    for part in 0..4 {
        let len = 1 + random.below(40_000);
        let at = part * quarter + random.below(quarter - len);
        let (at, len) = (usize::try_from(at), usize::try_from(len));
        let (at, len) = (at.expect("a small number"), len.expect("a small number"));
        let piece = random.bytes(len);
        let request = Request::write(at as u64, &piece);
        client.submit(&request).expect("a write can be sent");
        disk[at..at + len].copy_from_slice(&piece);
    }
    for _ in 0..4 {
        let (_, result) = client.answer().expect("an answer");
        result.expect("a write");
    }
}

/// Runs `work` for every client at once; what each returned, in order.
fn all_at_once<T: Send>(work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS)
            .map(|number| scope.spawn(move || work(number)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a client was not served rightly"))
            .collect()
    })
}

fn four_connections(server: &Server, export: &str) -> Vec<Client> {
    (0..4).map(|_| server.client(export)).collect()
}

#[test]
fn sixty_four_clients_at_once_each_find_their_own_data_also_after_a_kill() {
    let image = pseudo_random(1, DISK);
    let server = Setup::of_bytes(&image).start();
    let address = server.address();
    let disks = all_at_once(|number| {
        let name = format!("disk@client-{number}");
        write_and_verify(&address, &name, 1000 + number, &image)
    });
    let server = server.kill().start();
    let address = server.address();
    all_at_once(|number| {
        let name = format!("disk@client-{number}");
        let mut client = Client::open(&address, &name).expect("an export");
        let seen = client.read_all().expect("a read of all");
        let index = usize::try_from(number).expect("a small number");
        assert_same(&seen, &disks[index], &name);
    });
}

#[test]
fn nbdcopy_with_four_connections_writes_and_reads_a_whole_disk() {
    if !require(&["nbdcopy", "qemu-img"]) {
        return;
    }
    let size = 64 << 20;
    let server = Setup::of_bytes(&pseudo_random(2, size)).start();
    let source = server.setup().file("source.img");
    write_file(&source, &pseudo_random(3, size));
    let uri = server.uri("disk@a");
    Tool::new("nbdcopy")
        .args(["-C", "4", "-R", "64", "--flush"])
        .arg(&source)
        .arg(&uri)
        .ok();
    Tool::new("qemu-img")
        .args(["compare", "-f", "raw", "-F", "raw", &uri])
        .arg(&source)
        .ok();
    let out = server.setup().file("out.img");
    Tool::new("nbdcopy").args(["-C", "4", &uri]).arg(&out).ok();
    Tool::new("cmp").arg(&out).arg(&source).ok();
}

#[test]
fn a_flushed_write_is_seen_on_every_connection_of_the_client() {
    let server = Setup::of_bytes(&pseudo_random(4, 1 << 20)).start();
    let mut connections = four_connections(&server, "disk@a");
    for writer in 0..4 {
        let piece = pseudo_random(writer as u64, 5000);
        let at = 1234 + 50_000 * writer as u64;
        connections[writer].write(at, &piece).expect("a write");
        connections[writer].flush().expect("a flush");
        for reader in &mut connections {
            assert_same(&reader.read(at, 5000).expect("a read"), &piece, "a piece");
        }
    }
}

#[test]
fn a_replied_write_is_seen_on_every_connection_before_any_flush() {
    let server = Setup::of_bytes(&pseudo_random(4, 1 << 20)).start();
    let mut connections = four_connections(&server, "disk@a");
    for turn in 0..40 {
        let piece = pseudo_random(turn, 3000);
        let writer = usize::try_from(turn % 4).expect("a small number");
        connections[writer].write(4000, &piece).expect("a write");
        for reader in &mut connections {
            assert_same(&reader.read(4000, 3000).expect("a read"), &piece, "a piece");
        }
    }
}

#[test]
fn a_flush_covers_what_was_replied_on_other_connections() {
    let mut disk = pseudo_random(4, 1 << 20);
    let server = Setup::of_bytes(&disk).start();
    let mut connections = four_connections(&server, "disk@a");
    for (number, connection) in connections.iter_mut().enumerate().skip(1) {
        let piece = pseudo_random(number as u64, 6000);
        let at = 100_001 * number;
        connection.write(at as u64, &piece).expect("a write");
        disk[at..at + 6000].copy_from_slice(&piece);
    }
    connections[0].flush().expect("a flush");
    let server = server.kill().start();
    let seen = server.client("disk@a").read_all().expect("a read of all");
    assert_same(&seen, &disk, "after the kill");
}

#[test]
fn connections_without_a_client_name_share_the_overlay_of_their_address() {
    let server = Setup::of_bytes(&pseudo_random(4, 100_000))
        .with_listen("127.0.0.1:0")
        .start();
    let mut first = server.client("disk");
    let mut second = server.client("disk");
    first
        .write(4000, b"one address, one overlay")
        .expect("a write");
    let seen = second.read(4000, 24).expect("a read");
    assert_eq!(seen, b"one address, one overlay");
    let named = server.client("disk@a").read(4000, 24).expect("a read");
    assert_same(&named, &pseudo_random(4, 100_000)[4000..4024], "disk@a");
}

#[test]
fn a_client_that_reads_no_replies_does_not_stop_its_neighbours() {
    let image = pseudo_random(5, 1 << 20);
    let server = Setup::of_bytes(&image).with_arg("--shards=1").start();
    let mut stuck = server.client("disk@stuck");
    for _ in 0..64 {
        let request = Request::read(0, 1 << 20);
        stuck.submit(&request).expect("requests are small");
    }
    let disk = write_and_verify(&server.address(), "disk@lively", 6, &image);
    assert_eq!(disk.len(), image.len());
    let (_, result) = stuck.answer().expect("an answer");
    assert_same(&result.expect("a read"), &image, "the late read");
}
