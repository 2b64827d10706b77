//! `cowherd-attach`, the client's side: a block device of the kernel over a server's export, kept
//! through outages of the server.
//!
//! - [`wire`] is what is said to the kernel; pure.
//! - [`handshake`] leads to an export, [`export`] tells whether two are the same; pure.
//! - [`pace`] says when to try again; pure.
//!
//! Invariant: what runs while a device is attached uses one thread, opens no file of a disk and
//! asks no name server: the root file system may hang on the very device that it is to bring back.

pub mod export;
pub mod handshake;
pub mod pace;
pub mod wire;
