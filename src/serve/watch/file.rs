//! The file of boots in the state directory.
//!
//! Invariant: it is written beside and renamed, so after a crash it is whole, and at most some
//! seconds old. Nothing hangs on it: one that can't be read is left out.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::limits::STATUS_FILE_MAX;
use crate::serve::state_dir::durable;
use crate::status::timelines::Saved;

/// Its name.
pub(super) const NAME: &str = "boots";

/// What was saved; nothing where that can't be read.
pub(super) fn read(path: &Path) -> Saved {
    match try_read(path) {
        Ok(saved) => saved,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Saved::default(),
        Err(error) => {
            tracing::warn!(
                "earlier boots can't be read from {}: {error}; the file will be replaced",
                path.display()
            );
            Saved::default()
        }
    }
}

fn try_read(path: &Path) -> io::Result<Saved> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(STATUS_FILE_MAX)
        .read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(io::Error::other)
}

pub(super) fn write(path: &Path, saved: &Saved) -> io::Result<()> {
    let bytes = serde_json::to_vec(saved).map_err(io::Error::other)?;
    durable::write(path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{At, Event, Sign, Timelines};

    #[test]
    fn what_was_saved_is_read_and_what_is_damaged_is_left_out() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(NAME);
        assert!(Timelines::restored(read(&path)).clients(At(0)).is_empty());
        let mut all = Timelines::default();
        let sign = Sign {
            name: Some("pc".to_owned()),
            ..Sign::default()
        };
        all.handle(At(7), &sign, &Event::Reads);
        write(&path, &all.saved()).unwrap();
        let found = Timelines::restored(read(&path));
        assert_eq!(found.clients(At(7))[0].boots, all.clients(At(7))[0].boots);
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(Timelines::restored(read(&path)).clients(At(0)).is_empty());
    }
}
