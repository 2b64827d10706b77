//! The admin's listener: metrics, an API, a stream of what changes, and a page.
//!
//! Invariants:
//! - It is served only where the config says so. Without a token it listens on loopback alone, and
//!   answers only those who call it by a number or `localhost`, so that no name on the Internet can
//!   be made to point here.
//! - With a token, nothing that is known of a machine is told without it.
//! - Nothing is changed without a token, nor without a header that no form of another site can
//!   send.
//! - Connections, their requests and what is held for them are bounded.

mod api;
mod door;
mod page;
mod reply;
mod stream;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use socket2::{Domain, Socket, Type};
use tokio::task::JoinSet;

use super::control::Workshop;
use super::dhcp::Steward;
use super::herd::Herd;
use super::options::Failure;
use crate::config::AdminConfig;
use crate::limits::{ADMIN_TOKEN_MAX, ADMIN_TOKEN_MIN};

/// Connections that wait to be taken.
const ADMIN_BACKLOG: i32 = 128;

/// What it needs, opened, and nothing served yet.
#[derive(Debug)]
pub(super) struct Opened {
    sockets: Vec<TcpListener>,
    token: Option<Token>,
}

/// What an admin has to know.
#[derive(Clone)]
pub(super) struct Token(Arc<[u8]>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    fn read(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let failed = |what: String| Failure::failed(format!("token of [admin], {shown}: {what}"));
        let text = std::fs::read_to_string(path).map_err(|error| {
            failed(format!(
                "{error}; name a file that the server can read as `token-file`"
            ))
        })?;
        let text = text.trim();
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain || !(ADMIN_TOKEN_MIN..=ADMIN_TOKEN_MAX).contains(&text.len()) {
            return Err(failed(format!(
                "it must be {ADMIN_TOKEN_MIN} to {ADMIN_TOKEN_MAX} letters, digits and signs; \
                 make one with `openssl rand -hex 32`"
            )));
        }
        Ok(Self(text.as_bytes().into()))
    }

    /// Whether it is the same, in a time that does not tell how much of it is.
    fn is(&self, said: &[u8]) -> bool {
        let differs = self.0.iter().zip(said).fold(0, |all, (a, b)| all | (a ^ b));
        self.0.len() == said.len() && differs == 0
    }
}

/// All that requests are answered from.
#[derive(Debug)]
pub(super) struct Office {
    herd: Arc<Herd>,
    /// `None` where no overlays are kept.
    workshop: Option<Workshop>,
    token: Option<Token>,
}

/// Whether the token of a config can be used.
pub(super) fn check(config: &AdminConfig) -> Result<(), Failure> {
    let token = config.token_file.as_deref();
    token.map(Token::read).transpose().map(drop)
}

/// A listener that another one of this user can stand beside: in a take-over there are two for a
/// moment.
fn bind_beside(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(ADMIN_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl Opened {
    /// Opens the sockets and reads the token.
    pub(super) fn open(config: &AdminConfig) -> Result<Self, Failure> {
        let token = config.token_file.as_deref().map(Token::read).transpose()?;
        let bind = |address: &SocketAddr| {
            bind_beside(*address).map_err(|error| {
                Failure::failed(format!(
                    "admin on {address}: {error}; choose another `listen` in [admin]"
                ))
            })
        };
        let sockets = config.listen.iter().map(bind);
        Ok(Self {
            sockets: sockets.collect::<Result<_, _>>()?,
            token,
        })
    }

    /// Says where it is.
    pub(super) fn announce(&self, out: &mut impl Write) -> io::Result<()> {
        for socket in &self.sockets {
            writeln!(out, "admin on http://{}/", socket.local_addr()?)?;
        }
        Ok(())
    }

    /// Serves until the tasks are dropped. Inside of a runtime only.
    pub(super) fn start(self, herd: &Arc<Herd>, dhcp: Option<Steward>) -> io::Result<JoinSet<()>> {
        let office = Arc::new(Office {
            workshop: Workshop::of_server(Arc::clone(herd), dhcp),
            herd: Arc::clone(herd),
            token: self.token,
        });
        let mut doors = JoinSet::new();
        for socket in self.sockets {
            let socket = tokio::net::TcpListener::from_std(socket)?;
            doors.spawn(door::accept(socket, Arc::clone(&office)));
        }
        Ok(doors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_same_or_it_is_not() {
        let token = Token(b"0123456789abcdef"[..].into());
        assert!(token.is(b"0123456789abcdef"));
        for other in [
            &b"0123456789abcdeg"[..],
            b"0123456789abcde",
            b"",
            b"0123456789abcdef0",
        ] {
            assert!(!token.is(other));
        }
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[test]
    fn a_token_that_is_easily_guessed_is_not_taken() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("token");
        for (text, is_good) in [
            ("short", false),
            ("0123456789abcdef\n", true),
            ("a b c d e f g h i j", false),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Token::read(&path).is_ok(), is_good, "{text:?}");
        }
    }
}
