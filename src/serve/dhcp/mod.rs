//! The DHCP server on its sockets: datagrams to [`crate::dhcp`], its effects to the network and to
//! the lease file. It decides nothing.
//!
//! - `link` has the sockets of an interface, `incoming` receives from them, `places` knows which
//!   interfaces are there and what addresses they have. `probes` has the addresses that are being
//!   looked for, `lease_file` the file, `log` what people are told.
//! - `task` joins them to the core.
//!
//! Invariants:
//! - A reply leaves when all that was to be saved before it is durable.
//! - Neither the disk nor a probe holds up datagrams, but for the replies that wait for them.

mod incoming;
mod lease_file;
mod link;
mod log;
mod places;
mod probes;
mod task;

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::boots::Boots;
use super::holders::Holders;
use super::host;
use super::options::Failure;
use super::takeover::Given;
use super::takeover::wire::Door;
use super::watch::Watch;
use crate::config::{ConfigError, DhcpConfig, OwnNetwork};
use crate::dhcp::boot::Mode;
use crate::dhcp::lease::{Leases, Record};
use crate::dhcp::server::Server;
use crate::dhcp::settings::Settings;
use crate::io::EchoSocket;
use crate::mac::MacAddress;
use crate::name::Name;
use lease_file::LeaseFile;
use link::OpenLink;
use places::Own;

/// The file in the state directory that has the leases.
const LEASES: &str = "leases";

/// DHCP with its sockets open and its leases read, not running yet.
#[derive(Debug)]
pub(super) struct Dhcp {
    links: Vec<OpenLink>,
    /// `None` without the right to raw sockets.
    echo: Option<EchoSocket>,
    config: DhcpConfig,
    settings: Settings,
    records: Vec<Record>,
    file: LeaseFile,
    own: Own,
    words: (mpsc::UnboundedSender<Word>, mpsc::UnboundedReceiver<Word>),
}

impl Dhcp {
    /// Opens the sockets, which takes privileges but for those that are `given`.
    pub(super) fn open(config: &DhcpConfig, given: &mut Given) -> Result<Self, Failure> {
        let mut links = Vec::new();
        for name in config.interfaces() {
            links.push(OpenLink::open(name, config, given)?);
        }
        let echo = given.take(|door, _| *door == Door::Echo);
        let echo = echo.map(|(_, socket)| EchoSocket::passed(socket));
        let own: Vec<_> = links.iter().map(|link| link.own.clone()).collect();
        let settings = config.settings(&own);
        let settings = settings.map_err(|wrong| Failure::usage(wrong.to_string()))?;
        Ok(Self {
            // What it lacks without, the links have told of already.
            echo: echo.or_else(|| EchoSocket::open().ok()),
            links,
            own: Own::new(own),
            config: config.clone(),
            settings,
            records: Vec::new(),
            file: LeaseFile::new(PathBuf::new(), host::boot_id()),
            words: mpsc::unbounded_channel(),
        })
    }

    /// Reads the leases in the state directory, where there are any to give.
    pub(super) fn read_leases(&mut self, state: Option<&Path>) -> Result<(), Failure> {
        let path = match (self.config.mode(), state) {
            (Mode::Proxy, _) => return Ok(()),
            (Mode::Server, Some(state)) => state.join(LEASES),
            (Mode::Server, None) => {
                return Err(Failure::usage(
                    "leases are kept in the state directory, and --read-only has none: take it \
                     out, and say overlay = \"readonly\" in [defaults]",
                ));
            }
        };
        let boot = host::boot_id();
        self.records = lease_file::read(&path, &boot, host::moment())?;
        self.file = LeaseFile::new(path, boot);
        Ok(())
    }

    /// How its settings are changed while it runs.
    pub(super) fn changer(&self) -> Changer {
        Changer {
            config: self.config.clone(),
            own: self.own.clone(),
            words: self.words.0.clone(),
        }
    }

    /// How it is stopped for a while.
    pub(super) fn steward(&self) -> Steward {
        Steward(self.words.0.clone())
    }

    /// Says where it is served.
    pub(super) fn announce(&self, out: &mut impl Write) -> io::Result<()> {
        let what = match self.config.mode() {
            Mode::Server => "dhcp",
            Mode::Proxy => "proxy dhcp",
        };
        for link in &self.links {
            let OwnNetwork {
                interface, address, ..
            } = &link.own;
            writeln!(out, "{what} on {interface} ({address})")?;
        }
        Ok(())
    }

    /// Serves until the tasks are dropped. Inside of a runtime only.
    pub(super) fn start(
        mut self,
        leases: Arc<Holders>,
        (watch, boots): (Arc<Watch>, Arc<Boots>),
    ) -> io::Result<JoinSet<()>> {
        let echo = self.echo.take().map(EchoSocket::watched).transpose()?;
        tell_of_http(&self.config, &self.own.get());
        let records = std::mem::take(&mut self.records);
        let server = Server::new(self.settings.clone(), Leases::recovered(records));
        task::start(self, echo, server, leases, (watch, boots))
    }
}

/// Machines that boot by HTTP ask for it in the same way, whether there is any or not.
fn tell_of_http(config: &DhcpConfig, own: &[OwnNetwork]) {
    for OwnNetwork {
        interface, address, ..
    } in own
    {
        if !config.has_http_at(*address) {
            tracing::info!(
                "dhcp on {interface}: no [http] serves {address}, so UEFI HTTP boot gets no file \
                 but a URI of the config"
            );
        }
    }
}

/// What is gone by from now on.
#[derive(Debug)]
pub(super) struct Change {
    config: DhcpConfig,
    settings: Settings,
}

/// What a running server is told.
#[derive(Debug)]
enum Word {
    /// Go by this from now on.
    Change(Box<Change>),
    /// Tell of all sockets.
    Share(oneshot::Sender<io::Result<Vec<(Door, OwnedFd)>>>),
    /// Answer nobody any more; say when all that was promised is durable and said.
    Rest(oneshot::Sender<()>),
    /// Tell of all leases.
    Leases(oneshot::Sender<Vec<Lease>>),
    /// End the lease of an address; say whether there was one.
    Forget(Ipv4Addr, oneshot::Sender<bool>),
    /// Answer again. The leases may have changed meanwhile.
    GoOn { leases_changed: bool },
}

/// A lease that a machine has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) address: Ipv4Addr,
    pub(super) mac: MacAddress,
    /// Its name in the config.
    pub(super) name: Option<Name>,
    pub(super) left: Duration,
}

/// Speaks with a running server: stops it for a while, for another that takes over, and asks for
/// its leases.
#[derive(Clone, Debug)]
pub(super) struct Steward(mpsc::UnboundedSender<Word>);

impl Steward {
    /// The sockets once more.
    pub(super) async fn share(&self) -> io::Result<Vec<(Door, OwnedFd)>> {
        let (answer, shared) = oneshot::channel();
        // A server that is gone has none.
        let _ = self.0.send(Word::Share(answer));
        shared.await.unwrap_or_else(|_| Ok(Vec::new()))
    }

    /// Has it answer nobody any more, and waits until all that it promised is durable. What comes
    /// meanwhile waits in the kernel.
    pub(super) async fn rest(&self) {
        let (answer, rests) = oneshot::channel();
        // A server that is gone rests.
        let _ = self.0.send(Word::Rest(answer));
        let _ = rests.await;
    }

    /// All leases, by their addresses.
    pub(super) async fn leases(&self) -> Vec<Lease> {
        let (answer, leases) = oneshot::channel();
        // A server that is gone has none.
        let _ = self.0.send(Word::Leases(answer));
        leases.await.unwrap_or_default()
    }

    /// Ends the lease of an address, whatever its machine thinks; whether there was one.
    pub(super) async fn forget(&self, address: Ipv4Addr) -> bool {
        let (answer, forgotten) = oneshot::channel();
        let _ = self.0.send(Word::Forget(address, answer));
        forgotten.await.unwrap_or_default()
    }

    /// Has it answer again.
    pub(super) fn go_on(&self, leases_changed: bool) {
        // A server that is gone is going down.
        let _ = self.0.send(Word::GoOn { leases_changed });
    }
}

/// Changes the settings of a running server.
#[derive(Clone, Debug)]
pub(super) struct Changer {
    config: DhcpConfig,
    own: Own,
    words: mpsc::UnboundedSender<Word>,
}

impl Changer {
    /// What a config means on the interfaces that DHCP is served on; `None` where it is of others,
    /// which takes a restart.
    pub(super) fn change(&self, config: &DhcpConfig) -> Result<Option<Change>, ConfigError> {
        if !self.config.is_where(config) {
            return Ok(None);
        }
        let own = self.own.get();
        let (config, settings) = (config.clone(), config.settings(&own)?);
        tell_of_http(&config, &own);
        Ok(Some(Change { config, settings }))
    }

    /// Goes by it from now on.
    pub(super) fn change_to(&self, change: Change) {
        // Without the other end the server is going down.
        let _ = self.words.send(Word::Change(Box::new(change)));
    }
}
