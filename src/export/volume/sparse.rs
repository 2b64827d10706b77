//! The holes of the image below a volume, and what its blocks are.

use std::rc::Rc;
use std::sync::Arc;

use super::{Volume, VolumeError};
use crate::export::extents::Layers;
use crate::io;
use crate::overlay::map::BlockMap;

impl Volume {
    /// Has the holes of the image found beside, unless they are known.
    pub fn look_for_holes(self: &Rc<Self>) {
        if self.image.known_holes().is_none() {
            let volume = Rc::clone(self);
            drop(io::spawn(async move {
                volume.with_holes().await;
            }));
        }
    }

    /// Waits until the holes of the image are known.
    pub async fn with_holes(&self) {
        if self.image.known_holes().is_none() {
            let image = Arc::clone(&self.image);
            io::offload(move || {
                image.holes();
            })
            .await;
        }
    }

    /// Lets `tell` look at the layers of the disk, as of now.
    ///
    /// # Errors
    /// [`VolumeError::ImageChanged`].
    pub fn describe<T>(&self, tell: impl FnOnce(Layers<'_>) -> T) -> Result<T, VolumeError> {
        self.check_image()?;
        Ok(match &self.overlay {
            None => tell(self.layers(None)),
            Some(overlay) => tell(self.layers(Some(overlay.borrow().map()))),
        })
    }

    /// The image under `map`, with its holes where they are known.
    pub(super) fn layers<'a>(&'a self, map: Option<&'a BlockMap>) -> Layers<'a> {
        let holes = self.image.known_holes();
        Layers { map, holes }
    }
}
