//! The tests' own client, against servers of others: it must be right before it can judge ours.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};
use support::nbd::{Address, Client, Failure, Handshake, Refused, Request, errno, flag, reply};
use support::{Tool, assert_same, pseudo_random, require, write_file};
use tempfile::TempDir;

/// A server in the background, ended by its pid file.
struct Foreign {
    folder: TempDir,
}

impl Foreign {
    fn nbdkit(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // nbdkit goes to the background once it listens, so there is nothing to wait for.
        Tool::new("nbdkit")
            .arg("-P")
            .arg(folder.path().join("pid"))
            .arg("-U")
            .arg(folder.path().join("socket"))
            .args(arguments)
            .ok();
        Self { folder }
    }

    fn qemu_nbd(size: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let image = folder.path().join("image");
        write_file(&image, &pseudo_random(5, size));
        Tool::new("qemu-nbd")
            .args(["--fork", "--persistent", "-f", "raw", "-x", "disk", "-k"])
            .arg(folder.path().join("socket"))
            .arg("--pid-file")
            .arg(folder.path().join("pid"))
            .arg(image)
            .ok();
        Self { folder }
    }

    fn address(&self) -> Address {
        Address::Unix(self.socket())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.folder.path().join("pid")).unwrap_or_default();
        if let Some(pid) = pid.trim().parse().ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

#[test]
fn what_it_writes_it_reads_back_from_nbdkit() {
    if !require(&["nbdkit"]) {
        return;
    }
    let server = Foreign::nbdkit(&["memory", "1M"]);
    let mut client = Client::open(&server.address(), "").expect("the default export");
    assert_eq!(client.size, 1 << 20);
    let data = pseudo_random(1, 10_001);
    client.write(777, &data).expect("a write");
    client.zero(1000, 24).expect("zeroes");
    client.flush().expect("a flush");
    let mut expected = vec![0; 777];
    expected.extend_from_slice(&data);
    expected.resize(1 << 20, 0);
    expected[1000..1024].fill(0);
    let actual = client.read_all().expect("a read");
    assert_same(&actual, &expected, "the disk");
    client.disconnect();
}

#[test]
fn it_keeps_many_requests_in_flight() {
    if !require(&["nbdkit"]) {
        return;
    }
    let server = Foreign::nbdkit(&["memory", "1M"]);
    let mut client = Client::open(&server.address(), "").expect("the default export");
    let data = pseudo_random(2, 4096);
    let write = client.submit(&Request::write(0, &data)).expect("a write");
    let (cookie, result) = client.answer().expect("an answer");
    assert_eq!(cookie, write);
    result.expect("it was written");
    let cookies: Vec<u64> = (0..32)
        .map(|at| client.submit(&Request::read(at * 128, 128)).expect("sent"))
        .collect();
    for _ in &cookies {
        let (cookie, result) = client.answer().expect("an answer");
        let at = cookies.iter().position(|sent| *sent == cookie);
        let at = at.expect("one of ours") * 128;
        assert_same(&result.expect("data"), &data[at..at + 128], "one read");
    }
}

#[test]
fn it_understands_error_replies() {
    if !require(&["qemu-nbd"]) {
        return;
    }
    let server = Foreign::qemu_nbd(1 << 20);
    let mut handshake = Handshake::start(&server.address()).expect("a greeting");
    match handshake.try_go(b"nothing") {
        Err(Refused::Reply { kind, .. }) => assert_eq!(kind, reply::ERR_UNKNOWN),
        other => panic!("{other:?}"),
    }
    assert_eq!(handshake.list().expect("a list"), ["disk"]);
    let facts = handshake.info("disk").expect("information");
    assert_eq!(facts.size, 1 << 20);
    let mut client = handshake.go("disk").expect("an export");
    match client.read(1 << 20, 1) {
        Err(Failure::Errno(errno::EINVAL)) => {}
        other => panic!("{other:?}"),
    }
    assert!(client.flags & flag::SEND_FLUSH != 0);
    assert_eq!(client.read(0, 10).expect("a read").len(), 10);
}

#[test]
fn it_opens_an_export_the_old_way() {
    if !require(&["qemu-nbd"]) {
        return;
    }
    let server = Foreign::qemu_nbd(1 << 20);
    let handshake = Handshake::start_with(&server.address(), 1).expect("a greeting");
    let mut client = handshake.export_name("disk").expect("an export");
    assert_same(
        &client.read_all().expect("a read"),
        &pseudo_random(5, 1 << 20),
        "the disk",
    );
}
