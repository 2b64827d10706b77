//! Whether we have the boot loader that a machine is told to load.

use crate::boot::files::Files;
use crate::boot::loader::{Kind, Modules};
use crate::boot::signed;
use crate::config::Config;
use crate::dhcp::boot::ARCHITECTURES;

/// Where loaders come from. `None` where TFTP is not ours, as far as the config says.
#[derive(Debug)]
pub(super) struct Loaders(Option<Sources>);

#[derive(Debug)]
struct Sources {
    root: Option<Files>,
    modules: Option<Modules>,
}

impl Loaders {
    /// Those of the host that this runs on.
    pub(super) fn of(config: &Config) -> Self {
        let root = config.root.as_deref();
        Self(config.tftp.as_ref().map(|_| Sources {
            root: root.and_then(|root| Files::below(root).ok()),
            modules: Modules::of_host(),
        }))
    }

    /// What is to be said of a boot file where it is a loader that we do not have.
    pub(super) fn missing(&self, path: &str) -> Option<String> {
        let sources = self.0.as_ref()?;
        let root = sources.root.as_ref();
        let is_there = root.is_some_and(|root| matches!(root.open(path), Ok(Some(_))));
        let kind = Kind::at(path);
        let is_shim = ARCHITECTURES
            .iter()
            .any(|of| of.platform.shim() == Some(path));
        let is_made = kind.is_some_and(|kind| {
            let modules = sources.modules.as_ref();
            modules.is_some_and(|modules| modules.have(kind))
        });
        let is_made = is_made || matches!(signed::open(path), Ok(Some(_)));
        let is_ours = kind.is_some() || is_shim;
        (is_ours && !is_there && !is_made).then(|| {
            let made = match kind {
                Some(_) => ", and this host has no GRUB of this kind to make it of",
                None => "",
            };
            format!("{path} is not there: it is not in the `root` of [tftp]{made}")
        })
    }
}
