//! DHCPv4 for machines that boot: codec and decisions, with no I/O.
//!
//! - [`wire`] turns datagrams into messages and back.
//! - [`boot`] says what a machine is to load, by one table.
//!
//! Invariant: nothing here knows a socket, a file or a clock. Datagrams and moments come in,
//! effects go out.

pub mod boot;
pub mod wire;
