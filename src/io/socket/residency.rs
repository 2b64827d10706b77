//! Pages of images that have left memory since they were found there: a send of them would make the
//! whole shard wait for a disk.
//!
//! A look costs a system call, so it is made where it is worth one: before a large send, and before
//! one that had to wait for its peer, or came behind such a one. What is missed, a small send of a
//! page that was evicted in the seconds since it was seen, is noticed by its fault; for some time
//! after that every page is looked for when it is queued.
//!
//! Invariant: a send is put off once at the same place of the stream, so that it goes on though
//! memory is so short that pages don't stay.

use std::cell::Cell;
use std::sync::Arc;

use crate::disk::ImageMapping;
use crate::io::gather::{Gather, Images};
use crate::io::ring;
use crate::limits::{DOUBT_TICKS, LOOK_MIN};
use crate::units::ByteRange;

/// What one send knows of pages.
#[derive(Debug)]
pub(super) struct Pages {
    /// Time has passed since they were seen.
    is_late: bool,
    /// They were looked up when so many bytes were sent.
    looked_at: Option<u64>,
}

impl Pages {
    /// Pages that were seen just now, or late ones.
    pub(super) fn seen(is_late: bool) -> Self {
        Self {
            is_late,
            looked_at: None,
        }
    }

    /// The send had to wait.
    pub(super) fn may_be_gone(&mut self) {
        self.is_late = true;
    }

    /// Waits for the pages of the prepared message that are not in memory, if there are any.
    ///
    /// Whether it waited. `sent` is the place in the stream.
    pub(super) async fn bring_in(&mut self, gather: &Gather, sent: u64) -> bool {
        if self.looked_at == Some(sent) || !self.should_look(gather) {
            return false;
        }
        self.looked_at = Some(sent);
        let cold: Vec<_> = gather.image_parts().filter(is_cold).map(owned).collect();
        if cold.is_empty() {
            return false;
        }
        cold.iter()
            .for_each(|(mapping, _)| mapping.doubt(DOUBT_TICKS));
        ring::offload(move || cold.iter().for_each(populate)).await;
        true
    }

    /// Doubts the images of the message that was sent just now, where the thread had to wait for a
    /// page of it.
    pub(super) fn look_back(gather: &Gather) {
        thread_local! {
            static BEFORE: Cell<i64> = const { Cell::new(0) };
        }
        if gather.images() == Images::None {
            return;
        }
        let now = major_faults();
        if BEFORE.replace(now) != now {
            for (mapping, _) in gather.image_parts() {
                mapping.doubt(DOUBT_TICKS);
            }
        }
    }

    fn should_look(&self, gather: &Gather) -> bool {
        let mut parts = gather.image_parts();
        let mut bytes = 0;
        self.is_late
            || parts.any(|(_, range)| {
                bytes += range.len();
                bytes >= LOOK_MIN
            })
    }
}

/// How often this thread has waited for a page to come from a disk.
pub(super) fn major_faults() -> i64 {
    // SAFETY: a rusage is made of integers, for which zero is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes one rusage, to memory that is one.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    usage.ru_majflt
}

fn is_cold(part: &(&Arc<ImageMapping>, ByteRange)) -> bool {
    // Where the kernel would not tell, the send itself will.
    part.0.resident(part.1).is_ok_and(|resident| !resident)
}

fn owned((mapping, range): (&Arc<ImageMapping>, ByteRange)) -> (Arc<ImageMapping>, ByteRange) {
    (Arc::clone(mapping), range)
}

fn populate((mapping, range): &(Arc<ImageMapping>, ByteRange)) {
    // What is wrong with the file the send will tell.
    let _ = mapping.populate(*range);
}
