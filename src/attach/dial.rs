//! Connections to servers, up to the end of their handshakes.
//!
//! Invariant: every connection that is handed on waits for ever in its reads and writes, as the
//! kernel wants it, and finds out by itself when its peer is gone without a word.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;

use super::export::Export;
use super::handshake::{Handshake, HandshakeError};
use super::options::Server;
use crate::limits::{ATTACH_ADDRESSES_MAX, ATTACH_CONNECT_TIME, ATTACH_HANDSHAKE_TIME};

/// After this time without a word a peer is asked whether it is still there, and then that often.
const ASK_AFTER: Duration = Duration::from_secs(10);
const ASK_EVERY: Duration = Duration::from_secs(5);
const ASK_TIMES: u32 = 4;

/// A connection with unconfirmed data is dead after this time.
const GONE_AFTER: Duration = Duration::from_secs(30);

/// Why there is no connection.
#[derive(Debug, Error)]
pub(super) enum DialError {
    #[error("{}", spoken(.0))]
    Io(#[from] io::Error),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error("the server sent more than a handshake has")]
    Behind,
}

fn spoken(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no answer in time".to_owned(),
        io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
        _ => error.to_string(),
    }
}

/// A connection at the end of its handshake.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) socket: TcpStream,
    pub(super) export: Export,
}

/// All addresses of all servers, in their order. Name servers are asked here and never again.
pub(super) fn addresses(servers: &[Server]) -> Result<Vec<SocketAddr>, String> {
    let mut all = Vec::new();
    let mut unknown = Vec::new();
    for server in servers {
        match resolve(server) {
            Ok(found) => all.extend(found),
            Err(error) => unknown.push(format!("{}: {error}", server.host)),
        }
    }
    all.truncate(ATTACH_ADDRESSES_MAX);
    if all.is_empty() {
        return Err(unknown.join("; "));
    }
    Ok(all)
}

fn resolve(server: &Server) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = server.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, server.port)]);
    }
    let found = (server.host.as_str(), server.port).to_socket_addrs()?;
    Ok(found.collect())
}

/// Opens `export` at `address`.
pub(super) fn dial(address: SocketAddr, export: &str) -> Result<Dialled, DialError> {
    let mut socket = TcpStream::connect_timeout(&address, ATTACH_CONNECT_TIME)?;
    let end = Instant::now() + ATTACH_HANDSHAKE_TIME;
    let mut handshake = Handshake::new(export.to_owned());
    loop {
        let left = end.saturating_duration_since(Instant::now());
        // A time-out of 0 would be none at all.
        let left = Some(left.max(Duration::from_millis(1)));
        socket.set_read_timeout(left)?;
        socket.set_write_timeout(left)?;
        let mut bytes = vec![0; handshake.wanted()];
        socket.read_exact(&mut bytes)?;
        if let Some(export) = handshake.handle_bytes(&bytes)? {
            for_the_kernel(&socket)?;
            return Ok(Dialled { socket, export });
        }
        if let Some(bytes) = handshake.poll_transmit() {
            socket.write_all(&bytes)?;
        }
    }
}

/// Makes the connection what the kernel's device needs.
fn for_the_kernel(socket: &TcpStream) -> Result<(), DialError> {
    let mut byte = [0];
    socket.set_nonblocking(true)?;
    match socket.peek(&mut byte) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        Ok(_) => return Err(DialError::Behind),
        Err(error) => return Err(error.into()),
    }
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(None)?;
    socket.set_write_timeout(None)?;
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_user_timeout(Some(GONE_AFTER))?;
    let asking = TcpKeepalive::new()
        .with_time(ASK_AFTER)
        .with_interval(ASK_EVERY)
        .with_retries(ASK_TIMES);
    socket.set_tcp_keepalive(&asking)?;
    Ok(())
}
