//! Export names that lead nowhere: refused with an error that says so, and nothing is left behind.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::fs;
use std::path::Path;

use support::nbd::{Client, Handshake, Refused, assert_refused, go_data, option, reply};
use support::{Server, Setup, assert_same, pseudo_random};

const SIZE: usize = 1 << 20;

fn image() -> Vec<u8> {
    pseudo_random(11, SIZE)
}

fn serve() -> Server {
    Setup::of_bytes(&image()).start()
}

/// A client that comes afterwards is served as if nothing had been.
#[track_caller]
fn assert_next_is_served(server: &mut Server) {
    assert!(server.is_running());
    let mut client = server.client("disk@next");
    let seen = client.read(0, 65_536).expect("a read");
    assert_same(&seen, &image()[..65_536], "what the next client reads");
}

fn handshake(server: &Server) -> Handshake {
    Handshake::start(&server.address()).expect("a greeting")
}

/// Asserts that the haggling can go on and lead to an export.
#[track_caller]
fn assert_still_haggles(handshake: Handshake) {
    let mut client = handshake.go("disk@later").expect("an export");
    assert_lives_on(&mut client);
}

/// The session answers a good request.
#[track_caller]
fn assert_lives_on(client: &mut Client) {
    let seen = client.read(4096, 4096).expect("the session lives on");
    assert_same(&seen, &image()[4096..8192], "a read after an error");
}

/// Names that lead nowhere.
fn bad_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        "nothing",
        "nothing@a",
        "disk@",
        "@a@b",
        "disk@a@b",
        "disk@a/b",
        "disk@../x",
        "disk+99@a",
        "disk+@a",
        "disk+x@a",
        "disk+-1@a",
        "disk+18446744073709551617@a",
        "disk@a b",
        "disk@.",
        "disk@..",
        "disk@12345",
        "//disk",
        "../disk",
        "disk\n",
        "disk@\u{e9}",
        "DISK",
    ]
    .map(|name| name.as_bytes().to_vec())
    .to_vec();
    names.push(b"disk\0@a".to_vec());
    names.push(b"disk@\xff\xfe".to_vec());
    names.push([b"disk@".as_slice(), &[b'a'; 65]].concat());
    names.push(vec![b'a'; 4096]);
    names.push(vec![b'a'; 4097]);
    names
}

const KINDS: [u32; 4] = [
    reply::ERR_UNKNOWN,
    reply::ERR_INVALID,
    reply::ERR_POLICY,
    reply::ERR_TOO_BIG,
];

#[test]
fn bad_names_are_refused_and_the_haggling_goes_on() {
    let server = serve();
    let mut handshake = handshake(&server);
    for name in bad_names() {
        let shown = String::from_utf8_lossy(&name).into_owned();
        match handshake.try_go(&name) {
            Err(Refused::Reply { kind, .. }) if KINDS.contains(&kind) => {}
            other => panic!("{shown:?}: {other:?}"),
        }
    }
    assert_still_haggles(handshake);
}

#[test]
fn info_refuses_what_go_refuses() {
    let server = serve();
    let mut handshake = handshake(&server);
    for name in bad_names() {
        let refused = handshake.ask(option::INFO, &go_data(&name, &[]));
        assert_refused(refused, &KINDS);
    }
}

#[test]
fn an_unknown_image_is_unknown_and_the_message_names_it() {
    let server = serve();
    match handshake(&server).try_go(b"nothing@a") {
        Err(Refused::Reply { kind, message }) => {
            assert_eq!(kind, reply::ERR_UNKNOWN);
            assert!(message.contains("nothing"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn export_name_closes_on_bad_names() {
    let mut server = serve();
    for name in ["nothing", "disk@", "disk@../x"] {
        match handshake(&server).export_name(name) {
            Err(Refused::Closed(_)) => {}
            Err(other) => panic!("{name}: {other:?}"),
            Ok(_) => panic!("{name} was opened"),
        }
    }
    assert_next_is_served(&mut server);
}

#[test]
fn export_name_opens_good_names() {
    let server = serve();
    for flags in [1, 3] {
        let handshake = Handshake::start_with(&server.address(), flags);
        let handshake = handshake.expect("a greeting");
        let mut client = handshake.export_name("disk@a").expect("an export");
        assert_eq!(client.size, SIZE as u64);
        assert_lives_on(&mut client);
    }
}

#[test]
fn refused_names_leave_nothing_in_the_state_directory() {
    let server = serve();
    let mut handshake = handshake(&server);
    for name in bad_names() {
        assert!(handshake.try_go(&name).is_err());
    }
    let stopped = server.terminate();
    let overlays = stopped.state().join("overlays");
    assert_eq!(folders_in(&overlays), ["disk+1"]);
    assert_eq!(folders_in(&overlays.join("disk+1")), [] as [&str; 0]);
}

fn folders_in(folder: &Path) -> Vec<String> {
    fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
