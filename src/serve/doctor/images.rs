//! Images: whether they are there, are those of before, can be read, and have what machines load.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::finding::{Area, Finding};
use super::{Step, Told, Visit};
use crate::boot::inside::{Blocks, Whereabouts, read_file};
use crate::config::{BootFile, ImageBoot, ImageSource};
use crate::export::snapshot::Snapshot;
use crate::image::Image;
use crate::serve::options::Failure;
use crate::serve::state_dir::StateDir;

/// Bytes that are read at once.
const PIECE: u64 = 1024 * 1024;
/// Pieces that are read of an image where it is not read as a whole.
const PIECES: u64 = 64;

pub(super) fn look(visit: &mut Visit<'_>) -> Result<(), Failure> {
    let images = visit.images()?;
    if images.is_empty() {
        visit.found(
            Finding::unknown(Area::Images, "images", "none is named")
                .advised("name the config with --config, or an image file"),
        );
    }
    for source in &images {
        for (generation, file) in source.files.clone() {
            let one = One {
                about: format!("{}+{generation} ({})", source.name, file.display()),
                source: source.clone(),
                generation,
                file,
                state: visit.state.clone(),
                is_read_whole: visit.question.read_images,
            };
            visit.looks(format!("image {}+{generation}", source.name));
            let about = one.about.clone();
            visit.aside(Area::Images, &about, move |told| one.look(told));
        }
    }
    Ok(())
}

/// A generation of an image.
struct One {
    about: String,
    source: ImageSource,
    generation: u32,
    file: PathBuf,
    state: PathBuf,
    is_read_whole: bool,
}

impl One {
    fn look(&self, told: &Told) {
        let image = match self.open() {
            Ok(image) => image,
            Err(message) => {
                return told.found(Finding::from_message(Area::Images, &self.about, &message));
            }
        };
        told.found(match self.read(told, &image) {
            Ok(how) => {
                let what = format!("{} bytes, {how}", image.size());
                Finding::fine(Area::Images, &self.about, what)
            }
            Err((offset, error)) => {
                let what = format!("it can't be read at byte {offset}: {error}");
                Finding::wrong(Area::Images, &self.about, what)
                    .advised("look at the health of the disk that it is on, and restore the image")
            }
        });
        if let (Some(boot), true) = (&self.source.boot, self.generation == self.source.current) {
            look_inside(told, &self.about, boot, &image);
        }
    }

    /// The image, where it is there and the one that overlays are over.
    fn open(&self) -> Result<Arc<Image>, String> {
        let name = &self.source.name;
        let image = Image::open_as(&self.file, name.clone()).map_err(|error| error.to_string())?;
        if let Ok(state) = StateDir::of_server(&self.state) {
            let known = state.check_identity(name, self.generation, image.identity());
            known.map_err(|error| error.to_string())?;
        }
        Ok(Arc::new(image))
    }

    /// Reads it, or some places all over it. How it was read; or where it could not be, and why.
    fn read(&self, told: &Told, image: &Image) -> Result<&'static str, (u64, std::io::Error)> {
        let total = image.size();
        let (step, how) = match self.is_read_whole {
            true => (PIECE, "all of it can be read"),
            false => (PIECE.max(total / PIECES), "read here and there"),
        };
        let mut piece = vec![0; usize::try_from(PIECE).unwrap_or(usize::MAX)];
        let mut offset = 0;
        while offset < total {
            image
                .read(&mut piece, offset)
                .map_err(|error| (offset, error))?;
            offset = offset.saturating_add(step);
            let done = offset.min(total);
            told.tell(Step::Progress { done, total });
        }
        Ok(how)
    }
}

/// What machines load before they have a disk.
fn look_inside(told: &Told, about: &str, boot: &ImageBoot, image: &Arc<Image>) {
    let disk: Arc<dyn Blocks> = Arc::new(Snapshot::new(Arc::clone(image), None));
    let files = std::iter::once(("kernel", &boot.kernel));
    let files = files.chain(boot.initrds.iter().map(|file| ("initrd", file)));
    for (key, file) in files {
        let (path, size) = match file {
            BootFile::Inside(path) => (format!("/{path}"), inside(&disk, &boot.place, path)),
            BootFile::OfHost(path) => (path.display().to_string(), of_host(path)),
        };
        let about = format!("{about}, {key} {path}");
        told.found(match size {
            Ok(size) => Finding::fine(Area::Images, about, format!("{size} bytes")),
            Err(error) => Finding::wrong(Area::Images, about, error).advised(format!(
                "machines would get no further than their menu: set `{key}` of the image to a file \
                 that is there, or take it out"
            )),
        });
    }
}

fn inside(disk: &Arc<dyn Blocks>, place: &Whereabouts, path: &str) -> Result<u64, String> {
    let bytes = read_file(disk, place, path).map_err(|error| error.to_string())?;
    Ok(bytes.len() as u64)
}

fn of_host(path: &Path) -> Result<u64, String> {
    let open = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let facts = open.metadata().map_err(|error| error.to_string())?;
    match facts.is_file() {
        true => Ok(facts.len()),
        false => Err("it is no file".to_owned()),
    }
}
