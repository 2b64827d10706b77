//! Catalog, placement and shards as the handshakes see them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::boots::Boots;
use super::catalog::{Catalog, Refused, Target, VolumeKey};
use super::offer::{Offer, Offers};
use super::placement::Placement;
use super::prefetch::Machine;
use super::shard::measure::{AllTotals, Measured};
use super::shard::{Held, Lease, ShardHandle};
use super::state_dir::StateDir;
use super::watch::Watch;
use super::who::Client;
use crate::access::Caller;
use crate::config::Keep;
use crate::disk::RealDisk;
use crate::export::snapshot::Snapshot;
use crate::image::Image;
use crate::limits::CONNECTIONS_PER_CLIENT_MAX;
use crate::name::Name;
use crate::nbd::{Described, Refusal};
use crate::overlay::inspect::{self, View};
use crate::overlay::{OverlayMode, Spec};
use crate::status::traffic::Totals;

mod suspended;

pub(super) use suspended::Reopened;

/// All that is served, and where.
#[derive(Debug)]
pub(super) struct Herd {
    catalog: Catalog,
    offers: Arc<Offers>,
    placement: Arc<Placement>,
    shards: Vec<ShardHandle>,
    watch: Arc<Watch>,
    boots: Arc<Boots>,
}

/// A session, and the shard that it is on.
pub(super) type OfShard = (usize, Measured);

/// A volume that was opened for a connection.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) shard: ShardHandle,
    pub(super) lease: Lease,
    pub(super) described: Described,
    /// The directory of the overlay, if it has one.
    pub(super) overlay: Option<Arc<Path>>,
}

/// A client's disk, which no client opens for as long as this is there, unless one had already.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) disk: Snapshot,
    _held: Option<Held>,
}

/// Of an image that nobody changes.
impl From<Snapshot> for Look {
    fn from(disk: Snapshot) -> Self {
        Self { disk, _held: None }
    }
}

/// What an overlay holds that nobody has open; `None` where it would be made anew.
fn changes_in(dir: &Path, spec: &Spec) -> Result<Option<View<RealDisk>>, String> {
    let view = inspect::look(&RealDisk, dir).map_err(|error| error.to_string())?;
    let is_of_now = |view: &View<RealDisk>| {
        view.header.mode == OverlayMode::Persistent || view.header.boot_id == spec.boot_id
    };
    match view.filter(is_of_now) {
        Some(view) if view.header.base != spec.base => Err("it is over another image".to_owned()),
        changes => Ok(changes),
    }
}

impl Herd {
    pub(super) fn new(
        catalog: Catalog,
        offers: Arc<Offers>,
        placement: Arc<Placement>,
        shards: Vec<ShardHandle>,
        watch: Arc<Watch>,
    ) -> Self {
        Self {
            watch,
            catalog,
            offers,
            placement,
            shards,
            boots: Arc::default(),
        }
    }

    /// The machines that are being switched on.
    pub(super) const fn boots(&self) -> &Arc<Boots> {
        &self.boots
    }

    /// What `caller` gets under `name`, once it is of the present boot of its machine.
    async fn find(&self, offer: &Offer, name: &str, caller: &Caller) -> Result<Target, Refused> {
        let target = self.catalog.find(offer, name, caller)?;
        if let (Some(client), Some((_, spec))) = (&target.key.client, &target.overlay)
            && spec.mode == OverlayMode::Ephemeral
        {
            self.boots.settled(client).await;
        }
        Ok(target)
    }

    /// What a session has that another server let in.
    pub(super) fn target_of(
        &self,
        image: &Arc<Image>,
        generation: u32,
        client: Option<Name>,
        keep: Keep,
    ) -> Target {
        // A bare image is nobody's: the name is not looked at.
        let name = client.unwrap_or_else(|| image.name().clone());
        let image_name = None;
        let client = Client {
            name,
            keep,
            image: image_name,
        };
        self.catalog.target(image, generation, client)
    }

    /// What a connection that begins now is offered.
    pub(super) fn offer(&self) -> Arc<Offer> {
        self.offers.now()
    }

    /// What is known of the machines.
    pub(super) const fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// What the sessions of all shards have done.
    pub(super) async fn measure(&self) -> Vec<OfShard> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let measured = shard.measure().await.unwrap_or_default();
            all.extend(measured.into_iter().map(|one| (shard.index(), one)));
        }
        all
    }

    /// What was asked of each disk, on all shards.
    pub(super) async fn totals(&self) -> AllTotals {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(shard.totals().await.unwrap_or_default());
        }
        all
    }

    /// The same of each generation of an image, whosever overlays were over it.
    pub(super) async fn exports(&self) -> BTreeMap<String, Totals> {
        let mut exports: BTreeMap<String, Totals> = BTreeMap::new();
        for (mut key, more) in self.totals().await {
            key.client = None;
            exports.entry(key.to_string()).or_default().add(&more);
        }
        exports
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

    /// As [`Self::hold`], but what a machine has left open that is gone is closed first.
    pub(super) async fn vacate(&self, key: &VolumeKey) -> Option<Held> {
        let shard = self.shards.get(self.placement.join(key))?;
        shard.vacate(key.clone()).await
    }

    /// Whether a machine is up: it has connections, and answers to one. Tells after seconds where
    /// it has some that nobody answers to.
    pub(super) async fn has(&self, machine: &Machine) -> bool {
        for shard in &self.shards {
            if shard.has(machine.clone()).await {
                return true;
            }
        }
        false
    }

    /// The disk that `caller` gets under `name`, for who reads files out of it.
    pub(super) async fn look(
        &self,
        offer: &Offer,
        name: &str,
        caller: &Caller,
    ) -> Result<Look, Refused> {
        let target = self.find(offer, name, caller).await?;
        let image = Arc::clone(&target.image);
        let Some((dir, spec)) = target.overlay else {
            let (disk, _held) = (Snapshot::new(image, None), None);
            return Ok(Look { disk, _held });
        };
        let gone = || Refusal::Shutdown("the server is going down".into());
        match self.hold(&target.key).await.ok_or_else(gone)? {
            Held::Live(live) => Ok(Look {
                disk: Snapshot::new(image, Some(live.view)),
                _held: None,
            }),
            alone @ Held::Alone(_) => {
                let changes = tokio::task::spawn_blocking(move || changes_in(&dir, &spec)).await;
                let failed = |error: String| Refusal::Failed(error);
                let changes = changes.map_err(|error| failed(error.to_string()))?;
                Ok(Look {
                    disk: Snapshot::new(image, changes.map_err(failed)?),
                    _held: Some(alone),
                })
            }
        }
    }

    pub(super) fn describe(
        &self,
        offer: &Offer,
        name: &str,
        caller: &Caller,
    ) -> Result<Described, Refused> {
        let found = self.catalog.find(offer, name, caller);
        found.map(|target| target.described(None))
    }

    pub(super) async fn open(
        &self,
        offer: &Offer,
        name: &str,
        caller: &Caller,
    ) -> Result<Opened, Refused> {
        let target = Arc::new(self.find(offer, name, caller).await?);
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
        let key = target.key.clone();
        let overlay = target.overlay.as_ref().map(|(dir, _)| Arc::from(&**dir));
        match shard
            .open(Arc::clone(&target), None)
            .await
            .ok_or_else(gone)?
        {
            Ok(lease) => Ok(Opened {
                shard: shard.clone(),
                described: target.described(Some(lease.overlay)),
                lease,
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
