//! What a boot goes through, from power-on to the mounted root.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A stage of a boot, in the order in which they come. A boot may leave some out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The firmware asked for an address.
    Discover,
    /// It was offered one, or told what to load.
    Offer,
    /// It has one.
    Ack,
    /// Its boot loader was loaded.
    Loader,
    /// The boot loader has its menu.
    Config,
    /// The kernel was loaded.
    Kernel,
    /// The initramfs was loaded.
    Initramfs,
    /// The initramfs has an address.
    DhcpAgain,
    /// It has chosen an export.
    Connect,
    /// It has read from its disk.
    FirstRead,
    /// It has written to its disk: a root is mounted.
    Mounted,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 11] = [
        Self::Discover,
        Self::Offer,
        Self::Ack,
        Self::Loader,
        Self::Config,
        Self::Kernel,
        Self::Initramfs,
        Self::DhcpAgain,
        Self::Connect,
        Self::FirstRead,
        Self::Mounted,
    ];

    /// Its name, as JSON and metrics have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Discover => "discover",
            Self::Offer => "offer",
            Self::Ack => "ack",
            Self::Loader => "loader",
            Self::Config => "config",
            Self::Kernel => "kernel",
            Self::Initramfs => "initramfs",
            Self::DhcpAgain => "dhcp-again",
            Self::Connect => "connect",
            Self::FirstRead => "first-read",
            Self::Mounted => "mounted",
        }
    }

    /// What has happened, for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Discover => "DHCP DISCOVER",
            Self::Offer => "DHCP OFFER",
            Self::Ack => "DHCP ACK",
            Self::Loader => "boot loader",
            Self::Config => "boot menu",
            Self::Kernel => "kernel",
            Self::Initramfs => "initramfs",
            Self::DhcpAgain => "DHCP of initramfs",
            Self::Connect => "NBD handshake",
            Self::FirstRead => "first read",
            Self::Mounted => "root mounted",
        }
    }

    /// Which comes next where none is left out.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        Self::ALL.into_iter().find(|later| *later > self)
    }

    /// For how long the next one is waited for where nothing is known of how long it takes. A boot
    /// loader may show a menu, a kernel may be slow to find its network card, and the first write
    /// comes after checks of the file system.
    #[must_use]
    pub const fn patience(self) -> Duration {
        Duration::from_secs(match self {
            Self::Discover | Self::Offer => 10,
            Self::Ack | Self::Connect => 20,
            Self::Loader | Self::DhcpAgain => 30,
            Self::Config | Self::Kernel => 60,
            Self::Initramfs => 90,
            Self::FirstRead | Self::Mounted => 120,
        })
    }
}

/// Which stage the file at `path` belongs to; `None` for modules, fonts and whatever else a boot
/// loader reads beside.
#[must_use]
pub fn of_file(path: &str) -> Option<Stage> {
    let path = path.to_ascii_lowercase();
    let name = path.rsplit('/').next().unwrap_or_default();
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    if name.starts_with("grub.cfg") || path.contains("pxelinux.cfg/") {
        return Some(Stage::Config);
    }
    if begins(&["initr", "initramfs"]) {
        return Some(Stage::Initramfs);
    }
    if begins(&["vmlinu", "kernel", "bzimage", "linux"]) {
        return Some(Stage::Kernel);
    }
    if ends(&[".cfg", ".ipxe", ".conf"]) {
        return Some(Stage::Config);
    }
    // Shim asks for its revocations, which need not be there.
    if name == "revocations.efi" {
        return None;
    }
    let is_loader = ends(&[
        ".efi",
        ".efi.signed",
        ".0",
        ".kpxe",
        ".kkpxe",
        ".pxe",
        ".bin",
    ]);
    is_loader.then_some(Stage::Loader)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_stand_in_their_order() {
        assert!(Stage::ALL.is_sorted());
        assert_eq!(Stage::Ack.next(), Some(Stage::Loader));
        assert_eq!(Stage::Mounted.next(), None);
    }

    #[test]
    fn a_name_is_what_json_has() {
        for stage in Stage::ALL {
            let json = serde_json::to_string(&stage).unwrap();
            assert_eq!(json, format!("\"{}\"", stage.name()));
        }
    }

    #[test]
    fn files_are_known_by_their_names() {
        for (path, stage) in [
            ("boot/grub/x86_64-efi/core.efi", Some(Stage::Loader)),
            ("boot/grub/i386-pc/core.0", Some(Stage::Loader)),
            ("grub/shimx64.efi", Some(Stage::Loader)),
            ("grub/revocations.efi", None),
            ("boot/grub/grub.cfg", Some(Stage::Config)),
            (
                "boot/grub/grub.cfg-01-52-54-00-12-34-56",
                Some(Stage::Config),
            ),
            ("pxelinux.cfg/default", Some(Stage::Config)),
            ("boot/grub/i386-pc/normal.mod", None),
            ("disk/arch+1/kernel", Some(Stage::Kernel)),
            ("disk/arch+1/initrd0", Some(Stage::Initramfs)),
            ("vmlinuz-6.1", Some(Stage::Kernel)),
            ("boot/grub/fonts/unicode.pf2", None),
        ] {
            assert_eq!(of_file(path), stage, "{path}");
        }
    }
}
