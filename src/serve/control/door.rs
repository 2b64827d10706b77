//! The control socket of a server.
//!
//! Invariants:
//! - Only the server's own user reaches it: the file has mode 0600 from its first moment on.
//! - It is made under the lock of the state directory, so one that is found there is a dead one's.
//! - A request has a bounded size and time, connections a bounded number; the work of a request is
//!   done on threads that may block, and stopped when nobody waits for it or the server stops.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::message::{Asked, Command, Event, parse};
use super::workshop::Workshop;
use super::{Progress, Reporter};
use crate::limits::{CONTROL_CONNECTIONS_MAX, CONTROL_REQUEST_MAX, CONTROL_REQUEST_TIME};
use crate::serve::gate::Gate;
use crate::serve::options::Failure;
use crate::serve::state_dir::{CONTROL_SOCKET, StateDir};

/// How often progress is told at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Pause after an accept failed, which only time can mend.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The socket, its file removed on drop.
#[derive(Debug)]
pub(in crate::serve) struct ControlSocket {
    socket: Socket,
    path: PathBuf,
    /// Its file is to go with it.
    is_own: AtomicBool,
}

impl ControlSocket {
    /// Listens in the state directory, whose lock this process holds.
    pub(in crate::serve) fn bind(state: &StateDir) -> io::Result<Self> {
        let path = state.path().join(CONTROL_SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Linux gives the file the mode of the socket.
        fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        // Addresses of sockets are short, paths need not be.
        let directory = File::open(state.path())?;
        let short = format!("/proc/self/fd/{}/{CONTROL_SOCKET}", directory.as_raw_fd());
        socket.bind(&SockAddr::unix(short)?)?;
        socket.listen(i32::try_from(CONTROL_CONNECTIONS_MAX).unwrap_or(i32::MAX))?;
        socket.set_nonblocking(true)?;
        let is_own = AtomicBool::new(true);
        Ok(Self {
            socket,
            path,
            is_own,
        })
    }

    /// The socket of a server that is taken over from; its file is still that server's.
    pub(in crate::serve) fn passed(state: &StateDir, socket: OwnedFd) -> Self {
        Self {
            socket: socket.into(),
            path: state.path().join(CONTROL_SOCKET),
            is_own: AtomicBool::new(false),
        }
    }

    /// The socket once more, for a server that takes over.
    pub(in crate::serve) fn share(&self) -> io::Result<OwnedFd> {
        Ok(self.socket.try_clone()?.into())
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if *self.is_own.get_mut() {
            // The lock is still held. A file left behind is cleared away by the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Answers on the control socket until it is dropped. Work under way is then stopped.
#[derive(Debug)]
pub(in crate::serve) struct Control {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
    socket: ControlSocket,
}

impl Control {
    /// Starts to answer, with the help of `workshop`.
    pub(in crate::serve) fn start(
        socket: ControlSocket,
        workshop: Workshop,
        gate: &Gate,
        successors: mpsc::Sender<UnixStream>,
    ) -> io::Result<Self> {
        let listener = std::os::unix::net::UnixListener::from(socket.socket.try_clone()?);
        let listener = UnixListener::from_std(listener)?;
        let stop = Arc::new(AtomicBool::new(false));
        let door = Door {
            workshop,
            stop: Arc::clone(&stop),
            gate: gate.clone(),
            successors,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { door.accept(&listener).await });
        Ok(Self {
            tasks,
            stop,
            socket,
        })
    }

    /// The file of the socket is this server's from now on, or another's.
    pub(in crate::serve) fn own(&self, is_own: bool) {
        self.socket.is_own.store(is_own, Ordering::Relaxed);
    }

    /// Does something beside, for as long as the server runs.
    pub(in crate::serve) fn beside(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone, Debug)]
struct Door {
    workshop: Workshop,
    stop: Arc<AtomicBool>,
    gate: Gate,
    /// Where connections of servers go that are to take over.
    successors: mpsc::Sender<UnixStream>,
}

impl Door {
    async fn accept(&self, listener: &UnixListener) {
        let mut guests = JoinSet::new();
        let places = Arc::new(Semaphore::new(CONTROL_CONNECTIONS_MAX));
        loop {
            // One too many waits in the queue of the kernel.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            while guests.try_join_next().is_some() {}
            match self.gate.pass(|| listener.accept()).await {
                Ok((stream, _)) => {
                    let door = self.clone();
                    guests.spawn(async move {
                        // Who has gone needs no answer.
                        let _ = door.converse(stream).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!("the control socket could not accept: {error}");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    /// Answers one request after the other.
    async fn converse(&self, stream: UnixStream) -> io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        loop {
            let received = tokio::time::timeout(CONTROL_REQUEST_TIME, receive(&mut reader)).await;
            let Some(line) = received.unwrap_or(Ok(None))? else {
                return Ok(());
            };
            match line {
                Line::Whole(line) => match parse(&line) {
                    Ok(Asked::Work(command)) => self.answer(command, &mut writer).await?,
                    Ok(Asked::TakeOver) => break,
                    Err(refused) => {
                        let refusal = Event::from(Err(refused)).into_line();
                        writer.write_all(&refusal).await?;
                    }
                },
                Line::TooLong => {
                    let refusal = format!("a request has at most {CONTROL_REQUEST_MAX} bytes");
                    let event = Event::from(Err(Failure::usage(refusal)));
                    return writer.write_all(&event.into_line()).await;
                }
            }
        }
        let stream = reader
            .into_inner()
            .reunite(writer)
            .map_err(io::Error::other)?;
        // Without anybody there the server is going down, which the closed connection tells.
        let _ = self.successors.send(stream).await;
        Ok(())
    }

    async fn answer(&self, command: Command, writer: &mut OwnedWriteHalf) -> io::Result<()> {
        let (sender, mut progress) = mpsc::channel(1);
        let work = self.workshop.run(command, self.reporter(sender));
        tokio::pin!(work);
        let result = loop {
            tokio::select! {
                Some(progress) = progress.recv() => {
                    // Fails when the other side has gone. Then the channel goes, which stops the
                    // work.
                    writer.write_all(&Event::Progress(progress).into_line()).await?;
                }
                result = &mut work => break result,
            }
        };
        writer.write_all(&Event::from(result).into_line()).await
    }

    /// Passes on progress now and then, and says to stop when nobody waits any more.
    fn reporter(&self, sender: mpsc::Sender<Progress>) -> Reporter {
        let stop = Arc::clone(&self.stop);
        let last = std::sync::Mutex::new(None::<Instant>);
        Arc::new(move |progress| {
            if stop.load(Ordering::Relaxed) || sender.is_closed() {
                return ControlFlow::Break(());
            }
            let Ok(mut last) = last.lock() else {
                return ControlFlow::Break(());
            };
            if last.is_none_or(|last| last.elapsed() >= PROGRESS_EVERY) {
                *last = Some(Instant::now());
                // One that is not taken yet tells enough.
                let _ = sender.try_send(progress.clone());
            }
            ControlFlow::Continue(())
        })
    }
}

enum Line {
    Whole(Vec<u8>),
    TooLong,
}

/// The next line; `None` at the end.
async fn receive(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    let mut bounded = reader.take(CONTROL_REQUEST_MAX);
    bounded.read_until(b'\n', &mut line).await?;
    if line.ends_with(b"\n") {
        return Ok(Some(Line::Whole(line)));
    }
    let is_full = line.len() as u64 >= CONTROL_REQUEST_MAX;
    Ok(is_full.then_some(Line::TooLong))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(home: &tempfile::TempDir) -> Door {
        let state = StateDir::open(home.path()).unwrap();
        Door {
            workshop: Workshop::alone(Arc::new(state)),
            stop: Arc::default(),
            gate: Gate::default(),
            successors: mpsc::channel(1).0,
        }
    }

    fn progress() -> Progress {
        Progress {
            overlay: "disk+1@a".to_owned(),
            done: 1,
            total: 2,
        }
    }

    #[test]
    fn work_goes_on_while_somebody_waits_for_it() {
        let home = tempfile::tempdir().unwrap();
        let (sender, mut told) = mpsc::channel(1);
        let report = door(&home).reporter(sender);
        assert!((0..100).all(|_| report(&progress()).is_continue()));
        assert_eq!(told.try_recv(), Ok(progress()));
    }

    #[test]
    fn work_that_nobody_waits_for_is_stopped() {
        let home = tempfile::tempdir().unwrap();
        let (sender, told) = mpsc::channel(1);
        let report = door(&home).reporter(sender);
        drop(told);
        assert!(report(&progress()).is_break());
    }

    #[test]
    fn work_is_stopped_with_the_server() {
        let home = tempfile::tempdir().unwrap();
        let (sender, _told) = mpsc::channel(1);
        let door = door(&home);
        let report = door.reporter(sender);
        door.stop.store(true, Ordering::Relaxed);
        assert!(report(&progress()).is_break());
    }
}
