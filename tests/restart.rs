//! Restarts by a service manager that keeps descriptors: the manager's side is played here, as
//! sd_notify(3) and sd_listen_fds(3) have it.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use support::nbd::{Address, Handshake, Request};
use support::{Rewriter, Server, Setup, Worker};

const BLOCK: usize = 4096;

/// What is kept, by its name.
type Kept = Arc<Mutex<Vec<(String, OwnedFd)>>>;

/// A service manager for one service.
struct Manager {
    home: tempfile::TempDir,
    kept: Kept,
}

impl Manager {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let socket = UnixDatagram::bind(home.path().join("notify")).expect("a socket");
        let kept = Kept::default();
        let same = Arc::clone(&kept);
        thread::spawn(move || while take_in(&socket, &same) {});
        Self { home, kept }
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("notify")
    }

    fn names(&self) -> Vec<String> {
        let kept = self.kept.lock().expect("no holder panics");
        kept.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Starts the service with what is kept.
    fn start(&self, setup: &Setup) -> Server {
        let kept = self.kept.lock().expect("no holder panics");
        // Out of the way of the numbers that they get.
        let high: Vec<OwnedFd> = kept
            .iter()
            .map(|(_, kept)| fcntl_dupfd_cloexec(kept, 100).expect("a number"))
            .collect();
        let names: Vec<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
        let mut script = String::new();
        for (number, descriptor) in (3..).zip(&high) {
            fcntl_setfd(descriptor, FdFlags::empty()).expect("a descriptor");
            let from = descriptor.as_raw_fd();
            script += &format!("exec {number}<&{from} {from}<&-\n");
        }
        script += "export LISTEN_PID=$$\nexec \"$@\"";
        let count = format!("LISTEN_FDS={}", high.len());
        let words = [
            "env".to_owned(),
            format!("NOTIFY_SOCKET={}", self.socket().display()),
            "FDSTORE=100".to_owned(),
            format!("LISTEN_FDNAMES={}", names.join(":")),
            "bash".to_owned(),
            "-c".to_owned(),
            // The tests' own command line has no such variable.
            format!("export {count}\n{script}"),
            "bash".to_owned(),
        ];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        setup.clone().run_by(&words).start()
    }
}

/// Takes one message in.
fn take_in(socket: &UnixDatagram, kept: &Kept) -> bool {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let Ok(got) = recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) else {
        return false;
    };
    let mut passed = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            passed.extend(descriptors);
        }
    }
    let text = String::from_utf8_lossy(&bytes[..got.bytes]).into_owned();
    let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
    let mut kept = kept.lock().expect("no holder panics");
    if text.contains("FDSTOREREMOVE=1") {
        kept.retain(|(other, _)| Some(other.as_str()) != name);
    } else if text.contains("FDSTORE=1") {
        let name = name.expect("a name").to_owned();
        assert!(!name.contains(':'), "{name}");
        // The real one compares files; names are as good here.
        if kept.iter().all(|(other, _)| *other != name) {
            kept.extend(passed.into_iter().map(|one| (name.clone(), one)));
        }
    }
    true
}

fn setup() -> Setup {
    Setup::of_bytes(&[7; 64 * BLOCK])
}

/// The same address again, also where the socket was not kept.
fn at(address: &Address, setup: &Setup) -> Setup {
    match address {
        Address::Tcp(address) => setup.clone().with_listen_only(&address.to_string()),
        Address::Unix(_) => setup.clone(),
    }
}

#[test]
fn ten_restarts_under_load_break_no_connection() {
    let manager = Manager::new();
    let mut server = manager.start(&setup());
    let setup = at(&server.address(), server.setup());
    let workers: Vec<_> = ["disk@a", "disk@a", "disk@b", "disk"]
        .into_iter()
        .zip(0..)
        .map(|(export, nth)| Worker::start(server.client(export), Rewriter::at(nth * 5000)))
        .collect();
    for _ in 0..10 {
        workers.iter().for_each(|worker| worker.goes_on(20));
        server.terminate();
        server = manager.start(&setup);
    }
    workers.iter().for_each(|worker| worker.goes_on(5));
    workers.into_iter().for_each(Worker::end);
    server.terminate();
}

#[test]
fn a_request_that_came_while_the_server_was_away_is_answered() {
    let manager = Manager::new();
    let server = manager.start(&setup());
    let setup = at(&server.address(), server.setup());
    let mut client = server.client("disk@a");
    client.write(9, b"before").expect("a write");
    server.terminate();
    let cookie = client.submit(&Request::read(9, 6)).expect("room to send");
    let server = manager.start(&setup);
    let (answered, answer) = client.answer().expect("an answer");
    assert_eq!(
        (answered, answer.expect("a read")),
        (cookie, b"before".to_vec())
    );
    server.terminate();
}

#[test]
fn who_connects_while_the_server_is_away_waits() {
    let manager = Manager::new();
    let server = manager.start(&setup());
    let (address, setup) = (server.address(), at(&server.address(), server.setup()));
    server.terminate();
    let connecting = thread::spawn(move || Handshake::start(&address).expect("a greeting"));
    let server = manager.start(&setup);
    let handshake = connecting.join().expect("a handshake");
    let mut client = handshake.go("disk@a").expect("an export");
    assert_eq!(client.read(0, 4).expect("a read"), [7; 4]);
    server.terminate();
}

#[test]
fn sessions_that_go_on_are_not_kept_any_longer() {
    let manager = Manager::new();
    let server = manager.start(&setup());
    let setup = at(&server.address(), server.setup());
    let client = server.client("disk@a");
    let doors = manager.names();
    server.terminate();
    let kept = manager.names();
    assert!(kept.len() == doors.len() + 2, "{kept:?}");
    let server = manager.start(&setup);
    support::eventually(|| {
        let names = manager.names();
        (names == doors).then_some(()).ok_or("they are still kept")
    });
    client.disconnect();
    server.wait_for_log(&["disk+1@a", "disconnected"]);
    server.terminate();
}

#[test]
fn a_service_that_is_stopped_closes_its_sessions_and_loses_nothing() {
    let manager = Manager::new();
    let server = manager.start(&setup());
    let mut client = server.client("disk@a");
    client.write(9, b"mine").expect("a write");
    let setup = server.terminate();
    manager.kept.lock().expect("no holder panics").clear();
    client.wire.assert_closed();
    let server = manager.start(&setup);
    let read = server.client("disk@a").read(9, 4);
    assert_eq!(read.expect("a read"), b"mine");
    server.terminate();
}

#[test]
fn a_server_that_is_killed_leaves_its_door_open() {
    let manager = Manager::new();
    let server = manager.start(&setup());
    let (address, setup) = (server.address(), at(&server.address(), server.setup()));
    support::eventually(|| {
        let is_kept = !manager.names().is_empty();
        is_kept.then_some(()).ok_or("nothing is kept")
    });
    server.kill();
    let connecting = thread::spawn(move || Handshake::start(&address).expect("a greeting"));
    let server = manager.start(&setup);
    drop(connecting.join().expect("a handshake"));
    server.terminate();
}
