//! Names of clients that could be taken for something else: an address, a file of the server.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use support::nbd::{Client, assert_refused, reply};
use support::{Server, Setup};

const BLOCK: usize = 4096;

fn serve() -> Server {
    Setup::of_bytes(&[0; 4 * BLOCK]).start()
}

#[test]
fn the_name_of_the_own_address_is_the_overlay_of_that_address() {
    let server = serve();
    let mut unnamed = server.client("disk");
    unnamed.write(0, b"of the address").expect("a write");
    let mut named = server.client("disk@127-0-0-1");
    assert_eq!(named.read(0, 14).expect("a read"), b"of the address");
}

#[test]
fn the_name_of_another_address_is_refused() {
    let server = serve();
    for name in ["127-0-0-2", "10-77-0-12", "0--1", "fe80--1", "local"] {
        let named = Client::open(&server.address(), &format!("disk@{name}"));
        assert_refused(named.map(drop), &[reply::ERR_POLICY]);
    }
}

#[test]
fn a_client_may_be_called_like_a_file_of_the_server() {
    let setup = serve().terminate();
    for name in ["identity", "identity.tmp", "lock", "header", "data"] {
        let server = setup.clone().start();
        let mut client = server.client(&format!("disk@{name}"));
        client.write(0, name.as_bytes()).expect("a write");
        client.flush().expect("a flush");
        server.terminate();
        let server = setup.clone().start();
        let mut client = server.client(&format!("disk@{name}"));
        let len = u32::try_from(name.len()).expect("a short name");
        assert_eq!(client.read(0, len).expect("a read"), name.as_bytes());
        server.terminate();
    }
}
