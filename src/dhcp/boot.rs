//! What a booting machine is told to load: one table, and the rules around it.
//!
//! Invariants:
//! - Where there is a boot file, header field `siaddr`, header field `file` and option 67 all say
//!   so: shim goes by `file` alone, some boot ROMs by option 67 alone. Only a URI can be too long
//!   for `file`; the config takes no such path.
//! - In server mode a PXE client is never sent option 60 without option 43: EDK2 takes such an
//!   offer for one of a boot server, asks port 4011 and fails where nobody answers.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::dhcp::wire::{FILE_TEXT_MAX, Message, code};

/// How the firmware of a machine loads its first program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// By TFTP: the boot file is a path.
    Tftp,
    /// By UEFI HTTP boot: the boot file is a URI.
    Http,
}

/// What kind of machine, as far as its first program is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "their names are what they are")]
pub enum Platform {
    Bios,
    Ia32,
    X64,
    Arm32,
    Arm64,
    Riscv64,
    LoongArch64,
}

/// One kind of architecture that a client may name in option 93.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Architecture {
    /// The number, as IANA has it ("Processor Architecture Types").
    pub number: u16,
    /// As people write it, and as `explain --arch` takes it.
    pub name: &'static str,
    /// What it can run.
    pub platform: Platform,
    /// How it loads that.
    pub transport: Transport,
}

const fn row(
    number: u16,
    name: &'static str,
    platform: Platform,
    transport: Transport,
) -> Architecture {
    Architecture {
        number,
        name,
        platform,
        transport,
    }
}

/// Every architecture that is served.
///
/// RFC 4578 says 7 for EFI byte code and 9 for x64; its erratum and IANA have them the other way
/// round, and there is firmware of both kinds. Byte code is not served, so both are x64.
pub const ARCHITECTURES: &[Architecture] = &[
    row(0, "bios", Platform::Bios, Transport::Tftp),
    row(6, "ia32", Platform::Ia32, Transport::Tftp),
    row(7, "x64", Platform::X64, Transport::Tftp),
    row(9, "x64-9", Platform::X64, Transport::Tftp),
    row(10, "arm32", Platform::Arm32, Transport::Tftp),
    row(11, "arm64", Platform::Arm64, Transport::Tftp),
    row(15, "ia32-http", Platform::Ia32, Transport::Http),
    row(16, "x64-http", Platform::X64, Transport::Http),
    row(18, "arm32-http", Platform::Arm32, Transport::Http),
    row(19, "arm64-http", Platform::Arm64, Transport::Http),
    row(27, "riscv64", Platform::Riscv64, Transport::Tftp),
    row(28, "riscv64-http", Platform::Riscv64, Transport::Http),
    row(39, "loongarch64", Platform::LoongArch64, Transport::Tftp),
    row(
        40,
        "loongarch64-http",
        Platform::LoongArch64,
        Transport::Http,
    ),
];

impl Platform {
    /// Its name, as people write it in the config.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Ia32 => "ia32",
            Self::X64 => "x64",
            Self::Arm32 => "arm32",
            Self::Arm64 => "arm64",
            Self::Riscv64 => "riscv64",
            Self::LoongArch64 => "loongarch64",
        }
    }

    /// The network image of GRUB, at the path that grub-mknetdir uses.
    #[must_use]
    pub const fn grub(self) -> &'static str {
        match self {
            Self::Bios => "boot/grub/i386-pc/core.0",
            Self::Ia32 => "boot/grub/i386-efi/core.efi",
            Self::X64 => "boot/grub/x86_64-efi/core.efi",
            Self::Arm32 => "boot/grub/arm-efi/core.efi",
            Self::Arm64 => "boot/grub/arm64-efi/core.efi",
            Self::Riscv64 => "boot/grub/riscv64-efi/core.efi",
            Self::LoongArch64 => "boot/grub/loongarch64-efi/core.efi",
        }
    }

    /// The loader that firmware with Secure Boot takes, where there is one. It loads `grubx64.efi`
    /// or its like from the directory that it was loaded from.
    #[must_use]
    pub const fn shim(self) -> Option<&'static str> {
        match self {
            Self::Ia32 => Some("grub/shimia32.efi"),
            Self::X64 => Some("grub/shimx64.efi"),
            Self::Arm64 => Some("grub/shimaa64.efi"),
            _ => None,
        }
    }
}

/// How machines are to be booted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootConfig {
    /// Whether UEFI machines are given shim, which Secure Boot takes.
    pub secure_boot: bool,
    /// What iPXE is given instead of what its firmware would be.
    pub ipxe: Option<String>,
    /// Files instead of the usual ones.
    pub files: Vec<(Platform, String)>,
    /// Where we serve files by HTTP.
    pub http: Vec<SocketAddrV4>,
}

impl BootConfig {
    /// The port that files are served on by HTTP at our address `server`, if any is.
    #[must_use]
    pub fn http_port(&self, server: Ipv4Addr) -> Option<u16> {
        let is_there = |at: &&SocketAddrV4| at.ip().is_unspecified() || *at.ip() == server;
        self.http.iter().find(is_there).map(SocketAddrV4::port)
    }
}

/// Whether addresses are ours to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// We are the DHCP server.
    Server,
    /// Another server gives addresses; we say what to boot.
    Proxy,
}

/// What a machine is told to load, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The path or URI; `None` where the machine is told nothing.
    pub file: Option<String>,
    /// Options that go with it.
    pub options: Vec<(u8, Vec<u8>)>,
    /// The rules that led here, in order, for people.
    pub why: Vec<String>,
}

/// PXE 2.1, table "PXE DHCP options", suboption 6: bit 3, "if a boot file name is present in the
/// initial DHCP or ProxyDHCP offer packet, download it"; then the end of the suboptions.
const USE_THE_FILE: [u8; 4] = [6, 1, 8, 255];

/// iPXE's option `no-pxedhcp`, 176: don't wait for offers of a proxy.
const NO_PROXY: [u8; 3] = [176, 1, 1];

/// What the sender of `request` is to boot from the server at `server`.
#[must_use]
pub fn decide(config: &BootConfig, mode: Mode, request: &Message, server: Ipv4Addr) -> Decision {
    let mut decision = by_table(config, mode, request, server);
    let file = decision.file.as_deref().unwrap_or_default();
    if file.len() > FILE_TEXT_MAX {
        decision.say("the file is too long for its header field: only option 67 carries it");
    }
    decision
}

fn by_table(config: &BootConfig, mode: Mode, request: &Message, server: Ipv4Addr) -> Decision {
    let mut decision = Decision::default();
    let class = Class::of(request);
    let listed = request.architectures();
    let architecture = match request.kind() {
        Ok(None) if listed.is_empty() => {
            decision.say("BOOTP has no word for architectures: it is taken for a BIOS");
            ARCHITECTURES.first().copied()
        }
        _ => chosen(&listed, class, &mut decision.why),
    };
    if request.is_ipxe() {
        return for_ipxe(config, mode, architecture, decision);
    }
    let Some(architecture) = architecture else {
        return decision;
    };
    let file = file_of(config, architecture.platform, &mut decision.why);
    decision.file = match architecture.transport {
        Transport::Tftp => Some(file),
        Transport::Http => uri(config, &file, server),
    };
    if decision.file.is_none() {
        decision.say(format!(
            "UEFI HTTP boot: there is no [http] in the config that serves {server}: no boot file"
        ));
        return decision;
    }
    match (architecture.transport, class) {
        (Transport::Http, _) => {
            decision.say("UEFI HTTP boot: the file is a URI, and option 60 says HTTPClient");
            // UEFI 2.10, section 24.7.3.1: offers without this class are no HTTP offers.
            decision
                .options
                .push((code::VENDOR_CLASS, b"HTTPClient".to_vec()));
        }
        (Transport::Tftp, Class::Pxe) if mode == Mode::Proxy => {
            proxy_options(architecture.platform, &mut decision);
        }
        (Transport::Tftp, _) => {
            decision.say("full DHCP: no option 60, which without 43 leads EDK2 to port 4011");
        }
    }
    decision
}

impl Decision {
    fn say(&mut self, why: impl Into<String>) {
        self.why.push(why.into());
    }

    /// Puts it into a reply of the server at `server`.
    ///
    /// A file that is too long for its header field is in option 67 only.
    pub fn fill(&self, reply: &mut Message, server: Ipv4Addr) {
        if let Some(file) = self.file.as_deref().map(str::as_bytes) {
            reply.siaddr = server;
            if file.len() <= FILE_TEXT_MAX {
                reply.file = file.to_vec();
            }
            // EDK2 writes the NUL itself where there is none, onto whatever is behind.
            let with_nul = |text: &[u8]| [text, b"\0"].concat();
            let name = (code::SERVER_NAME, with_nul(server.to_string().as_bytes()));
            let file = (code::BOOT_FILE, with_nul(file));
            // The order is the one that firmware was seen to take.
            for (code, value) in [name, file] {
                reply.options.set(code, value);
            }
        }
        for (code, value) in &self.options {
            reply.options.set(*code, value.as_slice());
        }
    }
}

/// What kind of client says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Pxe,
    Http,
    Other,
}

impl Class {
    fn of(request: &Message) -> Self {
        match request.vendor_class() {
            class if class.starts_with(b"PXEClient") => Self::Pxe,
            class if class.starts_with(b"HTTPClient") => Self::Http,
            _ => Self::Other,
        }
    }
}

/// Whether a machine that is being switched on sent it: firmware or iPXE, and not the system that
/// they load, which asks for its address too.
#[must_use]
pub fn is_of_firmware(request: &Message) -> bool {
    request.is_ipxe() || Class::of(request) != Class::Other
}

/// The first architecture of the list that is served.
fn chosen(listed: &[u16], class: Class, why: &mut Vec<String>) -> Option<Architecture> {
    let known = |number: &u16| ARCHITECTURES.iter().find(|known| known.number == *number);
    match listed.iter().find_map(known) {
        Some(found) => {
            why.push(format!("architecture {} is {}", found.number, found.name));
            Some(*found)
        }
        None if !listed.is_empty() => {
            why.push(format!(
                "of architectures {listed:?} none is served: no boot file"
            ));
            None
        }
        None if class == Class::Pxe => {
            why.push("a PXE client that names no architecture is taken for a BIOS".to_owned());
            ARCHITECTURES.first().copied()
        }
        None => {
            why.push("names no architecture, so it is not booting: no boot file".to_owned());
            None
        }
    }
}

fn file_of(config: &BootConfig, platform: Platform, why: &mut Vec<String>) -> String {
    let own = config.files.iter().find(|(of, _)| *of == platform);
    if let Some((_, file)) = own {
        why.push(format!("the config gives {file} to {}", platform.name()));
        return file.clone();
    }
    match platform.shim().filter(|_| config.secure_boot) {
        Some(shim) => {
            why.push("secure-boot: shim first, which loads the GRUB beside it".to_owned());
            shim.to_owned()
        }
        None => platform.grub().to_owned(),
    }
}

/// Some firmware follows no redirect, so the path has one slash only. The address is a number, so
/// that no name server is needed. `None` where the file is ours to serve, and is not served.
fn uri(config: &BootConfig, file: &str, server: Ipv4Addr) -> Option<String> {
    if file.contains("://") {
        return Some(file.to_owned());
    }
    let path = file.trim_start_matches('/');
    Some(match config.http_port(server)? {
        80 => format!("http://{server}/{path}"),
        port => format!("http://{server}:{port}/{path}"),
    })
}

/// iPXE loads by any transport, so it gets the file of its firmware, or what the config says.
fn for_ipxe(
    config: &BootConfig,
    mode: Mode,
    architecture: Option<Architecture>,
    mut decision: Decision,
) -> Decision {
    let file = match (&config.ipxe, architecture) {
        (Some(script), _) => {
            decision.say("iPXE asks: it gets what the config says, and not itself again");
            Some(script.clone())
        }
        (None, Some(of)) => {
            decision.say("iPXE asks: it loads what its firmware would");
            Some(file_of(config, of.platform, &mut decision.why))
        }
        (None, None) => None,
    };
    decision.file = file;
    if mode == Mode::Server {
        decision.say("option 175 tells iPXE not to wait for the offer of a proxy");
        decision.options.push((code::IPXE, NO_PROXY.to_vec()));
    } else if decision.file.is_some() {
        decision.say("proxy: iPXE takes the file of an offer with options 60 and 43");
        decision
            .options
            .push((code::VENDOR_CLASS, b"PXEClient".to_vec()));
        decision.options.push((code::VENDOR, USE_THE_FILE.to_vec()));
    }
    decision
}

fn proxy_options(platform: Platform, decision: &mut Decision) {
    decision
        .options
        .push((code::VENDOR_CLASS, b"PXEClient".to_vec()));
    match platform {
        Platform::Bios => {
            decision.say("proxy, BIOS: option 43 says to use the file of this offer");
            decision.options.push((code::VENDOR, USE_THE_FILE.to_vec()));
        }
        _ => decision.say("proxy, UEFI: no option 43, so that it asks on port 4011"),
    }
}

#[cfg(test)]
mod tests;
