//! The server's end of one TLS connection, without I/O.
//!
//! The driver's turn: give what came from the network to [`Channel::handle_received`], take what
//! the client said with [`Channel::read`], say something with [`Channel::write`], and send all that
//! [`Channel::poll_transmit`] returns; do that also after an error, which the client is told.
//!
//! Invariants: what is read was authenticated; nothing is held that was not bounded by what was
//! given: what came and is not yet read is at most some records.

use std::fmt;
use std::io::{ErrorKind, Read, Write};

use rustls::ServerConnection;
use thiserror::Error;

use super::identity;

/// Why a connection can't go on.
#[derive(Debug, Error)]
pub enum TlsError {
    /// What rustls found wrong with what came.
    #[error("TLS: {0}")]
    Protocol(#[from] rustls::Error),
    /// The certificate is good, and says nothing that we could know the client by.
    #[error("TLS: the client's certificate has neither one common name nor one DNS name")]
    Nameless,
}

/// What there is to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// So many bytes, at least one, were put into the buffer.
    Bytes(usize),
    /// Nothing, until more is received.
    Nothing,
    /// The client has said that it says no more.
    End,
}

/// One connection.
pub struct Channel {
    /// It is large, and goes from hand to hand.
    connection: Box<ServerConnection>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").finish_non_exhaustive()
    }
}

impl Channel {
    pub(super) fn new(connection: ServerConnection) -> Self {
        let mut connection = Box::new(connection);
        // What is written is bounded by the driver, who takes it out at once.
        connection.set_buffer_limit(None);
        Self { connection }
    }

    /// Whether the two sides still agree on keys.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// The name in the client's certificate; `None` where it has shown none.
    ///
    /// # Errors
    /// [`TlsError::Nameless`].
    pub fn certificate_name(&self) -> Result<Option<String>, TlsError> {
        let shown = self.connection.peer_certificates().and_then(<[_]>::first);
        let Some(certificate) = shown else {
            return Ok(None);
        };
        let name = identity::name_in(certificate).ok_or(TlsError::Nameless)?;
        Ok(Some(name))
    }

    /// Takes bytes of the network and returns how many: all of them, unless there is something to
    /// be read first.
    ///
    /// # Errors
    /// What is wrong with them. The connection is over then, but for what is to be transmitted.
    pub fn handle_received(&mut self, bytes: &[u8]) -> Result<usize, TlsError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.connection.read_tls(&mut rest) {
                Ok(_) => {
                    self.connection.process_new_packets()?;
                }
                // rustls has no room before something is read.
                Err(_) => break,
            }
        }
        Ok(bytes.len() - rest.len())
    }

    /// Reads what the client said into the front of `buffer`, which is not empty.
    pub fn read(&mut self, buffer: &mut [u8]) -> Reading {
        match self.connection.reader().read(buffer) {
            Ok(0) => Reading::End,
            Ok(count) => Reading::Bytes(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Reading::Nothing,
            // The stream was cut without a good-bye: as with a plain connection.
            Err(_) => Reading::End,
        }
    }

    /// Says something to the client: it is transmitted next.
    pub fn write(&mut self, bytes: &[u8]) {
        let written = self.connection.writer().write_all(bytes);
        debug_assert!(written.is_ok(), "memory takes everything");
    }

    /// Says that nothing more is said.
    pub fn close(&mut self) {
        self.connection.send_close_notify();
    }

    /// Appends what is to be sent over the network.
    pub fn poll_transmit(&mut self, into: &mut Vec<u8>) {
        while self.connection.wants_write() {
            let written = self.connection.write_tls(into);
            debug_assert!(written.is_ok(), "memory takes everything");
        }
    }
}
