//! Images that come, grow and go while the server runs: SIGHUP, and what old and new sessions see.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use support::nbd::{Client, Handshake, assert_errno, assert_refused, errno, reply};
use support::{Server, Setup, Tool, require, write_file};

const BLOCK: usize = 4096;
const SMALL_BLOCKS: usize = 4;
const SMALL: u64 = (SMALL_BLOCKS * BLOCK) as u64;
const LARGE_BLOCKS: usize = 16;
const LARGE: u64 = (LARGE_BLOCKS * BLOCK) as u64;

/// A setup with nothing on its command line but a config file.
struct Scene {
    setup: Setup,
    config: PathBuf,
}

impl Scene {
    /// Files `small` of four blocks of the letter s and `large` of sixteen of the letter l.
    fn new() -> Self {
        let setup = Setup::new();
        let config = setup.file("cowherd.toml");
        write_file(&setup.file("small"), &[b's'; SMALL_BLOCKS * BLOCK]);
        write_file(&setup.file("large"), &[b'l'; LARGE_BLOCKS * BLOCK]);
        let setup = setup.with_arg("--config").with_arg(&config);
        Self { setup, config }
    }

    /// The config, with the path of a file for each name in `<>`.
    fn write(&self, text: &str) {
        let path = |name: &str| format!("{:?}", self.setup.file(name).display().to_string());
        let text = ["small", "large", "nothing"]
            .iter()
            .fold(text.to_owned(), |text, name| {
                text.replace(&format!("<{name}>"), &path(name))
            });
        write_file(&self.config, text.as_bytes());
    }

    fn start(&self, text: &str) -> Server {
        self.write(text);
        self.setup.clone().start()
    }

    /// SIGHUP with another config, and waits for a line of the log.
    #[track_caller]
    fn reload(&self, server: &Server, text: &str, words: &[&str]) {
        self.write(text);
        server.signal(Signal::HUP);
        server.wait_for_log(words);
    }
}

const FIRST: &str = "[image.arch]\nfile = <small>\n";
const SECOND: &str = "[image.arch]\nfile = <large>\ngeneration = 2\n";
const BOTH: &str = "[image.arch]\nfile = <large>\ngeneration = 2\nolder = { 1 = <small> }\n";

#[test]
fn nbdinfo_sees_the_new_size() {
    if !require(&["nbdinfo"]) {
        return;
    }
    let scene = Scene::new();
    let server = scene.start(FIRST);
    let size = || Tool::new("nbdinfo").args(["--size", &server.uri("arch")]);
    assert_eq!(size().ok().trim(), SMALL.to_string());
    scene.reload(&server, SECOND, &["config reloaded"]);
    assert_eq!(size().ok().trim(), LARGE.to_string());
}

#[test]
fn a_session_of_qemu_goes_on_with_the_old_size() {
    if !require(&["qemu-io"]) {
        return;
    }
    let scene = Scene::new();
    let server = scene.start(FIRST);
    let mut old = Command::new("qemu-io")
        .args(["-f", "raw", &server.uri("arch@a")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("qemu-io is there");
    let mut stdin = old.stdin.take().expect("stdin is piped");
    let mut lines = BufReader::new(old.stdout.take().expect("stdout is piped")).lines();
    let mut say = |command: &str, answer: &str| {
        writeln!(stdin, "{command}").expect("it listens");
        let mut lines = lines.by_ref().map(|line| line.expect("text"));
        let line = lines.find(|line| line.contains(answer) || line.contains("failed"));
        assert!(line.is_some_and(|line| line.contains(answer)), "{command}");
    };
    say("length", "16 KiB");
    scene.reload(&server, SECOND, &["config reloaded"]);
    assert_eq!(server.client("arch@b").size, LARGE);
    say("length", "16 KiB");
    say("write -P 0x6d 0 4k", "wrote 4096/4096");
    say("read -P 0x6d 0 4k", "read 4096/4096");
    say("read -P 0x73 12k 4k", "read 4096/4096");
    drop(stdin);
    assert!(old.wait().expect("qemu-io ends").success());
}

#[test]
fn an_overlay_stays_with_its_generation() {
    let scene = Scene::new();
    let server = scene.start(FIRST);
    let mut old = server.client("arch@a");
    old.write(0, b"mine").expect("a write");
    scene.reload(&server, BOTH, &["gets arch+2"]);
    assert_eq!(server.client("arch@a").read(0, 4).expect("a read"), b"llll");
    assert_eq!(server.client("arch+1@a").size, SMALL);
    assert_eq!(
        server.client("arch+1@a").read(0, 4).expect("a read"),
        b"mine"
    );
    assert_eq!(old.read(0, 4).expect("a read"), b"mine");
    let overlays = scene.setup.state().join("overlays");
    assert!(overlays.join("arch+1/a").is_dir() && overlays.join("arch+2/a").is_dir());
    server.terminate();
    let server = scene.setup.clone().start();
    assert_eq!(
        server.client("arch+1@a").read(0, 4).expect("a read"),
        b"mine"
    );
}

#[test]
fn a_generation_that_is_named_no_more_is_for_its_sessions_only() {
    let scene = Scene::new();
    let server = scene.start(FIRST);
    let mut old = server.client("arch@a");
    scene.reload(&server, SECOND, &["arch+1", "can't be opened any more"]);
    let again = Client::open(&server.address(), "arch+1@a");
    assert_refused(again.map(drop), &[reply::ERR_UNKNOWN]);
    old.write(0, b"still here").expect("a write");
    assert_errno(old.read(SMALL, 1), errno::EINVAL);
    old.disconnect();
    server.wait_for_log(&["small", "closed"]);
}

#[test]
fn the_same_generation_with_another_file_changes_nothing() {
    let scene = Scene::new();
    let server = scene.start(FIRST);
    let text = "[image.arch]\nfile = <large>\n[client.a]\noverlay = \"readonly\"\n";
    scene.reload(
        &server,
        text,
        &["nothing changes", "arch+1", "`generation`"],
    );
    let mut client = server.client("arch@a");
    assert_eq!(client.size, SMALL);
    client.write(0, b"not read-only").expect("a write");
}

#[test]
fn an_image_that_can_not_be_opened_changes_nothing() {
    let scene = Scene::new();
    let server = scene.start(FIRST);
    let text = "[image.arch]\nfile = <large>\ngeneration = 2\n\
                [image.other]\nfile = <nothing>\n[defaults]\nimage = \"other\"\n";
    scene.reload(&server, text, &["nothing changes", "no such file"]);
    assert_eq!(server.client("").size, SMALL);
    // Neither does it spoil what comes after.
    scene.reload(&server, SECOND, &["config reloaded"]);
    assert_eq!(server.client("").size, LARGE);
}

#[test]
fn images_come_and_go() {
    let scene = Scene::new();
    let server = scene.start(FIRST);
    let mut arch = server.client("arch@a");
    let text = "[image.other]\nfile = <large>\ndeny = [\"10.0.0.1\"]\n";
    scene.reload(&server, text, &["other+1 is served", "65536 bytes"]);
    assert_eq!(server.client("other").size, LARGE);
    assert_eq!(server.client("").size, LARGE);
    let gone = Client::open(&server.address(), "arch");
    assert_refused(gone.map(drop), &[reply::ERR_UNKNOWN]);
    assert_eq!(arch.read(0, 1).expect("a read"), b"s");
    scene.reload(&server, FIRST, &["arch+1 is served"]);
    assert_eq!(server.client("arch@a").read(0, 1).expect("a read"), b"s");
}

#[test]
fn go_tells_what_info_told_also_if_the_config_changes_in_between() {
    let scene = Scene::new();
    let server = scene.start(FIRST);
    let mut handshake = Handshake::start(&server.address()).expect("a handshake");
    assert_eq!(handshake.info("arch").expect("INFO").size, SMALL);
    scene.reload(&server, SECOND, &["config reloaded"]);
    let mut client = handshake.go("arch").expect("GO");
    assert_eq!(client.size, SMALL);
    assert_eq!(client.read(0, 1).expect("a read"), b"s");
}
