//! A small blocking NBD client, written from the protocol text and apart from the program's own
//! codec, so that the two check each other.

mod chunks;
mod expect;
mod handshake;
mod session;
mod wire;

pub(crate) use chunks::{Chunk, ChunkClient, Framing, Wide, assemble, context_data};
pub(crate) use expect::{assert_errno, assert_refused};
pub(crate) use handshake::{
    Handshake, IHAVEOPT, Refused, Reply, go_data, hasty, info, option, reply,
};
pub(crate) use session::{Client, Failure, Request, command, errno, flag};
pub(crate) use wire::{Address, Wire};
