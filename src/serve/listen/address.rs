//! Listen addresses as text: `host:port`, `[v6]:port`, `:port` or `unix:/path`.

use std::fmt;
use std::net::Ipv6Addr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

use crate::limits::NBD_PORT;

/// What was asked for with `--listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A host name or address, without brackets; every address of this machine where it is empty.
    Tcp {
        /// Host name or address.
        host: String,
        /// TCP port; 0 for any free one.
        port: u16,
    },
    /// The file of a unix socket.
    Unix(PathBuf),
}

impl Default for ListenAddress {
    /// Loopback only: the wider world is the admin's decision.
    fn default() -> Self {
        Self::Tcp {
            host: "127.0.0.1".to_owned(),
            port: NBD_PORT,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a text is no listen address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ListenAddressError {
    /// There is no `:port`.
    #[error("no port: write host:port, as in {0}:{NBD_PORT}")]
    NoPort(String),
    /// What follows the last colon is no port.
    #[error("bad port {0:?}: a port is a number from 0 to 65535")]
    Port(String),
    /// What stands in brackets is no IPv6 address.
    #[error("bad IPv6 address {0:?}: write [address]:port, as in [::1]:{NBD_PORT}")]
    V6(String),
    /// Colons without brackets.
    #[error("several colons: write an IPv6 address in brackets, as in [::1]:{NBD_PORT}")]
    Brackets,
    /// `unix:` alone.
    #[error("no path: write unix:/path/of/the/socket")]
    NoPath,
}

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, ListenAddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(ListenAddressError::NoPath),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let (host, port) = split_port(text)?;
        Ok(Self::Tcp {
            host: parse_host(host)?,
            port: parse_port(port)?,
        })
    }
}

fn split_port(text: &str) -> Result<(&str, &str), ListenAddressError> {
    match text.rsplit_once(':') {
        // The last colon of `[::1]` belongs to the address.
        Some((host, port)) if !port.ends_with(']') => Ok((host, port)),
        _ => Err(ListenAddressError::NoPort(text.to_owned())),
    }
}

fn parse_host(host: &str) -> Result<String, ListenAddressError> {
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').unwrap_or(inner);
        // A scope (`fe80::1%lan0`) is the resolver's business.
        let address = inner.split_once('%').map_or(inner, |(address, _)| address);
        return match address.parse::<Ipv6Addr>() {
            Ok(_) if host.ends_with(']') => Ok(inner.to_owned()),
            _ => Err(ListenAddressError::V6(inner.to_owned())),
        };
    }
    if host.contains(':') {
        return Err(ListenAddressError::Brackets);
    }
    Ok(host.to_owned())
}

fn parse_port(port: &str) -> Result<u16, ListenAddressError> {
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let number = if digits { port.parse().ok() } else { None };
    number.ok_or_else(|| ListenAddressError::Port(port.to_owned()))
}

/// Writes `path` as the value of a URI's query.
pub(super) fn percent_encoded(path: &Path) -> String {
    let mut text = String::new();
    for &byte in path.as_os_str().as_bytes() {
        // RFC 3986, section 2.3: unreserved characters; and `/`, which a query may hold.
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tcp(host: &str, port: u16) -> Result<ListenAddress, ListenAddressError> {
        let host = host.to_owned();
        Ok(ListenAddress::Tcp { host, port })
    }

    #[test]
    fn every_form_is_read() {
        assert_eq!("localhost:10809".parse(), tcp("localhost", 10809));
        assert_eq!("0.0.0.0:0".parse(), tcp("0.0.0.0", 0));
        assert_eq!("[::1]:10809".parse(), tcp("::1", 10809));
        assert_eq!("[fe80::1%lan0]:1".parse(), tcp("fe80::1%lan0", 1));
        assert_eq!(":10809".parse(), tcp("", 10809));
        let unix = ListenAddress::Unix("/run/a:b".into());
        assert_eq!("unix:/run/a:b".parse(), Ok(unix));
    }

    #[test]
    fn the_default_is_loopback() {
        assert_eq!(ListenAddress::default().to_string(), "127.0.0.1:10809");
    }

    #[test]
    fn mistakes_are_named() {
        let refused = |text: &str| text.parse::<ListenAddress>().unwrap_err();
        assert!(refused("localhost").to_string().contains("localhost:10809"));
        assert!(matches!(refused("[::1]"), ListenAddressError::NoPort(_)));
        assert!(matches!(refused("::1:10809"), ListenAddressError::Brackets));
        assert!(matches!(refused("[x]:1"), ListenAddressError::V6(_)));
        assert!(matches!(refused("[::1:1"), ListenAddressError::V6(_)));
        assert!(matches!(refused("unix:"), ListenAddressError::NoPath));
        for port in ["", "65536", "+1", "-1", "nbd", " 1"] {
            let error = refused(&format!("host:{port}"));
            assert!(matches!(error, ListenAddressError::Port(_)), "{port:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_read_again(text in "[a:\\[\\]0-9%/.]{0,12}|unix:.{0,8}") {
            if let Ok(address) = text.parse::<ListenAddress>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }
}
