//! The demo, as a stranger starts it.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use support::Setup;
use support::nbd::{assert_errno, errno};

#[test]
fn each_client_has_a_demo_of_its_own() {
    let server = Setup::new().with_arg("--demo").start();
    let mut alice = server.client("demo@alice");
    alice.write(0, b"mine").expect("a write");
    assert_eq!(alice.read(0, 4).expect("a read"), b"mine");
    let mut bob = server.client("demo@bob");
    assert_ne!(bob.read(0, 4).expect("a read"), b"mine");
}

#[test]
fn a_read_only_demo_takes_no_writes() {
    let setup = Setup::new().with_arg("--demo").with_arg("--read-only");
    let server = setup.start();
    let mut client = server.client("demo@alice");
    assert_errno(client.write(0, b"mine"), errno::EPERM);
}
