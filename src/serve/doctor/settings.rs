//! The config, and the files that it names.

use std::path::Path;

use super::finding::{Area, Finding};
use super::{CONFIG, Question, Step, Visit};
use crate::boot::files::Files;
use crate::config::Config;
use crate::serve::templates::Templates;
use crate::serve::upgrade::Upgrade;
use crate::serve::{admin, user};

/// The config; `None` where it can't be read, which is told.
pub(super) fn read(question: &Question, told: &mut dyn FnMut(Step)) -> Option<Config> {
    let path = question.config.clone();
    // Who names images means a server without a config.
    let usual = || {
        let is_meant = question.images.is_empty() && Path::new(CONFIG).exists();
        is_meant.then(|| CONFIG.into())
    };
    let Some(path) = path.or_else(usual) else {
        let none = "there is none: what `cowherd serve IMAGE` goes by is looked at";
        told(Step::Found(Finding::fine(Area::Config, "config", none)));
        return Some(Config::default());
    };
    let shown = path.display().to_string();
    match Config::read(&path) {
        Ok(config) => {
            let (images, clients) = (config.images.len(), config.herd.clients.len());
            let what = format!("it can be read; images: {images}, named machines: {clients}");
            told(Step::Found(Finding::fine(Area::Config, shown, what)));
            Some(config)
        }
        Err(error) => {
            let wrong = Finding::wrong(Area::Config, shown, error.to_string());
            let advice = "mend it (cowherd.toml(5) has every key), then ask again for the rest";
            told(Step::Found(wrong.advised(advice)));
            None
        }
    }
}

/// The files that it names, and its user.
pub(super) fn look(visit: &mut Visit<'_>) {
    let config = visit.config.clone();
    if let Some(tls) = &config.tls {
        let read = Upgrade::read(Some(tls)).map(drop);
        tell(visit, "[tls]", "its certificates can be used", read);
    }
    let templates = Templates::read(&config).map(drop);
    if let Err(wrong) = templates {
        tell(visit, "templates of menus", "", Err(wrong));
    }
    if let Some(root) = &config.root {
        let read = Files::below(root).map(drop).map_err(|error| {
            format!("{error}; name a directory that the server can read as `root`")
        });
        tell(
            visit,
            &root.display().to_string(),
            "files are served from it",
            read,
        );
    }
    if let Some(admin) = &config.admin {
        tell(
            visit,
            "[admin]",
            "its token can be used",
            admin::check(admin),
        );
    }
    if let Some(name) = &config.user {
        tell(visit, "user", "the system knows it", user::check(name));
    }
}

fn tell<E: std::fmt::Display>(
    visit: &mut Visit<'_>,
    about: &str,
    fine: &str,
    result: Result<(), E>,
) {
    visit.found(match result {
        Ok(()) => Finding::fine(Area::Config, about, fine),
        Err(error) => Finding::from_message(Area::Config, about, &error.to_string()),
    });
}
