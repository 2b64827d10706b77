//! Catalog, placement and shards as the handshakes see them.

use std::sync::Arc;

use super::catalog::Catalog;
use super::placement::Placement;
use super::shard::{Lease, ShardHandle};
use super::who::Peer;
use crate::nbd::handshake::Listing;
use crate::nbd::{ExportInfo, Refusal};

/// All that is served, and where.
#[derive(Debug)]
pub(super) struct Herd {
    catalog: Catalog,
    placement: Arc<Placement>,
    shards: Vec<ShardHandle>,
}

/// A volume that was opened for a connection.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) shard: ShardHandle,
    pub(super) lease: Lease,
    pub(super) info: ExportInfo,
}

impl Herd {
    pub(super) fn new(
        catalog: Catalog,
        placement: Arc<Placement>,
        shards: Vec<ShardHandle>,
    ) -> Self {
        Self {
            catalog,
            placement,
            shards,
        }
    }

    pub(super) fn listing(&self) -> Vec<Listing> {
        self.catalog.listing()
    }

    pub(super) fn describe(&self, name: &str, peer: &Peer) -> Result<ExportInfo, Refusal> {
        self.catalog.find(name, peer).map(|target| target.info)
    }

    pub(super) async fn open(&self, name: &str, peer: &Peer) -> Result<Opened, Refusal> {
        let target = Arc::new(self.catalog.find(name, peer)?);
        let gone = || Refusal::Shutdown("the server is going down".into());
        let shard = self
            .shards
            .get(self.placement.join(&target.key))
            .ok_or_else(gone)?;
        let info = target.info;
        let key = target.key.clone();
        match shard.open(target).await.ok_or_else(gone)? {
            Ok(lease) => Ok(Opened {
                shard: shard.clone(),
                lease,
                info,
            }),
            Err(error) => {
                tracing::error!("overlay {key} can't be opened: {error}");
                Err(Refusal::Failed(format!(
                    "the overlay can't be opened: {error}"
                )))
            }
        }
    }
}
