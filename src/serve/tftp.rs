//! TFTP on its sockets: requests come in on the well-known port, and each transfer gets a socket of
//! its own.
//!
//! Invariants:
//! - A transfer answers from the address that its request was sent to.
//! - A transfer's socket is connected, so it hears its own client and nobody else.
//! - Disks are asked beside the runtime: one that is slow holds up its own transfer only.
//! - There are at most so many transfers, in all and to one address; who comes too late is told.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use tokio::task::JoinSet;

use super::blocking::in_turn;
use super::gate::Gate;
use super::options::Failure;
use super::posts::{self, Opened, Post};
use super::takeover::Given;
use super::takeover::wire::Door as PassedDoor;
use super::tree::{Ends, Tree};
use crate::boot::menu::Transport;
use crate::io::{Batch, DatagramSocket, Datagrams, Envelope};
use crate::status::FileStep;
use crate::tftp::name::path_of;
use crate::tftp::transfer::Outcome;
use crate::tftp::wire::{self, ErrorCode, Mode, Packet, Request};
use sender::{Line, Sender};
use source::Source;
use transfers::Transfers;

mod sender;
mod source;
mod transfers;

/// TFTP, for as long as it lives.
#[derive(Debug)]
pub(super) struct Tftp {
    _doors: JoinSet<()>,
    /// Shared with what the doors have in common, and with all transfers.
    busy: Arc<()>,
}

impl Tftp {
    /// Begins to serve. Inside of a runtime only.
    pub(super) fn start(
        opened: Opened<DatagramSocket>,
        tree: &Arc<Tree>,
        gate: &Gate,
    ) -> io::Result<Self> {
        let busy = Arc::new(());
        let (of_doors, tree, door_gate) = (Arc::clone(&busy), Arc::clone(tree), gate.clone());
        let _doors = opened.start(gate, move |socket: DatagramSocket| {
            let door = Door {
                socket: socket.watched()?,
                gate: door_gate.clone(),
                tree: Arc::clone(&tree),
                transfers: Transfers::default(),
                busy: Arc::downgrade(&of_doors),
            };
            Ok(Box::pin(door.run()))
        })?;
        Ok(Self { _doors, busy })
    }

    /// Whether no transfer is under way.
    pub(super) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.busy) <= 2
    }
}

impl Post for DatagramSocket {
    const NAME: &'static str = "tftp";
    const DOOR: PassedDoor = PassedDoor::Tftp;

    fn bind(address: SocketAddrV4, given: &mut Given) -> Result<Self, Failure> {
        if let Some(socket) = given.datagrams(&PassedDoor::Tftp, address) {
            return Ok(socket);
        }
        let bind = |shares| Self::bind_to(address, shares);
        let bound = given.beside(&PassedDoor::Tftp, address.port(), bind);
        bound.map_err(|error| {
            posts::not_bound::<Self>(
                address,
                &error,
                "stop the other TFTP server (dnsmasq, tftpd)",
            )
        })
    }

    fn address(&self) -> io::Result<SocketAddrV4> {
        Self::address(self)
    }

    fn share(&self) -> io::Result<OwnedFd> {
        Self::share(self)
    }
}

/// One well-known port.
struct Door {
    socket: Datagrams,
    gate: Gate,
    tree: Arc<Tree>,
    transfers: Transfers,
    /// What every transfer has, so that they can be counted.
    busy: Weak<()>,
}

impl Door {
    async fn run(mut self) {
        let mut batch = Batch::default();
        loop {
            tokio::select! {
                ready = self.gate.pass(|| self.socket.readable()) => {
                    if ready.is_err() {
                        return;
                    }
                }
                Some(ended) = self.transfers.next() => {
                    if let Some((envelope, request)) = self.transfers.forget(&ended) {
                        self.take(envelope, &request);
                    }
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
            Ok(Packet::Read(_)) if self.transfers.is_under_way(envelope, bytes) => return,
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
                if !wire::is_read_request(bytes) {
                    return;
                }
                Refusal(ErrorCode::ILLEGAL, "this is no request")
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
        let busy = self.busy.upgrade();
        self.transfers.begin(client, bytes.to_vec(), async move {
            let _busy = busy;
            let opened = open(&tree, ends, &path, mode).await;
            match Line::between(envelope.to, client).await {
                Ok(line) => {
                    let (outcome, step) = serve(line, &path, opened, &owned).await?;
                    tree.note(ends, &path, step);
                    outcome
                }
                Err(error) => {
                    tracing::warn!("tftp: {client}: no socket: {error}");
                    None
                }
            }
        });
    }
}

/// An error for a client, and its reason.
struct Refusal(ErrorCode, &'static str);

/// Opens a file for a transfer.
async fn open(tree: &Arc<Tree>, ends: Ends, path: &str, mode: Mode) -> io::Result<Option<Source>> {
    let Some(content) = tree.open(ends, path).await? else {
        return Ok(None);
    };
    in_turn(move || Source::new(content, mode)).await.map(Some)
}

/// Serves one request on its own line.
async fn serve(
    line: Line,
    path: &str,
    opened: io::Result<Option<Source>>,
    request: &[u8],
) -> Option<(Option<Outcome>, FileStep)> {
    let client = line.client();
    let refusal = match opened {
        Ok(Some(source)) => {
            let Ok(Packet::Read(request)) = Packet::read(request) else {
                return None;
            };
            return Some(Sender::new(line, source, &request).run(path).await);
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
