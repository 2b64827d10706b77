//! One client of an overlay, as simple as can be: each call goes to its end.

use std::path::{Path, PathBuf};

use cowherd::disk::DiskFile;
use cowherd::disk::sim::{Moment, SimDisk};
use cowherd::disk::{Disk, sim::Choice};
use cowherd::overlay::flush::Begin;
use cowherd::overlay::header::Base;
use cowherd::overlay::map::BlockState;
use cowherd::overlay::store::{BaseBlocks, WriteError};
use cowherd::overlay::{OpenError, Overlay, OverlayMode, Spec, Voucher};
use cowherd::units::{BLOCK_BYTES, BlockIndex, ByteRange};

use super::disk::TestDisk;
use super::history::Start;
use super::oracle::{AREAS, Content, Oracle, SIZE, followed, image_block, sectors_of};
use super::seeded::{Seeded, mixed};

const HOME: &str = "/overlays";
/// The directory of the overlay.
pub(crate) const CLIENT: &str = "client";

fn spec(mode: OverlayMode, boot: u8) -> Spec {
    let base = Base {
        size: SIZE,
        mtime_ns: 1,
        sample: 2,
    };
    Spec {
        base,
        mode,
        boot_id: [boot; 16],
        uuid: [4; 16],
        now: 5,
    }
}

pub(crate) fn dir() -> PathBuf {
    Path::new(HOME).join(CLIENT)
}

/// A disk with a durable directory for overlays.
pub(crate) fn empty_disk() -> SimDisk {
    let disk = SimDisk::default();
    disk.create_dir(Path::new(HOME)).expect("a directory");
    disk.sync_dir(Path::new("/")).expect("a sync");
    disk
}

pub(crate) fn open(disk: &TestDisk) -> Result<Overlay<TestDisk>, OpenError> {
    open_as(disk, OverlayMode::Persistent, 1)
}

/// Opens it for a mode, in this boot of the host.
pub(crate) fn open_as(
    disk: &TestDisk,
    mode: OverlayMode,
    boot: u8,
) -> Result<Overlay<TestDisk>, OpenError> {
    disk.opening(|| Overlay::open(disk, &dir(), &spec(mode, boot)))
}

/// Opens it with the notes of this boot of the host.
pub(crate) fn open_noted(disk: &TestDisk, boot: u8) -> Result<Overlay<TestDisk>, String> {
    let overlay = open_as(disk, OverlayMode::Persistent, boot);
    keep_notes(overlay.map_err(|error| error.to_string())?, boot)
}

/// Opens what another server has parted with, with its notes.
pub(crate) fn open_vouched(
    disk: &TestDisk,
    boot: u8,
    voucher: &Voucher,
) -> Result<Overlay<TestDisk>, String> {
    let spec = spec(OverlayMode::Persistent, boot);
    let overlay = disk.opening(|| Overlay::open_vouched(disk, &dir(), &spec, voucher));
    keep_notes(overlay.map_err(|error| error.to_string())?, boot)
}

fn keep_notes(mut overlay: Overlay<TestDisk>, boot: u8) -> Result<Overlay<TestDisk>, String> {
    let kept = overlay.keep_recent([boot; 16]);
    kept.map_err(|error| format!("notes: {error}"))?;
    Ok(overlay)
}

/// What the followed blocks hold, as a client reads them.
pub(crate) fn content_of(overlay: &Overlay<TestDisk>) -> Result<Content, String> {
    let mut content = Content::with_capacity(160);
    for block in followed() {
        let mut bytes = [0; BLOCK_BYTES];
        match overlay.map().state(block) {
            BlockState::Absent => bytes = image_block(block),
            BlockState::Zero => {}
            BlockState::Present => {
                let read = overlay.data().read_at(&mut bytes, block.start());
                read.map_err(|error| format!("block {} can't be read: {error}", block.0))?;
            }
        }
        sectors_of(block, &bytes, &mut content);
    }
    Ok(content)
}

/// What a client writes at `range`: told from all else by `tag`.
pub(crate) fn bytes_of(range: ByteRange, tag: u64) -> Vec<u8> {
    let words = range.start() / 8..=range.end() / 8;
    let bytes = words.flat_map(|word| mixed(word ^ tag).to_le_bytes());
    let skip = usize::try_from(range.start() % 8).expect("small");
    bytes.skip(skip).take(range.len_usize()).collect()
}

/// The image's content of a block, as changes want it.
pub(crate) fn image_of(block: BlockIndex) -> Box<[u8; BLOCK_BYTES]> {
    Box::new(image_block(block))
}

/// Does a change, with what it needs of the image.
pub(crate) fn with_image(
    mut change: impl FnMut(&BaseBlocks) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    let mut image = BaseBlocks::default();
    loop {
        match change(&image) {
            Err(WriteError::NeedsBase(block)) => image.add(block, image_of(block)),
            result => return result,
        }
    }
}

/// A client of an open overlay.
pub(crate) struct Client {
    pub(crate) disk: TestDisk,
    pub(crate) overlay: Overlay<TestDisk>,
}

impl Client {
    pub(crate) const fn new(disk: TestDisk, overlay: Overlay<TestDisk>) -> Self {
        Self { disk, overlay }
    }

    /// Writes a few bytes or blocks of a followed area.
    pub(crate) fn write_somewhere(
        &mut self,
        oracle: &mut Oracle,
        random: &mut Seeded,
    ) -> Result<(), String> {
        let (first, end) = AREAS[random.index(2)];
        let start = BlockIndex(first + random.below(end - first - 2)).start();
        let range = ByteRange::between(start, start + [4096, 5000, 700][random.index(3)]);
        let data = bytes_of(range, random.number());
        oracle.change(range, Some(&data));
        let overlay = &mut self.overlay;
        with_image(|image| overlay.write(range, &data, image))
            .map_err(|error| format!("a write after recovery fails: {error}"))
    }

    pub(crate) fn flush(&mut self) -> Result<bool, String> {
        let failed = |error: &dyn std::fmt::Display| format!("a flush fails: {error}");
        let Begin::Run(cycle) = self.overlay.begin_cycle().map_err(|e| failed(&e))? else {
            return Ok(false);
        };
        let job = self.overlay.finish_cycle(cycle.run());
        let Some(job) = job.map_err(|e| failed(&e))? else {
            return Ok(false);
        };
        let result = job.run();
        self.overlay.finish_checkpoint(job, result);
        Ok(true)
    }
}

/// Flushes that one generation of the journal takes until its checkpoint is due.
const FLUSHES_TO_CHECKPOINT: u64 = 1535;
const FLUSHES_TO_FULL: u64 = 2047;

/// The disk with which histories begin, and what the client sees of it. All of it is durable.
pub(crate) fn prepared(start: Start) -> (Moment, Content) {
    let disk = empty_disk();
    let test_disk = TestDisk::new(disk.clone(), None);
    if start != Start::Nothing {
        let overlay = open(&test_disk).expect("a new overlay");
        let mut client = Client::new(test_disk, overlay);
        match start {
            Start::Nothing => {}
            Start::NearlyFull => {
                for round in 0..3 * FLUSHES_TO_CHECKPOINT - 3 {
                    client.toggle(round);
                    client.flush().expect("a flush");
                }
            }
            Start::Owed => client.fill_two_journals(),
        }
    }
    let settled = disk
        .moment()
        .crash(&mut |choice: &Choice<'_>| choice.calls.len());
    let moment = settled.moment();
    let overlay = open(&TestDisk::new(settled, None)).expect("an overlay");
    let content = content_of(&overlay).expect("its content");
    (moment, content)
}

impl Client {
    /// Writes or trims the same block in turns, so that records left over from earlier uses of a
    /// journal tell of states that are long over.
    fn toggle(&mut self, round: u64) {
        let range = BlockIndex(5).bytes();
        let changed = if round.is_multiple_of(2) {
            let data = bytes_of(range, round);
            self.overlay.write(range, &data, &BaseBlocks::default())
        } else {
            self.overlay.trim(range)
        };
        changed.expect("a change");
    }

    /// The checkpoint between the journals is never made.
    fn fill_two_journals(&mut self) {
        for round in 0..FLUSHES_TO_CHECKPOINT + FLUSHES_TO_FULL - 8 {
            self.toggle(round);
            let Ok(Begin::Run(cycle)) = self.overlay.begin_cycle() else {
                panic!("nothing to flush")
            };
            let _ = self.overlay.finish_cycle(cycle.run());
        }
    }
}
