//! The GRUB that a disk has inside of it, as packages install it there.
//!
//! Its modules are read out of its file system; grub-mkimage is the host's. Of the disk, nothing is
//! run here.
//!
//! Invariants:
//! - Only disks that an admin has made are read: grub-mkimage is not made for what a machine may
//!   write into a module.
//! - Names of modules, which the disk says, are names of files and no paths.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::{HOMES, Kind, LoaderError, MODULES, Modules};
use crate::boot::files::Files;
use crate::boot::inside::{Blocks, InsideError, Whereabouts, read_file_with};
use crate::limits::GRUB_IMAGE_MAX;

/// The list of all modules of a platform, with what each needs.
const DEPENDENCIES: &str = "moddep.lst";

/// Bytes of all files that one image is made of. It also bounds how many modules a list has.
const PIECES_BYTES_MAX: u64 = 2 * GRUB_IMAGE_MAX;

/// Lists that GRUB asks for beside its modules.
const LISTS: [&str; 8] = [
    "command.lst",
    "crypto.lst",
    "fs.lst",
    "moddep.lst",
    "partmap.lst",
    "parttool.lst",
    "terminal.lst",
    "video.lst",
];

/// A GRUB inside of a disk, for one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrubOfDisk {
    kind: &'static Kind,
    /// The directory with its platforms.
    home: &'static str,
    dependencies: BTreeMap<String, Vec<String>>,
}

/// A disk, and where on it files are.
pub type InDisk<'a> = (&'a Arc<dyn Blocks>, &'a Whereabouts);

impl GrubOfDisk {
    /// The one for `kind` that a disk has; `None` where it has none. This may take long.
    ///
    /// # Errors
    /// The disk can't be read.
    pub fn find(of: InDisk<'_>, kind: &'static Kind) -> Result<Option<Self>, LoaderError> {
        for home in HOMES {
            let home = home.trim_start_matches('/');
            let path = |file: &str| format!("{home}/{}/{file}", kind.directory);
            let Some(list) = read(of, &path(DEPENDENCIES), PIECES_BYTES_MAX)? else {
                continue;
            };
            return Ok(Some(Self {
                kind,
                home,
                dependencies: dependencies_in(&String::from_utf8_lossy(&list)),
            }));
        }
        Ok(None)
    }

    /// Where on the disk the module or list is that GRUB asks for at `path`.
    #[must_use]
    pub fn file_at(&self, path: &str) -> Option<String> {
        let (directory, file) = super::within(path)?;
        (directory == self.kind.directory).then(|| self.path(file))
    }

    /// The paths of all modules and lists, as GRUB asks for them.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let modules = self.dependencies.keys().map(|name| format!("{name}.mod"));
        let all = modules.chain(LISTS.map(str::to_owned));
        let all = all.map(|file| format!("{}/{}/{file}", super::PREFIX, self.kind.directory));
        all.collect()
    }

    /// What grub-mkimage needs of it, for images of this kind. This may take long.
    ///
    /// # Errors
    /// The disk can't be read, or lacks a part of GRUB.
    pub fn modules(&self, of: InDisk<'_>) -> Result<Modules, LoaderError> {
        let home = tempfile::tempdir()?;
        let directory = home.path().join(self.kind.directory);
        std::fs::create_dir(&directory)?;
        let mut left = PIECES_BYTES_MAX;
        for file in self.pieces() {
            let path = self.path(&file);
            let Some(bytes) = read(of, &path, left)? else {
                return Err(LoaderError::Incomplete(path));
            };
            left = left.saturating_sub(bytes.len() as u64);
            std::fs::write(directory.join(file), bytes)?;
        }
        Ok(Modules {
            files: Files::below(home.path())?,
            home: home.path().to_owned(),
            _temporary: Some(home),
        })
    }

    fn path(&self, file: &str) -> String {
        format!("{}/{}/{file}", self.home, self.kind.directory)
    }

    /// The files that an image is made of.
    fn pieces(&self) -> Vec<String> {
        let mut wanted: Vec<&str> = self.kind.modules.iter().chain(&MODULES).copied().collect();
        let mut modules = BTreeSet::new();
        while let Some(name) = wanted.pop() {
            // Not every platform has every module.
            let Some((name, needs)) = self.dependencies.get_key_value(name) else {
                continue;
            };
            if modules.insert(name.as_str()) {
                wanted.extend(needs.iter().map(String::as_str));
            }
        }
        let modules = modules.into_iter().map(|name| format!("{name}.mod"));
        let parts = self.kind.parts.iter().map(|&part| part.to_owned());
        let parts = parts.chain([DEPENDENCIES.to_owned()]);
        parts.chain(modules).collect()
    }
}

/// Each line is a module, a colon, and the modules that it needs.
fn dependencies_in(list: &str) -> BTreeMap<String, Vec<String>> {
    let lines = list.lines().filter_map(|line| {
        let (name, needs) = line.split_once(':')?;
        let needs = needs.split_ascii_whitespace();
        let needs = needs.filter(|name| is_module(name)).map(str::to_owned);
        is_module(name).then(|| (name.to_owned(), needs.collect()))
    });
    lines.collect()
}

fn is_module(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+".contains(&byte);
    !name.is_empty() && name.bytes().all(is_plain)
}

/// A file of at most so many bytes; `None` where there is none.
fn read((disk, place): InDisk<'_>, path: &str, most: u64) -> Result<Option<Vec<u8>>, LoaderError> {
    match read_file_with(disk, place, path, &|bytes| bytes <= most) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(InsideError::NotFound) => Ok(None),
        Err(error) => Err(io::Error::other(format!("{path}: {error}")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::loader::KINDS;

    fn grub(list: &str) -> GrubOfDisk {
        GrubOfDisk {
            kind: &KINDS[0],
            home: "usr/lib/grub",
            dependencies: dependencies_in(list),
        }
    }

    #[test]
    fn an_image_needs_its_modules_and_what_these_need() {
        let list = "pxe: net bufio\nnet: priority_queue\nbufio:\npriority_queue:\nbtrfs: zstd\n\
                    zstd:\nlinux: net pxe\n";
        let expected = [
            "kernel.img",
            "pxeboot.img",
            "diskboot.img",
            "lzma_decompress.img",
            "moddep.lst",
            "bufio.mod",
            "linux.mod",
            "net.mod",
            "priority_queue.mod",
            "pxe.mod",
        ];
        assert_eq!(grub(list).pieces(), expected);
    }

    #[test]
    fn names_that_lead_elsewhere_are_none() {
        let list = "../../etc/shadow: a\n/etc/shadow:\n:\nlinux: ../boot net a/b\nno colon\n";
        let found = dependencies_in(list);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["linux"]);
        assert_eq!(found["linux"], ["net"]);
    }

    #[test]
    fn files_of_its_platform_are_looked_for_in_its_home() {
        let grub = grub("linux:\n");
        let at = |path| grub.file_at(path);
        assert_eq!(
            at("boot/grub/i386-pc/linux.mod").as_deref(),
            Some("usr/lib/grub/i386-pc/linux.mod")
        );
        assert_eq!(at("boot/grub/x86_64-efi/linux.mod"), None);
        assert_eq!(at("boot/grub/i386-pc/kernel.img"), None);
        assert!(
            grub.names()
                .contains(&"boot/grub/i386-pc/linux.mod".to_owned())
        );
        assert!(
            grub.names()
                .contains(&"boot/grub/i386-pc/command.lst".to_owned())
        );
    }
}
