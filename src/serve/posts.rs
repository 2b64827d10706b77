//! Where files are served: addresses of ours, and a socket on each. The addresses are those that
//! the config names, or all that its interfaces have, which come and go.
//!
//! Invariants:
//! - Where the config names interfaces and nothing else, no other address is listened on.
//! - A socket whose address is gone stays until there is another in its place: the address may come
//!   back when we have no privileges any more to open one. It goes at once when its address goes to
//!   another interface.
//! - While a gate is closed, because another server takes over, nothing is opened or closed.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};

use super::gate::Gate;
use super::host;
use super::options::Failure;
use super::takeover::Given;
use super::takeover::wire::Door;
use crate::boot::menu::Transport;
use crate::config::{HttpConfig, Listen, NetworkConfig, TftpConfig};
use crate::io::interface::{self, InterfaceAddress};

/// How often the interfaces are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A socket that is listened with.
pub(super) trait Post: Sized + Send + 'static {
    /// What is served, as people are told.
    const NAME: &'static str;
    /// What it is for another server.
    const DOOR: Door;

    /// One on this address: that of `given`, where there is one.
    fn bind(address: SocketAddrV4, given: &mut Given) -> Result<Self, Failure>;

    /// Its own address.
    fn address(&self) -> io::Result<SocketAddrV4>;

    /// The same socket once more.
    fn share(&self) -> io::Result<OwnedFd>;
}

/// What is listened with, opened, and nothing served yet.
#[derive(Debug)]
pub(super) struct Opened<S> {
    listen: Listen,
    sockets: Vec<S>,
    posted: Posted,
}

/// What serves on one socket.
pub(super) type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<S: Post> Opened<S> {
    /// Opens the sockets, for which privileges may be needed. Those of `given` are taken that are
    /// on the right addresses.
    pub(super) fn open(listen: &Listen, given: &mut Given) -> Result<Self, Failure> {
        let addresses = addresses(listen)?.into_iter();
        let sockets = addresses.map(|address| S::bind(address, given));
        Ok(Self {
            listen: listen.clone(),
            sockets: sockets.collect::<Result<_, _>>()?,
            posted: Posted::new(S::DOOR),
        })
    }

    /// The sockets that are listened with once it has begun.
    pub(super) const fn posted(&self) -> &Posted {
        &self.posted
    }

    /// Our addresses that are listened on.
    pub(super) fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        let all = self.sockets.iter();
        all.filter_map(|socket| Some(*socket.address().ok()?.ip()))
    }

    /// Says where files are found.
    pub(super) fn announce(&self, out: &mut impl Write) -> io::Result<()> {
        for socket in &self.sockets {
            writeln!(out, "{} on {}", S::NAME, socket.address()?)?;
        }
        Ok(())
    }

    /// Begins to `serve` on each, for as long as the tasks live. Inside of a runtime only.
    pub(super) fn start(
        self,
        gate: &Gate,
        serve: impl Fn(S) -> io::Result<Serving> + Send + 'static,
    ) -> io::Result<JoinSet<()>> {
        let mut posts = Posts {
            posted: self.posted,
            serve: Box::new(serve),
            doors: JoinSet::new(),
            tasks: Vec::new(),
            refused: Vec::new(),
        };
        for socket in self.sockets {
            posts.add(socket)?;
        }
        let (gate, mut tasks) = (gate.clone(), JoinSet::new());
        tasks.spawn(async move { posts.keep(&self.listen, &gate).await });
        Ok(tasks)
    }
}

/// The sockets of the moment, for who asks where they are or takes them over.
#[derive(Clone, Debug)]
pub(super) struct Posted {
    door: Door,
    sockets: Arc<Mutex<Vec<(SocketAddrV4, OwnedFd)>>>,
}

impl Posted {
    fn new(door: Door) -> Self {
        let sockets = Arc::default();
        Self { door, sockets }
    }

    fn all(&self) -> MutexGuard<'_, Vec<(SocketAddrV4, OwnedFd)>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sockets once more, for a server that takes over.
    pub(super) fn share(&self) -> io::Result<Vec<(Door, OwnedFd)>> {
        let all = self.all();
        let share = |(_, socket): &(_, OwnedFd)| Ok((self.door.clone(), socket.try_clone()?));
        all.iter().map(share).collect()
    }

    /// Whether who comes to this address and port is served.
    fn is_served(&self, at: SocketAddrV4) -> bool {
        let is_it = |own: &SocketAddrV4| {
            own.port() == at.port() && (own.ip().is_unspecified() || own.ip() == at.ip())
        };
        self.all().iter().any(|(own, _)| is_it(own))
    }
}

/// Where files are served at the moment; `None` where they are not.
#[derive(Clone, Debug, Default)]
pub(super) struct Served {
    pub(super) tftp: Option<Posted>,
    pub(super) http: Option<Posted>,
}

impl Served {
    /// All of it.
    pub(super) fn all(&self) -> impl Iterator<Item = &Posted> {
        self.tftp.iter().chain(&self.http)
    }

    /// Whether files are served by this transport at our address `own`, on the port that boot
    /// loaders take by themselves.
    pub(super) fn by(&self, transport: Transport, own: Ipv4Addr) -> bool {
        let (posted, port) = match transport {
            Transport::Tftp => (&self.tftp, TftpConfig::PORT),
            Transport::Http => (&self.http, HttpConfig::PORT),
        };
        let at = SocketAddrV4::new(own, port);
        posted.as_ref().is_some_and(|posted| posted.is_served(at))
    }
}

/// The sockets of one service, and what serves on them.
struct Posts<S> {
    posted: Posted,
    serve: Box<dyn Fn(S) -> io::Result<Serving> + Send>,
    doors: JoinSet<()>,
    /// In the order of `posted`.
    tasks: Vec<AbortHandle>,
    /// What could not be opened, and was told of.
    refused: Vec<SocketAddrV4>,
}

impl<S: Post> Posts<S> {
    fn add(&mut self, socket: S) -> io::Result<()> {
        let (address, shared) = (socket.address()?, socket.share()?);
        let serving = (self.serve)(socket)?;
        self.tasks.push(self.doors.spawn(serving));
        self.posted.all().push((address, shared));
        Ok(())
    }

    async fn keep(&mut self, listen: &Listen, gate: &Gate) {
        let Listen::OnInterfaces(network, port) = listen else {
            return std::future::pending().await;
        };
        loop {
            gate.pass(|| tokio::time::sleep(LOOK_EVERY)).await;
            // It fails for want of memory or descriptors, and the next look may not.
            if let Ok(all) = interface::addresses() {
                self.look(&all, network, *port);
            }
        }
    }

    fn look(&mut self, all: &[InterfaceAddress], network: &NetworkConfig, port: u16) {
        let wanted = network.interfaces.iter();
        let wanted = wanted.flat_map(|name| addresses_of(all, name, network));
        let wanted: Vec<_> = wanted.map(|ip| SocketAddrV4::new(ip, port)).collect();
        self.refused.retain(|address| wanted.contains(address));
        let mut replaced = false;
        for address in &wanted {
            let is_open = self.posted.all().iter().any(|(own, _)| own == address);
            replaced |= !is_open && self.open(*address);
        }
        let is_elsewhere = |ip: &Ipv4Addr| all.iter().any(|one| one.address == *ip);
        self.close(|address| !wanted.contains(address) && (replaced || is_elsewhere(address.ip())));
    }

    /// Whether it could be opened.
    fn open(&mut self, address: SocketAddrV4) -> bool {
        let opened = S::bind(address, &mut Given::default());
        let opened = opened.map_err(|failure| failure.to_string());
        let added = opened.and_then(|socket| self.add(socket).map_err(|error| error.to_string()));
        match added {
            Ok(()) => tracing::warn!("{} on {address}, which is ours now", S::NAME),
            Err(why) if !self.refused.contains(&address) => {
                tracing::error!("{why}, or restart cowherd");
                self.refused.push(address);
                return false;
            }
            Err(_) => return false,
        }
        true
    }

    fn close(&mut self, is_over: impl Fn(&SocketAddrV4) -> bool) {
        let mut posted = self.posted.all();
        let over = |(nth, (address, _)): (usize, &(SocketAddrV4, OwnedFd))| {
            is_over(address).then_some((nth, *address))
        };
        let over: Vec<_> = posted.iter().enumerate().filter_map(over).collect();
        for (nth, address) in over.into_iter().rev() {
            tracing::warn!(
                "{} no more on {address}, which is not ours any more",
                S::NAME
            );
            posted.remove(nth);
            self.tasks.remove(nth).abort();
        }
        drop(posted);
        while self.doors.try_join_next().is_some() {}
    }
}

/// Nobody can listen there; `stop` is what helps where another does.
pub(super) fn not_bound<S: Post>(address: SocketAddrV4, error: &io::Error, stop: &str) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => stop,
        io::ErrorKind::PermissionDenied => "start cowherd as root, or choose a port past 1023",
        _ => "name an address of this host",
    };
    let name = S::NAME;
    let message =
        format!("{name} on {address}: {error}; {advice}, or another as `listen` in [{name}]");
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => Failure::not_yet(message),
        _ => Failure::failed(message),
    }
}

/// What `listen` comes to now.
pub(super) fn addresses(listen: &Listen) -> Result<Vec<SocketAddrV4>, Failure> {
    let (network, port) = match listen {
        Listen::At(addresses) => return Ok(addresses.clone()),
        Listen::OnInterfaces(network, port) => (network, *port),
    };
    let all = interface::addresses().map_err(host::no_interfaces)?;
    let mut found = Vec::new();
    for name in &network.interfaces {
        let said = network.address.map(|(address, _)| address);
        let mut of_it = addresses_of(&all, name, network).peekable();
        if of_it.peek().is_none() {
            return Err(host::no_address(name, said));
        }
        found.extend(of_it.map(|address| SocketAddrV4::new(address, port)));
    }
    // Two interfaces may share one.
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The addresses of an interface: the one that the config says, or all.
fn addresses_of<'a>(
    all: &'a [InterfaceAddress],
    name: &'a str,
    network: &NetworkConfig,
) -> impl Iterator<Item = Ipv4Addr> + use<'a> {
    let said = network.address.map(|(address, _)| address);
    let of_it = all.iter().filter(move |one| one.interface == name);
    let meant = of_it.filter(move |one| said.is_none_or(|said| said == one.address));
    meant.map(|one| one.address)
}

#[cfg(test)]
mod tests;
