//! The bytes of every message, against golden ones and back.

use super::*;
use proptest::prelude::*;
use std::io;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a reply to the option `GO`, header and data apart.
fn reply(reply: OptionReply<'_>) -> (String, String) {
    let mut out = Vec::new();
    reply.append_to(OptionCode::GO, &mut out);
    let (header, data) = out.split_at(OPTION_REPLY_HEADER);
    (hex(header), hex(data))
}

fn golden(reply_to_check: OptionReply<'_>, header: &str, data: &str) {
    let expected = (format!("0003e889045565a900000007{header}"), data.to_owned());
    assert_eq!(reply(reply_to_check), expected);
}

#[test]
fn the_greeting_has_both_magics_and_both_flags() {
    assert_eq!(hex(&GREETING), "4e42444d4147494349484156454f50540003");
}

#[test]
fn ack_bytes() {
    golden(OptionReply::Ack, "0000000100000000", "");
}

#[test]
fn server_bytes() {
    let server = OptionReply::Server {
        name: "arch",
        description: "a disk",
    };
    golden(
        server,
        "000000020000000e",
        "0000000461726368612064 69736b".replace(' ', "").as_str(),
    );
}

#[test]
fn export_bytes() {
    let export = OptionReply::Export {
        size: 0x0102_0304_0506_0708,
        flags: TransmissionFlags::HAS_FLAGS.with(TransmissionFlags::SEND_FAST_ZERO),
    };
    golden(export, "000000030000000c", "000001020304050607080801");
}

#[test]
fn name_bytes() {
    golden(
        OptionReply::Name("arch"),
        "0000000300000006",
        "000161726368",
    );
}

#[test]
fn block_size_bytes() {
    let sizes = OptionReply::BlockSizes(crate::nbd::BLOCK_SIZES);
    golden(sizes, "000000030000000e", "0003000000010000100002000000");
}

#[test]
fn error_bytes() {
    let error = OptionReply::Error {
        kind: ReplyType::ERR_UNKNOWN,
        message: "no",
    };
    golden(error, "8000000600000002", "6e6f");
}

#[test]
fn the_answer_to_export_name_is_padded_unless_the_client_said_no() {
    let answer = |no_zeroes| export_name_answer(0x1000, TransmissionFlags::HAS_FLAGS, no_zeroes);
    assert_eq!(hex(&answer(true)), "00000000000010000001");
    assert_eq!(answer(false), [answer(true), vec![0; 124]].concat());
}

#[test]
fn simple_reply_bytes() {
    let cookie = Cookie {
        mark: 0x1122,
        offset: 0,
    };
    let reply = |result| hex(&SimpleReply::new(cookie, result).to_bytes());
    assert_eq!(reply(Ok(())), "67446698000000000000000000001122");
    assert_eq!(
        reply(Err(Errno::ENOTSUP)),
        "674466980000005f0000000000001122"
    );
}

#[test]
fn request_bytes() {
    let request = RequestHeader {
        flags: CommandFlags::FUA.with(CommandFlags::FAST_ZERO),
        kind: RequestType::WRITE_ZEROES,
        mark: 1,
        offset: 2,
        length: 3,
    };
    assert_eq!(
        hex(&request.to_bytes().unwrap()),
        "2560951300110006000000000000000100000000000000 0200000003".replace(' ', "")
    );
    assert_eq!(
        hex(&request.to_extended()),
        "21e41c71001100060000000000000001".to_owned() + "00000000000000020000000000000003"
    );
}

#[test]
fn a_length_past_32_bits_needs_an_extended_header() {
    let request = RequestHeader {
        flags: CommandFlags::NONE,
        kind: RequestType::TRIM,
        mark: 1,
        offset: 0,
        length: 1 << 32,
    };
    assert_eq!(request.to_bytes(), None);
    assert_eq!(
        RequestHeader::from_extended(&request.to_extended()),
        Some(request)
    );
}

#[test]
fn context_bytes() {
    let context = OptionReply::Context { id: 2, name: "x:y" };
    golden(context, "0000000400000007", "00000002783a79");
}

#[test]
fn error_numbers_are_those_of_the_protocol() {
    let all = [
        Errno::EPERM,
        Errno::EIO,
        Errno::EINVAL,
        Errno::ENOSPC,
        Errno::EOVERFLOW,
        Errno::ENOTSUP,
        Errno::ESHUTDOWN,
    ];
    assert_eq!(all.map(Errno::to_wire), [1, 5, 22, 28, 75, 95, 108]);
}

#[test]
fn a_full_disk_or_quota_is_told_apart_from_a_failing_disk() {
    assert_eq!(Errno::of_io(io::ErrorKind::StorageFull), Errno::ENOSPC);
    assert_eq!(Errno::of_io(io::ErrorKind::QuotaExceeded), Errno::ENOSPC);
    assert_eq!(Errno::of_io(io::ErrorKind::FileTooLarge), Errno::ENOSPC);
    assert_eq!(Errno::of_io(io::ErrorKind::Other), Errno::EIO);
}

#[test]
fn unknown_numbers_and_flags_are_kept_and_shown() {
    let code = OptionCode::from_wire(77);
    let flags = CommandFlags::from_wire(0x8001);
    assert_eq!((code.to_wire(), flags.to_wire()), (77, 0x8001));
    assert_eq!(format!("{code:?} {flags:?}"), "OptionCode(77) FUA|0x8000");
}

#[test]
fn a_flag_that_was_not_offered_is_no_client_flag() {
    assert_eq!(ClientFlags::from_bytes([0, 0, 0, 4]), None);
    assert_eq!(ClientFlags::from_bytes([0x80, 0, 0, 3]), None);
}

#[test]
fn headers_with_another_magic_are_refused() {
    assert_eq!(OptionHeader::from_bytes(&[0; OPTION_HEADER]), None);
    assert_eq!(
        OptionReplyHeader::from_bytes(&[0; OPTION_REPLY_HEADER]),
        None
    );
    assert_eq!(RequestHeader::from_bytes(&[0; REQUEST_HEADER]), None);
    assert_eq!(
        RequestHeader::from_extended(&[0; EXTENDED_REQUEST_HEADER]),
        None
    );
    assert_eq!(SimpleReply::from_bytes(&[0; SIMPLE_REPLY]), None);
}

#[test]
fn a_name_may_have_4096_bytes_and_no_more() {
    assert!(text(&[b'a'; 4096]).is_ok());
    assert_eq!(text(&[b'a'; 4097]), Err(TextError::TooLong));
}

#[test]
fn a_name_is_utf8_without_nul() {
    assert_eq!(text("herd-\u{fc}".as_bytes()), Ok("herd-\u{fc}"));
    assert_eq!(text(b"\xff"), Err(TextError::NotUtf8));
    assert_eq!(text(b"a\0b"), Err(TextError::Nul));
}

#[test]
fn a_string_of_ours_is_cut_between_characters_and_before_a_nul() {
    let long = format!("a{}", "\u{fc}".repeat(3000));
    assert_eq!(clipped(&long).len(), 4095);
    assert_eq!(clipped("a\0b"), "a");
    assert_eq!(clipped(""), "");
}

#[test]
fn a_query_whose_lengths_disagree_is_refused() {
    let cases: [&[u8]; 6] = [
        b"",
        b"\0\0\0\x01",
        b"\0\0\0\x01a",
        b"\0\0\0\x01a\0",
        b"\0\0\0\x01a\0\x01\0",
        b"\xff\xff\xff\xffa\0\0",
    ];
    for data in cases {
        assert_eq!(
            InfoQuery::from_bytes(data),
            Err(QueryError::Length),
            "{data:?}"
        );
    }
}

#[test]
fn a_query_with_bytes_left_over_is_refused() {
    let trailing = b"\0\0\0\x01a\0\x01\0\x03\0";
    assert_eq!(InfoQuery::from_bytes(trailing), Err(QueryError::Length));
}

proptest! {
    #[test]
    fn request_headers_come_back_as_sent(
        flags: u16, kind: u16, mark: u64, offset: u64, length: u32, wide: u64,
    ) {
        let header = RequestHeader {
            flags: CommandFlags::from_wire(flags),
            kind: RequestType::from_wire(kind),
            mark,
            offset,
            length: length.into(),
        };
        let bytes = header.to_bytes().unwrap();
        prop_assert_eq!(RequestHeader::from_bytes(&bytes), Some(header));
        let header = RequestHeader { length: wide, ..header };
        prop_assert_eq!(RequestHeader::from_extended(&header.to_extended()), Some(header));
    }

    #[test]
    fn option_headers_come_back_as_sent(code: u32, length: u32) {
        let header = OptionHeader { code: OptionCode::from_wire(code), length };
        prop_assert_eq!(OptionHeader::from_bytes(&header.to_bytes()), Some(header));
    }

    #[test]
    fn option_reply_headers_come_back_as_sent(option: u32, kind: u32, length: u32) {
        let header = OptionReplyHeader {
            option: OptionCode::from_wire(option),
            kind: ReplyType::from_wire(kind),
            length,
        };
        prop_assert_eq!(OptionReplyHeader::from_bytes(&header.to_bytes()), Some(header));
    }

    #[test]
    fn simple_replies_come_back_as_sent(mark: u64, error: u32) {
        let result = if error == 0 { Ok(()) } else { Err(Errno::from_wire(error)) };
        let reply = SimpleReply::new(Cookie { mark, offset: 0 }, result);
        prop_assert_eq!(SimpleReply::from_bytes(&reply.to_bytes()), Some(reply));
    }

    #[test]
    fn client_flags_come_back_as_sent(fixed_newstyle: bool, no_zeroes: bool) {
        let flags = ClientFlags { fixed_newstyle, no_zeroes };
        prop_assert_eq!(ClientFlags::from_bytes(flags.to_bytes()), Some(flags));
    }

    #[test]
    fn queries_come_back_as_sent(name in "[^\0]{0,40}", infos: Vec<u16>) {
        let infos = infos.into_iter().map(InfoType::from_wire).collect();
        let query = InfoQuery { name, infos };
        prop_assert_eq!(InfoQuery::from_bytes(&query.to_bytes()), Ok(query));
    }

    #[test]
    fn arbitrary_query_bytes_never_panic(data: Vec<u8>) {
        let _ = InfoQuery::from_bytes(&data);
    }
}
