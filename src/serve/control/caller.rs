//! The control socket of a running server, as a command uses it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::message::{Command, Event, Request, Response, VERSION};
use super::{Answer, Reporter};
use crate::limits::CONTROL_ANSWER_MAX;
use crate::serve::options::Failure;
use crate::serve::state_dir::CONTROL_SOCKET;

/// The server of a state directory; `None` where none listens.
pub(in crate::serve) fn connect(state: &Path) -> Option<UnixStream> {
    // Addresses of sockets are short, paths need not be.
    let directory = File::open(state).ok()?;
    let path = format!("/proc/self/fd/{}/{CONTROL_SOCKET}", directory.as_raw_fd());
    UnixStream::connect(path).ok()
}

/// Has the server carry `command` out.
pub(super) fn ask(
    mut stream: UnixStream,
    command: &Command,
    report: &Reporter,
) -> Result<Answer, Failure> {
    let request = Request {
        version: VERSION,
        command: command.clone(),
    };
    // A path that is no text has no form in JSON.
    let mut line = serde_json::to_vec(&request)
        .map_err(|error| Failure::usage(format!("the server can't be told: {error}")))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(lost)?;
    let mut answers = BufReader::new(stream);
    loop {
        match receive(&mut answers)? {
            Event::Progress(progress) => {
                if report(&progress).is_break() {
                    return Err(Failure::failed("stopped"));
                }
            }
            Event::Done(answer) => return Ok(answer),
            Event::Failed { code: 2, message } => return Err(Failure::usage(message)),
            Event::Failed { message, .. } => return Err(Failure::failed(message)),
        }
    }
}

fn receive(answers: &mut BufReader<UnixStream>) -> Result<Event, Failure> {
    let mut line = Vec::new();
    // Not a reader of its own: that would take what comes behind the line along.
    let mut bounded = answers.by_ref().take(CONTROL_ANSWER_MAX);
    bounded.read_until(b'\n', &mut line).map_err(lost)?;
    if !line.ends_with(b"\n") {
        return Err(lost(io::ErrorKind::UnexpectedEof.into()));
    }
    let response: Response = serde_json::from_slice(&line)
        .map_err(|error| Failure::failed(format!("the server's answer can't be read: {error}")))?;
    Ok(response.event)
}

fn lost(error: io::Error) -> Failure {
    Failure::failed(format!(
        "the server ended before it had answered ({error}): look at its log, and try again"
    ))
}
