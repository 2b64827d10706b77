//! The two directions of a session's connection, plain or through TLS.
//!
//! A plain link is its socket and nothing more. With TLS, what comes is decrypted into the buffers
//! of the session, and what goes is encrypted piece by piece, so that neither holds much.
//!
//! Invariants:
//! - One task receives and one sends. The channel that they share is borrowed between two awaits
//!   only, and only the sender takes bytes for the network out of it: they keep their order.
//! - [`Progress::waits`] is told only when nothing that came is left to be read.
//! - Bytes of an image's mapping are not read by the program, so they can't be encrypted: with TLS
//!   a session has all reads copied, see [`Link::copies`].

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::ops::Range;
use std::rc::Rc;

use super::succession::Progress;
use crate::io::{Buffer, Gather, ReceiveBuffer, SendError, Socket, give_way, yield_now};
use crate::limits::{RECEIVES_AT_ONCE, TLS_PIECE};
use crate::tls::{Channel, Reading};

/// A connection of a session. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    socket: Socket,
    progress: Rc<Progress>,
    secured: Option<Rc<Secured>>,
    /// Receives since the last one that the ring made.
    at_once: Cell<u32>,
}

/// What TLS needs besides the socket.
#[derive(Debug)]
struct Secured {
    channel: RefCell<Channel>,
    /// Received and not decrypted yet.
    received: RefCell<ReceiveBuffer>,
    /// A good-bye was sent, or can't be.
    is_closed: Cell<bool>,
}

impl Link {
    /// With TLS, `channel` comes with what was received for it already.
    pub(super) fn new(
        socket: Socket,
        channel: Option<(Channel, Vec<u8>)>,
        progress: Rc<Progress>,
    ) -> Self {
        let secured = channel.map(|(channel, received)| {
            Rc::new(Secured {
                channel: RefCell::new(channel),
                received: RefCell::new(ReceiveBuffer::with_leftover(&received)),
                is_closed: Cell::new(false),
            })
        });
        Self {
            socket,
            progress,
            secured,
            at_once: Cell::new(0),
        }
    }

    /// The channel, where there is one, and what was received for it and not decrypted; the link
    /// itself where others have it too.
    pub(super) fn into_channel(self) -> Result<Option<(Channel, Vec<u8>)>, Self> {
        let Some(secured) = self.secured else {
            return Ok(None);
        };
        match Rc::try_unwrap(secured) {
            Ok(Secured {
                channel, received, ..
            }) => {
                let received = received.into_inner().filled().to_vec();
                Ok(Some((channel.into_inner(), received)))
            }
            Err(secured) => Err(Self {
                secured: Some(secured),
                ..self
            }),
        }
    }

    /// Whether what is sent has to be in memory of our own.
    pub(super) const fn copies(&self) -> bool {
        self.secured.is_some()
    }

    /// As [`Socket::receive`]. A client that `is_busy` has likely sent more when it has what is on
    /// its way to it.
    pub(super) async fn receive(
        &self,
        buffer: ReceiveBuffer,
        is_busy: bool,
    ) -> (io::Result<usize>, ReceiveBuffer) {
        match &self.secured {
            None => self.receive_more(buffer, is_busy).await,
            Some(secured) => {
                let mut buffer = buffer;
                let result = self.receive_secured(secured, &mut buffer).await;
                (result, buffer)
            }
        }
    }

    /// Waits for bytes from the network; for a session that drains the stream has ended.
    async fn receive_more(
        &self,
        mut buffer: ReceiveBuffer,
        is_busy: bool,
    ) -> (io::Result<usize>, ReceiveBuffer) {
        self.progress.waits();
        let is_busy = is_busy && self.at_once.get() < RECEIVES_AT_ONCE;
        if is_busy {
            // To the task that sends.
            give_way().await;
        }
        if self.progress.is_drained() {
            return (Ok(0), buffer);
        }
        let come = is_busy.then(|| self.receive_at_once(&mut buffer));
        let result = match come.flatten() {
            Some(result) => result,
            None => {
                self.at_once.set(0);
                let (result, back) = self.socket.receive(buffer).await;
                buffer = back;
                result
            }
        };
        if let Ok(count) = result {
            self.progress.received(count as u64);
        }
        (result, buffer)
    }

    /// What has come, if there is any: two system calls less than by the ring.
    fn receive_at_once(&self, buffer: &mut ReceiveBuffer) -> Option<io::Result<usize>> {
        self.at_once.set(self.at_once.get() + 1);
        self.socket.try_receive(buffer).transpose()
    }

    async fn receive_secured(
        &self,
        secured: &Secured,
        buffer: &mut ReceiveBuffer,
    ) -> io::Result<usize> {
        loop {
            let spare = buffer.spare();
            if spare.is_empty() {
                return Err(io::Error::new(ErrorKind::InvalidInput, "no room"));
            }
            match secured.channel.borrow_mut().read(spare) {
                Reading::End => return Ok(0),
                Reading::Bytes(count) => {
                    buffer.received(count);
                    return Ok(count);
                }
                Reading::Nothing => {}
            }
            if !self.decrypt_more(secured).await? {
                return Ok(0);
            }
        }
    }

    /// As [`Socket::receive_exact`].
    pub(super) async fn receive_exact(
        &self,
        mut buffer: Buffer,
        range: Range<usize>,
    ) -> (io::Result<()>, Buffer) {
        match &self.secured {
            None => {
                let count = range.len();
                self.progress.waits();
                let (result, buffer) = self.socket.receive_exact(buffer, range).await;
                if result.is_ok() {
                    self.progress.received(count as u64);
                }
                (result, buffer)
            }
            Some(secured) => {
                let result = match buffer.as_mut_slice().get_mut(range) {
                    Some(part) => self.fill_secured(secured, part).await,
                    None => Err(ErrorKind::InvalidInput.into()),
                };
                (result, buffer)
            }
        }
    }

    async fn fill_secured(&self, secured: &Secured, mut part: &mut [u8]) -> io::Result<()> {
        while !part.is_empty() {
            let reading = secured.channel.borrow_mut().read(part);
            match reading {
                Reading::Bytes(count) => {
                    part = part.get_mut(count..).unwrap_or_default();
                    continue;
                }
                Reading::Nothing if self.decrypt_more(secured).await? => {}
                Reading::End | Reading::Nothing => return Err(ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(())
    }

    /// Gives the channel what was received, or receives more of it; false at the end of the stream.
    async fn decrypt_more(&self, secured: &Secured) -> io::Result<bool> {
        let mut received = secured.received.take();
        let taken = secured
            .channel
            .borrow_mut()
            .handle_received(received.filled())
            .map_err(io::Error::other);
        let outcome = match taken {
            Ok(0) => {
                // Nothing is left that could be read without more.
                let (result, back) = self.receive_more(received, false).await;
                received = back;
                result.map(|count| count > 0)
            }
            Ok(count) => {
                received.consume(count);
                Ok(true)
            }
            Err(error) => Err(error),
        };
        secured.received.replace(received);
        outcome
    }

    /// As [`Socket::send`].
    pub(super) async fn send(&self, gather: &mut Gather) -> Result<(), SendError> {
        let Some(secured) = &self.secured else {
            return self.socket.send(gather).await;
        };
        let mut sent = 0;
        let mut piece = Vec::new();
        while !gather.is_empty() {
            piece.clear();
            let copied = gather.take_bytes(TLS_PIECE, &mut piece);
            let source = |_| io::Error::other("bytes of a mapping can't be encrypted");
            copied.map_err(|error| SendError::Connection {
                sent,
                source: source(error),
            })?;
            secured.channel.borrow_mut().write(&piece);
            self.transmit(secured).await?;
            sent += piece.len() as u64;
            // To encrypt takes time of the shard.
            yield_now().await;
        }
        Ok(())
    }

    /// Sends what the channel has for the network.
    async fn transmit(&self, secured: &Secured) -> Result<(), SendError> {
        let mut bytes = Vec::new();
        secured.channel.borrow_mut().poll_transmit(&mut bytes);
        let mut gather = Gather::new();
        gather.push_bytes(bytes);
        self.socket.send(&mut gather).await
    }

    /// Says good-bye, after all has been sent. NBD proto.md, NBD_CMD_DISC: "the server MUST close
    /// down the TLS session (if one is running)".
    pub(super) async fn close(&self) {
        if let Some(secured) = self.secured.as_ref().filter(|link| !link.is_closed.get()) {
            secured.is_closed.set(true);
            secured.channel.borrow_mut().close();
            // Who is gone needs no good-bye.
            let _ = self.transmit(secured).await;
        }
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Ends the connection at once; what waits on it is woken.
    pub(super) fn cut(&self) {
        if let Some(secured) = &self.secured {
            secured.is_closed.set(true);
        }
        // A socket that is closed already is as good.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}
