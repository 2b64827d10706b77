//! What the contexts of BLOCK_STATUS say of a disk.
//!
//! Invariants: an answer begins at the first byte asked for and never goes past the last; it tells
//! of at least one byte; it has no false hole. How much work it takes is bounded, however large and
//! fragmented the disk: "the server MAY return less data than requested".

use crate::export::extents::{Kind, Stretch};
use crate::limits::{STATUS_BYTES_MAX, STATUS_EXTENTS_MAX, STATUS_STRETCHES_MAX};
use crate::nbd::agreed::Context;
use crate::nbd::wire::{AllocationFlags, Extent, OverlayFlags};
use crate::units::ByteRange;

/// As much of `range` as one answer tells of.
pub(super) fn within_reach(range: ByteRange) -> ByteRange {
    let end = range.start().saturating_add(STATUS_BYTES_MAX);
    ByteRange::between(range.start(), range.end().min(end))
}

/// What `context` says of `stretches`, which follow each other; of the first of its extents only,
/// if `only_one`.
pub(super) fn extents(
    context: Context,
    stretches: impl Iterator<Item = Stretch>,
    only_one: bool,
) -> Vec<Extent> {
    let most = if only_one { 1 } else { STATUS_EXTENTS_MAX };
    let mut extents: Vec<Extent> = Vec::new();
    for Stretch { range, kind } in stretches.take(STATUS_STRETCHES_MAX) {
        let flags = flags(context, kind);
        let is_full = extents.len() >= most;
        match extents.last_mut() {
            // "The server SHOULD use different *status* values between consecutive descriptors".
            Some(last) if last.flags == flags => last.length += range.len(),
            _ if is_full => break,
            _ => extents.push(Extent {
                length: range.len(),
                flags,
            }),
        }
    }
    extents
}

const fn flags(context: Context, kind: Kind) -> u32 {
    match context {
        // A hole that is not zero has "undefined" contents, so blocks of the image that hold data
        // are no holes of the export, though writing to them takes space. Nor does any other block
        // get a flag that is not certain: "a server MAY always safely report a status of 0".
        Context::Allocation if kind.is_zero() => {
            let flags = AllocationFlags::HOLE.with(AllocationFlags::ZERO);
            flags.to_wire()
        }
        Context::Overlay if kind.is_own() => OverlayFlags::OWN.to_wire(),
        Context::Allocation | Context::Overlay => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretches(kinds: &[(u64, Kind)]) -> Vec<Stretch> {
        let mut at = 0;
        let stretch = |&(len, kind): &(u64, Kind)| {
            let range = ByteRange::between(at, at + len);
            at += len;
            Stretch { range, kind }
        };
        kinds.iter().map(stretch).collect()
    }

    fn told(context: Context, only_one: bool, kinds: &[(u64, Kind)]) -> Vec<(u64, u32)> {
        let extents = extents(context, stretches(kinds).into_iter(), only_one);
        let told = extents.iter().map(|extent| (extent.length, extent.flags));
        told.collect()
    }

    const ALL: [(u64, Kind); 5] = [
        (10, Kind::Image),
        (20, Kind::Own),
        (30, Kind::OwnZero),
        (40, Kind::Hole),
        (50, Kind::Image),
    ];

    #[test]
    fn only_what_is_zero_is_a_hole() {
        assert_eq!(
            told(Context::Allocation, false, &ALL),
            [(30, 0), (70, 3), (50, 0)]
        );
    }

    #[test]
    fn only_what_the_client_changed_is_its_own() {
        assert_eq!(
            told(Context::Overlay, false, &ALL),
            [(10, 0), (50, 1), (90, 0)]
        );
    }

    #[test]
    fn one_extent_is_as_long_as_it_can_be() {
        assert_eq!(told(Context::Allocation, true, &ALL), [(30, 0)]);
        assert_eq!(told(Context::Overlay, true, &ALL[3..]), [(90, 0)]);
    }

    #[test]
    fn an_answer_has_a_bound_however_fragmented_the_disk() {
        let changing = [(1, Kind::Image), (1, Kind::Hole)].repeat(STATUS_EXTENTS_MAX);
        let extents = told(Context::Allocation, false, &changing);
        assert_eq!(extents.len(), STATUS_EXTENTS_MAX);
        let same = [(1, Kind::Image), (1, Kind::Own)].repeat(STATUS_STRETCHES_MAX);
        let bounded = told(Context::Allocation, false, &same);
        assert_eq!(bounded, [(STATUS_STRETCHES_MAX as u64, 0)]);
    }

    #[test]
    fn an_answer_begins_where_it_was_asked_and_reaches_so_far() {
        let short = ByteRange::between(5, 10);
        assert_eq!(within_reach(short), short);
        let long = within_reach(ByteRange::between(5, u64::MAX));
        assert_eq!((long.start(), long.len()), (5, STATUS_BYTES_MAX));
    }
}
