//! Structured replies, extended headers, and the contexts that need one of them.

use super::*;
use crate::limits::NBD_OPTION_MAX;

fn structured() -> Vec<u8> {
    option(OptionCode::STRUCTURED_REPLY, b"")
}

fn extended() -> Vec<u8> {
    option(OptionCode::EXTENDED_HEADERS, b"")
}

fn go(name: &str) -> Vec<u8> {
    option(OptionCode::GO, &query(name, &[]))
}

fn contexts(code: OptionCode, export: &str, queries: &[&str]) -> Vec<u8> {
    let query = ContextQuery {
        name: export.to_owned(),
        queries: queries.iter().map(|query| (*query).to_owned()).collect(),
    };
    option(code, &query.to_bytes())
}

fn list(queries: &[&str]) -> Vec<u8> {
    contexts(OptionCode::LIST_META_CONTEXT, "disk", queries)
}

fn set(export: &str, queries: &[&str]) -> Vec<u8> {
    contexts(OptionCode::SET_META_CONTEXT, export, queries)
}

/// What the transmission phase of `disk` goes by after these options.
fn agreed_after(options: &[Vec<u8>]) -> String {
    let stream = [hello(true), options.concat(), go("disk")].concat();
    let (transcript, _) = outcome([&stream[..]]);
    let last = transcript.last().unwrap();
    last.strip_prefix("! transmission of 1048576 bytes")
        .unwrap_or(last)
        .to_owned()
}

#[test]
fn structured_replies_bring_reads_in_one_piece() {
    check_options(
        &[structured(), go("disk")],
        "< STRUCTURED_REPLY ACK
         ? Open { name: \"disk\" }
         < GO INFO EXPORT 1048576 SEND_DF
         < GO INFO BLOCK_SIZE [1, 4096, 33554432]
         < GO ACK
         ! transmission of 1048576 bytes, Structured",
    );
}

#[test]
fn extended_headers_imply_structured_replies() {
    check_options(
        &[
            extended(),
            structured(),
            set("disk", &["base:allocation"]),
            go("disk"),
        ],
        "< EXTENDED_HEADERS ACK
         < STRUCTURED_REPLY ERR_EXT_HEADER_REQD \"extended headers were agreed on, and imply \
structured replies\"
         ? Describe { name: \"disk\" }
         < SET_META_CONTEXT META_CONTEXT 1 base:allocation
         < SET_META_CONTEXT ACK
         ? Open { name: \"disk\" }
         < GO INFO EXPORT 1048576 SEND_DF|BLOCK_STATUS_PAYLOAD
         < GO INFO BLOCK_SIZE [1, 4096, 33554432]
         < GO ACK
         ! transmission of 1048576 bytes, Extended base:allocation",
    );
}

#[test]
fn an_option_that_is_asked_for_twice_is_granted_twice() {
    assert_eq!(agreed_after(&[structured(), structured()]), ", Structured");
    let all = [structured(), extended(), extended()];
    assert_eq!(agreed_after(&all), ", Extended");
}

#[test]
fn options_that_take_no_data_are_invalid_with_data_and_change_nothing() {
    check_options(
        &[
            option(OptionCode::STRUCTURED_REPLY, b"x"),
            option(OptionCode::EXTENDED_HEADERS, b"xyz"),
        ],
        "< STRUCTURED_REPLY ERR_INVALID \"the option takes no data\"
         < EXTENDED_HEADERS ERR_INVALID \"the option takes no data\"",
    );
    let with_data = option(OptionCode::EXTENDED_HEADERS, b"x");
    assert_eq!(agreed_after(&[with_data]), "");
}

#[test]
fn export_name_after_extended_headers_closes_the_connection() {
    check_options(
        &[extended(), option(OptionCode::EXPORT_NAME, b"disk")],
        "< EXTENDED_HEADERS ACK
         ! EXPORT_NAME after EXTENDED_HEADERS, which needs GO",
    );
}

#[test]
fn export_name_keeps_structured_replies_and_contexts() {
    let options = [
        structured(),
        set("disk", &["base:allocation"]),
        option(OptionCode::EXPORT_NAME, b"disk"),
    ];
    let stream = [hello(true), options.concat()].concat();
    let (transcript, _) = outcome([&stream[..]]);
    assert_eq!(
        transcript.last().unwrap(),
        "! transmission of 1048576 bytes, Structured base:allocation"
    );
}

#[test]
fn contexts_need_replies_in_chunks() {
    let why = "\"metadata contexts need STRUCTURED_REPLY or EXTENDED_HEADERS first\"";
    check_options(
        &[list(&[]), set("disk", &["base:allocation"])],
        &format!(
            "< LIST_META_CONTEXT ERR_INVALID {why}
             < SET_META_CONTEXT ERR_INVALID {why}"
        ),
    );
}

#[test]
fn a_list_without_queries_names_all_contexts() {
    check_options(
        &[structured(), list(&[])],
        "< STRUCTURED_REPLY ACK
         ? Describe { name: \"disk\" }
         < LIST_META_CONTEXT META_CONTEXT 0 base:allocation
         < LIST_META_CONTEXT META_CONTEXT 0 x-cowherd:overlay
         < LIST_META_CONTEXT ACK",
    );
}

/// The contexts that a list with these queries names.
fn listed(queries: &[&str]) -> Vec<String> {
    let stream = [hello(true), structured(), list(queries)].concat();
    let (transcript, _) = outcome([&stream[..]]);
    let lines = transcript.iter();
    let names = lines.filter_map(|line| line.strip_prefix("< LIST_META_CONTEXT META_CONTEXT 0 "));
    names.map(str::to_owned).collect()
}

#[test]
fn in_a_list_a_namespace_alone_stands_for_all_its_contexts() {
    assert_eq!(listed(&["base:"]), ["base:allocation"]);
    assert_eq!(listed(&["x-cowherd:"]), ["x-cowherd:overlay"]);
    assert_eq!(listed(&["x-cowherd:", "base:"]).len(), 2);
}

#[test]
fn what_no_query_knows_is_not_listed_and_no_error() {
    assert_eq!(
        listed(&["base:x", "qemu:", "qemu:dirty-bitmap:b", ":"]).len(),
        0
    );
    assert_eq!(listed(&["base:x", "base:allocation"]), ["base:allocation"]);
}

#[test]
fn a_set_names_what_it_selects_once() {
    check_options(
        &[
            structured(),
            set(
                "disk",
                &["x-cowherd:overlay", "base:allocation", "x-cowherd:overlay"],
            ),
        ],
        "< STRUCTURED_REPLY ACK
         ? Describe { name: \"disk\" }
         < SET_META_CONTEXT META_CONTEXT 1 base:allocation
         < SET_META_CONTEXT META_CONTEXT 2 x-cowherd:overlay
         < SET_META_CONTEXT ACK",
    );
}

#[test]
fn a_set_without_queries_or_with_a_namespace_alone_selects_nothing() {
    for queries in [
        &[][..],
        &["base:"],
        &["x-cowherd:"],
        &["base:other", "qemu:x"],
    ] {
        let options = [structured(), set("disk", queries)];
        assert_eq!(agreed_after(&options), ", Structured", "{queries:?}");
    }
}

#[test]
fn a_later_set_replaces_an_earlier_one() {
    let options = [
        structured(),
        set("disk", &["base:allocation"]),
        set("disk", &["x-cowherd:overlay"]),
    ];
    assert_eq!(agreed_after(&options), ", Structured x-cowherd:overlay");
}

#[test]
fn a_set_that_fails_leaves_no_context_selected() {
    let failing = [
        set("none", &["base:allocation"]),
        set("disk", &["plain"]),
        option(OptionCode::SET_META_CONTEXT, b"bad"),
        option(OptionCode::SET_META_CONTEXT, &vec![0; NBD_OPTION_MAX + 1]),
    ];
    for fails in failing {
        let options = [structured(), set("disk", &["base:allocation"]), fails];
        assert_eq!(agreed_after(&options), ", Structured");
    }
}

#[test]
fn contexts_of_another_export_are_not_those_of_the_one_that_is_opened() {
    let options = [structured(), set("disk", &["base:allocation"]), go("none")];
    assert_eq!(agreed_after(&options), ", Structured base:allocation");
    let options = [structured(), set("twin", &["base:allocation"])];
    assert_eq!(agreed_after(&options), ", Structured");
}

#[test]
fn a_list_changes_no_selection() {
    let options = [
        structured(),
        set("disk", &["base:allocation"]),
        list(&["x-cowherd:overlay"]),
    ];
    assert_eq!(agreed_after(&options), ", Structured base:allocation");
}

#[test]
fn contexts_of_an_export_that_can_not_be_had_are_refused_as_it_is() {
    check_options(
        &[structured(), set("locked", &[]), set("none", &[])],
        "< STRUCTURED_REPLY ACK
         ? Describe { name: \"locked\" }
         < SET_META_CONTEXT ERR_POLICY \"not for you\"
         ? Describe { name: \"none\" }
         < SET_META_CONTEXT ERR_UNKNOWN \"no export 'none'\"",
    );
}

#[test]
fn malformed_lengths_and_queries_without_a_namespace_are_invalid() {
    let lengths = "\"the lengths inside the option don't add up to its own length\"";
    check_options(
        &[
            structured(),
            option(OptionCode::LIST_META_CONTEXT, b"\0\0\0\x09disk\0\0\0\0"),
            option(OptionCode::LIST_META_CONTEXT, b"\0\0\0\0\0\0\0\x01"),
            list(&["allocation"]),
        ],
        &format!(
            "< STRUCTURED_REPLY ACK
             < LIST_META_CONTEXT ERR_INVALID {lengths}
             < LIST_META_CONTEXT ERR_INVALID {lengths}
             < LIST_META_CONTEXT ERR_INVALID \"the query \\\"allocation\\\" has no namespace \
and colon\""
        ),
    );
}

#[test]
fn of_an_export_that_needs_tls_only_info_and_go_may_say_so() {
    let mut driver = Driver::new();
    driver.handshake = Handshake::new().with_tls(TlsMode::Selective);
    let secret = |code| contexts(code, "secret", &[]);
    let options = [
        structured(),
        secret(OptionCode::LIST_META_CONTEXT),
        secret(OptionCode::SET_META_CONTEXT),
        go("secret"),
    ];
    driver.receive(&[hello(true), options.concat()].concat());
    let replies: Vec<_> = driver
        .transcript
        .iter()
        .filter(|line| line.contains("ERR_"))
        .collect();
    assert_eq!(
        replies,
        [
            "< LIST_META_CONTEXT ERR_POLICY \"only over TLS\"",
            "< SET_META_CONTEXT ERR_POLICY \"only over TLS\"",
            "< GO ERR_TLS_REQD \"only over TLS\"",
        ]
    );
}
