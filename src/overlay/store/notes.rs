//! Notes of changes for a server that is killed: see [`recent`](super::super::recent).

use std::io;

use super::{Overlay, WriteError};
use crate::disk::{Disk, DiskFile};
use crate::overlay::recent::{NAMES, Note, Recent};
use crate::overlay::sabotage::{self, Sabotage};

impl<D: Disk> Overlay<D> {
    /// From now on changes are noted before they are acknowledged; and those that were noted by a
    /// server that was killed, under the same boot of the host, are made. How many these are.
    ///
    /// # Errors
    /// Whatever the disk answers; then nothing is noted.
    pub fn keep_recent(&mut self, boot_id: [u8; 16]) -> io::Result<usize> {
        let [a, b] = NAMES.map(|name| {
            let path = self.files.dir.join(name);
            match self.files.disk.open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.files.disk.create(&path, 0)
                }
                opened => opened,
            }
        });
        let (recent, changes) = Recent::open([a?, b?], self.files.uuid, boot_id)?;
        let before = self.epoch.is_empty();
        for change in &changes {
            self.set(change.blocks, change.state);
        }
        // What is in the map and in no journal is for the next flush.
        self.dirty |= before && !self.epoch.is_empty();
        self.recent = Some(recent);
        Ok(changes.len())
    }

    /// What changes have to be noted before they are acknowledged: to be asked after every step
    /// that changes something, and told the end of to [`Overlay::noted`].
    pub fn take_note(&mut self) -> Option<Note<D::File>> {
        self.recent.as_mut()?.take()
    }

    /// Whether there is something for [`Self::take_note`] to give.
    #[must_use]
    pub fn has_note(&self) -> bool {
        self.recent.as_ref().is_some_and(Recent::is_pending)
    }

    /// A note was written, or could not be.
    ///
    /// # Errors
    /// [`WriteError`]: what was noted must not be acknowledged.
    pub fn noted(
        &mut self,
        note: &Note<D::File>,
        written: io::Result<()>,
    ) -> Result<(), WriteError> {
        if let Some(recent) = &mut self.recent {
            recent.written(note, written.is_ok());
        }
        written.map_err(|error| self.failed("write of a note", &error))
    }

    /// Whether so much is noted that a flush is worth while.
    #[must_use]
    pub fn has_many_notes(&self) -> bool {
        self.recent.as_ref().is_some_and(Recent::is_long)
    }

    /// Writes what has to be noted, for whoever may wait for the disk.
    pub(super) fn note_now(&mut self) -> Result<(), WriteError> {
        if sabotage::breaks(Sabotage::LateNote) {
            return Ok(());
        }
        let Some(note) = self.take_note() else {
            return Ok(());
        };
        let written = note.file.write_at(&note.bytes, note.offset);
        self.noted(&note, written)
    }
}
