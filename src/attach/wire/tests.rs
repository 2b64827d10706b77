//! Against bytes that nbd-client 3.24 and the kernel of Debian 12 (6.1, x86-64) exchanged, as
//! strace saw them.

#![cfg(target_endian = "little")]
#![allow(clippy::indexing_slicing, reason = "tests know their bytes")]

use super::*;

/// A message of strace: length, type, flags and number as it shows them, then the bytes behind.
fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(MESSAGE_HEADER + body.len()).unwrap();
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&flags.to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&0_u32.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// What nbd-client sends has version 0, ours has 1; the kernel compares them with nothing.
fn with_version_0(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[17] = 0;
    bytes
}

fn all(family: Option<u16>, bytes: &[u8]) -> Vec<Incoming> {
    incoming(family, bytes).collect()
}

const FAMILY_ASKED: &[u8] = b"\x03\x01\x00\x00\x08\x00\x02\x00\x6e\x62\x64\x00";

const FAMILY_ANSWERED: &[u8] = b"\x01\x02\x00\x00\x08\x00\x02\x00\x6e\x62\x64\x00\x06\x00\x01\x00\
    \x20\x00\x00\x00\x08\x00\x03\x00\x01\x00\x00\x00\x08\x00\x04\x00\x00\x00\x00\x00\x08\x00\x05\
    \x00\x0a\x00\x00\x00\x54\x00\x06\x00\x14\x00\x01\x00\x08\x00\x01\x00\x01\x00\x00\x00\x08\x00\
    \x02\x00\x0a\x00\x00\x00\x14\x00\x02\x00\x08\x00\x01\x00\x02\x00\x00\x00\x08\x00\x02\x00\x0a\
    \x00\x00\x00\x14\x00\x03\x00\x08\x00\x01\x00\x03\x00\x00\x00\x08\x00\x02\x00\x0a\x00\x00\x00\
    \x14\x00\x04\x00\x08\x00\x01\x00\x05\x00\x00\x00\x08\x00\x02\x00\x0a\x00\x00\x00\x24\x00\x07\
    \x00\x20\x00\x01\x00\x08\x00\x02\x00\x09\x00\x00\x00\x11\x00\x01\x00\x6e\x62\x64\x5f\x6d\x63\
    \x5f\x67\x72\x6f\x75\x70\x00\x00\x00\x00";

/// Device 3, 64 MiB, sectors of 512 bytes, flags 0xd6d, sockets 3 and 4.
const CONNECT_ASKED: &[u8] = b"\x01\x00\x00\x00\x08\x00\x01\x00\x03\x00\x00\x00\x0c\x00\x02\x00\
    \x00\x00\x00\x04\x00\x00\x00\x00\x0c\x00\x03\x00\x00\x02\x00\x00\x00\x00\x00\x00\x0c\x00\x05\
    \x00\x6d\x0d\x00\x00\x00\x00\x00\x00\x1c\x00\x07\x80\x0c\x00\x01\x80\x08\x00\x01\x00\x03\x00\
    \x00\x00\x0c\x00\x01\x80\x08\x00\x01\x00\x04\x00\x00\x00";

const CONNECT_ANSWERED: &[u8] = b"\x01\x01\x00\x00\x08\x00\x01\x00\x03\x00\x00\x00";

const DISCONNECT_ASKED: &[u8] = b"\x02\x00\x00\x00\x08\x00\x01\x00\x03\x00\x00\x00";

#[test]
fn the_family_is_asked_for_as_by_nbd_client() {
    let expected = message(0x10, 5, 1_795_602_252, FAMILY_ASKED);
    assert_eq!(get_family(1_795_602_252), expected);
}

#[test]
fn the_family_and_its_group_are_found() {
    let bytes = message(0x10, 0, 7, FAMILY_ANSWERED);
    let id = 0x20;
    let family = Family { id, group: Some(9) };
    assert_eq!(all(None, &bytes), [Incoming::Family(family)]);
}

#[test]
fn a_device_is_connected_as_by_nbd_client_and_waits_for_ever() {
    let asked = Connect {
        index: 3,
        size: 64 << 20,
        block_size: 512,
        flags: 0xd6d,
        patience: 0x1122_3344,
        identifier: "d",
        sockets: &[3, 4],
    };
    let ours = b"\x0c\x00\x08\x00\x44\x33\x22\x11\x00\x00\x00\x00\x06\x00\x0a\x00d\x00\x00\x00";
    let expected = message(0x20, 5, 9, &[CONNECT_ASKED, ours].concat());
    assert_eq!(with_version_0(connect(0x20, 9, &asked)), expected);
}

#[test]
fn a_device_is_disconnected_as_by_nbd_client() {
    let expected = message(0x20, 5, 9, DISCONNECT_ASKED);
    assert_eq!(with_version_0(disconnect(0x20, 9, 3)), expected);
}

#[test]
fn the_number_of_a_connected_device_is_read() {
    let bytes = message(0x20, 0, 9, CONNECT_ANSWERED);
    let connected = Incoming::Connected { index: 3 };
    assert_eq!(all(Some(0x20), &bytes), [connected]);
    // Without its number the family is anybody's.
    assert_eq!(all(None, &bytes), [Incoming::Other]);
}

#[test]
fn success_and_failure_are_read_with_the_number_of_their_request() {
    let done = message(2, 0x100, 5, &[0; 20]);
    let busy = message(2, 0, 6, &[&(-16_i32).to_le_bytes()[..], &[0; 16]].concat());
    let of = |sequence, error| Incoming::Done { sequence, error };
    let both = [done, busy].concat();
    assert_eq!(all(Some(0x20), &both), [of(5, 0), of(6, 16)]);
}

#[test]
fn a_dead_link_is_heard_of() {
    let bytes = message(
        0x20,
        0,
        0,
        b"\x04\x00\x00\x00\x08\x00\x01\x00\x03\x00\x00\x00",
    );
    assert_eq!(all(Some(0x20), &bytes), [Incoming::LinkDead { index: 3 }]);
}

#[test]
fn the_status_of_a_device_is_read() {
    let body = b"\x05\x00\x00\x00\x18\x00\x09\x00\x14\x00\x01\x00\x08\x00\x01\x00\x03\x00\x00\x00\
        \x05\x00\x02\x00\x01\x00\x00\x00";
    let bytes = message(0x20, 0, 9, body);
    let attached = Incoming::Status {
        index: 3,
        connected: true,
    };
    assert_eq!(all(Some(0x20), &bytes), [attached]);
}

#[test]
fn new_sockets_come_with_the_identifier_of_the_device() {
    let asked = Reconfigure {
        index: 3,
        identifier: "disk+1@a",
        timeout: 5,
        sockets: &[7],
    };
    let body = b"\x03\x01\x00\x00\x08\x00\x01\x00\x03\x00\x00\x00\x0d\x00\x0a\x00disk+1@a\0\0\0\0\
        \x0c\x00\x04\x00\x05\x00\x00\x00\x00\x00\x00\x00\x10\x00\x07\x80\x0c\x00\x01\x80\x08\x00\
        \x01\x00\x07\x00\x00\x00";
    let expected = message(0x20, 5, 9, body);
    assert_eq!(reconfigure(0x20, 9, &asked), expected);
}

#[test]
fn messages_that_are_cut_end_the_reading() {
    let whole = message(0x10, 0, 7, FAMILY_ANSWERED);
    for end in 0..whole.len() {
        assert_eq!(all(None, &whole[..end]), [], "cut at {end}");
    }
}

#[test]
fn lengths_that_lead_nowhere_end_the_reading() {
    let mut none = message(0x20, 0, 7, CONNECT_ANSWERED);
    none[..4].copy_from_slice(&0_u32.to_le_bytes());
    assert_eq!(all(Some(0x20), &none), []);
    let mut attribute = message(0x20, 0, 7, CONNECT_ANSWERED);
    attribute[20..22].copy_from_slice(&0_u16.to_le_bytes());
    assert_eq!(all(Some(0x20), &attribute), [Incoming::Other]);
}
