//! Streams of servers, written down from the protocol, and both sides of this program.

use super::*;
use crate::nbd::handshake as server;
use crate::nbd::{Described, ExportInfo, Refusal};

/// The greeting of any server with options and `flags`, written down from the protocol.
fn greeting(flags: u16) -> Vec<u8> {
    [&b"NBDMAGICIHAVEOPT"[..], &flags.to_be_bytes()].concat()
}

/// A reply to GO, written down from the protocol.
fn reply(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = 0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec();
    bytes.extend_from_slice(&7_u32.to_be_bytes());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

const ACK: u32 = 1;
const INFO: u32 = 3;
const ERROR: u32 = 1 << 31;

fn size_and_flags(size: u64, flags: u16) -> Vec<u8> {
    let fact = [&[0, 0], &size.to_be_bytes()[..], &flags.to_be_bytes()].concat();
    reply(INFO, &fact)
}

/// What comes of a whole stream of a server, and how many bytes of it were taken.
fn run(stream: &[u8]) -> (Result<Option<Export>, HandshakeError>, usize) {
    let mut handshake = Handshake::new("disk@a".to_owned());
    let mut taken = 0;
    loop {
        let wanted = handshake.wanted();
        let Some(bytes) = stream[taken..].get(..wanted).filter(|_| wanted > 0) else {
            return (Ok(None), taken);
        };
        taken += wanted;
        match handshake.handle_bytes(bytes) {
            Ok(None) => {}
            end => return (end, taken),
        }
    }
}

fn error(stream: &[u8]) -> HandshakeError {
    run(stream).0.unwrap_err()
}

#[test]
fn an_export_is_what_the_server_says_it_is() {
    let sizes = [&[0, 3][..], &[0, 0, 0, 1, 0, 0, 16, 0, 2, 0, 0, 0]].concat();
    let stream = [
        greeting(3),
        size_and_flags(1 << 30, 0b1_0000_0101),
        reply(INFO, b"\0\x01disk+4@a"),
        reply(INFO, b"\0\x02a disk"),
        reply(INFO, &sizes),
        reply(ACK, &[]),
    ]
    .concat();
    let (end, taken) = run(&stream);
    let export = end.unwrap().unwrap();
    assert_eq!(taken, stream.len());
    assert_eq!(export.size, 1 << 30);
    assert!(export.is_shared() && !export.is_read_only());
    assert_eq!(export.name.as_deref(), Some("disk+4@a"));
    assert_eq!(export.description.as_deref(), Some("a disk"));
    let sizes = export.block_sizes.unwrap();
    assert_eq!((sizes.minimum, sizes.preferred), (1, 4096));
}

#[test]
fn the_question_is_go_with_all_facts() {
    let mut handshake = Handshake::new("d".to_owned());
    assert_eq!(handshake.wanted(), 18);
    handshake.handle_bytes(&greeting(3)).unwrap();
    let sent = handshake.poll_transmit().unwrap();
    let expected = b"\0\0\0\x03IHAVEOPT\0\0\0\x07\0\0\0\x0d\0\0\0\x01d\0\x03\0\x01\0\x02\0\x03";
    assert_eq!(sent, expected);
    assert_eq!(handshake.poll_transmit(), None);
}

#[test]
fn only_flags_of_the_server_are_answered() {
    let mut handshake = Handshake::new("d".to_owned());
    handshake.handle_bytes(&greeting(1)).unwrap();
    assert!(
        handshake
            .poll_transmit()
            .unwrap()
            .starts_with(&[0, 0, 0, 1])
    );
}

#[test]
fn bytes_behind_the_end_are_left_to_the_kernel() {
    let whole = [greeting(3), size_and_flags(512, 1), reply(ACK, &[])].concat();
    let (end, taken) = run(&[&whole[..], &[9; 100]].concat());
    assert!(end.unwrap().is_some());
    assert_eq!(taken, whole.len());
}

#[test]
fn a_stream_that_is_cut_anywhere_gives_no_export() {
    let whole = [
        greeting(3),
        size_and_flags(512, 1),
        reply(INFO, b"\0\x01name"),
        reply(ACK, &[]),
    ]
    .concat();
    for end in 0..whole.len() {
        assert_eq!(run(&whole[..end]).0, Ok(None), "cut at {end}");
    }
}

#[test]
fn what_is_no_server_is_told_so() {
    assert_eq!(error(b"HTTP/1.1 400 Bad Request"), HandshakeError::NoServer);
    let oldstyle = b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\0\0";
    assert_eq!(error(oldstyle), HandshakeError::TooOld);
    assert_eq!(error(&greeting(2)), HandshakeError::TooOld);
}

#[test]
fn a_refusal_says_why_in_one_line() {
    let refusal = reply(ERROR + 6, b"no image \x1b[31m\"a\"\nroot: password?");
    let stream = [greeting(3), refusal].concat();
    let said = HandshakeError::Refused("no image [31m\"a\"".to_owned());
    assert_eq!(error(&stream), said);
    let silent = [greeting(3), reply(ERROR + 2, &[])].concat();
    assert_eq!(
        error(&silent),
        HandshakeError::Refused("ERR_POLICY".to_owned())
    );
}

#[test]
fn tls_only_and_no_go_are_told_apart() {
    let tls = [greeting(3), reply(ERROR + 5, &[])].concat();
    assert_eq!(error(&tls), HandshakeError::Tls);
    let no_go = [greeting(3), reply(ERROR + 1, &[])].concat();
    assert_eq!(error(&no_go), HandshakeError::NoGo);
}

#[test]
fn a_server_without_an_end_is_given_up() {
    let mut stream = greeting(3);
    for _ in 0..=NBD_OPTIONS_PER_HANDSHAKE {
        stream.extend(reply(INFO, &[0, 9]));
    }
    assert!(matches!(error(&stream), HandshakeError::Broken(_)));
    let mut long = reply(INFO, &[]);
    long[16..].copy_from_slice(&u32::MAX.to_be_bytes());
    let stream = [greeting(3), long].concat();
    assert_eq!(
        error(&stream),
        HandshakeError::Broken("a reply is too long")
    );
}

/// Both sides of this program, until one of them has come to its end.
fn with_our_server(answer: Result<Described, Refusal>) -> Result<Option<Export>, HandshakeError> {
    let mut server = server::Handshake::new();
    let mut client = Handshake::new("disk@a".to_owned());
    let mut answer = Some(answer);
    let mut to_client: Vec<u8> = Vec::new();
    loop {
        while let Some(bytes) = server.poll_transmit() {
            to_client.extend(bytes);
        }
        if let Some(server::Event::Open { .. }) = server.poll_event() {
            server.handle_opened(answer.take().unwrap());
            continue;
        }
        let bytes: Vec<u8> = to_client.drain(..client.wanted()).collect();
        match client.handle_bytes(&bytes) {
            Ok(None) => {}
            end => return end,
        }
        if let Some(bytes) = client.poll_transmit() {
            assert_eq!(server.handle_bytes(&bytes), bytes.len());
        }
    }
}

#[test]
fn our_own_server_is_understood() {
    let info = ExportInfo {
        size: 12_345,
        read_only: true,
        multi_conn: true,
    };
    let told = Described {
        info,
        name: Some("disk+1@a".to_owned()),
        description: Some("disk+1@a, overlay 1f".to_owned()),
    };
    let export = with_our_server(Ok(told)).unwrap().unwrap();
    assert_eq!(export.size, 12_345);
    assert_eq!(export.name.as_deref(), Some("disk+1@a"));
    assert_eq!(export.description.as_deref(), Some("disk+1@a, overlay 1f"));
    assert!(export.is_read_only() && export.is_shared());
}

#[test]
fn a_refusal_of_our_own_server_is_understood() {
    let refusal = Refusal::Unknown("there is no image \"disk\"".to_owned());
    let said = HandshakeError::Refused("there is no image \"disk\"".to_owned());
    assert_eq!(with_our_server(Err(refusal)), Err(said));
}
