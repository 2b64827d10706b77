//! The volumes of one shard: opened for the first session, closed after the last.
//!
//! Invariants:
//! - A volume is there at most once, so an overlay's files are never open twice.
//! - A volume is shared only by those who ask for the same mode: the config may have changed what a
//!   client gets while it has a session, and FLUSH of an ephemeral overlay makes nothing durable.
//! - Who waits for a volume that is being opened or closed sees how that ended, and tries again.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use super::catalog::{Target, VolumeKey};
use super::shard::Leaving;
use crate::disk::RealDisk;
use crate::export::{Volume, VolumeError};
use crate::io::{self, Pool};
use crate::overlay::{OpenError, Overlay, OverlayMode, Spec, Voucher};

#[derive(Debug)]
enum Slot {
    /// Being opened or closed.
    Busy,
    Open {
        volume: Rc<Volume>,
        /// As who opened it first asked for it.
        target: Arc<Target>,
        users: usize,
    },
    /// Held back from clients while its files are worked on.
    Held,
}

/// A volume that nobody uses any more, and that nothing is written to, but whose files are open.
#[derive(Debug)]
pub(super) struct Parted {
    #[expect(dead_code, reason = "what counts is that it lives")]
    volume: Rc<Volume>,
    pub(super) voucher: Voucher,
}

/// The open volumes of a shard.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    slots: RefCell<HashMap<VolumeKey, Slot>>,
    /// None is opened or held back any more.
    is_frozen: Cell<bool>,
    changed: Notify,
}

impl Volumes {
    /// Opens the volume of `target`, with what the server said of it that had it last, or shares it
    /// with those who have it open.
    pub(super) async fn open(
        &self,
        target: &Arc<Target>,
        voucher: Option<Voucher>,
        pool: &Pool,
    ) -> Result<(), OpenError> {
        loop {
            let changed = self.changed.notified();
            match self.slots.borrow_mut().get_mut(&target.key) {
                _ if self.is_frozen.get() => {}
                None => break,
                Some(Slot::Open {
                    target: first,
                    users,
                    ..
                }) => {
                    check_mode(mode_of(first), target)?;
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
        let opened = open_overlay(target, voucher).await;
        let opened = opened.map(|overlay| Slot::Open {
            volume: Rc::new(Volume::new(
                Arc::clone(&target.image),
                overlay,
                pool.clone(),
            )),
            target: Arc::clone(target),
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

    /// The volume that somebody has opened, and what it was opened as.
    pub(super) fn get(&self, key: &VolumeKey) -> Option<(Rc<Volume>, Arc<Target>)> {
        match self.slots.borrow().get(key)? {
            Slot::Open { volume, target, .. } => Some((Rc::clone(volume), Arc::clone(target))),
            Slot::Busy | Slot::Held => None,
        }
    }

    /// From now on none is opened or held back, or again; who asks meanwhile waits.
    pub(super) fn freeze(&self, is_frozen: bool) {
        self.is_frozen.set(is_frozen);
        self.changed.notify_waiters();
    }

    /// What is open.
    pub(super) fn open_now(&self) -> Vec<Arc<Target>> {
        let slots = self.slots.borrow();
        let target = |slot: &Slot| match slot {
            Slot::Open { target, .. } => Some(Arc::clone(target)),
            Slot::Busy | Slot::Held => None,
        };
        slots.values().filter_map(target).collect()
    }

    /// Flushes all that are open, and gives back their freed space. Those who use them are told of
    /// failures, and nobody else.
    pub(super) async fn flush(&self) {
        let volumes: Vec<_> = self
            .slots
            .borrow()
            .values()
            .filter_map(|slot| match slot {
                Slot::Open { volume, .. } => Some(Rc::clone(volume)),
                Slot::Busy | Slot::Held => None,
            })
            .collect();
        let flush = |volume: Rc<Volume>| io::spawn(async move { volume.tidy().await });
        let flushing: Vec<_> = volumes.into_iter().map(flush).collect();
        for flushed in flushing {
            // It does nothing that panics; were it to, there is more to do later.
            let _ = flushed.await;
        }
    }

    /// Holds a volume back from clients until it is released; one that is open is given instead.
    pub(super) async fn hold(&self, key: &VolumeKey) -> Option<Rc<Volume>> {
        loop {
            let changed = self.changed.notified();
            match self.slots.borrow().get(key) {
                _ if self.is_frozen.get() => {}
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
    ///
    /// # Errors
    /// It could not be closed well: changes that were not flushed before may be lost.
    pub(super) async fn release(&self, key: &VolumeKey) -> Result<(), VolumeError> {
        let mut closed = Ok(());
        if !self.is_held(key) {
            let Some(volume) = self.take_if_last(key) else {
                return closed;
            };
            closed = volume.close().await;
            if let Err(error) = &closed {
                tracing::error!("closing {key}: {error}");
            }
        }
        self.slots.borrow_mut().remove(key);
        self.changed.notify_waiters();
        closed
    }

    /// As [`Self::release`], for another server that goes on with it: the volume, with what can be
    /// said of it, where this was the last one who had it open.
    ///
    /// # Errors
    /// As [`Self::release`].
    pub(super) async fn part_with(
        &self,
        key: &VolumeKey,
        leaving: Leaving,
    ) -> Result<Option<Parted>, VolumeError> {
        if self.is_held(key) || leaving == Leaving::Closed {
            return self.release(key).await.map(|()| None);
        }
        let Some(volume) = self.take_if_last(key) else {
            return Ok(None);
        };
        let parted = Rc::clone(&volume).part().await;
        self.slots.borrow_mut().remove(key);
        self.changed.notify_waiters();
        parted
            .map(|voucher| voucher.map(|voucher| Parted { volume, voucher }))
            .inspect_err(|error| tracing::error!("closing {key}: {error}"))
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

async fn open_overlay(
    target: &Target,
    voucher: Option<Voucher>,
) -> Result<Option<Overlay<RealDisk>>, OpenError> {
    let Some((dir, spec)) = target.overlay.clone() else {
        return Ok(None);
    };
    let mut overlay = io::offload(move || open_and_note(&dir, &spec, voucher)).await?;
    overlay.set_limit(target.limit);
    Ok(Some(overlay))
}

/// Opens an overlay with all that was acknowledged under this boot of the host, also by a server
/// that was killed or that handed it over.
fn open_and_note(
    dir: &Path,
    spec: &Spec,
    voucher: Option<Voucher>,
) -> Result<Overlay<RealDisk>, OpenError> {
    let mut overlay = match &voucher {
        Some(voucher) => Overlay::open_vouched(&RealDisk, dir, spec, voucher)?,
        None => Overlay::open(&RealDisk, dir, spec)?,
    };
    match overlay.keep_recent(spec.boot_id) {
        Ok(_) => {}
        // A session goes on that was told of what they say.
        Err(source) if voucher.is_some_and(|voucher| voucher.is_noted) => {
            let what = "reading what is not flushed";
            return Err(OpenError::Io { what, source });
        }
        // A full disk keeps nobody's overlay closed.
        Err(error) => tracing::warn!(
            "overlay {}: what is not flushed is lost if this server is killed: {error}",
            dir.display()
        ),
    }
    Ok(overlay)
}
