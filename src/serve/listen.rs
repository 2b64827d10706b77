//! Where the server listens: addresses as text, and the sockets behind them.
//!
//! Invariants:
//! - A socket file is only removed when nobody answers on it, or when it is still the one made
//!   here.
//! - Sockets are non-blocking and closed on exec; ready for tokio's `from_std`.

mod address;
mod passed;
mod socket_file;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use thiserror::Error;

use super::kept::{self, Stored};
use crate::io::inherited_descriptor;
use crate::limits::LISTEN_BACKLOG;

pub use address::{ListenAddress, ListenAddressError};
pub(super) use passed::{beside, bind_or_take, of_passed, own_files};
pub use socket_file::SocketFile;

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// Over TCP.
    Tcp(TcpListener),
    /// Over a unix socket.
    Unix(UnixListener),
}

/// A listening socket and where it can be reached.
#[derive(Debug)]
pub struct Bound {
    /// The socket.
    pub listener: Listener,
    /// How clients reach it.
    pub address: BoundAddress,
    /// The file of a unix socket that was made here; dropping it removes the file.
    pub socket_file: Option<SocketFile>,
    /// Whether systemd opened it: its file, if it has one, belongs to that.
    pub is_inherited: bool,
}

/// Where a listening socket can be reached; shown as the URI that NBD clients take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoundAddress {
    /// With the real port, also where 0 was asked for.
    Tcp(SocketAddr),
    /// `None` for an inherited socket without a name.
    Unix(Option<PathBuf>),
}

impl BoundAddress {
    /// The URI of one export, or of the default one where `export` is empty.
    #[must_use]
    pub fn uri(&self, export: &str) -> String {
        match self {
            Self::Tcp(address) => format!("nbd://{address}/{export}"),
            Self::Unix(Some(path)) => {
                format!(
                    "nbd+unix:///{export}?socket={}",
                    address::percent_encoded(path)
                )
            }
            Self::Unix(None) => "an unnamed unix socket".to_owned(),
        }
    }
}

impl fmt::Display for BoundAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri(""))
    }
}

/// Why a socket can't be listened on, one line each, with what to do about it.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is its variant's description")]
pub enum ListenError {
    #[error("{0} is in use by another program: stop it, or choose another with --listen")]
    InUse(String),
    #[error(
        "{address}: no permission to listen there; ports below 1024 need CAP_NET_BIND_SERVICE, \
         socket files a directory one may write; or choose another with --listen"
    )]
    Forbidden { address: String },
    #[error("host {host:?} can't be resolved ({reason}); check the name given to --listen")]
    Resolve { host: String, reason: io::Error },
    #[error("{address}: can't be listened on ({reason}); choose another with --listen")]
    Failed { address: String, reason: io::Error },
    #[error("{}: is there already and is no socket; remove it, or choose another with \
             --listen", .0.display())]
    NoSocket(PathBuf),
    #[error(
        "socket number {0} of LISTEN_FDS is no listening TCP or unix stream socket; check the \
         socket unit"
    )]
    Inherited(usize),
}

impl ListenError {
    /// Whether it is for want of an address that this host may yet get, or of a name that may yet
    /// be known.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Failed { reason, .. } => reason.kind() == io::ErrorKind::AddrNotAvailable,
            Self::Resolve { .. } => true,
            _ => false,
        }
    }

    fn new(address: String, reason: io::Error) -> Self {
        match reason.kind() {
            io::ErrorKind::AddrInUse => Self::InUse(address),
            io::ErrorKind::PermissionDenied => Self::Forbidden { address },
            _ => Self::Failed { address, reason },
        }
    }
}

impl Bound {
    /// The socket once more, for a server that takes over.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        Ok(match &self.listener {
            Listener::Tcp(tcp) => tcp.try_clone()?.into(),
            Listener::Unix(unix) => unix.try_clone()?.into(),
        })
    }
}

/// Listens on every address that `address` stands for.
///
/// A host name may stand for several. One that this machine can't have (IPv6 switched off, say) is
/// left out if another works; one that is in use is an error, since clients could meet the other
/// program.
///
/// # Errors
/// In one line which address it is and what to do.
pub fn bind(address: &ListenAddress) -> Result<Vec<Bound>, ListenError> {
    bind_or_take(address, &mut Vec::new())
}

fn bind_host(
    host: &str,
    port: u16,
    mut bind: impl FnMut(SocketAddr) -> Result<Bound, ListenError>,
) -> Result<Vec<Bound>, ListenError> {
    let mut bound = Vec::new();
    let mut refused = None;
    for address in resolve(host, port)? {
        match bind(address) {
            Ok(one) => bound.push(one),
            Err(error @ (ListenError::InUse(_) | ListenError::Forbidden { .. })) => {
                return Err(error);
            }
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if bound.is_empty() => Err(error),
        _ => Ok(bound),
    }
}

fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ListenError> {
    if host.is_empty() {
        let everywhere: [std::net::IpAddr; 2] = [[0u8; 4].into(), [0u16; 8].into()];
        return Ok(everywhere.map(|ip| SocketAddr::new(ip, port)).to_vec());
    }
    let resolve_error = |reason| ListenError::Resolve {
        host: host.to_owned(),
        reason,
    };
    let mut addresses = Vec::new();
    for address in (host, port).to_socket_addrs().map_err(resolve_error)? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(resolve_error(io::ErrorKind::NotFound.into()));
    }
    Ok(addresses)
}

/// Listens on one address, which `shares` it with sockets that allow that.
///
/// # Errors
/// Whatever the kernel has against it.
pub(super) fn listen_tcp(address: SocketAddr, shares: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Without it, a restart fails for a minute after clients were cut off.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shares)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    start(&socket, &address.into())?;
    socket.set_reuse_port(false)?;
    Ok(socket.into())
}

/// Listens on one address, beside `others` where those are in the way.
fn bind_tcp<'a>(
    address: SocketAddr,
    others: impl Iterator<Item = SockRef<'a>>,
) -> Result<Bound, ListenError> {
    let listened = beside(others, |shares| listen_tcp(address, shares));
    let listened = listened.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (real, listener) =
        listened.map_err(|reason| ListenError::new(address.to_string(), reason))?;
    Ok(Bound {
        listener: Listener::Tcp(listener),
        address: BoundAddress::Tcp(real),
        socket_file: None,
        is_inherited: false,
    })
}

fn bind_unix(path: &Path) -> Result<Bound, ListenError> {
    let failed = |reason| ListenError::new(path.display().to_string(), reason);
    let address = SockAddr::unix(path).map_err(failed)?;
    socket_file::make_way(path, &address)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    start(&socket, &address).map_err(failed)?;
    Ok(Bound {
        listener: Listener::Unix(socket.into()),
        address: BoundAddress::Unix(Some(path.to_owned())),
        socket_file: Some(SocketFile::made(path).map_err(failed)?),
        is_inherited: false,
    })
}

fn start(socket: &Socket, address: &SockAddr) -> io::Result<()> {
    socket.bind(address)?;
    socket.listen(i32::try_from(LISTEN_BACKLOG).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)
}

/// The sockets that systemd handed over by `LISTEN_FDS`, none where it did not; and what an earlier
/// process of this service has had it keep.
///
/// To be called once, before any thread is started: it removes the variables from the environment.
///
/// # Errors
/// One of the sockets is nothing to accept connections on.
pub(super) fn inherited() -> Result<(Vec<Bound>, Stored), ListenError> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names: Vec<_> = names.split(':').collect();
    let mut given = ListenFd::from_env();
    let (mut bound, mut stored) = (Vec::new(), Vec::new());
    for index in 0..given.len() {
        match names.get(index).filter(|name| kept::is_ours(name)) {
            None => bound.push(adopt(&mut given, index)?),
            Some(name) => {
                let number = given.take_raw_fd(index);
                let number = number
                    .ok()
                    .flatten()
                    .ok_or(ListenError::Inherited(index + 1))?;
                stored.push(((*name).to_owned(), inherited_descriptor(number)));
            }
        }
    }
    Ok((bound, stored))
}

fn adopt(given: &mut ListenFd, index: usize) -> Result<Bound, ListenError> {
    let refused = |_| ListenError::Inherited(index + 1);
    let (listener, address) = if let Ok(Some(tcp)) = given.take_tcp_listener(index) {
        let address = BoundAddress::Tcp(tcp.local_addr().map_err(refused)?);
        (Listener::Tcp(tcp), address)
    } else if let Ok(Some(unix)) = given.take_unix_listener(index) {
        let name = unix.local_addr().map_err(refused)?;
        let path = name.as_pathname().map(Path::to_owned);
        (Listener::Unix(unix), BoundAddress::Unix(path))
    } else {
        return Err(ListenError::Inherited(index + 1));
    };
    prepare(&listener)
        .map_err(refused)?
        .then_some(Bound {
            listener,
            address,
            // The file belongs to whoever made it.
            socket_file: None,
            is_inherited: true,
        })
        .ok_or(ListenError::Inherited(index + 1))
}

/// Makes an inherited socket non-blocking, and says whether it listens.
fn prepare(listener: &Listener) -> io::Result<bool> {
    let socket = match listener {
        Listener::Tcp(tcp) => SockRef::from(tcp),
        Listener::Unix(unix) => SockRef::from(unix),
    };
    socket.set_nonblocking(true)?;
    socket.is_listener()
}
