//! How long overlays are kept, what a flush of each costs, and how large they may grow.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cowherd::overlay::header::Header;
use rustix::process::{Pid, Signal, kill_process};
use support::nbd::errno;
use support::{Server, Setup, eventually, is_root, pseudo_random, read_file, require, skipped};

const SIZE: usize = 1 << 20;

fn setup() -> Setup {
    Setup::of_bytes(&pseudo_random(7, SIZE))
}

fn overlays(setup: &Setup) -> PathBuf {
    setup.state().join("overlays/disk+1")
}

/// Writes to an export, flushes, and leaves.
fn write_and_leave(server: &Server, export: &str) {
    let mut client = server.client(export);
    client.write(0, &[9; 5000]).expect("a write");
    client.flush().expect("a flush");
    client.disconnect();
}

fn holds_the_write(server: &Server, export: &str) -> bool {
    let seen = server.client(export).read(0, 5000).expect("a read");
    seen == [9; 5000]
}

/// Makes an overlay one of another boot of the host.
fn age(overlay: &Path) {
    let path = overlay.join("header");
    let mut header = Header::from_bytes(&read_file(&path)).expect("a header");
    header.boot_id = [0xb0; 16];
    fs::write(&path, header.to_bytes()).expect("a write");
}

#[test]
fn a_client_without_a_name_keeps_its_blocks_over_a_kill() {
    let server = setup().start();
    write_and_leave(&server, "disk");
    let server = server.kill().start();
    assert!(holds_the_write(&server, "disk"));
    let overlay = overlays(server.setup()).join("127-0-0-1");
    assert!(overlay.exists());
}

#[test]
fn an_ephemeral_overlay_of_an_earlier_boot_is_removed_at_the_start() {
    let server = setup().start();
    write_and_leave(&server, "disk");
    write_and_leave(&server, "disk@kept");
    let setup = server.terminate();
    let (ephemeral, kept) = (
        overlays(&setup).join("127-0-0-1"),
        overlays(&setup).join("kept"),
    );
    age(&ephemeral);
    age(&kept);
    let server = setup.start();
    server.wait_for_log(&["removed 1 ephemeral"]);
    assert!(!ephemeral.exists() && kept.exists());
    assert!(!holds_the_write(&server, "disk"));
    assert!(holds_the_write(&server, "disk@kept"));
}

#[test]
fn an_ephemeral_overlay_of_this_boot_stays() {
    let server = setup().start();
    write_and_leave(&server, "disk");
    let setup = server.terminate();
    let left = overlays(&setup).join(".other.old");
    fs::create_dir(&left).expect("a folder");
    let server = setup.start();
    // What is left over is cleared after the overlays were looked through.
    server.wait_for_log(&[".other.old", "removed"]);
    assert!(!left.exists());
    assert!(holds_the_write(&server, "disk"));
}

#[test]
fn a_read_only_server_takes_no_writes_and_keeps_no_state() {
    let server = setup().with_arg("--read-only").start();
    let mut client = server.client("disk@a");
    let refused = client.write(0, &[1; 10]).expect_err("a refusal");
    assert_eq!(refused.errno(), errno::EPERM);
    assert!(!server.setup().state().exists());
}

#[test]
fn a_client_at_its_limit_gets_enospc_and_can_go_on() {
    let server = setup().with_arg("--overlay-limit").with_arg("40K").start();
    let mut client = server.client("disk@a");
    client.write(0, &[1; 40_960]).expect("ten blocks");
    let refused = client.write(36_864, &[2; 8192]).expect_err("a refusal");
    assert_eq!(refused.errno(), errno::ENOSPC);
    assert_eq!(client.read(36_864, 4096).expect("a read"), [1; 4096]);
    client.write(36_864, &[2; 4096]).expect("a rewrite");
    client.trim(0, 8192).expect("a trim");
    client.write(80_000, &[3; 5000]).expect("room again");
    client.flush().expect("a flush");
    server.wait_for_log(&["limit", "disk+1/a"]);
}

#[test]
fn a_limit_that_is_no_size_is_bad_usage() {
    for size in ["0", "1K", "twenty", "-1"] {
        let setup = setup().with_arg(format!("--overlay-limit={size}"));
        setup.misused().says(&["--overlay-limit"]);
    }
}

/// strace, attached to a server, noting its syncs.
struct Syncs {
    strace: Child,
    notes: PathBuf,
}

impl Syncs {
    /// None, loudly, where processes can't be traced.
    fn of(server: &Server) -> Option<Self> {
        if !require(&["strace"]) {
            return None;
        }
        let notes = server.setup().file("syncs");
        let mut strace = Command::new("strace")
            .args([
                "-f",
                "-e",
                "trace=fsync,fdatasync,sync,syncfs,sync_file_range",
            ])
            .arg("-o")
            .arg(&notes)
            .args(["-p", &server.pid().to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace can be started");
        let said = strace.stderr.take().expect("stderr is piped");
        let mut said = BufReader::new(said);
        let mut line = String::new();
        said.read_line(&mut line).expect("strace says something");
        if !line.contains("attached") {
            let _ = strace.wait();
            assert!(!is_root() || std::env::var_os("CI").is_none(), "{line}");
            skipped("the right to trace processes");
            return None;
        }
        // A reader of the rest, so that strace never waits for one.
        std::thread::spawn(move || said.lines().map_while(Result::ok).count());
        Some(Self { strace, notes })
    }

    /// Detaches, and gives what was noted.
    fn end(mut self) -> Vec<String> {
        let pid = i32::try_from(self.strace.id()).expect("a pid fits");
        let pid = Pid::from_raw(pid).expect("a pid is not 0");
        kill_process(pid, Signal::INT).expect("strace runs");
        self.strace.wait().expect("strace ends");
        let notes = String::from_utf8(read_file(&self.notes)).expect("text");
        let syncs = notes.lines().filter(|line| line.contains("sync"));
        syncs.map(str::to_owned).collect()
    }
}

/// The syncs that a write and a flush of an export that is open already make.
fn syncs_of_a_flush(export: &str) -> Option<Vec<String>> {
    let server = setup().start();
    let mut client = server.client(export);
    // The note of who came is made beside; once it is there, the server has come to rest.
    let note = overlays(server.setup())
        .join(if export == "disk" { "127-0-0-1" } else { "a" })
        .join("last-client");
    eventually(|| note.exists().then_some(()).ok_or("no note yet"));
    let syncs = Syncs::of(&server)?;
    client.write(0, &[9; 5000]).expect("a write");
    client.flush().expect("a flush");
    Some(syncs.end())
}

#[test]
fn a_flush_of_an_ephemeral_overlay_syncs_nothing() {
    if let Some(syncs) = syncs_of_a_flush("disk") {
        assert_eq!(syncs, Vec::<String>::new());
    }
}

#[test]
fn a_flush_of_a_persistent_overlay_syncs_data_and_journal() {
    if let Some(syncs) = syncs_of_a_flush("disk@a") {
        assert!(syncs.len() >= 2, "{syncs:?}");
    }
}
