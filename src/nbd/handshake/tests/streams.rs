//! What holds for every stream: how it is cut, where it ends, what is not taken.

use super::*;
use crate::nbd::cut_stream::cut;
use proptest::prelude::*;

fn started() -> Handshake {
    let mut handshake = Handshake::new();
    assert_eq!(handshake.poll_transmit(), Some(GREETING.to_vec()));
    assert_eq!(handshake.handle_bytes(&hello(true)), 4);
    handshake
}

fn sent(handshake: &mut Handshake) -> Vec<String> {
    read_replies(&handshake.poll_transmit().unwrap_or_default())
}

#[test]
fn no_byte_is_taken_while_a_question_waits() {
    let mut handshake = started();
    let list = option(OptionCode::LIST, b"");
    let both = [list.clone(), option(OptionCode::ABORT, b"")].concat();
    assert_eq!(handshake.handle_bytes(&both), list.len());
    assert_eq!(handshake.handle_bytes(&both[list.len()..]), 0);
    assert_eq!(handshake.poll_event(), Some(Event::List));
    assert_eq!(handshake.handle_bytes(&both[list.len()..]), 0);
    handshake.handle_listing(&Ok(Vec::new()));
    assert_eq!(handshake.handle_bytes(&both[list.len()..]), 16);
}

#[test]
fn an_empty_list_is_an_acknowledgement() {
    let mut handshake = started();
    let _ = handshake.handle_bytes(&option(OptionCode::LIST, b""));
    handshake.handle_listing(&Ok(Vec::new()));
    assert_eq!(sent(&mut handshake), ["< LIST ACK"]);
}

#[test]
fn open_is_not_asked_before_the_whole_option_is_there() {
    let mut handshake = started();
    let go = option(OptionCode::GO, &query("disk", &[InfoType::NAME]));
    let (front, last) = go.split_at(go.len() - 1);
    assert_eq!(handshake.handle_bytes(front), front.len());
    assert_eq!(handshake.poll_event(), None);
    assert_eq!(handshake.handle_bytes(last), 1);
    let name = "disk".to_owned();
    assert_eq!(handshake.poll_event(), Some(Event::Open { name }));
}

#[test]
fn what_follows_a_choice_belongs_to_the_session() {
    let choices = [
        option(OptionCode::GO, &query("disk", &[])),
        option(OptionCode::EXPORT_NAME, b"disk"),
    ];
    for choice in choices {
        let stream = [hello(true), choice, b"requests".to_vec()].concat();
        let (_, left) = outcome([&stream[..]]);
        assert_eq!(left, b"requests");
    }
}

#[test]
fn nothing_is_taken_after_the_end() {
    let mut handshake = started();
    assert_eq!(handshake.handle_bytes(&option(OptionCode::ABORT, b"")), 16);
    assert_eq!(handshake.poll_event(), Some(Event::Closed(End::Aborted)));
    assert_eq!(handshake.handle_bytes(&option(OptionCode::LIST, b"")), 0);
    assert_eq!(handshake.poll_event(), None);
}

#[test]
fn the_reply_is_in_the_queue_before_the_end_is_told() {
    let mut handshake = started();
    let _ = handshake.handle_bytes(&option(OptionCode::GO, &query("disk", &[])));
    let _ = handshake.poll_event();
    handshake.handle_opened(Ok(DISK.into()));
    assert_eq!(sent(&mut handshake).last().unwrap(), "< GO ACK");
    assert_eq!(
        handshake.poll_event(),
        Some(Event::Finished(DISK, Agreed::default()))
    );
}

#[test]
fn options_are_refused_during_a_shutdown_but_for_abort() {
    let mut handshake = started();
    handshake.handle_shutdown();
    let _ = handshake.handle_bytes(&option(OptionCode::LIST, b""));
    let _ = handshake.handle_bytes(&option(OptionCode::GO, &query("disk", &[])));
    let _ = handshake.handle_bytes(&option(OptionCode::from_wire(99), b"data"));
    let _ = handshake.handle_bytes(&option(OptionCode::ABORT, b""));
    assert_eq!(
        sent(&mut handshake),
        [
            "< LIST ERR_SHUTDOWN \"the server is shutting down\"",
            "< GO ERR_SHUTDOWN \"the server is shutting down\"",
            "< OptionCode(99) ERR_SHUTDOWN \"the server is shutting down\"",
            "< ABORT ACK",
        ]
    );
    assert_eq!(handshake.poll_event(), Some(Event::Closed(End::Aborted)));
}

#[test]
fn export_name_during_a_shutdown_closes_the_connection() {
    let mut handshake = started();
    handshake.handle_shutdown();
    let _ = handshake.handle_bytes(&option(OptionCode::EXPORT_NAME, b"disk"));
    assert_eq!(handshake.poll_event(), Some(Event::Closed(End::Refused)));
}

#[test]
fn a_question_asked_before_the_shutdown_is_still_answered() {
    let mut handshake = started();
    let _ = handshake.handle_bytes(&option(OptionCode::GO, &query("disk", &[])));
    handshake.handle_shutdown();
    handshake.handle_opened(Err(Refusal::Shutdown("bye".to_owned())));
    assert_eq!(sent(&mut handshake), ["< GO ERR_SHUTDOWN \"bye\""]);
}

#[test]
fn messages_longer_than_a_string_may_be_are_cut() {
    let mut handshake = started();
    let _ = handshake.handle_bytes(&option(OptionCode::GO, &query("disk", &[])));
    handshake.handle_opened(Err(Refusal::Unknown("x".repeat(5000))));
    let reply = handshake.poll_transmit().unwrap();
    assert_eq!(reply.len(), OPTION_REPLY_HEADER + 4096);
}

fn any_option() -> impl Strategy<Value = Vec<u8>> {
    let names = prop::sample::select(vec!["disk", "none", "locked", "", "/disk"]);
    let infos = prop::collection::vec(0..6_u16, 0..4);
    let query = (any::<bool>(), names, infos).prop_map(|(go, name, infos)| {
        let infos: Vec<_> = infos.into_iter().map(InfoType::from_wire).collect();
        let code = if go { OptionCode::GO } else { OptionCode::INFO };
        option(code, &query(name, &infos))
    });
    let words = prop::sample::select(vec!["base:", "base:allocation", "x-cowherd:", "plain"]);
    let contexts = (9..11_u32, prop::collection::vec(words, 0..3)).prop_map(|(code, words)| {
        let query = ContextQuery {
            name: "disk".to_owned(),
            queries: words.into_iter().map(str::to_owned).collect(),
        };
        option(OptionCode::from_wire(code), &query.to_bytes())
    });
    let chunks = (any::<bool>(), any::<bool>()).prop_map(|(extended, data)| {
        let code = match extended {
            true => OptionCode::EXTENDED_HEADERS,
            false => OptionCode::STRUCTURED_REPLY,
        };
        option(code, if data { b"x" } else { b"" })
    });
    let data = prop::collection::vec(any::<u8>(), 0..60);
    let other =
        (0..12_u32, data).prop_map(|(code, data)| option(OptionCode::from_wire(code), &data));
    let list = Just(option(OptionCode::LIST, b""));
    prop_oneof![4 => query, 4 => other, 1 => list, 3 => contexts, 2 => chunks]
}

proptest! {
    #[test]
    fn however_the_stream_is_cut_the_outcome_is_the_same(
        options in prop::collection::vec(any_option(), 0..10),
        cuts in prop::collection::vec(1..50_usize, 1..20),
    ) {
        let stream = [hello(true), options.concat()].concat();
        prop_assert_eq!(outcome(cut(&stream, &cuts)), outcome([&stream[..]]));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_are_never_overrun(
        pieces in prop::collection::vec(any::<Vec<u8>>(), 0..20),
        data in prop::collection::vec(any::<u8>(), 0..60),
        code in 0..12_u32,
    ) {
        let start = [hello(true), option(OptionCode::from_wire(code), &data)].concat();
        let stream = [start, pieces.concat()].concat();
        let (_, left) = outcome([&stream[..]]);
        prop_assert!(left.len() <= stream.len());
        let _ = outcome(pieces.iter().map(Vec::as_slice));
    }
}
