//! Flushes of a volume, and the checkpoints and punches that follow them.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::sync::oneshot;

use super::{Volume, VolumeError};
use crate::disk::RealDisk;
use crate::io;
use crate::overlay::cycle::{CheckpointJob, Cycle, CycleError};
use crate::overlay::flush::Begin;
use crate::overlay::{Overlay, Voucher};

impl Volume {
    /// Waits until all that was answered before is durable.
    ///
    /// # Errors
    /// [`VolumeError`]; a poisoned overlay never flushes again.
    pub async fn flush(self: &Rc<Self>) -> Result<(), VolumeError> {
        if self.overlay.is_none() {
            return Ok(());
        }
        let (waiter, ended) = oneshot::channel();
        self.commit.borrow_mut().join(waiter);
        self.start_cycle_if_due();
        // A cycle answers all who wait for it, unless the shard itself has ended.
        let abandoned = |_| Err(std::io::Error::other("the flush was abandoned").into());
        ended.await.unwrap_or_else(abandoned)
    }

    /// Begins a flush that nobody waits for where notes grow long: a client may never ask for one.
    pub(super) fn flush_where_much_is_noted(self: &Rc<Self>) {
        let is_due = |overlay: &RefCell<Overlay<RealDisk>>| overlay.borrow().has_many_notes();
        if self.overlay.as_ref().is_some_and(is_due) && !self.commit.borrow().is_active() {
            let (nobody, _) = oneshot::channel();
            self.commit.borrow_mut().join(nobody);
            self.start_cycle_if_due();
        }
    }

    fn start_cycle_if_due(self: &Rc<Self>) {
        let Some(overlay) = &self.overlay else { return };
        if !self.commit.borrow().is_due() {
            return;
        }
        self.note_all();
        let begun = overlay.borrow_mut().begin_cycle();
        match begun {
            Ok(Begin::WaitForCheckpoint) => {}
            Ok(Begin::Clean) => self.release(&Ok(())),
            Ok(Begin::Run(cycle)) => {
                self.commit.borrow_mut().begin();
                drop(io::spawn(Rc::clone(self).run_cycle(cycle)));
            }
            Err(error) => self.release(&Err(error.into())),
        }
    }

    /// Answers all who wait without a cycle.
    fn release(&self, result: &Result<(), VolumeError>) {
        self.commit.borrow_mut().begin();
        self.answer(result);
    }

    fn answer(&self, result: &Result<(), VolumeError>) {
        let waiters = self.commit.borrow_mut().finish();
        for waiter in waiters {
            // Who waited may be gone with its connection.
            let _ = waiter.send(result.clone());
        }
    }

    async fn run_cycle(self: Rc<Self>, cycle: Cycle<RealDisk>) {
        let result = io::offload(move || cycle.run()).await;
        self.finish_cycle(result);
        self.ended.notify_waiters();
        self.start_cycle_if_due();
    }

    fn finish_cycle(self: &Rc<Self>, result: Result<(), CycleError>) {
        let Some(overlay) = &self.overlay else { return };
        let finished = overlay.borrow_mut().finish_cycle(result);
        self.answer(&finished.as_ref().map(|_| ()).map_err(VolumeError::from));
        if let Ok(Some(job)) = finished {
            self.checkpoints.set(self.checkpoints.get() + 1);
            drop(io::spawn(Rc::clone(self).run_checkpoint(job)));
        }
        self.start_punch(false);
    }

    async fn run_checkpoint(self: Rc<Self>, job: CheckpointJob<RealDisk>) {
        let (job, result) = io::offload(move || {
            let result = job.run();
            (job, result)
        })
        .await;
        if let Some(overlay) = &self.overlay {
            overlay.borrow_mut().finish_checkpoint(job, result);
        }
        self.checkpoints.set(self.checkpoints.get() - 1);
        self.ended.notify_waiters();
        self.start_cycle_if_due();
    }

    fn start_punch(self: &Rc<Self>, all: bool) -> bool {
        let Some(overlay) = &self.overlay else {
            return false;
        };
        let Some(job) = overlay.borrow_mut().begin_punch(all) else {
            return false;
        };
        let volume = Rc::clone(self);
        drop(io::spawn(async move {
            let result = io::offload(move || job.run()).await;
            if let Some(overlay) = &volume.overlay {
                overlay.borrow_mut().finish_punch(result);
            }
            volume.ended.notify_waiters();
            volume.start_punch(false);
        }));
        true
    }

    /// Makes all durable and gives back what space there is to give back. No request may be under
    /// way.
    ///
    /// # Errors
    /// [`VolumeError`] of the last flush.
    pub async fn close(self: Rc<Self>) -> Result<(), VolumeError> {
        let flushed = self.flush().await;
        loop {
            let ended = self.ended.notified();
            let is_punching = self.start_punch(true) || self.is_punching();
            if self.checkpoints.get() == 0 && !is_punching {
                return flushed;
            }
            ended.await;
        }
    }

    /// Flushes, and begins to give back what space there is to give back.
    pub async fn tidy(self: &Rc<Self>) {
        // Those who use the overlay are told of failures.
        let _ = self.flush().await;
        self.start_punch(true);
    }

    /// Stops without making anything durable, where that can be vouched for to the next server;
    /// else closes. No request may be under way, and none may come. For as long as this is there,
    /// its files stay open.
    ///
    /// # Errors
    /// [`VolumeError`]: what was written and not flushed may be gone.
    pub async fn part(self: Rc<Self>) -> Result<Option<Voucher>, VolumeError> {
        loop {
            let ended = self.ended.notified();
            let is_flushing = self.commit.borrow().is_active() || self.checkpoints.get() > 0;
            if !is_flushing && !self.is_punching() {
                break;
            }
            ended.await;
        }
        let Some(overlay) = &self.overlay else {
            return Ok(None);
        };
        let voucher = overlay.borrow().vouch()?;
        match voucher {
            Some(voucher) => Ok(Some(voucher)),
            None => self.close().await.map(|()| None),
        }
    }

    fn is_punching(&self) -> bool {
        self.overlay
            .as_ref()
            .is_some_and(|overlay| overlay.borrow().is_punching())
    }
}
