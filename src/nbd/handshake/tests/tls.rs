//! STARTTLS, and handshakes that need it.

use super::*;

const STARTTLS: OptionCode = OptionCode::STARTTLS;

/// A driver in this mode, greeted by a client of today.
fn driver(mode: TlsMode) -> Driver {
    let mut driver = Driver::new();
    driver.handshake = Handshake::new().with_tls(mode);
    driver.receive(&hello(true));
    driver
}

impl Driver {
    fn receives(mut self, options: &[Vec<u8>]) -> Self {
        options.iter().for_each(|option| self.receive(option));
        self
    }

    /// STARTTLS and all that TLS itself takes.
    fn upgrades(mut self) -> Self {
        self.receive(&option(STARTTLS, b""));
        assert_eq!(
            self.transcript.split_off(self.transcript.len() - 2),
            ["< STARTTLS ACK", "! TLS"]
        );
        self.handshake.handle_tls_started();
        self
    }

    #[track_caller]
    fn shows(self, expected: &[&str]) {
        assert_eq!(self.transcript, expected);
    }
}

fn go(name: &str) -> Vec<u8> {
    option(OptionCode::GO, &query(name, &[]))
}

const NOT_YET: &str = "ERR_TLS_REQD \"this server requires TLS\"";

#[test]
fn where_tls_is_required_nothing_but_starttls_and_abort_is_served_before_it() {
    let codes = [
        OptionCode::LIST,
        OptionCode::GO,
        OptionCode::INFO,
        OptionCode::STRUCTURED_REPLY,
        OptionCode::EXTENDED_HEADERS,
        OptionCode::LIST_META_CONTEXT,
        OptionCode::SET_META_CONTEXT,
        OptionCode::from_wire(99),
    ];
    for code in codes {
        let driver = driver(TlsMode::Required).receives(&[option(code, b"whatever")]);
        driver.shows(&[&format!("< {code:?} {NOT_YET}")]);
    }
    let abort = driver(TlsMode::Required).receives(&[option(OptionCode::ABORT, b"")]);
    abort.shows(&["< ABORT ACK", "! Aborted"]);
}

#[test]
fn where_tls_is_required_export_name_closes_before_it() {
    let driver = driver(TlsMode::Required);
    let driver = driver.receives(&[option(OptionCode::EXPORT_NAME, b"disk")]);
    driver.shows(&["! Refused"]);
}

#[test]
fn after_tls_everything_is_served() {
    for mode in [TlsMode::Selective, TlsMode::Required] {
        let driver = driver(mode).upgrades().receives(&[go("disk")]);
        assert_eq!(
            driver.transcript.last().unwrap(),
            "! transmission of 1048576 bytes"
        );
    }
}

#[test]
fn what_was_agreed_on_before_tls_is_forgotten() {
    let contexts = ContextQuery {
        name: "disk".to_owned(),
        queries: vec!["base:allocation".to_owned()],
    };
    let before = [
        option(OptionCode::STRUCTURED_REPLY, b""),
        option(OptionCode::EXTENDED_HEADERS, b""),
        option(OptionCode::SET_META_CONTEXT, &contexts.to_bytes()),
    ];
    let plain = driver(TlsMode::Selective)
        .receives(&before)
        .receives(&[go("disk")]);
    assert!(plain.transcript.last().unwrap().contains("Extended"));
    let upgraded = driver(TlsMode::Selective).receives(&before).upgrades();
    let upgraded = upgraded.receives(&[go("disk")]);
    let last = upgraded.transcript.last().unwrap();
    assert_eq!(last, "! transmission of 1048576 bytes");
}

#[test]
fn bytes_behind_starttls_are_never_taken_for_options() {
    for behind in [&b"x"[..], &go("disk"), &option(OptionCode::ABORT, b"")] {
        let mut stream = option(STARTTLS, b"");
        stream.extend_from_slice(behind);
        let driver = driver(TlsMode::Selective).receives(&[stream]);
        driver.shows(&["! the client sent more behind STARTTLS before it was answered"]);
    }
}

#[test]
fn while_tls_starts_no_byte_is_taken() {
    let mut driver = driver(TlsMode::Selective).receives(&[option(STARTTLS, b"")]);
    assert_eq!(driver.handshake.handle_bytes(&go("disk")), 0);
    assert_eq!(driver.handshake.poll_event(), None);
    assert_eq!(driver.handshake.poll_transmit(), None);
}

#[test]
fn a_second_starttls_is_invalid() {
    for data in [&b""[..], b"x"] {
        let driver = driver(TlsMode::Required).upgrades();
        let driver = driver.receives(&[option(STARTTLS, data), go("disk")]);
        let (first, rest) = driver.transcript.split_first().unwrap();
        assert_eq!(first, "< STARTTLS ERR_INVALID \"TLS is there already\"");
        assert_eq!(rest.last().unwrap(), "! transmission of 1048576 bytes");
    }
}

#[test]
fn starttls_with_data_is_invalid_and_may_be_tried_again() {
    let driver = driver(TlsMode::Required).receives(&[option(STARTTLS, b"now")]);
    let mut driver = driver.upgrades();
    driver.transcript.truncate(1);
    driver.shows(&["< STARTTLS ERR_INVALID \"the option takes no data\""]);
}

#[test]
fn without_tls_starttls_is_unsupported_and_nothing_ever_requires_it() {
    let driver = driver(TlsMode::Off).receives(&[option(STARTTLS, b""), go("secret")]);
    driver.shows(&[
        "< STARTTLS ERR_UNSUP \"this server does not use TLS with this client\"",
        "? Open { name: \"secret\" }",
        "< GO ERR_POLICY \"only over TLS\"",
    ]);
}

#[test]
fn an_export_for_tls_only_says_so_before_tls_and_never_after() {
    let plain = driver(TlsMode::Selective).receives(&[go("secret")]);
    assert_eq!(
        plain.transcript.last().unwrap(),
        "< GO ERR_TLS_REQD \"only over TLS\""
    );
    let secured = driver(TlsMode::Selective).upgrades();
    let secured = secured.receives(&[go("secret")]);
    assert_eq!(
        secured.transcript.last().unwrap(),
        "< GO ERR_POLICY \"only over TLS\""
    );
    let name = option(OptionCode::EXPORT_NAME, b"secret");
    let closed = driver(TlsMode::Selective).receives(&[name]);
    assert_eq!(closed.transcript.last().unwrap(), "! Refused");
}

/// "The server MUST operate in NOTLS mode unless [...] the client replied with
/// `NBD_FLAG_C_FIXED_NEWSTYLE`".
#[test]
fn a_client_without_fixed_newstyle_gets_no_tls() {
    let greeted = |mode| {
        let mut driver = Driver::new();
        driver.handshake = Handshake::new().with_tls(mode);
        driver.receive(&0_u32.to_be_bytes());
        driver
            .receives(&[option(STARTTLS, b""), go("secret")])
            .transcript
    };
    for mode in [TlsMode::Selective, TlsMode::Required] {
        let transcript = greeted(mode);
        assert!(transcript[0].contains("STARTTLS ERR_UNSUP"), "{mode:?}");
        let last = transcript.last().unwrap();
        assert!(last.contains("GO ERR_POLICY"), "{mode:?} {last}");
    }
}

#[test]
fn options_before_and_after_tls_are_counted_together() {
    let options = crate::limits::NBD_OPTIONS_PER_HANDSHAKE as usize;
    let list = option(OptionCode::LIST, b"");
    let driver = driver(TlsMode::Required).receives(&vec![list.clone(); options - 1]);
    let driver = driver.upgrades().receives(&[list]);
    let last = driver.transcript.last().unwrap();
    assert_eq!(
        last,
        "! the client sent more options than a handshake may have"
    );
}
