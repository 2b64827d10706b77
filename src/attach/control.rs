//! How the resident process of a device is asked things: one line each way over a unix socket.
//!
//! Its name is an abstract one, `cowherd-attach/nbd0`: it is in no file system, so it is there in
//! an initramfs and in the root that follows, and it goes with the process. It is also what keeps
//! two processes from the same device.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use serde::{Deserialize, Serialize};

use super::options::Device;

/// Longest line.
const LINE_MAX: u64 = 8192;

/// How long the resident process waits for a question. It has other things to do.
const QUESTION_TIME: Duration = Duration::from_secs(1);

/// How long its answer is waited for: it may be at a server that does not answer.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Question {
    Status,
    Detach,
}

/// How a device is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub device: String,
    /// In one word.
    pub state: Condition,
    /// Number of the process that keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// What is known where there is such a process.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
}

/// How a device is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// All connections are alive.
    Attached,
    /// Some or all of the connections are dead.
    Reconnecting,
    /// It is attached, and there is no process that would make new connections.
    Unattended,
    /// It is not attached.
    Detached,
}

/// How a device is that a process keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The export, as the server names it, or else as it was asked for.
    pub export: String,
    /// Where the last connection went to.
    pub server: String,
    /// Whether nothing can be written.
    pub read_only: bool,
    /// Connections there are to be.
    pub connections: usize,
    /// Of these, those that are alive.
    pub alive: usize,
    /// Outages that are over.
    pub outages: u64,
    /// Milliseconds that the outage that goes on has taken, or else the last one took.
    pub outage_ms: Option<u64>,
    /// Why the last attempt failed, in an outage.
    pub trouble: Option<String>,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    Status(Status),
    Detached,
    Failed(String),
}

fn address(device: Device) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("cowherd-attach/{device}"))
}

/// The end of the resident process.
#[derive(Debug)]
pub(super) struct Door(UnixListener);

impl Door {
    /// Opens it; `AddrInUse` where there is a process for the device already.
    pub(super) fn open(device: Device) -> io::Result<Self> {
        let listener = UnixListener::bind_addr(&address(device)?)?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// The next question and where its answer goes; `None` where there is none now, or none that
    /// has to be answered.
    pub(super) fn next(&self) -> Option<(Question, Caller)> {
        let (stream, _) = self.0.accept().ok()?;
        if !socket_peercred(&stream).is_ok_and(|peer| peer.uid.is_root()) {
            return None;
        }
        stream.set_nonblocking(false).ok()?;
        stream.set_read_timeout(Some(QUESTION_TIME)).ok()?;
        stream.set_write_timeout(Some(QUESTION_TIME)).ok()?;
        let question = read(&stream).ok()?;
        Some((question, Caller(stream)))
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Who asked.
#[derive(Debug)]
pub(super) struct Caller(UnixStream);

impl Caller {
    pub(super) fn answer(mut self, answer: &Answer) {
        // Who does not listen any more needs no answer.
        let _ = write(&mut self.0, answer);
    }
}

/// Asks the resident process of a device; `None` where there is none.
pub(super) fn ask(device: Device, question: Question) -> io::Result<Option<Answer>> {
    let mut stream = match UnixStream::connect_addr(&address(device)?) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        Err(error) => return Err(error),
    };
    // Anybody can take a name that no file stands for.
    if !socket_peercred(&stream)?.uid.is_root() {
        return Ok(None);
    }
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    write(&mut stream, &question)?;
    read(&stream).map(Some)
}

fn read<T: for<'a> Deserialize<'a>>(stream: &UnixStream) -> io::Result<T> {
    let mut line = String::new();
    BufReader::with_capacity(512, stream)
        .take(LINE_MAX)
        .read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

fn write(stream: &mut UnixStream, what: &impl Serialize) -> io::Result<()> {
    let line = serde_json::to_string(what)? + "\n";
    stream.write_all(line.as_bytes())
}
