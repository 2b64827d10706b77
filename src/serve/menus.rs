//! The menu of a machine: made of the config in the same way for whoever asks, a running server or
//! `cowherd grub`.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::who::{Client, Known};
use crate::boot::cmdline::{BadLine, Machine, MachineId, Root, command_line};
use crate::boot::menu::{Entry, Menu, Place, Serial, Transport};
use crate::config::{Choice, ImageBoot, Keep, MenuConfig, SerialConsole};
use crate::export::name::ExportName;
use crate::limits::MENU_ENTRIES_MAX;
use crate::mac::MacAddress;
use crate::name::Name;

/// How long a menu is shown that has a choice, where the config does not say.
const CHOICE: Duration = Duration::from_secs(5);

/// Where machines find us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) server: Ipv4Addr,
    /// That of NBD.
    pub(super) port: u16,
    /// How files are loaded.
    pub(super) via: Transport,
}

/// A machine that is to have a menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guest {
    /// The client that it opens its disk as; `None` leaves that to its address.
    pub(super) opens_as: Option<Name>,
    machine: Machine,
    image: Option<Name>,
    keep: Keep,
    menu: MenuConfig,
}

impl Guest {
    /// The machine that is `client`. Its network card is the one of the config or, where that knows
    /// none, `card`.
    pub(super) fn new(
        known: &Known,
        client: Client,
        opens_as: Option<Name>,
        card: Option<MacAddress>,
    ) -> Self {
        let config = known.config_of(&client.name);
        let mac = config.and_then(|config| config.mac);
        let uuid = config.and_then(|config| config.uuid);
        // By what a machine is called it is the same one only as long as that is its name.
        let id = match (mac, uuid, config, card) {
            (Some(mac), ..) => Some(MachineId::of_card(mac)),
            (None, Some(uuid), ..) => Some(MachineId::of_uuid(uuid)),
            (None, None, Some(config), _) => Some(MachineId::of_name(&config.name)),
            (None, None, None, card) => card.map(MachineId::of_card),
        };
        let machine = Machine {
            name: config.map(|config| config.name.clone()),
            card: mac.or(card),
            id,
        };
        Self {
            opens_as,
            machine,
            menu: config.map(|config| config.menu.clone()).unwrap_or_default(),
            image: client.image,
            keep: client.keep,
        }
    }
}

/// The images that there are.
#[derive(Debug)]
pub(super) struct Stock<'a> {
    pub(super) images: Vec<Stocked>,
    pub(super) boots: &'a HashMap<Name, ImageBoot>,
    pub(super) default_menu: &'a MenuConfig,
}

/// The generations of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stocked {
    pub(super) name: Name,
    pub(super) current: u32,
    /// In their order.
    pub(super) numbers: Vec<u32>,
}

/// A menu, and what is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) menu: Menu,
    /// What can't be booted, and why.
    pub(super) left_out: Vec<(String, BadLine)>,
}

/// One generation of an image that can be booted.
struct Offered<'a> {
    image: &'a Stocked,
    number: u32,
    boot: &'a ImageBoot,
}

/// What `guest` may choose from.
pub(super) fn make(site: Site, guest: &Guest, stock: &Stock<'_>) -> Made {
    let own = stock.own(guest.image.as_ref());
    let boot = own.and_then(|own| stock.boots.get(&own.name));
    let of_image = boot.map(|boot| boot.menu.clone()).unwrap_or_default();
    let settings = guest.menu.or(&of_image).or(stock.default_menu);
    let serial = match settings.serial {
        Some(SerialConsole::On(serial)) => Some(serial),
        _ => None,
    };
    let (offered, default) = offered(stock, own, &settings);
    let mut made = Made::default();
    for (nth, offered) in offered.iter().enumerate() {
        let export = offered.export(guest);
        match offered.words(site, guest, &export, serial) {
            Ok(words) => {
                if nth == default {
                    made.menu.default = made.menu.entries.len();
                }
                made.menu.entries.push(offered.entry(site, &export, words));
            }
            Err(why) => made.left_out.push((export, why)),
        }
    }
    made.menu.serial = serial;
    made.menu.timeout = settings.timeout.unwrap_or(match made.menu.entries.len() {
        0 | 1 => Duration::ZERO,
        _ => CHOICE,
    });
    made
}

/// What is offered in its order, and which of it is the default.
fn offered<'a>(
    stock: &'a Stock<'_>,
    own: Option<&'a Stocked>,
    settings: &MenuConfig,
) -> (Vec<Offered<'a>>, usize) {
    let mut choices: Vec<(&Stocked, u32)> = Vec::new();
    if let Some(own) = own {
        choices.push((own, own.current));
        let older = own.numbers.iter().rev();
        let older = older.filter(|_| settings.older != Some(false));
        choices.extend(older.map(|number| (own, *number)));
    }
    for name in settings.images.iter().flatten() {
        choices.extend(stock.get(name).map(|image| (image, image.current)));
    }
    let default = settings.default.as_ref();
    let default = default.and_then(|choice| stock.chosen(choice));
    choices.extend(default);
    let mut offered: Vec<Offered<'_>> = Vec::new();
    for (image, number) in choices {
        let is_there = |other: &Offered<'_>| other.is(image, number);
        let Some(boot) = stock.boots.get(&image.name) else {
            continue;
        };
        if !offered.iter().any(is_there) && offered.len() < MENU_ENTRIES_MAX {
            offered.push(Offered {
                image,
                number,
                boot,
            });
        }
    }
    let is_default = |(image, number)| offered.iter().position(|one| one.is(image, number));
    let default = default.and_then(is_default).unwrap_or(0);
    (offered, default)
}

impl<'a> Stock<'a> {
    fn get(&self, name: &Name) -> Option<&Stocked> {
        self.images.iter().find(|image| image.name == *name)
    }

    /// The image of a machine that has this one; the first one for `None`.
    fn own(&self, name: Option<&Name>) -> Option<&Stocked> {
        match name {
            Some(name) => self.get(name),
            None => self.images.first(),
        }
    }

    fn chosen(&self, choice: &Choice) -> Option<(&Stocked, u32)> {
        let image = self.get(&choice.image)?;
        let number = choice.generation.unwrap_or(image.current);
        image.numbers.contains(&number).then_some((image, number))
    }
}

impl Offered<'_> {
    fn is(&self, image: &Stocked, number: u32) -> bool {
        self.image.name == image.name && self.number == number
    }

    fn export(&self, guest: &Guest) -> String {
        let name = ExportName {
            image: Some(self.image.name.clone()),
            generation: Some(self.number),
            client: guest.opens_as.clone(),
        };
        name.to_string()
    }

    fn words(
        &self,
        site: Site,
        guest: &Guest,
        export: &str,
        serial: Option<Serial>,
    ) -> Result<Vec<String>, BadLine> {
        let subvolume = self.boot.place.subvolume.as_ref();
        let root = Root {
            server: site.server,
            port: site.port,
            export: export.to_owned(),
            filesystem: None,
            flags: subvolume.map(|path| format!("subvol={path}")),
            is_writable: guest.keep != Keep::ReadOnly,
        };
        // Linux, "console=": the last one is /dev/console. The config's own words come later.
        let console = |Serial { unit, speed }| {
            let serial = format!("console=ttyS{unit},{speed}");
            ["console=tty0".to_owned(), serial]
        };
        let consoles = serial.map(console).into_iter().flatten();
        let more: Vec<_> = consoles.chain(self.boot.words.iter().cloned()).collect();
        command_line(self.boot.initramfs, &root, &guest.machine, &more)
    }

    fn entry(&self, site: Site, export: &str, words: Vec<String>) -> Entry {
        let place = |file: String| Place {
            transport: site.via,
            server: site.server,
            path: format!("disk/{export}/{file}"),
        };
        let (image, number) = (self.image, self.number);
        let title = match &self.boot.title {
            Some(title) if number == image.current => title.clone(),
            Some(title) => format!("{title} (generation {number})"),
            None => format!("{}+{number}", image.name),
        };
        let initrds = (0..self.boot.initrds.len()).map(|nth| place(format!("initrd{nth}")));
        Entry {
            initrds: initrds.collect(),
            kernel: place("kernel".to_owned()),
            title,
            words,
        }
    }
}

#[cfg(test)]
mod tests;
