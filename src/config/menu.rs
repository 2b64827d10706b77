//! `[defaults.menu]`, `[image.NAME.menu]`, `[group.NAME.menu]`, `[client.NAME.menu]`: what machines
//! are shown before they boot.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::error::Mistake;
use super::value::{Located, Several};
use crate::boot::menu::{Format, Serial, Transport};
use crate::export::name::{ExportName, ExportNameError};
use crate::limits::{MENU_ENTRIES_MAX, MENU_TIMEOUT_MAX};
use crate::name::Name;

/// How the menu of a machine is made; `None` means "nothing was said".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MenuConfig {
    /// What is offered beside the machine's own image.
    pub images: Option<Vec<Name>>,
    /// What is booted where nobody chooses.
    pub default: Option<Choice>,
    /// How long a choice is waited for.
    pub timeout: Option<Duration>,
    /// The serial console.
    pub serial: Option<SerialConsole>,
    /// Whether generations before the current one are offered.
    pub older: Option<bool>,
    /// How kernels are loaded, where that is another way than the loader came by.
    pub transport: Option<Transport>,
    /// What the menu for GRUB is made by instead of us.
    pub grub: Option<PathBuf>,
    /// The same for iPXE.
    pub ipxe: Option<PathBuf>,
    /// The same for PXELINUX.
    pub pxelinux: Option<PathBuf>,
}

/// An image, perhaps of a certain generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its name.
    pub image: Name,
    /// `None` is the current one.
    pub generation: Option<u32>,
}

/// Whether there is a console on a serial line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SerialConsole {
    /// There is none.
    Off,
    /// On this line.
    On(Serial),
}

impl MenuConfig {
    /// What is said here goes before what `wide` says, key by key.
    #[must_use]
    pub fn or(&self, wide: &Self) -> Self {
        let narrow = self.clone();
        Self {
            images: narrow.images.or_else(|| wide.images.clone()),
            default: narrow.default.or_else(|| wide.default.clone()),
            timeout: narrow.timeout.or(wide.timeout),
            serial: narrow.serial.or(wide.serial),
            older: narrow.older.or(wide.older),
            transport: narrow.transport.or(wide.transport),
            grub: narrow.grub.or_else(|| wide.grub.clone()),
            ipxe: narrow.ipxe.or_else(|| wide.ipxe.clone()),
            pxelinux: narrow.pxelinux.or_else(|| wide.pxelinux.clone()),
        }
    }

    /// The template of menus for this loader.
    #[must_use]
    pub fn template(&self, format: Format) -> Option<&Path> {
        let path = match format {
            Format::Grub => &self.grub,
            Format::Ipxe => &self.ipxe,
            Format::Pxelinux => &self.pxelinux,
        };
        path.as_deref()
    }
}

/// The form of the tables.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Menu {
    images: Option<Several<Name>>,
    default: Option<Located<Choice>>,
    timeout: Option<Spanned<u64>>,
    serial: Option<Located<SerialConsole>>,
    older: Option<bool>,
    transport: Option<Located<Transport>>,
    grub: Option<PathBuf>,
    ipxe: Option<PathBuf>,
    pxelinux: Option<PathBuf>,
}

impl Menu {
    /// Where it says that kernels are loaded by HTTP.
    pub(super) fn by_http(&self) -> Option<usize> {
        let said = self.transport.as_ref();
        let said = said.filter(|said| said.value == Transport::Http);
        said.map(|said| said.at)
    }
}

/// What a table says, where `is_there` knows what can be booted.
pub(super) fn check(
    menu: Option<&Menu>,
    is_there: impl Fn(&Choice) -> bool,
) -> Result<MenuConfig, Mistake> {
    let Some(menu) = menu else {
        return Ok(MenuConfig::default());
    };
    let missing = |at, choice: &Choice| {
        let what = format!("{choice} can't be booted: there is no such image with a `kernel`");
        Err(Mistake::new(at, what))
    };
    for Located { value, at } in menu.images.iter().flat_map(|images| &images.0) {
        let choice = Choice::current(value.clone());
        if !is_there(&choice) {
            return missing(*at, &choice);
        }
    }
    match &menu.default {
        Some(Located { value, at }) if !is_there(value) => return missing(*at, value),
        _ => {}
    }
    Ok(MenuConfig {
        images: images(menu)?,
        default: menu.default.as_ref().map(|default| default.value.clone()),
        timeout: menu.timeout.as_ref().map(timeout).transpose()?,
        serial: menu.serial.as_ref().map(|serial| serial.value),
        older: menu.older,
        transport: menu.transport.as_ref().map(|transport| transport.value),
        grub: menu.grub.clone(),
        ipxe: menu.ipxe.clone(),
        pxelinux: menu.pxelinux.clone(),
    })
}

fn images(menu: &Menu) -> Result<Option<Vec<Name>>, Mistake> {
    let Some(images) = &menu.images else {
        return Ok(None);
    };
    match images.0.get(MENU_ENTRIES_MAX) {
        Some(more) => Err(Mistake::new(
            more.at,
            format!("a menu has at most {MENU_ENTRIES_MAX} entries"),
        )),
        None => Ok(Some(images.values())),
    }
}

fn timeout(seconds: &Spanned<u64>) -> Result<Duration, Mistake> {
    match Duration::from_secs(*seconds.get_ref()) {
        timeout if timeout <= MENU_TIMEOUT_MAX => Ok(timeout),
        _ => {
            let most = MENU_TIMEOUT_MAX.as_secs();
            let what = format!("`timeout` is at most {most} seconds");
            Err(Mistake::new(seconds.span().start, what))
        }
    }
}

impl Choice {
    /// The image as it is now.
    #[must_use]
    pub const fn current(image: Name) -> Self {
        Self {
            image,
            generation: None,
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.generation {
            Some(number) => write!(f, "{}+{number}", self.image),
            None => write!(f, "{}", self.image),
        }
    }
}

/// Why a text names nothing to boot.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message is its variant's description")]
pub enum NoChoice {
    #[error("{0}")]
    Name(#[from] ExportNameError),
    #[error("write an image, or one with a generation as in arch+2")]
    Form,
}

impl FromStr for Choice {
    type Err = NoChoice;

    fn from_str(text: &str) -> Result<Self, NoChoice> {
        let name: ExportName = text.parse()?;
        match (name.image, name.generation, name.client) {
            (Some(image), generation, None) => Ok(Self { image, generation }),
            _ => Err(NoChoice::Form),
        }
    }
}

/// Why a text is no serial line.
#[derive(Debug, thiserror::Error)]
#[error("write a line as the kernel does, such as ttyS0 or ttyS1,9600, or off")]
pub struct NoSerial;

/// Bits a second of a line where nobody says how many.
const USUAL_SPEED: u32 = 115_200;

impl FromStr for SerialConsole {
    type Err = NoSerial;

    fn from_str(text: &str) -> Result<Self, NoSerial> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let line = text.strip_prefix("ttyS").ok_or(NoSerial)?;
        let (unit, speed) = match line.split_once(',') {
            Some((unit, speed)) => (unit, speed.parse().map_err(|_| NoSerial)?),
            None => (line, USUAL_SPEED),
        };
        // GRUB and PXELINUX know the four of a PC.
        match unit.parse() {
            Ok(unit @ 0..=3) if speed > 0 => Ok(Self::On(Serial { unit, speed })),
            _ => Err(NoSerial),
        }
    }
}
