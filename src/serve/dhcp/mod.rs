//! The DHCP server on its sockets: datagrams to [`crate::dhcp`], its effects to the network and to
//! the lease file. It decides nothing.
//!
//! - `link` has the sockets of an interface, `probes` the addresses that are being looked for,
//!   `lease_file` the file, `log` what people are told.
//! - `task` joins them to the core.
//!
//! Invariants:
//! - A reply leaves when all that was to be saved before it is durable.
//! - Neither the disk nor a probe holds up datagrams, but for the replies that wait for them.

mod lease_file;
mod link;
mod log;
mod probes;
mod task;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::holders::Holders;
use super::host;
use super::options::Failure;
use crate::config::{ConfigError, DhcpConfig, OwnNetwork};
use crate::dhcp::boot::Mode;
use crate::dhcp::lease::{Leases, Record};
use crate::dhcp::server::Server;
use crate::dhcp::settings::Settings;
use crate::io::EchoSocket;
use lease_file::LeaseFile;
use link::OpenLink;

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
    replace: (
        mpsc::UnboundedSender<Settings>,
        mpsc::UnboundedReceiver<Settings>,
    ),
}

impl Dhcp {
    /// Opens the sockets, which takes privileges.
    pub(super) fn open(config: &DhcpConfig) -> Result<Self, Failure> {
        let links = config.interfaces().map(|name| OpenLink::open(name, config));
        let links = links.collect::<Result<Vec<_>, _>>()?;
        let own: Vec<_> = links.iter().map(|link| link.own.clone()).collect();
        let settings = config.settings(&own);
        let settings = settings.map_err(|wrong| Failure::usage(wrong.to_string()))?;
        Ok(Self {
            // What it lacks without, the links have told of already.
            echo: EchoSocket::open().ok(),
            links,
            config: config.clone(),
            settings,
            records: Vec::new(),
            file: LeaseFile::new(PathBuf::new(), host::boot_id()),
            replace: mpsc::unbounded_channel(),
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
            own: self.links.iter().map(|link| link.own.clone()).collect(),
            settings: self.replace.0.clone(),
        }
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
    pub(super) fn start(self, leases: Arc<Holders>) -> io::Result<JoinSet<()>> {
        let links = self.links.into_iter().map(OpenLink::watched);
        let links = links.collect::<io::Result<Vec<_>>>()?;
        let echo = self.echo.map(EchoSocket::watched).transpose()?;
        let server = Server::new(self.settings, Leases::recovered(self.records));
        Ok(task::start(
            links,
            echo,
            server,
            self.file,
            self.replace.1,
            leases,
        ))
    }
}

/// Changes the settings of a running server.
#[derive(Clone, Debug)]
pub(super) struct Changer {
    config: DhcpConfig,
    own: Vec<OwnNetwork>,
    settings: mpsc::UnboundedSender<Settings>,
}

impl Changer {
    /// What a config means on the interfaces that DHCP is served on; `None` where it is of others,
    /// which takes a restart.
    pub(super) fn settings(&self, config: &DhcpConfig) -> Result<Option<Settings>, ConfigError> {
        let is_same = self.config.is_where(config);
        is_same.then(|| config.settings(&self.own)).transpose()
    }

    /// Goes by these from now on.
    pub(super) fn change_to(&self, settings: Settings) {
        // Without the other end the server is going down.
        let _ = self.settings.send(settings);
    }
}
