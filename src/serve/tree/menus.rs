//! The menus in the tree: whose is asked for, and what that machine may boot.
//!
//! Invariants:
//! - The address of who asks counts before what a name says: whoever has the lease of a client gets
//!   the menu of that client.
//! - A file that an admin put where a boot loader would look later is not hidden by a menu that is
//!   made.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Ends, Tree, caller, file_of};
use crate::access::Caller;
use crate::boot::files::{Content, Files};
use crate::boot::lookup::{Key, Lookup};
use crate::boot::menu::{Format, Transport};
use crate::mac::MacAddress;
use crate::name::Name;
use crate::serve::blocking::in_turn;
use crate::serve::menus::{Guest, Made, NoMenu, Site, Stock, Stocked, make};
use crate::serve::offer::Offer;
use crate::serve::templates::Templates;

/// Whom a menu is for.
struct Asked {
    /// The client that a name says; `None` is whoever has the address.
    name: Option<Name>,
    /// The network card that a name says.
    card: Option<MacAddress>,
}

impl Tree {
    /// The menu at `path`; `None` where that is no menu, or none is made for it.
    pub(super) async fn menu_at(
        self: &Arc<Self>,
        ends: Ends,
        path: &str,
    ) -> io::Result<Option<Content>> {
        let offer = self.herd.offer();
        if let Some((root, file)) = of_nfs(&offer, path) {
            return in_turn(move || Files::below(&root)?.open(&file)).await;
        }
        let Some(lookup) = Lookup::of(path) else {
            return Ok(None);
        };
        let Some(asked) = whose(&offer, ends, lookup.key) else {
            return Ok(None);
        };
        let Some(made) = self.menu(ends, &offer, asked, lookup.format) else {
            return Ok(None);
        };
        if self.is_found_later(ends, &lookup).await? {
            return Ok(None);
        }
        let text = written(&made, lookup.format, &offer.templates, path);
        Ok(text.map(|text| text.into_bytes().into()))
    }

    /// Whether an admin put a file where the loader looks when it finds none here.
    async fn is_found_later(&self, ends: Ends, lookup: &Lookup) -> io::Result<bool> {
        let later = lookup.later(ends.client);
        let offer = self.herd.offer();
        in_turn(move || {
            let Some(files) = &offer.files else {
                return Ok(false);
            };
            // What can't be read is there all the same.
            let is_there = |path: &String| !matches!(files.open(path), Ok(None));
            Ok(later.iter().any(is_there))
        })
        .await
    }

    /// What the machine at the other end may boot; `None` where that is nothing.
    fn menu(&self, ends: Ends, offer: &Offer, asked: Asked, format: Format) -> Option<Made> {
        let (known, caller) = (&offer.known, caller(ends));
        let client = known.client_of(&caller, asked.name.as_ref());
        let guest = Guest::new(known, client, asked.name, asked.card);
        let site = Site {
            server: ends.own,
            port: self.port,
            via: ends.via,
            also: self.also(ends, format),
            is_static: false,
        };
        let made = make(site, &guest, &stock(offer, &caller));
        for (export, why) in &made.left_out {
            tracing::error!("{export} can't be booted: {why}");
        }
        Some(made).filter(|made| !made.menu.entries.is_empty())
    }
}

impl Tree {
    /// By what else than it came by a loader gets files of the same address.
    fn also(&self, ends: Ends, format: Format) -> Option<Transport> {
        let other = match (format, ends.via) {
            // Only a PXELINUX of another kind speaks HTTP.
            (Format::Pxelinux, _) => return None,
            (Format::Grub | Format::Ipxe, Transport::Tftp) => Transport::Http,
            (Format::Grub | Format::Ipxe, Transport::Http) => Transport::Tftp,
        };
        Some(other).filter(|other| self.served.by(*other, ends.own))
    }
}

/// Whose menu `key` is; `None` where another name is asked for next that says more.
fn whose(offer: &Offer, ends: Ends, key: Key) -> Option<Asked> {
    let (known, client) = (&offer.known, ends.client);
    let has_name = known.holder_of(IpAddr::V4(client)).is_some();
    // A client whose overlay is not for this address is none of its business.
    let its_own = |name: &Name| {
        let caller = caller(ends);
        let image = known.client_of(&caller, Some(name)).image;
        let images = offer.images.get(image.as_ref()).ok()?;
        let may = known.may_open(&caller, &images.name, name);
        may.is_ok().then(|| name.clone())
    };
    let of_address = |card| Some(Asked { name: None, card });
    match key {
        Key::Any => of_address(None),
        Key::Address(address) if address == client => of_address(None),
        Key::Address(_) | Key::Near(..) => None,
        Key::Card(mac) if has_name => of_address(Some(mac)),
        Key::Card(mac) => {
            let named = known.with_card(mac);
            let name = named.and_then(|client| its_own(&client.name));
            Some(Asked {
                name,
                card: Some(mac),
            })
        }
        Key::Uuid(_) if has_name => of_address(None),
        Key::Uuid(uuid) => {
            let named = known.with_uuid(uuid)?;
            let name = Some(its_own(&named.name)?);
            Some(Asked { name, card: None })
        }
    }
}

/// The file that `path` stands for, where it is one of a root on NFS, and below what.
fn of_nfs(offer: &Offer, path: &str) -> Option<(PathBuf, String)> {
    let (name, file) = path.strip_prefix("nfs/")?.split_once('/')?;
    let root = offer.nfs.iter().find(|root| root.name.as_str() == name)?;
    let file = file_of(&root.kernel, &root.initrds, file)?;
    Some((root.files.clone(), file.to_owned()))
}

/// What `caller` may know of.
fn stock<'a>(offer: &'a Offer, caller: &Caller) -> Stock<'a> {
    let images = offer.images.0.iter();
    let images = images.filter(|image| offer.known.may_see(caller, &image.name).is_ok());
    let images = images.map(|image| Stocked {
        name: image.name.clone(),
        current: image.current,
        numbers: image.images.keys().copied().collect(),
    });
    Stock {
        images: images.collect(),
        boots: &offer.boots,
        roots: &offer.roots,
        nfs: &offer.nfs,
        default_menu: offer.known.default_menu(),
    }
}

/// The menu; as we make it where its template fails for this machine.
fn written(made: &Made, format: Format, templates: &Templates, path: &str) -> Option<String> {
    let text = match made.text(format, templates) {
        Err(NoMenu::Template(wrong)) => {
            tracing::error!("{wrong}; {path} is made without this template");
            made.menu.written_for(format).map_err(NoMenu::from)
        }
        text => text,
    };
    match text {
        Ok(text) => Some(text),
        Err(why) => {
            tracing::error!("no {path} can be made: {why}");
            None
        }
    }
}
