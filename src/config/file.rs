//! The form of the file: one struct a table, one field a key. What a key means is said where the
//! checked value is.

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::dhcp::form::{Client, Dhcp, Group, Network};
use super::menu::Menu;
use super::nfs::Nfs;
use super::value::{BootPath, Line, Loaded, Located, Places, Several, Title};
use super::{GrubFrom, Keep, TlsNeed};
use crate::access::Entry;
use crate::boot::cmdline::Initramfs;
use crate::export::name::Generation;
use crate::name::Name;
use crate::serve::listen::ListenAddress;

pub(super) type Tables<T> = BTreeMap<Located<Name>, T>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) state: Option<PathBuf>,
    pub(super) user: Option<String>,
    #[serde(default)]
    pub(super) nbd: Nbd,
    #[serde(default)]
    pub(super) image: Tables<Image>,
    #[serde(default)]
    pub(super) defaults: Defaults,
    #[serde(default)]
    pub(super) client: Tables<Client>,
    pub(super) tls: Option<Tls>,
    #[serde(default)]
    pub(super) network: Network,
    pub(super) dhcp: Option<Dhcp>,
    #[serde(default)]
    pub(super) group: Tables<Group>,
    #[serde(default)]
    pub(super) nfs: Tables<Nfs>,
    pub(super) tftp: Option<Tftp>,
    pub(super) admin: Option<Admin>,
    pub(super) http: Option<Http>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nbd {
    #[serde(default)]
    pub(super) listen: Places<ListenAddress>,
    #[serde(default)]
    pub(super) allow: Vec<Located<Entry>>,
    #[serde(default)]
    pub(super) deny: Vec<Located<Entry>>,
    pub(super) prefetch: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tftp {
    pub(super) root: Option<Spanned<PathBuf>>,
    #[serde(default)]
    pub(super) listen: Places<SocketAddrV4>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Http {
    pub(super) root: Option<Spanned<PathBuf>>,
    #[serde(default)]
    pub(super) listen: Places<SocketAddrV4>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Admin {
    #[serde(default)]
    pub(super) listen: Places<SocketAddr>,
    pub(super) token_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    #[serde(default)]
    pub(super) mode: TlsNeed,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) client_ca: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Image {
    pub(super) file: PathBuf,
    pub(super) generation: Option<NonZeroU32>,
    #[serde(default)]
    pub(super) older: BTreeMap<Located<Generation>, PathBuf>,
    pub(super) tls: Option<Spanned<bool>>,
    #[serde(default)]
    pub(super) allow: Vec<Located<Entry>>,
    #[serde(default)]
    pub(super) deny: Vec<Located<Entry>>,
    pub(super) kernel: Option<Located<Loaded>>,
    #[serde(default)]
    pub(super) initrd: Several<Loaded>,
    pub(super) initramfs: Option<Spanned<Initramfs>>,
    pub(super) cmdline: Option<Located<Line>>,
    pub(super) partition: Option<NonZeroU32>,
    pub(super) subvolume: Option<String>,
    pub(super) title: Option<Located<Title>>,
    pub(super) grub: Option<Spanned<GrubFrom>>,
    pub(super) menu: Option<Menu>,
    pub(super) mounted: Option<Located<BootPath>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Defaults {
    pub(super) image: Option<Located<Name>>,
    pub(super) overlay: Option<Keep>,
    pub(super) menu: Option<Menu>,
}
