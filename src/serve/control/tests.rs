//! The control socket, spoken to by hand.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use super::*;
use crate::limits::CONTROL_REQUEST_MAX;
use crate::serve::gate::Gate;
use crate::serve::state_dir::CONTROL_SOCKET;

/// A door without a server behind it: commands find an empty state directory.
struct Bench {
    home: tempfile::TempDir,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Bench {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let state = StateDir::open(home.path()).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (bound, is_bound) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let socket = ControlSocket::bind(&state).unwrap();
                let workshop = Workshop::alone(Arc::new(state));
                let (gate, successors) = (Gate::default(), tokio::sync::mpsc::channel(1).0);
                let control = Control::start(socket, workshop, &gate, successors).unwrap();
                bound.send(()).unwrap();
                let _ = stopped.await;
                drop(control);
            });
        });
        is_bound.recv().unwrap();
        Self {
            home,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.home.path().join(CONTROL_SOCKET)).unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.end();
    }
}

fn ask(stream: &mut UnixStream, line: &str) -> String {
    writeln!(stream, "{line}").unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    answer
}

fn silent() -> Reporter {
    Arc::new(|_| ControlFlow::Continue(()))
}

#[test]
fn requests_of_one_connection_are_answered_in_turn() {
    let bench = Bench::new();
    let mut stream = bench.connect();
    for _ in 0..2 {
        let answer = ask(&mut stream, r#"{"version":1,"command":"list"}"#);
        assert_eq!(answer, "{\"version\":1,\"done\":{\"list\":[]}}\n");
    }
}

#[test]
fn a_request_that_can_not_be_read_is_refused_and_the_next_one_served() {
    let bench = Bench::new();
    let mut stream = bench.connect();
    let refused = ask(&mut stream, "hello");
    assert!(refused.contains("\"failed\":{\"code\":2"), "{refused}");
    let answer = ask(&mut stream, r#"{"version":1,"command":"list"}"#);
    assert!(answer.contains("done"), "{answer}");
}

#[test]
fn a_request_without_end_is_cut_off() {
    let bench = Bench::new();
    let mut stream = bench.connect();
    let long = "x".repeat(usize::try_from(CONTROL_REQUEST_MAX).unwrap());
    stream.write_all(long.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines();
    assert!(lines.next().unwrap().unwrap().contains("at most"));
    assert!(lines.next().is_none());
}

#[test]
fn only_the_server_s_user_reaches_the_socket() {
    let bench = Bench::new();
    let file = bench.home.path().join(CONTROL_SOCKET);
    let mode = file.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_socket_goes_with_its_server() {
    let mut bench = Bench::new();
    let file = bench.home.path().join(CONTROL_SOCKET);
    assert!(file.exists());
    bench.end();
    assert!(!file.exists());
}

#[test]
fn a_dead_server_s_socket_is_replaced() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(CONTROL_SOCKET);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let state = StateDir::open(home.path()).unwrap();
    let _socket = ControlSocket::bind(&state).unwrap();
    assert!(UnixStream::connect(&path).is_ok());
}

#[test]
fn a_state_directory_deeper_than_an_address_is_long_works() {
    let home = tempfile::tempdir().unwrap();
    let deep = home.path().join("d".repeat(150));
    let state = StateDir::open(&deep).unwrap();
    let _socket = ControlSocket::bind(&state).unwrap();
    assert!(connect(&deep).is_some());
}

#[test]
fn a_command_goes_to_the_server_that_holds_the_directory() {
    let bench = Bench::new();
    let answer = run(Some(bench.home.path().into()), &Command::List, &silent());
    assert_eq!(answer, Ok(Answer::List(Vec::new())));
}

#[test]
fn a_failure_of_the_server_is_that_of_the_command() {
    let bench = Bench::new();
    let overlay: OverlayName = "disk@a".parse().unwrap();
    let show = Command::Show { overlay };
    let failure = run(Some(bench.home.path().into()), &show, &silent()).unwrap_err();
    assert_eq!(failure.code(), 1);
    assert!(failure.to_string().contains("disk@a"), "{failure}");
}

#[test]
fn without_a_server_a_command_takes_the_directory_itself() {
    let home = tempfile::tempdir().unwrap();
    let answer = run(Some(home.path().into()), &Command::List, &silent());
    assert_eq!(answer, Ok(Answer::List(Vec::new())));
}

#[test]
fn a_state_directory_that_is_not_there_is_not_made() {
    let home = tempfile::tempdir().unwrap();
    let missing = home.path().join("missing");
    let failure = run(Some(missing.clone()), &Command::List, &silent()).unwrap_err();
    assert!(failure.to_string().contains("missing"), "{failure}");
    assert!(!missing.exists());
}
