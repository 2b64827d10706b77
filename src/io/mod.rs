//! The only code that names the ring: sockets, gathered sends and file reads by io_uring. Beside it
//! the datagrams and packets of DHCP and TFTP (`datagram`, `segments`, `packet`, `ear`, `echo`,
//! `interface`), which an ordinary runtime watches, and what `cowherd-attach` asks of the kernel
//! (`netlink`, `signals`).
//!
//! Everything of the ring belongs to one thread, a shard, and is not `Send`. The rules that keep
//! it sound:
//! - An operation owns all memory and the descriptor that the kernel uses for it, and gives them up
//!   only after its completion, also when its future was dropped. `ring` sees to that, for all.
//! - Dropping a future does not cancel its operation. A receive or send that is dropped half-way
//!   has lost or sent bytes that nobody counted, so [`Socket`] shuts the connection down. A receive
//!   is ended by [`Socket::shutdown`], never by `select!` or a time-out around it.
//! - A task of a shard gives way by [`yield_now`] of this module. With tokio's own, submissions
//!   would stay where they are for as long as any task does so.
//! - Image bytes are named by address only, and read by nobody but the kernel.

#![allow(
    unsafe_code,
    reason = "raw submissions and their memory live here, each block with its SAFETY line"
)]

mod buffer;
mod datagram;
mod ear;
mod echo;
mod file;
mod gather;
pub mod interface;
mod memory;
mod netlink;
mod packet;
mod passing;
mod receive;
mod ring;
mod segments;
pub mod signals;
mod socket;
mod writer;

pub use buffer::{Buffer, BufferTooLarge, Pool};
pub use datagram::{Batch, DatagramSocket, Datagrams, Envelope};
pub use ear::{EAR_BYTES, Ear, EarSocket, Hears};
pub use echo::{EchoProbe, EchoSocket};
pub use file::{CutShort, Way, read_at, write_at};
pub use gather::{Gather, Mapped, OutOfRange};
pub use netlink::NetlinkSocket;
pub use packet::{ArpProbe, ArpSocket, CardSender, Heard, RoutedSender};
pub use passing::{PASSED_TOGETHER_MAX, inherited_descriptor, receive_passing, send_passing};
pub use receive::ReceiveBuffer;
pub use ring::{give_way, offload, run, spawn, yield_now};
pub use segments::Conversation;
pub use socket::{SendError, Socket};
