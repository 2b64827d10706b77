//! What the server listens on, several at once, handed over by systemd, and how it stops.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;

use rustix::process::Signal;
use support::nbd::{Address, Client, Failure, Request, errno, hasty};
use support::{Setup, Tool, assert_same, pseudo_random, require, skipped, write_file};

fn image() -> Vec<u8> {
    pseudo_random(1, 100_000)
}

/// The image can be read at this URI of the server.
#[track_caller]
fn assert_served(uri: &str) {
    let mut client = Client::open(&Address::of_uri(uri), "disk@a").expect("an export");
    assert_same(&client.read_all().expect("a read"), &image(), uri);
}

fn has_v6() -> bool {
    let found = TcpListener::bind("[::1]:0").is_ok();
    if !found {
        skipped("IPv6 on the loopback");
    }
    found
}

#[test]
fn a_port_of_zero_becomes_a_free_one_that_is_told() {
    let server = Setup::of_bytes(&image()).with_listen("127.0.0.1:0").start();
    let Address::Tcp(at) = server.address() else {
        panic!("TCP was asked for");
    };
    assert_ne!(at.port(), 0);
    assert_served(&server.uri(""));
}

/// Ports that nobody has on any address: of streams, of datagrams, of streams.
fn free_everywhere() -> [u16; 3] {
    let streams = [0; 2].map(|_| TcpListener::bind("0.0.0.0:0").expect("a port"));
    let datagrams = UdpSocket::bind("0.0.0.0:0").expect("a port");
    let [one, other] = streams.map(|socket| socket.local_addr());
    [one, datagrams.local_addr(), other].map(|address| address.expect("an address").port())
}

/// The config has single addresses in place of all, or the other way round.
#[test]
fn a_take_over_moves_to_other_addresses_of_the_same_ports() {
    for (old, new) in [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0")] {
        let [nbd, tftp, http] = free_everywhere();
        let setup = Setup::of_bytes(&image()).with_listen(format!("{old}:{nbd}"));
        let (root, config) = (setup.file("tree"), setup.file("cowherd.toml"));
        std::fs::create_dir(&root).expect("room");
        let write = |tftp: &str, http: &str| {
            let listen = format!("listen = \"{tftp}\"\n[http]\nlisten = \"{http}\"\n");
            let disk = setup.image();
            let text = format!("[tftp]\nroot = {root:?}\n{listen}[image.other]\nfile = {disk:?}\n");
            write_file(&config, text.as_bytes());
        };
        write(&format!("{old}:{tftp}"), &format!("{old}:{http}"));
        let setup = setup.clone().with_arg("--config").with_arg(&config);
        let mut first = setup.start();
        let at = |beginning: &str| {
            let line = first.said(beginning);
            let mut parts = line.split([' ', '/']);
            let address = parts.find(|part| part.contains(old));
            address.expect("an address").replace(old, new)
        };
        let (nbd, tftp, http) = (at("listening on "), at("tftp on "), at("http on "));
        let mut client = first.client("disk@a");
        client.write(0, b"mine").expect("a write");
        write(&tftp, &http);
        let next = first.setup().clone().with_listen_only(&nbd);
        let mut next = first.successor(|command| {
            *command = next.command();
            command.arg("--takeover");
        });
        next.wait_until_ready();
        assert_eq!(first.ended().code(), Some(0), "of the old server");
        let said = [&nbd, &tftp, &http].map(|at| at.clone());
        for (line, at) in next.announced().iter().zip(said) {
            assert!(line.contains(&at), "{line}, not {at}");
        }
        assert_eq!(client.read(0, 4).expect("a read"), b"mine");
        drop(client);
        let kept = next.client("disk@a").read(0, 4).expect("a read");
        assert_eq!(kept, b"mine");
        next.terminate();
    }
}

#[test]
fn ipv6_is_served() {
    if !has_v6() {
        return;
    }
    let server = Setup::of_bytes(&image()).with_listen("[::1]:0").start();
    assert!(server.uri("").starts_with("nbd://[::1]:"));
    assert_served(&server.uri(""));
}

#[test]
fn a_host_name_is_looked_up() {
    let server = Setup::of_bytes(&image()).with_listen("localhost:0").start();
    for uri in server.uris() {
        assert_served(&uri);
    }
}

#[test]
fn a_unix_socket_is_served() {
    let setup = Setup::of_bytes(&image());
    let address = format!("unix:{}", setup.file("socket").display());
    let server = setup.with_listen(address).start();
    assert!(server.uri("").starts_with("nbd+unix:///?socket=/"));
    assert_served(&server.uri(""));
}

#[test]
fn foreign_clients_find_the_unix_socket_by_its_uri() {
    if !require(&["nbdinfo"]) {
        return;
    }
    let setup = Setup::of_bytes(&image());
    let address = format!("unix:{}", setup.file("socket").display());
    let server = setup.with_listen(address).start();
    let size = Tool::new("nbdinfo").arg("--size").arg(server.uri("disk@a"));
    assert_eq!(size.ok().trim(), "100000");
}

#[test]
fn a_nameless_client_of_a_unix_socket_is_served() {
    let setup = Setup::of_bytes(&image());
    let address = format!("unix:{}", setup.file("socket").display());
    let server = setup.with_listen(address).start();
    let seen = server.client("disk").read_all().expect("a read");
    assert_same(&seen, &image(), "disk");
}

#[test]
fn several_addresses_lead_to_the_same_overlays() {
    let setup = Setup::of_bytes(&image());
    let address = format!("unix:{}", setup.file("socket").display());
    let server = setup
        .with_listen("127.0.0.1:0")
        .with_listen("127.0.0.2:0")
        .with_listen(address)
        .start();
    let uris = server.uris();
    assert_eq!(uris.len(), 3, "{uris:?}");
    let clients = uris
        .iter()
        .map(|uri| Client::open(&Address::of_uri(uri), "disk@a").expect("an export"));
    for (number, mut client) in clients.enumerate() {
        if number == 0 {
            client.write(5000, b"written once").expect("a write");
        }
        let seen = client.read(5000, 12).expect("a read");
        assert_eq!(seen, b"written once");
    }
}

#[test]
fn a_stale_unix_socket_is_replaced() {
    let setup = Setup::of_bytes(&image());
    let path = setup.file("socket");
    drop(UnixListener::bind(&path).expect("a new socket"));
    assert!(path.exists(), "the file outlives its listener");
    let address = format!("unix:{}", path.display());
    let server = setup.with_listen(address).start();
    assert_served(&server.uri(""));
}

#[test]
fn a_killed_server_starts_again_on_its_unix_socket() {
    let setup = Setup::of_bytes(&image());
    let address = format!("unix:{}", setup.file("socket").display());
    let server = setup.with_listen(address).start();
    let server = server.kill().start();
    assert_served(&server.uri(""));
}

#[test]
fn a_killed_server_starts_again_on_its_port() {
    let server = Setup::of_bytes(&image()).start();
    let Address::Tcp(at) = server.address() else {
        panic!("TCP was asked for");
    };
    let mut client = server.client("disk@a");
    client.read(0, 512).expect("a read");
    // The connection is left in TIME_WAIT or worse.
    let server = server.kill().with_listen(at.to_string()).start();
    assert_served(&server.uri(""));
}

#[test]
fn a_socket_of_systemd_is_taken_over() {
    if !require(&["nbdinfo"]) {
        return;
    }
    // libnbd hands over a listening socket as LISTEN_FDS=1, the way systemd does.
    let setup = Setup::of_bytes(&image());
    let said = Tool::new("nbdinfo")
        .args(["--", "[", env!("CARGO_BIN_EXE_cowherd"), "serve"])
        .arg(setup.image())
        .arg("--state")
        .arg(setup.state())
        .arg("]")
        .ok();
    assert!(said.contains("export-size: 100000"), "{said}");
}

#[test]
fn a_copy_through_a_socket_of_systemd_is_kept() {
    if !require(&["nbdcopy"]) {
        return;
    }
    let setup = Setup::of_bytes(&image());
    let source = setup.file("source.img");
    write_file(&source, &pseudo_random(2, 100_000));
    let serve = |tool: Tool| {
        tool.args(["[", env!("CARGO_BIN_EXE_cowherd"), "serve"])
            .arg(setup.image())
            .arg("--state")
            .arg(setup.state())
            .arg("]")
    };
    serve(Tool::new("nbdcopy").args(["--flush", "--"]).arg(&source)).ok();
    let image_after = support::read_file(setup.image());
    assert_same(&image_after, &image(), "the image");
}

#[test]
fn several_images_are_served_side_by_side() {
    let server = Setup::new()
        .with_bytes("red.img", &pseudo_random(1, 50_000))
        .with_bytes("blue.raw", &pseudo_random(2, 60_000))
        .with_bytes("green", &pseudo_random(3, 70_000))
        .start();
    for (name, seed, size) in [
        ("red", 1, 50_000),
        ("blue", 2, 60_000),
        ("green", 3, 70_000),
    ] {
        let mut client = server.client(&format!("{name}@a"));
        let seen = client.read_all().expect("a read");
        assert_same(&seen, &pseudo_random(seed, size), name);
    }
}

#[test]
fn sigterm_ends_an_idle_server() {
    Setup::of_bytes(&image()).start().terminate();
}

#[test]
fn sigint_ends_it_too() {
    let mut server = Setup::of_bytes(&image()).start();
    server.signal(Signal::INT);
    assert_eq!(server.ended().code(), Some(0));
}

#[test]
fn sigterm_keeps_what_a_connected_client_was_promised() {
    let mut disk = image();
    let server = Setup::of_bytes(&disk).start();
    let mut client = server.client("disk@a");
    for turn in 0..10_usize {
        let piece = pseudo_random(turn as u64, 3000);
        let at = turn * 9001;
        client.write(at as u64, &piece).expect("a write");
        disk[at..at + 3000].copy_from_slice(&piece);
    }
    client.flush().expect("a flush");
    let server = server.terminate().start();
    let seen = server.client("disk@a").read_all().expect("a read");
    assert_same(&seen, &disk, "after the stop");
}

#[test]
fn sigterm_with_requests_in_flight_answers_or_closes() {
    let server = Setup::of_bytes(&image()).start();
    let mut client = server.client("disk@a");
    let data = pseudo_random(5, 50_000);
    for _ in 0..100 {
        client.submit(&Request::write(0, &data)).expect("sent");
    }
    server.signal(Signal::TERM);
    while let Ok((_, result)) = client.answer() {
        if let Err(failure) = result {
            assert!(
                matches!(failure, Failure::Errno(errno::ESHUTDOWN)),
                "{failure:?}"
            );
        }
    }
    let mut server = server;
    assert_eq!(server.ended().code(), Some(0));
}

/// A client that sends reads of this length without an end, and takes the replies.
fn restless(server: &support::Server, length: u32) -> std::thread::JoinHandle<()> {
    let Address::Tcp(at) = server.address() else {
        panic!("it listens on TCP");
    };
    let reads = Request::read(0, length).header(7).repeat(500);
    let mut stream = TcpStream::connect(at).expect("a connection");
    stream.write_all(&hasty("disk@a", &reads)).expect("sent");
    let mut replies = stream.try_clone().expect("a descriptor");
    replies.read_exact(&mut [0; 5000]).expect("replies");
    std::thread::spawn(move || {
        std::thread::spawn(move || while stream.write_all(&reads).is_ok() {});
        while replies.read(&mut [0; 65536]).is_ok_and(|count| count > 0) {}
        let _ = replies.shutdown(std::net::Shutdown::Both);
    })
}

#[test]
fn sigterm_does_not_wait_for_clients_that_go_on_asking() {
    let mut server = Setup::of_bytes(&image()).start();
    let clients = [restless(&server, 512), restless(&server, 512)];
    server.signal(Signal::TERM);
    assert_eq!(server.ended().code(), Some(0));
    server.assert_never_logged(&["cutting"]);
    for client in clients {
        client.join().expect("no panic");
    }
}

#[test]
fn sigterm_does_not_answer_all_that_lies_in_a_socket() {
    let mut server = Setup::of_bytes(&vec![0; 4 << 20]).start();
    // Some gigabytes.
    let client = restless(&server, 4 << 20);
    server.signal(Signal::TERM);
    assert_eq!(server.ended().code(), Some(0));
    server.assert_never_logged(&["cutting"]);
    client.join().expect("no panic");
}

#[test]
fn a_second_sigterm_does_no_harm() {
    let mut server = Setup::of_bytes(&image()).start();
    let _client = server.client("disk@a");
    server.signal(Signal::TERM);
    server.signal(Signal::TERM);
    assert!(matches!(server.ended().code(), Some(0 | 1)));
}

#[test]
fn clients_in_the_middle_of_a_handshake_do_not_delay_the_stop() {
    let server = Setup::of_bytes(&image()).start();
    let handshake = support::nbd::Handshake::start(&server.address());
    server.terminate();
    drop(handshake);
}
