//! Listening on real sockets, loopback only.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use super::*;

fn listen(text: &str) -> Result<Vec<Bound>, ListenError> {
    bind(&text.parse().unwrap())
}

fn refused(text: &str) -> String {
    let message = listen(text).unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

fn port_of(bound: &Bound) -> u16 {
    match &bound.address {
        BoundAddress::Tcp(address) => address.port(),
        BoundAddress::Unix(_) => panic!("no TCP socket"),
    }
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("nbd socket")
    }

    fn listen(&self) -> Result<Bound, ListenError> {
        bind(&ListenAddress::Unix(self.socket())).map(|mut bound| bound.remove(0))
    }
}

#[test]
fn any_free_port_is_told_as_a_uri() {
    let bound = listen("127.0.0.1:0").unwrap();
    let port = port_of(&bound[0]);
    let uri = format!("nbd://127.0.0.1:{port}/");
    assert_eq!(bound[0].address.to_string(), uri);
    TcpStream::connect(("127.0.0.1", port)).unwrap();
}

#[test]
fn accepting_does_not_block() {
    let bound = listen("127.0.0.1:0").unwrap();
    let Listener::Tcp(listener) = &bound[0].listener else {
        panic!("no TCP socket");
    };
    let error = listener.accept().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_busy_port_is_told_in_one_line() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let message = refused(&format!("127.0.0.1:{port}"));
    assert!(message.starts_with(&format!(
        "127.0.0.1:{port} is in use by another program: stop"
    )));
}

#[test]
fn every_address_of_a_host_name_is_listened_on() {
    let bound = listen("localhost:0").unwrap();
    assert!(!bound.is_empty());
    for one in &bound {
        TcpStream::connect(("localhost", port_of(one))).unwrap();
    }
}

#[test]
fn a_v6_socket_leaves_v4_to_others() {
    if TcpListener::bind("[::1]:0").is_err() {
        println!("SKIPPED: this machine has no IPv6");
        return;
    }
    let bound = listen("[::1]:0").unwrap();
    let uri = format!("nbd://[::1]:{}/", port_of(&bound[0]));
    assert_eq!(bound[0].address.to_string(), uri);
    let Listener::Tcp(listener) = &bound[0].listener else {
        panic!("no TCP socket");
    };
    assert!(SockRef::from(listener).only_v6().unwrap());
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let message = refused("192.0.2.1:0");
    assert!(message.contains("192.0.2.1:0"), "{message}");
    assert!(message.contains("--listen"), "{message}");
}

#[test]
fn a_unix_socket_is_told_as_a_uri_that_is_encoded() {
    let dir = Dir::new();
    let bound = dir.listen().unwrap();
    let uri = bound.address.to_string();
    assert!(uri.starts_with("nbd+unix:///?socket=/"), "{uri}");
    assert!(uri.ends_with("/nbd%20socket"), "{uri}");
    UnixStream::connect(dir.socket()).unwrap();
}

#[test]
fn a_socket_file_goes_with_its_server() {
    let dir = Dir::new();
    drop(dir.listen().unwrap());
    assert!(!dir.socket().exists());
}

#[test]
fn the_file_of_a_dead_server_is_replaced() {
    let dir = Dir::new();
    let dead = UnixListener::bind(dir.socket()).unwrap();
    // Closing is not enough: a child that another test starts right now may hold it a little
    // longer.
    SockRef::from(&dead)
        .shutdown(std::net::Shutdown::Both)
        .unwrap();
    drop(dead);
    assert!(dir.socket().exists());
    let _bound = dir.listen().unwrap();
    UnixStream::connect(dir.socket()).unwrap();
}

#[test]
fn the_file_of_a_live_server_is_left_alone() {
    let dir = Dir::new();
    let _live = UnixListener::bind(dir.socket()).unwrap();
    let message = dir.listen().unwrap_err().to_string();
    assert!(message.contains("is in use"), "{message}");
    UnixStream::connect(dir.socket()).unwrap();
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let dir = Dir::new();
    std::fs::write(dir.socket(), "letters").unwrap();
    let message = dir.listen().unwrap_err().to_string();
    assert!(message.contains("is no socket"), "{message}");
    assert!(dir.socket().exists());
}

#[test]
fn the_file_of_a_successor_is_left_alone() {
    let dir = Dir::new();
    let old = dir.listen().unwrap();
    std::fs::remove_file(dir.socket()).unwrap();
    let _new = UnixListener::bind(dir.socket()).unwrap();
    drop(old);
    assert!(dir.socket().exists());
}

#[test]
fn a_path_too_long_for_a_socket_is_refused() {
    let message = refused(&format!("unix:/tmp/{}", "x".repeat(200)));
    assert!(message.contains("can't be listened on"), "{message}");
}

/// The other half of the tests below: runs only as their child, with a socket at descriptor 3.
#[test]
fn child_serves_what_it_inherits() {
    if std::env::var_os("COWHERD_TEST_INHERIT").is_none() {
        return;
    }
    match inherited().as_ref().map(|(bound, _)| &bound[..]) {
        Ok([bound]) => println!("told: {}", bound.address),
        Ok(other) => println!("told: {} sockets", other.len()),
        Err(error) => println!("told: {error}"),
    }
}

/// What a child says that was started as systemd would, with `descriptor` at 3.
fn told_by_child(descriptor: OwnedFd) -> String {
    let script = r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@" 3<&0"#;
    let child = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["child_serves_what_it_inherits", "--nocapture"])
        .env("COWHERD_TEST_INHERIT", "1")
        .stdin(Stdio::from(descriptor))
        .output()
        .unwrap();
    String::from_utf8(child.stdout).unwrap()
}

#[test]
fn an_inherited_tcp_socket_is_adopted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("told: nbd://{}/\n", listener.local_addr().unwrap());
    let told = told_by_child(listener.into());
    assert!(told.contains(&uri), "{told}");
}

#[test]
fn an_inherited_unix_socket_is_adopted_and_its_file_left() {
    let dir = Dir::new();
    let listener = UnixListener::bind(dir.socket()).unwrap();
    let told = told_by_child(listener.into());
    assert!(told.contains("told: nbd+unix:///?socket=/"), "{told}");
    assert!(dir.socket().exists());
}

#[test]
fn an_inherited_socket_that_does_not_listen_is_refused() {
    let (mut near, mut far) = UnixStream::pair().unwrap();
    far.write_all(b"x").unwrap();
    near.read_exact(&mut [0]).unwrap();
    let told = told_by_child(near.into());
    assert!(told.contains("socket number 1 of LISTEN_FDS"), "{told}");
}

#[test]
fn nothing_is_inherited_without_the_variables() {
    assert!(inherited().unwrap().0.is_empty());
}
