//! Clients that take their replies late or never: what they get then, and what that costs others.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::time::{Duration, Instant};

use support::nbd::{Client, Request};
use support::{Server, Setup, assert_same, pseudo_random, write_file};

/// How long a client may take no replies while others wait for the memory.
const STALL: Duration = Duration::from_secs(5);

const MIB: u32 = 1 << 20;

/// More than the buffers of two sockets hold.
const READS: usize = 16;

fn image() -> Vec<u8> {
    pseudo_random(3, 16 * MIB as usize)
}

/// Replies that were queued before the image changed name bytes that are others now.
#[test]
fn a_slow_client_gets_nothing_of_an_image_that_has_changed_meanwhile() {
    let server = Setup::of_bytes(&image()).start();
    let mut client = server.client("disk@slow");
    for nth in 0..READS as u64 {
        let read = Request::read(nth * u64::from(MIB), MIB);
        client.submit(&read).expect("a request");
    }
    // The second request to be answered, by another connection, shows that the first are queued.
    let mut other = server.client("disk@slow");
    other.read(0, 1).expect("a read");
    write_file(server.setup().image(), &[0xee; 16 * MIB as usize]);
    server.wait_for_log(&["disk", "changed while it was served"]);
    let mut good = 0;
    while let Ok((_, Ok(bytes))) = client.answer() {
        let at = good * MIB as usize;
        assert_same(&bytes, &image()[at..at + MIB as usize], "a late reply");
        good += 1;
    }
    assert!(good < READS, "nothing was late");
}

/// Sessions that hold as much as they may, which leaves the shard less than a large request needs.
const STUCK: usize = 8;
const LARGEST: u32 = 32 * MIB;

/// A shard whose memory is held by clients that take no replies.
fn starved() -> (Server, Vec<Client>) {
    let server = Setup::of_bytes(&vec![1; 64 * MIB as usize])
        .with_arg("--shards")
        .with_arg("1")
        .start();
    let mut writer = server.client("disk@stuck");
    for nth in 0..2 {
        let payload = vec![2; LARGEST as usize];
        writer
            .write(nth * u64::from(LARGEST), &payload)
            .expect("a write");
    }
    let stuck = (0..STUCK).map(|_| {
        let mut client = server.client("disk@stuck");
        for nth in 0..2 {
            let read = Request::read(nth * u64::from(LARGEST), LARGEST);
            client.submit(&read).expect("a request");
        }
        client
    });
    let stuck = stuck.collect();
    // A connection of the same client is served once what came before has been taken up.
    server.client("disk@stuck").read(0, 1).expect("a read");
    (server, stuck)
}

#[test]
fn clients_that_take_no_replies_cost_others_neither_small_requests_nor_flushes() {
    let (server, _stuck) = starved();
    let started = Instant::now();
    let mut client = server.client("disk@good");
    client.write(5, &[3; 100_000]).expect("a write");
    client.flush().expect("a flush");
    assert_eq!(client.read(5, 100_000).expect("a read"), [3; 100_000]);
    assert!(started.elapsed() < STALL, "it had to wait");
}

#[test]
fn a_client_that_takes_no_replies_is_cut_once_another_needs_its_memory() {
    let (server, _stuck) = starved();
    let mut client = server.client("disk@good");
    let payload = vec![4; LARGEST as usize];
    client.write(0, &payload).expect("a write");
    let seen = client.read(0, LARGEST).expect("a read");
    assert_same(&seen, &payload, "a large read");
    server.wait_for_log(&["has taken no reply", "cut"]);
}

/// Requests that are queued for one that has gone are not worth a disk's time.
#[test]
fn what_machines_asked_for_that_were_switched_off_is_not_read() {
    const LARGE: u32 = 24 * MIB;
    let server = Setup::of_bytes(&vec![1; 32 * MIB as usize]).start();
    let names: Vec<_> = (0..8).map(|nth| format!("disk@gone-{nth}")).collect();
    let clients: Vec<_> = names
        .iter()
        .map(|name| {
            let mut client = server.client(name);
            let payload = vec![2; LARGE as usize];
            client.write(0, &payload).expect("a write");
            for _ in 0..1000 {
                let read = Request::read(0, LARGE);
                client.submit(&read).expect("room in the socket");
            }
            client
        })
        .collect();
    drop(clients);
    for name in &names {
        let used = name.replace("disk", "used disk+1");
        server.wait_for_log(&[&used]);
    }
}
