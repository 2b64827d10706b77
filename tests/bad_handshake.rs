//! Greetings and options that are broken, cut off, oversized or without end: each gets the
//! protocol's own error or a clean close, and the next client is served.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use support::nbd::{
    Client, Handshake, IHAVEOPT, Refused, Wire, assert_refused, go_data, option, reply,
};
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

#[test]
fn unknown_options_are_unsupported() {
    let server = serve();
    let mut handshake = handshake(&server);
    for number in [0, option::PEEK_EXPORT, 99, 0x7fff_ffff, u32::MAX] {
        let refused = handshake.ask(number, b"whatever it is");
        assert_refused(refused, &[reply::ERR_UNSUP]);
    }
    assert_still_haggles(handshake);
}

#[test]
fn option_payloads_past_the_limit_are_skipped_and_refused() {
    let mut server = serve();
    let mut handshake = handshake(&server);
    let kinds = [reply::ERR_TOO_BIG, reply::ERR_INVALID, reply::ERR_UNSUP];
    let payload = vec![0; 200_000];
    for number in [option::GO, option::INFO, option::LIST, 77] {
        assert_refused(handshake.ask(number, &payload), &kinds);
    }
    assert_still_haggles(handshake);
    assert_next_is_served(&mut server);
}

#[test]
fn option_lengths_of_gigabytes_cost_nothing() {
    let mut server = serve();
    let mut stuck = Vec::new();
    for _ in 0..8 {
        let mut handshake = handshake(&server);
        let lie = handshake.raw_option(IHAVEOPT, option::GO, u32::MAX, b"four");
        lie.expect("an option can be sent");
        stuck.push(handshake);
    }
    assert_next_is_served(&mut server);
}

#[test]
fn a_wrong_option_magic_ends_the_connection() {
    let mut server = serve();
    let mut handshake = handshake(&server);
    handshake
        .raw_option(0x1234_5678_9abc_def0, option::LIST, 0, &[])
        .expect("bytes can be sent");
    handshake.wire.assert_closed();
    assert_next_is_served(&mut server);
}

#[test]
fn list_with_a_payload_is_invalid() {
    let server = serve();
    let mut handshake = handshake(&server);
    assert_refused(handshake.ask(option::LIST, b"x"), &[reply::ERR_INVALID]);
    assert_still_haggles(handshake);
}

#[test]
fn lengths_inside_go_and_info_must_fit() {
    let server = serve();
    let mut handshake = handshake(&server);
    let mut long_name = go_data(b"disk", &[]);
    long_name[..4].copy_from_slice(&u32::MAX.to_be_bytes());
    let mut many_wishes = go_data(b"disk", &[3]);
    many_wishes[8..10].copy_from_slice(&u16::MAX.to_be_bytes());
    let mut trailing = go_data(b"disk", &[3]);
    trailing.push(0);
    for data in [&long_name, &many_wishes, &trailing, &vec![], &vec![0; 5]] {
        for number in [option::GO, option::INFO] {
            assert_refused(handshake.ask(number, data), &[reply::ERR_INVALID]);
        }
    }
    assert_still_haggles(handshake);
}

#[test]
fn unknown_wishes_are_ignored() {
    let server = serve();
    let mut handshake = handshake(&server);
    let data = go_data(b"disk@a", &[0, 1, 2, 3, 4, 999, 65_535]);
    handshake.ask(option::INFO, &data).expect("information");
    assert_still_haggles(handshake);
}

#[test]
fn info_tells_what_go_tells() {
    let server = serve();
    let mut handshake = handshake(&server);
    let info = handshake.info("disk@a").expect("information");
    let go = handshake.try_go(b"disk@a").expect("an export");
    assert_eq!(info, go);
    assert_eq!(info.size, SIZE as u64);
    assert_eq!(info.blocks, Some([1, 4096, 32 << 20]));
}

#[test]
fn abort_is_acknowledged_and_closes() {
    let mut server = serve();
    let mut handshake = handshake(&server);
    handshake.ask(option::ABORT, &[]).expect("an ACK");
    handshake.wire.assert_closed();
    assert_next_is_served(&mut server);
}

#[test]
fn haggling_without_end_is_ended() {
    let mut server = serve();
    let mut handshake = handshake(&server);
    let refused = (0..100_000).find_map(|_| match handshake.ask(99, &[]) {
        Err(Refused::Closed(error)) => Some(error),
        _ => None,
    });
    assert!(refused.is_some(), "100000 options were answered");
    assert_next_is_served(&mut server);
}

#[test]
fn unknown_client_flags_end_the_connection() {
    let mut server = serve();
    for flags in [4, 0x8000_0000, 0xffff_ffff] {
        let started = Handshake::start_with(&server.address(), flags);
        started.expect("flags can be sent").wire.assert_closed();
    }
    assert_next_is_served(&mut server);
}

#[test]
fn no_more_than_two_flags_are_offered() {
    assert_eq!(handshake(&serve()).offered, 3);
}

#[test]
fn a_handshake_cut_at_any_byte_harms_nobody() {
    let mut server = serve();
    let mut whole = 3_u32.to_be_bytes().to_vec();
    let data = go_data(b"disk@a", &[3]);
    whole.extend_from_slice(&IHAVEOPT.to_be_bytes());
    whole.extend_from_slice(&option::GO.to_be_bytes());
    whole.extend_from_slice(&u32::try_from(data.len()).expect("short").to_be_bytes());
    whole.extend_from_slice(&data);
    let mut stuck = Vec::new();
    for cut in 0..=whole.len() {
        for linger in [false, true] {
            let mut wire = Wire::connect(&server.address()).expect("a connection");
            wire.send(&whole[..cut]).expect("bytes can be sent");
            match linger {
                true => stuck.push(wire),
                false => wire.reset(),
            }
        }
    }
    assert_next_is_served(&mut server);
}

#[test]
fn bytes_of_another_protocol_end_the_connection() {
    let mut server = serve();
    let mut wire = Wire::connect(&server.address()).expect("a connection");
    wire.send(b"GET / HTTP/1.1\r\nHost: cowherd\r\n\r\n")
        .expect("bytes can be sent");
    wire.receive(18).expect("the greeting");
    wire.assert_closed();
    assert_next_is_served(&mut server);
}
