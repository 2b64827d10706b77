//! Where a server is and which of its exports is meant, as URIs say it.
//!
//! Source: the NBD project's `doc/uri.md`, without the TLS schemes.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use thiserror::Error;

use crate::limits::NBD_PORT;

/// What stands for the number of a client in the name of an export.
pub const NUMBER: &str = "{}";

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A host, by name or address, and a port.
    Tcp(String, u16),
    /// A socket file.
    Unix(PathBuf),
}

/// An export of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where the server is.
    pub place: Place,
    /// The name, in which [`NUMBER`] is the client's.
    pub export: String,
}

/// Why a text is no URI of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    /// It begins otherwise.
    #[error("not a URI of NBD: write nbd://HOST/EXPORT or nbd+unix:///EXPORT?socket=PATH")]
    Scheme,
    /// TLS is asked for.
    #[error("TLS is not spoken here: name an export that is served without")]
    Tls,
    /// No file is named.
    #[error("no socket is named: write nbd+unix:///EXPORT?socket=PATH")]
    NoSocket,
    /// The port is no number.
    #[error("the port is no number up to 65535")]
    Port,
    /// It has no host.
    #[error("no host is named: write nbd://HOST/EXPORT")]
    NoHost,
    /// What is behind the % signs is no text.
    #[error("it is not UTF-8")]
    Text,
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        match text.split_once("://").ok_or(TargetError::Scheme)? {
            ("nbd", rest) => tcp(rest),
            ("nbd+unix", rest) => unix(rest),
            ("nbds" | "nbds+unix", _) => Err(TargetError::Tls),
            _ => Err(TargetError::Scheme),
        }
    }
}

fn tcp(rest: &str) -> Result<Target, TargetError> {
    let (rest, _) = rest.split_once('?').unwrap_or((rest, ""));
    let (host, export) = rest.split_once('/').unwrap_or((rest, ""));
    // An IPv6 address has brackets around it, since it has colons of its own.
    let after = host.find(']').map_or(0, |bracket| bracket + 1);
    let colon = host.get(after..).and_then(|end| end.find(':'));
    let (host, port) = match colon.map(|colon| host.split_at(after + colon)) {
        Some((host, port)) => {
            let port = port.trim_start_matches(':').parse();
            (host, port.map_err(|_| TargetError::Port)?)
        }
        None => (host, NBD_PORT),
    };
    let host = decoded(host.trim_start_matches('[').trim_end_matches(']'))?;
    if host.is_empty() {
        return Err(TargetError::NoHost);
    }
    let place = Place::Tcp(host, port);
    let export = decoded(export)?;
    Ok(Target { place, export })
}

fn unix(rest: &str) -> Result<Target, TargetError> {
    let (path, query) = rest.split_once('?').ok_or(TargetError::NoSocket)?;
    let socket = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("socket="));
    let socket = decoded(socket.ok_or(TargetError::NoSocket)?)?;
    let place = Place::Unix(socket.into());
    let export = decoded(path.strip_prefix('/').unwrap_or(path))?;
    Ok(Target { place, export })
}

fn decoded(text: &str) -> Result<String, TargetError> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(Into::into).map_err(|_| TargetError::Text)
}

impl Target {
    /// The name of the export that client `number` opens.
    #[must_use]
    pub fn export_of(&self, number: usize) -> String {
        self.export.replace(NUMBER, &number.to_string())
    }

    /// Whether each client has an export of its own.
    #[must_use]
    pub fn is_each_their_own(&self) -> bool {
        self.export.contains(NUMBER)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp(host, port) if host.contains(':') => write!(f, "nbd://[{host}]:{port}/")?,
            Place::Tcp(host, port) => write!(f, "nbd://{host}:{port}/")?,
            Place::Unix(path) => return write!(f, "{} of {}", self.export, path.display()),
        }
        f.write_str(&self.export)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over_tcp(host: &str, port: u16, export: &str) -> Result<Target, TargetError> {
        Ok(Target {
            place: Place::Tcp(host.to_owned(), port),
            export: export.to_owned(),
        })
    }

    #[test]
    fn hosts_ports_and_exports_are_read() {
        for (text, meant) in [
            ("nbd://localhost", over_tcp("localhost", 10809, "")),
            ("nbd://10.0.0.1:99/a@b", over_tcp("10.0.0.1", 99, "a@b")),
            ("nbd://[::1]:99/a", over_tcp("::1", 99, "a")),
            ("nbd://[fe80::1]/a%20b", over_tcp("fe80::1", 10809, "a b")),
            ("nbd://h/a/b", over_tcp("h", 10809, "a/b")),
            ("nbd://h:70000/a", Err(TargetError::Port)),
            ("nbd:///a", Err(TargetError::NoHost)),
            ("nbds://h/a", Err(TargetError::Tls)),
            ("http://h/a", Err(TargetError::Scheme)),
            ("disk.img", Err(TargetError::Scheme)),
            ("nbd://h/%ff", Err(TargetError::Text)),
        ] {
            assert_eq!(text.parse(), meant, "{text}");
        }
    }

    #[test]
    fn a_socket_file_is_named_in_the_query() {
        let target: Target = "nbd+unix:///disk@a?socket=/tmp/a%20b".parse().unwrap();
        assert_eq!(target.place, Place::Unix("/tmp/a b".into()));
        assert_eq!(target.export, "disk@a");
        assert_eq!(
            "nbd+unix:///disk".parse::<Target>(),
            Err(TargetError::NoSocket)
        );
    }

    #[test]
    fn clients_may_have_exports_of_their_own() {
        let target: Target = "nbd://h/disk@bench-{}".parse().unwrap();
        assert!(target.is_each_their_own());
        assert_eq!(target.export_of(7), "disk@bench-7");
    }
}
