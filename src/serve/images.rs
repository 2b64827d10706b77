//! The images of one moment, by name and generation.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::image::Image;
use crate::name::Name;
use crate::nbd::Refusal;

/// The images that are served, the default one first.
#[derive(Clone, Debug, Default)]
pub(super) struct Images(pub(super) Vec<Generations>);

/// What is served of one image.
#[derive(Clone, Debug)]
pub(super) struct Generations {
    pub(super) name: Name,
    /// The generation of those who ask for none.
    pub(super) current: u32,
    pub(super) images: BTreeMap<u32, Arc<Image>>,
}

impl Images {
    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.iter().map(|image| &image.name)
    }

    /// One image; the default one for `None`.
    pub(super) fn get(&self, name: Option<&Name>) -> Result<&Generations, Refusal> {
        let Some(name) = name else {
            let first = self.0.first();
            return first.ok_or_else(|| Refusal::Unknown("no image".into()));
        };
        let found = self.0.iter().find(|image| image.name == *name);
        found.ok_or_else(|| Refusal::Unknown(format!("there is no image {name}")))
    }
}

impl Images {
    /// What is another in `next`, in lines for the log.
    pub(super) fn changes(&self, next: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for now in &next.0 {
            let before = self.0.iter().find(|image| image.name == now.name);
            let is_new = |number: &u32| !before.is_some_and(|b| b.images.contains_key(number));
            for (number, image) in now.images.iter().filter(|(number, _)| is_new(number)) {
                let (name, path, size) = (&now.name, image.path().display(), image.size());
                lines.push(format!(
                    "image {name}+{number} is served: {path}, {size} bytes"
                ));
            }
            if before.is_some_and(|before| before.current != now.current) {
                let (name, current) = (&now.name, now.current);
                lines.push(format!(
                    "image {name}: who opens it now gets {name}+{current}"
                ));
            }
        }
        for before in &self.0 {
            let now = next.0.iter().find(|image| image.name == before.name);
            let is_gone = |number: &&u32| !now.is_some_and(|now| now.images.contains_key(number));
            for number in before.images.keys().filter(is_gone) {
                lines.push(format!(
                    "image {}+{number} can't be opened any more; sessions that use it go on",
                    before.name
                ));
            }
        }
        lines
    }
}

impl Generations {
    /// One generation and its number; the current one for `None`.
    pub(super) fn get(&self, asked: Option<u32>) -> Result<(u32, &Arc<Image>), Refusal> {
        let number = asked.unwrap_or(self.current);
        let image = self.images.get(&number).ok_or_else(|| {
            let there: Vec<_> = self.images.keys().map(u32::to_string).collect();
            let (name, there) = (&self.name, there.join(" and "));
            Refusal::Unknown(format!(
                "image {name} has no generation {number}, only {there}"
            ))
        })?;
        Ok((number, image))
    }
}
