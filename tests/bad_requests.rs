//! Requests that are out of range, unknown, oversized or cut off: each gets the protocol's own
//! error or a clean close, and the next client is served.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use support::nbd::{Client, Failure, Request, assert_errno, command, errno, flag};
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

/// The session answers a good request.
#[track_caller]
fn assert_lives_on(client: &mut Client) {
    let seen = client.read(4096, 4096).expect("the session lives on");
    assert_same(&seen, &image()[4096..8192], "a read after an error");
}

#[test]
fn reads_past_the_end_are_invalid() {
    let server = serve();
    let mut client = server.client("disk@a");
    let size = SIZE as u64;
    for (offset, len) in [
        (size, 1),
        (size - 1, 2),
        (0, 1 + (1 << 20)),
        (1 << 63, 512),
        (u64::MAX, 2),
    ] {
        assert_errno(client.read(offset, len), errno::EINVAL);
        assert_lives_on(&mut client);
    }
}

#[test]
fn writes_and_zeroes_past_the_end_find_no_space() {
    let server = serve();
    let mut client = server.client("disk@a");
    let data = pseudo_random(1, 8192);
    for offset in [SIZE as u64, SIZE as u64 - 1, u64::MAX - 4096, u64::MAX] {
        assert_errno(client.write(offset, &data), errno::ENOSPC);
        assert_errno(client.zero(offset, 8192), errno::ENOSPC);
        assert_lives_on(&mut client);
    }
    let last = client.read(SIZE as u64 - 1, 1).expect("a read");
    assert_eq!(last, image()[SIZE - 1..], "a refused write wrote");
}

#[test]
fn hints_past_the_end_are_invalid() {
    let server = serve();
    let mut client = server.client("disk@a");
    for number in [command::TRIM, command::CACHE] {
        let request = Request::plain(number, SIZE as u64 - 1, 2);
        assert_errno(client.call(&request), errno::EINVAL);
        assert_lives_on(&mut client);
    }
}

#[test]
fn writes_to_a_read_only_export_are_not_permitted() {
    let server = Setup::of_bytes(&image()).with_arg("--read-only").start();
    let mut client = server.client("disk@a");
    assert!(client.flags & flag::READ_ONLY != 0);
    assert_errno(client.write(0, &[1; 5000]), errno::EPERM);
    assert_errno(client.zero(0, 5000), errno::EPERM);
    assert_errno(client.trim(0, 5000), errno::EPERM);
    assert_lives_on(&mut client);
    assert_same(&client.read_all().expect("a read"), &image(), "the disk");
}

#[test]
fn unknown_commands_are_invalid() {
    let server = serve();
    let mut client = server.client("disk@a");
    for number in [8, 9, 77, u16::MAX] {
        let request = Request::plain(number, 0, 512);
        assert_errno(client.call(&request), errno::EINVAL);
        assert_lives_on(&mut client);
    }
}

#[test]
fn unknown_flags_are_invalid() {
    let server = serve();
    let mut client = server.client("disk@a");
    let data = [7; 512];
    for flags in [1 << 6, 1 << 15] {
        for request in [
            Request::read(0, 512),
            Request::write(0, &data),
            Request::plain(command::TRIM, 0, 512),
            Request::plain(command::WRITE_ZEROES, 0, 512),
            Request::plain(command::CACHE, 0, 512),
            Request::plain(command::FLUSH, 0, 0),
        ] {
            assert_errno(client.call(&request.flagged(flags)), errno::EINVAL);
        }
    }
    assert_lives_on(&mut client);
    let seen = client.read(0, 512).expect("a read");
    assert_same(&seen, &image()[..512], "a refused write wrote");
}

#[test]
fn fua_is_taken_on_every_command() {
    let server = serve();
    let mut client = server.client("disk@a");
    for (number, len) in [
        (command::READ, 512),
        (command::CACHE, 512),
        (command::FLUSH, 0),
        (command::TRIM, 512),
        (command::WRITE_ZEROES, 512),
    ] {
        let request = Request::plain(number, 0, len).flagged(flag::FUA);
        client
            .call(&request)
            .expect("FUA is valid for all commands");
    }
}

#[test]
fn empty_ones_do_not_end_the_session() {
    let server = serve();
    let mut client = server.client("disk@a");
    for number in [
        command::READ,
        command::WRITE,
        command::TRIM,
        command::WRITE_ZEROES,
        command::CACHE,
    ] {
        for offset in [0, 100, SIZE as u64] {
            let _ = client.call(&Request::plain(number, offset, 0));
        }
        assert_lives_on(&mut client);
    }
    assert_same(&client.read_all().expect("a read"), &image(), "the disk");
}

#[test]
fn a_read_of_more_than_32_mib_is_an_error() {
    let mut server = Setup::of_bytes(&image())
        .with_bytes("large.img", &vec![1; 40 << 20])
        .start();
    let mut client = server.client("large@a");
    match client.read(0, (32 << 20) + 1) {
        Err(Failure::Errno(errno::EINVAL | errno::EOVERFLOW)) => {
            client.read(0, 32 << 20).expect("32 MiB must work");
        }
        Err(Failure::Closed(_)) => {}
        other => panic!("{:?}", other.map(|data| data.len())),
    }
    assert_next_is_served(&mut server);
}

#[test]
fn payloads_of_32_mib_work() {
    let server = Setup::new()
        .with_bytes("large.img", &vec![1; 40 << 20])
        .start();
    let mut client = server.client("large@a");
    let data = pseudo_random(4, 32 << 20);
    client.write(12_345, &data).expect("32 MiB must work");
    let seen = client.read(12_345, 32 << 20).expect("32 MiB must work");
    assert_same(&seen, &data, "32 MiB");
}

#[test]
fn a_payload_of_more_than_32_mib_is_refused() {
    let mut server = serve();
    for len in [(32 << 20) + 1, u32::MAX] {
        let mut client = server.client("disk@a");
        let request = Request {
            len,
            ..Request::plain(command::WRITE, 0, len)
        };
        client.submit(&request).expect("a header can be sent");
        // Either it is refused at once by closing, or the payload would be read and thrown away.
        client.wire.assert_closed();
    }
    assert_next_is_served(&mut server);
}

#[test]
fn a_wrong_magic_ends_the_session() {
    let mut server = serve();
    for magic in [0x1256_0953_u32, 0x2560_9514, 0] {
        let mut client = server.client("disk@a");
        let mut header = Request::read(0, 512).header(1);
        header[..4].copy_from_slice(&magic.to_be_bytes());
        client.wire.send(&header).expect("bytes can be sent");
        client.wire.assert_closed();
    }
    assert_next_is_served(&mut server);
}

#[test]
fn a_header_cut_at_any_byte_harms_nobody() {
    let mut server = serve();
    let header = Request::read(0, 512).header(1);
    for cut in 0..header.len() {
        let mut client = server.client("disk@a");
        client.wire.send(&header[..cut]).expect("bytes can be sent");
        client.wire.reset();
    }
    assert_next_is_served(&mut server);
}

#[test]
fn a_payload_cut_half_way_leaves_what_was_not_sent() {
    let mut server = serve();
    for (len, sent) in [(4096, 100), (8192, 4096), (512 << 10, 300_000)] {
        let payload = vec![0xee; len];
        let mut client = server.client("disk@cut");
        let request = Request::write(0, &payload);
        client.wire.send(&request.header(1)).expect("a header");
        client.wire.send(&payload[..sent]).expect("a part");
        client.wire.reset();
        let seen = server.client("disk@cut").read_all().expect("a read");
        assert_same(&seen[sent..], &image()[sent..], "what was not sent");
    }
    assert_next_is_served(&mut server);
}

#[test]
fn good_requests_in_flight_survive_a_bad_one_among_them() {
    let server = serve();
    let mut client = server.client("disk@a");
    let bad = 5;
    let cookies: Vec<u64> = (0..10)
        .map(|number| {
            let offset = if number == bad {
                SIZE as u64
            } else {
                number * 512
            };
            client.submit(&Request::read(offset, 512)).expect("sent")
        })
        .collect();
    for _ in 0..10 {
        let (cookie, result) = client.answer().expect("an answer");
        match cookie == cookies[5] {
            true => assert_errno(result, errno::EINVAL),
            false => drop(result.expect("a good read")),
        }
    }
}

#[test]
fn a_disconnect_finishes_what_is_in_flight() {
    let server = serve();
    let mut client = server.client("disk@a");
    let data = pseudo_random(3, 100_000);
    for turn in 0..8 {
        let write = Request::write(turn * 100_000, &data);
        client.submit(&write).expect("sent");
    }
    let disc = Request::plain(command::DISC, 0, 0);
    client.wire.send(&disc.header(0)).expect("sent");
    for _ in 0..8 {
        let (_, result) = client
            .answer()
            .expect("proto.md: all requests are finished");
        result.expect("a write");
    }
    client.wire.assert_closed();
    let seen = server.client("disk@a").read(700_000, 100_000);
    assert_same(&seen.expect("a read"), &data, "the last write");
}

#[test]
fn a_connection_reset_with_requests_in_flight_harms_nobody() {
    let mut server = serve();
    for turn in 0..20 {
        let mut client = server.client("disk@a");
        let data = pseudo_random(turn, 50_000);
        for _ in 0..10 {
            client.submit(&Request::write(0, &data)).expect("sent");
            client.submit(&Request::read(0, 1 << 20)).expect("sent");
        }
        client.wire.reset();
    }
    assert_next_is_served(&mut server);
}

#[test]
fn a_write_of_nothing_harms_no_overlay() {
    let server = Setup::of_bytes(&[0; 4 * 4096]).start();
    let mut client = server.client("disk@a");
    for offset in [0, 5, 4096, 16_384] {
        client.write(offset, b"").expect("nothing to do");
    }
    client.write(5, b"later").expect("a write");
    client.flush().expect("a flush");
}
