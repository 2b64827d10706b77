//! A new server takes everything over from the one that runs, and no connection breaks.
//!
//! - [`wire`] is what they say to each other, `line` how it gets across; `steps` is what the old
//!   one does next, as a pure machine. `give` is the old one's side, `take` the new one's, and
//!   `terms` what sessions are in words of both. `sabotage` breaks the new one on purpose.
//!
//! The order of things. The new one asks on the control socket, and gets the sockets that the old
//! one serves on: to have them is no harm as long as only one reads. It prepares what it can, while
//! the old one serves. Then it says `freeze`: the old one stops its sessions between two requests,
//! flushes and closes all overlays, and hands over sessions and the lock. The new one opens the
//! overlays, reads the leases, and says `prepared`. The old one says `yours`.
//!
//! Invariants:
//! - The point of no return is one receive of the new server: the one that takes `yours` off the
//!   socket. If the new one ends before it, however that comes, the old one goes on with all its
//!   sessions. The kernel tells which it was: a socket that was closed with something unread in its
//!   queue tells its peer so.
//! - Never do two write: the old one opens no overlay again before the new one's end of the socket
//!   is closed, and the new one keeps that open until its process has ended. One that takes too
//!   long is killed.
//! - Behind that point the old one goes on only without the sessions that it has handed over: what
//!   was read of their connections is not known. They are closed.

mod give;
mod line;
mod sabotage;
pub mod steps;
mod take;
mod terms;
pub mod wire;

pub(super) use give::{Ending, Giving, Shown, Successor, show};
pub(super) use take::{Given, Predecessor, Prepared, Taken, Taking, source_of, suspended_of};
pub(super) use terms::session_words;
pub(super) use wire::FORMAT;
