//! Catalog, placement and shards as the handshakes see them.

use std::path::Path;
use std::sync::Arc;

use super::catalog::{Catalog, Refused, VolumeKey};
use super::offer::{Offer, Offers};
use super::placement::Placement;
use super::shard::{Held, Lease, ShardHandle};
use super::state_dir::StateDir;
use crate::access::Caller;
use crate::limits::CONNECTIONS_PER_CLIENT_MAX;
use crate::nbd::{ExportInfo, Refusal};

/// All that is served, and where.
#[derive(Debug)]
pub(super) struct Herd {
    catalog: Catalog,
    offers: Arc<Offers>,
    placement: Arc<Placement>,
    shards: Vec<ShardHandle>,
}

/// A volume that was opened for a connection.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) shard: ShardHandle,
    pub(super) lease: Lease,
    pub(super) info: ExportInfo,
    /// The directory of the overlay, if it has one.
    pub(super) overlay: Option<Arc<Path>>,
}

impl Herd {
    pub(super) fn new(
        catalog: Catalog,
        offers: Arc<Offers>,
        placement: Arc<Placement>,
        shards: Vec<ShardHandle>,
    ) -> Self {
        Self {
            catalog,
            offers,
            placement,
            shards,
        }
    }

    /// What a connection that begins now is offered.
    pub(super) fn offer(&self) -> Arc<Offer> {
        self.offers.now()
    }

    /// Where overlays are; `None` where none are kept.
    pub(super) const fn state(&self) -> Option<&Arc<StateDir>> {
        self.catalog.state()
    }

    /// The boot of the host that ephemeral overlays are bound to.
    pub(super) const fn boot_id(&self) -> [u8; 16] {
        self.catalog.boot_id()
    }

    /// Holds an overlay back from clients, or looks at it where one has it open. `None` where the
    /// server is going down.
    pub(super) async fn hold(&self, key: &VolumeKey) -> Option<Held> {
        let shard = self.shards.get(self.placement.join(key))?;
        shard.hold(key.clone()).await
    }

    pub(super) fn describe(
        &self,
        offer: &Offer,
        name: &str,
        caller: &Caller,
    ) -> Result<ExportInfo, Refused> {
        let found = self.catalog.find(offer, name, caller);
        found.map(|target| target.info)
    }

    pub(super) async fn open(
        &self,
        offer: &Offer,
        name: &str,
        caller: &Caller,
    ) -> Result<Opened, Refused> {
        let target = Arc::new(self.catalog.find(offer, name, caller)?);
        if self.placement.users(&target.key) >= CONNECTIONS_PER_CLIENT_MAX {
            let key = &target.key;
            let message = format!("{key} has {CONNECTIONS_PER_CLIENT_MAX} connections already");
            return Err(Refusal::Policy(message).into());
        }
        let gone = || Refusal::Shutdown("the server is going down".into());
        let shard = self
            .shards
            .get(self.placement.join(&target.key))
            .ok_or_else(gone)?;
        let info = target.info;
        let key = target.key.clone();
        let overlay = target.overlay.as_ref().map(|(dir, _)| Arc::from(&**dir));
        match shard.open(target).await.ok_or_else(gone)? {
            Ok(lease) => Ok(Opened {
                shard: shard.clone(),
                lease,
                info,
                overlay,
            }),
            Err(error) => {
                tracing::error!("overlay {key} can't be opened: {error}");
                let message = format!("the overlay can't be opened: {error}");
                Err(Refusal::Failed(message).into())
            }
        }
    }
}
