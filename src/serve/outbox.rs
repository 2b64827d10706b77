//! The replies of one session on their way out, and what they hold until they are.
//!
//! Invariants:
//! - Replies leave in the order in which they were pushed, each whole: header, then pieces.
//! - Every request that was counted in is counted out once: when its reply has been sent, or when
//!   it never will be.
//! - Only [`Outbox::send_all`] writes to the socket.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use super::budget::Budget;
use super::link::Link;
use super::memory::{SessionMemory, ShardMemory, Since};
use super::reply::{Part, Reply};
use super::succession::Progress;
use crate::export::{Piece, Volume};
use crate::io::{Gather, OutOfRange, SendError};
use crate::limits::SESSION_REQUESTS_MAX;

/// Replies that go out together.
#[derive(Debug, Default)]
struct Batch {
    gather: Gather,
    requests: u64,
    bytes: u64,
}

/// The sending half of a session.
#[derive(Debug)]
pub(super) struct Outbox {
    link: Link,
    volume: Rc<Volume>,
    pending: RefCell<Batch>,
    /// Something is pending, or the session ends.
    wake: Notify,
    requests: Budget,
    memory: SessionMemory,
    sending: Since,
    progress: Rc<Progress>,
    closing: Cell<bool>,
    broken: Cell<bool>,
}

impl Outbox {
    pub(super) fn new(
        link: Link,
        volume: Rc<Volume>,
        memory: Rc<ShardMemory>,
        progress: Rc<Progress>,
    ) -> Self {
        Self {
            link,
            volume,
            pending: RefCell::default(),
            wake: Notify::new(),
            requests: Budget::new(SESSION_REQUESTS_MAX as u64),
            memory: SessionMemory::new(memory),
            sending: Since::default(),
            progress,
            closing: Cell::new(false),
            broken: Cell::new(false),
        }
    }

    /// Counts a request in that may hold `bytes` of memory, once there is room for it.
    pub(super) async fn admit(&self, bytes: u64) {
        self.requests.take(1).await;
        if bytes > 0 {
            self.memory.take(bytes).await;
        }
    }

    /// Waits until a request that turns out to hold memory may be admitted with none.
    pub(super) async fn wait_for_room(&self) {
        self.memory.wait_for_room().await;
    }

    /// Charges memory that turned out to be held, beyond what was admitted.
    pub(super) fn charge(&self, bytes: u64) {
        self.memory.charge(bytes);
    }

    /// Gives memory back that no reply will hold.
    pub(super) fn discharge(&self, bytes: u64) {
        self.memory.give(bytes);
    }

    /// Counts a request out that never gets a reply: its end did not come.
    pub(super) fn forget(&self) {
        self.requests.give(1);
    }

    /// Queues the reply of a request that holds `bytes` of its admission.
    pub(super) fn push(&self, reply: Reply, bytes: u64) {
        let mut pending = self.pending.borrow_mut();
        pending.requests += 1;
        pending.bytes += bytes;
        if self.broken.get() {
            self.settle(std::mem::take(&mut pending));
            return;
        }
        if self.push_parts(&mut pending.gather, reply).is_err() {
            // A plan never leaves the image; were it to, the stream could only be cut.
            debug_assert!(false, "a piece outside its memory");
            self.break_off();
            return;
        }
        self.wake.notify_one();
    }

    fn push_parts(&self, gather: &mut Gather, reply: Reply) -> Result<(), OutOfRange> {
        match reply {
            Reply::Simple(header, pieces) => {
                gather.push_header(header);
                pieces
                    .into_iter()
                    .try_for_each(|piece| self.push_piece(gather, piece))
            }
            Reply::Chunks(parts) => parts.into_iter().try_for_each(|part| match part {
                Part::Own(bytes) => {
                    gather.push_bytes(bytes);
                    Ok(())
                }
                Part::Piece(piece) => self.push_piece(gather, piece),
            }),
        }
    }

    fn push_piece(&self, gather: &mut Gather, piece: Piece) -> Result<(), OutOfRange> {
        match piece {
            Piece::Zeros(len) => gather.push_zeros(len),
            Piece::Copied(buffer) => {
                let whole = 0..buffer.len();
                gather.push_buffer(buffer, whole)?;
            }
            Piece::Mapped(range) => match self.volume.image().mapping() {
                Some(mapping) => gather.push_mapped(mapping.clone(), range)?,
                None => {
                    return Err(OutOfRange {
                        start: range.start(),
                        end: range.end(),
                    });
                }
            },
        }
        Ok(())
    }

    /// Sends what is pushed until [`Outbox::close`], and then the rest.
    pub(super) async fn send_all(&self) {
        loop {
            let mut batch = std::mem::take(&mut *self.pending.borrow_mut());
            if batch.requests > 0 {
                self.sending.begin();
                if let Err(error) = self.link.send(&mut batch.gather).await {
                    self.report(&error);
                    self.break_off();
                }
                self.sending.end();
                self.progress.step();
                self.settle(batch);
            } else if self.closing.get() {
                return;
            } else {
                self.wake.notified().await;
            }
        }
    }

    fn settle(&self, batch: Batch) {
        drop(batch.gather);
        self.requests.give(batch.requests);
        self.discharge(batch.bytes);
    }

    fn report(&self, error: &SendError) {
        match error {
            SendError::ImageUnreadable { .. } => {
                // The header has left. NBD proto.md, NBD_CMD_READ, of simple replies: "the server
                // MUST immediately initiate a hard disconnect". A reply in chunks could be
                // completed with zeros and an error chunk, had its data not been marked as the
                // last: "MUST NOT do so for a content chunk if it would still be possible to
                // detect an error". To obey costs every read a chunk more, and libnbd a quarter of
                // its reads a second (bench/README.md); here a chunk with that mark is complete
                // and good, or the connection ends in it. Who connects again and reads the same
                // gets EIO: it goes by the ring then.
                let name = self.volume.image().name();
                tracing::error!("image {name} could not be read while it was sent: closing");
                let _ = self.volume.image().look();
            }
            // Most clients of a root file system end so: it is not worth a line.
            SendError::Connection { source, .. } => tracing::debug!("connection lost: {source}"),
        }
    }

    /// How long it has been sending one lot of replies, where it holds memory that others need.
    pub(super) fn stalled_for(&self) -> Option<Duration> {
        self.sending.lasts().filter(|_| self.memory.holds_shared())
    }

    /// Whether every request has been answered, and every answer sent.
    pub(super) fn is_quiet(&self) -> bool {
        self.requests.used() == 0 && !self.is_sending()
    }

    /// Whether answers are being sent.
    pub(super) fn is_sending(&self) -> bool {
        self.sending.lasts().is_some()
    }

    /// Ends the connection at once; replies that come after go nowhere.
    pub(super) fn break_off(&self) {
        self.broken.set(true);
        self.link.cut();
        self.wake.notify_one();
    }

    /// Whether the connection has ended, so that nobody gets a reply any more.
    pub(super) const fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Waits until every request has been answered.
    pub(super) async fn settled(&self) {
        self.requests.wait_until_unused().await;
    }

    /// Lets [`Outbox::send_all`] end when nothing is left to send.
    pub(super) fn close(&self) {
        self.closing.set(true);
        self.wake.notify_one();
    }
}
