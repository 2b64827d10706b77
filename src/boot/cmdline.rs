//! Command lines of kernels whose root is an export: one form for each kind of initramfs.
//!
//! Invariant: a command line is a list of words, and none of them has a space, a quote or a control
//! character, since no kernel and no initramfs could take it apart again.

use std::fmt;
use std::net::Ipv4Addr;

use thiserror::Error;

use crate::limits::{KERNEL_LINE_MAX, NBD_PORT};
use crate::mac::MacAddress;
use crate::name::Name;

/// What finds the root on a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Initramfs {
    /// Debian's and Ubuntu's, with the script of nbd-client.
    InitramfsTools,
    /// Arch's, with the hooks `net` and `nbd` of mkinitcpio-nbd.
    MkinitcpioNbd,
    /// Fedora's, SUSE's and others', with the module `nbd`.
    Dracut,
    /// That of Arch's installation medium.
    Archiso,
}

/// The root of one client, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Our address, as the client sees it.
    pub server: Ipv4Addr,
    /// The port of NBD there.
    pub port: u16,
    /// The export.
    pub export: String,
    /// The partition of it that is the root; `None` where that is all of it.
    pub partition: Option<u32>,
    /// The kind of its file system, where it is to be said.
    pub filesystem: Option<String>,
    /// What it is mounted with.
    pub flags: Option<String>,
    /// Whether it can be written.
    pub is_writable: bool,
}

/// What mounts a root on an NFS server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NfsInitramfs {
    /// Debian's and Ubuntu's.
    InitramfsTools,
    /// Arch's, with the hook `net`.
    Mkinitcpio,
    /// Fedora's, SUSE's and others', with the module `nfs`.
    Dracut,
    /// The kernel itself, with CONFIG_ROOT_NFS and CONFIG_IP_PNP.
    None,
}

/// A root on an NFS server, and how it is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NfsMount<'a> {
    /// The server.
    pub server: Ipv4Addr,
    /// The directory there.
    pub path: &'a str,
    /// Options of the mount.
    pub options: Option<&'a str>,
    /// Whether it can be written.
    pub is_writable: bool,
}

/// The machine that boots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Its name, which is its host name.
    pub name: Option<Name>,
    /// The network card that it boots from.
    pub card: Option<MacAddress>,
    /// What systemd knows it by.
    pub id: Option<MachineId>,
}

/// The machine-id(5) of a machine, the same on every boot: 16 bytes, shown as hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MachineId([u8; 16]);

impl MachineId {
    /// That of the machine with a network card: `cowherd`, zeros, and its address.
    #[must_use]
    pub fn of_card(mac: MacAddress) -> Self {
        let mut bytes = *b"cowherd\0\0\0\0\0\0\0\0\0";
        bytes
            .iter_mut()
            .rev()
            .zip(mac.0.iter().rev())
            .for_each(|(to, from)| *to = *from);
        Self(bytes)
    }

    /// That of the machine with a UUID: the same digits.
    #[must_use]
    pub const fn of_uuid(uuid: [u8; 16]) -> Self {
        Self(uuid)
    }

    /// That of a machine of which nothing but its name is known: FNV-1a of it, of 128 bits.
    #[must_use]
    pub fn of_name(name: &Name) -> Self {
        const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        let bytes = name.as_str().bytes();
        let hash = bytes.fold(BASIS, |hash, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(PRIME)
        });
        Self(hash.to_be_bytes())
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why there is no command line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "each message is its variant's description")]
pub enum BadLine {
    #[error("{0:?} can't stand on a kernel's command line")]
    Word(String),
    #[error("a command line of {0} bytes is longer than a kernel takes")]
    Long(usize),
    #[error("this kind of initramfs takes NBD on port 10809 only, not on {0}")]
    Port(u16),
    #[error("dracut takes {0:?} apart at its colon")]
    Colon(String),
}

/// The words of a command line, those of `more` last, so that they go before ours.
///
/// # Errors
/// [`BadLine`].
pub fn command_line(
    kind: Initramfs,
    root: &Root,
    machine: &Machine,
    more: &[String],
) -> Result<Vec<String>, BadLine> {
    let mut words = match kind {
        Initramfs::InitramfsTools => initramfs_tools(root),
        Initramfs::MkinitcpioNbd => mkinitcpio_nbd(root),
        Initramfs::Dracut => match more.iter().any(|word| word.starts_with("root=")) {
            true => dracut_netroot(root, None)?,
            false => dracut(root)?,
        },
        Initramfs::Archiso => archiso(root)?,
    };
    words.extend(identity(machine));
    words.extend_from_slice(more);
    check_words(words)
}

/// The words of a command line for a root on an NFS server, as [`command_line`] has them.
///
/// # Errors
/// [`BadLine`].
pub fn nfs_command_line(
    kind: NfsInitramfs,
    root: &NfsMount<'_>,
    machine: &Machine,
    more: &[String],
) -> Result<Vec<String>, BadLine> {
    let NfsMount { server, path, .. } = root;
    let writing = if root.is_writable { "rw" } else { "ro" };
    let with = |mark: char| match root.options {
        Some(options) => format!("{mark}{options}"),
        None => String::new(),
    };
    let mut words = match kind {
        // dracut.cmdline(7): "root=nfs:[<server-ip>:]<root-dir>[:<nfs-options>]".
        NfsInitramfs::Dracut => vec![
            format!("root=nfs:{server}:{path}{}", with(':')),
            "rd.neednet=1".to_owned(),
        ],
        // Linux, nfsroot.rst: "nfsroot=[<server-ip>:]<root-dir>[,<nfs-options>]". The scripts of
        // the others take it in this form too.
        _ => vec![
            "root=/dev/nfs".to_owned(),
            format!("nfsroot={server}:{path}{}", with(',')),
        ],
    };
    words.extend(["ip=dhcp".to_owned(), writing.to_owned()]);
    words.extend(identity(machine));
    words.extend_from_slice(more);
    check_words(words)
}

/// The words, where they can stand on a command line.
///
/// # Errors
/// [`BadLine`].
pub fn check_words(words: Vec<String>) -> Result<Vec<String>, BadLine> {
    if let Some(bad) = words.iter().find(|word| !is_word(word)) {
        return Err(BadLine::Word(bad.clone()));
    }
    match words.iter().map(|word| word.len() + 1).sum() {
        length if length > KERNEL_LINE_MAX => Err(BadLine::Long(length)),
        _ => Ok(words),
    }
}

/// Printable ASCII but for quotes and the backslash, which GRUB and the kernel read differently.
fn is_word(word: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    !word.is_empty() && word.bytes().all(plain)
}

/// How a root is mounted, in the words of the kernel.
fn mounting(root: &Root) -> Vec<String> {
    let keyed = |key: &str, value: &Option<String>| Some(format!("{key}={}", value.as_ref()?));
    [
        keyed("rootfstype", &root.filesystem),
        keyed("rootflags", &root.flags),
        Some(writing(root)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn writing(root: &Root) -> String {
    if root.is_writable { "rw" } else { "ro" }.to_owned()
}

/// The root, as the device that it is once the export is attached.
fn device(root: &Root) -> String {
    match root.partition {
        Some(number) => format!("root=/dev/nbd0p{number}"),
        None => "root=/dev/nbd0".to_owned(),
    }
}

/// Of the forms of `nbdroot` this is the one that works with all versions: its documented form with
/// two fields sets the port only.
fn initramfs_tools(root: &Root) -> Vec<String> {
    let Root {
        server,
        port,
        export,
        ..
    } = root;
    let nbdroot = match *port {
        NBD_PORT => format!("nbdroot={server},{export},nbd0"),
        port => format!("nbdroot={server}:{port}/{export}"),
    };
    let mut words = vec![device(root), nbdroot, "ip=dhcp".to_owned()];
    words.extend(mounting(root));
    words
}

fn mkinitcpio_nbd(root: &Root) -> Vec<String> {
    let mut words = vec![
        device(root),
        format!("nbd_host={}", root.server),
        format!("nbd_name={}", root.export),
    ];
    if root.port != NBD_PORT {
        words.push(format!("nbd_port={}", root.port));
    }
    words.push("ip=dhcp".to_owned());
    words.extend(mounting(root));
    words
}

/// `root=nbd:SERVER:EXPORT[:FSTYPE[:FLAGS]]`. A port can't be said: what dracut documents for it
/// ends up in the name of the export.
fn dracut(root: &Root) -> Result<Vec<String>, BadLine> {
    if root.partition.is_some() {
        return dracut_netroot(root, Some(device(root)));
    }
    only_usual_port(root)?;
    let mut nbd = format!("root=nbd:{}:{}", root.server, root.export);
    match (&root.filesystem, &root.flags) {
        (None, None) => {}
        (Some(kind), None) => nbd.push_str(&format!(":{kind}")),
        (_, Some(flags)) if flags.contains(':') => return Err(BadLine::Colon(flags.clone())),
        (kind, Some(flags)) => {
            nbd.push_str(&format!(":{}:{flags}", kind.as_deref().unwrap_or("auto")));
        }
    }
    let words = [
        nbd,
        "ip=dhcp".to_owned(),
        "rd.neednet=1".to_owned(),
        writing(root),
    ];
    Ok(words.to_vec())
}

/// `netroot=nbd:SERVER:EXPORT` beside a `root` that is on it, ours or one that the config says.
/// dracut attaches the export then, and mounts the device as it does with any other. The device
/// must not be all of the export: for that one dracut does not wait.
fn dracut_netroot(root: &Root, device: Option<String>) -> Result<Vec<String>, BadLine> {
    only_usual_port(root)?;
    let mut words: Vec<_> = device.into_iter().collect();
    words.extend([
        format!("netroot=nbd:{}:{}", root.server, root.export),
        "ip=dhcp".to_owned(),
        "rd.neednet=1".to_owned(),
    ]);
    words.extend(mounting(root));
    Ok(words)
}

fn archiso(root: &Root) -> Result<Vec<String>, BadLine> {
    only_usual_port(root)?;
    Ok(vec![
        "ip=dhcp".to_owned(),
        format!("archiso_nbd_srv={}", root.server),
        format!("archiso_nbd_name={}", root.export),
    ])
}

fn only_usual_port(root: &Root) -> Result<(), BadLine> {
    match root.port {
        NBD_PORT => Ok(()),
        other => Err(BadLine::Port(other)),
    }
}

/// Who the machine is: the same on every boot, though all boot from one image.
fn identity(machine: &Machine) -> Vec<String> {
    let card = machine.card;
    let card = card.map(|mac| format!("BOOTIF=01-{}", mac.name()));
    let id = machine.id.map(|id| format!("systemd.machine_id={id}"));
    let name = machine.name.as_ref();
    let name = name.map(|name| format!("systemd.hostname={name}"));
    [card, name, id].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
