//! A client whose machine was switched off: it says no good-bye, and is given up all the same.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use support::nbd::Address;
use support::{Server, Setup, Tool, is_root, require, skipped};

/// A server in a network of its own, whose loopback is all there is to it.
fn start_alone() -> Server {
    let up = "ip link set lo up && exec \"$@\"";
    Setup::of_bytes(&[7; 65_536])
        .with_arg("--keepalive")
        .with_arg("1")
        .run_by(&["unshare", "--net", "sh", "-c", up, "sh"])
        .start()
}

/// A command in the network of the server.
fn beside(server: &Server, command: &str) -> Tool {
    let network = format!("--net=/proc/{}/ns/net", server.pid());
    Tool::new("nsenter")
        .arg(network)
        .args(["sh", "-c", command])
}

#[test]
fn a_peer_that_vanished_is_given_up() {
    if !require(&["unshare", "nsenter", "ip", "python3"]) {
        return;
    }
    if !is_root() {
        return skipped("root, for a network of its own");
    }
    let server = start_alone();
    let Address::Tcp(at) = server.address() else {
        panic!("it listens on TCP");
    };
    // It opens an export, and then its network is gone before it can close the connection.
    let script = format!(
        "import nbd, os
h = nbd.NBD()
h.connect_uri('nbd://{at}/disk@a')
assert h.pread(1, 9) == b'\\x07'
assert os.system('ip link set lo down') == 0
os._exit(0)"
    );
    beside(&server, &format!("exec /usr/bin/python3 -c \"{script}\"")).ok();
    server.wait_for_log(&["used disk+1@a", "the connection failed", "timed out"]);
}
