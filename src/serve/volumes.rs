//! The volumes of one shard: opened for the first session, closed after the last.
//!
//! Invariants:
//! - A volume is there at most once, so an overlay's files are never open twice.
//! - A volume is shared only by those who ask for the same mode: the config may have changed what a
//!   client gets while it has a session, and FLUSH of an ephemeral overlay makes nothing durable.
//! - Who waits for a volume that is being opened or closed sees how that ended, and tries again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use super::catalog::{Target, VolumeKey};
use crate::disk::RealDisk;
use crate::export::Volume;
use crate::io::{self, Pool};
use crate::overlay::{OpenError, Overlay, OverlayMode, Spec};

#[derive(Debug)]
enum Slot {
    /// Being opened or closed.
    Busy,
    Open {
        volume: Rc<Volume>,
        /// Of its overlay.
        mode: Option<OverlayMode>,
        users: usize,
    },
    /// Held back from clients while its files are worked on.
    Held,
}

/// The open volumes of a shard.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    slots: RefCell<HashMap<VolumeKey, Slot>>,
    changed: Notify,
}

impl Volumes {
    /// Opens the volume of `target`, or shares it with those who have it open.
    pub(super) async fn open(&self, target: &Target, pool: &Pool) -> Result<(), OpenError> {
        loop {
            let changed = self.changed.notified();
            match self.slots.borrow_mut().get_mut(&target.key) {
                None => break,
                Some(Slot::Open { mode, users, .. }) => {
                    check_mode(*mode, target)?;
                    *users += 1;
                    return Ok(());
                }
                Some(Slot::Busy | Slot::Held) => {}
            }
            changed.await;
        }
        self.slots
            .borrow_mut()
            .insert(target.key.clone(), Slot::Busy);
        let opened = open_overlay(target).await;
        let opened = opened.map(|overlay| Slot::Open {
            volume: Rc::new(Volume::new(
                Arc::clone(&target.image),
                overlay,
                pool.clone(),
            )),
            mode: mode_of(target),
            users: 1,
        });
        let result = self.settle(&target.key, opened);
        self.changed.notify_waiters();
        result
    }

    fn settle(&self, key: &VolumeKey, opened: Result<Slot, OpenError>) -> Result<(), OpenError> {
        let mut slots = self.slots.borrow_mut();
        match opened {
            Ok(slot) => {
                slots.insert(key.clone(), slot);
                Ok(())
            }
            Err(error) => {
                slots.remove(key);
                Err(error)
            }
        }
    }

    /// The volume that somebody has opened.
    pub(super) fn get(&self, key: &VolumeKey) -> Option<Rc<Volume>> {
        match self.slots.borrow().get(key)? {
            Slot::Open { volume, .. } => Some(Rc::clone(volume)),
            Slot::Busy | Slot::Held => None,
        }
    }

    /// Holds a volume back from clients until it is released; one that is open is given instead.
    pub(super) async fn hold(&self, key: &VolumeKey) -> Option<Rc<Volume>> {
        loop {
            let changed = self.changed.notified();
            match self.slots.borrow().get(key) {
                None => break,
                Some(Slot::Open { volume, .. }) => return Some(Rc::clone(volume)),
                Some(Slot::Busy | Slot::Held) => {}
            }
            changed.await;
        }
        self.slots.borrow_mut().insert(key.clone(), Slot::Held);
        None
    }

    /// Waits until nobody has a volume open.
    pub(super) async fn until_closed(&self, key: &VolumeKey) {
        loop {
            let changed = self.changed.notified();
            if !self.has(key) {
                return;
            }
            changed.await;
        }
    }

    /// Whether a volume is open, or being opened or closed, or held back.
    pub(super) fn has(&self, key: &VolumeKey) -> bool {
        self.slots.borrow().contains_key(key)
    }

    /// One of those who had it open is done with it; the last one closes it.
    pub(super) async fn release(&self, key: &VolumeKey) {
        if !self.is_held(key) {
            let Some(volume) = self.take_if_last(key) else {
                return;
            };
            if let Err(error) = volume.close().await {
                tracing::error!("closing {key}: {error}");
            }
        }
        self.slots.borrow_mut().remove(key);
        self.changed.notify_waiters();
    }

    fn is_held(&self, key: &VolumeKey) -> bool {
        matches!(self.slots.borrow().get(key), Some(Slot::Held))
    }

    fn take_if_last(&self, key: &VolumeKey) -> Option<Rc<Volume>> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(key)?;
        let Slot::Open { volume, users, .. } = slot else {
            return None;
        };
        *users -= 1;
        if *users > 0 {
            return None;
        }
        let volume = Rc::clone(volume);
        *slot = Slot::Busy;
        Some(volume)
    }

    /// Whether none is open, or being opened or closed.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.borrow().is_empty()
    }
}

fn mode_of(target: &Target) -> Option<OverlayMode> {
    target.overlay.as_ref().map(|(_, spec)| spec.mode)
}

/// What [`Overlay::open`] would say of an overlay that is not open yet.
fn check_mode(found: Option<OverlayMode>, target: &Target) -> Result<(), OpenError> {
    match found {
        Some(found) if mode_of(target) != Some(found) => Err(OpenError::OtherMode(found)),
        _ => Ok(()),
    }
}

async fn open_overlay(target: &Target) -> Result<Option<Overlay<RealDisk>>, OpenError> {
    let Some((dir, spec)) = target.overlay.clone() else {
        return Ok(None);
    };
    let mut overlay = io::offload(move || open_and_note(&dir, &spec)).await?;
    overlay.set_limit(target.limit);
    Ok(Some(overlay))
}

/// Opens an overlay with all that was acknowledged under this boot of the host, also by a server
/// that was killed.
fn open_and_note(dir: &Path, spec: &Spec) -> Result<Overlay<RealDisk>, OpenError> {
    let mut overlay = Overlay::open(&RealDisk, dir, spec)?;
    match overlay.keep_recent(spec.boot_id) {
        Ok(_) => {}
        // A full disk keeps nobody's overlay closed.
        Err(error) => tracing::warn!(
            "overlay {}: what is not flushed is lost if this server is killed: {error}",
            dir.display()
        ),
    }
    Ok(overlay)
}
