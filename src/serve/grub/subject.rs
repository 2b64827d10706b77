//! For whom menus are made, and out of what, where no server runs.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::super::menus::{Guest, Made, Site, Stock, Stocked, make};
use super::super::options::Failure;
use super::super::roots::Roots;
use super::super::templates::Templates;
use super::super::who::Known;
use super::{LeftOut, Menu};
use crate::access::{Caller, Peer};
use crate::boot::menu::{Format, Transport};
use crate::config::{ClientConfig, Config, ImageBoot, ImageSource, NetworkConfig, NfsRoot};
use crate::image::Image;
use crate::io::interface;
use crate::limits::NBD_PORT;
use crate::mac::MacAddress;
use crate::name::Name;
use crate::serve::listen::ListenAddress;

/// What the config says of all machines.
pub(in crate::serve) struct Herd {
    pub(super) site: Site,
    pub(in crate::serve) clients: Vec<ClientConfig>,
    pub(super) images: Vec<ImageSource>,
    pub(super) boots: HashMap<Name, ImageBoot>,
    pub(super) roots: Roots,
    pub(super) nfs: Vec<NfsRoot>,
    known: Known,
    pub(super) templates: Templates,
}

impl Herd {
    pub(in crate::serve) fn new(config: Config, server: Option<Ipv4Addr>) -> Result<Self, Failure> {
        let server = match server {
            Some(server) => server,
            None => own_network(&config.network)?.0,
        };
        let port = config.nbd_listen.iter().find_map(|address| match address {
            // Port 0 is known when somebody listens.
            ListenAddress::Tcp { port, .. } if *port > 0 => Some(*port),
            _ => None,
        });
        let boot = |image: &ImageSource| Some((image.name.clone(), image.boot.clone()?));
        Ok(Self {
            site: Site {
                server,
                port: port.unwrap_or(NBD_PORT),
                via: Transport::Tftp,
                also: None,
                is_static: true,
            },
            clients: config.herd.clients.clone(),
            roots: Roots::default(),
            boots: config.images.iter().filter_map(boot).collect(),
            images: config.images,
            nfs: config.nfs,
            known: Known::new(config.herd, Arc::default()),
            templates: Templates::default(),
        })
    }

    /// Looks into the images for their roots. What can't be read is told, and goes by the config.
    pub(super) fn find_roots(&mut self) -> Vec<LeftOut> {
        let mut unread = Vec::new();
        for source in &self.images {
            let Some(boot) = self.boots.get(&source.name) else {
                continue;
            };
            for (number, path) in &source.files {
                let image = Image::open_as(path, source.name.clone());
                let found = match image {
                    Ok(image) => self.roots.add(&Arc::new(image), *number, boot),
                    Err(why) => {
                        self.roots.add_unread(&source.name, *number, boot);
                        Err(why.to_string())
                    }
                };
                unread.extend(found.err().map(|why| LeftOut {
                    what: format!("the partition of the root of {}+{number}", source.name),
                    why,
                }));
            }
        }
        unread
    }

    /// A machine that is no client of the config.
    pub(in crate::serve) fn nobody(&self, card: Option<MacAddress>) -> Guest {
        // What it is called by its address is not known before it has one.
        let client = self.known.client_of(&Caller::plain(Peer::Local), None);
        Guest::new(&self.known, client, None, card)
    }

    /// The image of such a machine.
    pub(super) fn image_of_nobody(&self) -> Option<&ImageSource> {
        let name = self
            .known
            .client_of(&Caller::plain(Peer::Local), None)
            .image;
        let mut images = self.images.iter();
        match name {
            Some(name) => images.find(|image| image.name == name),
            None => images.next(),
        }
    }

    /// A client. It opens its disk by its name, since its address may be anybody's.
    pub(in crate::serve) fn client(&self, name: &Name) -> Guest {
        let caller = Caller::plain(Peer::Local);
        let client = self.known.client_of(&caller, Some(name));
        Guest::new(&self.known, client, Some(name.clone()), None)
    }

    /// What a machine may choose from.
    pub(in crate::serve) fn menu(&self, guest: &Guest) -> Made {
        let images = self.images.iter().map(|image| Stocked {
            name: image.name.clone(),
            current: image.current,
            numbers: image.files.keys().copied().collect(),
        });
        let stock = Stock {
            images: images.collect(),
            boots: &self.boots,
            roots: &self.roots,
            nfs: &self.nfs,
            default_menu: self.known.default_menu(),
        };
        make(self.site, guest, &stock)
    }

    /// One menu, as text.
    pub(super) fn print(&self, who: Option<&str>, format: Format) -> Result<Menu, Failure> {
        let (name, guest) = self.find(who)?;
        let made = self.menu(&guest);
        let left_out = left_out(&made);
        if made.menu.entries.is_empty() {
            return Err(nothing(&left_out));
        }
        let text = made.text(format, &self.templates);
        let text = text.map_err(|why| Failure::failed(why.to_string()))?;
        Ok(Menu {
            format: format.name(),
            client: name.map(|name| name.to_string()),
            text,
            default: made.menu.default,
            timeout: made.menu.timeout.as_secs(),
            entries: made.menu.entries.iter().map(Into::into).collect(),
            left_out,
        })
    }

    /// Whom a text means: a client, a network card or an address.
    fn find(&self, who: Option<&str>) -> Result<(Option<Name>, Guest), Failure> {
        let Some(text) = who else {
            return Ok((None, self.nobody(None)));
        };
        let named = |name: &Name| (Some(name.clone()), self.client(name));
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            let holder = self.known.holder_of(IpAddr::V4(address));
            return Ok(holder.map_or_else(|| (None, self.nobody(None)), |name| named(&name)));
        }
        if let Ok(mac) = text.parse::<MacAddress>() {
            let client = self.known.with_card(mac);
            let nobody = || (None, self.nobody(Some(mac)));
            return Ok(client.map_or_else(nobody, |client| named(&client.name)));
        }
        let mut clients = self.clients.iter();
        match clients.find(|client| client.name.as_str() == text) {
            Some(client) => Ok(named(&client.name)),
            None => Err(Failure::usage(format!(
                "{text}: no [client.{text}] in the config, no network card and no address"
            ))),
        }
    }
}

pub(super) fn left_out(made: &Made) -> Vec<LeftOut> {
    let left_out = made.left_out.iter().map(|(what, why)| LeftOut {
        what: what.clone(),
        why: why.to_string(),
    });
    left_out.collect()
}

/// Why there is nothing in a menu.
pub(super) fn nothing(left_out: &[LeftOut]) -> Failure {
    match left_out.first() {
        Some(LeftOut { what, why }) => Failure::failed(format!("{what} can't be booted: {why}")),
        None => Failure::usage(
            "there is nothing to boot: give an image its `kernel` and `initramfs` in the config",
        ),
    }
}

/// Our address, and the bits of its network where they are known.
pub(super) fn own_network(network: &NetworkConfig) -> Result<(Ipv4Addr, Option<u32>), Failure> {
    if let Some((address, Some(prefix))) = network.address {
        return Ok((address, Some(prefix)));
    }
    let all = interface::addresses();
    let all = all.map_err(|error| Failure::failed(format!("network interfaces: {error}")))?;
    let said = network.address.map(|(address, _)| address);
    let found = network.interfaces.iter().find_map(|name| {
        let mut of_it = all.iter().filter(|one| one.interface == *name);
        of_it.find(|one| said.is_none_or(|said| said == one.address))
    });
    match (found, said) {
        (Some(found), _) => Ok((found.address, Some(found.prefix))),
        (None, Some(said)) => Ok((said, None)),
        (None, None) => Err(Failure::usage(
            "our address is not known: say --server, or `address` in [network]",
        )),
    }
}
