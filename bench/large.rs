//! A 1 TiB overlay with 1 % written: how long it takes to open, and what it costs in memory.
//!
//! `cargo bench --bench large [-- DIR]` works in a new directory beneath DIR (the target directory
//! if none is named). Map, journal and checkpoints come to be on the way that they always take,
//! with a flush every 1000 writes; only the data itself is not written: each write is begun and
//! then said to have been done. What an open overlay takes is measured in a process of its own,
//! which has allocated nothing before.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cowherd::disk::{Disk, DiskFile, RealDisk};
use cowherd::overlay::flush::Begin;
use cowherd::overlay::header::Base;
use cowherd::overlay::{Overlay, OverlayMode, Spec};
use cowherd::units::{BLOCK_SIZE, BlockIndex, BlockRange, ByteRange};

const DISK_BYTES: u64 = 1 << 40;
const DISK_BLOCKS: u64 = DISK_BYTES / BLOCK_SIZE;
const WRITTEN_BLOCKS: u64 = DISK_BLOCKS / 100;
/// Blocks of 128 MiB, in which file systems keep together what belongs together.
const GROUP_BLOCKS: u64 = 32_768;
const WRITES_PER_FLUSH: u64 = 1000;
const OPENINGS: usize = 9;
const IDLE_CLIENTS: usize = 50;
/// Names, to a process of its own, the overlay that it is to open.
const OPEN: &str = "COWHERD_BENCH_OPEN";

fn main() -> Result<()> {
    // `cargo test --all-targets` starts benchmarks too, without this.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    if let Some(dir) = std::env::var_os(OPEN) {
        return opened(Path::new(&dir));
    }
    let parent = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"));
    let parent = parent.map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let dir = tempfile::tempdir_in(&parent).context("no directory to work in")?;
    idle(dir.path())?;
    trim_all(dir.path())?;
    measure(
        dir.path(),
        "in a tenth of the groups",
        DISK_BLOCKS / GROUP_BLOCKS / 10,
    )?;
    measure(dir.path(), "in all groups", DISK_BLOCKS / GROUP_BLOCKS)
}

fn spec() -> Spec {
    let base = Base {
        size: DISK_BYTES,
        mtime_ns: 0,
        sample: 0,
    };
    Spec {
        base,
        mode: OverlayMode::Persistent,
        boot_id: [1; 16],
        uuid: [2; 16],
        now: 0,
    }
}

fn open(dir: &Path) -> Result<Overlay<RealDisk>> {
    Ok(Overlay::open(&RealDisk, dir, &spec())?)
}

/// Clients that have written nothing.
fn idle(dir: &Path) -> Result<()> {
    let before = Memory::now()?;
    let overlays: Vec<_> = (0..IDLE_CLIENTS)
        .map(|client| open(&dir.join(format!("idle-{client}"))))
        .collect::<Result<_>>()?;
    let after = Memory::now()?;
    let each = (after.own - before.own) / IDLE_CLIENTS as f64;
    println!("open overlay of 1 TiB with nothing written: {each:.0} KiB\n");
    drop(overlays);
    Ok(())
}

/// The whole disk is trimmed, and what may have space given back, three times.
fn trim_all(dir: &Path) -> Result<()> {
    let mut overlay = open(&dir.join("trimmed"))?;
    for _ in 0..3 {
        let start = Instant::now();
        overlay.trim(ByteRange::between(0, DISK_BYTES))?;
        let trimmed = start.elapsed();
        flush(&mut overlay)?;
        let (start, mut jobs) = (Instant::now(), 0);
        while let Some(job) = overlay.begin_punch(false) {
            let result = job.run();
            overlay.finish_punch(result);
            jobs += 1;
        }
        println!(
            "1 TiB trimmed in {trimmed:.1?}, {jobs} punch jobs in {:.1?}",
            start.elapsed()
        );
    }
    println!();
    Ok(())
}

fn measure(dir: &Path, how: &str, groups: u64) -> Result<()> {
    let path = dir.join(format!("groups-{groups}"));
    let (runs, present) = fill(&path, groups)?;
    let gib = present as f64 * BLOCK_SIZE as f64 / f64::from(1 << 30);
    println!("{gib:.2} GiB of 1 TiB written, {how}, as {runs} writes of 4 to 124 KiB:");
    let mut times = Vec::new();
    for _ in 0..OPENINGS {
        forget(&path)?;
        let start = Instant::now();
        let overlay = open(&path)?;
        times.push(start.elapsed());
        drop(overlay);
    }
    let Memory { own, mapped } = memory_of_an_opening(&path)?;
    let (own, mapped) = (own / gib, mapped / gib);
    println!("  memory for a GiB written: own {own:.0} KiB, mapped files {mapped:.0} KiB");
    times.sort();
    let millis = |time: &Duration| time.as_secs_f64() * 1e3;
    let [first, .., last] = times.as_slice() else {
        return Ok(());
    };
    println!(
        "  opened in {:.0} ms (median of {OPENINGS}; {:.0} to {:.0}), nothing cached\n",
        millis(&times[OPENINGS / 2]),
        millis(first),
        millis(last)
    );
    Ok(())
}

/// What opening an overlay adds to a process that has done nothing else.
fn memory_of_an_opening(path: &Path) -> Result<Memory> {
    let run = Command::new(std::env::current_exe()?)
        .arg("--bench")
        .env(OPEN, path)
        .output()?;
    let told = String::from_utf8(run.stdout)?;
    let (own, mapped) = told.trim().split_once(' ').context("no two numbers")?;
    Ok(Memory {
        own: own.parse()?,
        mapped: mapped.parse()?,
    })
}

/// The process that is asked for that.
fn opened(path: &Path) -> Result<()> {
    let before = Memory::now()?;
    let overlay = open(path)?;
    let after = Memory::now()?;
    println!(
        "{} {}",
        after.own - before.own,
        after.mapped - before.mapped
    );
    drop(overlay);
    Ok(())
}

/// Writes until 1 % of the disk is present. How many writes that were, and the blocks present.
fn fill(path: &Path, groups: u64) -> Result<(u64, u64)> {
    let before = Memory::now()?;
    let mut overlay = open(path)?;
    let mut writes = 0;
    while overlay.counts().present < WRITTEN_BLOCKS {
        let random = scattered(writes);
        // The groups in use lie all over the disk.
        let group = random % groups * (DISK_BLOCKS / GROUP_BLOCKS / groups);
        let start = BlockIndex(group * GROUP_BLOCKS + (random >> 20) % (GROUP_BLOCKS - 32));
        let blocks = BlockRange::between(start, BlockIndex(start.0 + 1 + (random >> 40) % 31));
        let turn = overlay.join(blocks);
        let pending = overlay.begin_write(&turn, blocks.bytes())?;
        overlay.finish_write(&turn, &pending, Ok(()))?;
        overlay.leave(turn);
        writes += 1;
        if writes.is_multiple_of(WRITES_PER_FLUSH) {
            flush(&mut overlay)?;
        }
    }
    flush(&mut overlay)?;
    let gib = overlay.counts().present as f64 * BLOCK_SIZE as f64 / f64::from(1 << 30);
    let own = (Memory::now()?.own - before.own) / gib;
    println!("memory of the overlay that was written, for a GiB: {own:.0} KiB");
    Ok((writes, overlay.counts().present))
}

fn flush(overlay: &mut Overlay<RealDisk>) -> Result<()> {
    if let Begin::Run(cycle) = overlay.begin_cycle()?
        && let Some(job) = overlay.finish_cycle(cycle.run())?
    {
        let result = job.run();
        overlay.finish_checkpoint(job, result);
    }
    Ok(())
}

/// Nothing of the overlay's files is in the page cache.
fn forget(path: &Path) -> Result<()> {
    for name in RealDisk.list(path)? {
        let file = RealDisk.open(&path.join(name))?;
        file.sync()?;
        file.forget_cached()?;
    }
    Ok(())
}

/// KiB that this process has in memory.
struct Memory {
    own: f64,
    mapped: f64,
}

impl Memory {
    fn now() -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            number.context("no such line")?.parse().context("no number")
        };
        Ok(Self {
            own: kib("RssAnon:")?,
            mapped: kib("RssFile:")?,
        })
    }
}

const fn scattered(number: u64) -> u64 {
    let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 32)
}
