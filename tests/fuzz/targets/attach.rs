//! What the kernel says to `cowherd-attach`, and what a server says to it.
//!
//! Promises: no bytes panic; the messages of the kernel come to an end; a handshake never wants
//! more than a reply may have, and wants nothing at its end.

use cowherd::attach::handshake::Handshake;
use cowherd::attach::wire::incoming;
use cowherd::limits::NBD_OPTION_MAX;

/// The family's number in the seeds.
const FAMILY: u16 = 0x20;

pub(crate) fn run(data: &[u8]) {
    let Some((side, bytes)) = data.split_first() else {
        return;
    };
    if side.is_multiple_of(2) {
        // Every message has its header at least.
        assert!(incoming(Some(FAMILY), bytes).count() <= bytes.len() / 16);
    } else {
        of_server(bytes);
    }
}

fn of_server(mut bytes: &[u8]) {
    let mut handshake = Handshake::new("disk@a".to_owned());
    loop {
        let wanted = handshake.wanted();
        assert!(wanted <= NBD_OPTION_MAX);
        let Some((taken, rest)) = bytes.split_at_checked(wanted).filter(|_| wanted > 0) else {
            return;
        };
        bytes = rest;
        match handshake.handle_bytes(taken) {
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => {
                assert_eq!(handshake.wanted(), 0);
                return;
            }
        }
    }
}
