//! What is served to whom. It is exchanged as a whole when the config is read again.
//!
//! Invariants:
//! - Images and the rules about them change together: no image is ever served under the rules of
//!   another config.
//! - A connection keeps what it was offered when it began, up to its choice of an export.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::images::Images;
use super::roots::Roots;
use super::templates::Templates;
use super::upgrade::Upgrade;
use super::who::Known;
use crate::boot::files::Files;
use crate::config::{ImageBoot, NfsRoot};
use crate::name::Name;

/// What one config comes to.
#[derive(Debug, Default)]
pub(super) struct Offer {
    pub(super) images: Images,
    /// Who is who, and may what.
    pub(super) known: Known,
    pub(super) upgrade: Upgrade,
    /// What is loaded of which image.
    pub(super) boots: HashMap<Name, ImageBoot>,
    /// In which partitions roots are.
    pub(super) roots: Roots,
    /// The file that the system of an image asks for when its root is mounted.
    pub(super) signs: HashMap<Name, String>,
    /// Roots on NFS servers.
    pub(super) nfs: Vec<NfsRoot>,
    /// Menus that an admin has written.
    pub(super) templates: Templates,
    /// The files that boot loaders find before those that are made.
    pub(super) files: Option<Files>,
}

/// The offer of the moment.
#[derive(Debug)]
pub(super) struct Offers {
    current: RwLock<Arc<Offer>>,
}

impl Offers {
    pub(super) fn new(first: Offer) -> Self {
        Self {
            current: RwLock::new(Arc::new(first)),
        }
    }

    /// What a connection that begins now is offered.
    pub(super) fn now(&self) -> Arc<Offer> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// From now on this is offered.
    pub(super) fn replace(&self, next: Offer) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(next);
    }
}
