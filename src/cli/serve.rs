//! The options of `cowherd serve`, as typed by people.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use super::log::Form;
use super::size;
use crate::access::Entry;
use crate::limits::{KEEPALIVE_DEFAULT, KEEPALIVE_MAX, SHARDS_MAX};
use crate::serve::Options;
use crate::serve::listen::ListenAddress;

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
    #[arg(value_name = "IMAGE", required_unless_present_any = ["demo", "config"])]
    images: Vec<PathBuf>,

    /// Make a small disk image, serve it as `demo`, and print what to try
    ///
    /// The image holds a FAT file system with a few files. Nothing else is needed: no image, no
    /// privileges, no configuration.
    #[arg(long, conflicts_with = "images")]
    demo: bool,

    /// Serve what this file says
    ///
    /// The file is described in cowherd.toml(5). Images on the command line are served beside those
    /// of the file; --listen and --state go before what it says. SIGHUP reads it again.
    #[arg(long, value_name = "FILE", conflicts_with = "demo")]
    config: Option<PathBuf>,

    /// Where to listen: HOST:PORT, [V6]:PORT or unix:/PATH; may be repeated
    ///
    /// Without it, and without sockets handed over by systemd (LISTEN_FDS), that is
    /// 127.0.0.1:10809. Everybody who reaches the address can open any export, but for what
    /// --allow, --deny and the file of --config say, which has certificates and TLS, too.
    /// Port 0 takes a free port and prints which.
    #[arg(long, value_name = "ADDR")]
    listen: Vec<ListenAddress>,

    /// Who may open anything: ADDRESS, NETWORK/BITS or unix; may be repeated
    ///
    /// Without it everybody may who is not denied. Clients of Unix sockets are `unix`, and `@NAME`
    /// is the client of that name in the file of --config. Everybody else is refused with an error
    /// of the protocol, and the log says why. With --allow or --deny, those of [nbd] in the file
    /// don't count.
    #[arg(long, value_name = "WHO")]
    allow: Vec<Entry>,

    /// Who may not open anything, even if --allow has it; may be repeated
    #[arg(long, value_name = "WHO")]
    deny: Vec<Entry>,

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

    /// Largest that an overlay may grow, such as 20G; by itself there is no bound
    ///
    /// It bounds the blocks that a client has of its own, of 4 KiB each. A write that would pass it
    /// gets ENOSPC and changes nothing; zeroed and trimmed blocks make room again. An overlay that
    /// is larger already keeps what it has. With a limit, no space is set aside for blocks that are
    /// zeroed. K, M, G and T stand for powers of 1024.
    #[arg(long, value_name = "SIZE", value_parser = size::parse_limit)]
    overlay_limit: Option<NonZeroU64>,

    /// Seconds of silence after which a client on TCP is asked whether it is still there
    ///
    /// One that was switched off says no good-bye. It is asked three times, a third of this apart
    /// but no less than a second, and given up when it does not answer. Clients that are idle
    /// answer without noticing. At most 3600.
    #[arg(long, value_name = "SECONDS", default_value_t = KEEPALIVE_DEFAULT,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(KEEPALIVE_MAX)))]
    keepalive: u16,

    /// Don't remember what machines read of an image when they boot
    ///
    /// Otherwise that is read from the disk when DHCP hears the firmware of a machine, as far as it
    /// is not in memory, and so is there when its kernel asks. See BOOTS in cowherd.toml(5).
    #[arg(long)]
    no_prefetch: bool,

    /// Refuse all writes: clients get the bare image and no overlay is made
    #[arg(long)]
    read_only: bool,

    /// Take everything over from the server that runs on the state directory
    ///
    /// No connection breaks. The running server serves on until this one has read the config and
    /// opened the images; then it finishes the requests in flight, hands over its sockets, sessions
    /// and leases, and exits with 0. If anything fails on the way, it goes on as before. See
    /// UPGRADE.
    #[arg(long, conflicts_with = "read_only")]
    takeover: bool,

    /// Serve in the background: the command ends when the server serves, or has failed
    ///
    /// This is how a service manager reloads the server, see UPGRADE.
    #[arg(long, requires = "takeover")]
    detach: bool,

    /// The form of the log: text, or json with an object a line
    ///
    /// Each object has `time` (milliseconds since 1970), `level` and `message`. Under systemd, text
    /// has a priority for the journal before each line, and no time.
    #[arg(
        long,
        value_name = "FORM",
        value_enum,
        default_value_t,
        hide_possible_values = true
    )]
    pub(super) log: Form,

    /// Log more; twice for everything
    ///
    /// The log goes to standard error. The variable RUST_LOG, where set, decides instead.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
}

impl From<Arguments> for Options {
    fn from(arguments: Arguments) -> Self {
        Self {
            images: arguments.images,
            config: arguments.config,
            demo: arguments.demo,
            listen: arguments.listen,
            allow: arguments.allow,
            deny: arguments.deny,
            state: arguments.state,
            shards: arguments.shards,
            overlay_limit: arguments.overlay_limit,
            keepalive: Duration::from_secs(arguments.keepalive.into()),
            prefetch: !arguments.no_prefetch,
            read_only: arguments.read_only,
            takeover: arguments.takeover,
            detach: arguments.detach,
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
        assert_eq!(options.overlay_limit, None);
    }

    #[test]
    fn the_demo_alone_is_enough() {
        assert!(options(&["--demo"]).unwrap().demo);
    }

    #[test]
    fn a_config_file_alone_is_enough() {
        let options = options(&["--config", "/etc/cowherd.toml"]).unwrap();
        assert_eq!(options.config, Some(PathBuf::from("/etc/cowherd.toml")));
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
    fn a_limit_is_a_size() {
        let options = options(&["--overlay-limit", "2M", "disk.img"]).unwrap();
        assert_eq!(options.overlay_limit, NonZeroU64::new(2 << 20));
    }

    #[test]
    fn nobody_is_asked_more_often_than_every_second_or_less_than_every_hour() {
        let keepalive = |seconds: &str| options(&["--keepalive", seconds, "disk.img"]);
        assert_eq!(keepalive("3600").unwrap().keepalive.as_secs(), 3600);
        assert!(keepalive("0").is_err() && keepalive("3601").is_err());
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
}
