//! What `cowherd-attach` is asked to do.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::limits::NBD_PORT;

/// A device of the kernel, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device(pub u32);

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nbd{}", self.0)
    }
}

/// A text that names no device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a device is named like nbd0 or /dev/nbd0")]
pub struct NoDevice;

impl FromStr for Device {
    type Err = NoDevice;

    fn from_str(text: &str) -> Result<Self, NoDevice> {
        let name = text.strip_prefix("/dev/").unwrap_or(text);
        let number = name.strip_prefix("nbd").ok_or(NoDevice)?;
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NoDevice);
        }
        number.parse().map(Self).map_err(|_| NoDevice)
    }
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// A name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A text that names no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a server is HOST, HOST:PORT, or [ADDRESS]:PORT for an address of IPv6")]
pub struct NoServer;

impl FromStr for Server {
    type Err = NoServer;

    fn from_str(text: &str) -> Result<Self, NoServer> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, behind) = rest.split_once(']').ok_or(NoServer)?;
                let port = behind.strip_prefix(':');
                if port.is_none() && !behind.is_empty() {
                    return Err(NoServer);
                }
                (host, port)
            }
            // A bare address of IPv6 has more than one colon, and no port.
            None if text.matches(':').count() > 1 => (text, None),
            None => text
                .split_once(':')
                .map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map(str::parse).transpose().map_err(|_| NoServer)?;
        if host.is_empty() || host.contains(['/', '[', ']', '@']) {
            return Err(NoServer);
        }
        Ok(Self {
            host: host.to_owned(),
            port: port.unwrap_or(NBD_PORT),
        })
    }
}

/// A device to attach, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// The device.
    pub device: Device,
    /// The export, as the server knows it.
    pub export: String,
    /// The servers, the best first.
    pub servers: Vec<Server>,
    /// Connections to use, where the server allows more than one.
    pub connections: u16,
    /// Bytes of a sector.
    pub sector: u16,
    /// How long to try before the device is there.
    pub wait: Duration,
    /// After how long a request without an answer is looked at.
    pub resend: Duration,
    /// Whether to stay in the foreground, and to log to standard error.
    pub foreground: bool,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Attach a device and stay.
    Attach(Attach),
    /// Say how a device is.
    Status(Device),
    /// Detach a device.
    Detach {
        /// The device.
        device: Device,
        /// Also where it is in use, and without waiting for what was not written yet.
        force: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> Option<(String, u16)> {
        let server: Server = text.parse().ok()?;
        Some((server.host, server.port))
    }

    #[test]
    fn servers_are_read_with_and_without_a_port() {
        let of = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(server("10.77.0.1"), of("10.77.0.1", 10809));
        assert_eq!(server("herd.example:10810"), of("herd.example", 10810));
        assert_eq!(server("fd00::1"), of("fd00::1", 10809));
        assert_eq!(server("[fd00::1]:1"), of("fd00::1", 1));
        assert_eq!(server("[fd00::1]"), of("fd00::1", 10809));
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for text in ["", ":1", "a:", "a:b", "[::1", "[::1]1", "nbd://a/b", "a@b"] {
            assert_eq!(server(text), None, "{text}");
        }
    }

    #[test]
    fn servers_are_shown_as_they_are_read() {
        for text in ["10.77.0.1:10809", "[fd00::1]:10809", "herd:1"] {
            assert_eq!(text.parse::<Server>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn devices_are_read_with_and_without_their_folder() {
        assert_eq!("/dev/nbd15".parse(), Ok(Device(15)));
        assert_eq!("nbd0".parse(), Ok(Device(0)));
        for text in ["", "nbd", "nbd+1", "nbd0p1", "/dev/sda", "nbd99999999999"] {
            assert_eq!(text.parse::<Device>(), Err(NoDevice), "{text}");
        }
    }
}
