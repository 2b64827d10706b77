//! GRUB in a tree of boot files: out of the image of machines that nobody knows where the config
//! says so, else out of the host.

use std::sync::Arc;

use super::LeftOut;
use super::plan::{Plan, Source};
use super::subject::Herd;
use crate::boot::inside::{Blocks, InsideError, Whereabouts, read_file};
use crate::boot::loader::{GrubOfDisk, KINDS, Kind, Modules};
use crate::boot::signed;
use crate::config::GrubFrom;
use crate::export::snapshot::Snapshot;
use crate::image::Image;
use crate::name::Name;
use crate::serve::menus::Site;
use crate::serve::options::Failure;

/// An image that files of GRUB are read out of.
#[derive(Debug)]
pub(super) struct Opened {
    disk: Arc<Snapshot>,
    place: Whereabouts,
    name: Name,
}

impl Opened {
    fn disk(&self) -> Arc<dyn Blocks> {
        Arc::clone(&self.disk) as Arc<dyn Blocks>
    }

    /// A whole file.
    pub(super) fn read(&self, file: &str) -> Result<Vec<u8>, String> {
        self.found(file)
            .map_err(|why| format!("{file} in {}: {why}", self.name))
    }

    fn found(&self, file: &str) -> Result<Vec<u8>, InsideError> {
        read_file(&self.disk(), &self.place, file)
    }

    /// The network image of its GRUB.
    pub(super) fn image(
        &self,
        grub: &GrubOfDisk,
        kind: &Kind,
        site: Site,
    ) -> Result<Vec<u8>, String> {
        let disk = self.disk();
        let modules = grub.modules((&disk, &self.place));
        let image = modules.and_then(|modules| modules.image(kind, site.via, site.server));
        image.map_err(|why| format!("of the GRUB in {}: {why}", self.name))
    }
}

impl Plan {
    /// GRUB itself, and shim.
    pub(super) fn grub(&mut self, herd: &Herd) -> Result<(), Failure> {
        let opened = herd.image_with_grub()?.map(Arc::new);
        let signed = opened.as_ref().is_some_and(|opened| self.signed_of(opened));
        if !signed {
            for path in signed::paths() {
                self.put(path.to_owned(), Source::Signed);
            }
        }
        let mut left = Vec::new();
        for kind in &KINDS {
            let is_there = match &opened {
                Some(opened) => self.grub_of(opened, kind, herd.site)?,
                None => false,
            };
            if !is_there {
                left.push(kind);
            }
        }
        if let Some(opened) = opened.filter(|_| left.len() == KINDS.len()) {
            self.left_out.push(LeftOut {
                what: format!("GRUB of {}", opened.name),
                why: "there is none inside: that of this host is in the tree".to_owned(),
            });
        }
        self.grub_of_host(&left, herd.site)
    }

    /// Puts the GRUB for `kind` in that is inside of an image; whether there is one.
    fn grub_of(
        &mut self,
        opened: &Arc<Opened>,
        kind: &'static Kind,
        site: Site,
    ) -> Result<bool, Failure> {
        let disk = opened.disk();
        let found = GrubOfDisk::find((&disk, &opened.place), kind);
        let found = found.map_err(|why| Failure::failed(format!("{}: {why}", opened.name)))?;
        let Some(grub) = found else {
            return Ok(false);
        };
        for path in grub.names() {
            let file = grub.file_at(&path).unwrap_or_default();
            // The list of modules has the kernel too, and not every GRUB has every list.
            if !matches!(opened.found(&file), Err(InsideError::NotFound)) {
                self.put(path, Source::OfImage(Arc::clone(opened), file));
            }
        }
        let source = Source::LoaderOfImage(Arc::clone(opened), Box::new(grub), kind, site);
        self.put(kind.path(), source);
        Ok(true)
    }

    /// Puts shim and the GRUB behind it in that are inside of an image; whether there are any.
    fn signed_of(&mut self, opened: &Arc<Opened>) -> bool {
        let before = self.files.len();
        for path in signed::all() {
            let Some(files) = signed::in_disk(path) else {
                continue;
            };
            if files.iter().all(|file| opened.found(file).is_ok()) {
                let [file, ..] = files;
                let source = Source::OfImage(Arc::clone(opened), file.to_owned());
                self.put(path.to_owned(), source);
            }
        }
        self.files.len() > before
    }

    fn grub_of_host(&mut self, kinds: &[&'static Kind], site: Site) -> Result<(), Failure> {
        let Some(modules) = Modules::of_host().map(Arc::new) else {
            if kinds.len() == KINDS.len() {
                self.left_out.push(LeftOut {
                    what: "GRUB".to_owned(),
                    why: "this host has no modules of it: install grub-pc-bin and \
                          grub-efi-amd64-bin"
                        .to_owned(),
                });
            }
            return Ok(());
        };
        for kind in kinds.iter().filter(|kind| modules.have(kind)) {
            let names = modules.names(kind);
            let names = names.map_err(|error| Failure::failed(format!("GRUB: {error}")))?;
            for path in names {
                self.put(path, Source::Module(Arc::clone(&modules)));
            }
            let source = Source::Loader(Arc::clone(&modules), kind, site);
            self.put(kind.path(), source);
        }
        Ok(())
    }
}

impl Herd {
    /// The image of machines that nobody knows, where their GRUB is to come out of it.
    fn image_with_grub(&self) -> Result<Option<Opened>, Failure> {
        let Some(source) = self.image_of_nobody() else {
            return Ok(None);
        };
        let boot = self.boots.get(&source.name);
        let Some(boot) = boot.filter(|boot| boot.grub == GrubFrom::Image) else {
            return Ok(None);
        };
        let Some(path) = source.files.get(&source.current) else {
            return Ok(None);
        };
        let image = Image::open_as(path, source.name.clone());
        let image = image.map_err(|why| Failure::failed(why.to_string()))?;
        Ok(Some(Opened {
            disk: Arc::new(Snapshot::new(Arc::new(image), None)),
            place: boot.place.clone(),
            name: source.name.clone(),
        }))
    }
}
