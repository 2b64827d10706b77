//! `[nfs.NAME]`: roots that an NFS server has, and that menus can offer.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use toml::Spanned;

use super::error::Mistake;
use super::file::Tables;
use super::value::{BootPath, Line, Located, Several, Title};
use crate::boot::cmdline::{NfsInitramfs, check_words};
use crate::name::Name;

/// A root on an NFS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NfsRoot {
    /// What menus call it.
    pub name: Name,
    /// The server; `None` is the host that we are on.
    pub server: Option<Ipv4Addr>,
    /// The directory, as the server exports it.
    pub path: String,
    /// Options of the mount, with commas between them.
    pub options: Option<String>,
    /// Whether it can be written.
    pub is_writable: bool,
    /// Where kernel and initramfs are on this host.
    pub files: PathBuf,
    /// The kernel, below that.
    pub kernel: String,
    /// What is loaded with it.
    pub initrds: Vec<String>,
    /// What mounts the root.
    pub initramfs: NfsInitramfs,
    /// More words of the command line.
    pub words: Vec<String>,
    /// What people read; `None` means its name.
    pub title: Option<String>,
}

/// The form of the tables.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nfs {
    server: Option<Located<Ipv4Addr>>,
    path: Located<ExportPath>,
    options: Option<Located<MountOptions>>,
    writable: Option<Spanned<bool>>,
    files: Option<PathBuf>,
    kernel: Located<BootPath>,
    #[serde(default)]
    initrd: Several<BootPath>,
    initramfs: NfsInitramfs,
    cmdline: Option<Located<Line>>,
    title: Option<Located<Title>>,
}

/// What the tables say, where `is_image` knows which names are taken.
pub(super) fn check(
    tables: Tables<Nfs>,
    is_image: impl Fn(&Name) -> bool,
) -> Result<Vec<NfsRoot>, Mistake> {
    let roots = tables.into_iter().map(|(name, nfs)| {
        if is_image(&name.value) {
            let what = format!(
                "{} is an image: menus could not tell the two apart",
                name.value
            );
            return Err(Mistake::new(name.at, what));
        }
        let path = nfs.path.value.0;
        Ok(NfsRoot {
            name: name.value,
            server: nfs.server.map(|server| server.value),
            options: nfs.options.map(|options| options.value.0),
            is_writable: nfs.writable.is_some_and(Spanned::into_inner),
            files: nfs.files.unwrap_or_else(|| PathBuf::from(&path)),
            kernel: nfs.kernel.value.0,
            initrds: nfs.initrd.values().into_iter().map(|path| path.0).collect(),
            initramfs: nfs.initramfs,
            words: nfs.cmdline.map(|line| line.value.0).unwrap_or_default(),
            title: nfs.title.map(|title| title.value.0),
            path,
        })
    });
    roots.collect()
}

/// A directory that kernels, exports(5) and nfs-ganesha all take as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ExportPath(String);

/// Options that mean the same to all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MountOptions(String);

/// Why a text is neither.
#[derive(Debug)]
struct NoPath;

#[derive(Debug)]
struct NoOptions;

impl fmt::Display for NoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write a path from / on, of letters, digits and -._~+@%/ only")
    }
}

impl fmt::Display for NoOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write options of mount, such as vers=3,tcp")
    }
}

impl FromStr for ExportPath {
    type Err = NoPath;

    fn from_str(text: &str) -> Result<Self, NoPath> {
        // A comma or a colon would end it on a command line, the others in an export.
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~+@%/".contains(c);
        let climbs = text.split('/').any(|part| part == "..");
        match text.starts_with('/') && text.chars().all(plain) && !climbs {
            true => Ok(Self(text.to_owned())),
            false => Err(NoPath),
        }
    }
}

impl FromStr for MountOptions {
    type Err = NoOptions;

    fn from_str(text: &str) -> Result<Self, NoOptions> {
        // dracut would take what is behind a colon for something else.
        let is_fine = !text.contains(':') && check_words(vec![text.to_owned()]).is_ok();
        match is_fine {
            true => Ok(Self(text.to_owned())),
            false => Err(NoOptions),
        }
    }
}
