//! The tree of files that boot loaders see: what an admin put there, then what is made for the
//! machine that asks: its boot loader, its menu, and the kernel out of the disk that it will have.
//!
//! Invariants:
//! - A machine reads of a disk what the config names, and only of one that it may open.
//! - What is read is the machine's own disk, its changes included.

mod disks;
mod loaders;
mod menus;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use super::blocking::in_turn;
use super::catalog::Refused;
use super::herd::Herd;
use super::loaders::Loaders;
use super::offer::Offer;
use super::posts::Served;
use crate::access::{Caller, Peer};
use crate::boot::files::Content;
use crate::boot::inside::Whereabouts;
use crate::boot::menu::Transport;
use crate::config::BootFile;
use crate::export::name::ExportName;
use crate::name::Name;
use crate::status::FileStep;
use disks::{Disks, Wanted};

/// The files of all machines.
#[derive(Debug)]
pub(super) struct Tree {
    loaders: Loaders,
    disks: Arc<Disks>,
    herd: Arc<Herd>,
    /// Where NBD is served.
    port: u16,
    /// Where these files are.
    served: Served,
}

/// Who asks, and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// The address that was asked.
    pub(super) own: Ipv4Addr,
    pub(super) client: Ipv4Addr,
    /// How it loads.
    pub(super) via: Transport,
}

impl Tree {
    pub(super) fn new(herd: Arc<Herd>, port: u16, served: Served) -> Self {
        Self {
            loaders: Loaders::of_host(),
            disks: Arc::default(),
            herd,
            port,
            served,
        }
    }

    /// Opens a file. `None` where there is none.
    pub(super) async fn open(
        self: &Arc<Self>,
        ends: Ends,
        path: &str,
    ) -> io::Result<Option<Content>> {
        let opened = self.find(ends, path).await;
        self.note(
            ends,
            path,
            match &opened {
                Ok(Some(content)) => FileStep::Begun(content.size()),
                Ok(None) => FileStep::Missing,
                Err(error) => FileStep::Failed {
                    sent: 0,
                    why: error.to_string(),
                },
            },
        );
        opened
    }

    /// How far a file has got that a machine asked for: for its timeline.
    pub(super) fn note(&self, ends: Ends, path: &str, step: FileStep) {
        self.herd.watch().file(ends.client, path, step);
    }

    async fn find(self: &Arc<Self>, ends: Ends, path: &str) -> io::Result<Option<Content>> {
        let (offer, owned) = (self.herd.offer(), path.to_owned());
        let there = in_turn(move || match &offer.files {
            Some(files) => files.open(&owned),
            None => Ok(None),
        });
        if let Some(content) = there.await? {
            return Ok(Some(content));
        }
        if let Some(content) = self.loader_at(ends, path).await? {
            return Ok(Some(content));
        }
        if let Some(menu) = self.menu_at(ends, path).await? {
            return Ok(Some(menu));
        }
        match path
            .strip_prefix("disk/")
            .and_then(|path| path.split_once('/'))
        {
            Some((export, file)) => self.open_named(ends, export, file).await,
            None => Ok(None),
        }
    }

    /// Opens a file that the config names: of the machine's disk, or of the host.
    async fn open_named(
        &self,
        ends: Ends,
        export: &str,
        file: &str,
    ) -> io::Result<Option<Content>> {
        let offer = self.herd.offer();
        let Some((file, place)) = named(&offer, export, file) else {
            return Ok(None);
        };
        let caller = caller(ends);
        let refused = |refused: Refused| io::Error::other(refused.reason);
        match file {
            BootFile::Inside(path) => {
                let look = self.herd.look(&offer, export, &caller).await;
                let wanted = Wanted {
                    export: export.to_owned(),
                    place,
                    path,
                    is_named: true,
                };
                let file = self.disks.read(look.map_err(refused)?, wanted).await?;
                Ok(file.map(Content::from))
            }
            BootFile::OfHost(path) => {
                self.herd
                    .describe(&offer, export, &caller)
                    .map_err(refused)?;
                open_of_host(export, path).await
            }
        }
    }
}

async fn open_of_host(export: &str, path: PathBuf) -> io::Result<Option<Content>> {
    let shown = path.display().to_string();
    let content = in_turn(move || Content::open(&path)).await;
    let content = content.map_err(|error| io::Error::other(format!("{shown}: {error}")))?;
    if content.is_none() {
        tracing::warn!(
            "{export}: there is no file {shown}: see `kernel` and `initrd` of its image"
        );
    }
    Ok(content)
}

/// What `kernel` or `initrdN` stands for.
fn named(offer: &Offer, export: &str, file: &str) -> Option<(BootFile, Whereabouts)> {
    let export: ExportName = export.parse().ok()?;
    let image: &Name = export.image.as_ref()?;
    let boot = offer.boots.get(image)?;
    let meant = file_of(&boot.kernel, &boot.initrds, file)?;
    Some((meant.clone(), boot.place.clone()))
}

/// What `kernel` or `initrdN` stands for.
pub(super) fn file_of<'a, T>(kernel: &'a T, initrds: &'a [T], file: &str) -> Option<&'a T> {
    let Some(number) = file.strip_prefix("initrd") else {
        return (file == "kernel").then_some(kernel);
    };
    let nth: usize = number.parse().ok()?;
    // A file has one name: `00` and `+0` are numbers, too.
    let initrd = initrds.get(nth)?;
    (number == nth.to_string()).then_some(initrd)
}

fn caller(ends: Ends) -> Caller {
    Caller::plain(Peer::Ip(IpAddr::V4(ends.client)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_disk_has_one_name() {
        let of = |file: &str| file_of(&"vmlinuz", &["ucode", "initrd"], file).copied();
        assert_eq!(of("kernel"), Some("vmlinuz"));
        assert_eq!(of("initrd0"), Some("ucode"));
        assert_eq!(of("initrd1"), Some("initrd"));
        for other in [
            "initrd", "initrd00", "initrd+0", "initrd01", "initrd2", "initrd-0", "kernel0", "",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
