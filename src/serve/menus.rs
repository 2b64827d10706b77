//! The menu of a machine: made of the config in the same way for whoever asks, a running server or
//! `cowherd grub`.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::roots::Roots;
use super::templates::Templates;
use super::who::{Client, Known};
use crate::boot::cmdline::{
    BadLine, Machine, MachineId, NfsMount, Root, command_line, nfs_command_line,
};
use crate::boot::menu::{Entry, Format, Menu, Place, Serial, Transport, Unquotable};
use crate::boot::template::{TemplateError, Told, ToldClient, ToldEntry};
use crate::config::{Choice, ImageBoot, Keep, MenuConfig, NfsRoot, SerialConsole};
use crate::export::name::ExportName;
use crate::limits::{MENU_ENTRIES_MAX, NBD_PORT};
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
    /// How files are loaded where the config does not say.
    pub(super) via: Transport,
    /// How else they can be.
    pub(super) also: Option<Transport>,
    /// Whether files are copied somewhere, out of images that nobody has changed.
    pub(super) is_static: bool,
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

/// What there is to boot.
#[derive(Debug)]
pub(super) struct Stock<'a> {
    pub(super) images: Vec<Stocked>,
    pub(super) boots: &'a HashMap<Name, ImageBoot>,
    pub(super) roots: &'a Roots,
    pub(super) nfs: &'a [NfsRoot],
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
    /// How it is made, templates among others.
    settings: MenuConfig,
    machine: Machine,
    site: Option<Site>,
}

/// Why there is no menu.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoMenu {
    #[error("{0}")]
    Unquotable(#[from] Unquotable),
    #[error("{0}")]
    Template(#[from] TemplateError),
}

impl Made {
    /// The menu for this loader: by its template where it has one, else as we make it.
    pub(super) fn text(&self, format: Format, templates: &Templates) -> Result<String, NoMenu> {
        match self.by_template(format, templates) {
            Some(text) => text,
            None => Ok(self.menu.written_for(format)?),
        }
    }

    /// The menu by its template; `None` where it has none.
    pub(super) fn by_template(
        &self,
        format: Format,
        templates: &Templates,
    ) -> Option<Result<String, NoMenu>> {
        let template = templates.get(self.settings.template(format)?)?;
        let filled = self.told(format);
        Some(filled.and_then(|told| Ok(template.fill(&told)?)))
    }

    fn told(&self, format: Format) -> Result<Told, NoMenu> {
        let entries = self.menu.entries.iter();
        let entries = entries.map(|entry| ToldEntry::of(entry, format));
        let server = self.site.map(|site| site.server.to_string());
        Ok(Told {
            loader: format.name(),
            server: server.unwrap_or_default(),
            port: self.site.map_or(NBD_PORT, |site| site.port),
            client: ToldClient {
                name: self.machine.name.as_ref().map(Name::to_string),
                mac: self.machine.card.map(|mac| mac.to_string()),
                machine_id: self.machine.id.map(|id| id.to_string()),
            },
            serial: self.menu.serial.map(Into::into),
            timeout: self.menu.timeout.as_secs(),
            default: self.menu.default,
            entries: entries.collect::<Result<_, _>>()?,
            menu: self.menu.written_for(format)?,
        })
    }
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
    let via = settings.transport.filter(|via| site.also == Some(*via));
    let site = Site {
        via: via.unwrap_or(site.via),
        ..site
    };
    let setting = Setting {
        site,
        guest,
        serial,
    };
    let (offered, default) = offered(stock, own, &settings);
    let mut made = Made {
        machine: guest.machine.clone(),
        site: Some(site),
        ..Made::default()
    };
    for (nth, offered) in offered.iter().enumerate() {
        match offered.entry(&setting) {
            Ok(entry) => {
                if nth == default {
                    made.menu.default = made.menu.entries.len();
                }
                made.menu.entries.push(entry);
            }
            Err(why) => made.left_out.push((offered.name(guest), why)),
        }
    }
    made.menu.serial = serial;
    made.menu.timeout = settings.timeout.unwrap_or(match made.menu.entries.len() {
        0 | 1 => Duration::ZERO,
        _ => CHOICE,
    });
    made.settings = settings;
    made
}

/// What is offered in its order, and which of it is the default.
fn offered<'a>(
    stock: &'a Stock<'_>,
    own: Option<&'a Stocked>,
    settings: &MenuConfig,
) -> (Vec<Offered<'a>>, usize) {
    let mut choices = Vec::new();
    if let Some(own) = own {
        choices.extend(stock.disk(own, own.current));
        let older = own.numbers.iter().rev();
        let older = older.filter(|_| settings.older != Some(false));
        choices.extend(older.filter_map(|number| stock.disk(own, *number)));
    }
    for name in settings.images.iter().flatten() {
        choices.extend(stock.chosen(&Choice::current(name.clone())));
    }
    let default = settings.default.as_ref();
    let default = default.and_then(|choice| stock.chosen(choice));
    choices.extend(default);
    let mut offered: Vec<Offered<'_>> = Vec::new();
    for choice in choices {
        if offered.iter().all(|other| !other.is(choice)) && offered.len() < MENU_ENTRIES_MAX {
            offered.push(choice);
        }
    }
    let is_default = |default| offered.iter().position(|one| one.is(default));
    let default = default.and_then(is_default).unwrap_or(0);
    (offered, default)
}

impl Stock<'_> {
    /// The image of a machine that has this one; the first one for `None`.
    fn own(&self, name: Option<&Name>) -> Option<&Stocked> {
        match name {
            Some(name) => self.images.iter().find(|image| image.name == *name),
            None => self.images.first(),
        }
    }

    /// A generation of an image, if it has a kernel.
    fn disk<'a>(&'a self, image: &'a Stocked, number: u32) -> Option<Offered<'a>> {
        let boot = self.boots.get(&image.name)?;
        Some(Offered::Disk {
            image,
            number,
            boot,
            partition: self.roots.of(&image.name, number),
        })
    }

    fn chosen(&self, choice: &Choice) -> Option<Offered<'_>> {
        if let Some(root) = self.nfs.iter().find(|root| root.name == choice.image) {
            return Some(Offered::Nfs(root));
        }
        let image = self.own(Some(&choice.image))?;
        let number = choice.generation.unwrap_or(image.current);
        let number = image.numbers.iter().find(|there| **there == number)?;
        self.disk(image, *number)
    }
}

/// What an entry is made for.
struct Setting<'a> {
    site: Site,
    guest: &'a Guest,
    serial: Option<Serial>,
}

/// One thing that can be booted.
#[derive(Clone, Copy)]
enum Offered<'a> {
    /// A generation of an image.
    Disk {
        image: &'a Stocked,
        number: u32,
        boot: &'a ImageBoot,
        /// The partition of its root.
        partition: Option<u32>,
    },
    /// A root on an NFS server.
    Nfs(&'a NfsRoot),
}

impl Offered<'_> {
    fn is(&self, other: Offered<'_>) -> bool {
        let key = |of: &Offered<'_>| match of {
            Offered::Disk { image, number, .. } => (image.name.clone(), *number),
            // No generation has this number.
            Offered::Nfs(root) => (root.name.clone(), 0),
        };
        key(self) == key(&other)
    }

    /// What it is called, where that is an export by the name that `guest` opens it by.
    fn name(&self, guest: &Guest) -> String {
        let (image, number) = match self {
            Offered::Disk { image, number, .. } => (&image.name, number),
            Offered::Nfs(root) => return root.name.to_string(),
        };
        let name = ExportName {
            image: Some(image.clone()),
            generation: Some(*number),
            client: guest.opens_as.clone(),
        };
        name.to_string()
    }

    fn entry(&self, of: &Setting<'_>) -> Result<Entry, BadLine> {
        let words = self.words(of)?;
        let (folder, initrds) = match self {
            Offered::Disk {
                image,
                number,
                boot,
                ..
            } => {
                // A file of no server is the same for all.
                let export = match of.site.is_static {
                    true => format!("{}+{number}", image.name),
                    false => self.name(of.guest),
                };
                (format!("disk/{export}"), boot.initrds.len())
            }
            Offered::Nfs(root) => (format!("nfs/{}", root.name), root.initrds.len()),
        };
        let place = |file: String| Place {
            transport: of.site.via,
            server: of.site.server,
            path: format!("{folder}/{file}"),
        };
        Ok(Entry {
            title: self.title(),
            kernel: place("kernel".to_owned()),
            initrds: (0..initrds)
                .map(|nth| place(format!("initrd{nth}")))
                .collect(),
            words,
        })
    }

    fn title(&self) -> String {
        match self {
            Offered::Disk {
                image,
                number,
                boot,
                ..
            } => match &boot.title {
                Some(title) if *number == image.current => title.clone(),
                Some(title) => format!("{title} (generation {number})"),
                None => format!("{}+{number}", image.name),
            },
            Offered::Nfs(root) => {
                let title = root.title.as_ref();
                title.map_or_else(|| root.name.to_string(), Clone::clone)
            }
        }
    }

    fn words(&self, of: &Setting<'_>) -> Result<Vec<String>, BadLine> {
        // Linux, "console=": the last one is /dev/console. The config's own words come later.
        let console = |Serial { unit, speed }| {
            let serial = format!("console=ttyS{unit},{speed}");
            ["console=tty0".to_owned(), serial]
        };
        let consoles = of.serial.map(console).into_iter().flatten();
        let more = |words: &[String]| consoles.chain(words.iter().cloned()).collect::<Vec<_>>();
        let machine = &of.guest.machine;
        match self {
            Offered::Disk {
                boot, partition, ..
            } => {
                let subvolume = boot.place.subvolume.as_ref();
                let root = Root {
                    server: of.site.server,
                    port: of.site.port,
                    export: self.name(of.guest),
                    partition: *partition,
                    filesystem: None,
                    flags: subvolume.map(|path| format!("subvol={path}")),
                    is_writable: of.guest.keep != Keep::ReadOnly,
                };
                command_line(boot.initramfs, &root, machine, &more(&boot.words))
            }
            Offered::Nfs(root) => {
                let mount = NfsMount {
                    server: root.server.unwrap_or(of.site.server),
                    path: &root.path,
                    options: root.options.as_deref(),
                    is_writable: root.is_writable,
                };
                nfs_command_line(root.initramfs, &mount, machine, &more(&root.words))
            }
        }
    }
}

#[cfg(test)]
mod tests;
