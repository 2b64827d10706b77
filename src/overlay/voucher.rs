//! An overlay that one server after the other has open, with nothing made durable in between.
//!
//! Recovery syncs before it believes what only the page cache may hold (rule R8). Who takes an
//! overlay over from a server that lives need not: that one has synced all that it calls durable,
//! and says how far that goes. What is behind it is in the page cache and in the notes, as after a
//! kill, and is for the next flush.
//!
//! Invariants (rule R14):
//! - A server vouches only for an overlay whose disk has not failed, with nothing under way: no
//!   flush, no checkpoint, no note. From then on it writes to none of its files, and keeps them
//!   open until the other one serves: a failure of the disk that nobody was told of stays known.
//! - What is found must be what was vouched for, to the checksum of the last record. Else the
//!   overlay is opened as after a crash.
//! - The next flush syncs the data even where no change is noted: a block that the overlay had may
//!   have been written again.

use std::path::Path;

use super::journal::Cursor;
use super::recent::Recent;
use super::recover::{Spec, recover_vouched};
use super::sabotage::{self, Sabotage};
use super::store::WriteError;
use super::{OpenError, Overlay};
use crate::disk::Disk;

/// What a server says of an overlay that it has no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voucher {
    /// Which overlay.
    pub uuid: [u8; 16],
    /// All is durable up to here; `None` where that is not known any more.
    pub durable: Option<Cursor>,
    /// What was acknowledged is in the notes: without them it is lost.
    pub is_noted: bool,
}

impl Voucher {
    /// The same once another process has had the files.
    #[must_use]
    pub const fn doubted(self) -> Self {
        Self {
            durable: None,
            ..self
        }
    }
}

impl<D: Disk> Overlay<D> {
    /// What can be said of the overlay to whoever opens it next, if nothing is written any more.
    /// `None` where it is to be flushed first.
    ///
    /// # Errors
    /// [`WriteError::Poisoned`]: nothing is to be said of what it holds.
    pub fn vouch(&self) -> Result<Option<Voucher>, WriteError> {
        self.check_not_poisoned()?;
        if !self.is_settled() && !sabotage::breaks(Sabotage::HastyVoucher) {
            return Ok(None);
        }
        let is_noted = self.recent.as_ref().is_some_and(Recent::is_written);
        let is_flushed = !self.dirty && self.epoch.is_empty();
        Ok((is_noted || is_flushed).then_some(Voucher {
            uuid: self.files.uuid,
            durable: Some(self.cursor),
            is_noted,
        }))
    }

    /// As [`Overlay::open`], without a sync where what is found is what was vouched for.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_vouched(
        disk: &D,
        dir: &Path,
        spec: &Spec,
        voucher: &Voucher,
    ) -> Result<Self, OpenError> {
        let Some(mut overlay) = recover_vouched(disk, dir, spec, voucher) else {
            return Self::open(disk, dir, spec);
        };
        overlay.dirty = !sabotage::breaks(Sabotage::VouchedIsClean);
        Ok(overlay)
    }
}
