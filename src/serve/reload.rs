//! The config of a running server, and its being read again.
//!
//! Invariant: a file with a mistake changes nothing.

use std::path::PathBuf;
use std::sync::Arc;

use super::options::{Failure, Options};
use super::upgrade::{Upgrade, Upgrades};
use super::who::Directory;
use crate::access::List;
use crate::config::{Config, HerdConfig, ImageSource};

/// The config that the server runs with.
#[derive(Debug)]
pub(super) struct Running {
    /// Where it was read; `None` where there is no file.
    path: Option<PathBuf>,
    config: Config,
    /// Of the command line; empty where it says nothing.
    access: List,
    directory: Arc<Directory>,
    upgrades: Arc<Upgrades>,
}

impl Running {
    /// Reads the file that `options` name.
    pub(super) fn read(options: &Options) -> Result<Self, Failure> {
        let config = match &options.config {
            Some(path) => Config::read(path).map_err(|wrong| Failure::usage(wrong.to_string()))?,
            None => Config::default(),
        };
        if config.dhcp.is_some() {
            let what = "[dhcp] is not served by this version yet: say mode = \"off\"";
            return Err(Failure::usage(what));
        }
        let upgrade = Upgrade::read(config.tls.as_ref());
        let upgrade = upgrade.map_err(|wrong| Failure::usage(wrong.to_string()))?;
        let access = List {
            allow: options.allow.clone(),
            deny: options.deny.clone(),
        };
        let herd = with_access(config.herd.clone(), &access);
        Ok(Self {
            path: options.config.clone(),
            directory: Arc::new(Directory::new(herd)),
            upgrades: Arc::new(Upgrades::new(upgrade)),
            config,
            access,
        })
    }

    /// Who is who.
    pub(super) const fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// How connections may be encrypted.
    pub(super) const fn upgrades(&self) -> &Arc<Upgrades> {
        &self.upgrades
    }

    /// The images of the file.
    pub(super) fn images(&self) -> &[ImageSource] {
        &self.config.images
    }

    /// What was asked for, completed by what the file says. The command line goes before.
    pub(super) fn complete(&self, mut options: Options) -> Options {
        if options.listen.is_empty() {
            options.listen.clone_from(&self.config.nbd_listen);
        }
        options.state = options.state.or_else(|| self.config.state.clone());
        options
    }

    /// Reads the file again, and lets what can be changed take effect.
    pub(super) fn reload(&mut self) {
        let Some(path) = &self.path else {
            tracing::info!("SIGHUP: there is no config file to read again");
            return;
        };
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!("config not reloaded, nothing changes: {error}");
        };
        match Config::read(path) {
            // Certificates are read again even if the config is what it was.
            Ok(config) => match Upgrade::read(config.tls.as_ref()) {
                Ok(upgrade) => self.change_to(config, upgrade),
                Err(error) => failed(&error),
            },
            Err(error) => failed(&error),
        }
    }

    fn change_to(&mut self, config: Config, upgrade: Upgrade) {
        for what in needs_restart(&self.config, &config) {
            tracing::warn!("the change of {what} takes effect when the server is started again");
        }
        let herd = with_access(config.herd.clone(), &self.access);
        self.directory.replace(herd);
        self.upgrades.replace(upgrade);
        // The rest stays what the server was started with, so that the next comparison is right.
        self.config.herd = config.herd;
        tracing::info!("config reloaded");
    }
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
        ("`listen` in [nbd]", running.nbd_listen == read.nbd_listen),
        ("the images", running.images == read.images),
    ];
    let changed = parts.into_iter().filter(|(_, same)| !same);
    changed.map(|(what, _)| what).collect()
}
