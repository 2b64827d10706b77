//! `serve --config`: what the file says is served, and read again on SIGHUP.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::path::PathBuf;

use cowherd::limits::CONFIG_BYTES_MAX;
use rustix::process::Signal;
use support::nbd::{Client, assert_refused, flag, reply};
use support::{Refusal, Server, Setup, write_file};

const BLOCK: usize = 4096;

/// A setup with nothing on its command line but a config file.
struct Configured {
    setup: Setup,
    config: PathBuf,
}

impl Configured {
    /// A file with an image `arch` of four blocks of the letter a, and with `more`.
    fn new(more: &str) -> Self {
        let setup = Setup::new();
        let config = setup.file("cowherd.toml");
        write_file(&setup.file("image.raw"), &[b'a'; 4 * BLOCK]);
        let setup = setup.with_arg("--config").with_arg(&config);
        let configured = Self { setup, config };
        configured.write(more);
        configured
    }

    fn write(&self, more: &str) {
        let image = self.setup.file("image.raw");
        let text = format!("[image.arch]\nfile = \"{}\"\n{more}", image.display());
        write_file(&self.config, text.as_bytes());
    }

    fn start(&self) -> Server {
        self.setup.clone().start()
    }

    fn refused(&self) -> Refusal {
        self.setup.refused()
    }
}

fn is_read_only(client: &Client) -> bool {
    client.flags & flag::READ_ONLY != 0
}

#[test]
fn an_image_is_served_under_the_name_in_the_file() {
    let server = Configured::new("").start();
    assert_eq!(server.client("arch@a").read(0, 1).expect("a read"), b"a");
    assert_eq!(server.client("").size, 4 * BLOCK as u64);
    let other = Client::open(&server.address(), "image");
    assert_refused(other.map(drop), &[reply::ERR_UNKNOWN]);
}

#[test]
fn the_state_directory_and_the_addresses_of_the_file_are_used() {
    let configured = Configured::new("");
    let state = configured.setup.file("state-of-the-file");
    let socket = configured.setup.file("nbd.sock");
    let text = std::fs::read_to_string(&configured.config).expect("the config");
    let listen = format!("[nbd]\nlisten = [\"unix:{}\"]\n", socket.display());
    let text = format!("state = \"{}\"\n{listen}{text}", state.display());
    write_file(&configured.config, text.as_bytes());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cowherd"));
    command.arg("serve").arg("--config").arg(&configured.config);
    let mut child = command.spawn().expect("the program under test");
    let folder = state.join("overlays/arch+1/a");
    support::eventually(|| match folder.is_dir() {
        true => Ok(()),
        false => open_by_socket(&socket).and(Err("no overlay yet")),
    });
    child.kill().expect("a running child");
    child.wait().expect("a killed child");
}

fn open_by_socket(socket: &std::path::Path) -> Result<(), &'static str> {
    let address =
        support::nbd::Address::of_uri(&format!("nbd+unix:///?socket={}", socket.display()));
    Client::open(&address, "arch@a")
        .map(drop)
        .map_err(|_| "not served yet")
}

#[test]
fn a_peer_with_the_address_of_a_client_gets_its_overlay() {
    let configured = Configured::new("[client.studio]\naddress = \"127.0.0.1\"\n");
    let server = configured.start();
    server.client("arch").write(0, b"mine").expect("a write");
    assert_eq!(
        server.client("arch@studio").read(0, 4).expect("a read"),
        b"mine"
    );
    server.terminate();
    let server = configured.start();
    assert_eq!(server.client("").read(0, 4).expect("a read"), b"mine");
}

#[test]
fn a_readonly_client_can_not_write_and_its_neighbour_can() {
    let server = Configured::new("[client.kiosk]\noverlay = \"readonly\"\n").start();
    assert!(is_read_only(&server.client("arch@kiosk")));
    assert!(!is_read_only(&server.client("arch@studio")));
}

#[test]
fn the_defaults_are_for_those_who_say_nothing() {
    let text = "[defaults]\noverlay = \"readonly\"\n[client.a]\noverlay = \"persistent\"\n";
    let server = Configured::new(text).start();
    assert!(!is_read_only(&server.client("arch@a")));
    assert!(is_read_only(&server.client("arch@b")));
    assert!(is_read_only(&server.client("arch")));
}

#[test]
fn a_client_gets_its_own_image_where_it_asks_for_none() {
    let configured = Configured::new("");
    let other = configured.setup.file("other.raw");
    write_file(&other, &[b'o'; BLOCK]);
    configured.write(&format!(
        "[image.other]\nfile = \"{}\"\n[defaults]\nimage = \"arch\"\n\
         [client.a]\nimage = \"other\"\n",
        other.display()
    ));
    let server = configured.start();
    assert_eq!(server.client("@a").read(0, 1).expect("a read"), b"o");
    assert_eq!(server.client("@b").read(0, 1).expect("a read"), b"a");
    assert_eq!(server.client("arch@a").read(0, 1).expect("a read"), b"a");
}

#[test]
fn sighup_changes_what_clients_get() {
    let configured = Configured::new("[client.a]\noverlay = \"readonly\"\n");
    let server = configured.start();
    assert!(is_read_only(&server.client("arch@a")));
    configured.write("[client.a]\noverlay = \"persistent\"\n");
    server.signal(Signal::HUP);
    server.wait_for_log(&["config reloaded"]);
    assert!(!is_read_only(&server.client("arch@a")));
}

#[test]
fn a_file_with_a_mistake_changes_nothing_on_sighup() {
    let configured = Configured::new("[client.a]\noverlay = \"readonly\"\n");
    let server = configured.start();
    configured.write("[client.a]\noverlay = \"kept\"\n");
    server.signal(Signal::HUP);
    server.wait_for_log(&["not reloaded", "cowherd.toml:4", "kept"]);
    assert!(is_read_only(&server.client("arch@a")));
}

#[test]
fn sighup_says_what_it_can_not_change() {
    let configured = Configured::new("");
    let server = configured.start();
    configured.write("[nbd]\nlisten = [\"127.0.0.1:1\"]\n");
    server.signal(Signal::HUP);
    server.wait_for_log(&["`listen` in [nbd]", "started again"]);
    assert_eq!(server.client("").read(0, 1).expect("a read"), b"a");
}

#[test]
fn a_mistake_in_the_file_ends_with_2_and_its_line() {
    let refusal = Configured::new("[clint.a]\n").refused();
    assert_eq!(refusal.code, 2);
    refusal.says(&["cowherd.toml:3", "clint"]);
}

#[test]
fn a_file_larger_than_any_config_is_not_read() {
    let configured = Configured::new("");
    let file = std::fs::File::options()
        .write(true)
        .open(&configured.config);
    let file = file.expect("the config");
    file.set_len(CONFIG_BYTES_MAX + 1).expect("it can grow");
    let most = CONFIG_BYTES_MAX.to_string();
    configured
        .refused()
        .says(&["cowherd.toml", "larger", &most]);
    let endless = Setup::new().with_arg("--config").with_arg("/dev/zero");
    endless.refused().says(&["/dev/zero", "larger", &most]);
}

#[test]
fn a_file_that_is_not_there_ends_with_2() {
    let setup = Setup::new()
        .with_arg("--config")
        .with_arg("/nonexistent/c.toml");
    let refusal = setup.refused();
    assert_eq!(refusal.code, 2);
    refusal.says(&["/nonexistent/c.toml", "--config"]);
}
