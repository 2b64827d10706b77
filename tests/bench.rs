//! `cowherd bench` against servers: ours, others, and such as do wrong.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::Value;
use support::{Setup, Tool, eventually, read_file, require, write_file};

fn bench(uri: &str, options: &str) -> Tool {
    bench_for("0.3", uri, options)
}

fn bench_for(seconds: &str, uri: &str, options: &str) -> Tool {
    let command = Command::new(env!("CARGO_BIN_EXE_cowherd"));
    let quick = ["bench", uri, "--time", seconds, "--warm-up", "0"];
    Tool::from_command(command, "cowherd")
        .args(quick)
        .args(options.split_whitespace())
}

/// What a run came to that ended well.
fn report(uri: &str, options: &str) -> Value {
    let json = bench(uri, options).arg("--json").ok();
    serde_json::from_str(&json).expect("JSON")
}

fn requests(report: &Value, kind: &str) -> u64 {
    let kinds = report["kinds"].as_array().expect("a list");
    let of_kind = kinds.iter().find(|of| of["kind"] == kind);
    of_kind.map_or(0, |of| of["requests"].as_u64().expect("a number"))
}

/// nbdkit on a socket file of its own, ended with this.
struct Nbdkit {
    child: Child,
    _folder: tempfile::TempDir,
    uri: String,
}

impl Nbdkit {
    fn new(words: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a new folder");
        let socket = folder.path().join("socket");
        let mut command = Command::new("nbdkit");
        let child = command.arg("--foreground").arg("--unix").arg(&socket);
        let child = child.args(words).spawn().expect("nbdkit starts");
        wait_for(&socket);
        let uri = format!("nbd+unix:///?socket={}", socket.display());
        Self {
            child,
            _folder: folder,
            uri,
        }
    }
}

impl Drop for Nbdkit {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for(socket: &Path) {
    eventually(|| std::os::unix::net::UnixStream::connect(socket).map(drop));
}

#[test]
fn every_kind_of_request_is_asked_for_checked_and_reported() {
    let server = Setup::of_bytes(&[7; 1 << 20]).start();
    let mix = "--mix read=1,write=1,trim=1,zero=1 --flush-every 4 --fua";
    let report = report(&server.uri("disk@a"), &format!("{mix} --check -c 3 -d 4"));
    for kind in ["read", "write", "trim", "zero", "flush"] {
        assert!(requests(&report, kind) > 0, "{kind}");
    }
    assert_eq!(report["wrong_reads"], 0);
    assert!(report["slowest_client"].as_f64() > Some(0.0));
}

#[test]
fn each_client_can_have_an_export_of_its_own() {
    let server = Setup::of_bytes(&[7; 1 << 20]).start();
    report(&server.uri("disk@b-{}"), "--mix write -c 3");
    let state = server.setup().state().to_owned();
    let listed = Tool::from_command(Command::new(env!("CARGO_BIN_EXE_cowherd")), "cowherd")
        .args(["overlay", "list", "--state"])
        .arg(state)
        .ok();
    for name in ["disk+1@b-0", "disk+1@b-1", "disk+1@b-2"] {
        assert!(listed.contains(name), "{listed}");
    }
}

#[test]
fn other_servers_are_measured_too() {
    if !require(&["nbdkit"]) {
        return;
    }
    let nbdkit = Nbdkit::new(&["memory", "1M"]);
    let report = report(&nbdkit.uri, "--mix read=1,write=1 --check -c 2");
    assert!(requests(&report, "read") > 0 && requests(&report, "write") > 0);
}

#[test]
fn a_server_that_loses_writes_is_found_out() {
    if !require(&["nbdkit"]) {
        return;
    }
    let nbdkit = Nbdkit::new(&["null", "64K"]);
    let ended = bench(&nbdkit.uri, "--mix read=1,write=1 --check").run();
    assert_eq!(ended.code, Some(1), "{ended}");
    assert!(ended.stdout.contains("WRONG DATA"), "{ended}");
}

#[test]
fn errors_of_the_server_are_counted_and_make_the_run_a_bad_one() {
    if !require(&["nbdkit"]) {
        return;
    }
    let words = [
        "--filter=error",
        "memory",
        "1M",
        "error=EIO",
        "error-pread-rate=50%",
    ];
    let nbdkit = Nbdkit::new(&words);
    let ended = bench(&nbdkit.uri, "").run();
    assert_eq!(ended.code, Some(1), "{ended}");
    assert!(ended.stdout.contains("requests with EIO"), "{ended}");
}

#[test]
fn a_server_that_goes_away_ends_the_run_with_a_message() {
    let server = Setup::of_bytes(&[7; 1 << 20]).start();
    let uri = server.uri("disk@a");
    let run = std::thread::spawn(move || bench_for("600", &uri, "-c 2").run());
    server.wait_for_log(&["uses"]);
    drop(server.kill());
    let ended = run.join().expect("no panic");
    assert_eq!(ended.code, Some(1), "{ended}");
    assert!(ended.stderr.contains("cowherd: client "), "{ended}");
}

#[test]
fn by_the_clock_so_many_requests_are_made_as_were_asked_for() {
    let server = Setup::of_bytes(&[7; 1 << 20]).start();
    let report = report(&server.uri("disk"), "--rate 100 -c 2");
    assert_eq!(requests(&report, "read"), 60);
}

fn trace(server: &support::Server, text: &str) -> PathBuf {
    let path = server.setup().file("trace");
    write_file(&path, text.as_bytes());
    path
}

#[test]
fn a_trace_is_asked_for_once_by_each_client() {
    let server = Setup::of_bytes(&[7; 1 << 20]).start();
    let path = trace(
        &server,
        "0 read 0 512\n1 read 512 4096\n30 write 0 512\n30 flush 0 0\n",
    );
    for paced in ["", "--paced"] {
        let options = format!("-c 2 {paced} --replay {}", path.display());
        let report = report(&server.uri("disk@a-{}"), &options);
        let counts = ["read", "write", "flush"].map(|kind| requests(&report, kind));
        assert_eq!(counts, [4, 2, 2]);
    }
}

#[test]
fn what_an_export_cannot_do_is_said_before_anything_is_sent() {
    let server = Setup::of_bytes(&[7; 1 << 20])
        .with_arg("--read-only")
        .start();
    let path = trace(&server, "0 read 1048576 512\n");
    let replay = format!("--replay {}", path.display());
    for (options, said) in [
        ("--mix write", "read-only"),
        ("--range 2M", "fewer than the range"),
        ("--check -c 300", "one block for each client"),
        (&replay, "the trace goes beyond"),
    ] {
        let ended = bench(&server.uri("disk"), options).run();
        assert_eq!(ended.code, Some(1), "{ended}");
        assert!(ended.stderr.contains(said), "{ended}");
    }
}

#[test]
fn the_picture_is_a_whole_file() {
    let server = Setup::of_bytes(&[7; 1 << 20]).start();
    let path = server.setup().file("run.svg");
    bench(&server.uri("disk"), &format!("--svg {}", path.display())).ok();
    let svg = String::from_utf8(read_file(&path)).expect("text");
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
}

/// A run without a server.
fn offline(home: &tempfile::TempDir, options: &str) -> Tool {
    let image = home.path().join("disk.img");
    write_file(&image, &[7; 1 << 20]);
    let quick = ["bench", "--time", "0.3", "--warm-up", "0"];
    Tool::from_command(Command::new(env!("CARGO_BIN_EXE_cowherd")), "cowherd")
        .args(quick)
        .arg("--offline")
        .arg(image)
        .arg("--state")
        .arg(home.path())
        .args(options.split_whitespace())
}

#[test]
fn exports_and_overlays_are_driven_without_a_server() {
    let home = tempfile::tempdir().expect("a new folder");
    let mix = "--mix read=1,write=1,trim=1,zero=1 --flush-every 4 --fua";
    let run = offline(&home, &format!("{mix} --check -c 3 -d 4 --json"));
    let report: Value = serde_json::from_str(&run.ok()).expect("JSON");
    for kind in ["read", "write", "trim", "zero", "flush"] {
        assert!(requests(&report, kind) > 0, "{kind}");
    }
    assert_eq!(report["wrong_reads"], 0);
    assert!(report["slowest_client"].as_f64() > Some(0.0));
    let target = report["targets"][0].as_str().expect("a name");
    assert!(target.ends_with("disk.img (in process)"), "{target}");
}

#[test]
fn nothing_is_left_of_a_run_without_a_server_and_the_image_is_what_it_was() {
    let home = tempfile::tempdir().expect("a new folder");
    offline(&home, "--mix write -c 2").ok();
    let left: Vec<_> = std::fs::read_dir(home.path()).expect("a folder").collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(read_file(&home.path().join("disk.img")), [7; 1 << 20]);
}

#[test]
fn a_trace_is_replayed_without_a_server_and_drawn() {
    let home = tempfile::tempdir().expect("a new folder");
    let (trace, drawing) = (home.path().join("boot"), home.path().join("boot.svg"));
    write_file(&trace, b"0 read 0 4096\n5 write 8192 512\n9 flush 0 0\n");
    let run = offline(&home, "--paced --json")
        .arg("--replay")
        .arg(&trace)
        .arg("--svg")
        .arg(&drawing);
    let report: Value = serde_json::from_str(&run.ok()).expect("JSON");
    for kind in ["read", "write", "flush"] {
        assert_eq!(requests(&report, kind), 1, "{kind}");
    }
    assert!(read_file(&drawing).starts_with(b"<svg"));
}
