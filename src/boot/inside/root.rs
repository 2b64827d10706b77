//! Which partition of a disk is the root of its system.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::bounded::Bounded;
use super::partitions::{self, Slice};
use super::{Blocks, InsideError, Kind, Whereabouts, kind_of, read_slice, unreadable};

/// os-release(5) and fstab(5): what the root of a system has, and neither a partition for `/boot`
/// nor one of EFI.
const OF_A_ROOT: [&str; 2] = ["etc/os-release", "etc/fstab"];

/// The number of the partition that is the root; `None` where the whole disk is, or where nothing
/// tells which one.
///
/// That is the partition with the files that `place` means and the `kernel`, if it has what a root
/// has; else the first one that has; else the one with the kernel.
///
/// This may take long, and wait for disks.
///
/// # Errors
/// The table of partitions can't be read.
pub fn root_partition(
    disk: &Arc<dyn Blocks>,
    place: &Whereabouts,
    kernel: Option<&str>,
) -> Result<Option<u32>, InsideError> {
    let disk: Arc<dyn Blocks> = Arc::new(Bounded::new(Arc::clone(disk)));
    let whole = Slice::whole(disk);
    if place.partition.is_none() && kind_of(&whole).is_some() {
        return Ok(None);
    }
    let found = partitions::find(&whole).map_err(|error| unreadable(&error))?;
    let all = || found.iter().map(|(number, slice)| (*number, slice));
    let with_kernel = place.partition.or_else(|| {
        let kernel = kernel?;
        let mut all = all();
        all.find(|(_, slice)| has(slice, place, kernel))
            .map(|(number, _)| number)
    });
    let is_root = |slice: &Slice| {
        let mut marks = OF_A_ROOT.iter();
        kind_of(slice) != Some(Kind::Fat) && marks.any(|mark| has(slice, place, mark))
    };
    let first = all().filter(|(number, _)| Some(*number) == with_kernel);
    let rest = all().filter(|(number, _)| Some(*number) != with_kernel);
    let mut in_turn = first.chain(rest);
    let root = in_turn.find(|(_, slice)| is_root(slice));
    Ok(root.map(|(number, _)| number).or(with_kernel))
}

/// Whether a partition has this file. No byte of it is read.
fn has(slice: &Slice, place: &Whereabouts, path: &str) -> bool {
    let nothing = |_| false;
    let look = || read_slice(slice.clone(), place, path, &nothing);
    // What can't be read is not what we look for.
    let looked = catch_unwind(AssertUnwindSafe(look));
    matches!(
        looked,
        Ok(Some(
            Ok(_) | Err(InsideError::NoRoom(_) | InsideError::TooLarge(_))
        ))
    )
}
