//! DHCPv4 for machines that boot: codec and decisions, with no I/O.
//!
//! - [`wire`] turns datagrams into messages and back.
//!
//! Invariant: nothing here knows a socket, a file or a clock. Datagrams and moments come in,
//! effects go out.

pub mod wire;
