//! Which overlays a state directory holds.

use std::io;
use std::path::{Path, PathBuf};

use super::{StateDir, StateError};
use crate::name::Name;
use crate::serve::catalog::VolumeKey;

/// What lies in the overlay directories.
#[derive(Debug, Default)]
pub(in crate::serve) struct Contents {
    /// Overlays, in the order of image, generation and client.
    pub(in crate::serve) overlays: Vec<VolumeKey>,
    /// What interrupted work left.
    pub(in crate::serve) left_over: Vec<LeftOver>,
}

/// A directory that was being made, or removed, when a server was killed.
#[derive(Debug)]
pub(in crate::serve) struct LeftOver {
    /// The overlay that it was, or was to be.
    pub(in crate::serve) key: VolumeKey,
    pub(in crate::serve) path: PathBuf,
}

impl StateDir {
    /// What is there. Names that are nobody's overlay are passed over.
    pub(in crate::serve) fn contents(&self) -> Result<Contents, StateError> {
        let top = self.path().join("overlays");
        let failed = |reason| StateError::new(&top, reason);
        let mut contents = Contents::default();
        for name in directories(&top).map_err(failed)? {
            let Some((image, generation)) = image_and_generation(&name) else {
                continue;
            };
            let clients = directories(&top.join(&name)).map_err(failed)?;
            for client in clients {
                contents.add(&top.join(&name), &image, generation, &client);
            }
        }
        let place = |key: &VolumeKey| (key.image.clone(), key.generation, key.client.clone());
        contents.overlays.sort_by_cached_key(place);
        Ok(contents)
    }

    /// The overlays that a client has, over whichever images.
    pub(in crate::serve) fn overlays_of_client(
        &self,
        client: &Name,
    ) -> Result<Vec<VolumeKey>, StateError> {
        let top = self.path().join("overlays");
        let failed = |reason| StateError::new(&top, reason);
        let generations = directories(&top).map_err(failed)?.into_iter();
        let keys = generations.filter_map(|name| {
            let (image, generation) = image_and_generation(&name)?;
            Some(VolumeKey {
                image,
                generation,
                client: Some(client.clone()),
            })
        });
        Ok(keys.filter(|key| self.overlay_dir(key).is_dir()).collect())
    }

    /// The directory of one overlay.
    pub(in crate::serve) fn overlay_dir(&self, key: &VolumeKey) -> PathBuf {
        let overlays = self.overlays_of(&key.image, key.generation);
        match &key.client {
            Some(client) => overlays.join(client.as_str()),
            None => overlays,
        }
    }
}

impl Contents {
    fn add(&mut self, overlays: &Path, image: &Name, generation: u32, directory: &str) {
        let hidden = directory.strip_prefix('.');
        let unfinished = hidden.and_then(|name| {
            name.strip_suffix(".new")
                .or_else(|| name.strip_suffix(".old"))
        });
        let Ok(client) = Name::new(unfinished.unwrap_or(directory)) else {
            return;
        };
        let key = VolumeKey {
            image: image.clone(),
            generation,
            client: Some(client),
        };
        match unfinished {
            None => self.overlays.push(key),
            Some(_) => self.left_over.push(LeftOver {
                key,
                path: overlays.join(directory),
            }),
        }
    }
}

fn image_and_generation(name: &str) -> Option<(Name, u32)> {
    let (image, generation) = name.rsplit_once('+')?;
    Some((Name::new(image).ok()?, generation.parse().ok()?))
}

/// The names of the directories in `path`; none where it is not there.
fn directories(path: &Path) -> io::Result<Vec<String>> {
    let entries = match path.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlays_are_told_from_what_was_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        for path in [
            "overlays/arch+10/a",
            "overlays/arch+9/a",
            "overlays/arch+9/.b.old",
            "overlays/arch+9/.c.new",
            "overlays/arch+9/lost+found",
            "overlays/arch/a",
            "overlays/+1/a",
        ] {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        std::fs::write(dir.path().join("overlays/arch+9/.identity"), "").unwrap();
        let contents = state.contents().unwrap();
        let names: Vec<_> = contents.overlays.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["arch+9@a", "arch+10@a"]);
        let mut left: Vec<_> = contents
            .left_over
            .iter()
            .map(|l| l.key.to_string())
            .collect();
        left.sort();
        assert_eq!(left, ["arch+9@b", "arch+9@c"]);
        let of_a = state.overlays_of_client(&Name::new("a").unwrap()).unwrap();
        assert_eq!(of_a.len(), 2);
        let first = &contents.overlays[0];
        assert!(state.overlay_dir(first).ends_with("overlays/arch+9/a"));
    }

    #[test]
    fn a_new_state_directory_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let contents = StateDir::open(dir.path()).unwrap().contents().unwrap();
        assert!(contents.overlays.is_empty() && contents.left_over.is_empty());
    }
}
