//! A machine that connects again: what its dead connection had sent, and what that may still do.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rustix::process::Signal;

use support::Setup;
use support::nbd::{Request, hasty};

const BLOCK: usize = 4096;

fn write_of(cookie: u64, offset: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Request::write(offset, payload).header(cookie);
    bytes.extend_from_slice(payload);
    bytes
}

/// Reads until `end` has come.
fn read_up_to(stream: &mut UnixStream, end: &[u8]) {
    let mut seen = Vec::new();
    while !seen.ends_with(end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("more to read");
        seen.push(byte[0]);
    }
}

#[test]
fn writes_of_a_dead_connection_never_land_after_those_of_its_successor() {
    let setup = Setup::of_bytes(&[0; 4 * BLOCK])
        .with_arg("--shards")
        .with_arg("1");
    let socket = setup.file("s.sock");
    let server = setup
        .with_listen(format!("unix:{}", socket.display()))
        .start();
    let mut dead = UnixStream::connect(&socket).expect("a connection");
    dead.write_all(&hasty("disk@a", &[])).expect("a handshake");
    server.wait_for_log(&["uses", "disk+1@a"]);
    // While the server sleeps, one connection leaves writes behind, and another follows it.
    server.signal(Signal::STOP);
    let old: Vec<u8> = (0..1400)
        .flat_map(|cookie| write_of(cookie, 7, &[1; 100]))
        .collect();
    dead.write_all(&old).expect("room in the socket");
    drop(dead);
    let mut successor = UnixStream::connect(&socket).expect("a connection");
    successor
        .write_all(&hasty("disk@a", &write_of(999, 7, &[2; 100])))
        .expect("room in the socket");
    server.signal(Signal::CONT);
    // Its one reply is the last thing to come: the greeting and the answers to GO come before.
    read_up_to(&mut successor, &999u64.to_be_bytes());
    let server = server.terminate().start();
    let kept = server.client("disk@a").read(7, 100).expect("a read");
    assert_eq!(kept, [2; 100]);
}

#[test]
fn a_successor_is_served_though_its_predecessor_takes_no_replies() {
    let size = 64 << 20;
    let setup = Setup::of_bytes(&vec![5; size]);
    let server = setup.start();
    let mut stuck = server.client("disk@a");
    for _ in 0..400 {
        stuck
            .submit(&Request::read(0, 1 << 20))
            .expect("room in the socket");
    }
    let mut successor = server.client("disk@a");
    assert_eq!(successor.read(size as u64 - 5, 5).expect("a read"), [5; 5]);
    server.wait_for_log(&["older connection", "cut"]);
}

#[test]
fn a_second_live_connection_takes_nothing_from_the_first() {
    let server = Setup::of_bytes(&[0; 4 * BLOCK]).start();
    let mut first = server.client("disk@a");
    let mut second = server.client("disk@a");
    for turn in 1..50u8 {
        first.write(0, &[turn; 10]).expect("a write");
        assert_eq!(second.read(0, 10).expect("a read"), [turn; 10]);
        second.write(0, &[turn + 100; 10]).expect("a write");
        assert_eq!(first.read(0, 10).expect("a read"), [turn + 100; 10]);
    }
}
