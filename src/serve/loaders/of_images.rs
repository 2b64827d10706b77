//! The GRUB that images have inside: which of them have one, and the boot images made of it.
//!
//! Images are what is read here, and not what machines have changed of them: grub-mkimage is not
//! made for modules that somebody wrote who means harm.
//!
//! Invariants:
//! - A GRUB and its modules are of one place: where no boot image can be made of an image's GRUB,
//!   its modules are not served either.
//! - Each boot image is made once for an image, a platform and an address of ours.
//! - Of what an image lacks, people are told once.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OnceCell;

use crate::boot::files::Content;
use crate::boot::inside::{Blocks, Whereabouts};
use crate::boot::loader::{GrubOfDisk, Kind, LoaderError};
use crate::boot::menu::Transport;
use crate::export::snapshot::Snapshot;
use crate::image::Image;
use crate::serve::blocking::in_turn;
use crate::serve::tree::Ends;

/// The image that a machine's GRUB comes out of.
#[derive(Clone, Debug)]
pub(in crate::serve) struct Origin {
    /// As it is called in the log.
    pub(in crate::serve) name: String,
    pub(in crate::serve) image: Arc<Image>,
    pub(in crate::serve) place: Whereabouts,
}

impl Origin {
    fn disk(&self) -> Arc<dyn Blocks> {
        Arc::new(Snapshot::new(Arc::clone(&self.image), None))
    }
}

/// What is known of images.
#[derive(Debug, Default)]
pub(in crate::serve) struct OfImages(Mutex<Vec<Arc<OfImage>>>);

/// The GRUB for one platform in one image.
#[derive(Debug)]
struct OfImage {
    image: Weak<Image>,
    place: Whereabouts,
    kind: &'static Kind,
    /// `None` where it has none.
    grub: OnceCell<Option<GrubOfDisk>>,
    /// No boot image could be made of it.
    is_unfit: AtomicBool,
    made: Mutex<HashMap<Asked, Arc<OnceCell<Content>>>>,
}

/// How a boot image is asked for, and at which address of ours.
type Asked = (Transport, Ipv4Addr);

impl OfImages {
    /// The boot image of this kind. `None` where the host's is to be served.
    pub(in crate::serve) async fn image(
        &self,
        origin: &Origin,
        kind: &'static Kind,
        ends: Ends,
    ) -> io::Result<Option<Content>> {
        let of = self.of(origin, kind);
        let Some(grub) = of.grub(origin).await else {
            return Ok(None);
        };
        let cell = {
            let mut made = of.made.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(made.entry((ends.via, ends.own)).or_default())
        };
        let made = cell.get_or_try_init(|| make(origin, grub, kind, ends));
        match made.await {
            Ok(content) => Ok(Some(content.clone())),
            Err(error @ (LoaderError::Io(_) | LoaderError::NoProgram)) => {
                Err(io::Error::other(error))
            }
            Err(unfit) => {
                if !of.is_unfit.swap(true, Ordering::Relaxed) {
                    tracing::error!(
                        "{}: no {} can be made of the GRUB inside ({unfit}): machines with this \
                         image get that of the host",
                        origin.name,
                        kind.path()
                    );
                }
                Ok(None)
            }
        }
    }

    /// Where in the image the module or list is that GRUB asks for at `path`. `None` where the
    /// host's is to be served.
    pub(in crate::serve) async fn module(&self, origin: &Origin, path: &str) -> Option<String> {
        let of = self.of(origin, Kind::of_module(path)?);
        of.grub(origin).await?.file_at(path)
    }

    fn of(&self, origin: &Origin, kind: &'static Kind) -> Arc<OfImage> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| one.image.strong_count() > 0);
        let is_it = |one: &&Arc<OfImage>| {
            std::ptr::eq(one.image.as_ptr(), Arc::as_ptr(&origin.image))
                && (one.kind, &one.place) == (kind, &origin.place)
        };
        if let Some(found) = all.iter().find(is_it) {
            return Arc::clone(found);
        }
        let new = Arc::new(OfImage {
            image: Arc::downgrade(&origin.image),
            place: origin.place.clone(),
            kind,
            grub: OnceCell::new(),
            is_unfit: AtomicBool::new(false),
            made: Mutex::default(),
        });
        all.push(Arc::clone(&new));
        new
    }
}

impl OfImage {
    /// What the image has; `None` where that can't be used.
    async fn grub(&self, origin: &Origin) -> Option<&GrubOfDisk> {
        let found = self.grub.get_or_init(|| find(origin, self.kind)).await;
        let is_unfit = self.is_unfit.load(Ordering::Relaxed);
        found.as_ref().filter(|_| !is_unfit)
    }
}

async fn find(origin: &Origin, kind: &'static Kind) -> Option<GrubOfDisk> {
    let (disk, place) = (origin.disk(), origin.place.clone());
    let found = in_turn(move || GrubOfDisk::find((&disk, &place), kind).map_err(io::Error::other));
    let why = match found.await {
        Ok(Some(grub)) => return Some(grub),
        Ok(None) => format!(
            "there is none of this kind in {}; install it in the image, on Debian grub-pc-bin or \
             grub-efi-amd64-bin",
            crate::boot::loader::HOMES.join(" or ")
        ),
        Err(error) => error.to_string(),
    };
    tracing::error!(
        "{}: machines with this image get the host's {}, as the one inside can't be read: {why}",
        origin.name,
        kind.path()
    );
    None
}

async fn make(
    origin: &Origin,
    grub: &GrubOfDisk,
    kind: &'static Kind,
    ends: Ends,
) -> Result<Content, LoaderError> {
    let (disk, origin, grub) = (origin.disk(), origin.clone(), grub.clone());
    let (via, own) = (ends.via, ends.own);
    let made = in_turn(move || {
        let modules = grub.modules((&disk, &origin.place));
        let image = modules.and_then(|modules| modules.image(kind, via, own));
        if let Ok(image) = &image {
            let (name, path, size) = (&origin.name, kind.path(), image.len());
            tracing::info!("{path} of the GRUB in {name} for {own}: {size} bytes");
        }
        Ok(image)
    });
    Ok(made.await??.into())
}
