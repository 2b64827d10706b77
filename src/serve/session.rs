//! One session on its shard: requests are taken from the socket, done on the volume, and answered.
//!
//! Invariants:
//! - One task receives, one sends. Writes are done by the receiving task, in the order in which
//!   they came; reads that must wait for a disk and flushes run beside it.
//! - A request is answered exactly once, or its connection is cut.
//! - What a session holds in memory is bounded: see `limits`.

use std::rc::Rc;

use super::describe;
use super::memory::ShardMemory;
use super::outbox::Outbox;
use super::reply::{Fault, Replies};
use super::succession::Progress;
use crate::export::extents::Layers;
use crate::export::{Volume, VolumeError};
use crate::io::{self, Buffer, Pool, ReceiveBuffer, Socket};
use crate::limits::{DIRECT_PAYLOAD_MIN, WRITE_PIECE};
use crate::nbd::ExportInfo;
use crate::nbd::agreed::{Agreed, Contexts, Headers};
use crate::nbd::session::{self, Command, Cookie, Event};
use crate::units::ByteRange;

/// Requests that one session may have done before its neighbours get a turn.
const TURN_REQUESTS: u32 = 64;

/// How a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The client sent DISC.
    #[error("the client disconnected")]
    Disconnected,
    /// The stream ended, as it does when a machine is switched off.
    #[error("the connection ended")]
    Closed,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Failed(std::io::Error),
    /// The client broke the protocol.
    #[error("protocol violation: {0}")]
    Violation(session::Violation),
}

/// What a session works with.
#[derive(Debug)]
pub(super) struct Session {
    socket: Socket,
    volume: Rc<Volume>,
    outbox: Rc<Outbox>,
    pool: Pool,
    progress: Rc<Progress>,
    replies: Replies,
    turn: u32,
}

impl Session {
    pub(super) fn new(
        socket: Socket,
        volume: Rc<Volume>,
        pool: Pool,
        memory: &Rc<ShardMemory>,
        progress: Rc<Progress>,
    ) -> Self {
        let (ours, theirs) = (Rc::clone(&volume), Rc::clone(memory));
        let outbox = Rc::new(Outbox::new(socket.clone(), ours, theirs));
        memory.join(&outbox);
        Self {
            socket,
            volume,
            outbox,
            pool,
            progress,
            replies: Replies::new(Headers::Simple),
            turn: 0,
        }
    }

    /// Serves the session to its end; `leftover` came with the handshake.
    pub(super) async fn run(mut self, info: ExportInfo, agreed: Agreed, leftover: &[u8]) -> End {
        self.replies = Replies::new(agreed.headers);
        if agreed.headers.have_chunks() {
            self.volume.look_for_holes();
        }
        let outbox = Rc::clone(&self.outbox);
        let sender = io::spawn(async move { outbox.send_all().await });
        let end = self
            .receive_all(
                session::Session::new(info, agreed),
                ReceiveBuffer::with_leftover(leftover),
            )
            .await;
        // What comes after, the answers, changes nothing on the disk.
        self.progress.ends();
        if matches!(end, End::Violation(_) | End::Failed(_)) {
            self.outbox.break_off();
        }
        // NBD proto.md, NBD_CMD_DISC: "the server MUST handle all outstanding requests".
        self.outbox.settled().await;
        self.outbox.close();
        // The task can't panic; were it to, the session is over all the same.
        let _ = sender.await;
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        end
    }

    async fn receive_all(
        &mut self,
        mut session: session::Session,
        mut buffer: ReceiveBuffer,
    ) -> End {
        loop {
            let (used, event) = match session.handle_bytes(buffer.filled()) {
                Ok(step) => step,
                Err(violation) => return End::Violation(violation),
            };
            buffer.consume(used);
            let outcome = match event {
                None => self.receive(&mut buffer).await,
                Some(Event::Disconnect) => return End::Disconnected,
                Some(Event::Reject(cookie, rejection)) => {
                    self.reject(cookie, rejection.into()).await
                }
                Some(Event::Command(cookie, Command::Write { range, fua })) => {
                    let result = self.take_payload(range, &mut buffer).await;
                    session.payload_taken(range.len());
                    self.finish_write(cookie, result, fua).await
                }
                Some(Event::Command(cookie, command)) => self.execute(cookie, command).await,
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    async fn receive(&mut self, buffer: &mut ReceiveBuffer) -> Result<(), End> {
        self.turn = 0;
        self.progress.waits();
        let (result, back) = self.socket.receive(std::mem::take(buffer)).await;
        self.progress.works();
        *buffer = back;
        match result {
            Ok(0) => Err(End::Closed),
            Ok(_) => Ok(()),
            Err(error) => Err(End::Failed(error)),
        }
    }

    async fn reject(&self, cookie: Cookie, fault: Fault) -> Result<(), End> {
        self.outbox.admit(0).await;
        self.reply(cookie, Err(fault));
        Ok(())
    }

    fn reply(&self, cookie: Cookie, result: Result<(), Fault>) {
        self.outbox.push(self.replies.of(cookie, result), 0);
    }

    /// Lets the neighbours have their turn, now and then.
    async fn take_turn(&mut self) {
        self.turn += 1;
        if self.turn >= TURN_REQUESTS {
            self.turn = 0;
            io::yield_now().await;
        }
    }

    async fn execute(&mut self, cookie: Cookie, command: Command) -> Result<(), End> {
        self.take_turn().await;
        match command {
            Command::Read { range, in_one } => self.read(cookie, range, in_one).await,
            Command::Flush => {
                self.outbox.admit(0).await;
                self.flush_then_reply(cookie);
            }
            Command::Trim { range, fua } => {
                self.outbox.admit(0).await;
                let result = self.volume.trim(range);
                self.finish_change(cookie, result, fua);
            }
            Command::WriteZeroes {
                range,
                fua,
                no_hole,
                ..
            } => {
                // Zeroing is a change of the map however long the range, so FAST_ZERO always holds.
                self.outbox.admit(0).await;
                let result = self.volume.zero(range, no_hole).await;
                self.finish_change(cookie, result, fua);
            }
            Command::Cache { range } => {
                self.outbox.admit(0).await;
                self.volume.prefetch(range);
                self.reply(cookie, Ok(()));
            }
            Command::BlockStatus {
                range,
                contexts,
                only_one,
            } => self.describe(cookie, range, contexts, only_one).await,
            Command::Write { .. } => {}
        }
        Ok(())
    }

    async fn read(&self, cookie: Cookie, range: ByteRange, in_one: bool) {
        self.outbox.wait_for_room().await;
        match self.volume.read_cached(range) {
            Ok(Some(pieces)) => {
                let reply = self.replies.read(cookie, range, in_one, pieces);
                let held = reply.held();
                self.outbox.admit(0).await;
                self.outbox.charge(held);
                self.outbox.push(reply, held);
            }
            Ok(None) => self.read_beside(cookie, range, in_one).await,
            Err(error) => {
                self.outbox.admit(0).await;
                self.reply(cookie, Err((&error).into()));
            }
        }
    }

    /// A read that has to wait for a disk: others go on meanwhile.
    async fn read_beside(&self, cookie: Cookie, range: ByteRange, in_one: bool) {
        self.outbox.admit(range.len()).await;
        let (volume, outbox) = (Rc::clone(&self.volume), Rc::clone(&self.outbox));
        let replies = self.replies;
        drop(io::spawn(async move {
            let reply = match volume.read(range).await {
                Ok(pieces) => replies.read(cookie, range, in_one, pieces),
                Err(error) => replies.of(cookie, Err((&error).into())),
            };
            // Chunks may be more than the data that they hold.
            let more = reply.held().saturating_sub(range.len());
            outbox.charge(more);
            outbox.push(reply, range.len() + more);
        }));
    }

    /// Describes blocks. The holes of the image may have to be found first: beside.
    async fn describe(&self, cookie: Cookie, range: ByteRange, contexts: Contexts, only_one: bool) {
        self.outbox.wait_for_room().await;
        self.outbox.admit(0).await;
        let (volume, outbox) = (Rc::clone(&self.volume), Rc::clone(&self.outbox));
        let replies = self.replies;
        let answer = async move {
            volume.with_holes().await;
            let reach = describe::within_reach(range);
            let tell = |context| {
                let stretches = |layers: Layers<'_>| {
                    describe::extents(context, layers.stretches(reach), only_one)
                };
                Ok((context, volume.describe(stretches)?))
            };
            let told: Result<Vec<_>, VolumeError> = contexts.iter().map(tell).collect();
            let reply = match told {
                Ok(told) => replies.status(cookie, &told),
                Err(error) => replies.of(cookie, Err((&error).into())),
            };
            let held = reply.held();
            outbox.charge(held);
            outbox.push(reply, held);
        };
        if self.volume.image().known_holes().is_some() {
            answer.await;
            // That was much work, perhaps: the neighbours have their turn.
            io::yield_now().await;
        } else {
            drop(io::spawn(answer));
        }
    }

    fn flush_then_reply(&self, cookie: Cookie) {
        let (volume, outbox) = (Rc::clone(&self.volume), Rc::clone(&self.outbox));
        let replies = self.replies;
        drop(io::spawn(async move {
            let result = volume.flush().await.map_err(|error| (&error).into());
            outbox.push(replies.of(cookie, result), 0);
        }));
    }

    /// Answers a change that was made or not; with FUA only once it is durable.
    fn finish_change(&self, cookie: Cookie, result: Result<(), VolumeError>, fua: bool) {
        match result {
            Ok(()) if fua => self.flush_then_reply(cookie),
            result => self.reply(cookie, result.map_err(|error| (&error).into())),
        }
    }

    async fn finish_write(
        &mut self,
        cookie: Cookie,
        result: Result<Result<(), VolumeError>, End>,
        fua: bool,
    ) -> Result<(), End> {
        let result = result?;
        self.outbox.admit(0).await;
        self.finish_change(cookie, result, fua);
        self.take_turn().await;
        Ok(())
    }

    /// Takes the payload of a write off the stream, all of it, and writes it as it comes.
    async fn take_payload(
        &mut self,
        range: ByteRange,
        buffer: &mut ReceiveBuffer,
    ) -> Result<Result<(), VolumeError>, End> {
        if range.len_usize() >= DIRECT_PAYLOAD_MIN && buffer.filled().len() < range.len_usize() {
            return self.take_large_payload(range, buffer).await;
        }
        while buffer.filled().len() < range.len_usize() {
            self.receive(buffer).await?;
        }
        let payload = buffer.filled().get(..range.len_usize()).unwrap_or_default();
        let result = self.volume.write(range, payload).await;
        buffer.consume(range.len_usize());
        Ok(result)
    }

    /// Receives straight into aligned memory, in pieces: a neighbour waits for one at most.
    async fn take_large_payload(
        &mut self,
        range: ByteRange,
        received: &mut ReceiveBuffer,
    ) -> Result<Result<(), VolumeError>, End> {
        let mut result = Ok(());
        for piece in range.chunks(WRITE_PIECE as u64) {
            self.outbox.wait_for_room().await;
            self.outbox.charge(piece.len());
            let outcome = self.take_piece(piece, received, result.is_ok()).await;
            self.outbox.discharge(piece.len());
            let written = outcome?;
            result = result.and(written);
            io::yield_now().await;
        }
        Ok(result)
    }

    async fn take_piece(
        &self,
        piece: ByteRange,
        received: &mut ReceiveBuffer,
        write: bool,
    ) -> Result<Result<(), VolumeError>, End> {
        let buffer = self.pool.take(piece.len_usize());
        let mut buffer = buffer.map_err(|error| End::Failed(std::io::Error::other(error)))?;
        let front = drain(received, &mut buffer);
        let rest = front..buffer.len();
        // A part of a piece that never gets whole is never written.
        self.progress.waits();
        let (outcome, buffer) = self.socket.receive_exact(buffer, rest).await;
        self.progress.works();
        match outcome {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(End::Closed),
            Err(error) => Err(End::Failed(error)),
            Ok(()) if write => Ok(self.volume.write(piece, buffer.as_slice()).await),
            Ok(()) => Ok(Ok(())),
        }
    }
}

/// Moves what was received already to the front of `buffer`; how many bytes that were.
fn drain(received: &mut ReceiveBuffer, buffer: &mut Buffer) -> usize {
    let count = received.filled().len().min(buffer.len());
    let (to, from) = (
        buffer.as_mut_slice().get_mut(..count),
        received.filled().get(..count),
    );
    if let (Some(to), Some(from)) = (to, from) {
        to.copy_from_slice(from);
    }
    received.consume(count);
    count
}
