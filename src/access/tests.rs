//! Every gate, by what it lets through and what it says where it does not.

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn entries(texts: &[&str]) -> Vec<Entry> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn list(allow: &[&str], deny: &[&str]) -> List {
    let (allow, deny) = (entries(allow), entries(deny));
    List { allow, deny }
}

fn at(address: &str) -> Caller {
    Caller::plain(Peer::Ip(address.parse().unwrap()))
}

fn local() -> Caller {
    Caller::plain(Peer::Local)
}

/// A caller from nowhere in particular with this certificate, or with TLS alone.
fn over_tls(certificate: Option<&str>) -> Caller {
    let certificate = certificate.map(str::to_owned);
    let tls = Some(Secured { certificate });
    Caller {
        tls,
        ..at("10.9.9.9")
    }
}

/// Rules under test, with a client `a` at 10.0.0.1.
#[derive(Default)]
struct Case(Rules);

impl Case {
    fn everywhere(allow: &[&str], deny: &[&str]) -> Self {
        Self(Rules {
            everywhere: list(allow, deny),
            ..Rules::default()
        })
    }

    fn image(image: ImageRule) -> Self {
        let mut rules = Rules::default();
        rules.images.insert(name("disk"), image);
        Self(rules)
    }

    fn client(allow: &[&str], certificate: bool) -> Self {
        let mut rules = Rules::default();
        let client = ClientRule {
            address: Some([10, 0, 0, 1].into()),
            allow: entries(allow),
            certificate,
        };
        rules.clients.insert(name("a"), client);
        Self(rules)
    }

    /// `caller` opens `disk` as `client`.
    fn open(&self, caller: &Caller, client: &str) -> Result<(), Denial> {
        let a = name("a");
        let holder = (caller.peer == at("10.0.0.1").peer).then_some(&a);
        let who = Who { caller, holder };
        self.0.may_open(who, &name("disk"), &name(client))
    }

    #[track_caller]
    fn opens(&self, caller: &Caller, client: &str) {
        assert_eq!(self.open(caller, client), Ok(()), "{caller:?} as {client}");
    }

    #[track_caller]
    fn denies(&self, caller: &Caller, client: &str, word: &str) {
        match self.open(caller, client) {
            Err(Denial::Policy(rule)) => assert!(rule.contains(word), "{word:?} not in {rule}"),
            other => panic!("{caller:?} as {client}: {other:?}"),
        }
    }

    #[track_caller]
    fn wants_tls(&self, caller: &Caller, client: &str, word: &str) {
        match self.open(caller, client) {
            Err(Denial::TlsRequired(rule)) => {
                assert!(rule.contains(word), "{word:?} not in {rule}")
            }
            other => panic!("{caller:?} as {client}: {other:?}"),
        }
    }
}

#[test]
fn without_rules_everybody_may_open_everything() {
    for caller in [at("10.0.0.9"), at("::1"), local(), over_tls(None)] {
        Case::default().opens(&caller, "studio");
    }
}

#[test]
fn what_is_not_allowed_is_denied() {
    let case = Case::everywhere(&["10.0.0.0/24", "@a"], &[]);
    case.opens(&at("10.0.0.9"), "x");
    case.denies(&at("10.0.1.9"), "x", "`allow` of [nbd]");
    case.denies(&local(), "x", "`allow`");
    Case::everywhere(&["unix"], &[]).opens(&local(), "x");
}

#[test]
fn deny_goes_before_allow() {
    let case = Case::everywhere(&["10.0.0.0/24"], &["10.0.0.9"]);
    case.opens(&at("10.0.0.8"), "x");
    case.denies(&at("10.0.0.9"), "x", "`deny` of [nbd] has 10.0.0.9");
}

#[test]
fn an_entry_may_be_a_client() {
    let case = Case::everywhere(&[], &["@a"]);
    case.denies(&at("10.0.0.1"), "x", "@a");
    case.denies(&over_tls(Some("a")), "a", "@a");
    case.opens(&at("10.0.0.2"), "x");
}

#[test]
fn an_image_has_lists_of_its_own() {
    let list = list(&["10.0.0.0/24"], &[]);
    let case = Case::image(ImageRule { list, tls: false });
    case.opens(&at("10.0.0.9"), "x");
    case.denies(&at("10.0.1.9"), "x", "[image.disk]");
    let who = Who {
        caller: &at("10.0.1.9"),
        holder: None,
    };
    assert_eq!(case.0.may_see(who, &name("other")), Ok(()));
    assert!(case.0.may_see(who, &name("disk")).is_err());
}

#[test]
fn what_is_closed_to_all_is_not_opened_by_an_image() {
    let mut case = Case::everywhere(&[], &["10.0.0.0/8"]);
    let list = list(&["10.0.0.9"], &[]);
    case.0
        .images
        .insert(name("disk"), ImageRule { list, tls: false });
    case.denies(&at("10.0.0.9"), "x", "[nbd]");
}

#[test]
fn an_image_for_tls_only_is_not_opened_without() {
    let case = Case::image(ImageRule {
        list: List::default(),
        tls: true,
    });
    case.wants_tls(&at("10.0.0.9"), "x", "`tls` of [image.disk]");
    case.wants_tls(&local(), "x", "`tls`");
    case.opens(&over_tls(None), "x");
}

#[test]
fn the_overlay_of_an_address_is_opened_from_there() {
    let case = Case::client(&[], false);
    case.opens(&at("10.0.0.1"), "a");
    case.denies(&at("10.0.0.2"), "a", "[client.a] has address 10.0.0.1");
    case.opens(&local(), "a");
    case.opens(&at("10.0.0.2"), "somebody");
}

#[test]
fn a_client_may_let_others_in() {
    let case = Case::client(&["10.0.0.2"], false);
    case.opens(&at("10.0.0.1"), "a");
    case.opens(&at("10.0.0.2"), "a");
    case.denies(&at("10.0.0.3"), "a", "`allow` of [client.a]");
    case.denies(&local(), "a", "`allow`");
}

#[test]
fn a_certificate_opens_its_own_overlay_and_nothing_else() {
    let case = Case::client(&["10.0.0.0/8"], false);
    case.opens(&over_tls(Some("a")), "a");
    case.opens(&over_tls(Some("studio-3")), "studio-3");
    for other in ["a", "somebody", "10-9-9-9"] {
        case.denies(&over_tls(Some("studio-3")), other, "\"studio-3\"");
    }
}

#[test]
fn a_certificate_counts_more_than_an_address() {
    let case = Case::client(&[], false);
    let tls = over_tls(Some("b")).tls;
    let caller = Caller {
        tls,
        ..at("10.0.0.1")
    };
    case.denies(&caller, "a", "\"b\"");
    case.opens(&caller, "b");
}

#[test]
fn a_client_that_must_show_a_certificate_is_not_opened_without() {
    let case = Case::client(&["0.0.0.0/0"], true);
    case.wants_tls(&at("10.0.0.1"), "a", "`certificate` of [client.a]");
    case.wants_tls(&local(), "a", "`certificate`");
    case.denies(&over_tls(None), "a", "`certificate`");
    case.opens(&over_tls(Some("a")), "a");
}

#[test]
fn a_name_made_of_an_address_is_for_that_address_only() {
    let case = Case::default();
    case.opens(&at("10.0.0.9"), "10-0-0-9");
    case.denies(&at("10.0.0.8"), "10-0-0-9", "10-0-0-9");
    case.denies(&local(), "0--1", "0--1");
    case.denies(&at("10.0.0.8"), "local", "local");
    case.opens(&local(), "local");
}

#[test]
fn entries_are_shown_as_they_are_written() {
    for text in ["10.0.0.0/8", "::1", "unix", "@studio-3"] {
        assert_eq!(text.parse::<Entry>().unwrap().to_string(), text);
    }
    for text in ["", "local", "@", "@1", "10.0.0.1/8"] {
        assert!(text.parse::<Entry>().is_err(), "{text}");
    }
}
