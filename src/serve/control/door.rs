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
use std::os::fd::AsRawFd;
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

use super::message::{Event, parse};
use super::workshop::Workshop;
use super::{Progress, Reporter};
use crate::limits::{CONTROL_CONNECTIONS_MAX, CONTROL_REQUEST_MAX, CONTROL_REQUEST_TIME};
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
        Ok(Self { socket, path })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // The lock is still held. A file left behind is cleared away by the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Answers on the control socket until it is dropped. Work under way is then stopped.
#[derive(Debug)]
pub(in crate::serve) struct Control {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
    _socket: ControlSocket,
}

impl Control {
    /// Starts to answer, with the help of `workshop`.
    pub(in crate::serve) fn start(socket: ControlSocket, workshop: Workshop) -> io::Result<Self> {
        let listener = std::os::unix::net::UnixListener::from(socket.socket.try_clone()?);
        let listener = UnixListener::from_std(listener)?;
        let stop = Arc::new(AtomicBool::new(false));
        let door = Door {
            workshop,
            stop: Arc::clone(&stop),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { door.accept(&listener).await });
        Ok(Self {
            tasks,
            stop,
            _socket: socket,
        })
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
            match listener.accept().await {
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
                Line::Whole(line) => self.answer(&line, &mut writer).await?,
                Line::TooLong => {
                    let refusal = format!("a request has at most {CONTROL_REQUEST_MAX} bytes");
                    let event = Event::from(Err(Failure::usage(refusal)));
                    return writer.write_all(&event.into_line()).await;
                }
            }
        }
    }

    async fn answer(&self, line: &[u8], writer: &mut OwnedWriteHalf) -> io::Result<()> {
        let command = match parse(line) {
            Ok(command) => command,
            Err(refused) => {
                return writer
                    .write_all(&Event::from(Err(refused)).into_line())
                    .await;
            }
        };
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
