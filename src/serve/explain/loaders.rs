//! Whether we have the boot loader that a machine is told to load.

use crate::boot::files::Files;
use crate::boot::loader::{Kind, Modules};
use crate::boot::signed;
use crate::config::{Config, GrubFrom};

/// Where loaders come from. `None` where TFTP is not ours, as far as the config says.
#[derive(Debug)]
pub(super) struct Loaders(Option<Sources>);

#[derive(Debug)]
struct Sources {
    root: Option<Files>,
    modules: Option<Modules>,
    /// Whether any comes out of an image, which is not looked into here.
    of_image: bool,
}

impl Loaders {
    /// Those of the host that this runs on.
    pub(super) fn of(config: &Config) -> Self {
        let root = config.root.as_deref();
        let mut boots = config.images.iter().flat_map(|image| &image.boot);
        let of_image = boots.any(|boot| boot.grub == GrubFrom::Image);
        Self(config.tftp.as_ref().map(|_| Sources {
            root: root.and_then(|root| Files::below(root).ok()),
            modules: Modules::of_host(),
            of_image,
        }))
    }

    /// What is to be said of a boot file where it is a loader that we do not have.
    pub(super) fn missing(&self, path: &str) -> Option<String> {
        let sources = self.0.as_ref()?;
        let root = sources.root.as_ref();
        let is_there = root.is_some_and(|root| matches!(root.open(path), Ok(Some(_))));
        let kind = Kind::at(path);
        let is_made = kind.is_some_and(|kind| {
            let modules = sources.modules.as_ref();
            modules.is_some_and(|modules| modules.have(kind))
        });
        let is_signed = matches!(signed::open(path), Ok(Some(_)));
        let is_ours = kind.is_some() || signed::is_signed(path);
        (is_ours && !sources.of_image && !is_there && !is_made && !is_signed).then(|| {
            let what = match kind {
                Some(_) => "GRUB of this kind to make it of",
                None => "package with it",
            };
            let host = format!("this host has no {what}");
            format!("{path} is not there: it is not in the `root` of [tftp], and {host}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::boot::Platform;

    #[test]
    fn a_loader_is_missing_where_it_is_neither_in_the_root_nor_made() {
        let folder = tempfile::tempdir().unwrap();
        let loaders = Loaders(Some(Sources {
            root: Files::below(folder.path()).ok(),
            modules: None,
            of_image: false,
        }));
        let path = Platform::X64.grub();
        let told = loaders.missing(path).unwrap();
        assert!(told.contains(path) && told.contains("no GRUB"), "{told}");
        assert_eq!(loaders.missing("an/admins/own.efi"), None, "TFTP says");
        assert_eq!(Loaders(None).missing(path), None, "another server has it");
        let file = folder.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "GRUB").unwrap();
        assert_eq!(loaders.missing(path), None);
    }
}
