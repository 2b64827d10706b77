//! Take-overs: a new server gets everything from the one that runs, and no connection breaks.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};

use support::nbd::{Request, hasty};
use support::{Certificates, PATIENCE, Server, Setup, Tool, write_file};

const BLOCK: usize = 4096;
const IMAGE: usize = 4 << 20;

#[test]
fn a_connection_goes_on_with_the_new_server() {
    let mut server = Setup::of_bytes(&[7; 16 * BLOCK]).start();
    let mut client = server.client("disk@a");
    for turn in 1..=3u8 {
        client.write(5, &[turn; 100]).expect("a write");
        let old = server.pid();
        server = server.taken_over();
        assert_ne!(server.pid(), old);
        assert_eq!(client.read(5, 100).expect("a read"), [turn; 100]);
        assert_eq!(client.read(200, 5).expect("a read"), [7; 5]);
        client.flush().expect("a flush");
        let third = server.setup().refused();
        third.says(&["held by another cowherd", &server.pid().to_string()]);
    }
    let kept = server.client("disk@a").read(5, 100).expect("a read");
    assert_eq!(kept, [3; 100]);
    client.disconnect();
    server.terminate();
}

#[test]
fn requests_on_their_way_are_answered_once_each() {
    let server = Setup::of_bytes(&vec![3; IMAGE]).start();
    let mut client = server.client("disk@a");
    let mut waiting = HashSet::new();
    for block in 0..500u64 {
        let request = match block % 3 {
            0 => Request::write(block * 4096, &[9; 4096]),
            1 => Request::read(block * 4096, 4096),
            _ => Request::plain(support::nbd::command::FLUSH, 0, 0),
        };
        waiting.insert(client.submit(&request).expect("room to send"));
    }
    let server = server.taken_over();
    while !waiting.is_empty() {
        let (cookie, answer) = client.answer().expect("an answer");
        answer.expect("a good one");
        assert!(waiting.remove(&cookie), "answered twice");
    }
    client.write(0, b"more").expect("a write");
    server.terminate();
}

/// Where the new server ends, up to the point of no return.
const PLACES: &[&str] = &[
    "connected",
    "doors",
    "images",
    "frozen",
    "sessions",
    "all",
    "reopened",
    "prepared",
];

/// Has a new server begin to take over, and end at `place`.
fn sabotaged(server: &Server, place: &str) {
    let mut next = server.successor(|command| {
        command.env("COWHERD_TAKEOVER_SABOTAGE", place);
    });
    assert_eq!(next.ended().code(), None, "killed at {place}");
}

#[cfg(debug_assertions)]
#[test]
fn a_new_server_that_ends_anywhere_before_the_point_of_no_return_changes_nothing() {
    let setup = Setup::of_bytes(&[7; 16 * BLOCK]);
    let socket = setup.file("s.sock");
    let mut server = setup
        .with_listen(format!("unix:{}", socket.display()))
        .start();
    let mut clients = [
        server.client("disk@a"),
        server.client("disk@a"),
        server.client("disk"),
    ];
    for (turn, place) in (1..).zip(PLACES) {
        clients[0].write(9, &[turn; 50]).expect("a write");
        sabotaged(&server, place);
        assert!(server.is_running());
        for client in &mut clients[..2] {
            assert_eq!(client.read(9, 50).expect(place), [turn; 50], "{place}");
        }
        assert_eq!(clients[2].read(9, 50).expect(place), [7; 50]);
        server.client("disk@b").disconnect();
        let listed = list(&server);
        assert!(listed.contains("disk+1@a"), "after {place}: {listed}");
    }
    server = server.taken_over();
    let last = u8::try_from(PLACES.len()).expect("few");
    assert_eq!(clients[1].read(9, 50).expect("a read"), [last; 50]);
    server.terminate();
    assert!(!socket.exists());
}

fn list(server: &Server) -> String {
    let program = env!("CARGO_BIN_EXE_cowherd");
    let state = server.setup().state().to_owned();
    Tool::new(program)
        .args(["overlay", "list", "--state"])
        .arg(state)
        .ok()
}

#[cfg(debug_assertions)]
#[test]
fn a_new_server_that_ends_behind_the_point_of_no_return_costs_connections_and_no_data() {
    let mut server = Setup::of_bytes(&[7; 16 * BLOCK]).start();
    let mut client = server.client("disk@a");
    client.write(9, &[1; 50]).expect("a write");
    client.flush().expect("a flush");
    sabotaged(&server, "yours");
    client.wire.assert_closed();
    server.wait_for_log(&["goes on without the sessions"]);
    assert!(server.is_running());
    let kept = server.client("disk@a").read(9, 50).expect("a read");
    assert_eq!(kept, [1; 50]);
    let refusal = server.setup().clone().refused();
    refusal.says(&["held by another cowherd"]);
    server = server.taken_over();
    server.terminate();
}

#[test]
fn a_server_of_another_format_is_refused_and_told_why() {
    let server = Setup::of_bytes(&[7; BLOCK]).start();
    let mut stream =
        UnixStream::connect(server.setup().state().join("control.sock")).expect("a socket");
    stream
        .write_all(b"{\"version\":1,\"command\":\"take-over\",\"format\":77}\n")
        .expect("room to send");
    let mut answer = String::new();
    BufReader::new(&stream)
        .read_line(&mut answer)
        .expect("an answer");
    assert!(answer.contains("format 77"), "{answer}");
    server.client("disk@a").disconnect();
    server.terminate();
}

#[test]
fn without_a_server_there_is_nothing_to_take_over() {
    let setup = Setup::of_bytes(&[7; BLOCK]);
    let refusal = setup.clone().with_arg("--takeover").refused();
    refusal.says(&["no server to take over from", "--takeover"]);
    assert_eq!(refusal.code, 1);
}

#[test]
fn a_new_server_that_can_not_open_what_is_in_use_refuses_before_it_stops_anything() {
    let setup = Setup::of_bytes(&[7; 16 * BLOCK]);
    let image = setup.image().to_owned();
    let mut server = setup.start();
    let mut client = server.client("disk@a");
    client.write(0, b"mine").expect("a write");
    std::fs::rename(&image, image.with_extension("away")).expect("a rename");
    let mut next = server.successor(|_| {});
    assert_eq!(next.ended().code(), Some(1));
    next.wait_for_log(&["disk.img"]);
    assert!(server.is_running());
    assert_eq!(client.read(0, 4).expect("a read"), b"mine");
    std::fs::rename(image.with_extension("away"), &image).expect("a rename");
    server.taken_over().terminate();
}

/// A raw connection past its handshake, on a unix socket.
fn raw(server: &Server, socket: &std::path::Path, more: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(socket).expect("a connection");
    stream
        .write_all(&hasty("disk@a", more))
        .expect("a handshake");
    server.wait_for_log(&["uses", "disk+1@a"]);
    stream
}

fn write_of(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Request::write(0, payload).header(77);
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn half_a_request_that_is_not_begun_moves_along() {
    let setup = Setup::of_bytes(&[7; 16 * BLOCK]);
    let socket = setup.file("s.sock");
    let server = setup
        .with_listen(format!("unix:{}", socket.display()))
        .start();
    let request = write_of(&[1; 4096]);
    let (head, rest) = request.split_at(13);
    let mut stream = raw(&server, &socket, head);
    let server = server.taken_over();
    stream.write_all(rest).expect("room to send");
    support::eventually(|| {
        let read = server.client("disk@a").read(0, 4096).expect("a read");
        (read == [1; 4096]).then_some(()).ok_or("not written")
    });
    server.terminate();
}

#[test]
fn a_client_that_holds_a_take_over_up_is_cut_and_the_others_move() {
    let setup = Setup::of_bytes(&vec![7; IMAGE]);
    let socket = setup.file("s.sock");
    let server = setup
        .with_listen(format!("unix:{}", socket.display()))
        .start();
    let request = write_of(&[1; 8192]);
    let stuck = raw(&server, &socket, &request[..5000]);
    let mut client = server.client("disk@b");
    client.write(0, b"mine").expect("a write");
    let mut next = server.successor(|_| {});
    next.wait_until_ready();
    server.wait_for_log(&["sends no more of a request", "cut"]);
    assert_eq!(client.read(0, 4).expect("a read"), b"mine");
    drop(stuck);
    next.terminate();
}

#[test]
fn a_session_over_tls_is_closed_and_said_when_others_move() {
    let Some(certificates) = Certificates::new(&["a"]) else {
        return;
    };
    let setup = Setup::new();
    write_file(&setup.file("disk.img"), &[7; 16 * BLOCK]);
    let config = setup.file("cowherd.toml");
    let text = format!(
        "{}[image.disk]\nfile = \"{}\"\n",
        certificates.config("selective"),
        setup.file("disk.img").display()
    );
    write_file(&config, text.as_bytes());
    let server = setup.with_arg("--config").with_arg(&config).start();
    let plain = support::nbd::Handshake::start(&server.address()).expect("a greeting");
    let tls = certificates.client(Some("a"));
    let mut secure = plain
        .start_tls(tls)
        .expect("TLS")
        .go("disk@a")
        .expect("an export");
    secure.write(0, b"safe").expect("a write");
    let mut client = server.client("disk@b");
    if cfg!(debug_assertions) {
        // It goes on where nothing came of the take-over.
        sabotaged(&server, "reopened");
        assert_eq!(secure.read(0, 4).expect("a read"), b"safe");
        secure.write(0, b"Safe").expect("a write");
    }
    let mut next = server.successor(|_| {});
    next.wait_until_ready();
    server.wait_for_log(&["over TLS", "can't be handed over"]);
    assert!(secure.read(0, 4).is_err(), "closed");
    client.write(0, b"mine").expect("a write");
    let again = support::nbd::Handshake::start(&next.address()).expect("a greeting");
    let again = again
        .start_tls(certificates.client(Some("a")))
        .expect("TLS");
    let kept = again.go("disk@a").expect("an export").read(0, 4);
    assert_eq!(kept.expect("a read"), b"Safe");
    next.terminate();
}

#[test]
fn systemd_is_told_which_process_the_service_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let told = UnixDatagram::bind(&path).expect("a socket");
    told.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let notify = format!("NOTIFY_SOCKET={}", path.display());
    let mut server = Setup::of_bytes(&[7; BLOCK])
        .run_by(&["env", &notify])
        .start();
    let mut heard = [0; 200];
    let mut next = || {
        let count = told.recv(&mut heard).expect("a word");
        String::from_utf8_lossy(&heard[..count]).into_owned()
    };
    assert!(next().contains("READY=1"));
    let mut successor = server.successor(|_| {});
    let words = next();
    let main = format!("MAINPID={}", successor.pid());
    assert!(words.contains(&main), "{words}");
    // It asks whether that was heard, and only then is anybody told that the new one is ready.
    assert!(server.is_running());
    assert!(next().contains("BARRIER=1"));
    successor.wait_until_ready();
    assert_eq!(server.ended().code(), Some(0), "of the old server");
    successor.terminate();
}

#[test]
fn a_process_that_could_not_tell_systemd_of_the_next_one_is_refused() {
    let socket = tempfile::tempdir().expect("a folder");
    let told = UnixDatagram::bind(socket.path().join("notify")).expect("a socket");
    let notify = format!("NOTIFY_SOCKET={}", socket.path().join("notify").display());
    let setup = Setup::of_bytes(&[7; BLOCK]);
    let server = setup.run_by(&["env", &notify]).start();
    let by_hand = server
        .setup()
        .clone()
        .run_by(&["env", "--unset=NOTIFY_SOCKET"]);
    let refusal = by_hand.with_arg("--takeover").refused();
    refusal.says(&[
        "systemctl reload",
        "NotifyAccess=all",
        &server.pid().to_string(),
    ]);
    assert_eq!(refusal.code, 1);
    server.client("disk@a").disconnect();
    server.terminate();
    drop(told);
}

#[test]
fn a_server_in_the_background_goes_on_when_its_command_has_ended() {
    let server = Setup::of_bytes(&[7; 16 * BLOCK]).start();
    let mut client = server.client("disk@a");
    client.write(0, b"mine").expect("a write");
    let mut command = server.successor(|command| {
        command.arg("--detach");
    });
    command.wait_until_ready();
    assert_eq!(command.ended().code(), Some(0), "of the command");
    let mut old = server;
    assert_eq!(old.ended().code(), Some(0), "of the old server");
    assert_eq!(client.read(0, 4).expect("a read"), b"mine");
    let lock = std::fs::read_to_string(old.setup().state().join("lock")).expect("a lock");
    assert_ne!(lock.trim(), command.pid().to_string());
    Tool::new("kill").arg(lock.trim()).ok();
    client.wire.assert_closed();
}

#[test]
fn a_command_whose_server_fails_in_the_background_fails_too() {
    let setup = Setup::of_bytes(&[7; BLOCK]);
    let detached = setup.clone().with_arg("--takeover").with_arg("--detach");
    let finished = Tool::from_command(detached.command(), "cowherd").run();
    assert_eq!(finished.code, Some(1), "{finished}");
    assert!(
        finished.stderr.contains("no server to take over from"),
        "{finished}"
    );
}

#[test]
fn a_command_for_the_background_tells_of_a_mistake_in_the_config_as_any_other() {
    let setup = Setup::of_bytes(&[7; BLOCK]);
    let config = setup.file("cowherd.toml");
    write_file(&config, b"nonsense = 1\n");
    let detached = setup.with_arg("--config").with_arg(&config);
    let refusal = detached
        .with_arg("--takeover")
        .with_arg("--detach")
        .refused();
    refusal.says(&["nonsense"]);
    assert_eq!(refusal.code, 2);
}

/// The first bytes of a file by TFTP, and then silence.
fn ask_tftp(at: &str) -> (std::net::UdpSocket, Vec<u8>) {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("a time limit");
    socket
        .send_to(b"\0\x01file\0octet\0", at)
        .expect("a request");
    let mut packet = [0; 600];
    let (count, from) = socket.recv_from(&mut packet).expect("an answer");
    socket.connect(from).expect("a transfer");
    (socket, packet[..count].to_vec())
}

#[test]
fn files_are_sent_to_their_end_and_the_next_come_from_the_new_server() {
    let setup = Setup::new();
    write_file(&setup.file("disk.img"), &[7; BLOCK]);
    let root = setup.file("tree");
    std::fs::create_dir(&root).expect("a folder");
    write_file(&root.join("file"), &[b'f'; 700]);
    let config = setup.file("cowherd.toml");
    let (disk, any) = (setup.file("disk.img"), "listen = \"127.0.0.1:0\"");
    let text = format!(
        "[image.disk]\nfile = {disk:?}\n\
         [tftp]\nroot = {root:?}\n{any}\n\
         [http]\nroot = {root:?}\n{any}\n"
    );
    write_file(&config, text.as_bytes());
    let mut old = setup.with_arg("--config").with_arg(&config).start();
    let doors = |server: &Server| [server.said("tftp on "), server.said("http on ")];
    let before = doors(&old);
    let [tftp, http] = before.clone().map(|line| line[8..].to_owned());
    let (transfer, first) = ask_tftp(&tftp);
    assert_eq!((first[..4].to_vec(), first.len()), (vec![0, 3, 0, 1], 516));
    let mut next = old.successor(|_| {});
    next.wait_until_ready();
    assert_eq!(doors(&next), before);
    assert!(old.is_running(), "it has a file to send");
    let mut packet = [0; 600];
    transfer.send(&[0, 4, 0, 1]).expect("room");
    assert_eq!(transfer.recv(&mut packet).expect("the rest"), 4 + 700 - 512);
    transfer.send(&[0, 4, 0, 2]).expect("room");
    assert_eq!(old.ended().code(), Some(0));
    assert_eq!(ask_tftp(&tftp).1, first);
    let mut stream = std::net::TcpStream::connect(&http).expect("a connection");
    let request = b"GET /file HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).expect("room to send");
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut answer).expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(&[b'f'; 700]));
    next.terminate();
}
