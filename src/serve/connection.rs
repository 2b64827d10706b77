//! A connection from accept to the end of its handshake, on the control plane.
//!
//! Invariants: a client that does not come to the point in time is closed; a volume that was opened
//! for a handshake is given up if the handshake does not end well.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::catalog::Refused;
use super::control::note_client;
use super::herd::{Herd, Opened};
use super::host;
use super::shard::Accepted;
use crate::access::Caller;
use crate::limits::HANDSHAKE_TIME;
use crate::nbd::agreed::Agreed;
use crate::nbd::handshake::{End, Event, Handshake};
use crate::nbd::{ExportInfo, Refusal};

/// Bytes that one read of a handshake takes at most.
const READ_BYTES: usize = 16 * 1024;

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
    #[error("{0}")]
    Violation(crate::nbd::handshake::Violation),
    /// Nothing to say: it aborted, or was refused and told so.
    #[error("the client left")]
    Left,
}

/// Leads one connection through its handshake and hands it to the shard of its volume.
pub(super) async fn run(herd: Arc<Herd>, stream: impl Stream, caller: Caller, label: String) {
    let guided = Guide::new(herd, stream, caller, label.clone());
    let outcome = match tokio::time::timeout(HANDSHAKE_TIME, guided.run()).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failed::Slow),
    };
    match outcome {
        Ok(()) | Err(Failed::Left) => {}
        Err(Failed::Io(error)) => tracing::debug!("{label}: {error}"),
        Err(failed) => tracing::warn!("{label}: {failed}"),
    }
}

struct Guide<S> {
    herd: Arc<Herd>,
    stream: S,
    caller: Caller,
    label: String,
    handshake: Handshake,
    received: Vec<u8>,
    opened: Option<Opened>,
}

impl<S: Stream> Guide<S> {
    fn new(herd: Arc<Herd>, stream: S, caller: Caller, label: String) -> Self {
        let handshake = Handshake::new();
        Self {
            herd,
            stream,
            caller,
            label,
            handshake,
            received: Vec::new(),
            opened: None,
        }
    }

    async fn run(mut self) -> Result<(), Failed> {
        loop {
            let taken = self.handshake.handle_bytes(&self.received);
            self.received.drain(..taken);
            while let Some(bytes) = self.handshake.poll_transmit() {
                self.stream.write_all(&bytes).await?;
            }
            match self.handshake.poll_event() {
                Some(Event::Finished(info, agreed)) => return self.hand_over(info, agreed),
                Some(Event::Closed(end)) => return Err(self.close(end).await),
                Some(event) => self.answer(event).await,
                None => self.receive().await?,
            }
        }
    }

    async fn receive(&mut self) -> Result<(), Failed> {
        let mut bytes = [0; READ_BYTES];
        match self.stream.read(&mut bytes).await? {
            0 => Err(Failed::Left),
            count => {
                self.received
                    .extend_from_slice(bytes.get(..count).unwrap_or_default());
                Ok(())
            }
        }
    }

    async fn answer(&mut self, event: Event) {
        match event {
            Event::List => {
                let listing = self.herd.listing(&self.caller);
                let listing = listing.map_err(|refused| self.refuse("the list", refused));
                self.handshake.handle_listing(&listing);
            }
            Event::Describe { name } => {
                let described = self.herd.describe(&name, &self.caller);
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

    async fn open(&mut self, name: &str) -> Result<ExportInfo, Refused> {
        let opened = self.herd.open(name, &self.caller).await?;
        let info = opened.info;
        self.opened = Some(opened);
        Ok(info)
    }

    fn refuse_export(&self, name: &str, refused: Refused) -> Refusal {
        // The name is the client's: shown with escapes, so that it can't forge a line.
        self.refuse(&format!("export {name:?}"), refused)
    }

    fn refuse(&self, what: &str, refused: Refused) -> Refusal {
        tracing::warn!("{}: {what} refused: {}", self.label, refused.reason);
        refused.refusal
    }

    fn hand_over(self, info: ExportInfo, agreed: Agreed) -> Result<(), Failed> {
        let Some(opened) = self.opened else {
            return Err(Failed::Left);
        };
        let socket = self.stream.into_descriptor()?;
        let Self {
            received: leftover,
            label: peer,
            ..
        } = self;
        if let Some(overlay) = opened.overlay {
            let peer = peer.clone();
            tokio::task::spawn_blocking(move || note_client(&overlay, peer, host::now()));
        }
        opened.shard.serve(
            opened.lease,
            Accepted {
                socket,
                leftover,
                info,
                agreed,
                peer,
            },
        );
        Ok(())
    }

    async fn close(&mut self, end: End) -> Failed {
        // What was queued is out; a client that is gone does not mind.
        let _ = self.stream.shutdown().await;
        match end {
            End::Aborted | End::Refused => Failed::Left,
            End::Violation(violation) => Failed::Violation(violation),
        }
    }
}
