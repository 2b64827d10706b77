//! `cowherd overlay` with and without a server: what it tells is so, and what it does is safe.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{
    Finished, Server, Setup, Tool, assert_same, eventually, pseudo_random, read_file, write_file,
};

const SIZE: usize = 3_000_001;

fn image() -> Vec<u8> {
    pseudo_random(7, SIZE)
}

/// Runs `cowherd overlay` on the state directory of `setup`, standing in its folder.
fn overlay(setup: &Setup, arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cowherd"));
    command
        .env_remove("RUST_LOG")
        .current_dir(setup.file("."))
        .arg("overlay")
        .args(arguments)
        .arg("--state")
        .arg(setup.state());
    Tool::from_command(command, "cowherd overlay").run()
}

#[track_caller]
fn done(finished: &Finished) -> String {
    assert_eq!(finished.code, Some(0), "{finished}");
    finished.stdout.clone()
}

#[track_caller]
fn json(setup: &Setup, arguments: &[&str]) -> Value {
    let finished = overlay(setup, &[arguments, &["--json"]].concat());
    serde_json::from_str(&done(&finished)).expect("JSON")
}

/// One line on stderr, with every one of `words` in it.
#[track_caller]
fn refused(finished: &Finished, code: i32, words: &[&str]) {
    assert_eq!(finished.code, Some(code), "{finished}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished}");
    for word in words {
        assert!(finished.stderr.contains(word), "{word:?}: {finished}");
    }
}

/// Writes to `disk@a` over a connection that ends before this returns; what the disk is then.
fn write_some(server: &Server) -> Vec<u8> {
    let mut client = server.client("disk@a");
    let mut disk = image();
    for (at, len) in [(5000, 9000), (1 << 20, 70_000), (SIZE - 10, 10)] {
        client.write(at as u64, &vec![0xee; len]).expect("a write");
        disk[at..at + len].fill(0xee);
    }
    client.zero(2 << 20, 500_000).expect("zeros");
    disk[2 << 20..(2 << 20) + 500_000].fill(0);
    client.flush().expect("a flush");
    client.disconnect();
    disk
}

/// A running server that nobody is connected to, and what `disk@a` holds.
fn idle_server() -> (Server, Vec<u8>) {
    let server = Setup::of_bytes(&image()).start();
    let disk = write_some(&server);
    // The note of who came is made beside its session.
    let note = overlay_dir(server.setup()).join("last-client");
    eventually(|| note.exists().then_some(()).ok_or("no note yet"));
    (server, disk)
}

fn overlay_dir(setup: &Setup) -> PathBuf {
    setup.state().join("overlays/disk+1/a")
}

/// Flips a byte of a file of the overlay `disk@a`.
fn damage(setup: &Setup, file: &str, at: usize) {
    let path = overlay_dir(setup).join(file);
    let mut bytes = read_file(&path);
    bytes[at] ^= 0x55;
    write_file(&path, &bytes);
}

/// The newest checkpoint of `disk@a`.
fn checkpoint(setup: &Setup) -> String {
    let names = fs::read_dir(overlay_dir(setup)).expect("the overlay");
    let names = names.map(|entry| entry.expect("an entry").file_name());
    names
        .filter_map(|name| name.into_string().ok())
        .find(|name| name.starts_with("ckpt."))
        .expect("a checkpoint")
}

#[test]
fn a_list_tells_of_overlays_in_use_and_not() {
    let (server, _) = idle_server();
    let mut client = server.client("disk@b");
    client.write(0, &[1; 8192]).expect("a write");
    let list = json(server.setup(), &["list"]);
    assert_eq!(list[0]["overlay"], "disk+1@a");
    assert_eq!(list[0]["in_use"], Value::Null);
    assert_eq!(list[1]["overlay"], "disk+1@b");
    let user = list[1]["in_use"][0].as_str().expect("a user");
    assert!(user.starts_with("127.0.0.1:"), "{user}");
    assert_eq!(list[1]["blocks"]["present"], 2);
    let table = done(&overlay(server.setup(), &["list"]));
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.starts_with("OVERLAY"), "{table}");
}

#[test]
fn a_list_is_the_same_when_the_server_has_stopped() {
    let (server, _) = idle_server();
    let running = json(server.setup(), &["list"]);
    let setup = server.terminate();
    assert_eq!(json(&setup, &["list"]), running);
}

#[test]
fn a_list_after_a_kill_shows_what_recovery_will_find() {
    let (server, _) = idle_server();
    let before = json(server.setup(), &["show", "disk@a"]);
    let setup = server.kill();
    assert!(setup.state().join("control.sock").exists());
    assert_eq!(json(&setup, &["show", "@a"])["blocks"], before["blocks"]);
}

#[test]
fn an_overlay_is_shown_with_its_facts() {
    let (server, _) = idle_server();
    let facts = json(server.setup(), &["show", "disk+1@a"]);
    assert_eq!(facts["mode"], "persistent");
    assert_eq!(facts["disk_bytes"], SIZE);
    assert_eq!(facts["expired"], false);
    // 5000..14000 touches three blocks, the 70,000 bytes 18, the tail one; the zeros have one edge.
    assert_eq!(facts["blocks"]["present"], 3 + 18 + 1 + 1);
    assert_eq!(facts["blocks"]["zero"], 122);
    let space = facts["space_bytes"].as_u64().expect("a number");
    assert!((23 * 4096..8 << 20).contains(&space), "{space}");
    let peer = facts["last_client"]["peer"].as_str().expect("a peer");
    assert!(peer.starts_with("127.0.0.1:"), "{peer}");
    let created = facts["created"].as_u64().expect("a time");
    assert!(facts["written"].as_u64().expect("a time") >= created);
    assert_eq!(facts["journal"]["size"], 1 << 20);
    assert!(facts["checkpoint"].as_u64().is_some());
}

#[test]
fn an_overlay_in_use_is_shown_as_it_is_now() {
    let (server, _) = idle_server();
    let mut client = server.client("disk@a");
    let before = json(server.setup(), &["show", "disk@a"]);
    client.write(0, &[1; 4096]).expect("a write");
    let after = json(server.setup(), &["show", "disk@a"]);
    let present = |facts: &Value| facts["blocks"]["present"].as_u64().expect("a number");
    assert_eq!(present(&after), present(&before) + 1);
}

#[test]
fn an_overlay_that_is_not_there_is_named() {
    let (server, _) = idle_server();
    refused(
        &overlay(server.setup(), &["show", "disk@x"]),
        1,
        &["disk@x"],
    );
    refused(
        &overlay(server.setup(), &["show", "disk+2@a"]),
        1,
        &["disk+2@a"],
    );
    let setup = server.terminate();
    refused(
        &overlay(&setup, &["reset", "--yes", "disk@x"]),
        1,
        &["disk@x"],
    );
}

#[test]
fn sound_overlays_pass_their_check() {
    let (server, _) = idle_server();
    let mut client = server.client("disk@b");
    client.write(0, &[1; 8192]).expect("a write");
    let checked = json(server.setup(), &["check", "--all"]);
    for (overlay, in_use) in [(0, false), (1, true)] {
        assert_eq!(checked[overlay]["in_use"], in_use);
        assert_eq!(checked[overlay]["problems"], Value::Array(Vec::new()));
        assert_eq!(checked[overlay]["warnings"], Value::Array(Vec::new()));
    }
    drop(client);
    let setup = server.terminate();
    done(&overlay(&setup, &["check", "disk@a"]));
}

#[test]
fn an_overlay_passes_its_check_while_it_is_written_and_trimmed() {
    let (server, _) = idle_server();
    let mut client = server.client("disk@a");
    let writer = std::thread::spawn(move || {
        for round in 0..150_u64 {
            let at = round % 7 * 300_000;
            client.write(at, &[1; 200_000]).expect("a write");
            client.trim(at, 200_000).expect("a trim");
            client.flush().expect("a flush");
        }
    });
    while !writer.is_finished() {
        let checked = json(server.setup(), &["check", "disk@a"]);
        assert_eq!(
            checked[0]["problems"],
            Value::Array(Vec::new()),
            "{checked}"
        );
        assert_eq!(
            checked[0]["warnings"],
            Value::Array(Vec::new()),
            "{checked}"
        );
    }
    writer.join().expect("the writer succeeds");
}

#[test]
fn damage_is_found_with_and_without_a_server_and_nothing_is_changed() {
    let (server, _) = idle_server();
    let file = checkpoint(server.setup());
    damage(server.setup(), &file, 30);
    let before = read_file(&overlay_dir(server.setup()).join(&file));
    let found = overlay(server.setup(), &["check", "disk@a"]);
    assert_eq!(found.code, Some(1), "{found}");
    assert!(found.stdout.contains("problem: checkpoint"), "{found}");
    let setup = server.terminate();
    let found = overlay(&setup, &["check", "--all"]);
    assert_eq!(found.code, Some(1), "{found}");
    assert!(read_file(&overlay_dir(&setup).join(&file)) == before);
    let list = overlay(&setup, &["list"]);
    assert!(done(&list).contains("damaged"), "{list}");
}

#[test]
fn a_damaged_copy_of_the_header_is_told_of() {
    let (server, _) = idle_server();
    let setup = server.terminate();
    damage(&setup, "header", 40);
    let found = overlay(&setup, &["check", "disk@a"]);
    assert_eq!(found.code, Some(1), "{found}");
    assert!(found.stdout.contains("copy 1"), "{found}");
    done(&overlay(&setup, &["show", "disk@a"]));
}

#[test]
fn a_reset_without_yes_needs_a_terminal() {
    let (server, _) = idle_server();
    refused(
        &overlay(server.setup(), &["reset", "disk@a"]),
        2,
        &["--yes"],
    );
    assert!(overlay_dir(server.setup()).exists());
}

#[test]
fn an_overlay_in_use_is_neither_reset_nor_committed() {
    let (server, _) = idle_server();
    let mut client = server.client("disk@a");
    let before = client.read(0, 100_000).expect("a read");
    for command in [
        ["reset", "disk@a", "--yes"].as_slice(),
        &["commit", "disk@a", "--to", "new.img"],
    ] {
        let finished = overlay(server.setup(), command);
        refused(
            &finished,
            1,
            &["in use by 127.0.0.1", "disconnect it first"],
        );
    }
    assert!(client.read(0, 100_000).expect("a read") == before);
    assert!(!server.setup().file("new.img").exists());
}

#[test]
fn a_client_whose_overlay_was_reset_begins_with_the_image() {
    let (server, _) = idle_server();
    done(&overlay(server.setup(), &["reset", "disk@a", "--yes"]));
    let mut client = server.client("disk@a");
    assert_same(&client.read_all().expect("a read"), &image(), "after");
    drop(client);
    let setup = server.terminate();
    done(&overlay(&setup, &["reset", "disk@a", "--yes"]));
    assert!(!overlay_dir(&setup).exists());
    let list = json(&setup, &["list"]);
    assert_eq!(list, Value::Array(Vec::new()));
}

#[test]
fn a_commit_is_what_the_client_sees_with_and_without_a_server() {
    let (server, disk) = idle_server();
    let committed = json(server.setup(), &["commit", "disk@a", "--to", "one.img"]);
    assert_eq!(committed["bytes"], SIZE);
    assert_same(
        &read_file(&server.setup().file("one.img")),
        &disk,
        "running",
    );
    let setup = server.terminate();
    done(&overlay(&setup, &["commit", "disk@a", "--to", "two.img"]));
    assert_same(&read_file(&setup.file("two.img")), &disk, "stopped");
    assert_same(&read_file(setup.image()), &image(), "the image");
}

#[test]
fn a_commit_after_a_kill_has_all_that_was_flushed() {
    let server = Setup::of_bytes(&image()).start();
    let mut client = server.client("disk@a");
    client.write(4096, &[0xaa; 50_000]).expect("a write");
    client.flush().expect("a flush");
    let setup = server.kill();
    done(&overlay(&setup, &["commit", "disk@a", "--to", "new.img"]));
    let mut disk = image();
    disk[4096..54_096].fill(0xaa);
    assert_same(&read_file(&setup.file("new.img")), &disk, "the new image");
}

#[test]
fn an_overlay_is_as_it_was_after_a_commit() {
    let (server, disk) = idle_server();
    done(&overlay(
        server.setup(),
        &["commit", "disk@a", "--to", "new.img"],
    ));
    let seen = server.client("disk@a").read_all().expect("a read");
    assert_same(&seen, &disk, "after the commit");
}

#[test]
fn a_committed_image_can_be_served() {
    let (server, disk) = idle_server();
    done(&overlay(
        server.setup(),
        &["commit", "disk@a", "--to", "new.img"],
    ));
    let setup = server.terminate();
    let path = setup.file("new.img");
    let server = setup.with_image(path).start();
    let seen = server.client("new@b").read_all().expect("a read");
    assert_same(&seen, &disk, "the new image");
}

#[test]
fn a_commit_replaces_no_file() {
    let (server, _) = idle_server();
    let path = server.setup().file("mine.img");
    write_file(&path, b"mine");
    let finished = overlay(server.setup(), &["commit", "disk@a", "--to", "mine.img"]);
    refused(&finished, 1, &["mine.img", "already"]);
    assert_eq!(read_file(&path), b"mine");
}

#[test]
fn what_an_interrupted_commit_left_is_cleared_away() {
    let (server, disk) = idle_server();
    let left = server.setup().file(".new.img.cowherd-new");
    write_file(&left, &vec![1; 5 << 20]);
    done(&overlay(
        server.setup(),
        &["commit", "disk@a", "--to", "new.img"],
    ));
    assert_same(&read_file(&server.setup().file("new.img")), &disk, "it");
    assert!(!left.exists());
}

#[test]
fn an_image_that_has_moved_can_be_named() {
    let (server, disk) = idle_server();
    let setup = server.terminate();
    let moved = setup.file("elsewhere.raw");
    fs::rename(setup.image(), &moved).expect("a rename");
    let finished = overlay(&setup, &["commit", "disk@a", "--to", "new.img"]);
    refused(&finished, 1, &["disk.img", "no such file"]);
    let by_name = [
        "commit",
        "disk@a",
        "--to",
        "new.img",
        "--image",
        "elsewhere.raw",
    ];
    done(&overlay(&setup, &by_name));
    assert_same(&read_file(&setup.file("new.img")), &disk, "the new image");
}

#[test]
fn a_commit_over_another_image_is_refused() {
    let (server, _) = idle_server();
    let other = server.setup().file("other.raw");
    write_file(&other, &pseudo_random(8, SIZE));
    let commit = [
        "commit",
        "disk@a",
        "--to",
        "new.img",
        "--image",
        "other.raw",
    ];
    refused(
        &overlay(server.setup(), &commit),
        1,
        &["other.raw", "another"],
    );
    assert!(!server.setup().file("new.img").exists());
}

#[test]
fn a_state_directory_that_is_not_there_is_not_made() {
    let setup = Setup::new();
    refused(
        &overlay(&setup, &["list"]),
        1,
        &["no such directory", "--state"],
    );
    assert!(!setup.state().exists());
}

#[test]
fn the_control_socket_is_there_while_the_server_is() {
    let (server, _) = idle_server();
    let socket = server.setup().state().join("control.sock");
    assert!(socket.exists());
    let setup = server.kill();
    assert!(socket.exists(), "nobody could remove it");
    let server = setup.start();
    json(server.setup(), &["list"]);
    server.terminate();
    assert!(!socket.exists());
}

/// A mounted file system, unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// A new btrfs, 256 MiB; none, loudly, where the machine lets us have none.
    fn btrfs(folder: &Path) -> Option<Self> {
        if !support::is_root() || !support::require(&["mkfs.btrfs", "mount", "umount"]) {
            support::skipped("root, to mount a file system");
            return None;
        }
        let (file, top) = (folder.join("btrfs"), folder.join("top"));
        let made = fs::File::create(&file).and_then(|file| file.set_len(256 << 20));
        made.and_then(|()| fs::create_dir(&top)).expect("room");
        Tool::new("mkfs.btrfs").arg("-q").arg(&file).ok();
        let mounted = Tool::new("mount")
            .args(["-o", "loop"])
            .args([&file, &top])
            .run();
        if mounted.code != Some(0) {
            support::skipped("loop devices");
            return None;
        }
        Some(Self(top))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        Tool::new("umount").arg(&self.0).run();
    }
}

#[test]
fn a_commit_shares_unchanged_blocks_where_the_file_system_can() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(mounted) = Mounted::btrfs(folder.path()) else {
        return;
    };
    let path = mounted.0.join("disk.img");
    write_file(&path, &image());
    let server = Setup::new()
        .with_image(&path)
        .with_state(&mounted.0.join("state"))
        .start();
    let disk = write_some(&server);
    let target = mounted.0.join("new.img");
    let commit = ["commit", "disk@a", "--to", target.to_str().expect("text")];
    let committed = json(server.setup(), &commit);
    assert_eq!(committed["shared"], true);
    assert_same(&read_file(&target), &disk, "the new image");
    drop(server);
}
