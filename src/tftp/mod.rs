//! TFTP for machines that boot (RFC 1350, 2347, 2348, 2349, 7440): reads only, with no I/O.
//!
//! - [`wire`] turns datagrams into packets and back.
//! - [`name`] makes a path of what a client calls a file.
//! - [`terms`] agrees on the options of a request.
//! - [`transfer`] sends one file to one client.
//! - [`netascii`] is the text mode.
//!
//! Invariant: nothing here knows a socket, a file or a clock. Datagrams and moments come in,
//! packets to send go out.

pub mod name;
pub mod netascii;
pub mod terms;
pub mod transfer;
pub mod wire;
