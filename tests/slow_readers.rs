//! Clients that take their replies late or never: what they get then, and what that costs others.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use support::nbd::Request;
use support::{Setup, assert_same, pseudo_random, write_file};

const MIB: u32 = 1 << 20;

/// More than the buffers of two sockets hold.
const READS: u64 = 16;

fn image() -> Vec<u8> {
    pseudo_random(3, 16 * MIB as usize)
}

/// Replies that were queued before the image changed name bytes that are others now.
#[test]
fn a_slow_client_gets_nothing_of_an_image_that_has_changed_meanwhile() {
    let server = Setup::of_bytes(&image()).start();
    let mut client = server.client("disk@slow");
    for nth in 0..READS {
        let read = Request::read(nth * u64::from(MIB), MIB);
        client.submit(&read).expect("a request");
    }
    // The second request to be answered, by another connection, shows that the first are queued.
    let mut other = server.client("disk@slow");
    other.read(0, 1).expect("a read");
    write_file(server.setup().image(), &[0xee; 16 * MIB as usize]);
    server.wait_for_log(&["disk", "changed while it was served"]);
    let mut good = 0;
    while let Ok((_, Ok(bytes))) = client.answer() {
        let at = good * MIB as usize;
        assert_same(&bytes, &image()[at..at + MIB as usize], "a late reply");
        good += 1;
    }
    assert!(good < READS as usize, "nothing was late");
}
