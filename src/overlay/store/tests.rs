//! An overlay on a real file system against a plain vector of bytes.

#![allow(
    clippy::cast_possible_truncation,
    reason = "small numbers of the tests"
)]

use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::disk::{DiskFile, RealDisk};
use crate::overlay::cycle::{CycleError, Step};
use crate::overlay::flush::Begin;
use crate::overlay::header::Base;
use crate::overlay::journal;
use crate::overlay::{OpenError, OverlayMode, Spec};

const SECTOR: usize = 512;

/// A client's disk: an overlay over an image in memory.
struct Bench {
    home: TempDir,
    image: Vec<u8>,
    overlay: Option<Overlay<RealDisk>>,
    mode: OverlayMode,
}

impl Bench {
    fn new(size: usize) -> Self {
        Self::with_mode(size, OverlayMode::Persistent)
    }

    fn with_mode(size: usize, mode: OverlayMode) -> Self {
        let image = (0..size).map(|i| (i / 7 % 251) as u8 | 1).collect();
        let home = tempfile::tempdir().unwrap();
        let mut bench = Self {
            home,
            image,
            overlay: None,
            mode,
        };
        bench.reopen();
        bench
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join("client")
    }

    fn spec(&self) -> Spec {
        let base = Base {
            size: self.image.len() as u64,
            mtime_ns: 1,
            sample: 2,
        };
        Spec {
            base,
            mode: self.mode,
            boot_id: [1; 16],
            uuid: [5; 16],
            now: 0,
        }
    }

    fn open(&self) -> Result<Overlay<RealDisk>, OpenError> {
        Overlay::open(&RealDisk, &self.dir(), &self.spec())
    }

    /// Drops the overlay as a killed server does, and opens it again.
    fn reopen(&mut self) {
        self.overlay = None;
        self.overlay = Some(self.open().unwrap());
    }

    fn overlay(&mut self) -> &mut Overlay<RealDisk> {
        self.overlay.as_mut().unwrap()
    }

    fn base_block(&self, block: BlockIndex) -> Block {
        let mut content = [0; BLOCK_BYTES];
        let start = block.start() as usize;
        let end = self.image.len().min(start + BLOCK_BYTES);
        content[..end - start].copy_from_slice(&self.image[start..end]);
        content
    }

    fn edges(&mut self, range: ByteRange) -> BaseBlocks {
        let mut base = BaseBlocks::default();
        for block in self
            .overlay()
            .edges(range, BlockState::Absent)
            .into_iter()
            .flatten()
        {
            base.add(block, Box::new(self.base_block(block)));
        }
        base
    }

    fn write(&mut self, at: usize, data: &[u8]) {
        let range = ByteRange::new(at as u64, data.len() as u64).unwrap();
        let base = self.edges(range);
        self.overlay().write(range, data, &base).unwrap();
    }

    fn zero(&mut self, range: ByteRange, how: Zeroing) {
        let base = self.edges(range);
        self.overlay().zero(range, how, &base).unwrap();
    }

    fn flush(&mut self) {
        let overlay = self.overlay();
        if let Begin::Run(cycle) = overlay.begin_cycle().unwrap() {
            let result = cycle.run();
            if let Some(job) = overlay.finish_cycle(result).unwrap() {
                let result = job.run();
                overlay.finish_checkpoint(job, result);
            }
        }
        if let Some(job) = overlay.begin_punch(false) {
            let result = job.run();
            overlay.finish_punch(result);
        }
    }

    fn read_all(&mut self) -> Vec<u8> {
        let mut content = self.image.clone();
        let blocks = BlockRange::between(BlockIndex(0), BlockIndex(self.overlay().map().blocks()));
        let runs: Vec<_> = self.overlay().map().runs(blocks).collect();
        for (run, state) in runs {
            let start = run.bytes().start() as usize;
            let end = content.len().min(run.bytes().end() as usize);
            match state {
                BlockState::Absent => {}
                BlockState::Zero => content[start..end].fill(0),
                BlockState::Present => {
                    let data = self.overlay().data().clone();
                    data.read_at(&mut content[start..end], start as u64)
                        .unwrap();
                }
            }
        }
        content
    }
}

fn range(start: u64, len: u64) -> ByteRange {
    ByteRange::new(start, len).unwrap()
}

#[test]
fn a_new_overlay_shows_the_image() {
    let mut bench = Bench::new(20_000);
    assert_eq!(bench.read_all(), bench.image);
}

#[test]
fn a_partial_write_keeps_the_rest_of_its_block_from_the_image() {
    let mut bench = Bench::new(20_000);
    bench.write(4000, &[0xee; 200]);
    let mut expected = bench.image.clone();
    expected[4000..4200].fill(0xee);
    assert_eq!(bench.read_all(), expected);
}

#[test]
fn a_write_without_the_rest_of_its_block_changes_nothing() {
    let mut bench = Bench::new(20_000);
    let refused = bench
        .overlay()
        .write(range(4000, 200), &[0xee; 200], &BaseBlocks::default());
    assert!(matches!(refused, Err(WriteError::NeedsBase(BlockIndex(0)))));
    assert_eq!(bench.read_all(), bench.image);
}

#[test]
fn a_write_up_to_an_odd_end_needs_no_merge() {
    let mut bench = Bench::new(4096 + 3);
    assert_eq!(
        bench.overlay().edges(range(4096, 3), BlockState::Absent),
        [None, None]
    );
}

#[test]
fn what_was_flushed_is_there_after_a_kill() {
    let mut bench = Bench::new(100_000);
    bench.write(5000, &[0xaa; 30_000]);
    bench.flush();
    let before = bench.read_all();
    bench.reopen();
    assert_eq!(bench.read_all(), before);
}

#[test]
fn a_flush_without_writes_has_nothing_to_do() {
    let mut bench = Bench::new(10_000);
    bench.write(0, &[1; 10]);
    bench.flush();
    assert!(matches!(
        bench.overlay().begin_cycle().unwrap(),
        Begin::Clean
    ));
}

#[test]
fn an_overwrite_of_present_blocks_syncs_data_and_writes_no_record() {
    let mut bench = Bench::new(10_000);
    bench.write(0, &[1; 4096]);
    bench.flush();
    let cursor = bench.overlay().cursor;
    bench.write(0, &[2; 4096]);
    let Begin::Run(cycle) = bench.overlay().begin_cycle().unwrap() else {
        panic!("clean")
    };
    assert!(matches!(cycle.steps[..], [Step::SyncData]));
    bench.overlay().finish_cycle(Ok(())).unwrap();
    assert_eq!(bench.overlay().cursor, cursor);
}

#[test]
fn many_flushes_go_through_many_journals() {
    let mut bench = Bench::with_mode(64 * BLOCK_BYTES, OverlayMode::Ephemeral);
    for round in 0..5000usize {
        let at = round / 2 % 64 * BLOCK_BYTES;
        if round % 2 == 0 {
            bench.write(at, &[round as u8; BLOCK_BYTES]);
        } else {
            bench.zero(
                range(at as u64 + 100, 2 * BLOCK_BYTES as u64 / 3),
                Zeroing::Reserve,
            );
            bench
                .overlay()
                .trim(range(at as u64, BLOCK_BYTES as u64))
                .unwrap();
        }
        bench.flush();
    }
    assert!(bench.overlay().cursor.generation >= 3);
    let before = bench.read_all();
    bench.reopen();
    assert_eq!(bench.read_all(), before);
}

#[test]
fn an_epoch_larger_than_a_journal_goes_into_a_checkpoint() {
    let blocks = 2 * journal::CHANGES_MAX + 10;
    let mut bench = Bench::with_mode(blocks * BLOCK_BYTES, OverlayMode::Ephemeral);
    for block in (0..blocks).step_by(2) {
        bench.write(block * BLOCK_BYTES, &[0x77; BLOCK_BYTES]);
    }
    let generation = bench.overlay().cursor.generation;
    bench.flush();
    assert_eq!(bench.overlay().cursor.generation, generation + 1);
    let counts = bench.overlay().counts();
    bench.reopen();
    assert_eq!(bench.overlay().counts(), counts);
}

#[test]
fn flushes_go_on_while_a_checkpoint_is_being_written() {
    let mut bench = Bench::new(1000 * BLOCK_BYTES);
    let mut job = None;
    for block in 0.. {
        bench.write(block % 1000 * BLOCK_BYTES, &[1; BLOCK_BYTES]);
        bench
            .overlay()
            .trim(range(((block + 500) % 1000 * BLOCK_BYTES) as u64, 4096))
            .unwrap();
        let Begin::Run(cycle) = bench.overlay().begin_cycle().unwrap() else {
            panic!("clean")
        };
        let finished = bench.overlay().finish_cycle(cycle.run()).unwrap();
        job = job.or(finished);
        if job.is_some() && bench.overlay().cursor.offset > 20_000 {
            break;
        }
    }
    let before = bench.read_all();
    // The server is killed before that checkpoint was written.
    bench.reopen();
    assert_eq!(bench.read_all(), before);
}

#[test]
fn trimmed_space_goes_back_to_the_file_system() {
    use std::os::unix::fs::MetadataExt;
    let mut bench = Bench::new(4 << 20);
    bench.write(0, &vec![3; 4 << 20]);
    bench.flush();
    let data = bench.dir().join("data");
    let before = std::fs::metadata(&data).unwrap().blocks();
    bench.overlay().trim(range(0, 4 << 20)).unwrap();
    bench.flush();
    assert!(std::fs::metadata(&data).unwrap().blocks() < before / 2);
}

/// Bytes that the data file has on the disk.
fn space_of_data(bench: &Bench) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let data = std::fs::File::open(bench.dir().join("data")).unwrap();
    // Some file systems decide where bytes go when they are synced.
    data.sync_all().unwrap();
    data.metadata().unwrap().blocks() * 512
}

#[test]
fn space_that_was_kept_for_zeros_goes_back_when_they_are_trimmed_or_zeroed_again() {
    let whole = range(0, 4 << 20);
    let again: [fn(&mut Bench, ByteRange); 2] = [
        |bench, whole| bench.overlay().trim(whole).unwrap(),
        |bench, whole| bench.zero(whole, Zeroing::Free),
    ];
    for free in again {
        let mut bench = Bench::new(4 << 20);
        bench.zero(whole, Zeroing::Reserve);
        bench.flush();
        assert!(space_of_data(&bench) >= 4 << 20, "nothing was reserved");
        bench.reopen();
        free(&mut bench, whole);
        assert!(
            space_of_data(&bench) >= 4 << 20,
            "before its record is durable"
        );
        bench.flush();
        assert_eq!(space_of_data(&bench), 0);
        assert_eq!(bench.read_all(), vec![0; 4 << 20]);
    }
}

#[test]
fn space_that_a_killed_server_had_not_given_back_goes_with_the_next_trim() {
    let mut bench = Bench::new(4 << 20);
    bench.write(0, &vec![3; 2 << 20]);
    bench.flush();
    bench.overlay().trim(range(0, 2 << 20)).unwrap();
    let Begin::Run(cycle) = bench.overlay().begin_cycle().unwrap() else {
        panic!("nothing to flush")
    };
    cycle.run().unwrap();
    bench.reopen();
    // A write that is in no record.
    bench.write(2 << 20, &vec![4; 2 << 20]);
    bench.reopen();
    assert!(space_of_data(&bench) >= 4 << 20, "it was given back anyway");
    bench.overlay().trim(range(0, 4 << 20)).unwrap();
    bench.flush();
    assert_eq!(space_of_data(&bench), 0);
}

#[test]
fn an_overlay_of_another_image_is_refused() {
    let mut bench = Bench::new(10_000);
    bench.overlay = None;
    bench.image.push(0);
    assert!(matches!(bench.open(), Err(OpenError::OtherBase)));
}

#[test]
fn an_ephemeral_overlay_ends_with_the_boot_of_the_host() {
    let mut bench = Bench::with_mode(10_000, OverlayMode::Ephemeral);
    bench.write(0, &[9; 5000]);
    bench.flush();
    bench.reopen();
    assert_eq!(bench.read_all()[..5000], [9; 5000]);
    bench.overlay = None;
    let later = Spec {
        boot_id: [2; 16],
        uuid: [6; 16],
        ..bench.spec()
    };
    bench.overlay = Some(Overlay::open(&RealDisk, &bench.dir(), &later).unwrap());
    assert_eq!(bench.read_all(), bench.image);
}

#[test]
fn an_ephemeral_overlay_is_not_taken_for_a_kept_one() {
    let mut bench = Bench::with_mode(10_000, OverlayMode::Ephemeral);
    bench.overlay = None;
    bench.mode = OverlayMode::Persistent;
    assert!(matches!(
        bench.open(),
        Err(OpenError::OtherMode(OverlayMode::Ephemeral))
    ));
}

#[test]
fn a_truncated_data_file_is_refused() {
    let mut bench = Bench::new(100_000);
    bench.overlay = None;
    let data = std::fs::OpenOptions::new()
        .write(true)
        .open(bench.dir().join("data"))
        .unwrap();
    data.set_len(4096).unwrap();
    assert!(matches!(
        bench.open(),
        Err(OpenError::DataSize { found: 4096, .. })
    ));
}

#[test]
fn after_a_failed_sync_writes_fail_and_reads_go_on() {
    let mut bench = Bench::new(10_000);
    bench.write(0, &[9; 100]);
    let Begin::Run(_) = bench.overlay().begin_cycle().unwrap() else {
        panic!("clean")
    };
    let failed = CycleError::Failed {
        step: "sync",
        source: io::Error::other("media"),
    };
    assert!(bench.overlay().finish_cycle(Err(failed)).is_err());
    let refused = bench
        .overlay()
        .write(range(0, 4096), &[1; 4096], &BaseBlocks::default());
    assert!(matches!(refused, Err(WriteError::Poisoned(_))));
    assert_eq!(bench.read_all()[..100], [9; 100]);
}

#[test]
fn a_flush_that_found_no_space_can_be_done_again() {
    let mut bench = Bench::new(10_000);
    bench.write(0, &[9; 100]);
    let Begin::Run(_) = bench.overlay().begin_cycle().unwrap() else {
        panic!("clean")
    };
    let refused = bench.overlay().finish_cycle(Err(CycleError::NoSpace));
    assert!(matches!(refused, Err(WriteError::NoSpace)));
    bench.flush();
    let before = bench.read_all();
    bench.reopen();
    assert_eq!(bench.read_all(), before);
}

#[derive(Clone, Debug)]
enum Op {
    Write(usize, usize, u8),
    Zero(usize, usize, bool),
    Trim(usize, usize),
    Flush,
    Kill,
}

fn op(size: usize) -> impl Strategy<Value = Op> {
    let span = move || (0..size, 1..size).prop_map(move |(at, len)| (at, len.min(size - at)));
    prop_oneof![
        6 => (span(), 1u8..).prop_map(|((at, len), fill)| Op::Write(at, len, fill)),
        2 => (span(), any::<bool>()).prop_map(|((at, len), keep)| Op::Zero(at, len, keep)),
        2 => span().prop_map(|(at, len)| Op::Trim(at, len)),
        2 => Just(Op::Flush),
        1 => Just(Op::Kill),
    ]
}

/// Every state the disk has been in since the last flush; the last one is the present.
struct Oracle(Vec<Vec<u8>>);

impl Oracle {
    fn change(&mut self, at: usize, len: usize, fill: u8) {
        let mut next = self.0.last().unwrap().clone();
        next[at..at + len].fill(fill);
        self.0.push(next);
    }

    fn flushed(&mut self) {
        self.0.drain(..self.0.len() - 1);
    }

    fn check_after_kill(&mut self, found: &[u8]) {
        for start in (0..found.len()).step_by(SECTOR) {
            let sector = start..found.len().min(start + SECTOR);
            let allowed = self
                .0
                .iter()
                .any(|state| state[sector.clone()] == found[sector.clone()]);
            assert!(allowed, "sector at {start} holds what was never there");
        }
        self.0 = vec![found.to_vec()];
    }
}

/// The whole 4 KiB blocks of a range; the last block of the disk may be short.
fn whole_blocks(at: usize, len: usize, size: usize) -> (usize, usize) {
    let start = at.next_multiple_of(BLOCK_BYTES);
    let end = if at + len == size {
        size
    } else {
        (at + len) / BLOCK_BYTES * BLOCK_BYTES
    };
    (start, end.saturating_sub(start))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn agrees_with_a_plain_vector_through_kills(
        ops in (10_000usize..60_000).prop_flat_map(|size| {
            (Just(size), proptest::collection::vec(op(size), 1..40))
        }),
    ) {
        let (size, ops) = ops;
        let mut bench = Bench::with_mode(size, OverlayMode::Ephemeral);
        let mut oracle = Oracle(vec![bench.image.clone()]);
        for op in ops {
            match op {
                Op::Write(at, len, fill) => {
                    bench.write(at, &vec![fill; len]);
                    oracle.change(at, len, fill);
                }
                Op::Zero(at, len, keep) => {
                    let how = if keep { Zeroing::Reserve } else { Zeroing::Free };
                    bench.zero(range(at as u64, len as u64), how);
                    oracle.change(at, len, 0);
                }
                Op::Trim(at, len) => {
                    bench.overlay().trim(range(at as u64, len as u64)).unwrap();
                    let (start, len) = whole_blocks(at, len, size);
                    if len > 0 {
                        oracle.change(start, len, 0);
                    }
                }
                Op::Flush => {
                    bench.flush();
                    oracle.flushed();
                }
                Op::Kill => {
                    bench.reopen();
                    oracle.check_after_kill(&bench.read_all());
                }
            }
            prop_assert!(bench.read_all() == *oracle.0.last().unwrap());
        }
    }
}

/// A bench whose overlay may have so many blocks.
fn limited(blocks: u64) -> Bench {
    let mut bench = Bench::new(100 * BLOCK_BYTES);
    bench.overlay().set_limit(Some(blocks));
    bench
}

fn try_write(bench: &mut Bench, first: u64, blocks: usize) -> Result<(), WriteError> {
    let range = ByteRange::new(first * BLOCK_BYTES as u64, (blocks * BLOCK_BYTES) as u64);
    let data = vec![0xab; blocks * BLOCK_BYTES];
    bench
        .overlay()
        .write(range.unwrap(), &data, &BaseBlocks::default())
}

#[test]
fn a_write_past_the_limit_is_refused_and_changes_nothing() {
    let mut bench = limited(5);
    try_write(&mut bench, 0, 4).unwrap();
    let before = bench.overlay().map().counts();
    let refused = try_write(&mut bench, 3, 3);
    assert!(matches!(refused, Err(WriteError::NoSpace)));
    assert_eq!(bench.overlay().map().counts(), before);
    let mut untouched = [1; BLOCK_BYTES];
    let data = bench.overlay().data().clone();
    data.read_at(&mut untouched, 4 * BLOCK_BYTES as u64)
        .unwrap();
    assert_eq!(untouched, [0; BLOCK_BYTES]);
    try_write(&mut bench, 3, 2).unwrap();
}

#[test]
fn blocks_that_are_there_can_be_rewritten_at_the_limit() {
    let mut bench = limited(5);
    try_write(&mut bench, 0, 5).unwrap();
    try_write(&mut bench, 1, 3).unwrap();
    assert!(bench.overlay().poison().is_none());
    bench.flush();
}

#[test]
fn zeroed_blocks_make_room_for_others() {
    let mut bench = limited(5);
    try_write(&mut bench, 0, 5).unwrap();
    assert!(try_write(&mut bench, 50, 1).is_err());
    bench.zero(ByteRange::between(0, 4096), Zeroing::Free);
    try_write(&mut bench, 50, 1).unwrap();
}

#[test]
fn blocks_zeroed_without_a_hole_take_no_space_under_a_limit() {
    let mut bench = limited(5);
    for first in [0, 20, 40] {
        let range = ByteRange::between(first * 4096, (first + 20) * 4096);
        bench.zero(range, Zeroing::Reserve);
    }
    bench.flush();
    let data = bench.dir().join("data");
    let space = std::os::unix::fs::MetadataExt::blocks(&data.metadata().unwrap()) * 512;
    assert!(space <= 5 * 4096, "{space} bytes");
}

#[test]
fn blocks_are_counted_again_when_an_overlay_is_reopened() {
    let mut bench = limited(5);
    try_write(&mut bench, 0, 5).unwrap();
    bench.flush();
    bench.reopen();
    assert_eq!(bench.overlay().counts(), bench.overlay().map().counts());
    bench.overlay().set_limit(Some(5));
    assert!(try_write(&mut bench, 50, 1).is_err());
    try_write(&mut bench, 4, 1).unwrap();
}
