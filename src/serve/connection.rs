//! A connection from accept to the end of its handshake, on the control plane.
//!
//! Invariants: a client that does not come to the point in time is closed; a volume that was opened
//! for a handshake is given up if the handshake does not end well.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::catalog::{self, Refused};
use super::control::note_client;
use super::herd::{Herd, Opened};
use super::host;
use super::offer::Offer;
use super::seats::Seat;
use super::shard::{Accepted, Standing};
use crate::access::{Caller, Peer, Secured};
use crate::limits::HANDSHAKE_TIME;
use crate::nbd::agreed::Agreed;
use crate::nbd::handshake::{End, Event, Handshake};
use crate::nbd::{Described, ExportInfo, Refusal};
use crate::status::Event as Seen;
use crate::tls::TlsError;
use wire::Wire;

mod wire;

/// A stream that can be taken from the control plane to a shard.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The bare descriptor.
    fn into_descriptor(self) -> std::io::Result<OwnedFd>;
}

impl Stream for TcpStream {
    fn into_descriptor(self) -> std::io::Result<OwnedFd> {
        Ok(self.into_std()?.into())
    }
}

impl Stream for UnixStream {
    fn into_descriptor(self) -> std::io::Result<OwnedFd> {
        Ok(self.into_std()?.into())
    }
}

/// Why a handshake ended without a session.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("the client took more than {} seconds to choose an export", HANDSHAKE_TIME.as_secs())]
    Slow,
    #[error(
        "{0:?} could not be opened in {seconds} seconds: `cowherd overlay` works on its overlay, \
         or the disk of the state directory does not answer",
        seconds = HANDSHAKE_TIME.as_secs()
    )]
    NotOpened(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{0}")]
    Violation(crate::nbd::handshake::Violation),
    /// Nothing to say: it aborted, or was refused and told so.
    #[error("the client left")]
    Left,
}

/// Leads one connection through its handshake and hands it to the shard of its volume.
pub(super) async fn run(
    herd: Arc<Herd>,
    stream: impl Stream,
    caller: Caller,
    seat: Seat,
    label: String,
) {
    let (watch, peer) = (Arc::clone(herd.watch()), address_of(&caller.peer));
    let mut guided = Guide::new(herd, stream, caller, seat, label.clone());
    let outcome = match tokio::time::timeout(HANDSHAKE_TIME, guided.lead()).await {
        Ok(Ok((info, agreed))) => guided.hand_over(info, agreed),
        Ok(Err(failed)) => Err(failed),
        Err(_) => Err(guided.opening.map_or(Failed::Slow, Failed::NotOpened)),
    };
    match outcome {
        Ok(()) | Err(Failed::Left) => {}
        Err(Failed::Io(error)) => tracing::debug!("{label}: {error}"),
        Err(failed) => {
            if let Some(address) = peer {
                watch.note_at(address, &Seen::Refused(failed.to_string()));
            }
            tracing::warn!("{label}: {failed}");
        }
    }
}

struct Guide<S> {
    herd: Arc<Herd>,
    /// NBD proto.md, NBD_OPT_GO: "The server MUST return the same values with an NBD_OPT_GO sent
    /// with the same parameters as an NBD_OPT_INFO", so the config may not change in between.
    offer: Arc<Offer>,
    wire: Wire<S>,
    caller: Caller,
    seat: Seat,
    label: String,
    handshake: Handshake,
    received: Vec<u8>,
    /// What is being opened: the client waits for us, and not we for it.
    opening: Option<String>,
    opened: Option<Opened>,
}

impl<S: Stream> Guide<S> {
    fn new(herd: Arc<Herd>, stream: S, caller: Caller, seat: Seat, label: String) -> Self {
        let offer = herd.offer();
        let handshake = Handshake::new().with_tls(offer.upgrade.mode);
        Self {
            herd,
            offer,
            wire: Wire::new(stream),
            caller,
            seat,
            label,
            handshake,
            received: Vec::new(),
            opening: None,
            opened: None,
        }
    }

    /// Leads it to what was agreed on.
    async fn lead(&mut self) -> Result<(ExportInfo, Agreed), Failed> {
        loop {
            let taken = self.handshake.handle_bytes(&self.received);
            self.received.drain(..taken);
            while let Some(bytes) = self.handshake.poll_transmit() {
                self.wire.send(&bytes).await?;
            }
            match self.handshake.poll_event() {
                Some(Event::Finished(info, agreed)) => return Ok((info, agreed)),
                Some(Event::Closed(end)) => return Err(self.close(end).await),
                Some(Event::StartTls) => self.start_tls().await?,
                Some(event) => self.answer(event).await,
                None => self.wire.receive(&mut self.received).await?,
            }
        }
    }

    async fn start_tls(&mut self) -> Result<(), Failed> {
        // The handshake tells of this only where it was told that there are credentials.
        let credentials = self.offer.upgrade.credentials.as_ref();
        let credentials = credentials.ok_or(Failed::Left)?;
        let channel = credentials.accept()?;
        let channel = self.wire.start_tls(channel, &mut self.received).await?;
        let certificate = channel.certificate_name()?;
        self.caller.tls = Some(Secured { certificate });
        self.handshake.handle_tls_started();
        Ok(())
    }

    async fn answer(&mut self, event: Event) {
        match event {
            Event::List => {
                let listing = catalog::listing(&self.offer, &self.caller);
                let listing = listing.map_err(|refused| self.refuse("the list", refused));
                self.handshake.handle_listing(&listing);
            }
            Event::Describe { name } => {
                let described = self.herd.describe(&self.offer, &name, &self.caller);
                let described = described.map_err(|refused| self.refuse_export(&name, refused));
                self.handshake.handle_described(described);
            }
            Event::Open { name } => {
                let opened = self.open(&name).await;
                let opened = opened.map_err(|refused| self.refuse_export(&name, refused));
                self.handshake.handle_opened(opened);
            }
            Event::Finished(..) | Event::Closed(_) | Event::StartTls => {}
        }
    }

    async fn open(&mut self, name: &str) -> Result<Described, Refused> {
        if let Some(address) = self.address() {
            let seen = Seen::Opens(name.to_owned());
            self.herd.watch().note_at(address, &seen);
        }
        self.opening = Some(name.to_owned());
        let opened = self.herd.open(&self.offer, name, &self.caller).await;
        self.opening = None;
        let opened = opened?;
        let described = opened.described.clone();
        self.opened = Some(opened);
        Ok(described)
    }

    fn refuse_export(&self, name: &str, refused: Refused) -> Refusal {
        // The name is the client's: shown with escapes, so that it can't forge a line.
        self.refuse(&format!("export {name:?}"), refused)
    }

    fn refuse(&self, what: &str, refused: Refused) -> Refusal {
        tracing::warn!("{}: {what} refused: {}", self.label, refused.reason);
        if let Some(address) = self.address() {
            let why = format!("{what} was refused: {}", refused.reason);
            self.herd.watch().note_at(address, &Seen::Refused(why));
        }
        refused.refusal
    }

    fn hand_over(self, info: ExportInfo, agreed: Agreed) -> Result<(), Failed> {
        let address = self.address();
        let Some(opened) = self.opened else {
            return Err(Failed::Left);
        };
        let Self {
            wire,
            mut seat,
            received: leftover,
            label: peer,
            ..
        } = self;
        let (socket, channel) = wire.into_parts()?;
        seat.shook_hands();
        if let Some(overlay) = opened.overlay {
            let peer = peer.clone();
            tokio::task::spawn_blocking(move || note_client(&overlay, peer, host::now()));
        }
        opened.shard.serve(
            opened.lease,
            Accepted {
                socket,
                standing: Standing {
                    channel: channel.map(|channel| (channel, Vec::new())),
                    seat,
                    leftover,
                    info,
                    agreed,
                    peer,
                    address,
                    is_successor: true,
                    goes_on: false,
                },
            },
        );
        Ok(())
    }

    const fn address(&self) -> Option<IpAddr> {
        address_of(&self.caller.peer)
    }

    async fn close(&mut self, end: End) -> Failed {
        self.wire.close().await;
        match end {
            End::Aborted | End::Refused => Failed::Left,
            End::Violation(violation) => Failed::Violation(violation),
        }
    }
}

pub(super) const fn address_of(peer: &Peer) -> Option<IpAddr> {
    match peer {
        Peer::Ip(address) => Some(address.to_canonical()),
        Peer::Local => None,
    }
}
