//! GRUB's network images, made of the modules that the host has or a disk, and the modules
//! themselves.
//!
//! GRUB looks for its menu on the server that gave it its address, which beside another DHCP server
//! is not us: our address is in the image, so that it asks us wherever its address came from.
//!
//! Invariants:
//! - An image asks the address that it was made for and no other.
//! - What is served of the host is below the directory of GRUB's modules, and read only.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::{NamedTempFile, TempDir};
use thiserror::Error;

use super::files::{Content, Files};
use super::menu::Transport;
use crate::limits::GRUB_IMAGE_MAX;
pub use of_disk::{GrubOfDisk, InDisk};

mod of_disk;

/// Where packages of GRUB put the modules of each platform: Debian, Fedora and Arch in the first,
/// openSUSE in the second.
pub const HOMES: [&str; 2] = ["/usr/lib/grub", "/usr/share/grub2"];

/// The program that makes images, as Debian and as Fedora call it.
const PROGRAMS: [&str; 2] = ["grub-mkimage", "grub2-mkimage"];

/// Below what files of GRUB are asked for; it is also the prefix that images look below.
const PREFIX: &str = "boot/grub";

/// A platform that GRUB has network images for.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    /// Its directory among GRUB's.
    directory: &'static str,
    /// Its network image, as grub-mknetdir calls it.
    core: &'static str,
    /// As grub-mkimage(1) calls it with `--format`.
    format: &'static str,
    /// What it reaches the network and the screen by.
    modules: &'static [&'static str],
    /// What grub-mkimage takes beside modules.
    parts: &'static [&'static str],
}

const fn efi(directory: &'static str) -> Kind {
    Kind {
        directory,
        core: "core.efi",
        format: directory,
        modules: &["efinet", "all_video"],
        parts: &["kernel.img"],
    }
}

/// Every kind of image that is made.
pub const KINDS: [Kind; 7] = [
    Kind {
        directory: "i386-pc",
        core: "core.0",
        format: "i386-pc-pxe",
        modules: &["pxe"],
        parts: &[
            "kernel.img",
            "pxeboot.img",
            "diskboot.img",
            "lzma_decompress.img",
        ],
    },
    efi("i386-efi"),
    efi("x86_64-efi"),
    efi("arm-efi"),
    efi("arm64-efi"),
    efi("riscv64-efi"),
    efi("loongarch64-efi"),
];

/// What menus need: ours, and those that an admin would write. Whatever else one asks for is served
/// as a module.
const MODULES: [&str; 20] = [
    "tftp",
    "http",
    "normal",
    "configfile",
    "linux",
    "echo",
    "test",
    "regexp",
    "serial",
    "terminal",
    "gzio",
    "minicmd",
    "reboot",
    "halt",
    "sleep",
    "cat",
    "ls",
    "chain",
    "true",
    "net",
];

/// Why there is no image.
#[derive(Debug, Error)]
pub enum LoaderError {
    /// A file could not be made or read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// There is no grub-mkimage.
    #[error("there is no grub-mkimage here: install grub-common, or put an image into `root`")]
    NoProgram,
    /// It ran, and made none.
    #[error("grub-mkimage: {0}")]
    Failed(String),
    /// There is a GRUB, and a part of it is not there.
    #[error("{0} is missing: install GRUB anew")]
    Incomplete(String),
    /// It made something that no firmware would load.
    #[error("grub-mkimage made an image of {0} bytes, more than {GRUB_IMAGE_MAX}")]
    TooLong(u64),
}

/// Modules of GRUB: those that the host has, or what a disk has.
#[derive(Debug)]
pub struct Modules {
    home: PathBuf,
    files: Files,
    _temporary: Option<TempDir>,
}

impl Kind {
    /// The kind whose network image is at `path`.
    #[must_use]
    pub fn at(path: &str) -> Option<&'static Self> {
        let (directory, core) = path
            .strip_prefix(PREFIX)?
            .strip_prefix('/')?
            .split_once('/')?;
        KINDS
            .iter()
            .find(|kind| kind.directory == directory && kind.core == core)
    }

    /// The kind that a module or list at `path` is of.
    #[must_use]
    pub fn of_module(path: &str) -> Option<&'static Self> {
        let (directory, _) = within(path)?;
        KINDS.iter().find(|kind| kind.directory == directory)
    }

    /// Where its image is found.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{PREFIX}/{}/{}", self.directory, self.core)
    }
}

impl Modules {
    /// Those that packages of the host put where they do. `None` where there are none.
    #[must_use]
    pub fn of_host() -> Option<Self> {
        HOMES.iter().find_map(|home| Self::below(Path::new(home)))
    }

    fn below(home: &Path) -> Option<Self> {
        Some(Self {
            home: home.to_owned(),
            files: Files::below(home).ok()?,
            _temporary: None,
        })
    }

    /// Whether an image of this kind can be made.
    #[must_use]
    pub fn have(&self, kind: &Kind) -> bool {
        self.directory_of(kind).join("kernel.img").is_file()
    }

    /// The paths of all modules and lists of this kind, as [`Self::open`] takes them.
    ///
    /// # Errors
    /// Its directory can't be read.
    pub fn names(&self, kind: &Kind) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.directory_of(kind))? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(format!("{PREFIX}/{}/{name}", kind.directory));
            }
        }
        names.retain(|path| within(path).is_some());
        names.sort();
        Ok(names)
    }

    /// Opens the module or list at `path`, which an image asks for. `None` where there is none.
    ///
    /// This asks a disk, and may wait for it.
    ///
    /// # Errors
    /// It is there and can't be read.
    pub fn open(&self, path: &str) -> io::Result<Option<Content>> {
        let Some((directory, file)) = within(path) else {
            return Ok(None);
        };
        self.files.open(&format!("{directory}/{file}"))
    }

    /// Makes the image of this kind that asks `server` for all that it loads.
    ///
    /// This runs a program and waits for it.
    ///
    /// # Errors
    /// No program that makes images is there, or it made none.
    pub fn image(
        &self,
        kind: &Kind,
        transport: Transport,
        server: Ipv4Addr,
    ) -> Result<Vec<u8>, LoaderError> {
        // grub-mkimage syncs what it writes, and fails where that can't be done, as with a pipe.
        let made = NamedTempFile::new()?;
        let arguments = self.arguments(kind, transport, server, made.path());
        run(&arguments)?;
        let size = made.as_file().metadata()?.len();
        if size > GRUB_IMAGE_MAX {
            return Err(LoaderError::TooLong(size));
        }
        let mut image = Vec::new();
        made.as_file().read_to_end(&mut image)?;
        Ok(image)
    }

    fn arguments(
        &self,
        kind: &Kind,
        transport: Transport,
        server: Ipv4Addr,
        to: &Path,
    ) -> Vec<std::ffi::OsString> {
        let directory = self.directory_of(kind);
        let prefix = format!("({},{server})/{PREFIX}", transport.name());
        let mut all: Vec<_> = ["--format", kind.format, "--prefix", &prefix, "--directory"]
            .map(Into::into)
            .into();
        all.push(directory.clone().into());
        all.push("--output".into());
        all.push(to.into());
        // Not every platform has every module.
        let modules = kind.modules.iter().chain(&MODULES);
        let there = modules.filter(|name| directory.join(format!("{name}.mod")).is_file());
        all.extend(there.map(Into::into));
        all
    }

    fn directory_of(&self, kind: &Kind) -> PathBuf {
        self.home.join(kind.directory)
    }
}

/// The directory and file among GRUB's that `path` means, if it may: modules and lists of them.
fn within(path: &str) -> Option<(&str, &str)> {
    let (directory, file) = path
        .strip_prefix(PREFIX)?
        .strip_prefix('/')?
        .split_once('/')?;
    let is_known = KINDS.iter().any(|kind| kind.directory == directory);
    let kind = Path::new(file).extension().and_then(OsStr::to_str);
    let is_plain = !file.contains('/') && matches!(kind, Some("mod" | "lst"));
    (is_known && is_plain).then_some((directory, file))
}

fn run(arguments: &[std::ffi::OsString]) -> Result<(), LoaderError> {
    for program in PROGRAMS {
        let mut command = Command::new(program);
        // Messages in English: they go into the log, among others.
        command
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        match command.output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(LoaderError::Failed(said.trim().to_owned()));
            }
        }
    }
    Err(LoaderError::NoProgram)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::boot::ARCHITECTURES;

    #[test]
    fn every_boot_file_of_dhcp_that_is_grub_is_an_image_that_can_be_made() {
        for architecture in ARCHITECTURES {
            let path = architecture.platform.grub();
            assert_eq!(Kind::at(path).map(Kind::path).as_deref(), Some(path));
        }
    }

    #[test]
    fn modules_and_lists_of_known_platforms_are_served_and_nothing_else() {
        assert_eq!(
            within("boot/grub/i386-pc/linux.mod"),
            Some(("i386-pc", "linux.mod"))
        );
        assert_eq!(
            within("boot/grub/x86_64-efi/command.lst"),
            Some(("x86_64-efi", "command.lst"))
        );
        for path in [
            "boot/grub/linux.mod",
            "boot/grub/grub.cfg",
            "boot/grub/i386-pc/../linux.mod",
            "boot/grub/other/linux.mod",
            "boot/grub/i386-pc/load.cfg",
            "i386-pc/linux.mod",
        ] {
            assert_eq!(within(path), None, "{path}");
        }
    }

    #[test]
    fn the_prefix_names_the_server_and_its_transport() {
        let home = tempfile::tempdir().unwrap();
        let modules = Modules::below(home.path()).unwrap();
        let server = Ipv4Addr::new(10, 77, 0, 1);
        let arguments = |transport| {
            let all = modules.arguments(&KINDS[0], transport, server, Path::new("out"));
            all.join(OsStr::new(" ")).into_string().unwrap()
        };
        assert!(arguments(Transport::Tftp).contains("--prefix (tftp,10.77.0.1)/boot/grub "));
        assert!(arguments(Transport::Http).contains("--prefix (http,10.77.0.1)/boot/grub "));
    }

    #[test]
    fn only_modules_that_are_there_are_asked_for() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("i386-pc")).unwrap();
        std::fs::write(home.path().join("i386-pc/pxe.mod"), "").unwrap();
        let modules = Modules::below(home.path()).unwrap();
        let to = Path::new("out");
        let arguments = modules.arguments(&KINDS[0], Transport::Tftp, Ipv4Addr::LOCALHOST, to);
        let after: Vec<_> = arguments.iter().skip_while(|word| *word != "out").collect();
        assert_eq!(after, ["out", "pxe"]);
    }
}
