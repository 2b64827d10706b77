//! Sockets and plain bytes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};

use crate::support::PATIENCE;

/// Where a server listens.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    /// From `nbd://ip:port/...` or `nbd+unix:///...?socket=path`.
    pub(crate) fn of_uri(uri: &str) -> Self {
        if let Some(rest) = uri.strip_prefix("nbd://") {
            let host = rest.split('/').next().unwrap_or(rest);
            return Self::Tcp(host.parse().expect("an address and a port"));
        }
        match uri.split_once("socket=") {
            Some((_, path)) => Self::Unix(PathBuf::from(path)),
            None => panic!("neither TCP nor a socket: {uri}"),
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A connection as a pipe of bytes, on which nothing can wait for ever.
pub(crate) struct Wire(Stream);

impl Wire {
    pub(crate) fn connect(address: &Address) -> io::Result<Self> {
        let wire = Self(match address {
            Address::Tcp(at) => Stream::Tcp(TcpStream::connect(at)?),
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
        });
        wire.set_limit(Some(PATIENCE))?;
        Ok(wire)
    }

    fn set_limit(&self, limit: Option<Duration>) -> io::Result<()> {
        match &self.0 {
            Stream::Tcp(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(limit)?;
                stream.set_write_timeout(limit)
            }
            Stream::Unix(stream) => {
                stream.set_read_timeout(limit)?;
                stream.set_write_timeout(limit)
            }
            // It was set before there was TLS.
            Stream::Tls(_) => Ok(()),
        }
    }

    /// The same connection through TLS, once the two sides have agreed on keys.
    pub(crate) fn secured(self, mut tls: ClientConnection) -> io::Result<Self> {
        let Stream::Tcp(mut stream) = self.0 else {
            panic!("TLS over TCP only");
        };
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        let secured = StreamOwned::new(tls, stream);
        Ok(Self(Stream::Tls(Box::new(secured))))
    }

    /// The certificate of the server, where there is TLS.
    pub(crate) fn certificate(&self) -> Option<Vec<u8>> {
        let Stream::Tls(stream) = &self.0 else {
            return None;
        };
        let shown = stream.conn.peer_certificates()?.first()?;
        Some(shown.to_vec())
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Exactly `len` bytes.
    pub(crate) fn receive(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        match &mut self.0 {
            Stream::Tcp(stream) => stream.read_exact(&mut bytes)?,
            Stream::Unix(stream) => stream.read_exact(&mut bytes)?,
            Stream::Tls(stream) => stream.read_exact(&mut bytes)?,
        }
        Ok(bytes)
    }

    pub(crate) fn receive_u16(&mut self) -> io::Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn receive_u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn receive_u64(&mut self) -> io::Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let bytes = self.receive(N)?;
        Ok(bytes.try_into().expect("N bytes were received"))
    }

    /// Waits until the server has closed; panics when it goes on talking or stays silent.
    #[track_caller]
    pub(crate) fn assert_closed(&mut self) {
        match self.receive(1) {
            Err(error) if is_close(&error) => {}
            Err(error) => panic!("the connection is still open: {error}"),
            Ok(byte) => panic!("more than was expected: {byte:02x?}"),
        }
    }

    /// Ends the connection with a reset, as a machine does that lost its power and came back.
    pub(crate) fn reset(self) {
        if let Stream::Tcp(stream) = &self.0 {
            socket2::SockRef::from(stream)
                .set_linger(Some(Duration::ZERO))
                .expect("a socket can be told to reset");
        }
    }
}

/// Whether an error means that the other side has gone.
pub(crate) fn is_close(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}
