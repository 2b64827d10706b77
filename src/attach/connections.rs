//! The connections that the kernel was given, of which this process keeps a descriptor each, to see
//! when they end.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What shows that a connection is at its end.
const ENDS: PollFlags = PollFlags::RDHUP.union(PollFlags::HUP).union(PollFlags::ERR);

#[derive(Debug)]
struct Connection {
    socket: TcpStream,
    ended: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Connections(Vec<Connection>);

/// What there is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Woken {
    /// The kernel tells something.
    pub(super) news: bool,
    /// Somebody asks something.
    pub(super) question: bool,
    /// A connection has ended that had not before.
    pub(super) ended: bool,
}

impl Connections {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn ended(&self) -> usize {
        self.0.iter().filter(|one| one.ended).count()
    }

    pub(super) fn alive(&self) -> usize {
        self.count() - self.ended()
    }

    /// One more.
    pub(super) fn add(&mut self, socket: TcpStream) {
        self.0.push(Connection {
            socket,
            ended: false,
        });
    }

    /// Takes the place of one that has ended; where none has, it is let go.
    pub(super) fn replace(&mut self, socket: TcpStream) {
        if let Some(place) = self.0.iter_mut().find(|one| one.ended) {
            *place = Connection {
                socket,
                ended: false,
            };
        }
    }

    /// The descriptors, as they are told to the kernel.
    pub(super) fn descriptors(&self) -> Vec<i32> {
        let all = self.0.iter();
        all.map(|one| one.socket.as_raw_fd()).collect()
    }

    /// Waits until something happens, for `time` at most.
    pub(super) fn wait(
        &mut self,
        news: BorrowedFd<'_>,
        door: BorrowedFd<'_>,
        time: Option<Duration>,
    ) -> io::Result<Woken> {
        let mut watched = vec![
            PollFd::from_borrowed_fd(news, PollFlags::IN),
            PollFd::from_borrowed_fd(door, PollFlags::IN),
        ];
        // One that has ended would be ready for ever.
        let live = self.0.iter().filter(|one| !one.ended);
        watched.extend(live.map(|one| PollFd::from_borrowed_fd(one.socket.as_fd(), ENDS)));
        let time = time.and_then(|time| Timespec::try_from(time).ok());
        match poll(&mut watched, time.as_ref()) {
            // A signal that is ignored interrupts nothing, but a debugger does.
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = watched
            .iter()
            .map(|one| !one.revents().is_empty())
            .collect();
        let mut ready = ready.into_iter();
        let mut woken = Woken {
            news: ready.next() == Some(true),
            question: ready.next() == Some(true),
            ended: false,
        };
        let live = self.0.iter_mut().filter(|one| !one.ended);
        for (one, ended) in live.zip(ready) {
            one.ended = ended;
            woken.ended |= ended;
        }
        Ok(woken)
    }
}
