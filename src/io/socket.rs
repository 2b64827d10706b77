//! A connected stream socket of a shard, TCP or unix.
//!
//! Invariants:
//! - At most one receive and one send are under way at a time; the one owner task of each direction
//!   sees to that. Nothing unsound comes of breaking it, but bytes would mix.
//! - Every operation shares the descriptor, so its number can't be given to another file before the
//!   kernel has looked it up.
//! - A receive or send whose future is dropped half-way shuts the connection down, for its position
//!   in the stream is lost. So an abandoned operation ends soon, and its memory is freed.
//! - The descriptor is in blocking mode: with O_NONBLOCK the ring would answer EAGAIN, not wait.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use io_uring::{opcode, squeue, types};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use socket2::{Domain, SockRef, TcpKeepalive, Type};
use thiserror::Error;

use super::buffer::Buffer;
use super::gather::{Gather, Images};
use super::receive::ReceiveBuffer;
use super::ring;
use residency::Pages;

mod liveness;
mod residency;

/// Keep-alive probes that may go unanswered.
const KEEPALIVE_PROBES: u32 = 3;

/// Why a send failed, and how far it had come: the rest is still in the [`Gather`].
#[derive(Debug, Error)]
pub enum SendError {
    /// The kernel could not read mapped bytes of an image: the file was truncated, or its disk
    /// failed; or they were not sent since the image has changed. The connection itself is fine,
    /// but the peer may have a part of a reply.
    #[error("the image could not be read, {sent} bytes into the send")]
    ImageUnreadable {
        /// Bytes of this call that went out before.
        sent: u64,
    },
    /// The connection is broken.
    #[error("{source}, {sent} bytes into the send")]
    Connection {
        /// Bytes of this call that went out before.
        sent: u64,
        /// What the kernel said.
        source: io::Error,
    },
}

impl SendError {
    fn new(sent: u64, source: io::Error) -> Self {
        // All memory but that of images is our own, and always readable.
        if source.raw_os_error() == Some(libc::EFAULT) {
            Self::ImageUnreadable { sent }
        } else {
            Self::Connection { sent, source }
        }
    }
}

/// One connection. Clones share it; it is closed when the last is gone.
#[derive(Clone, Debug)]
pub struct Socket {
    descriptor: Rc<OwnedFd>,
    is_tcp: bool,
    /// The last send had to wait: pages of what was queued meanwhile were seen a while ago.
    has_waited: Rc<Cell<bool>>,
}

impl Socket {
    /// Takes a connected stream socket, and puts it into blocking mode.
    ///
    /// # Errors
    /// `InvalidInput` where it is no stream socket; what the kernel says where it is no socket.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let options = SockRef::from(&descriptor);
        if options.r#type()? != Type::STREAM {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "not a stream socket",
            ));
        }
        options.set_nonblocking(false)?;
        let is_tcp = options.domain()? != Domain::UNIX;
        Ok(Self {
            descriptor: Rc::new(descriptor),
            is_tcp,
            has_waited: Rc::default(),
        })
    }

    /// Receives what is there, at the end of `buffer`, without waiting: `None` where nothing is
    /// there, and `Some(0)` at the end of the stream.
    ///
    /// # Errors
    /// What the kernel says; `InvalidInput` where `buffer` is full.
    pub fn try_receive(&self, buffer: &mut ReceiveBuffer) -> io::Result<Option<usize>> {
        let spare = buffer.spare();
        if spare.is_empty() {
            return Err(no_room());
        }
        let count = self.receive_now(spare)?;
        buffer.received(count.unwrap_or(0));
        Ok(count)
    }

    /// Waits for bytes and receives them at the end of `buffer`; 0 at the end of the stream.
    ///
    /// A pending receive is ended by [`Self::shutdown`]. Dropping it ends the connection.
    ///
    /// # Errors
    /// What the kernel says; `InvalidInput` where `buffer` is full.
    pub async fn receive(&self, mut buffer: ReceiveBuffer) -> (io::Result<usize>, ReceiveBuffer) {
        loop {
            let spare = buffer.spare();
            if spare.is_empty() {
                return (Err(no_room()), buffer);
            }
            let entry = opcode::Recv::new(self.target(), spare.as_mut_ptr(), length(spare)).build();
            // SAFETY: RECV completes once; it writes to the spare part of the buffer, which has a
            // fixed address and belongs to the operation until then.
            let (result, back) = unsafe { self.submit(entry, buffer) }.await;
            buffer = back;
            match result {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return (Err(error), buffer),
                Ok(count) => {
                    buffer.received(count);
                    return (Ok(count), buffer);
                }
            }
        }
    }

    /// Fills `range` of `buffer` with the next bytes of the stream, at once as far as they are
    /// there.
    ///
    /// A fast peer has the shard for the whole range: keep it to [`crate::limits::WRITE_PIECE`].
    ///
    /// A pending receive is ended by [`Self::shutdown`]. Dropping it ends the connection.
    ///
    /// # Errors
    /// `UnexpectedEof` where the stream ends first, `InvalidInput` where `range` leaves the buffer,
    /// else what the kernel says. The part of the buffer is unspecified then.
    pub async fn receive_exact(
        &self,
        mut buffer: Buffer,
        range: Range<usize>,
    ) -> (io::Result<()>, Buffer) {
        let Range { mut start, end } = range;
        if buffer.as_slice().get(start..end).is_none() {
            return (Err(ErrorKind::InvalidInput.into()), buffer);
        }
        while start < end {
            let (result, back) = self.receive_into(buffer, start..end).await;
            buffer = back;
            match result {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return (Err(error), buffer),
                Ok(0) => return (Err(ErrorKind::UnexpectedEof.into()), buffer),
                Ok(count) => start += count,
            }
        }
        (Ok(()), buffer)
    }

    /// Sends all of `gather`, which is empty afterwards: at once as far as the socket takes it, the
    /// rest through the ring. Bytes of an image are only sent at once, again and again: an
    /// operation that waits would go on after the image has changed. Pages of it that are no longer
    /// in memory are brought in first, beside the shard.
    ///
    /// Dropping a pending send ends the connection and empties `gather`.
    ///
    /// # Errors
    /// [`SendError`]; `gather` keeps what was not sent.
    pub async fn send(&self, gather: &mut Gather) -> Result<(), SendError> {
        let (mut sent, mut wait) = (0, false);
        let mut pages = Pages::seen(self.has_waited.take());
        while !gather.is_empty() {
            let batch = gather.prepare();
            let result = match (gather.images(), wait) {
                (Images::Disowned, _) => return Err(SendError::ImageUnreadable { sent }),
                (Images::None, true) => self.send_by_ring(gather).await,
                (Images::Good, true) => {
                    self.writable().await;
                    self.has_waited.set(true);
                    pages.may_be_gone();
                    wait = false;
                    // The image may have changed meanwhile.
                    continue;
                }
                // It may have changed meanwhile, here too.
                (Images::Good, false) if pages.bring_in(gather, sent).await => continue,
                (_, false) => self.send_now(gather),
            };
            match result {
                Ok(0) => return Err(SendError::new(sent, ErrorKind::WriteZero.into())),
                Ok(count) => {
                    Pages::look_back(gather);
                    gather.advance(count);
                    sent += count;
                    wait = count < batch;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && !wait => wait = true,
                Err(error) => return Err(SendError::new(sent, error)),
            }
            if !wait && !gather.is_empty() {
                // A fast reader must not keep the shard from its neighbours.
                ring::yield_now().await;
            }
        }
        Ok(())
    }

    /// Bytes that have come and were not received yet.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn unread(&self) -> io::Result<u64> {
        Ok(rustix::io::ioctl_fionread(&self.descriptor)?)
    }

    /// Has a receive that waits end now, with `ECANCELED` or with what has come for it. It takes no
    /// byte from the stream that it does not give.
    ///
    /// Only while nothing is being sent: every operation of the ring on this socket ends.
    pub async fn end_receive(&self) {
        let target = types::CancelBuilder::fd(self.target()).all();
        let entry = opcode::AsyncCancel2::new(target).build();
        // SAFETY: ASYNC_CANCEL completes once, and uses no memory; `descriptor` is kept open by
        // what it owns. The operations that it ends complete by themselves, as always.
        let (result, _) = unsafe { ring::submit(entry, self.descriptor.clone()) }.await;
        // Where nothing waited, nothing had to end.
        drop(result);
    }

    /// The descriptor once more, for who is to have the connection from now on.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn to_owned_fd(&self) -> io::Result<OwnedFd> {
        self.descriptor.try_clone()
    }

    /// Ends one direction or both; operations that wait there are woken and end.
    ///
    /// # Errors
    /// What the kernel says; a connection that has ended already is no error.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match SockRef::from(&*self.descriptor).shutdown(how) {
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            other => other,
        }
    }

    /// Sends small replies at once (TCP; nothing to do for a unix socket).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_nodelay(&self) -> io::Result<()> {
        if !self.is_tcp {
            return Ok(());
        }
        SockRef::from(&*self.descriptor).set_tcp_nodelay(true)
    }

    /// Gives a peer up that vanished (TCP; nothing to do for a unix socket).
    ///
    /// After `idle` of silence it is probed three times, `idle / 3` apart. Bytes sent to it may
    /// stay unacknowledged just as long: keep-alive itself does not look at a peer that owes us.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_keepalive(&self, idle: Duration) -> io::Result<()> {
        if !self.is_tcp {
            return Ok(());
        }
        let interval = (idle / KEEPALIVE_PROBES).max(Duration::from_secs(1));
        let probes = TcpKeepalive::new()
            .with_time(idle)
            .with_interval(interval)
            .with_retries(KEEPALIVE_PROBES);
        let options = SockRef::from(&*self.descriptor);
        options.set_tcp_keepalive(&probes)?;
        options.set_tcp_user_timeout(Some(idle + interval * KEEPALIVE_PROBES))
    }

    /// What is there already, else what the ring brings, at `range` of `buffer`, which is inside.
    async fn receive_into(
        &self,
        mut buffer: Buffer,
        range: Range<usize>,
    ) -> (io::Result<usize>, Buffer) {
        let part = buffer.as_mut_slice().get_mut(range).unwrap_or_default();
        if let Some(result) = self.receive_now(part).transpose() {
            return (result, buffer);
        }
        let entry = opcode::Recv::new(self.target(), part.as_mut_ptr(), length(part))
            .flags(libc::MSG_WAITALL)
            .build();
        // SAFETY: RECV completes once; it writes to a part of the buffer, which has a fixed address
        // and belongs to the operation until then.
        unsafe { self.submit(entry, buffer) }.await
    }

    /// One receive that does not wait; `None` where it would have to.
    fn receive_now(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match rustix::net::recv(&self.descriptor, &mut *into, RecvFlags::DONTWAIT) {
                Ok((count, _)) => return Ok(Some(count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// One send of the prepared message that does not wait.
    fn send_now(&self, gather: &Gather) -> io::Result<u64> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the message was prepared from this gather, which is borrowed and so unchanged,
        // and owns all it points at.
        let count = unsafe { libc::sendmsg(self.descriptor.as_raw_fd(), gather.message(), flags) };
        u64::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// One send of the prepared message that waits until all of it is out.
    async fn send_by_ring(&self, gather: &mut Gather) -> io::Result<u64> {
        let owned = std::mem::take(gather);
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let entry = opcode::SendMsg::new(self.target(), owned.message())
            .flags(flags.cast_unsigned())
            .build();
        // SAFETY: SENDMSG completes once; the message, its iovecs and all they point at belong to
        // the gather, lie on the heap, and nobody changes them while the operation owns it.
        let (result, back) = unsafe { self.submit(entry, owned) }.await;
        *gather = back;
        result.map(|count| count as u64)
    }

    /// Waits until something can be sent, or never again.
    async fn writable(&self) {
        let events = libc::POLLOUT.cast_unsigned().into();
        let entry = opcode::PollAdd::new(self.target(), events).build();
        // SAFETY: POLL_ADD without its multi flag completes once, and uses no memory.
        let (result, ()) = unsafe { self.submit(entry, ()) }.await;
        // What is wrong with the socket the next send tells.
        drop(result);
    }

    /// Submits an operation on this socket; ends the connection where the future is dropped.
    ///
    /// # Safety
    /// That of [`ring::submit`], but for the descriptor, which is kept open here.
    async unsafe fn submit<D>(&self, entry: squeue::Entry, data: D) -> (io::Result<usize>, D)
    where
        D: Unpin + 'static,
    {
        let unfinished = Unfinished(self);
        let owned = (self.descriptor.clone(), data);
        // SAFETY: the caller's promise, and `owned` keeps the descriptor open.
        let (result, (_, data)) = unsafe { ring::submit(entry, owned) }.await;
        std::mem::forget(unfinished);
        (result, data)
    }

    fn target(&self) -> types::Fd {
        types::Fd(self.descriptor.as_raw_fd())
    }
}

impl AsFd for Socket {
    /// The descriptor, to ask for addresses and options.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Dropped where the future of an operation is dropped before its completion.
struct Unfinished<'a>(&'a Socket);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        // Fails only where the connection has ended by itself, which is as good.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

fn no_room() -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, "the receive buffer is full")
}

/// The length of a memory area for the ring, which counts in 32 bits; a longer one is cut.
fn length(area: &[u8]) -> u32 {
    u32::try_from(area.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
