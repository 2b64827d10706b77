//! In which partitions the roots of images are: found out once, of the images as they are.
//!
//! Invariant: a machine is told what the image says. What it does to the table of partitions of its
//! own disk, it has to say in its `cmdline`.

use std::collections::HashMap;
use std::sync::Arc;

use super::images::Images;
use crate::boot::inside::{Blocks, root_partition};
use crate::config::{BootFile, ImageBoot};
use crate::export::snapshot::Snapshot;
use crate::image::Image;
use crate::name::Name;

/// The partition of the root of each generation; those whose root is the whole disk are not here.
#[derive(Clone, Debug, Default)]
pub(super) struct Roots(HashMap<(Name, u32), u32>);

impl Roots {
    /// Those of all images that have a kernel. May wait for disks.
    pub(super) fn find(images: &Images, boots: &HashMap<Name, ImageBoot>) -> Self {
        let mut roots = Self::default();
        for generations in &images.0 {
            let Some(boot) = boots.get(&generations.name) else {
                continue;
            };
            for (number, image) in &generations.images {
                if let Err(why) = roots.add(image, *number, boot) {
                    let name = &generations.name;
                    tracing::warn!("{name}+{number}: no root can be found in it: {why}");
                }
            }
        }
        roots
    }

    /// Finds that of one generation. May wait for disks.
    pub(super) fn add(
        &mut self,
        image: &Arc<Image>,
        number: u32,
        boot: &ImageBoot,
    ) -> Result<(), String> {
        let kernel = match &boot.kernel {
            BootFile::Inside(path) => Some(path.as_str()),
            BootFile::OfHost(_) => None,
        };
        let disk: Arc<dyn Blocks> = Arc::new(Snapshot::new(Arc::clone(image), None));
        let found = root_partition(&disk, &boot.place, kernel);
        // What the config says is better than nothing.
        let root = found.as_ref().map_or(boot.place.partition, |found| *found);
        if let Some(root) = root {
            self.0.insert((image.name().clone(), number), root);
        }
        found.map(drop).map_err(|why| why.to_string())
    }

    /// The same of one that can't be opened: it goes by the config.
    pub(super) fn add_unread(&mut self, image: &Name, number: u32, boot: &ImageBoot) {
        if let Some(partition) = boot.place.partition {
            self.0.insert((image.clone(), number), partition);
        }
    }

    /// The partition of the root of a generation; `None` where that is the whole disk.
    pub(super) fn of(&self, image: &Name, number: u32) -> Option<u32> {
        self.0.get(&(image.clone(), number)).copied()
    }
}
