//! One session on its shard: requests are taken from the socket, done on the volume, and answered.
//!
//! Invariants:
//! - One task receives, one sends. What must wait for a disk runs beside the two: reads that are
//!   not in memory, changes, flushes. So a disk that is slow or stuck holds up nobody else.
//! - Changes have their turn in the order in which they came, see [`Volume::write`].
//! - A request is answered exactly once, or its connection is cut.
//! - A session that was cut for a successor begins no change any more.
//! - What a session holds in memory is bounded: see `limits`.

use std::rc::{Rc, Weak};

use super::describe;
use super::link::Link;
use super::memory::ShardMemory;
use super::meter::{Meter, Ticket};
use super::outbox::Outbox;
use super::reply::{Fault, Replies};
use super::succession::Progress;
use crate::export::extents::Layers;
use crate::export::{Volume, VolumeError};
use crate::image::Recorder;
use crate::io::{self, Pool, ReceiveBuffer};
use crate::nbd::ExportInfo;
use crate::nbd::agreed::{Agreed, Contexts, Headers};
use crate::nbd::session::{self, Command, Cookie, Event};
use crate::nbd::wire::Errno;
use crate::status::traffic::Kind;
use crate::tls::Channel;
use crate::units::ByteRange;

mod change;

/// Whether a receive gave nothing since it was ended.
fn is_ended(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::CANCELED.raw_os_error())
}

/// Requests that one session may have done before its neighbours get a turn.
const TURN_REQUESTS: u32 = 64;

/// How a request ended, as it is counted.
fn outcome<T>(result: &Result<T, Fault>) -> Result<(), Errno> {
    match result {
        Ok(_) => Ok(()),
        Err(fault) => Err(fault.errno()),
    }
}

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
    /// A newer connection of the client could not wait for this one any longer.
    #[error("the connection was stuck, and cut for a newer one")]
    Cut,
    /// The client broke the protocol.
    #[error("protocol violation: {0}")]
    Violation(session::Violation),
    /// It is to go on elsewhere.
    #[error("the session goes on elsewhere")]
    Suspended,
}

/// What is left of a session, for it to go on elsewhere.
#[derive(Debug)]
pub(super) struct Rest {
    /// Came and is not begun.
    pub(super) leftover: Vec<u8>,
    /// With TLS: the channel, and what came for it and is not decrypted.
    pub(super) channel: Option<(Channel, Vec<u8>)>,
}

/// What became of a session.
#[derive(Debug)]
pub(super) enum Outcome {
    Ended(End),
    Suspended(Rest),
}

/// What a session works with.
#[derive(Debug)]
pub(super) struct Session {
    link: Link,
    volume: Rc<Volume>,
    outbox: Rc<Outbox>,
    pool: Pool,
    progress: Rc<Progress>,
    meter: Rc<Meter>,
    replies: Replies,
    turn: u32,
    /// Where reads of the image are noted, as long as it is taken for a boot.
    recorder: Option<Recorder>,
}

impl Session {
    pub(super) fn new(
        link: Link,
        volume: Rc<Volume>,
        pool: Pool,
        memory: &Rc<ShardMemory>,
        progress: Rc<Progress>,
        meter: Rc<Meter>,
    ) -> Self {
        let (ours, theirs) = (Rc::clone(&volume), Rc::clone(memory));
        let outbox = Outbox::new(link.clone(), ours, theirs, Rc::clone(&progress));
        let outbox = Rc::new(outbox);
        memory.join(&outbox);
        Self {
            link,
            volume,
            outbox,
            pool,
            progress,
            meter,
            replies: Replies::new(Headers::Simple),
            turn: 0,
            recorder: None,
        }
    }

    /// What it reads of the image in its first minutes is remembered.
    pub(super) fn record_boot(&mut self) {
        self.recorder = self.volume.image().record_boot();
    }

    /// Its sending half, for who watches it.
    pub(super) fn outbox(&self) -> Weak<Outbox> {
        Rc::downgrade(&self.outbox)
    }

    /// Serves the session to its end; `leftover` came with the handshake.
    pub(super) async fn run(
        mut self,
        info: ExportInfo,
        agreed: Agreed,
        leftover: &[u8],
    ) -> Outcome {
        self.replies = Replies::new(agreed.headers);
        if agreed.headers.have_chunks() {
            self.volume.look_for_holes();
        }
        let outbox = Rc::clone(&self.outbox);
        let sender = io::spawn(async move { outbox.send_all().await });
        let mut buffer = ReceiveBuffer::with_leftover(leftover);
        let end = self
            .receive_all(session::Session::new(info, agreed), &mut buffer)
            .await;
        // What comes after, the answers, changes nothing on the disk.
        self.progress.ends();
        if matches!(end, End::Violation(_) | End::Failed(_) | End::Cut) {
            self.outbox.break_off();
        }
        // NBD proto.md, NBD_CMD_DISC: "the server MUST handle all outstanding requests".
        self.outbox.settled().await;
        self.outbox.close();
        // The task can't panic; were it to, the session is over all the same.
        let _ = sender.await;
        match end {
            End::Suspended if !self.outbox.is_broken() => self.rest(&buffer).await,
            End::Suspended => Outcome::Ended(End::Closed),
            end => {
                self.link.close().await;
                Outcome::Ended(end)
            }
        }
    }

    async fn rest(self, buffer: &ReceiveBuffer) -> Outcome {
        drop(self.outbox);
        match self.link.into_channel() {
            Ok(channel) => Outcome::Suspended(Rest {
                leftover: buffer.filled().to_vec(),
                channel,
            }),
            // Nobody else has it by now; were it so, the session is over.
            Err(link) => {
                link.close().await;
                Outcome::Ended(End::Closed)
            }
        }
    }

    async fn receive_all(
        &mut self,
        mut session: session::Session,
        buffer: &mut ReceiveBuffer,
    ) -> End {
        loop {
            if self.progress.is_suspending() && session.is_between_requests() {
                return End::Suspended;
            }
            if self.progress.is_concluding() && session.is_between_requests() {
                return End::Closed;
            }
            let (used, event) = match session.handle_bytes(buffer.filled()) {
                Ok(step) => step,
                Err(violation) => return End::Violation(violation),
            };
            buffer.consume(used);
            let outcome = match event {
                None => self.receive(buffer).await,
                Some(Event::Disconnect) => return End::Disconnected,
                Some(Event::Reject(cookie, rejection)) => {
                    self.reject(cookie, rejection.into()).await
                }
                Some(Event::Command(cookie, Command::Write { range, fua })) => {
                    let outcome = self.write(cookie, range, fua, buffer).await;
                    session.payload_taken(range.len());
                    outcome
                }
                Some(Event::Command(cookie, command)) => self.execute(cookie, command).await,
            };
            if let Err(end) = outcome.and_then(|()| self.check_not_over()) {
                return end;
            }
        }
    }

    async fn receive(&mut self, buffer: &mut ReceiveBuffer) -> Result<(), End> {
        let is_busy = std::mem::take(&mut self.turn) > 1;
        let (result, back) = self.link.receive(std::mem::take(buffer), is_busy).await;
        *buffer = back;
        match result {
            Ok(0) => Err(End::Closed),
            Ok(_) => Ok(()),
            // It was ended for the session to stop here, if it can.
            Err(error) if is_ended(&error) => Ok(()),
            Err(error) => Err(End::Failed(error)),
        }
    }

    /// Whether it may begin more: not where it was cut, nor for a peer that has gone. What a
    /// machine asked for that was switched off could keep the disks busy for a long time.
    fn check_not_over(&self) -> Result<(), End> {
        if self.progress.is_cut() {
            return Err(End::Cut);
        }
        if self.outbox.is_broken() {
            return Err(End::Closed);
        }
        Ok(())
    }

    async fn reject(&self, cookie: Cookie, fault: Fault) -> Result<(), End> {
        self.outbox.admit(0).await;
        self.meter.rejected(fault.errno());
        self.outbox.push(self.replies.of(cookie, Err(fault)), 0);
        Ok(())
    }

    fn reply(&self, cookie: Cookie, ticket: &Ticket, result: Result<(), Fault>) {
        ticket.end(outcome(&result));
        self.outbox.push(self.replies.of(cookie, result), 0);
    }

    fn ticket(&self, kind: Kind, range: ByteRange) -> Ticket {
        self.meter.begin(kind, range.len())
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
                self.check_not_over()?;
                let ticket = self.ticket(Kind::Trim, range);
                self.change_beside(cookie, ticket, self.volume.trim(range), fua);
            }
            Command::WriteZeroes {
                range,
                fua,
                no_hole,
                ..
            } => {
                // Zeroing is a change of the map however long the range, so FAST_ZERO always holds.
                self.outbox.admit(0).await;
                self.check_not_over()?;
                let ticket = self.ticket(Kind::WriteZeroes, range);
                self.change_beside(cookie, ticket, self.volume.zero(range, no_hole), fua);
            }
            Command::Cache { range } => {
                self.outbox.admit(0).await;
                let ticket = self.ticket(Kind::Cache, range);
                self.volume.prefetch(range);
                self.reply(cookie, &ticket, Ok(()));
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
        let ticket = self.ticket(Kind::Read, range);
        if let Some(recorder) = self.recorder.as_ref().filter(|recorder| recorder.is_on()) {
            self.volume
                .each_read_of_image(range, |read| recorder.note(read));
        }
        self.outbox.wait_for_room().await;
        if self.link.copies() {
            return self.read_beside(cookie, ticket, range, in_one).await;
        }
        match self.volume.read_cached(range) {
            Ok(Some(pieces)) => {
                let reply = self.replies.read(cookie, range, in_one, pieces);
                let held = reply.held();
                self.outbox.admit(0).await;
                self.outbox.charge(held);
                ticket.hit();
                ticket.end(Ok(()));
                self.outbox.push(reply, held);
            }
            Ok(None) => self.read_beside(cookie, ticket, range, in_one).await,
            Err(error) => {
                self.outbox.admit(0).await;
                self.reply(cookie, &ticket, Err((&error).into()));
            }
        }
    }

    /// A read that has to wait for a disk: others go on meanwhile.
    async fn read_beside(&self, cookie: Cookie, ticket: Ticket, range: ByteRange, in_one: bool) {
        self.outbox.admit(range.len()).await;
        let (volume, outbox) = (Rc::clone(&self.volume), Rc::clone(&self.outbox));
        let replies = self.replies;
        drop(io::spawn(async move {
            if outbox.is_broken() {
                outbox.forget();
                outbox.discharge(range.len());
                return;
            }
            ticket.asks_disk();
            let read = volume
                .read(range)
                .await
                .map_err(|error| Fault::from(&error));
            ticket.end(outcome(&read));
            let reply = match read {
                Ok(pieces) => replies.read(cookie, range, in_one, pieces),
                Err(fault) => replies.of(cookie, Err(fault)),
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
        let ticket = self.ticket(Kind::BlockStatus, range);
        let answer = async move {
            ticket.asks_disk();
            volume.with_holes().await;
            let reach = describe::within_reach(range);
            let tell = |context| {
                let stretches = |layers: Layers<'_>| {
                    describe::extents(context, layers.stretches(reach), only_one)
                };
                Ok((context, volume.describe(stretches)?))
            };
            let told: Result<Vec<_>, VolumeError> = contexts.iter().map(tell).collect();
            let told = told.map_err(|error| Fault::from(&error));
            ticket.end(outcome(&told));
            let reply = match told {
                Ok(told) => replies.status(cookie, &told),
                Err(fault) => replies.of(cookie, Err(fault)),
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
        let ticket = self.meter.begin(Kind::Flush, 0);
        ticket.asks_disk();
        drop(io::spawn(async move {
            let result = volume.flush().await.map_err(|error| Fault::from(&error));
            ticket.end(outcome(&result));
            outbox.push(replies.of(cookie, result), 0);
        }));
    }
}
