//! A server that cannot start says in one line what is wrong, with what, and what to do.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;

use support::{Refusal, Setup, is_root, pseudo_random, read_file, write_file};

const FAILED: i32 = 1;
const BAD_USAGE: i32 = 2;

fn good_image() -> Vec<u8> {
    pseudo_random(1, 65_536)
}

#[test]
fn without_an_image_it_says_how_to_name_one() {
    Setup::new().misused().says(&["<IMAGE>", "Usage:"]);
}

#[test]
fn a_missing_image_is_named() {
    let setup = Setup::new();
    let path = setup.file("nowhere.img");
    setup.with_image(path).refused().says(&["nowhere.img"]);
}

#[test]
fn an_empty_image_is_refused() {
    let refusal = Setup::new().with_bytes("void.img", &[]).refused();
    refusal.says(&["void.img", "empty"]);
}

#[test]
fn a_directory_is_no_image() {
    let setup = Setup::new();
    let path = setup.file("folder.img");
    fs::create_dir(&path).expect("a new folder");
    setup
        .with_image(path)
        .refused()
        .says(&["folder.img", "director"]);
}

#[test]
fn a_pipe_is_no_image_and_is_not_waited_for() {
    let setup = Setup::new();
    let path = setup.file("pipe.img");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
        .expect("a new fifo");
    setup.with_image(path).refused().says(&["pipe.img"]);
}

#[test]
fn an_unreadable_image_is_named() {
    let setup = Setup::of_bytes(&good_image());
    let locked = fs::Permissions::from_mode(0o000);
    fs::set_permissions(setup.image(), locked).expect("it is ours");
    let refusal = match is_root() {
        true => refused_to_nobody(&setup),
        false => setup.refused(),
    };
    refusal.says(&["disk.img", "permission"]);
}

/// Root reads everything, so it runs a copy of the program as somebody else.
fn refused_to_nobody(setup: &Setup) -> Refusal {
    let open = || fs::Permissions::from_mode(0o755);
    let home = setup.file("");
    fs::set_permissions(&home, open()).expect("it is ours");
    let program = home.join("cowherd");
    fs::copy(env!("CARGO_BIN_EXE_cowherd"), &program).expect("a copy");
    fs::set_permissions(&program, open()).expect("it is ours");
    let state = home.join("state");
    fs::create_dir(&state).expect("a new folder");
    std::os::unix::fs::chown(&state, Some(65_534), Some(65_534)).expect("root may");
    let mut command = setup.command_of(&program);
    command.args(["--listen", "127.0.0.1:0"]);
    command.uid(65_534).gid(65_534).current_dir(&home);
    Refusal::of(command)
}

#[test]
fn two_images_of_one_name_are_refused() {
    let setup = Setup::of_bytes(&good_image());
    let folder = setup.file("other");
    fs::create_dir(&folder).expect("a new folder");
    let second = folder.join("disk.raw");
    write_file(&second, &good_image());
    let refusal = setup.with_image(second).refused();
    assert_eq!(refusal.code, BAD_USAGE);
    refusal.says(&["disk.img", "disk.raw"]);
}

#[test]
fn a_file_whose_name_can_be_no_export_is_refused() {
    for name in ["two words.img", "12345.img", "a@b.img", "a+b.img"] {
        let refusal = Setup::new().with_bytes(name, &good_image()).refused();
        refusal.says(&[name, "rename"]);
    }
}

#[test]
fn a_busy_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let refusal = Setup::of_bytes(&good_image())
        .with_listen(&address)
        .refused();
    assert_eq!(refusal.code, FAILED);
    refusal.says(&[&address, "in use"]);
}

#[test]
fn a_unix_socket_in_use_is_not_taken_over() {
    let setup = Setup::of_bytes(&good_image());
    let path = setup.file("socket");
    let taken = UnixListener::bind(&path).expect("a new socket");
    let address = format!("unix:{}", path.display());
    let refusal = setup.with_listen(address).refused();
    assert_eq!(refusal.code, FAILED);
    refusal.says(&["socket", "in use"]);
    drop(taken);
}

#[test]
fn a_file_in_the_place_of_a_socket_is_kept() {
    let setup = Setup::of_bytes(&good_image());
    let path = setup.file("precious");
    write_file(&path, b"not a socket");
    let address = format!("unix:{}", path.display());
    let refusal = setup.clone().with_listen(address).refused();
    refusal.says(&["precious"]);
    assert_eq!(read_file(&path), b"not a socket");
}

#[test]
fn addresses_that_make_no_sense_are_bad_usage() {
    for address in [
        "nonsense",
        "127.0.0.1:99999",
        "127.0.0.1",
        "unix:",
        "[::1:80",
        "",
    ] {
        let setup = Setup::of_bytes(&good_image()).with_listen(address);
        setup.misused().says(&["listen", address]);
    }
}

#[test]
fn an_unknown_option_is_bad_usage() {
    let setup = Setup::of_bytes(&good_image()).with_arg("--frobnicate");
    setup.misused().says(&["--frobnicate", "--help"]);
}

#[test]
fn a_number_of_shards_out_of_bounds_is_bad_usage() {
    for shards in ["0", "257", "many"] {
        let setup = Setup::of_bytes(&good_image()).with_arg(format!("--shards={shards}"));
        setup.misused().says(&["shards", shards, "256"]);
    }
}

#[test]
fn a_state_directory_belongs_to_one_server_at_a_time() {
    let server = Setup::of_bytes(&good_image()).start();
    let state = server.setup().state().to_owned();
    let second = Setup::new()
        .with_image(server.setup().image())
        .with_state(&state);
    let refusal = second.refused();
    assert_eq!(refusal.code, FAILED);
    refusal.says(&[&state.display().to_string(), "--state"]);
    server
        .client("disk@a")
        .read(0, 512)
        .expect("the first lives on");
    let _first = server.terminate();
    second.start().terminate();
}

#[test]
fn a_state_directory_that_is_a_file_is_named() {
    let setup = Setup::of_bytes(&good_image());
    let path = setup.file("occupied");
    write_file(&path, b"a file");
    setup
        .with_state(&path)
        .refused()
        .says(&["occupied", "no directory"]);
}

/// A state directory in which `disk@a` has written over an image of `bytes`.
fn written_state(bytes: &[u8]) -> Setup {
    let server = Setup::of_bytes(bytes).start();
    let mut client = server.client("disk@a");
    client.write(0, b"mine").expect("a write");
    client.flush().expect("a flush");
    client.disconnect();
    server.terminate()
}

fn assert_foreign(state: &Path, other: &[u8]) {
    let setup = Setup::of_bytes(other).with_state(state);
    let refusal = setup.refused();
    refusal.says(&[
        "image disk",
        "another",
        &state.display().to_string(),
        "move",
    ]);
}

#[test]
fn the_state_of_another_image_of_the_same_name_and_size_is_refused() {
    let first = written_state(&good_image());
    assert_foreign(first.state(), &pseudo_random(2, 65_536));
}

#[test]
fn the_state_of_another_image_of_the_same_name_and_another_size_is_refused() {
    let first = written_state(&good_image());
    assert_foreign(first.state(), &pseudo_random(1, 65_537));
}

#[test]
fn the_first_image_is_served_again_after_another_one_was_refused() {
    let first = written_state(&good_image());
    assert_foreign(first.state(), &pseudo_random(2, 65_536));
    let server = first.start();
    let seen = server.client("disk@a").read(0, 4).expect("a read");
    assert_eq!(seen, b"mine");
}
