//! libnbd with its own checks switched off: requests that no client may send.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use support::{Setup, Tool, pseudo_random, require, skipped};

/// The system's own, which has the package that the script needs.
const PYTHON: &str = "/usr/bin/python3";

#[test]
fn illegal_requests_of_libnbd_are_refused_and_the_session_lives_on() {
    if !require(&[PYTHON]) {
        return;
    }
    let has_nbd = Tool::new(PYTHON).args(["-c", "import nbd"]).run();
    if has_nbd.code != Some(0) {
        assert!(std::env::var_os("CI").is_none(), "{has_nbd}");
        return skipped("python3-libnbd");
    }
    let server = Setup::of_bytes(&pseudo_random(6, 1 << 20)).start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/illegal_requests.py");
    let said = Tool::new(PYTHON).args([script, &server.uri("disk@a")]).ok();
    assert_eq!(said.trim(), "all refused");
}
