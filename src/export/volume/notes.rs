//! Notes of changes of a volume (rule R13): those of one turn of the shard are written together.
//!
//! Invariants:
//! - A change that noted something ends when that is written, or could not be. What finds no space
//!   is flushed instead: then it needs no note.
//! - No cycle begins while a note is not taken: what is noted belongs to the turn of its file.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::sync::oneshot;

use super::{Volume, VolumeError, Waiter};
use crate::disk::{RealDisk, RealFile};
use crate::io;
use crate::overlay::{Note, Overlay};

/// A note on its way, and the changes that wait for it.
type Sending = (Note<RealFile>, Vec<Waiter>);

impl Volume {
    /// Waits until all is written that has been noted so far.
    pub(super) async fn noted(self: &Rc<Self>) -> Result<(), VolumeError> {
        let has_note = |overlay: &RefCell<Overlay<RealDisk>>| overlay.borrow().has_note();
        if !self.overlay.as_ref().is_some_and(has_note) {
            return Ok(());
        }
        let (waiter, ended) = oneshot::channel();
        let is_first = {
            let mut waiters = self.unnoted.borrow_mut();
            waiters.push(waiter);
            waiters.len() == 1
        };
        if is_first {
            let volume = Rc::clone(self);
            // Those that are ready now have their turn before, and may have more to note.
            drop(io::spawn(async move {
                let sending = volume.take_note();
                volume.send_note(sending).await;
            }));
        }
        let abandoned = |_| Err(std::io::Error::other("the note was abandoned").into());
        ended.await.unwrap_or_else(abandoned)
    }

    /// Sees to it that no note is left that is not on its way.
    pub(super) fn note_all(self: &Rc<Self>) {
        let sending = self.take_note();
        if sending.is_some() {
            let volume = Rc::clone(self);
            drop(io::spawn(async move { volume.send_note(sending).await }));
        }
    }

    fn take_note(&self) -> Option<Sending> {
        let waiters = self.unnoted.take();
        let taken = self.overlay.as_ref()?.borrow_mut().take_note();
        if taken.is_none() {
            answer(waiters, &Ok(()));
            return None;
        }
        taken.map(|note| (note, waiters))
    }

    async fn send_note(self: &Rc<Self>, sending: Option<Sending>) {
        let Some((note, waiters)) = sending else {
            return;
        };
        let mut result = self.write_note(&note).await;
        if matches!(result, Err(VolumeError::NoSpace)) && !waiters.is_empty() {
            result = self.flush().await;
        }
        answer(waiters, &result);
    }

    async fn write_note(&self, note: &Note<RealFile>) -> Result<(), VolumeError> {
        let mut buffer = self.pool.take(note.bytes.len())?;
        let part = 0..note.bytes.len();
        if let Some(place) = buffer.as_mut_slice().get_mut(part.clone()) {
            place.copy_from_slice(&note.bytes);
        }
        let (written, _) =
            io::write_at(note.file.clone(), buffer, part, note.offset, self.way).await;
        if let Some(overlay) = &self.overlay {
            overlay.borrow_mut().noted(note, written)?;
        }
        Ok(())
    }
}

fn answer(waiters: Vec<Waiter>, result: &Result<(), VolumeError>) {
    for waiter in waiters {
        // A change whose future was dropped waits no more.
        let _ = waiter.send(result.clone());
    }
}
