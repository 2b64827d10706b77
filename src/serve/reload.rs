//! The config of a running server, and its being read again.
//!
//! Invariant: a file with a mistake changes nothing.

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::admin;
use super::dhcp::{Change, Changer, Dhcp};
use super::holders::Holders;
use super::images::Images;
use super::offer::{Offer, Offers};
use super::options::{Failure, Options};
use super::posts;
use super::roots::Roots;
use super::shelf::Shelf;
use super::state_dir::StateDir;
use super::takeover::Given;
use super::templates::Templates;
use super::upgrade::Upgrade;
use super::user;
use super::who::Known;
use crate::access::List;
use crate::boot::files::Files;
use crate::config::{
    Config, ConfigError, HerdConfig, HttpConfig, ImageBoot, ImageSource, TftpConfig,
};
use crate::io::DatagramSocket;
use crate::name::Name;

/// The config as it was read first. Nothing is served yet.
#[derive(Debug)]
pub(super) struct Configured {
    /// Where it was read; `None` where there is no file.
    path: Option<PathBuf>,
    config: Config,
    upgrade: Upgrade,
    templates: Templates,
    /// Of the command line; empty where it says nothing.
    access: List,
}

impl Configured {
    /// Reads the file that `options` name.
    pub(super) fn read(options: &Options) -> Result<Self, Failure> {
        let config = match &options.config {
            Some(path) => Config::read(path).map_err(|wrong| Failure::usage(wrong.to_string()))?,
            None => Config::default(),
        };
        let upgrade = Upgrade::read(config.tls.as_ref());
        let upgrade = upgrade.map_err(|wrong| Failure::usage(wrong.to_string()))?;
        let templates = Templates::read(&config)?;
        let access = List {
            allow: options.allow.clone(),
            deny: options.deny.clone(),
        };
        Ok(Self {
            path: options.config.clone(),
            config,
            upgrade,
            templates,
            access,
        })
    }

    /// What was asked for, completed by what the file says. The command line goes before.
    pub(super) fn complete(&self, mut options: Options) -> Options {
        if options.listen.is_empty() {
            options.listen.clone_from(&self.config.nbd_listen);
        }
        options.state = options.state.or_else(|| self.config.state.clone());
        options.prefetch &= self.config.prefetch.unwrap_or(true);
        options
    }

    /// Becomes the user that the file names, once all is open that takes privileges.
    pub(super) fn give_up_privileges(&self) -> Result<(), Failure> {
        user::give_up_privileges(self.config.user.as_deref())
    }

    /// Opens what DHCP is served on, where it is served.
    pub(super) fn open_dhcp(&self, given: &mut Given) -> Result<Option<Dhcp>, Failure> {
        let dhcp = self.config.dhcp.as_ref();
        dhcp.map(|config| Dhcp::open(config, given)).transpose()
    }

    /// Opens what TFTP is served on, where it is served.
    pub(super) fn open_tftp(
        &self,
        given: &mut Given,
    ) -> Result<Option<posts::Opened<DatagramSocket>>, Failure> {
        let tftp = self.config.tftp.as_ref();
        let open = |tftp: &TftpConfig| posts::Opened::open(&tftp.listen, given);
        tftp.map(open).transpose()
    }

    /// Opens what admins are served on, where they are.
    pub(super) fn open_admin(&self) -> Result<Option<admin::Opened>, Failure> {
        let admin = self.config.admin.as_ref();
        admin.map(admin::Opened::open).transpose()
    }

    /// Opens what HTTP is served on, where it is served.
    pub(super) fn open_http(
        &self,
        given: &mut Given,
    ) -> Result<Option<posts::Opened<TcpListener>>, Failure> {
        let http = self.config.http.as_ref();
        let open = |http: &HttpConfig| posts::Opened::open(&http.listen, given);
        http.map(open).transpose()
    }

    /// Opens the images: those of the command line, `named`, and those of the file.
    pub(super) fn open(
        self,
        named: Vec<ImageSource>,
        options: &Options,
        state: Option<&Arc<StateDir>>,
        dhcp: Option<Changer>,
    ) -> Result<Running, Failure> {
        let shelf = Shelf::new(state, options.prefetch);
        let mut shelf = shelf.map_err(|error| Failure::failed(error.to_string()))?;
        let images = shelf.open(&all(&named, &self.config))?;
        let leases = Arc::default();
        let known = known(&self.config, &self.access, &leases);
        let boots = boots(&self.config);
        let offer = Offer {
            images: images.clone(),
            known,
            upgrade: self.upgrade,
            roots: Roots::find(&images, &boots),
            boots,
            signs: self.config.signs.clone(),
            nfs: self.config.nfs.clone(),
            templates: self.templates,
            files: files(&self.config)?,
        };
        Ok(Running {
            path: self.path,
            config: self.config,
            access: self.access,
            named,
            shelf,
            images,
            offers: Arc::new(Offers::new(offer)),
            leases,
            dhcp,
        })
    }
}

/// The config that the server runs with.
#[derive(Debug)]
pub(super) struct Running {
    path: Option<PathBuf>,
    config: Config,
    access: List,
    /// The images of the command line.
    named: Vec<ImageSource>,
    shelf: Shelf,
    images: Images,
    offers: Arc<Offers>,
    leases: Arc<Holders>,
    dhcp: Option<Changer>,
}

impl Running {
    /// Opens images that sessions use, beside those of the config.
    pub(super) fn open_beside(&mut self, used: &[ImageSource]) -> Result<Vec<Images>, Failure> {
        let mut opened = vec![self.images.clone()];
        for source in used {
            opened.push(self.shelf.open(std::slice::from_ref(source))?);
        }
        Ok(opened)
    }

    /// What is offered to clients.
    pub(super) const fn offers(&self) -> &Arc<Offers> {
        &self.offers
    }

    /// Which clients have leases.
    pub(super) const fn leases(&self) -> &Arc<Holders> {
        &self.leases
    }

    /// Starts the thread that reads the file again when it is told to. It is a thread of its own
    /// since an image may be on a disk that does not answer.
    pub(super) fn wait_for_word(self) -> std::io::Result<Reloader> {
        let (word, words) = channel();
        std::thread::Builder::new()
            .name("reload".to_owned())
            .spawn(move || self.run(&words))?;
        Ok(Reloader { word })
    }

    fn run(mut self, words: &Receiver<()>) {
        while let Ok(()) = words.recv() {
            self.reload();
        }
    }

    /// Reads the file again, and lets what can be changed take effect.
    fn reload(&mut self) {
        let Some(path) = &self.path else {
            tracing::info!("SIGHUP: there is no config file to read again");
            return;
        };
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!("config not reloaded, nothing changes: {error}");
        };
        let config = match Config::read(path) {
            Ok(config) => config,
            Err(error) => return failed(&error),
        };
        // Certificates are read again even if the config is what it was.
        let upgrade = match Upgrade::read(config.tls.as_ref()) {
            Ok(upgrade) => upgrade,
            Err(error) => return failed(&error),
        };
        let templates = match Templates::read(&config) {
            Ok(templates) => templates,
            Err(error) => return failed(&error),
        };
        let dhcp = match self.dhcp_change(&config) {
            Ok(settings) => settings,
            Err(error) => return failed(&error),
        };
        let files = match files(&config) {
            Ok(files) => files,
            Err(error) => return failed(&error),
        };
        match self.shelf.open(&all(&self.named, &config)) {
            Ok(images) => {
                if let (Some(dhcp), Some(change)) = (&self.dhcp, dhcp) {
                    dhcp.change_to(change);
                }
                self.change_to(config, upgrade, templates, images, files);
            }
            Err(error) => failed(&error),
        }
    }

    /// What DHCP goes by from now on; `None` where it goes on as it is.
    fn dhcp_change(&self, config: &Config) -> Result<Option<Change>, ConfigError> {
        match (&self.dhcp, &config.dhcp) {
            (Some(running), Some(config)) => running.change(config),
            _ => Ok(None),
        }
    }

    fn change_to(
        &mut self,
        config: Config,
        upgrade: Upgrade,
        templates: Templates,
        images: Images,
        files: Option<Files>,
    ) {
        let boots = boots(&config);
        self.offers.replace(Offer {
            images: images.clone(),
            known: known(&config, &self.access, &self.leases),
            upgrade,
            roots: Roots::find(&images, &boots),
            boots,
            signs: config.signs.clone(),
            nfs: config.nfs.clone(),
            templates,
            files,
        });
        // Only what is true by now is said.
        for what in needs_restart(&self.config, &config) {
            tracing::warn!("the change of {what} takes effect when the server is started again");
        }
        for change in self.images.changes(&images) {
            tracing::info!("{change}");
        }
        self.images = images;
        tracing::info!("config reloaded");
    }
}

/// Tells the thread to read the config again. The thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Reloader {
    word: Sender<()>,
}

impl Reloader {
    /// Does not wait for it.
    pub(super) fn reload(&self) {
        // The thread is there as long as this is.
        let _ = self.word.send(());
    }
}

/// The images of the command line, then those of the file.
fn all(named: &[ImageSource], config: &Config) -> Vec<ImageSource> {
    named.iter().chain(&config.images).cloned().collect()
}

fn boots(config: &Config) -> HashMap<Name, ImageBoot> {
    let boot = |image: &ImageSource| Some((image.name.clone(), image.boot.clone()?));
    config.images.iter().filter_map(boot).collect()
}

/// Opens the directory of files, where there is one.
fn files(config: &Config) -> Result<Option<Files>, Failure> {
    let Some(root) = config.root.as_deref() else {
        return Ok(None);
    };
    let files = Files::below(root).map_err(|error| {
        let root = root.display();
        let advice = "name a directory that this user can read as `root` in [tftp] or [http]";
        Failure::failed(format!("files for boot loaders, {root}: {error}; {advice}"))
    });
    files.map(Some)
}

fn known(config: &Config, access: &List, leases: &Arc<Holders>) -> Known {
    let herd = with_access(config.herd.clone(), access);
    Known::new(herd, Arc::clone(leases))
}

/// The command line goes before the file.
fn with_access(mut herd: HerdConfig, access: &List) -> HerdConfig {
    if !access.is_empty() {
        herd.access.everywhere.clone_from(access);
    }
    herd
}

/// What differs of the parts that a running server can't change.
fn needs_restart(running: &Config, read: &Config) -> Vec<&'static str> {
    let parts = [
        ("`state`", running.state == read.state),
        ("`user`", running.user == read.user),
        ("`listen` in [nbd]", running.nbd_listen == read.nbd_listen),
        ("`prefetch` in [nbd]", running.prefetch == read.prefetch),
        (
            "whether and where TFTP is served",
            running.tftp == read.tftp,
        ),
        (
            "whether and where HTTP is served",
            running.http == read.http,
        ),
        (
            "whether and where DHCP is served",
            match (&running.dhcp, &read.dhcp) {
                (Some(running), Some(read)) => running.is_where(read),
                (running, read) => running.is_some() == read.is_some(),
            },
        ),
    ];
    let changed = parts.into_iter().filter(|(_, same)| !same);
    changed.map(|(what, _)| what).collect()
}
