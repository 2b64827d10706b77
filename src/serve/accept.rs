//! Accepting connections and leading them to their handshakes.
//!
//! Invariant: a client too many is closed at once, and those that are there notice nothing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::connection::{self, Stream};
use super::herd::Herd;
use super::listen::{Bound, Listener, SocketFile};
use crate::access::{Caller, Peer};
use crate::limits::HANDSHAKES_MAX;

/// Pause after an accept failed for want of descriptors or memory, which only time can mend.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Accepts connections until it is dropped; handshakes under way end with it.
#[derive(Debug)]
pub(super) struct Accepting {
    _tasks: JoinSet<()>,
    _files: Vec<SocketFile>,
}

/// Starts to accept on all of `bound`.
pub(super) fn start(bound: Vec<Bound>, herd: Arc<Herd>) -> io::Result<Accepting> {
    let mut tasks = JoinSet::new();
    let mut files = Vec::new();
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    for Bound {
        listener,
        socket_file,
        ..
    } in bound
    {
        files.extend(socket_file);
        let door = Door {
            herd: Arc::clone(&herd),
            handshakes: Arc::clone(&handshakes),
        };
        match listener {
            Listener::Tcp(tcp) => {
                let listener = TcpListener::from_std(tcp)?;
                tasks.spawn(async move { door.accept_tcp(&listener).await });
            }
            Listener::Unix(unix) => {
                let listener = UnixListener::from_std(unix)?;
                tasks.spawn(async move { door.accept_unix(&listener).await });
            }
        }
    }
    Ok(Accepting {
        _tasks: tasks,
        _files: files,
    })
}

struct Door {
    herd: Arc<Herd>,
    handshakes: Arc<Semaphore>,
}

impl Door {
    async fn accept_tcp(&self, listener: &TcpListener) {
        let mut guests = JoinSet::new();
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    let peer = Peer::Ip(address.ip());
                    self.lead(&mut guests, stream, peer, address.to_string());
                }
                Err(error) => pause(&error).await,
            }
        }
    }

    async fn accept_unix(&self, listener: &UnixListener) {
        let mut guests = JoinSet::new();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    self.lead(&mut guests, stream, Peer::Local, "local client".to_owned());
                }
                Err(error) => pause(&error).await,
            }
        }
    }

    fn lead(&self, guests: &mut JoinSet<()>, stream: impl Stream, peer: Peer, label: String) {
        while guests.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&self.handshakes).try_acquire_owned() else {
            tracing::warn!("{label}: closed, {HANDSHAKES_MAX} handshakes are under way already");
            return;
        };
        let herd = Arc::clone(&self.herd);
        guests.spawn(async move {
            connection::run(herd, stream, Caller::plain(peer), label).await;
            drop(permit);
        });
    }
}

async fn pause(error: &io::Error) {
    tracing::warn!("a connection could not be accepted: {error}");
    tokio::time::sleep(RETRY_AFTER).await;
}
