//! Journals of an overlay from outside, so that a test meets the moment at which they are switched.

use std::path::Path;

use cowherd::disk::RealDisk;
use cowherd::overlay::flush::Begin;
use cowherd::overlay::{Overlay, Spec, inspect};
use cowherd::units::BlockIndex;

/// Changes that one frame holds.
const CHANGES_PER_FRAME: u64 = 38;
/// Frames that make a checkpoint due: three quarters of a journal.
const DUE: u64 = (1 << 20) / 512 / 4 * 3;

/// Fills the journal of a new overlay, which nobody may have open, so that a checkpoint is due
/// after about `left` more flushes. Every second block of the disk is zeroed.
pub(crate) fn nearly_fill_journal(dir: &Path, left: u64) {
    let header = inspect::header(&RealDisk, dir).expect("a header");
    let header = header.expect("an overlay");
    let spec = Spec {
        base: header.base,
        mode: header.mode,
        boot_id: header.boot_id,
        uuid: header.uuid,
        now: header.created,
    };
    let mut overlay = Overlay::open(&RealDisk, dir, &spec).expect("an overlay");
    let blocks = overlay.map().blocks() / 2;
    // The last of the rounds zeroes all; those that say otherwise write nothing.
    let rounds = ((DUE - left) * CHANGES_PER_FRAME / blocks - 1) | 1;
    for change in 0..rounds * blocks {
        let range = BlockIndex(change % blocks * 2).bytes();
        if (change / blocks).is_multiple_of(2) {
            overlay.trim(range).expect("a trim");
        } else {
            let turn = overlay.join(range.blocks_touched());
            let write = overlay.begin_write(&turn, range).expect("a write");
            let told = overlay.finish_write(&turn, &write, Ok(()));
            told.expect("a good end");
            overlay.leave(turn);
        }
    }
    let Ok(Begin::Run(cycle)) = overlay.begin_cycle() else {
        panic!("nothing to flush")
    };
    let job = overlay.finish_cycle(cycle.run()).expect("a flush");
    assert!(job.is_none(), "a checkpoint is due already");
}

/// The generation of the newest checkpoint in the overlay `dir`: it grows when a journal was full.
pub(crate) fn checkpoint_generation(dir: &Path) -> u64 {
    let names = std::fs::read_dir(dir).expect("an overlay");
    let generations = names.filter_map(|name| {
        let name = name.expect("a name").file_name().into_string().ok()?;
        name.strip_prefix("ckpt.")?.parse().ok()
    });
    generations.max().expect("a checkpoint")
}
