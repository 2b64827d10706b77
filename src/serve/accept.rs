//! Accepting connections and leading them to their handshakes.
//!
//! Invariant: a client too many is closed at once, and those that are there notice nothing.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

use super::connection::{self, Stream};
use super::herd::Herd;
use super::listen::{Bound, Listener, SocketFile};
use super::seats::Seats;
use crate::access::{Caller, Peer};

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
    let seats = Arc::new(Seats::default());
    for Bound {
        listener,
        socket_file,
        ..
    } in bound
    {
        files.extend(socket_file);
        let door = Door {
            herd: Arc::clone(&herd),
            seats: Arc::clone(&seats),
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
    seats: Arc<Seats>,
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
        let seat = match self.seats.take(&peer) {
            Ok(seat) => seat,
            Err(full) => {
                if let Some(others) = self.seats.complain(Instant::now()) {
                    tracing::warn!("{label}: closed, {full}; so were {others} others before");
                }
                return;
            }
        };
        let herd = Arc::clone(&self.herd);
        guests.spawn(async move {
            connection::run(herd, stream, Caller::plain(peer), seat, label).await;
        });
    }
}

pub(super) async fn pause(error: &io::Error) {
    tracing::warn!("a connection could not be accepted: {error}");
    tokio::time::sleep(RETRY_AFTER).await;
}
