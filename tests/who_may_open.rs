//! Who may not open an export gets the protocol's error, and the log says by which rule.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use rustix::process::Signal;
use support::nbd::{Client, Handshake, Refused, assert_refused, reply};
use support::{Server, Setup, write_file};

const BLOCK: usize = 4096;

/// A server of the images `open` and `closed`, the second with these lines in its table.
fn serve(of_closed: &str, more: &str) -> Server {
    let setup = Setup::new();
    let config = setup.file("cowherd.toml");
    let setup = setup.with_arg("--config").with_arg(&config);
    write(&setup, of_closed, more);
    setup.start()
}

fn write(setup: &Setup, of_closed: &str, more: &str) {
    let image = setup.file("image.raw");
    if !image.exists() {
        write_file(&image, &[7; BLOCK]);
    }
    let file = image.display();
    let text = format!(
        "[image.open]\nfile = \"{file}\"\n[image.closed]\nfile = \"{file}\"\n{of_closed}\n\
         [defaults]\nimage = \"open\"\n{more}"
    );
    write_file(&setup.file("cowherd.toml"), text.as_bytes());
}

fn open(server: &Server, export: &str) -> Result<(), Refused> {
    Client::open(&server.address(), export).map(drop)
}

fn list(server: &Server) -> Result<Vec<String>, Refused> {
    Handshake::start(&server.address())
        .expect("a greeting")
        .list()
}

/// A network that no test comes from.
const ELSEWHERE: &str = "192.0.2.0/24";

#[test]
fn an_image_that_is_not_for_a_client_is_refused_by_policy() {
    let server = serve(&format!("allow = [\"{ELSEWHERE}\"]"), "");
    assert_refused(open(&server, "closed@a"), &[reply::ERR_POLICY]);
    server.wait_for_log(&["closed@a", "refused", "`allow` of [image.closed]"]);
    assert_refused(open(&server, "closed"), &[reply::ERR_POLICY]);
    open(&server, "open@a").expect("the other image");
}

#[test]
fn info_is_refused_as_go_is_and_the_handshake_goes_on() {
    let server = serve("deny = [\"127.0.0.0/8\"]", "");
    let mut handshake = Handshake::start(&server.address()).expect("a greeting");
    assert_refused(handshake.info("closed@a"), &[reply::ERR_POLICY]);
    server.wait_for_log(&["`deny` of [image.closed] has 127.0.0.0/8"]);
    handshake.go("open@a").expect("the other image");
}

#[test]
fn export_name_can_only_be_refused_by_closing() {
    let server = serve("deny = [\"127.0.0.1\"]", "");
    let handshake = Handshake::start(&server.address()).expect("a greeting");
    match handshake.export_name("closed@a") {
        Err(Refused::Closed(_)) => {}
        other => panic!("opened or answered: {:?}", other.map(drop)),
    }
    server.wait_for_log(&["closed@a", "`deny` of [image.closed]"]);
}

#[test]
fn the_list_has_what_the_client_may_open() {
    let server = serve("deny = [\"127.0.0.1\"]", "");
    assert_eq!(list(&server).expect("a list"), ["open"]);
}

#[test]
fn who_may_open_nothing_gets_no_list_and_learns_of_no_name() {
    let setup = Setup::of_bytes(&[7; BLOCK]).with_arg("--deny");
    let server = setup.with_arg("127.0.0.0/8").start();
    assert_refused(list(&server), &[reply::ERR_POLICY]);
    for export in ["disk", "disk@a", "nonsense", "a b"] {
        assert_refused(open(&server, export), &[reply::ERR_POLICY]);
    }
    server.wait_for_log(&["the list refused", "`deny` of [nbd] has 127.0.0.0/8"]);
}

#[test]
fn the_command_line_goes_before_the_file() {
    let setup = Setup::new();
    let config = setup.file("cowherd.toml");
    let setup = setup.with_arg("--config").with_arg(&config);
    write(&setup, "", "[nbd]\ndeny = [\"127.0.0.1\"]\n");
    let server = setup
        .clone()
        .with_arg("--allow")
        .with_arg("127.0.0.1")
        .start();
    open(&server, "open@a").expect("allowed on the command line");
    server.signal(Signal::HUP);
    server.wait_for_log(&["config reloaded"]);
    open(&server, "open@a").expect("allowed on the command line");
    drop(server);
    assert_refused(open(&setup.start(), "open@a"), &[reply::ERR_POLICY]);
}

#[test]
fn the_overlay_of_an_address_is_not_opened_from_another() {
    let server = serve("", "[client.studio]\naddress = \"192.0.2.7\"\n");
    assert_refused(open(&server, "open@studio"), &[reply::ERR_POLICY]);
    server.wait_for_log(&["open@studio", "[client.studio] has address 192.0.2.7"]);
    open(&server, "open@other").expect("a client without an address");
}

/// With `overlay = "ephemeral"` for all, a name could else join what belongs to an address.
#[test]
fn the_overlay_of_an_address_is_not_opened_by_its_name() {
    let server = serve("", "overlay = \"ephemeral\"\n");
    for name in ["192-0-2-7", "0--1", "local"] {
        let refused = open(&server, &format!("open@{name}"));
        assert_refused(refused, &[reply::ERR_POLICY]);
    }
    open(&server, "open@127-0-0-1").expect("its own address");
}

#[test]
fn sighup_changes_who_may() {
    let server = serve("", "");
    open(&server, "closed@a").expect("not closed yet");
    write(server.setup(), "deny = [\"127.0.0.1\"]", "");
    server.signal(Signal::HUP);
    server.wait_for_log(&["config reloaded"]);
    assert_refused(open(&server, "closed@a"), &[reply::ERR_POLICY]);
}
