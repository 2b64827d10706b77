//! `cowherd-attach`, the client's side: a block device of the kernel over a server's export, kept
//! through outages of the server.
//!
//! - [`wire`] is what is said to the kernel; pure.
//! - [`handshake`] leads to an export, [`export`] tells whether two are the same; pure.
//! - [`pace`] and [`outage`] say when to try again; pure.
//! - `start` is the process that a user starts, `resident` the one that it leaves behind. `dial`
//!   makes connections and `connections` has those that the kernel was given, `kernel` is asked and
//!   tells, `control` is how the one process asks the other, `memory` keeps it off the disk.
//!
//! Invariant: what runs while a device is attached uses one thread, opens no file of a disk and
//! asks no name server: the root file system may hang on the very device that it is to bring back.

mod connections;
pub mod control;
mod dial;
pub mod export;
pub mod handshake;
mod kernel;
mod log;
mod memory;
pub mod options;
pub mod outage;
pub mod pace;
mod resident;
mod show;
mod start;
pub mod wire;

pub use start::run;
