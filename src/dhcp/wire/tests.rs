//! Messages, good and bad, as bytes.

#![allow(clippy::indexing_slicing, reason = "a test ends at the first surprise")]

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

fn request(options: &[(u8, &[u8])]) -> Message {
    let mut request = Message::request(0x0102_0304, MAC);
    request.options = options
        .iter()
        .map(|(code, value)| (*code, *value))
        .collect();
    request
}

/// The bytes of a request whose options field is this.
fn with_options(field: &[u8]) -> Vec<u8> {
    let mut bytes = request(&[]).write(1000).bytes;
    bytes.truncate(HEADER);
    bytes.extend_from_slice(field);
    bytes
}

fn options_of(field: &[u8]) -> Options {
    let bytes = with_options(&[&COOKIE, field].concat());
    Message::read(&bytes).unwrap().options
}

fn malformed(bytes: &[u8]) -> Malformed {
    Message::read(bytes).unwrap_err()
}

#[test]
fn the_header_is_that_of_rfc_951() {
    let mut message = request(&[(code::MESSAGE_TYPE, &[1])]);
    message.hops = 1;
    message.secs = 0x0506;
    message.broadcast = true;
    message.giaddr = [10, 0, 0, 4].into();
    message.file = b"core.0".to_vec();
    let bytes = message.write(1000).bytes;
    let head = [1, 1, 6, 1, 1, 2, 3, 4, 5, 6, 0x80, 0];
    assert_eq!(bytes[..12], head);
    assert_eq!(bytes[24..28], [10, 0, 0, 4]);
    assert_eq!(bytes[28..34], MAC.0);
    assert_eq!(bytes[108..115], *b"core.0\0");
    assert_eq!(bytes[236..244], [0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]);
}

#[test]
fn no_message_is_shorter_than_300_bytes() {
    assert_eq!(request(&[]).write(1000).bytes.len(), 300);
}

#[test]
fn a_long_option_is_split_and_joined_again() {
    let long: Vec<u8> = (0..=255).chain(0..=255).collect();
    let message = request(&[(43, &long), (12, b"a")]);
    let bytes = message.write(2000).bytes;
    assert_eq!(bytes[240..242], [43, 255]);
    assert_eq!(bytes[240 + 257..][..2], [43, 255]);
    assert_eq!(bytes[240 + 514..][..2], [43, 2]);
    assert_eq!(Message::read(&bytes).unwrap(), message);
}

#[test]
fn pieces_of_an_option_need_not_stand_together() {
    let options = options_of(&[43, 1, 7, 12, 1, b'a', 43, 2, 8, 9, 255]);
    assert_eq!(options.get(43), Some(&[7, 8, 9][..]));
    assert_eq!(options.get(12), Some(&b"a"[..]));
}

#[test]
fn options_may_go_on_in_file_and_then_in_sname() {
    let mut bytes = with_options(&[&COOKIE[..], &[43, 1, 1, 52, 1, 3, 255]].concat());
    bytes[108..112].copy_from_slice(&[43, 1, 2, 255]);
    bytes[44..48].copy_from_slice(&[43, 1, 3, 255]);
    let message = Message::read(&bytes).unwrap();
    assert_eq!(message.options.get(43), Some(&[1, 2, 3][..]));
    assert_eq!(message.options.get(code::OVERLOAD), None);
    assert_eq!((message.file, message.sname), (vec![], vec![]));
}

#[test]
fn what_the_relay_added_goes_back_last_and_unchanged() {
    // Suboptions out of order, one of them twice, one that ends behind the option.
    let raw = [2, 1, 9, 1, 1, 8, 2, 1, 7, 200, 200];
    let message = request(&[(82, &raw), (12, b"a")]);
    let bytes = message.write(1000).bytes;
    let end = 240 + 3 + 2 + raw.len();
    assert_eq!(bytes[240..243], [12, 1, b'a']);
    assert_eq!(bytes[243..245], [82, 11]);
    assert_eq!(bytes[245..end], raw);
    assert_eq!(bytes[end], 255);
}

#[test]
fn what_does_not_fit_is_left_out_whole() {
    let long = [1; 200];
    let message = request(&[(53, &[5]), (43, &long), (12, b"a"), (82, &[1, 1, 7])]);
    let written = message.write(300);
    assert_eq!(written.left_out, [43]);
    assert_eq!(written.bytes.len(), 300);
    let read = Message::read(&written.bytes).unwrap();
    assert_eq!(read.options.get(12), Some(&b"a"[..]));
    assert_eq!(read.options.get(82), Some(&[1, 1, 7][..]));
}

#[test]
fn what_a_relay_added_is_left_out_only_where_it_does_not_fit_at_all() {
    let written = request(&[(53, &[5]), (82, &[1; 200])]).write(300);
    assert_eq!(written.left_out, [82]);
    let read = Message::read(&written.bytes).unwrap();
    assert_eq!(read.kind(), Ok(Some(MessageType::Ack)));
}

#[test]
fn what_a_relay_added_takes_no_room_of_what_the_client_needs() {
    let server: &[u8] = &[10, 77, 0, 1];
    // 60 bytes for options: 59 and END.
    let message = |added: usize| {
        let added = vec![1; added];
        request(&[(53, &[5]), (54, server), (82, &added)])
    };
    assert_eq!(message(48).write(300).left_out, [0_u8; 0]);
    assert_eq!(message(49).write(300).left_out, [82]);
}

#[test]
fn an_end_that_is_missing_does_no_harm() {
    assert_eq!(options_of(&[12, 1, b'a']).get(12), Some(&b"a"[..]));
}

#[test]
fn what_is_no_message_is_told_apart() {
    let good = request(&[]).write(1000).bytes;
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        malformed(&bytes)
    };
    assert_eq!(malformed(&good[..235]), Malformed::Short(235));
    assert_eq!(malformed(&[0; 5000]), Malformed::Long(5000));
    assert_eq!(changed(0, 3), Malformed::Op(3));
    assert_eq!(changed(1, 32), Malformed::Hardware(32, 6));
    assert_eq!(changed(2, 255), Malformed::Hardware(1, 255));
    assert!(matches!(changed(28, 0x53), Malformed::GroupAddress(_)));
    assert_eq!(changed(236, 0), Malformed::Cookie);
    let cut = with_options(&[0x63, 0x82, 0x53, 0x63, 12, 9, b'a']);
    assert_eq!(malformed(&cut), Malformed::CutShort(12));
}

#[test]
fn a_request_without_options_is_one_of_bootp() {
    let bytes = with_options(&[0; 64]);
    assert_eq!(Message::read(&bytes).unwrap().kind(), Ok(None));
}

#[test]
fn the_client_says_how_much_it_takes() {
    let room = |value: &[u8]| request(&[(57, value)]).room();
    assert_eq!(request(&[]).room(), 548);
    assert_eq!(room(&[5, 192]), 1444);
    assert_eq!(room(&[0, 0]), 548, "less than everybody must take");
    assert_eq!(room(&[255, 255]), 1472, "more than a frame holds");
    assert_eq!(room(&[9]), 548);
}

#[test]
fn architectures_are_a_list_or_stand_in_the_vendor_class() {
    let class = b"PXEClient:Arch:00007:UNDI:003016";
    let archs = |options: &[(u8, &[u8])]| request(options).architectures();
    assert_eq!(archs(&[(93, &[0, 7, 0, 9])]), [7, 9]);
    assert_eq!(archs(&[(93, &[0, 7, 0])]), [7]);
    assert_eq!(archs(&[(60, class)]), [7]);
    assert_eq!(archs(&[(93, &[0, 0]), (60, class)]), [0]);
    assert_eq!(archs(&[(60, b"PXEClient:Arch:7")]), [0; 0]);
}

#[test]
fn a_machine_s_uuid_is_read_where_it_has_the_right_form() {
    let uuid = |value: &[u8]| request(&[(97, value)]).uuid();
    assert_eq!(uuid(&[&[0], &[7; 16][..]].concat()), Some([7; 16]));
    assert_eq!(uuid(&[&[1], &[7; 16][..]].concat()), None);
    assert_eq!(uuid(&[0; 16]), None);
}

#[test]
fn the_network_of_a_client_behind_a_relay_is_selected_by_the_relay_first() {
    let mut message = request(&[(82, &[1, 1, 9, 5, 4, 10, 1, 0, 0]), (118, &[10, 2, 0, 0])]);
    // Nobody but a relay may speak for a relay.
    assert_eq!(message.link_selection(), Some([10, 2, 0, 0].into()));
    message.giaddr = [10, 0, 0, 1].into();
    assert_eq!(message.link_selection(), Some([10, 1, 0, 0].into()));
}

fn messages() -> impl Strategy<Value = Message> {
    let codes = (1..=254_u8).prop_filter("says how others are written", |code| *code != 52);
    let options = vec((codes, vec(any::<u8>(), 0..600)), 0..12);
    let header = (
        any::<bool>(),
        any::<u8>(),
        any::<u32>(),
        any::<u16>(),
        any::<bool>(),
    );
    let addresses = any::<[u32; 4]>();
    let texts = (vec(1..=255_u8, 0..64), vec(1..=255_u8, 0..128));
    let mac = any::<[u8; 5]>();
    (header, addresses, mac, texts, options).prop_map(
        |((reply, hops, xid, secs, broadcast), addresses, mac, (sname, file), options)| {
            let [ciaddr, yiaddr, siaddr, giaddr] = addresses.map(Ipv4Addr::from);
            let [a, b, c, d, e] = mac;
            let mut all: Options = options.into_iter().collect();
            if let Some(relayed) = all.get(82).map(<[u8]>::to_vec) {
                // The last one, as it is written.
                all = all.iter().filter(|(code, _)| *code != 82).collect();
                all.set(82, relayed);
            }
            Message {
                op: if reply { Op::Reply } else { Op::Request },
                hops,
                xid,
                secs,
                broadcast,
                ciaddr,
                yiaddr,
                siaddr,
                giaddr,
                chaddr: MacAddress([2, a, b, c, d, e]),
                sname,
                file,
                options: all,
            }
        },
    )
}

/// Datagrams that get past the first checks, and then hold anything.
fn datagrams() -> impl Strategy<Value = Vec<u8>> {
    let noise = vec(any::<u8>(), 0..1600);
    let message = (
        messages(),
        vec((any::<usize>(), any::<u8>()), 0..8),
        any::<usize>(),
    );
    let broken = message.prop_map(|(message, changes, length)| {
        let mut bytes = message.write(1400).bytes;
        for (at, to) in changes {
            let at = at % bytes.len();
            bytes[at] = to;
        }
        bytes.truncate(length % (bytes.len() + 1));
        bytes
    });
    prop_oneof![noise, broken]
}

proptest! {
    #[test]
    fn reading_undoes_writing(message in messages()) {
        let written = message.write(usize::MAX).bytes;
        // More than any frame takes is not read at all.
        prop_assume!(written.len() <= DHCP_DATAGRAM_MAX);
        prop_assert_eq!(Message::read(&written), Ok(message));
    }

    #[test]
    fn no_message_is_longer_than_its_room(message in messages(), room in 300..1500_usize) {
        let written = message.write(room);
        prop_assert!(written.bytes.len() <= room);
        prop_assert!(Message::read(&written.bytes).is_ok());
    }

    #[test]
    fn no_datagram_does_harm(datagram in datagrams()) {
        if let Ok(message) = Message::read(&datagram) {
            let _ = (message.kind(), message.room(), message.architectures(), message.uuid());
            let _ = (message.link_selection(), message.is_ipxe(), message.client_identifier());
            let held: usize = message.options.iter().map(|(_, value)| value.len()).sum();
            prop_assert!(held <= datagram.len());
        }
    }
}
