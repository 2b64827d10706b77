//! Clients on their sockets, a thread each.
//!
//! Invariant: a client that can't send goes on receiving, so that it and the server never wait for
//! each other.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use thiserror::Error;

use super::session::{Broken, Session};
use super::target::{Place, Target};
use crate::attach::export::Export;
use crate::attach::handshake::{Handshake, HandshakeError};

/// How long a handshake may take, and an answer when nothing else is to be done.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a client that waits looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(250);

/// Bytes that are received at once.
const RECEIVED: usize = 256 << 10;

/// Why a client did not come to its end.
#[derive(Debug, Error)]
pub enum ClientError {
    /// It could not connect, or the connection ended.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// There is no such export for it.
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    /// The server broke the protocol.
    #[error("{0}")]
    Broken(#[from] Broken),
    /// The server does not answer.
    #[error("no answer for {} s", PATIENCE.as_secs())]
    Silent,
}

/// What is known of a run while it goes on.
#[derive(Debug, Default)]
pub struct Meter {
    /// Requests that were answered.
    pub requests: AtomicU64,
    /// Bytes that went to and fro, headers included.
    pub bytes: AtomicU64,
    /// Clients are to stop at once.
    pub stop: AtomicBool,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// What the server gave.
    pub export: Export,
}

impl Stream {
    fn connect(place: &Place) -> io::Result<Self> {
        match place {
            Place::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(Self::Tcp(stream))
            }
            Place::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(Self::Unix(stream))
            }
        }
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(true),
            Self::Unix(stream) => stream.set_nonblocking(true),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Connection {
    /// Opens the export of `target` that is client `number`'s.
    ///
    /// # Errors
    /// The server is not there, or does not give it.
    pub fn open(target: &Target, number: usize) -> Result<Self, ClientError> {
        let mut stream = Stream::connect(&target.place)?;
        let mut handshake = Handshake::new(target.export_of(number));
        loop {
            let mut bytes = vec![0; handshake.wanted()];
            read_all(&mut stream, &mut bytes)?;
            if let Some(export) = handshake.handle_bytes(&bytes)? {
                stream.set_nonblocking()?;
                return Ok(Self { stream, export });
            }
            if let Some(bytes) = handshake.poll_transmit() {
                write_all(&mut stream, &bytes)?;
            }
        }
    }

    /// Does what `session` says, until it is done or everybody is to stop.
    ///
    /// # Errors
    /// The connection ended, or what came in made no sense.
    pub fn drive(
        mut self,
        session: &mut Session,
        start: Instant,
        meter: &Meter,
    ) -> Result<(), ClientError> {
        let mut buffer = vec![0; RECEIVED];
        let mut heard = Instant::now();
        loop {
            session.fill(start.elapsed());
            if session.is_done() || meter.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            // What has just been made goes out without asking first: there is room, usually.
            self.send(session)?;
            self.wait(session, start)?;
            if self.receive(session, start, meter, &mut buffer)? || session.is_idle() {
                heard = Instant::now();
            } else if heard.elapsed() > PATIENCE {
                return Err(ClientError::Silent);
            }
        }
    }

    fn send(&mut self, session: &mut Session) -> io::Result<()> {
        while !session.unsent().is_empty() {
            match self.stream.write(session.unsent()) {
                Ok(sent) => session.was_sent(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Until something can be sent or received, or a request is due.
    fn wait(&self, session: &Session, start: Instant) -> io::Result<()> {
        let mut flags = PollFlags::IN;
        if !session.unsent().is_empty() {
            flags |= PollFlags::OUT;
        }
        let due = session.next_due();
        let time = due.map_or(LOOK, |due| due.saturating_sub(start.elapsed()).min(LOOK));
        let time = Timespec {
            tv_sec: 0,
            tv_nsec: time.subsec_nanos().into(),
        };
        let fd = self.stream.as_fd();
        match poll(&mut [PollFd::from_borrowed_fd(fd, flags)], Some(&time)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what has come in; whether anything had.
    fn receive(
        &mut self,
        session: &mut Session,
        start: Instant,
        meter: &Meter,
        buffer: &mut [u8],
    ) -> Result<bool, ClientError> {
        let bytes = match self.stream.read(buffer) {
            Ok(0) => {
                let end = io::Error::new(io::ErrorKind::UnexpectedEof, "the server hung up");
                return Err(end.into());
            }
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let before = session.answers();
        let received = buffer.get(..bytes).unwrap_or_default();
        session.handle_bytes(start.elapsed(), received)?;
        let answers = session.answers() - before;
        meter.requests.fetch_add(answers, Ordering::Relaxed);
        meter.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(true)
    }
}

fn read_all(stream: &mut Stream, mut into: &mut [u8]) -> io::Result<()> {
    while !into.is_empty() {
        match stream.read(into)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => into = into.get_mut(bytes..).unwrap_or_default(),
        }
    }
    Ok(())
}

fn write_all(stream: &mut Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = stream.write(bytes)?;
        bytes = bytes.get(sent..).unwrap_or_default();
    }
    Ok(())
}
