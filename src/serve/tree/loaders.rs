//! The boot loaders in the tree: out of the machine's image where the config says so, else out of
//! the host.

use std::io;
use std::sync::Arc;

use super::disks::Wanted;
use super::{Ends, Tree, caller};
use crate::boot::files::Content;
use crate::boot::loader::Kind;
use crate::boot::signed;
use crate::config::GrubFrom;
use crate::export::snapshot::Snapshot;
use crate::serve::herd::Look;
use crate::serve::loaders::Origin;

impl Tree {
    /// Opens the loader, or the module of one, at `path`. `None` where there is none.
    pub(super) async fn loader_at(&self, ends: Ends, path: &str) -> io::Result<Option<Content>> {
        let is_loader =
            Kind::at(path).is_some() || Kind::of_module(path).is_some() || signed::is_signed(path);
        if !is_loader {
            return Ok(None);
        }
        let found = match self.origin(ends) {
            Some(origin) => self.loader_of(&origin, ends, path).await?,
            None => Loader::OfHost,
        };
        match found {
            Loader::OfImage(content) => Ok(content),
            Loader::OfHost => self.loaders.open(ends, path).await,
        }
    }

    /// The image that the GRUB of a machine comes out of; `None` means out of the host.
    fn origin(&self, ends: Ends) -> Option<Origin> {
        let (offer, caller) = (self.herd.offer(), caller(ends));
        let client = offer.known.client_of(&caller, None);
        let image = offer.images.get(client.image.as_ref()).ok()?;
        offer.known.may_see(&caller, &image.name).ok()?;
        let boot = offer.boots.get(&image.name)?;
        let (number, disk) = image.get(None).ok()?;
        (boot.grub == GrubFrom::Image).then(|| Origin {
            name: format!("{}+{number}", image.name),
            image: Arc::clone(disk),
            place: boot.place.clone(),
        })
    }

    async fn loader_of(&self, origin: &Origin, ends: Ends, path: &str) -> io::Result<Loader> {
        if let Some(kind) = Kind::at(path) {
            let image = self.loaders.of_images().image(origin, kind, ends).await?;
            return Ok(image.map_or(Loader::OfHost, |image| Loader::OfImage(Some(image))));
        }
        if let Some([wanted, shim, grub]) = signed::in_disk(path) {
            for file in [shim, grub] {
                if self.inside(origin, file).await?.is_none() {
                    self.loaders.lacks(&origin.name, file);
                    return Ok(Loader::OfHost);
                }
            }
            return Ok(Loader::OfImage(self.inside(origin, wanted).await?));
        }
        match self.loaders.of_images().module(origin, path).await {
            Some(file) => Ok(Loader::OfImage(self.inside(origin, &file).await?)),
            None => Ok(Loader::OfHost),
        }
    }

    /// A file of the image, as nobody has changed it.
    async fn inside(&self, origin: &Origin, file: &str) -> io::Result<Option<Content>> {
        let wanted = Wanted {
            export: origin.name.clone(),
            place: origin.place.clone(),
            path: file.to_owned(),
            is_named: false,
        };
        let look = Look::from(Snapshot::new(Arc::clone(&origin.image), None));
        let read = self.disks.read(look, wanted).await?;
        Ok(read.map(Content::from))
    }
}

/// Where a loader comes from.
enum Loader {
    /// Out of the image, if it is there.
    OfImage(Option<Content>),
    OfHost,
}
