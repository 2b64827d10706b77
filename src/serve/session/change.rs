//! Writes, trims and zeroes of a session: received by its task, made beside it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::{End, Session, outcome};
use crate::export::{Volume, VolumeError};
use crate::io::{self, Buffer, ReceiveBuffer};
use crate::limits::{DIRECT_PAYLOAD_MIN, WRITE_PIECE};
use crate::nbd::session::Cookie;
use crate::serve::meter::Ticket;
use crate::serve::outbox::Outbox;
use crate::serve::reply::{Fault, Replies};
use crate::status::traffic::Kind;
use crate::units::ByteRange;

/// The answer that a change will get.
#[derive(Debug)]
struct Answer {
    cookie: Cookie,
    ticket: Ticket,
    fua: bool,
    volume: Rc<Volume>,
    outbox: Rc<Outbox>,
    replies: Replies,
}

impl Answer {
    /// Answers a change that was made or not; with FUA only once it is durable.
    async fn give(&self, mut result: Result<(), VolumeError>) {
        if self.fua && result.is_ok() {
            result = self.volume.flush().await;
        }
        let result = result.map_err(|error| Fault::from(&error));
        self.ticket.end(outcome(&result));
        self.outbox.push(self.replies.of(self.cookie, result), 0);
    }
}

/// A write request whose pieces are written as they come.
#[derive(Debug)]
struct Write {
    answer: Answer,
    /// Pieces that are being written, and the receiving task while more may come.
    open: Cell<usize>,
    /// Of the first piece that could not be written.
    failure: RefCell<Option<VolumeError>>,
    /// Its end did not come: it gets no answer.
    is_broken_off: Cell<bool>,
}

impl Write {
    fn fails(&self) -> bool {
        self.failure.borrow().is_some()
    }

    /// A piece was written or not, or the last one has come.
    async fn close(&self, result: Result<(), VolumeError>) {
        if let Err(failure) = result {
            self.failure.borrow_mut().get_or_insert(failure);
        }
        self.open.set(self.open.get() - 1);
        if self.open.get() > 0 {
            return;
        }
        if self.is_broken_off.get() {
            self.answer.outbox.forget();
        } else {
            let failure = self.failure.take();
            self.answer.give(failure.map_or(Ok(()), Err)).await;
        }
    }
}

impl Session {
    fn answer(&self, cookie: Cookie, ticket: Ticket, fua: bool) -> Answer {
        Answer {
            cookie,
            ticket,
            fua,
            volume: Rc::clone(&self.volume),
            outbox: Rc::clone(&self.outbox),
            replies: self.replies,
        }
    }

    /// Makes a change that has its turn, and answers it, while others go on.
    pub(super) fn change_beside(
        &self,
        cookie: Cookie,
        ticket: Ticket,
        change: impl Future<Output = Result<(), VolumeError>> + 'static,
        fua: bool,
    ) {
        ticket.asks_disk();
        let answer = self.answer(cookie, ticket, fua);
        let underway = self.progress.begin_change();
        drop(io::spawn(async move {
            let result = change.await;
            drop(underway);
            answer.give(result).await;
        }));
    }

    /// Takes the payload of a write off the stream, all of it, and has it written as it comes.
    pub(super) async fn write(
        &mut self,
        cookie: Cookie,
        range: ByteRange,
        fua: bool,
        received: &mut ReceiveBuffer,
    ) -> Result<(), End> {
        self.outbox.admit(0).await;
        let write = Rc::new(Write {
            answer: self.answer(cookie, self.ticket(Kind::Write, range), fua),
            open: Cell::new(1),
            failure: RefCell::default(),
            is_broken_off: Cell::new(false),
        });
        self.progress.waits_for_rest(true);
        let taken = self.take_payload(&write, range, received).await;
        self.progress.waits_for_rest(false);
        write.answer.ticket.begin_now();
        write.answer.ticket.asks_disk();
        write.is_broken_off.set(taken.is_err());
        // The answer may have to wait for a sync: beside.
        drop(io::spawn(async move { write.close(Ok(())).await }));
        taken?;
        self.take_turn().await;
        Ok(())
    }

    async fn take_payload(
        &mut self,
        write: &Rc<Write>,
        range: ByteRange,
        received: &mut ReceiveBuffer,
    ) -> Result<(), End> {
        if range.len_usize() >= DIRECT_PAYLOAD_MIN && received.filled().len() < range.len_usize() {
            for piece in range.chunks(WRITE_PIECE as u64) {
                self.take_piece(write, piece, received).await?;
                io::yield_now().await;
            }
            return Ok(());
        }
        while received.filled().len() < range.len_usize() {
            self.receive(received).await?;
        }
        self.take_piece(write, range, received).await
    }

    /// Receives straight into the blocks that are to be written, what was not received already.
    async fn take_piece(
        &self,
        write: &Rc<Write>,
        piece: ByteRange,
        received: &mut ReceiveBuffer,
    ) -> Result<(), End> {
        self.outbox.wait_for_room().await;
        let blocks = piece.blocks_touched();
        let held = blocks.bytes().len();
        self.outbox.charge(held);
        let buffer = self.pool.take(blocks.bytes().len_usize());
        let buffer = buffer.map_err(|error| End::Failed(std::io::Error::other(error)))?;
        let place = piece.place_in(blocks);
        let (outcome, buffer) = self.receive_piece(buffer, place, received).await;
        // A part of a piece that never gets whole is never written.
        if let Err(end) = outcome.and_then(|()| self.check_not_over()) {
            self.outbox.discharge(held);
            return Err(end);
        }
        self.write_beside(write, piece, buffer, held);
        Ok(())
    }

    async fn receive_piece(
        &self,
        mut buffer: Buffer,
        place: std::ops::Range<usize>,
        received: &mut ReceiveBuffer,
    ) -> (Result<(), End>, Buffer) {
        let front = drain(received, buffer.as_mut_slice().get_mut(place.clone()));
        let rest = place.start + front..place.end;
        if rest.is_empty() {
            return (Ok(()), buffer);
        }
        let (outcome, buffer) = self.link.receive_exact(buffer, rest).await;
        let outcome = match outcome {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(End::Closed),
            Err(error) => Err(End::Failed(error)),
            Ok(()) => Ok(()),
        };
        (outcome, buffer)
    }

    fn write_beside(&self, write: &Rc<Write>, piece: ByteRange, buffer: Buffer, held: u64) {
        if write.fails() {
            self.outbox.discharge(held);
            return;
        }
        write.open.set(write.open.get() + 1);
        let (write, outbox) = (Rc::clone(write), Rc::clone(&self.outbox));
        let change = self.volume.write(piece, buffer);
        let underway = self.progress.begin_change();
        drop(io::spawn(async move {
            let result = change.await;
            outbox.discharge(held);
            drop(underway);
            write.close(result).await;
        }));
    }
}

/// Moves what was received already to the front of `into`; how many bytes that were.
fn drain(received: &mut ReceiveBuffer, into: Option<&mut [u8]>) -> usize {
    let into = into.unwrap_or_default();
    let count = received.filled().len().min(into.len());
    let (to, from) = (into.get_mut(..count), received.filled().get(..count));
    if let (Some(to), Some(from)) = (to, from) {
        to.copy_from_slice(from);
    }
    received.consume(count);
    count
}
