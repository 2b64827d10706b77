//! The options of `cowherd serve`, as typed by people ([`Arguments`]) and as checked ([`Options`]).

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use crate::limits::SHARDS_MAX;

/// Serves disk images over NBD, each client on its own copy-on-write overlay
///
/// `cowherd serve disk.img` serves the image `disk` on 127.0.0.1:10809 with no configuration and no
/// privileges. It prints one line for each address it listens on, then `ready`. A client opens
/// `disk@NAME` and gets a disk of its own: it starts as the image, and what the client writes is
/// there again after a reconnect, a restart or a crash of the server.
///
/// SIGTERM and SIGINT end it cleanly: requests in flight are finished, overlays are flushed.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Disk images to serve: raw files or block devices
    ///
    /// An image is served under the name of its file without the last extension: `arch.img` is
    /// `arch`. It is opened read-only and never written. Its size need not be a multiple of
    /// anything. Images of one name can't be served together.
    #[arg(value_name = "IMAGE", required_unless_present = "demo")]
    images: Vec<PathBuf>,

    /// Make a small disk image, serve it as `disk`, and print what to try
    ///
    /// The image holds a FAT file system with a few files. Nothing else is needed: no image, no
    /// privileges, no configuration.
    #[arg(long, conflicts_with = "images")]
    demo: bool,

    /// Where to listen: HOST:PORT, [V6]:PORT or unix:/PATH; may be repeated
    ///
    /// Without it, and without sockets handed over by systemd (LISTEN_FDS), that is
    /// 127.0.0.1:10809. Everybody who reaches the address can open any export: there is no
    /// encryption and no login yet. Port 0 takes a free port and prints which.
    #[arg(long, value_name = "ADDR")]
    listen: Vec<Listen>,

    /// Directory that keeps the overlays
    ///
    /// It is made where it is missing. One server at a time uses a state directory. Without the
    /// option it is $XDG_STATE_HOME/cowherd, or ~/.local/state/cowherd where that is unset.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    /// Number of threads that move data
    ///
    /// All connections of one client are served by one of them. Without the option there is one
    /// for each processor the program may use.
    #[arg(long, value_name = "N", value_parser = shards)]
    shards: Option<NonZeroUsize>,

    /// Refuse all writes: clients get the bare image and no overlay is made
    #[arg(long)]
    read_only: bool,

    /// Log more; twice for everything
    ///
    /// The log goes to standard error. The variable RUST_LOG, where set, decides instead.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
}

/// What `serve` is asked to do, checked as far as that goes without a file or a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Files of the images; empty only with `demo`.
    pub images: Vec<PathBuf>,
    /// Make and serve an image to play with.
    pub demo: bool,
    /// Where to listen; empty means "nothing was said".
    pub listen: Vec<Listen>,
    /// The state directory; `None` means "nothing was said".
    pub state: Option<PathBuf>,
    /// Data-plane threads, at most [`SHARDS_MAX`]; `None` means "nothing was said".
    pub shards: Option<NonZeroUsize>,
    /// Serve the images without overlays.
    pub read_only: bool,
}

impl From<Arguments> for Options {
    fn from(arguments: Arguments) -> Self {
        Self {
            images: arguments.images,
            demo: arguments.demo,
            listen: arguments.listen,
            state: arguments.state,
            shards: arguments.shards,
            read_only: arguments.read_only,
        }
    }
}

/// An address to listen on, as written by the user. Its `Display` is the form it is written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A host name or address (a v6 address without its brackets) and a port.
    Tcp {
        /// Never empty.
        host: String,
        /// 0 asks the kernel for a free one.
        port: u16,
    },
    /// The path of a Unix socket, never empty.
    Unix(PathBuf),
}

/// Why an address to listen on can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// No `:` that splits host from port.
    #[error("the port is missing; write HOST:PORT, [V6]:PORT or unix:/PATH")]
    NoPort,
    /// The port is no number of 16 bits.
    #[error("the port is not a number from 0 to 65535")]
    BadPort,
    /// Nothing before the port.
    #[error("the host is missing; 0.0.0.0 and [::] stand for all addresses of the machine")]
    NoHost,
    /// A bare v6 address: which `:` is the one before the port?
    #[error("a v6 address goes in brackets, as in [::1]:10809")]
    BareV6,
    /// `unix:` and nothing, or a path that depends on the working directory.
    #[error("the path of a Unix socket is absolute, as in unix:/run/cowherd.sock")]
    RelativePath,
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(path.into())),
                false => Err(ListenError::RelativePath),
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or(ListenError::NoPort)?;
        let port = port.parse().map_err(|_| ListenError::BadPort)?;
        let host = bare_host(host)?.to_owned();
        Ok(Self::Tcp { host, port })
    }
}

/// Takes the brackets off a v6 address and refuses one that has none.
fn bare_host(host: &str) -> Result<&str, ListenError> {
    let inside = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    match inside.unwrap_or(host) {
        "" => Err(ListenError::NoHost),
        bare if inside.is_none() && bare.contains(':') => Err(ListenError::BareV6),
        bare => Ok(bare),
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn shards(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .ok()
        .filter(|count: &NonZeroUsize| count.get() <= SHARDS_MAX)
        .ok_or_else(|| format!("not a number from 1 to {SHARDS_MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Serve {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn options(arguments: &[&str]) -> Result<Options, clap::error::ErrorKind> {
        Serve::try_parse_from(std::iter::once(&"serve").chain(arguments))
            .map(|serve| serve.arguments.into())
            .map_err(|error| error.kind())
    }

    #[test]
    fn an_image_alone_is_enough() {
        let options = options(&["disk.img"]).unwrap();
        assert_eq!(options.images, [PathBuf::from("disk.img")]);
        assert_eq!(options.listen, []);
        assert_eq!((options.state, options.shards), (None, None));
        assert!(!options.demo && !options.read_only);
    }

    #[test]
    fn the_demo_alone_is_enough() {
        assert!(options(&["--demo"]).unwrap().demo);
    }

    #[test]
    fn without_image_or_demo_there_is_nothing_to_serve() {
        let missing = clap::error::ErrorKind::MissingRequiredArgument;
        assert_eq!(options(&["--read-only"]), Err(missing));
    }

    #[test]
    fn the_demo_brings_its_own_image() {
        let conflict = clap::error::ErrorKind::ArgumentConflict;
        assert_eq!(options(&["--demo", "disk.img"]), Err(conflict));
    }

    #[test]
    fn listen_may_be_repeated_and_takes_one_address_each() {
        let options = options(&["--listen", "[::1]:0", "--listen", "unix:/s", "disk.img"]).unwrap();
        assert_eq!(options.listen.len(), 2);
        assert_eq!(options.images.len(), 1);
    }

    #[test]
    fn shards_are_between_one_and_the_limit() {
        let most = SHARDS_MAX.to_string();
        let past = (SHARDS_MAX + 1).to_string();
        assert_eq!(shards(&most).unwrap().get(), SHARDS_MAX);
        for refused in ["0", "-1", "", "two", past.as_str()] {
            assert!(shards(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn addresses_read_back_as_they_print() {
        for text in [
            "127.0.0.1:10809",
            "[::1]:0",
            "[fe80::1%lan0]:1",
            "host:65535",
            "unix:/a:1",
        ] {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.to_string(), text);
        }
    }

    #[test]
    fn an_address_that_can_not_be_meant_is_refused() {
        let error = |text: &str| text.parse::<Listen>().unwrap_err();
        assert_eq!(error("localhost"), ListenError::NoPort);
        assert_eq!(error("localhost:"), ListenError::BadPort);
        assert_eq!(error("localhost:65536"), ListenError::BadPort);
        assert_eq!(error(":10809"), ListenError::NoHost);
        assert_eq!(error("[]:10809"), ListenError::NoHost);
        assert_eq!(error("::1:10809"), ListenError::BareV6);
        assert_eq!(error("unix:"), ListenError::RelativePath);
        assert_eq!(error("unix:run/s"), ListenError::RelativePath);
    }
}
