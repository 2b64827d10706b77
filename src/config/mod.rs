//! The config file: TOML becomes checked values, and mistakes become one line with its number.
//!
//! `file` is the form of the file, one struct a table; `check` joins the tables and finds what does
//! not fit together. `man/cowherd.toml.5` describes every key; `tests/config_keys.rs` holds the two
//! together.
//!
//! Invariants:
//! - An unknown key is an error, and so is one that this version does not serve.
//! - What a [`Config`] holds fits together: every image that is named exists, no two clients share
//!   an address or a MAC address.

mod check;
mod dhcp;
mod error;
mod file;
mod menu;
mod nfs;
mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

use crate::access::Rules;
use crate::boot::cmdline::Initramfs;
use crate::boot::inside::Whereabouts;
use crate::limits::CONFIG_BYTES_MAX;
use crate::mac::MacAddress;
use crate::name::Name;
use crate::serve::listen::ListenAddress;
use crate::tls;

pub use dhcp::{DhcpConfig, OwnNetwork};
pub use error::ConfigError;
pub use menu::{Choice, MenuConfig, SerialConsole};
pub use nfs::NfsRoot;

/// A config file, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The state directory; `None` means "nothing was said".
    pub state: Option<PathBuf>,
    /// Who the server is once its sockets are open; `None` means who it is started as.
    pub user: Option<String>,
    /// Where NBD clients connect; empty means "nothing was said".
    pub nbd_listen: Vec<ListenAddress>,
    /// Whether images are in memory for those who boot; `None` means "nothing was said".
    pub prefetch: Option<bool>,
    /// At least one.
    pub images: Vec<ImageSource>,
    /// How connections are encrypted; `None` means not at all.
    pub tls: Option<TlsConfig>,
    /// Who is who, and who gets what.
    pub herd: HerdConfig,
    /// What machines are told by DHCP; `None` where it is off.
    pub dhcp: Option<DhcpConfig>,
    /// Roots on NFS servers that menus can offer.
    pub nfs: Vec<NfsRoot>,
    /// Where machines are booted.
    pub network: NetworkConfig,
    /// The directory whose files TFTP and HTTP serve, before those that are made. It can be
    /// reloaded.
    pub root: Option<PathBuf>,
    /// How files are served by TFTP; `None` means not at all.
    pub tftp: Option<TftpConfig>,
    /// How files are served by HTTP; `None` means not at all.
    pub http: Option<HttpConfig>,
    /// Where admins may look; `None` means nowhere.
    pub admin: Option<AdminConfig>,
}

/// `[admin]`. It is read when the server starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it is served; at least one, and none but loopback without a token.
    pub listen: Vec<SocketAddr>,
    /// The file that has the token; `None` means that none is asked for.
    pub token_file: Option<PathBuf>,
}

impl AdminConfig {
    /// Where it is served that nobody said another place for.
    const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9810);
}

/// Where files are served: read when the server starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At these addresses; at least one.
    At(Vec<SocketAddrV4>),
    /// At this port of whatever addresses the interfaces of `[network]` have; it has one at least.
    OnInterfaces(NetworkConfig, u16),
}

impl Listen {
    /// The addresses, where "all of ours" stands for those of the interfaces.
    fn as_of_all(&self) -> Vec<SocketAddrV4> {
        match self {
            Self::At(addresses) => addresses.clone(),
            Self::OnInterfaces(_, port) => vec![everywhere(*port)],
        }
    }
}

/// A port of all our addresses.
const fn everywhere(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)
}

/// `[network]`, as far as others than DHCP go by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkConfig {
    /// The interfaces.
    pub interfaces: Vec<String>,
    /// Our address there, and the bits of its network where they are said.
    pub address: Option<(Ipv4Addr, Option<u32>)>,
}

/// `[tftp]` but for its root. It is read when the server starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TftpConfig {
    /// Where requests come in.
    pub listen: Listen,
}

impl TftpConfig {
    /// Where requests come in that nobody said another port for.
    pub const PORT: u16 = 69;
}

/// `[http]` but for its root. It is read when the server starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where requests come in.
    pub listen: Listen,
}

impl HttpConfig {
    /// Where requests come in that nobody said another port for. GRUB before 2.12 knows no other.
    pub const PORT: u16 = 80;
}

/// Where an image comes from. This can be reloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSource {
    /// What clients call it.
    pub name: Name,
    /// The generation of those who ask for none; it has a file.
    pub current: u32,
    /// The raw file or block device of each generation.
    pub files: BTreeMap<u32, PathBuf>,
    /// What is loaded of it before it is a disk; `None` where that is somebody else's business.
    pub boot: Option<ImageBoot>,
}

/// The kernel of an image, and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageBoot {
    /// Where it is.
    pub kernel: BootFile,
    /// What is loaded with it.
    pub initrds: Vec<BootFile>,
    /// What finds the root.
    pub initramfs: Initramfs,
    /// More words of the command line.
    pub words: Vec<String>,
    /// Where in the image that is.
    pub place: Whereabouts,
    /// What people read; `None` means its name.
    pub title: Option<String>,
    /// How the menu is made of a machine that has this image.
    pub menu: MenuConfig,
    /// Where the GRUB of these machines comes from.
    pub grub: GrubFrom,
}

/// Where a GRUB comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GrubFrom {
    /// Out of packages of this host.
    #[default]
    Host,
    /// Out of those that are installed in the image.
    Image,
}

/// Where a file is that a machine loads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BootFile {
    /// At this path of the machine's disk, without a slash before it.
    Inside(String),
    /// In this file of the host.
    OfHost(PathBuf),
}

impl ImageSource {
    /// An image of which there is one file.
    #[must_use]
    pub fn of_file(name: Name, file: PathBuf) -> Self {
        Self {
            name,
            current: FIRST_GENERATION,
            files: BTreeMap::from([(FIRST_GENERATION, file)]),
            boot: None,
        }
    }
}

/// The generation of an image where nobody says which it is.
pub const FIRST_GENERATION: u32 = 1;

/// `[tls]`. It can be reloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Who has to use it.
    pub need: TlsNeed,
    /// Where certificates and keys are.
    pub files: tls::Files,
}

/// Who has to use TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsNeed {
    /// Nobody can.
    Off,
    /// Who opens an image or an overlay that needs it; others may.
    Selective,
    /// Everybody.
    #[default]
    Required,
}

/// The machines that are known, and what those get that are not. This part can be reloaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HerdConfig {
    /// The image of a client that has none of its own; `None` means "the first one".
    pub default_image: Option<Name>,
    /// What becomes of changes of clients that are not named; `None` means "nothing was said".
    pub default_overlay: Option<Keep>,
    /// How menus are made where nothing else says how.
    pub default_menu: MenuConfig,
    /// The machines that are known by name.
    pub clients: Vec<ClientConfig>,
    /// Who may open what.
    pub access: Rules,
}

/// One `[client.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// The name its overlay goes by.
    pub name: Name,
    /// Its network card.
    pub mac: Option<MacAddress>,
    /// The address that is its own.
    pub address: Option<Ipv4Addr>,
    /// The image it gets where it asks for none; `None` means that of the defaults.
    pub image: Option<Name>,
    /// What becomes of its changes; `None` means what the defaults say.
    pub overlay: Option<Keep>,
    /// Its UUID, in the order of DHCP option 97.
    pub uuid: Option<[u8; 16]>,
    /// How its menu is made, by its own words and those of its group.
    pub menu: MenuConfig,
}

/// What becomes of a client's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Kept until the overlay is reset.
    Persistent,
    /// Kept through reconnects and restarts of the server, not through a boot of its host.
    Ephemeral,
    /// There are none: the client can't write.
    ReadOnly,
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// In one line where the mistake is, what it is and, where that helps, what to do.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |reason| ConfigError::Unreadable {
            path: path.to_owned(),
            reason,
        };
        let file = File::open(path).map_err(unreadable)?;
        let mut text = String::new();
        // Its size would say nothing of a pipe, and what is too large may be no text.
        let size = file.metadata().map_err(unreadable)?.len();
        let mut start = file.take(CONFIG_BYTES_MAX + 1);
        let read = start.read_to_string(&mut text);
        if size > CONFIG_BYTES_MAX || start.limit() == 0 {
            return Err(ConfigError::TooLarge(path.to_owned()));
        }
        read.map_err(unreadable)?;
        let mut config = Self::parse(&text).map_err(|mistake| mistake.in_file(path, &text))?;
        if let Some(dhcp) = &mut config.dhcp {
            dhcp.set_source(path, &text);
        }
        Ok(config)
    }

    fn parse(text: &str) -> Result<Self, error::Mistake> {
        let file: file::File = toml::from_str(text)?;
        check::check(file)
    }
}
