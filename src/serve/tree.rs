//! The tree of files that boot loaders see: what an admin put there, then what is made for the
//! machine that asks: its boot loader, its menu, and the kernel out of the disk that it will have.
//!
//! Invariants:
//! - A machine reads of a disk what the config names, and only of one that it may open.
//! - What is read is the machine's own disk, its changes included.

mod menus;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::herd::{Herd, Look};
use super::loaders::Loaders;
use super::offer::Offer;
use crate::access::{Caller, Peer};
use crate::boot::files::Content;
use crate::boot::inside::{self, Blocks, InsideError, Whereabouts};
use crate::boot::menu::Transport;
use crate::export::name::ExportName;
use crate::export::snapshot::Snapshot;
use crate::name::Name;
use crate::status::FileStep;

/// The files of all machines.
#[derive(Debug)]
pub(super) struct Tree {
    loaders: Loaders,
    herd: Arc<Herd>,
    /// Where NBD is served.
    port: u16,
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

impl Blocks for Look {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        Snapshot::read_at(&self.disk, into, offset)
    }

    fn size(&self) -> u64 {
        self.disk.size()
    }
}

impl Tree {
    pub(super) fn new(herd: Arc<Herd>, port: u16) -> Self {
        Self {
            loaders: Loaders::of_host(),
            herd,
            port,
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
        let there = blocking(move || match &offer.files {
            Some(files) => files.open(&owned),
            None => Ok(None),
        });
        if let Some(content) = there.await? {
            return Ok(Some(content));
        }
        if let Some(content) = self.loaders.open(ends, path).await? {
            return Ok(Some(content));
        }
        if let Some(menu) = self.menu_at(ends, path).await? {
            return Ok(Some(menu));
        }
        match path
            .strip_prefix("disk/")
            .and_then(|path| path.split_once('/'))
        {
            Some((export, file)) => self.read_inside(ends, export, file).await,
            None => Ok(None),
        }
    }

    /// Reads a file that the config names out of the machine's disk.
    async fn read_inside(
        &self,
        ends: Ends,
        export: &str,
        file: &str,
    ) -> io::Result<Option<Content>> {
        let offer = self.herd.offer();
        let Some((path, place)) = named(&offer, export, file) else {
            return Ok(None);
        };
        let look = self.herd.look(&offer, export, &caller(ends)).await;
        let look = look.map_err(|refused| io::Error::other(refused.reason))?;
        let read = blocking(move || {
            let disk: Arc<dyn Blocks> = Arc::new(look);
            Ok(inside::read_file(&disk, &place, &path).map_err(|error| (path, error)))
        });
        match read.await? {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err((path, InsideError::NotFound)) => {
                tracing::warn!(
                    "{export} has no file {path}: see `kernel` and `initrd` of its image"
                );
                Ok(None)
            }
            Err((path, error)) => Err(io::Error::other(format!("{export}: {path}: {error}"))),
        }
    }
}

/// The path in the image that `kernel` or `initrdN` stands for.
fn named(offer: &Offer, export: &str, file: &str) -> Option<(String, Whereabouts)> {
    let export: ExportName = export.parse().ok()?;
    let image: &Name = export.image.as_ref()?;
    let boot = offer.boots.get(image)?;
    let path = file_of(&boot.kernel, &boot.initrds, file)?;
    Some((path.to_owned(), boot.place.clone()))
}

/// What `kernel` or `initrdN` stands for.
pub(super) fn file_of<'a>(kernel: &'a str, initrds: &'a [String], file: &str) -> Option<&'a str> {
    match file.strip_prefix("initrd") {
        Some(number) => {
            let number: usize = number.parse().ok()?;
            initrds.get(number).map(String::as_str)
        }
        None => (file == "kernel").then_some(kernel),
    }
}

fn caller(ends: Ends) -> Caller {
    Caller::plain(Peer::Ip(IpAddr::V4(ends.client)))
}

/// Does `work` on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
