//! Opening the images that a config names, and closing those that it names no more.
//!
//! Invariants:
//! - A generation is one and the same file for as long as anybody has it open: its sessions share
//!   their volumes, and a file put in its place would be another disk under them.
//! - What can't be opened as a whole is not opened at all, and the images of before stay.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use super::images::{Generations, Images};
use super::options::Failure;
use super::prefetch;
use super::state_dir::StateDir;
use crate::config::ImageSource;
use crate::image::{Image, Watch};
use crate::name::Name;

/// Opens images, and knows which are open.
#[derive(Debug)]
pub(super) struct Shelf {
    /// Where overlays are made over them; gone when the server goes down.
    state: Option<Weak<StateDir>>,
    /// Whether it is remembered what boots read.
    prefetches: bool,
    watch: Watch,
    /// All that may be open, also those that only sessions still use.
    books: Vec<Book>,
}

/// A generation, for as long as anybody uses it.
#[derive(Clone, Debug)]
struct Book {
    name: Name,
    generation: u32,
    image: Weak<Image>,
}

/// A generation that is opened, or is at another place than before.
#[derive(Debug)]
struct Arrival {
    book: Book,
    image: Arc<Image>,
    path: PathBuf,
}

impl Shelf {
    pub(super) fn new(state: Option<&Arc<StateDir>>, prefetches: bool) -> std::io::Result<Self> {
        Ok(Self {
            state: state.map(Arc::downgrade),
            prefetches,
            watch: Watch::start()?,
            books: Vec::new(),
        })
    }

    /// Opens what is wanted. What is open already is only looked up.
    pub(super) fn open(&mut self, wanted: &[ImageSource]) -> Result<Images, Failure> {
        check_names(wanted)?;
        self.books.retain(|book| book.image.strong_count() > 0);
        let mut arrivals = Vec::new();
        let images = wanted.iter().map(|source| self.take(source, &mut arrivals));
        let images: Vec<_> = images.collect::<Result<_, Failure>>()?;
        // Only now that all are there: this leaves traces.
        arrivals.iter().try_for_each(|new| self.record(new))?;
        for Arrival { book, image, .. } in arrivals {
            if self.find(&book.name, book.generation).is_none() {
                self.watch.add(image);
                self.books.push(book);
            }
        }
        Ok(Images(images))
    }

    fn take(
        &self,
        source: &ImageSource,
        arrivals: &mut Vec<Arrival>,
    ) -> Result<Generations, Failure> {
        let mut images = BTreeMap::new();
        for (&generation, path) in &source.files {
            let open = self.find(&source.name, generation);
            let is_known = open.as_ref().is_some_and(|open| open.path() == path);
            let image = match open {
                Some(open) => same(open, generation, path)?,
                None => Arc::new(open_as(path, &source.name)?),
            };
            if !is_known {
                arrivals.push(Arrival {
                    book: Book {
                        name: source.name.clone(),
                        generation,
                        image: Arc::downgrade(&image),
                    },
                    image: Arc::clone(&image),
                    path: path.clone(),
                });
            }
            images.insert(generation, image);
        }
        Ok(Generations {
            name: source.name.clone(),
            current: source.current,
            images,
        })
    }

    fn find(&self, name: &Name, generation: u32) -> Option<Arc<Image>> {
        let mut books = self.books.iter();
        let found = books.find(|book| book.name == *name && book.generation == generation);
        found?.image.upgrade()
    }

    /// Writes into the state directory what its overlays are made over.
    fn record(&self, new: &Arrival) -> Result<(), Failure> {
        let (name, generation) = (&new.book.name, new.book.generation);
        let state = self.state.as_ref().and_then(Weak::upgrade);
        if let Some(state) = &state {
            state
                .bind_identity(name, generation, new.image.identity())
                .and_then(|()| state.record_image(name, generation, &new.path))
                .map_err(failed)?;
        }
        if self.prefetches {
            prefetch::remember(state.as_deref(), &new.image, generation);
        }
        Ok(())
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error.to_string())
}

fn open_as(path: &Path, name: &Name) -> Result<Image, Failure> {
    Image::open_as(path, name.clone()).map_err(failed)
}

fn check_names(wanted: &[ImageSource]) -> Result<(), Failure> {
    let file = |source: &ImageSource| {
        let file = source.files.get(&source.current);
        file.map_or_else(String::new, |file| file.display().to_string())
    };
    for (index, source) in wanted.iter().enumerate() {
        let others = wanted.iter().take(index);
        if let Some(other) = others.clone().find(|other| other.name == source.name) {
            let (one, two, name) = (file(other), file(source), &source.name);
            return Err(Failure::usage(format!(
                "{one} and {two} are both image {name}: rename one of the files",
            )));
        }
    }
    Ok(())
}

/// A file that has only moved is the same; another one needs a number of its own, since sessions
/// and overlays are over the one that is open.
fn same(open: Arc<Image>, generation: u32, path: &Path) -> Result<Arc<Image>, Failure> {
    let was = match open.path() == path {
        true if open.is_still_there() => return Ok(open),
        true => "before".to_owned(),
        false => format!("as {}", open.path().display()),
    };
    let name = open.name();
    let other = open_as(path, name)?;
    match other.identity().compare(open.identity()) {
        Ok(()) => Ok(open),
        Err(difference) => Err(Failure::failed(format!(
            "image {name}+{generation}: {} is another file than the one that was opened {was}: \
             {difference}; give that another `generation`",
            path.display(),
        ))),
    }
}

#[cfg(test)]
mod tests;
