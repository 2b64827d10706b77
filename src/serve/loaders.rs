//! The boot images of GRUB that machines ask for: made when the first one does, then kept.
//!
//! Invariants:
//! - Each is made once for an address of ours, however many machines ask at once.
//! - Of a kind that the host has not, people are told once.
//! - There are as many as we have addresses, platforms and transports; no client can add to them.
//! - Those of the GRUB inside of an image are in `of_images`, and go with it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use super::blocking::in_turn;
use super::tree::Ends;
use crate::boot::files::Content;
use crate::boot::loader::{Kind, Modules};
use crate::boot::menu::Transport;
use crate::boot::signed;
use of_images::OfImages;

mod of_images;

pub(super) use of_images::Origin;

type Key = (&'static Kind, Transport, Ipv4Addr);

/// What there is of GRUB.
#[derive(Debug, Default)]
pub(super) struct Loaders {
    modules: Option<Arc<Modules>>,
    made: Mutex<HashMap<Key, Arc<OnceCell<Content>>>>,
    of_images: OfImages,
    /// What there is not, and was told of.
    missed: Mutex<HashSet<String>>,
}

impl Loaders {
    /// Those that the host can give.
    pub(super) fn of_host() -> Self {
        Self {
            modules: Modules::of_host().map(Arc::new),
            made: Mutex::default(),
            of_images: OfImages::default(),
            missed: Mutex::default(),
        }
    }

    /// Opens the image or module of GRUB at `path`. `None` where there is none.
    pub(super) async fn open(&self, ends: Ends, path: &str) -> io::Result<Option<Content>> {
        if signed::is_signed(path) {
            let path = path.to_owned();
            return in_turn(move || signed::open(&path)).await;
        }
        match (Kind::at(path), &self.modules) {
            (Some(kind), Some(modules)) if modules.have(kind) => {
                self.image(modules, kind, ends).await.map(Some)
            }
            (Some(kind), _) => {
                self.miss(kind);
                Ok(None)
            }
            (None, Some(modules)) => {
                let (modules, path) = (Arc::clone(modules), path.to_owned());
                in_turn(move || modules.open(&path)).await
            }
            (None, None) => Ok(None),
        }
    }

    /// Those of images.
    pub(super) const fn of_images(&self) -> &OfImages {
        &self.of_images
    }

    /// Tells once that an image has no such file, which a signed loader needs.
    pub(super) fn lacks(&self, image: &str, file: &str) {
        if self.is_first(format!("{image} {file}")) {
            tracing::error!(
                "{image} has no {file}: machines with this image get shim and GRUB of the host; \
                 install them in the image, on Debian shim-signed and grub-efi-amd64-signed"
            );
        }
    }

    fn is_first(&self, what: String) -> bool {
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        missed.insert(what)
    }

    fn miss(&self, kind: &Kind) {
        let path = kind.path();
        if self.is_first(path.clone()) {
            tracing::warn!(
                "{path}: machines are told to load it, and this host has no GRUB of this kind: \
                 see cowherd.toml(5)"
            );
        }
    }

    async fn image(
        &self,
        modules: &Arc<Modules>,
        kind: &'static Kind,
        ends: Ends,
    ) -> io::Result<Content> {
        let (via, own) = (ends.via, ends.own);
        let cell = {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(made.entry((kind, via, own)).or_default())
        };
        let make = || {
            let modules = Arc::clone(modules);
            in_turn(move || {
                let image = modules.image(kind, via, own).map_err(io::Error::other)?;
                tracing::info!("{} for {own}: {} bytes", kind.path(), image.len());
                Ok(image.into())
            })
        };
        cell.get_or_try_init(make).await.cloned()
    }
}
