//! Flushes and writes of an overlay in process: no socket, no protocol.
//!
//! `cargo bench --bench overlay [-- DIR]` works in a new directory beneath DIR (the target
//! directory if none is named), on whatever file system that is, and prints percentiles and ratios.
//! Each ratio is to a bare `pwrite` + `fdatasync` in the same run, taken in turns with it.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use cowherd::disk::{Disk, DiskFile, RealDisk};
use cowherd::overlay::flush::Begin;
use cowherd::overlay::header::Base;
use cowherd::overlay::store::BaseBlocks;
use cowherd::overlay::{Overlay, OverlayMode, Spec};
use cowherd::units::{BLOCK_BYTES, ByteRange};
use hdrhistogram::Histogram;

const DISK_BLOCKS: u64 = 1 << 20;
const ROUNDS: u64 = 2000;
const BURST: u64 = 100_000;

fn main() -> Result<()> {
    // `cargo test --all-targets` starts benchmarks too, without this.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let parent = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"));
    let parent = parent.map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let dir = tempfile::tempdir_in(&parent).context("no directory to work in")?;
    flushes(dir.path())?;
    writes(dir.path())
}

/// One write and one flush at a time, beside the same on a bare file.
fn flushes(dir: &Path) -> Result<()> {
    let mut overlay = open(dir, "flushed", OverlayMode::Persistent)?;
    let mut ephemeral = open(dir, "ephemeral", OverlayMode::Ephemeral)?;
    let bare = RealDisk.create(&dir.join("bare"), DISK_BLOCKS * BLOCK_BYTES as u64)?;
    let new = || Histogram::<u64>::new(3);
    let (mut fresh, mut again, mut fast, mut reference) = (new()?, new()?, new()?, new()?);
    for round in 0..ROUNDS {
        let block = scattered(round);
        timed(&mut reference, || {
            bare.write_at(&[1; BLOCK_BYTES], block * BLOCK_BYTES as u64)?;
            Ok(bare.sync()?)
        })?;
        timed(&mut fresh, || write_and_flush(&mut overlay, block))?;
        timed(&mut again, || write_and_flush(&mut overlay, block))?;
        timed(&mut fast, || write_and_flush(&mut ephemeral, block))?;
    }
    println!("4 KiB write + flush, {ROUNDS} rounds, microseconds:");
    let bare_p50 = report("bare pwrite + fdatasync", &reference, None);
    report("overlay, new block", &fresh, Some(bare_p50));
    report("overlay, same block again", &again, Some(bare_p50));
    report("ephemeral overlay, new block", &fast, Some(bare_p50));
    Ok(())
}

/// Writes without a flush, beside the same on a bare file.
fn writes(dir: &Path) -> Result<()> {
    let mut overlay = open(dir, "burst", OverlayMode::Persistent)?;
    let bare = RealDisk.create(&dir.join("bare-burst"), DISK_BLOCKS * BLOCK_BYTES as u64)?;
    let start = Instant::now();
    for round in 0..BURST {
        bare.write_at(&[1; BLOCK_BYTES], scattered(round) * BLOCK_BYTES as u64)?;
    }
    let bare_time = start.elapsed();
    let start = Instant::now();
    for round in 0..BURST {
        write(&mut overlay, scattered(round))?;
    }
    let time = start.elapsed();
    println!("\n4 KiB writes to new blocks, no flush, {BURST} of them:");
    let per_write = |time: std::time::Duration| time.as_secs_f64() * 1e6 / 1e5;
    println!("  bare pwrite       {:8.2} us", per_write(bare_time));
    let ratio = time.as_secs_f64() / bare_time.as_secs_f64();
    println!(
        "  overlay           {:8.2} us   {ratio:5.2} times",
        per_write(time)
    );
    Ok(())
}

fn open(dir: &Path, name: &str, mode: OverlayMode) -> Result<Overlay<RealDisk>> {
    let base = Base {
        size: DISK_BLOCKS * BLOCK_BYTES as u64,
        mtime_ns: 0,
        sample: 0,
    };
    let spec = Spec {
        base,
        mode,
        boot_id: [1; 16],
        uuid: [2; 16],
        now: 0,
    };
    Ok(Overlay::open(&RealDisk, &dir.join(name), &spec)?)
}

fn write(overlay: &mut Overlay<RealDisk>, block: u64) -> Result<()> {
    let range = ByteRange::new(block * BLOCK_BYTES as u64, BLOCK_BYTES as u64);
    let range = range.context("a block of the disk")?;
    Ok(overlay.write(range, &[7; BLOCK_BYTES], &BaseBlocks::default())?)
}

fn write_and_flush(overlay: &mut Overlay<RealDisk>, block: u64) -> Result<()> {
    write(overlay, block)?;
    if let Begin::Run(cycle) = overlay.begin_cycle()?
        && let Some(job) = overlay.finish_cycle(cycle.run())?
    {
        let result = job.run();
        overlay.finish_checkpoint(job, result);
    }
    Ok(())
}

/// A block far from that of the round before.
fn scattered(round: u64) -> u64 {
    round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44
}

fn timed(times: &mut Histogram<u64>, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    act()?;
    let nanoseconds = u64::try_from(start.elapsed().as_nanos())?;
    Ok(times.record(nanoseconds)?)
}

fn report(what: &str, times: &Histogram<u64>, reference: Option<f64>) -> f64 {
    let micros = |quantile: f64| {
        let nanoseconds = u32::try_from(times.value_at_quantile(quantile)).unwrap_or(u32::MAX);
        f64::from(nanoseconds) / 1e3
    };
    let (p50, p99) = (micros(0.5), micros(0.99));
    let ratio = reference.map_or_else(String::new, |bare| format!("   {:5.2} times", p50 / bare));
    println!("  {what:30} p50 {p50:9.1}   p99 {p99:9.1}{ratio}");
    p50
}
