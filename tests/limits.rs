//! Limits of connections, handshakes and requests, each reached, and neighbours that do not notice.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::io;
use std::time::Duration;

use cowherd::limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::nbd::{Address, Client, Request, Wire, assert_refused, command, reply};
use support::{Server, Setup, eventually};

fn serve() -> Server {
    Setup::of_bytes(&[7; 1 << 20]).start()
}

/// A connection from 127.0.0.`host` that was greeted; an error where it was closed instead.
fn greeted(host: u8, address: &Address) -> io::Result<Wire> {
    let mut wire = Wire::connect_from([127, 0, 0, host], address)?;
    wire.receive(18)?;
    Ok(wire)
}

fn many(host: u8, count: usize, address: &Address) -> Vec<Wire> {
    let wires = (0..count).map(|_| greeted(host, address));
    wires.collect::<Result<_, _>>().expect("a greeting")
}

/// The test has one end of every connection.
fn raise_file_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let most = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, most).expect("the limit can be raised");
}

#[test]
fn an_address_has_so_many_connections_and_its_neighbours_have_theirs() {
    raise_file_limit();
    let server = serve();
    let address = server.address();
    let mut hoard = many(1, limits::CONNECTIONS_PER_ADDRESS_MAX, &address);
    assert!(greeted(1, &address).is_err(), "one too many was greeted");
    server.wait_for_log(&["closed", "connections from its address already"]);
    greeted(2, &address).expect("a neighbour");
    hoard.pop();
    eventually(|| greeted(1, &address));
}

#[test]
fn sessions_count_as_handshakes_do() {
    raise_file_limit();
    let server = serve();
    let address = server.address();
    let clients: Vec<_> = (0..8).map(|_| server.client("disk@a")).collect();
    let rest = limits::CONNECTIONS_PER_ADDRESS_MAX - clients.len();
    let _hoard = many(1, rest, &address);
    assert!(greeted(1, &address).is_err(), "one too many was greeted");
    drop(clients);
    eventually(|| greeted(1, &address));
}

#[test]
fn an_overlay_has_so_many_connections_and_other_overlays_have_theirs() {
    let server = serve();
    let address = server.address();
    let open = |_| server.client("disk@a");
    let mut hoard: Vec<_> = (0..limits::CONNECTIONS_PER_CLIENT_MAX).map(open).collect();
    let refused = Client::open(&address, "disk@a").map(drop);
    assert_refused(refused, &[reply::ERR_POLICY]);
    server.wait_for_log(&["disk@a", "connections already"]);
    server.client("disk@b");
    hoard.pop();
    eventually(|| Client::open(&address, "disk@a"));
}

#[test]
fn so_many_handshakes_are_under_way_and_one_that_ends_makes_room() {
    raise_file_limit();
    let server = serve();
    let address = server.address();
    let mut hoard = Vec::new();
    for host in 11.. {
        let left = limits::HANDSHAKES_MAX - hoard.len();
        // No more from one address are let in when half of all are taken.
        let count = left.min(limits::HANDSHAKES_CROWDED);
        hoard.extend(many(host, count, &address));
        if hoard.len() == limits::HANDSHAKES_MAX {
            break;
        }
    }
    assert!(greeted(1, &address).is_err(), "one too many was greeted");
    server.wait_for_log(&["closed", "handshakes are under way already"]);
    hoard.pop();
    eventually(|| Client::open(&address, "disk@a"));
}

#[test]
fn an_address_with_many_handshakes_gets_no_more_when_half_are_taken() {
    raise_file_limit();
    let server = serve();
    let address = server.address();
    let half = limits::HANDSHAKES_MAX / limits::CONNECTIONS_PER_ADDRESS_MAX / 2;
    let hosts = 11..11 + u8::try_from(half).expect("a few");
    let greedy = hosts.map(|host| many(host, limits::CONNECTIONS_PER_ADDRESS_MAX, &address));
    let _hoard: Vec<_> = greedy.collect();
    let _some = many(1, limits::HANDSHAKES_CROWDED, &address);
    assert!(greeted(1, &address).is_err(), "one too many was greeted");
    greeted(2, &address).expect("a neighbour");
}

#[test]
fn a_handshake_that_does_not_come_to_the_point_is_closed() {
    let server = serve();
    let mut wire = greeted(1, &server.address()).expect("a greeting");
    wire.assert_closed();
    let seconds = limits::HANDSHAKE_TIME.as_secs().to_string();
    server.wait_for_log(&["more than", &seconds, "to choose an export"]);
}

/// More bytes of requests than two sockets take that nobody reads from.
const WITHOUT_END: usize = 64 << 20;

#[test]
fn who_asks_and_takes_no_answers_is_no_longer_listened_to() {
    let server = serve();
    let mut client = server.client("disk@a");
    let read = Request::read(0, 65_536);
    let request = read.header(0);
    let flood = request.repeat(WITHOUT_END / request.len());
    let patience = Duration::from_secs(2);
    let sent = client.wire.send_for(patience, &flood).expect("requests");
    assert!(sent < flood.len(), "all of them were taken");
    let mut neighbour = server.client("disk@b");
    neighbour.read(0, 4096).expect("a neighbour");
    // Whoever takes its answers after all gets them.
    for _ in 0..limits::SESSION_REQUESTS_MAX * 4 {
        client.wire.receive(16 + 65_536).expect("an answer");
    }
}

#[test]
fn a_storm_of_connections_is_accepted_whole() {
    raise_file_limit();
    let server = serve();
    let address = server.address();
    // All of them are there before one is served: none may be refused or lost.
    let connect = |_| Wire::connect(&address).expect("room in the backlog");
    let mut storm: Vec<_> = (0..limits::CONNECTIONS_PER_ADDRESS_MAX)
        .map(connect)
        .collect();
    for wire in &mut storm {
        wire.receive(18).expect("a greeting");
    }
    drop(storm);
    let mut client = eventually(|| Client::open(&address, "disk@a"));
    client
        .call(&Request::plain(command::FLUSH, 0, 0))
        .expect("a flush");
}
