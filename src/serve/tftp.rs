//! TFTP on its sockets: requests come in on the well-known port, and each transfer gets a socket of
//! its own.
//!
//! Invariants:
//! - A transfer answers from the address that its request was sent to.
//! - A transfer's socket is connected, so it hears its own client and nobody else.
//! - Disks are asked beside the runtime: one that is slow holds up its own transfer only.
//! - There are at most so many transfers, in all and to one address; who comes too late is told.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::herd::Herd;
use super::options::Failure;
use super::tree::{Ends, Tree, blocking};
use crate::boot::files::Files;
use crate::boot::menu::Transport;
use crate::config::TftpConfig;
use crate::io::{Batch, DatagramSocket, Datagrams, Envelope};
use crate::limits::{TFTP_BLOCK_MAX, TFTP_TRANSFERS_MAX, TFTP_TRANSFERS_PER_ADDRESS_MAX};
use crate::status::FileStep;
use crate::tftp::name::path_of;
use crate::tftp::wire::{self, ErrorCode, Mode, Packet, Request};
use sender::{Line, Sender};
use source::Source;

mod sender;
mod source;

/// What TFTP needs, opened, and nothing served yet.
#[derive(Debug)]
pub(super) struct Opened {
    sockets: Vec<DatagramSocket>,
    files: Option<Files>,
}

/// TFTP, for as long as it lives.
#[derive(Debug)]
pub(super) struct Tftp {
    _doors: JoinSet<()>,
}

impl Opened {
    /// Opens the sockets, for which privileges may be needed, and the directory.
    pub(super) fn open(config: &TftpConfig) -> Result<Self, Failure> {
        let files = config.root.as_deref().map(below).transpose()?;
        let sockets = config.listen.iter().map(|&address| bind(address));
        Ok(Self {
            sockets: sockets.collect::<Result<_, _>>()?,
            files,
        })
    }

    /// Says where files are found.
    pub(super) fn announce(&self, out: &mut impl Write) -> io::Result<()> {
        for socket in &self.sockets {
            writeln!(out, "tftp on {}", socket.address()?)?;
        }
        Ok(())
    }

    /// Begins to serve. Inside of a runtime only.
    pub(super) fn start(self, herd: Arc<Herd>, port: u16) -> io::Result<Tftp> {
        let tree = Arc::new(Tree::new(self.files, herd, port));
        let mut doors = JoinSet::new();
        for socket in self.sockets {
            let door = Door {
                socket: socket.watched()?,
                tree: Arc::clone(&tree),
                transfers: Transfers::default(),
            };
            doors.spawn(door.run());
        }
        Ok(Tftp { _doors: doors })
    }
}

fn below(root: &Path) -> Result<Files, Failure> {
    Files::below(root).map_err(|error| {
        let root = root.display();
        let advice = "name a directory that this user can read as `root` in [tftp]";
        Failure::failed(format!("files of TFTP, {root}: {error}; {advice}"))
    })
}

fn bind(address: SocketAddrV4) -> Result<DatagramSocket, Failure> {
    DatagramSocket::bind_to(address).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => "stop the other TFTP server (dnsmasq, tftpd)",
            io::ErrorKind::PermissionDenied => "start cowherd as root, or choose a port past 1023",
            _ => "name an address of this host",
        };
        let what = "as `listen` in [tftp]";
        Failure::failed(format!(
            "tftp on {address}: {error}; {advice}, or another {what}"
        ))
    })
}

/// One well-known port.
struct Door {
    socket: Datagrams,
    tree: Arc<Tree>,
    transfers: Transfers,
}

/// The transfers that go on, by their clients.
#[derive(Default)]
struct Transfers {
    tasks: JoinSet<()>,
    by_client: HashMap<SocketAddrV4, Active>,
}

struct Active {
    task: AbortHandle,
    request: Vec<u8>,
}

impl Door {
    async fn run(mut self) {
        let mut batch = Batch::default();
        loop {
            tokio::select! {
                ready = self.socket.readable() => {
                    if ready.is_err() {
                        return;
                    }
                }
                Some(ended) = self.transfers.tasks.join_next_with_id() => {
                    self.transfers.forget(&ended);
                    continue;
                }
            }
            match self.socket.receive(&mut batch) {
                Ok(()) => batch.iter().for_each(|(envelope, bytes)| {
                    self.take(envelope, bytes);
                }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => tracing::warn!("tftp: a request could not be received: {error}"),
            }
        }
    }

    fn take(&mut self, envelope: Envelope, bytes: &[u8]) {
        let client = envelope.from;
        let refusal = match Packet::read(bytes) {
            Ok(Packet::Read(_)) if self.transfers.is_under_way(client, bytes) => return,
            Ok(Packet::Read(request)) => match self.transfers.make_room(client) {
                Ok(()) => return self.begin(envelope, &request, bytes),
                Err(full) => {
                    tracing::warn!("tftp: {client}: refused, {full}");
                    Refusal(ErrorCode::UNDEFINED, full)
                }
            },
            Ok(Packet::Write) => Refusal(ErrorCode::ACCESS, "nothing can be written here"),
            // Who sends these here has mistaken the port, or is the echo of somebody: no answer.
            Ok(Packet::Ack(_) | Packet::Error(..) | Packet::OfServer) => return,
            Err(malformed) => {
                tracing::debug!("tftp: {client}: {malformed}");
                return;
            }
        };
        self.refuse(envelope, &refusal);
    }

    fn refuse(&self, envelope: Envelope, Refusal(code, why): &Refusal) {
        // One that gets lost is asked for again.
        let _ = self
            .socket
            .send(&wire::error(*code, why), envelope.to, envelope.from);
    }

    fn begin(&mut self, envelope: Envelope, request: &Request<'_>, bytes: &[u8]) {
        let client = envelope.from;
        let path = match path_of(request.name) {
            Ok(path) => path,
            Err(bad) => {
                tracing::info!("tftp: {client}: {bad}");
                return self.refuse(envelope, &Refusal(ErrorCode::ACCESS, "no such name"));
            }
        };
        let (tree, owned) = (Arc::clone(&self.tree), bytes.to_vec());
        let mode = request.mode;
        let ends = Ends {
            own: envelope.to,
            client: *client.ip(),
            via: Transport::Tftp,
        };
        let task = self.transfers.tasks.spawn(async move {
            let opened = open(&tree, ends, &path, mode).await;
            let line = Line::between(envelope.to, client).await;
            match line {
                Ok(line) => {
                    let sent = serve(line, &path, opened, &owned).await;
                    sent.into_iter()
                        .for_each(|step| tree.note(ends, &path, step));
                }
                Err(error) => tracing::warn!("tftp: {client}: no socket: {error}"),
            }
        });
        let request = bytes.to_vec();
        self.transfers
            .by_client
            .insert(client, Active { task, request });
    }
}

/// An error for a client, and its reason.
struct Refusal(ErrorCode, &'static str);

impl Transfers {
    /// Whether a request is a copy of one that is being served: what was sent may have been lost,
    /// and its transfer sends it again in time.
    fn is_under_way(&self, client: SocketAddrV4, request: &[u8]) -> bool {
        let active = self.by_client.get(&client);
        active.is_some_and(|active| active.request == request && !active.task.is_finished())
    }

    /// Makes room for another transfer of `client`, which has given up its last one.
    fn make_room(&mut self, client: SocketAddrV4) -> Result<(), &'static str> {
        if let Some(last) = self.by_client.remove(&client) {
            last.task.abort();
        }
        let of_address = |address: &Ipv4Addr| {
            let same = self.by_client.keys().filter(|other| other.ip() == address);
            same.count()
        };
        if self.by_client.len() >= TFTP_TRANSFERS_MAX {
            return Err("too many transfers");
        }
        if of_address(client.ip()) >= TFTP_TRANSFERS_PER_ADDRESS_MAX {
            return Err("too many transfers to this address");
        }
        Ok(())
    }

    /// A task has ended. One that was cut short for another has no entry any more.
    fn forget(&mut self, ended: &Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        self.by_client.retain(|_, active| active.task.id() != id);
    }
}

/// Opens a file for a transfer.
async fn open(tree: &Arc<Tree>, ends: Ends, path: &str, mode: Mode) -> io::Result<Option<Source>> {
    let Some(content) = tree.open(ends, path).await? else {
        return Ok(None);
    };
    blocking(move || Source::new(content, mode)).await.map(Some)
}

/// Serves one request on its own line.
async fn serve(
    line: Line,
    path: &str,
    opened: io::Result<Option<Source>>,
    request: &[u8],
) -> Option<FileStep> {
    let client = line.client();
    let refusal = match opened {
        Ok(Some(source)) => {
            if let Ok(Packet::Read(request)) = Packet::read(request) {
                let sender = Sender::new(line, source, &request, TFTP_BLOCK_MAX);
                return Some(sender.run(path).await);
            }
            return None;
        }
        Ok(None) => {
            tracing::info!("tftp: {client}: {path}: there is no such file");
            Refusal(ErrorCode::NOT_FOUND, "no such file")
        }
        Err(error) => {
            tracing::warn!("tftp: {client}: {path}: {error}");
            Refusal(ErrorCode::ACCESS, "it can't be read")
        }
    };
    let Refusal(code, why) = refusal;
    line.send(&wire::error(code, why)).await;
    None
}
