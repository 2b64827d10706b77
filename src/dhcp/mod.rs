//! DHCPv4 for machines that boot: codec and decisions, with no I/O.
//!
//! - [`wire`] turns datagrams into messages and back.
//! - [`settings`] is what the config says, checked.
//! - [`boot`] says what a machine is to load, by one table.
//! - [`lease`] knows which address is whose.
//! - [`server`] says what each message is answered, and why.
//!
//! Invariant: nothing here knows a socket, a file or a clock. Datagrams and moments come in,
//! effects go out.

pub mod boot;
pub mod lease;
mod moment;
pub mod server;
pub mod settings;
pub mod wire;

pub use moment::Moment;
