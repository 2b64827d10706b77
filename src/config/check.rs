//! What fits together in a file and what does not.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::hash::Hash;
use std::net::SocketAddrV4;
use std::num::NonZeroU32;
use std::path::PathBuf;

use toml::Spanned;

use super::dhcp;
use super::dhcp::form::{Client, Group};
use super::error::Mistake;
use super::file::{Admin, File, Http, Image, Nbd, Tables, Tftp, Tls};
use super::menu::{self, Menu};
use super::nfs;
use super::value::{Located, Places};
use super::{
    AdminConfig, Choice, ClientConfig, Config, FIRST_GENERATION, HerdConfig, HttpConfig, ImageBoot,
    ImageSource, Listen, MenuConfig, NetworkConfig, NfsRoot, TftpConfig, TlsConfig, TlsNeed,
    everywhere,
};
use crate::access::{ClientRule, Entry, ImageRule, List, Rules, is_of_a_peer};
use crate::boot::inside::Whereabouts;
use crate::export::name::Generation;
use crate::name::Name;
use crate::tls::Files;

pub(super) fn check(file: File) -> Result<Config, Mistake> {
    let tls = file.tls.and_then(check_tls);
    let access = check_access(&file.nbd, &file.image, &file.client)?;
    check_needs(tls.as_ref(), &file.image, &file.client)?;
    let network = file.network.checked();
    let listen = |said: &Places<SocketAddrV4>, port| listen(said, &network, port);
    let tftp = file.tftp.as_ref().map(|tftp| TftpConfig {
        listen: listen(&tftp.listen, TftpConfig::PORT),
    });
    let http = file.http.as_ref().map(|http| HttpConfig {
        listen: listen(&http.listen, HttpConfig::PORT),
    });
    let by_http = http.as_ref().map(|http| http.listen.as_of_all());
    let by_http = by_http.unwrap_or_default();
    let dhcp = dhcp::check(file.network, file.dhcp, &file.group, &file.client, &by_http)?;
    let is_image = |name: &Name| file.image.keys().any(|image| image.value == *name);
    let nfs = nfs::check(file.nfs, is_image)?;
    let has_http = by_http.iter().any(|at| at.port() == HttpConfig::PORT);
    let bootable = Bootable::of(&file.image, &nfs, has_http);
    for group in file.group.values() {
        bootable.menu(group.menu.as_ref())?;
    }
    let signs = signs(&file.image);
    let images = check_images(file.image, &bootable)?;
    let default_image = default_image(&images, file.defaults.image)?;
    let herd = HerdConfig {
        default_image: Some(default_image),
        default_overlay: file.defaults.overlay,
        default_menu: bootable.menu(file.defaults.menu.as_ref())?,
        clients: check_clients(file.client, &file.group, &images, &bootable)?,
        access,
    };
    let root = check_root(file.tftp.as_ref(), file.http.as_ref())?;
    Ok(Config {
        state: file.state,
        user: file.user,
        nbd_listen: file.nbd.listen.0.values(),
        prefetch: file.nbd.prefetch,
        images,
        tls,
        herd,
        dhcp,
        nfs,
        signs,
        network,
        root,
        tftp,
        http,
        admin: file.admin.map(check_admin).transpose()?,
    })
}

/// Who reaches it learns all there is to know: by loopback alone, unless there is a token.
fn check_admin(admin: Admin) -> Result<AdminConfig, Mistake> {
    let far = admin.listen.0.0.iter();
    let far = far.filter(|place| !place.value.ip().is_loopback());
    let token_file = admin.token_file;
    if let (Some(far), None) = (far.into_iter().next(), &token_file) {
        let what = format!(
            "{} is not on loopback: name a `token-file` too, or listen on 127.0.0.1 only",
            far.value
        );
        return Err(Mistake::new(far.at, what));
    }
    let listen = match admin.listen.0.values() {
        said if said.is_empty() => vec![AdminConfig::LOCAL],
        said => said,
    };
    Ok(AdminConfig { listen, token_file })
}

/// The one directory of files, which both tables may name.
fn check_root(tftp: Option<&Tftp>, http: Option<&Http>) -> Result<Option<PathBuf>, Mistake> {
    let of_tftp = tftp.and_then(|tftp| tftp.root.as_ref());
    let of_http = http.and_then(|http| http.root.as_ref());
    match (of_tftp, of_http) {
        (Some(one), Some(other)) if one.get_ref() != other.get_ref() => Err(Mistake::new(
            other.span().start,
            "`root` in [tftp] is another: the same files are served by both, so name one directory",
        )),
        (one, other) => Ok(one.or(other).map(|root| root.get_ref().clone())),
    }
}

/// Without a word, no more than the interfaces is listened on, where there are any.
fn listen(said: &Places<SocketAddrV4>, network: &NetworkConfig, port: u16) -> Listen {
    match said.0.values() {
        said if !said.is_empty() => Listen::At(said),
        _ if network.interfaces.is_empty() => Listen::At(vec![everywhere(port)]),
        _ => Listen::OnInterfaces(network.clone(), port),
    }
}

fn check_access(
    nbd: &Nbd,
    images: &Tables<Image>,
    clients: &Tables<Client>,
) -> Result<Rules, Mistake> {
    let everywhere = list(&nbd.allow, &nbd.deny);
    let images = images.iter().map(|(name, image)| {
        let list = list(&image.allow, &image.deny);
        let tls = is_set(image.tls.as_ref());
        (name.value.clone(), ImageRule { list, tls })
    });
    let clients = clients
        .iter()
        .map(|(name, client)| Ok((own_name(name)?, client_rule(client))));
    Ok(Rules {
        everywhere,
        images: images.collect(),
        clients: clients.collect::<Result<_, Mistake>>()?,
    })
}

fn is_set(key: Option<&Spanned<bool>>) -> bool {
    key.is_some_and(|key| *key.get_ref())
}

fn check_tls(tls: Tls) -> Option<TlsConfig> {
    let files = Files {
        certificate: tls.certificate,
        key: tls.key,
        client_ca: tls.client_ca,
    };
    let need = tls.mode;
    (need != TlsNeed::Off).then_some(TlsConfig { need, files })
}

/// What needs TLS, or certificates of clients, can't be had without.
fn check_needs(
    tls: Option<&TlsConfig>,
    images: &Tables<Image>,
    clients: &Tables<Client>,
) -> Result<(), Mistake> {
    let set = |key: &&Spanned<bool>| *key.get_ref();
    let of_image = images
        .values()
        .find_map(|image| image.tls.as_ref().filter(set));
    if let (Some(key), None) = (of_image, tls) {
        let what = "`tls` needs a [tls] with certificate and key";
        return Err(Mistake::new(key.span().start, what));
    }
    let of_client = |client: &'_ Client| client.certificate.clone().filter(|key| *key.get_ref());
    let has_ca = tls.is_some_and(|tls| tls.files.client_ca.is_some());
    match clients.values().find_map(of_client) {
        Some(key) if !has_ca => Err(Mistake::new(
            key.span().start,
            "`certificate` needs `client_ca` in [tls], to check certificates of clients by",
        )),
        _ => Ok(()),
    }
}

fn list(allow: &[Located<Entry>], deny: &[Located<Entry>]) -> List {
    let (allow, deny) = (entries(allow), entries(deny));
    List { allow, deny }
}

fn entries(entries: &[Located<Entry>]) -> Vec<Entry> {
    entries.iter().map(|entry| entry.value.clone()).collect()
}

fn client_rule(client: &Client) -> ClientRule {
    ClientRule {
        address: client.address.as_ref().map(|address| address.value),
        allow: entries(client.allow.as_deref().unwrap_or_default()),
        certificate: is_set(client.certificate.as_ref()),
    }
}

/// A name that is nobody else's: what an address spells belongs to whoever has it.
fn own_name(name: &Located<Name>) -> Result<Name, Mistake> {
    match is_of_a_peer(&name.value) {
        false => Ok(name.value.clone()),
        true => Err(Mistake::new(
            name.at,
            format!(
                "{} is what clients without a name are called by their address: choose another",
                name.value
            ),
        )),
    }
}

/// What menus can offer.
struct Bootable {
    /// The generations of images with a kernel; roots on NFS have none.
    there: BTreeMap<Name, Vec<u32>>,
    /// Whether files are served by HTTP on the port that boot loaders take.
    has_http: bool,
}

impl Bootable {
    fn of(images: &Tables<Image>, nfs: &[NfsRoot], has_http: bool) -> Self {
        let generations = |image: &Image| {
            let older = image.older.keys().map(|number| number.value.get());
            older.chain([current_of(image)]).collect()
        };
        let images = images.iter().filter(|(_, image)| image.kernel.is_some());
        let images = images.map(|(name, image)| (name.value.clone(), generations(image)));
        let nfs = nfs.iter().map(|root| (root.name.clone(), Vec::new()));
        Self {
            there: images.chain(nfs).collect(),
            has_http,
        }
    }

    /// How a menu is made, by a table.
    fn menu(&self, said: Option<&Menu>) -> Result<MenuConfig, Mistake> {
        if let Some(at) = said.and_then(Menu::by_http).filter(|_| !self.has_http) {
            let what = "`transport` needs an [http] that listens on port 80, as boot loaders take";
            return Err(Mistake::new(at, what));
        }
        menu::check(said, |Choice { image, generation }| {
            let there = self.there.get(image);
            there.is_some_and(|there| generation.is_none_or(|number| there.contains(&number)))
        })
    }
}

/// The files that systems ask for when their root is mounted.
fn signs(tables: &Tables<Image>) -> HashMap<Name, String> {
    let sign = |(name, image): (&Located<Name>, &Image)| {
        Some((name.value.clone(), image.mounted.as_ref()?.value.0.clone()))
    };
    tables.iter().filter_map(sign).collect()
}

fn current_of(image: &Image) -> u32 {
    image.generation.map_or(FIRST_GENERATION, NonZeroU32::get)
}

fn check_images(
    tables: impl IntoIterator<Item = (Located<Name>, Image)>,
    bootable: &Bootable,
) -> Result<Vec<ImageSource>, Mistake> {
    let mut images = Vec::new();
    for (name, image) in tables {
        let boot = check_boot(&name, &image, bootable)?;
        let current = current_of(&image);
        let mut files = check_older(current, image.older)?;
        files.insert(current, image.file);
        images.push(ImageSource {
            name: name.value,
            current,
            files,
            boot,
        });
    }
    match images.is_empty() {
        true => Err(Mistake::new(
            0,
            "no image: say what to serve, as in [image.disk] with file = \"/srv/disk.img\"",
        )),
        false => Ok(images),
    }
}

/// What is loaded of an image; nothing where no kernel is named.
fn check_boot(
    name: &Located<Name>,
    image: &Image,
    bootable: &Bootable,
) -> Result<Option<ImageBoot>, Mistake> {
    let Some(kernel) = &image.kernel else {
        return check_no_boot(name, image).map(|()| None);
    };
    let Some(initramfs) = &image.initramfs else {
        let what = "`kernel` needs `initramfs`: initramfs-tools, mkinitcpio-nbd, dracut or archiso";
        return Err(Mistake::new(kernel.at, what));
    };
    let initrds = image.initrd.values().into_iter();
    let line = image.cmdline.as_ref();
    Ok(Some(ImageBoot {
        kernel: kernel.value.0.clone(),
        initrds: initrds.map(|file| file.0).collect(),
        initramfs: *initramfs.get_ref(),
        words: line.map(|line| line.value.0.clone()).unwrap_or_default(),
        place: Whereabouts {
            partition: image.partition.map(NonZeroU32::get),
            subvolume: image.subvolume.clone(),
        },
        title: image.title.as_ref().map(|title| title.value.0.clone()),
        menu: bootable.menu(image.menu.as_ref())?,
        grub: image
            .grub
            .as_ref()
            .map(|from| *from.get_ref())
            .unwrap_or_default(),
    }))
}

fn check_no_boot(name: &Located<Name>, image: &Image) -> Result<(), Mistake> {
    let keys = [
        ("`initrd`", image.initrd.0.first().map(|initrd| initrd.at)),
        ("`title`", image.title.as_ref().map(|title| title.at)),
        ("`grub`", image.grub.as_ref().map(|grub| grub.span().start)),
        ("`menu`", image.menu.as_ref().map(|_| name.at)),
    ];
    match keys.into_iter().find_map(|(key, at)| Some((key, at?))) {
        Some((key, at)) => Err(Mistake::new(at, format!("{key} needs a `kernel`"))),
        None => Ok(()),
    }
}

/// A number that comes after the current one is most likely a slip.
fn check_older(
    current: u32,
    older: BTreeMap<Located<Generation>, PathBuf>,
) -> Result<BTreeMap<u32, PathBuf>, Mistake> {
    let file = |(generation, file): (Located<Generation>, PathBuf)| {
        let number = generation.value.get();
        match number < current {
            true => Ok((number, file)),
            false => Err(Mistake::new(
                generation.at,
                format!("generation {number} is not older than the current one, {current}"),
            )),
        }
    };
    older.into_iter().map(file).collect()
}

/// With several images, which of them is the default must have been said.
fn default_image(images: &[ImageSource], said: Option<Located<Name>>) -> Result<Name, Mistake> {
    match (said, images) {
        (Some(name), images) => known_image(name, images),
        (None, [only]) => Ok(only.name.clone()),
        (None, _) => Err(Mistake::new(
            0,
            "several images: say with `image` in [defaults] which of them a client gets that asks \
             for none",
        )),
    }
}

fn known_image(name: Located<Name>, images: &[ImageSource]) -> Result<Name, Mistake> {
    if images.iter().any(|image| image.name == name.value) {
        return Ok(name.value);
    }
    let what = format!("there is no [image.{}] in this file", name.value);
    Err(Mistake::new(name.at, what))
}

fn check_clients(
    tables: impl IntoIterator<Item = (Located<Name>, Client)>,
    groups: &Tables<Group>,
    images: &[ImageSource],
    bootable: &Bootable,
) -> Result<Vec<ClientConfig>, Mistake> {
    let mut macs = Taken::default();
    let mut addresses = Taken::default();
    let mut clients = Vec::new();
    for (name, client) in tables {
        let name = name.value;
        let group = dhcp::group_of(&client, groups)?;
        let of_group = bootable.menu(group.and_then(|group| group.menu.as_ref()))?;
        let menu = bootable.menu(client.menu.as_ref())?.or(&of_group);
        let image = client.image.map(|image| known_image(image, images));
        clients.push(ClientConfig {
            mac: client.mac.map(|mac| macs.take(mac, &name)).transpose()?,
            address: client
                .address
                .map(|address| addresses.take(address, &name))
                .transpose()?,
            image: image.transpose()?,
            overlay: client.overlay,
            uuid: client.uuid.map(|uuid| uuid.value.0),
            menu,
            name,
        });
    }
    Ok(clients)
}

/// Values that belong to one client each.
pub(super) struct Taken<T>(HashMap<T, Name>);

impl<T> Default for Taken<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Clone + Display + Eq + Hash> Taken<T> {
    pub(super) fn take(&mut self, value: Located<T>, by: &Name) -> Result<T, Mistake> {
        match self.0.insert(value.value.clone(), by.clone()) {
            None => Ok(value.value),
            Some(other) => {
                let what = format!("{} belongs to client {other} already", value.value);
                Err(Mistake::new(value.at, what))
            }
        }
    }
}
