//! The unit of tools/systemd under a real systemd: reloads, restarts, crashes.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::thread;

use support::nbd::{Client, Handshake};
use support::{Manager, Rewriter, Worker, libnbd_until, require, write_file};

const BLOCK: usize = 4096;

fn manager() -> Option<Manager> {
    Manager::start(&vec![0; 512 * BLOCK])
}

/// Clients that write, read and compare while the service is told something ten times.
fn outlive(word: &str) {
    let Some(manager) = manager() else {
        return;
    };
    let address = manager.address();
    let workers: Vec<_> = ["disk@a", "disk@a", "disk@b", "disk"]
        .into_iter()
        .zip(0..)
        .map(|(export, nth)| {
            let client = Client::open(&address, export).expect("an export");
            Worker::start(client, Rewriter::at(nth * 5000))
        })
        .collect();
    let stop = manager.file("stop");
    let libnbd = require(&["nbdinfo"]).then(|| libnbd_until(&stop, manager.uri("disk@c")));
    let mut mains = vec![manager.shows("MainPID")];
    for _ in 0..10 {
        workers.iter().for_each(|worker| worker.goes_on(20));
        let told = manager.systemctl(&[word, "cowherd"]);
        assert_eq!(told.code, Some(0), "{told}");
        workers.iter().for_each(|worker| worker.goes_on(5));
        assert_eq!(manager.shows("ActiveState"), "active");
        mains.push(manager.shows("MainPID"));
    }
    workers.into_iter().for_each(Worker::end);
    write_file(&stop, b"");
    if let Some(libnbd) = libnbd {
        let said = libnbd.join().expect("a client without an error");
        assert!(said.starts_with("rounds "), "{said}");
    }
    mains.dedup();
    assert_eq!(mains.len(), 11, "{mains:?}");
    assert_eq!(manager.shows("NRestarts"), "0");
}

#[test]
fn ten_reloads_break_no_connection() {
    outlive("reload");
}

#[test]
fn ten_restarts_break_no_connection() {
    outlive("restart");
}

#[test]
fn a_restart_after_a_reload_breaks_no_connection() {
    let Some(manager) = manager() else {
        return;
    };
    let mut client = Client::open(&manager.address(), "disk@a").expect("an export");
    for (turn, word) in (1..).zip(["reload", "restart", "reload", "reload", "restart"]) {
        client.write(5, &[turn; 100]).expect("a write");
        let told = manager.systemctl(&[word, "cowherd"]);
        assert_eq!(told.code, Some(0), "{told}");
        assert_eq!(client.read(5, 100).expect("a read"), [turn; 100], "{word}");
    }
}

#[test]
fn a_reload_with_a_mistake_in_the_config_fails_and_changes_nothing() {
    let Some(manager) = manager() else {
        return;
    };
    let mut client = Client::open(&manager.address(), "disk@a").expect("an export");
    let main = manager.shows("MainPID");
    manager.configure("nonsense");
    let told = manager.systemctl(&["reload", "cowherd"]);
    assert_eq!(told.code, Some(1), "{told}");
    assert_eq!(manager.shows("ActiveState"), "active");
    assert_eq!(manager.shows("MainPID"), main);
    assert!(manager.log().contains("nonsense"), "{}", manager.log());
    client.write(0, b"mine").expect("a write");
}

#[test]
fn a_server_that_is_killed_is_started_again_and_who_connects_meanwhile_waits() {
    let Some(manager) = manager() else {
        return;
    };
    let address = manager.address();
    let mut client = Client::open(&address, "disk@a").expect("an export");
    client.write(0, b"mine").expect("a write");
    // One that was started by a reload is as good.
    for word in ["show", "reload"] {
        manager.systemctl(&[word, "cowherd"]);
        let killed = manager.systemctl(&["kill", "--signal=KILL", "cowherd"]);
        assert_eq!(killed.code, Some(0), "{killed}");
        let at = address.clone();
        let connecting = thread::spawn(move || Handshake::start(&at).expect("a greeting"));
        let handshake = connecting.join().expect("a handshake");
        let mut client = handshake.go("disk@a").expect("an export");
        assert_eq!(client.read(0, 4).expect("a read"), b"mine");
        manager.until_active();
    }
}

#[test]
fn a_service_that_is_stopped_has_ended_well_and_keeps_no_connection() {
    let Some(manager) = manager() else {
        return;
    };
    let mut client = Client::open(&manager.address(), "disk@a").expect("an export");
    client.write(0, b"mine").expect("a write");
    let told = manager.systemctl(&["stop", "cowherd"]);
    assert_eq!(told.code, Some(0), "{told}");
    client.wire.assert_closed();
    assert_eq!(manager.shows("ActiveState"), "inactive");
    assert_eq!(manager.shows("Result"), "success");
    assert_eq!(manager.shows("NFileDescriptorStore"), "0");
}

#[test]
fn systemd_takes_the_unit() {
    let Some(manager) = manager() else {
        return;
    };
    if require(&["systemd-analyze"]) {
        let verify = manager.tool("systemd-analyze");
        let said = verify.args(["verify", "--man=no", "/etc/systemd/system/cowherd.service"]);
        let said = said.run();
        assert!(said.code == Some(0) && said.stderr.is_empty(), "{said}");
    }
}
