//! Any one byte of the files that have checksums is damaged: the overlay comes back exactly, or is
//! refused.

use std::path::PathBuf;

use cowherd::disk::Disk;
use cowherd::disk::sim::Moment;
use cowherd::overlay::sabotage::{self, Sabotage};
use cowherd::units::{BLOCK_SIZE, BlockIndex, ByteRange};

use super::client::{Client, bytes_of, content_of, dir, open, with_image};
use super::disk::TestDisk;
use super::history::Start;
use super::machine::begin;
use super::oracle::{AREAS, Content, Oracle};
use super::seeded::{Seeded, mixed};

/// What the journal file with the last epochs may have in use.
const JOURNAL_USED: u64 = 8 << 10;
const JOURNAL: u64 = 1 << 20;

/// An overlay soon after a checkpoint, over journals full of records of earlier generations.
fn lived_in() -> (Moment, Content) {
    let (moment, _) = begin(Start::NearlyFull);
    let disk = TestDisk::new(moment.running(), None);
    let overlay = open(&disk).unwrap();
    let mut client = Client::new(disk, overlay);
    let mut oracle = Oracle::of(&content_of(&client.overlay).unwrap());
    let mut random = Seeded::new(1);
    for round in 0..8 {
        client.write_somewhere(&mut oracle, &mut random).unwrap();
        client.flush().unwrap();
        if round == 5 {
            // An epoch of many frames.
            for block in 0..150 {
                let range = BlockIndex(100 + 2 * block).bytes();
                client.overlay.trim(range).unwrap();
            }
        }
    }
    // The last one brings a block that the image had before.
    let range = ByteRange::between(0, BLOCK_SIZE).intersect(BlockIndex(AREAS[0].0).bytes());
    let data = bytes_of(range, 99);
    let overlay = &mut client.overlay;
    with_image(|image| overlay.write(range, &data, image)).unwrap();
    client.flush().unwrap();
    let content = content_of(&client.overlay).unwrap();
    let settled = client.disk.sim.moment();
    let settled = settled.crash(&mut |choice| choice.calls.len());
    (settled.moment(), content)
}

/// The files of that overlay whose names begin so.
fn files(moment: &Moment, prefix: &str) -> Vec<PathBuf> {
    let names = moment.running().list(&dir()).unwrap();
    let names = names.into_iter().filter(|name| name.starts_with(prefix));
    names.map(|name| dir().join(name)).collect()
}

/// How many single damaged bytes there were, and how many were refused.
#[derive(Debug, Default)]
struct Seen {
    tried: u64,
    refused: u64,
}

/// Damages a byte of each file, at each of `places`. The first result that is wrong is an error.
fn damage(prefix: &str, places: impl Iterator<Item = u64> + Clone) -> Result<Seen, String> {
    let (moment, content) = lived_in();
    let paths = files(&moment, prefix);
    assert!(!paths.is_empty(), "no file {prefix}");
    let oracle = Oracle::of(&content);
    let mut seen = Seen::default();
    for path in paths {
        for at in places.clone() {
            let disk = moment.running();
            let flip = [1, 0x80, 0xff, 0x10][usize::try_from(mixed(at) % 4).unwrap()];
            if disk.corrupt(&path, at, flip).is_err() {
                break;
            }
            seen.tried += 1;
            let what = format!("byte {at} of {} ^ {flip:#x}", path.display());
            match open(&TestDisk::new(disk, None)) {
                Err(error) => {
                    seen.refused += 1;
                    let text = error.to_string();
                    assert!(text.contains("reset"), "no advice for {what}: {text}");
                }
                Ok(overlay) => {
                    let back = content_of(&overlay).map_err(|error| format!("{what}: {error}"))?;
                    let same = oracle.check_read(&back);
                    same.map_err(|error| format!("{what}: {error}"))?;
                }
            }
        }
    }
    println!("{prefix}: {seen:?}");
    Ok(seen)
}

#[test]
fn any_damaged_byte_of_the_header_is_repaired() {
    let seen = damage("header", 0..).unwrap();
    assert_eq!((seen.tried, seen.refused), (8192, 0));
}

#[test]
fn any_damaged_byte_of_the_checkpoint_is_refused_or_does_no_harm() {
    let seen = damage("ckpt.", 0..).unwrap();
    assert!(seen.tried > 8192 && seen.refused > 4096, "{seen:?}");
}

#[test]
fn any_damaged_byte_of_a_journal_is_refused_or_does_no_harm() {
    let seen = damage("journal.", 0..JOURNAL_USED).unwrap();
    assert!(seen.refused > 1000, "{seen:?}");
}

/// A byte of each sector of what the journals do not use, or no longer.
#[test]
fn damage_behind_the_end_of_a_journal_does_no_harm() {
    let sectors = (JOURNAL_USED..JOURNAL).step_by(512);
    let seen = damage("journal.", sectors.map(|at| at + mixed(at) % 80)).unwrap();
    assert_eq!(seen.refused, 0);
}

#[cfg(debug_assertions)]
#[test]
fn r7_a_checkpoint_that_is_believed_unchecked_is_noticed() {
    let _ = lived_in();
    sabotage::choose(Some(Sabotage::UncheckedCheckpoint));
    let result = damage("ckpt.", 4096..);
    sabotage::choose(None);
    println!("{}", result.unwrap_err());
}

#[cfg(debug_assertions)]
#[test]
fn r8_a_journal_that_ends_at_the_first_bad_frame_is_noticed() {
    let _ = lived_in();
    sabotage::choose(Some(Sabotage::HoleIsEnd));
    let result = damage("journal.", 0..JOURNAL_USED);
    sabotage::choose(None);
    println!("{}", result.unwrap_err());
}
