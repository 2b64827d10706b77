//! What a machine may choose from, before it is written in the language of a boot loader.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use super::{grub, ipxe, pxelinux};

/// What a machine may choose from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Menu {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Which of them is booted where nobody chooses.
    pub default: usize,
    /// How long the default is held back for a choice. At zero the menu is not shown.
    pub timeout: Duration,
    /// A serial console beside the screen.
    pub serial: Option<Serial>,
}

/// A serial line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Serial {
    /// 0 for the first one.
    pub unit: u8,
    /// Bits a second.
    pub speed: u32,
}

/// One system to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What people read.
    pub title: String,
    /// The kernel.
    pub kernel: Place,
    /// What is loaded with it, in this order.
    pub initrds: Vec<Place>,
    /// Its command line.
    pub words: Vec<String>,
}

/// A file on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// How it is loaded.
    pub transport: Transport,
    /// From where.
    pub server: Ipv4Addr,
    /// Its path, without a slash before it.
    pub path: String,
}

/// How a boot loader loads a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// By TFTP.
    Tftp,
    /// By HTTP, on port 80: GRUB before 2.12 knows no other.
    Http,
}

impl Transport {
    /// What GRUB calls the device, and URIs their scheme.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tftp => "tftp",
            Self::Http => "http",
        }
    }
}

/// Why a text is no transport.
#[derive(Debug, thiserror::Error)]
#[error("write tftp or http")]
pub struct NoTransport;

impl FromStr for Transport {
    type Err = NoTransport;

    fn from_str(text: &str) -> Result<Self, NoTransport> {
        let mut all = [Self::Tftp, Self::Http].into_iter();
        all.find(|one| one.name() == text).ok_or(NoTransport)
    }
}

/// The language of a boot loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// `grub.cfg`.
    Grub,
    /// A script of iPXE.
    Ipxe,
    /// PXELINUX of the Syslinux project.
    Pxelinux,
}

impl Format {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Grub, Self::Ipxe, Self::Pxelinux];

    /// Its name, as people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grub => "grub",
            Self::Ipxe => "ipxe",
            Self::Pxelinux => "pxelinux",
        }
    }
}

/// A text that a boot loader would not take as one text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} can't be written for {}: {why}", loader.name())]
pub struct Unquotable {
    /// Which loader.
    pub loader: Format,
    /// The text.
    pub text: String,
    /// What it would do.
    pub why: &'static str,
}

impl Unquotable {
    pub(super) fn new(loader: Format, text: &str, why: &'static str) -> Self {
        Self {
            loader,
            text: text.to_owned(),
            why,
        }
    }
}

/// Adds one line to a menu.
pub(super) fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Nothing can fail in writing to a String.
    let _ = writeln!(out, "{line}");
}

impl Menu {
    /// The menu in the language of `format`.
    ///
    /// # Errors
    /// Something in it can't be said there.
    pub fn written_for(&self, format: Format) -> Result<String, Unquotable> {
        match format {
            Format::Grub => Ok(grub::config(self)),
            Format::Ipxe => ipxe::script(self),
            Format::Pxelinux => pxelinux::config(self),
        }
    }

    /// Whether there is time to choose.
    pub(super) const fn is_shown(&self) -> bool {
        self.timeout.as_secs() > 0
    }
}

/// What a screen shows of a text: control characters, which would end a line, become spaces.
pub(super) fn shown(text: &str) -> String {
    let shown = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    shown.collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn place(path: &str) -> Place {
        Place {
            transport: Transport::Tftp,
            server: [10, 77, 0, 1].into(),
            path: path.to_owned(),
        }
    }

    /// A menu for the tests of the languages.
    pub(crate) fn two_entries() -> Menu {
        let new = Entry {
            title: "Arch Linux".to_owned(),
            kernel: place("disk/arch+2/kernel"),
            initrds: vec![place("disk/arch+2/initrd0"), place("disk/arch+2/initrd1")],
            words: vec!["root=/dev/nbd0".to_owned(), "quiet".to_owned()],
        };
        let old = Entry {
            title: "it's old".to_owned(),
            kernel: place("disk/arch+1/kernel"),
            initrds: Vec::new(),
            words: vec!["root=/dev/nbd0".to_owned()],
        };
        Menu {
            entries: vec![new, old],
            default: 1,
            timeout: Duration::from_secs(5),
            serial: None,
        }
    }
}
