//! Which files a tree of boot files has, and where their bytes come from.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::options::Failure;
use super::LeftOut;
use super::loaders::Opened;
use super::subject::{Herd, left_out, nothing};
use crate::boot::files::{Content, Files};
use crate::boot::inside::{Blocks, Whereabouts, read_file};
use crate::boot::loader::{GrubOfDisk, Kind, Modules};
use crate::boot::lookup::{Key, paths};
use crate::boot::menu::Format;
use crate::boot::{grub, ipxe, signed};
use crate::config::BootFile;
use crate::export::snapshot::Snapshot;
use crate::image::Image;
use crate::mac::MacAddress;
use crate::name::Name;
use crate::serve::menus::{Made, Site};
use crate::serve::tree::file_of;

/// A tree that is to be written.
#[derive(Debug)]
pub(super) struct Plan {
    /// What comes first is there before what comes later: menus come last.
    pub(super) files: Vec<Planned>,
    pub(super) left_out: Vec<LeftOut>,
}

/// One file of it.
#[derive(Debug)]
pub(super) struct Planned {
    /// Its path below the tree.
    pub(super) path: String,
    pub(super) source: Source,
}

/// Where the bytes of a file come from.
#[derive(Debug)]
pub(super) enum Source {
    /// They are here.
    Text(String),
    /// Out of the file system in an image.
    Inside {
        image: PathBuf,
        name: Name,
        place: Whereabouts,
        file: String,
    },
    /// From this host.
    Host { below: PathBuf, file: String },
    /// Out of the image that has GRUB inside.
    OfImage(Arc<Opened>, String),
    /// A network image of that GRUB is made.
    LoaderOfImage(Arc<Opened>, Box<GrubOfDisk>, &'static Kind, Site),
    /// A network image of the host's GRUB is made.
    Loader(Arc<Modules>, &'static Kind, Site),
    /// A module of GRUB, or a list of them.
    Module(Arc<Modules>),
    /// shim, or the GRUB behind it.
    Signed,
}

/// The tree of a config, with menus for these loaders.
pub(super) fn plan(herd: &Herd, formats: &[Format]) -> Result<Plan, Failure> {
    let mut plan = Plan {
        files: Vec::new(),
        left_out: Vec::new(),
    };
    let menus = plan.menus(herd)?;
    plan.disks(herd, &menus);
    if formats.contains(&Format::Grub) {
        plan.grub(herd)?;
    }
    for format in formats {
        for (keys, made) in &menus {
            plan.put_menu(herd, *format, keys, made)?;
        }
    }
    plan.left_out.sort();
    plan.left_out.dedup();
    Ok(plan)
}

/// Menus, each with what it is looked for by. That of unknown machines comes last.
type Menus = Vec<(Vec<Key>, Made)>;

impl Plan {
    fn menus(&mut self, herd: &Herd) -> Result<Menus, Failure> {
        let mut menus = Vec::new();
        for client in &herd.clients {
            let keys = [
                client.uuid.map(Key::Uuid),
                client.mac.map(Key::Card),
                client.address.map(Key::Address),
            ];
            let keys: Vec<_> = keys.into_iter().flatten().collect();
            let made = herd.menu(&herd.client(&client.name));
            self.left_out.extend(left_out(&made));
            if !made.menu.entries.is_empty() {
                menus.push((keys, made));
            }
        }
        let made = herd.menu(&herd.nobody(None));
        self.left_out.extend(left_out(&made));
        if !made.menu.entries.is_empty() {
            menus.push((vec![Key::Any], made));
        }
        match menus.is_empty() {
            true => Err(nothing(&self.left_out)),
            false => Ok(menus),
        }
    }

    pub(super) fn put(&mut self, path: String, source: Source) {
        self.files.push(Planned { path, source });
    }

    fn put_menu(
        &mut self,
        herd: &Herd,
        format: Format,
        keys: &[Key],
        made: &Made,
    ) -> Result<(), Failure> {
        let text = made.text(format, &herd.templates).map_err(|why| {
            let name = format.name();
            Failure::failed(format!("{why}; leave {name} out with --format"))
        })?;
        let text = match keys {
            [Key::Any] => with_dispatch(herd, format, text),
            _ => text,
        };
        for path in keys.iter().flat_map(|key| paths(format, *key)) {
            self.put(path, Source::Text(text.clone()));
        }
        Ok(())
    }

    /// Kernels and what goes with them, of all that is in a menu.
    fn disks(&mut self, herd: &Herd, menus: &Menus) {
        let entries = menus.iter().flat_map(|(_, made)| &made.menu.entries);
        let places = entries.flat_map(|entry| std::iter::once(&entry.kernel).chain(&entry.initrds));
        let wanted: BTreeMap<&str, ()> = places.map(|place| (place.path.as_str(), ())).collect();
        for path in wanted.into_keys() {
            if let Some(source) = herd.source_of(path) {
                self.put(path.to_owned(), source);
            }
        }
    }
}

impl Herd {
    /// Where the bytes come from of what a menu loads.
    fn source_of(&self, path: &str) -> Option<Source> {
        let (kind, rest) = path.split_once('/')?;
        let (whose, file) = rest.split_once('/')?;
        if kind == "nfs" {
            let root = self.nfs.iter().find(|root| root.name.as_str() == whose)?;
            return Some(Source::Host {
                below: root.files.clone(),
                file: file_of(&root.kernel, &root.initrds, file)?.clone(),
            });
        }
        let (name, number) = whose.split_once('+')?;
        let image = self
            .images
            .iter()
            .find(|image| image.name.as_str() == name)?;
        let boot = self.boots.get(&image.name)?;
        let file = match file_of(&boot.kernel, &boot.initrds, file)? {
            BootFile::Inside(path) => path.clone(),
            BootFile::OfHost(path) => return Source::of_host(path),
        };
        Some(Source::Inside {
            image: image.files.get(&number.parse().ok()?)?.clone(),
            name: image.name.clone(),
            place: boot.place.clone(),
            file,
        })
    }
}

/// The menu of all, which first leads machines that are known to theirs: not every loader looks
/// for those itself.
fn with_dispatch(herd: &Herd, format: Format, text: String) -> String {
    let cards = herd.clients.iter().filter_map(|client| client.mac);
    let theirs = |mac: MacAddress| Some((mac, paths(format, Key::Card(mac)).into_iter().next()?));
    let theirs: Vec<_> = cards.filter_map(theirs).collect();
    match format {
        _ if theirs.is_empty() => text,
        Format::Grub => grub::dispatch(herd.site.server, &theirs) + &text,
        Format::Ipxe => ipxe::with_dispatch(herd.site.server, &text),
        Format::Pxelinux => text,
    }
}

impl Blocks for Snapshot {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        Self::read_at(self, into, offset)
    }

    fn size(&self) -> u64 {
        Self::size(self)
    }
}

impl Source {
    fn of_host(path: &Path) -> Option<Self> {
        Some(Self::Host {
            below: path.parent()?.to_owned(),
            file: path.file_name()?.to_str()?.to_owned(),
        })
    }

    /// The bytes. This may take long.
    pub(super) fn read(self, path: &str) -> Result<Vec<u8>, Failure> {
        let failed = |why: &dyn std::fmt::Display| Failure::failed(format!("{path}: {why}"));
        match self {
            Self::Text(text) => Ok(text.into_bytes()),
            Self::Inside {
                image,
                name,
                place,
                file,
            } => {
                let opened = Image::open_as(&image, name).map_err(|why| failed(&why))?;
                let disk: Arc<dyn Blocks> = Arc::new(Snapshot::new(Arc::new(opened), None));
                read_file(&disk, &place, &file)
                    .map_err(|why| failed(&format!("{file} in {}: {why}", image.display())))
            }
            Self::Host { below, file } => {
                let from = below.join(&file);
                whole(&below, &file).map_err(|why| failed(&format!("{}: {why}", from.display())))
            }
            Self::OfImage(opened, file) => opened.read(&file).map_err(|why| failed(&why)),
            Self::LoaderOfImage(opened, grub, kind, site) => {
                opened.image(&grub, kind, site).map_err(|why| failed(&why))
            }
            Self::Loader(modules, kind, site) => modules
                .image(kind, site.via, site.server)
                .map_err(|why| failed(&why)),
            Self::Module(modules) => found(modules.open(path)).map_err(|why| failed(&why)),
            Self::Signed => found(signed::open(path)).map_err(|why| failed(&why)),
        }
    }
}

/// A whole file of this host.
fn whole(below: &Path, file: &str) -> io::Result<Vec<u8>> {
    found(Files::below(below)?.open(file))
}

/// All of a file that has to be there.
fn found(opened: io::Result<Option<Content>>) -> io::Result<Vec<u8>> {
    opened?.ok_or(io::ErrorKind::NotFound)?.whole()
}
