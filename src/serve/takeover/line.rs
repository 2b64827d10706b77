//! Messages of a take-over on the socket between the two servers.
//!
//! It blocks: whoever has a runtime to keep going does this beside it.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::wire::{HEAD_BYTES, Head, Message, NoMessage};
use crate::io::{receive_passing, send_passing};

/// One end of the socket.
#[derive(Debug)]
pub(super) struct Line(UnixStream);

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub(super) enum Silence {
    /// The other server has ended.
    #[error("the other server has ended")]
    Ended {
        /// With something that it was told still in its queue.
        is_unread: bool,
    },
    /// It has taken longer than it may.
    #[error("the other server takes too long")]
    Late,
    /// It says what can't be understood.
    #[error("what the other server says can't be understood: {0}")]
    Nonsense(#[from] NoMessage),
    /// The socket failed.
    #[error("the socket to the other server: {0}")]
    Failed(io::Error),
}

impl From<io::Error> for Silence {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // unix(7): the peer has closed, with unread data in its queue.
            io::ErrorKind::ConnectionReset => Self::Ended { is_unread: true },
            io::ErrorKind::BrokenPipe => Self::Ended { is_unread: true },
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Late,
            _ => Self::Failed(error),
        }
    }
}

impl Line {
    /// A line over a connected socket.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        Ok(Self(stream))
    }

    pub(super) const fn socket(&self) -> &UnixStream {
        &self.0
    }

    /// How long the other one may take from now on for anything; for ever with `None`.
    pub(super) fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        self.0.set_read_timeout(patience)?;
        self.0.set_write_timeout(patience)
    }

    /// Says something, with a descriptor where one belongs to it.
    pub(super) fn say(
        &self,
        message: &Message,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(), Silence> {
        debug_assert_eq!(message.descriptors(), usize::from(descriptor.is_some()));
        let bytes = message.write()?;
        Ok(send_passing(&self.0, &bytes, descriptor.as_slice())?)
    }

    /// Hears the next message, and its descriptor where it has one.
    pub(super) fn hear(&self) -> Result<(Message, Option<OwnedFd>), Silence> {
        let mut passed = Vec::new();
        let mut head = [0; HEAD_BYTES];
        self.fill(&mut head, &mut passed)?;
        let Head { text, bytes } = Head::read(head)?;
        let (mut text, mut bytes) = (vec![0; text], vec![0; bytes]);
        self.fill(&mut text, &mut passed)?;
        self.fill(&mut bytes, &mut passed)?;
        let message = Message::read(&text, bytes)?;
        if passed.len() != message.descriptors() {
            return Err(NoMessage::Text("a descriptor is missing".to_owned()).into());
        }
        Ok((message, passed.pop()))
    }

    fn fill(&self, mut into: &mut [u8], passed: &mut Vec<OwnedFd>) -> Result<(), Silence> {
        while !into.is_empty() {
            let count = receive_passing(&self.0, into, passed)?;
            if count == 0 {
                return Err(Silence::Ended { is_unread: false });
            }
            into = into.get_mut(count..).unwrap_or_default();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;
    use crate::serve::takeover::wire::Door;

    fn lines() -> (Line, Line) {
        let (one, other) = UnixStream::pair().unwrap();
        (Line::new(one).unwrap(), Line::new(other).unwrap())
    }

    #[test]
    fn messages_arrive_one_by_one_each_with_its_descriptor() {
        let (old, new) = lines();
        let door = Message::Door(Door::Tftp);
        old.say(&door, Some(old.socket().as_fd())).unwrap();
        old.say(&Message::Shown, None).unwrap();
        let (heard, descriptor) = new.hear().unwrap();
        assert_eq!((heard, descriptor.is_some()), (door, true));
        let (heard, descriptor) = new.hear().unwrap();
        assert_eq!((heard, descriptor.is_some()), (Message::Shown, false));
    }

    #[test]
    fn a_message_without_its_descriptor_is_none() {
        let (old, new) = lines();
        let bytes = Message::Door(Door::Tftp).write().unwrap();
        old.socket().write_all(&bytes).unwrap();
        assert!(matches!(new.hear(), Err(Silence::Nonsense(_))));
    }

    #[test]
    fn who_ends_before_it_has_read_all_is_told_from_who_has() {
        let end = |is_read: bool| {
            let (old, new) = lines();
            old.say(&Message::Yours, None).unwrap();
            if is_read {
                new.hear().unwrap();
            }
            drop(new);
            matches!(old.hear(), Err(Silence::Ended { is_unread }) if is_unread != is_read)
        };
        assert!(end(true));
        assert!(end(false));
    }

    #[test]
    fn who_takes_too_long_is_told_from_who_has_ended() {
        let (old, _new) = lines();
        old.set_patience(Some(Duration::from_millis(1))).unwrap();
        assert!(matches!(old.hear(), Err(Silence::Late)));
    }
}
