//! What each option is answered with.

use super::*;
use crate::limits::{NBD_OPTION_MAX, NBD_OPTIONS_PER_HANDSHAKE};

fn abort() -> Vec<u8> {
    option(OptionCode::ABORT, b"")
}

#[test]
fn the_greeting_is_ready_at_once() {
    let mut handshake = Handshake::new();
    assert_eq!(handshake.poll_transmit(), Some(GREETING.to_vec()));
    assert_eq!(handshake.poll_transmit(), None);
    assert_eq!(handshake.poll_event(), None);
}

#[test]
fn a_flag_that_was_not_offered_closes_the_connection() {
    check(
        &[vec![0, 0, 0, 4], abort()],
        "! the client set a flag that was not offered",
    );
}

#[test]
fn a_client_without_the_fixed_newstyle_flag_is_served_too() {
    check(
        &[vec![0; 4], abort()],
        "< ABORT ACK
         ! Aborted",
    );
}

#[test]
fn another_magic_number_closes_the_connection() {
    check_options(
        &[vec![0; 16]],
        "! an option does not start with the magic number of options",
    );
}

#[test]
fn abort_is_acknowledged_whatever_data_it_carries() {
    check_options(
        &[option(OptionCode::ABORT, b"sorry"), abort()],
        "< ABORT ACK
         ! Aborted",
    );
}

#[test]
fn list_names_the_exports() {
    check_options(
        &[option(OptionCode::LIST, b""), abort()],
        "? List
         < LIST SERVER \"diskthe disk\"
         < LIST ACK
         < ABORT ACK
         ! Aborted",
    );
}

#[test]
fn list_with_data_is_invalid() {
    check_options(
        &[option(OptionCode::LIST, b"x"), abort()],
        "< LIST ERR_INVALID \"the option takes no data\"
         < ABORT ACK
         ! Aborted",
    );
}

#[test]
fn options_of_later_issues_and_unknown_ones_are_unsupported() {
    check_options(
        &[
            option(OptionCode::STARTTLS, b""),
            option(OptionCode::from_wire(4), b"peek"),
            option(OptionCode::from_wire(u32::MAX), &[0; 300]),
        ],
        "< STARTTLS ERR_UNSUP \"this server does not use TLS with this client\"
         < OptionCode(4) ERR_UNSUP \"this server does not know the option\"
         < OptionCode(4294967295) ERR_UNSUP \"this server does not know the option\"",
    );
}

#[test]
fn info_describes_and_the_haggling_goes_on() {
    check_options(
        &[option(OptionCode::INFO, &query("disk", &[])), abort()],
        "? Describe { name: \"disk\" }
         < INFO INFO EXPORT 1048576
         < INFO INFO BLOCK_SIZE [1, 4096, 33554432]
         < INFO ACK
         < ABORT ACK
         ! Aborted",
    );
}

#[test]
fn go_says_the_same_as_info_and_then_transmission_begins() {
    let asked = query("disk", &[InfoType::NAME, InfoType::BLOCK_SIZE]);
    check_options(
        &[
            option(OptionCode::INFO, &asked),
            option(OptionCode::GO, &asked),
        ],
        "? Describe { name: \"disk\" }
         < INFO INFO EXPORT 1048576
         < INFO INFO NAME \"disk\"
         < INFO INFO BLOCK_SIZE [1, 4096, 33554432]
         < INFO ACK
         ? Open { name: \"disk\" }
         < GO INFO EXPORT 1048576
         < GO INFO NAME \"disk\"
         < GO INFO BLOCK_SIZE [1, 4096, 33554432]
         < GO ACK
         ! transmission of 1048576 bytes",
    );
}

#[test]
fn an_export_is_called_what_the_server_calls_it_and_described() {
    let asked = query("told", &[InfoType::NAME, InfoType::DESCRIPTION]);
    check_options(
        &[option(OptionCode::GO, &asked)],
        "? Open { name: \"told\" }
         < GO INFO EXPORT 1048576
         < GO INFO NAME \"told+1\"
         < GO INFO WORDS \"the same as ever\"
         < GO INFO BLOCK_SIZE [1, 4096, 33554432]
         < GO ACK
         ! transmission of 1048576 bytes",
    );
}

#[test]
fn information_that_nobody_knows_is_ignored() {
    let asked = [InfoType::from_wire(999), InfoType::DESCRIPTION];
    check_options(
        &[option(OptionCode::GO, &query("disk", &asked))],
        "? Open { name: \"disk\" }
         < GO INFO EXPORT 1048576
         < GO INFO BLOCK_SIZE [1, 4096, 33554432]
         < GO ACK
         ! transmission of 1048576 bytes",
    );
}

#[test]
fn a_refused_go_says_why_and_the_client_may_try_again() {
    let go = |name| option(OptionCode::GO, &query(name, &[]));
    check_options(
        &[
            go("none"),
            go("locked"),
            go("broken"),
            go("leaving"),
            go("disk"),
        ],
        "? Open { name: \"none\" }
         < GO ERR_UNKNOWN \"no export 'none'\"
         ? Open { name: \"locked\" }
         < GO ERR_POLICY \"not for you\"
         ? Open { name: \"broken\" }
         < GO ERR_UNKNOWN \"the disk failed\"
         ? Open { name: \"leaving\" }
         < GO ERR_SHUTDOWN \"bye\"
         ? Open { name: \"disk\" }
         < GO INFO EXPORT 1048576
         < GO INFO BLOCK_SIZE [1, 4096, 33554432]
         < GO ACK
         ! transmission of 1048576 bytes",
    );
}

#[test]
fn a_refused_info_says_why() {
    check_options(
        &[option(OptionCode::INFO, &query("", &[]))],
        "? Describe { name: \"\" }
         < INFO ERR_UNKNOWN \"no export ''\"",
    );
}

#[test]
fn malformed_queries_are_invalid_and_are_not_asked_about() {
    let long_name = query(&"a".repeat(4097), &[]);
    check_options(
        &[
            option(OptionCode::GO, b""),
            option(OptionCode::GO, b"\0\0\0\x09disk\0\0"),
            option(OptionCode::INFO, b"\0\0\0\x04disk\0\x01"),
            option(OptionCode::INFO, b"\0\0\0\x01\xff\0\0"),
            option(OptionCode::GO, b"\0\0\0\x01\0\0\0"),
            option(OptionCode::GO, &long_name),
        ],
        "< GO ERR_INVALID \"the lengths inside the option don't add up to its own length\"
         < GO ERR_INVALID \"the lengths inside the option don't add up to its own length\"
         < INFO ERR_INVALID \"the lengths inside the option don't add up to its own length\"
         < INFO ERR_INVALID \"the name is not UTF-8\"
         < GO ERR_INVALID \"the name holds a NUL character\"
         < GO ERR_INVALID \"the name is longer than 4096 bytes\"",
    );
}

#[test]
fn a_query_larger_than_we_read_is_skipped_and_too_big() {
    check_options(
        &[
            option(OptionCode::GO, &vec![0; NBD_OPTION_MAX + 1]),
            abort(),
        ],
        "< GO ERR_TOO_BIG \"the option has more data than this server reads\"
         < ABORT ACK
         ! Aborted",
    );
}

#[test]
fn export_name_is_answered_with_zeros_behind_it() {
    check(
        &[hello(false), option(OptionCode::EXPORT_NAME, b"disk")],
        "? Open { name: \"disk\" }
         < EXPORT 1048576 and 124 zeros
         ! transmission of 1048576 bytes",
    );
}

#[test]
fn export_name_spares_the_zeros_where_that_was_agreed() {
    check_options(
        &[option(OptionCode::EXPORT_NAME, b"disk")],
        "? Open { name: \"disk\" }
         < EXPORT 1048576 and 0 zeros
         ! transmission of 1048576 bytes",
    );
}

#[test]
fn a_refused_export_name_closes_the_connection_without_a_word() {
    check_options(
        &[option(OptionCode::EXPORT_NAME, b"none"), abort()],
        "? Open { name: \"none\" }
         ! Refused",
    );
}

#[test]
fn export_name_may_have_4096_bytes() {
    let name = "a".repeat(4096);
    check_options(
        &[option(OptionCode::EXPORT_NAME, name.as_bytes())],
        &format!("? Open {{ name: {name:?} }}\n! Refused"),
    );
}

#[test]
fn a_malformed_export_name_closes_the_connection() {
    let malformed = [
        (vec![b'a'; 4097], "longer than 4096 bytes"),
        (b"\xff".to_vec(), "not UTF-8"),
    ];
    for (name, why) in malformed {
        let stream = [hello(true), option(OptionCode::EXPORT_NAME, &name)].concat();
        let (transcript, _) = outcome([&stream[..]]);
        assert_eq!(transcript.len(), 1);
        assert!(transcript[0].starts_with("! EXPORT_NAME: ") && transcript[0].ends_with(why));
    }
}

#[test]
fn a_client_that_never_chooses_is_closed() {
    let unknown = option(OptionCode::from_wire(99), b"");
    let limit = usize::try_from(NBD_OPTIONS_PER_HANDSHAKE).unwrap();
    let stream = [hello(true), unknown.repeat(limit + 1)].concat();
    let (transcript, _) = outcome([&stream[..]]);
    assert_eq!(transcript.len(), limit + 1);
    assert_eq!(
        transcript[limit],
        "! the client sent more options than a handshake may have"
    );
}
