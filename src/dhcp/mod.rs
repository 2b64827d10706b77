//! DHCPv4 for machines that boot: codec and decisions, with no I/O.
//!
//! - [`wire`] turns datagrams into messages and back.
//! - [`settings`] is what the config says, checked.
//! - [`boot`] says what a machine is to load, by one table.
//!
//! Invariant: nothing here knows a socket, a file or a clock. Datagrams and moments come in,
//! effects go out.

pub mod boot;
pub mod settings;
pub mod wire;
