//! The image truncated or rewritten under the server: EIO to its clients, a line in the log, and
//! nobody else notices.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use support::nbd::{Client, Failure, errno};
use support::{Server, Setup, assert_same, eventually, pseudo_random};

const SIZE: usize = 1 << 20;

/// Two images, of which `red` will be meddled with.
fn serve_two() -> Server {
    Setup::new()
        .with_bytes("red.img", &pseudo_random(1, SIZE))
        .with_bytes("blue.img", &pseudo_random(2, SIZE))
        .start()
}

fn truncate(image: &Path, size: u64) {
    let file = OpenOptions::new().write(true).open(image);
    file.and_then(|file| file.set_len(size))
        .expect("the image can be truncated");
}

fn rewrite(image: &Path, at: u64) {
    let file = OpenOptions::new().write(true).open(image);
    file.and_then(|file| file.write_all_at(&[0xaa; 5000], at))
        .expect("the image can be written");
}

/// Reads until it fails, as it must some time after the change.
#[track_caller]
fn assert_fails_soon(client: &mut Client, offset: u64) {
    let failure = eventually(|| match client.read(offset, 4096) {
        Ok(_) => Err("it still reads"),
        Err(failure) => Ok(failure),
    });
    assert!(is_eio(&failure), "{failure:?}");
}

/// EIO, or a connection that was closed because its reply was under way.
fn is_eio(failure: &Failure) -> bool {
    matches!(failure, Failure::Errno(errno::EIO) | Failure::Closed(_))
}

#[track_caller]
fn assert_blue_is_unharmed(server: &mut Server, client: &mut Client) {
    assert!(server.is_running());
    client.write(100, b"still writable").expect("a write");
    client.flush().expect("a flush");
    let mut disk = pseudo_random(2, SIZE);
    disk[100..114].copy_from_slice(b"still writable");
    assert_same(&client.read_all().expect("a read"), &disk, "blue@a");
}

#[test]
fn reads_behind_a_truncation_fail_at_once() {
    let mut server = serve_two();
    let mut blue = server.client("blue@a");
    let mut red = server.client("red@a");
    red.read(0, 4096).expect("a read before");
    truncate(server.setup().image(), 64 << 10);
    let failure = red.read(512 << 10, 4096).expect_err("nothing is there");
    assert!(is_eio(&failure), "{failure:?}");
    assert_blue_is_unharmed(&mut server, &mut blue);
}

#[test]
fn large_reads_across_a_truncation_fail() {
    let mut server = serve_two();
    let mut blue = server.client("blue@a");
    let mut red = server.client("red@a");
    truncate(server.setup().image(), 64 << 10);
    let failure = red.read(0, 1 << 20).expect_err("most is not there");
    assert!(is_eio(&failure), "{failure:?}");
    assert_blue_is_unharmed(&mut server, &mut blue);
}

#[test]
fn a_truncated_image_is_failed_as_a_whole_and_the_log_says_so() {
    let server = serve_two();
    let mut red = server.client("red@a");
    truncate(server.setup().image(), 64 << 10);
    let line = server.wait_for_log(&["red"]);
    assert!(!line.is_empty());
    assert_fails_soon(&mut red, 0);
}

#[test]
fn an_image_truncated_to_nothing_does_not_end_the_server() {
    let mut server = serve_two();
    let mut blue = server.client("blue@a");
    let mut red = server.client("red@a");
    truncate(server.setup().image(), 0);
    let failure = red.read(0, 4096).expect_err("nothing is there");
    assert!(is_eio(&failure), "{failure:?}");
    server.wait_for_log(&["red"]);
    assert_blue_is_unharmed(&mut server, &mut blue);
}

#[test]
fn a_rewritten_image_fails_and_the_log_names_it() {
    let mut server = serve_two();
    let mut blue = server.client("blue@a");
    let mut red = server.client("red@a");
    rewrite(server.setup().image(), 8192);
    assert_fails_soon(&mut red, 0);
    server.wait_for_log(&["red.img"]);
    assert_blue_is_unharmed(&mut server, &mut blue);
}

#[test]
fn an_image_that_grows_fails_too() {
    let server = serve_two();
    let mut red = server.client("red@a");
    truncate(server.setup().image(), 2 * SIZE as u64);
    assert_fails_soon(&mut red, 0);
}

#[test]
fn new_connections_to_a_changed_image_are_refused_or_fail() {
    let server = serve_two();
    rewrite(server.setup().image(), 0);
    server.wait_for_log(&["red"]);
    eventually(|| {
        let Ok(mut client) = Client::open(&server.address(), "red@new") else {
            return Ok(());
        };
        match client.read(0, 4096) {
            Err(failure) if is_eio(&failure) => Ok(()),
            other => Err(other.map(|data| data.len())),
        }
    });
}

#[test]
fn an_idle_image_is_watched_too() {
    let server = serve_two();
    rewrite(server.setup().image(), 0);
    server.wait_for_log(&["red"]);
}

#[test]
fn an_image_replaced_by_a_rename_goes_on_as_it_was() {
    // The open file is the old image, which nobody touched: this is how images are updated.
    let server = serve_two();
    let mut red = server.client("red@a");
    let fresh = server.setup().file("fresh.img");
    support::write_file(&fresh, &pseudo_random(3, SIZE));
    fs::rename(&fresh, server.setup().image()).expect("a rename");
    let seen = red.read_all().expect("a read");
    assert_same(&seen, &pseudo_random(1, SIZE), "the old image");
}

#[test]
fn the_server_stops_cleanly_after_an_image_changed() {
    let server = serve_two();
    let mut red = server.client("red@a");
    red.write(0, b"written before").expect("a write");
    rewrite(server.setup().image(), 8192);
    assert_fails_soon(&mut red, 65_536);
    server.terminate();
}
