//! TLS between the protocol and its sockets, by rustls, with certificates.
//!
//! - [`credentials`] reads certificates and keys from files.
//! - [`channel`] is one end of one connection: bytes of the network in and bytes of the protocol
//!   out, and the other way. It does no I/O.
//! - `identity` finds the name in a client's certificate.
//!
//! Invariants: no session is resumed, so that a certificate is looked at with every connection; a
//! connection keeps the credentials that it began with.

pub mod channel;
pub mod credentials;
mod identity;

#[cfg(test)]
mod tests;

pub use channel::{Channel, Reading, TlsError};
pub use credentials::{Credentials, CredentialsError, Files};
