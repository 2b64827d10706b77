//! What the machine that asks may boot, as a menu.

use std::net::IpAddr;
use std::time::Duration;

use super::{Ends, Tree, caller};
use crate::boot::cmdline::{Machine, Root, command_line};
use crate::boot::grub::{Entry, Menu, Place, Transport};
use crate::config::{ImageBoot, Keep};
use crate::serve::offer::Offer;

/// How long a menu is shown that has a choice.
const CHOICE: Duration = Duration::from_secs(5);

impl Tree {
    /// What the machine at the other end may boot: its image, the current generation first.
    pub(super) fn menu(&self, ends: Ends) -> Option<Menu> {
        let offer = self.herd.offer();
        let client = offer.known.client_of(&caller(ends), None);
        let generations = offer.images.get(client.image.as_ref()).ok()?;
        let boot = offer.boots.get(&generations.name)?;
        let older = generations.images.keys().rev();
        let older = older.filter(|number| **number != generations.current);
        let numbers = std::iter::once(&generations.current).chain(older);
        let is_writable = client.keep != Keep::ReadOnly;
        let entries = numbers.filter_map(|number| {
            let export = format!("{}+{number}", generations.name);
            self.entry(ends, &offer, boot, export, is_writable)
        });
        let entries: Vec<_> = entries.collect();
        Some(Menu {
            timeout: if entries.len() > 1 {
                CHOICE
            } else {
                Duration::ZERO
            },
            entries,
            serial: None,
        })
    }

    fn entry(
        &self,
        ends: Ends,
        offer: &Offer,
        boot: &ImageBoot,
        export: String,
        is_writable: bool,
    ) -> Option<Entry> {
        let root = Root {
            server: ends.own,
            port: self.port,
            export: export.clone(),
            filesystem: None,
            flags: boot
                .place
                .subvolume
                .as_ref()
                .map(|path| format!("subvol={path}")),
            is_writable,
        };
        let machine = Machine {
            name: offer.known.holder_of(IpAddr::V4(ends.client)),
            mac: offer.known.card_of(ends.client),
        };
        let words = command_line(boot.initramfs, &root, &machine, &boot.words);
        let words = words
            .inspect_err(|bad| tracing::error!("{export} can't be booted: {bad}"))
            .ok()?;
        let place = |file: String| Place {
            transport: Transport::Tftp,
            server: ends.own,
            path: format!("disk/{export}/{file}"),
        };
        let initrds = (0..boot.initrds.len()).map(|number| place(format!("initrd{number}")));
        Some(Entry {
            initrds: initrds.collect(),
            kernel: place("kernel".to_owned()),
            title: export.clone(),
            words,
        })
    }
}
