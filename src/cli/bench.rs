//! The options of `cowherd bench`, and its result for people and for programs.

use std::io::{self, IsTerminal, Write};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::size;
use crate::limits::{BENCH_CLIENTS_MAX, BENCH_DEPTH_MAX, NBD_PAYLOAD_MAX};
use crate::load::offline::Offline;
use crate::load::report::{KindReport, Report};
use crate::load::target::Target;
use crate::load::trace::Trace;
use crate::load::work::{Kind, Pattern, Shape};
use crate::load::{Job, Progress, svg};
use crate::serve::Failure;

/// Measures any NBD server: throughput and latencies under a load of your choice
///
/// Clients connect to the exports that are named, in turns, and ask for blocks as fast as they are
/// answered, or by the clock with --rate. Latencies are from when a request was sent, and with
/// --rate from when it was due, so that a server that stalls can't hide the requests it kept
/// waiting. Whatever is written to an export is lost there: name one of your own. The exit code is
/// 1 where a request failed or a checked read was wrong.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Exports: nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH; {} in one stands for
    /// the number of the client, as in nbd://host/disk@bench-{}
    #[arg(
        required_unless_present = "offline",
        conflicts_with = "offline",
        value_name = "URI"
    )]
    targets: Vec<Target>,

    /// Drive exports and overlays of this image in process, without a server and without a socket
    ///
    /// Each client gets an overlay of its own, which goes with the run. Data that is in memory is
    /// found and not copied, unless --check is given.
    #[arg(long, value_name = "IMAGE")]
    offline: Option<PathBuf>,

    /// Where overlays are made for --offline [default: the directory for temporary files]
    #[arg(long, value_name = "DIR", requires = "offline")]
    state: Option<PathBuf>,

    /// Connections, all at once
    #[arg(short, long, value_name = "N", default_value = "1", value_parser = clients)]
    clients: usize,

    /// Requests that each client has under way
    #[arg(short, long, value_name = "N", default_value = "16", value_parser = depth)]
    depth: usize,

    /// Bytes of a request
    #[arg(short, long, value_name = "SIZE", default_value = "4K", value_parser = block)]
    block: u32,

    /// What is asked for, in parts of the whole: read, write, trim, zero, as in read=70,write=30
    #[arg(short, long, value_name = "MIX", default_value = "read", value_parser = mix)]
    mix: Mix,

    /// One block after the other, and not anywhere
    #[arg(short, long)]
    sequential: bool,

    /// A flush behind every N changes of a client
    #[arg(long, value_name = "N")]
    flush_every: Option<NonZeroU32>,

    /// Writes that are durable when they are answered
    #[arg(long)]
    fua: bool,

    /// Requests a second of each client, by the clock
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,

    /// How long to measure
    #[arg(short, long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    time: Duration,

    /// How long to run before that
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    warm_up: Duration,

    /// Bytes of each export that are used, from its start [default: all of it]
    #[arg(long, value_name = "SIZE", value_parser = size::parse_bytes)]
    range: Option<u64>,

    /// Check what is read against what was written, and what was never written against what was
    /// read first; clients of one export get parts of their own
    #[arg(long, conflicts_with = "replay")]
    check: bool,

    /// Ask for what a machine asked for when it booted, once: lines of MILLISECONDS KIND OFFSET
    /// LENGTH, as in `120 read 4096 512`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["mix", "sequential", "flush_every",
        "rate", "range", "block"])]
    replay: Option<PathBuf>,

    /// Keep the times of the replayed requests, and do not hurry
    #[arg(long, requires = "replay")]
    paced: bool,

    /// Where random numbers begin: the same seed asks for the same blocks
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// Draw the result into this file too: throughput over time, latencies by percentile
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Kinds and how often each is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mix(Vec<(Kind, u32)>);

fn bounded(text: &str, most: usize) -> Result<usize, String> {
    let number: NonZeroUsize = text.parse().map_err(|_| "not a number".to_owned())?;
    match number.get() {
        number if number <= most => Ok(number),
        _ => Err(format!("more than {most}")),
    }
}

fn clients(text: &str) -> Result<usize, String> {
    bounded(text, BENCH_CLIENTS_MAX)
}

fn depth(text: &str) -> Result<usize, String> {
    bounded(text, BENCH_DEPTH_MAX)
}

fn block(text: &str) -> Result<u32, String> {
    let bytes = size::parse_bytes(text)?;
    let fitting = u32::try_from(bytes)
        .ok()
        .filter(|bytes| (1..=NBD_PAYLOAD_MAX).contains(bytes));
    fitting.ok_or_else(|| format!("not from 1 byte to {NBD_PAYLOAD_MAX}"))
}

fn positive(text: &str) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    (number.is_finite() && number > 0.0).then_some(number)
}

fn rate(text: &str) -> Result<f64, String> {
    positive(text)
        .filter(|rate| (1e-3..=1e7).contains(rate))
        .ok_or_else(|| "not a rate from 0.001 to 10000000".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = match text {
        "0" => Some(0.0),
        text => positive(text),
    };
    // Up to a week: what is counted in quarters of a second is kept.
    seconds
        .filter(|seconds| *seconds <= 604_800.0)
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "not a number of seconds, up to 604800".to_owned())
}

fn mix(text: &str) -> Result<Mix, String> {
    let parts = text.split(',').map(|part| {
        let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
        let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Flush);
        let kind = kinds.clone().find(|kind| kind.name() == name);
        let kind = kind.ok_or_else(|| format!("{name}: not one of read, write, trim and zero"))?;
        let weight = weight.parse::<u32>().ok().filter(|weight| *weight <= 1000);
        let weight = weight.ok_or_else(|| format!("{part}: its part is no number up to 1000"))?;
        Ok((kind, weight))
    });
    let parts: Vec<_> = parts.collect::<Result<_, String>>()?;
    match parts.iter().any(|(_, weight)| *weight > 0) {
        true => Ok(Mix(parts)),
        false => Err("nothing is asked for".to_owned()),
    }
}

/// Runs it and prints what it came to; whether all went well.
pub(super) fn run(arguments: Arguments) -> Result<bool, Failure> {
    let (json, svg) = (arguments.json, arguments.svg.clone());
    let job = job(arguments)?;
    let bar = Bar::of(&job);
    let report = job.run(&mut |progress| bar.show(&progress));
    bar.0.finish_and_clear();
    let report = report.map_err(|error| Failure::failed(error.to_string()))?;
    if let Some(path) = svg {
        write_svg(&path, &report)?;
    }
    let mut out = io::stdout().lock();
    let printed = match json {
        true => serde_json::to_writer_pretty(&mut out, &report)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out)),
        false => print(&mut out, &report),
    };
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("standard output: {error}")))
        }
        _ => Ok(report.is_clean()),
    }
}

fn job(arguments: Arguments) -> Result<Job, Failure> {
    let trace = arguments.replay.as_deref();
    let trace = trace.map(|path| read_trace(path, arguments.paced));
    if arguments.time.is_zero() {
        return Err(Failure::usage(
            "--time 0: there would be nothing to measure",
        ));
    }
    let (offline, state) = (arguments.offline, arguments.state);
    Ok(Job {
        targets: arguments.targets,
        offline: offline.map(|image| Offline { image, state }),
        clients: arguments.clients,
        depth: arguments.depth,
        shape: Shape {
            mix: arguments.mix.0,
            pattern: match arguments.sequential {
                true => Pattern::Sequential,
                false => Pattern::Random,
            },
            block: arguments.block,
            flush_every: arguments.flush_every.map(NonZeroU32::get),
            interval: arguments
                .rate
                .map(|rate| Duration::from_secs_f64(rate.recip())),
        },
        // A trace is counted from its first request.
        warm_up: match &trace {
            Some(_) => Duration::ZERO,
            None => arguments.warm_up,
        },
        trace: trace.transpose()?,
        fua: arguments.fua,
        time: arguments.time,
        range: arguments.range,
        seed: arguments.seed,
        check: arguments.check,
    })
}

fn read_trace(path: &Path, paced: bool) -> Result<Trace, Failure> {
    let failed = |why: String| Failure::failed(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    Trace::from_text(&text, paced).map_err(|error| failed(error.to_string()))
}

fn write_svg(path: &Path, report: &Report) -> Result<(), Failure> {
    let failed = |error| Failure::failed(format!("{}: {error}", path.display()));
    std::fs::write(path, svg::draw(report)).map_err(failed)
}

/// What a terminal shows meanwhile.
struct Bar(ProgressBar);

impl Bar {
    fn of(job: &Job) -> Self {
        if !io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let (bar, style) = match job.trace {
            Some(_) => (ProgressBar::new_spinner(), "{spinner} {elapsed} {msg}"),
            None => {
                let time = job.time + job.warm_up;
                let bar = ProgressBar::new(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
                (bar, "{bar:30} {msg}")
            }
        };
        let style = ProgressStyle::with_template(style);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(bar.with_style(style.progress_chars("=> ")))
    }

    fn show(&self, progress: &Progress) {
        let millis = progress.elapsed.as_millis().max(1);
        self.0
            .set_position(u64::try_from(millis).unwrap_or(u64::MAX));
        let per_second = |count: u64| u128::from(count) * 1000 / millis;
        let bytes = u64::try_from(per_second(progress.bytes)).unwrap_or(u64::MAX);
        self.0.set_message(format!(
            "{} requests a second, {}/s received",
            per_second(progress.requests),
            size::readable(bytes)
        ));
    }
}

fn print(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let Report { clients, depth, .. } = report;
    writeln!(
        out,
        "{clients} clients, {depth} under way each: {}; {:.1} s",
        report.work, report.seconds
    )?;
    writeln!(
        out,
        "{:6} {:>12} {:>11} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "", "requests/s", "MiB/s", "p50", "p90", "p99", "p99.9", "max"
    )?;
    for kind in &report.kinds {
        print_kind(out, kind)?;
    }
    if *clients > 1 {
        let (slowest, fastest) = (report.slowest_client, report.fastest_client);
        writeln!(
            out,
            "slowest client {slowest:.0} requests/s, fastest {fastest:.0}"
        )?;
    }
    for (name, count) in &report.errors {
        writeln!(out, "failed: {count} requests with {name}")?;
    }
    if report.wrong_reads > 0 {
        let (count, offsets) = (report.wrong_reads, &report.wrong_offsets);
        writeln!(out, "WRONG DATA: {count} reads, the first at {offsets:?}")?;
    }
    Ok(())
}

fn print_kind(out: &mut impl Write, kind: &KindReport) -> io::Result<()> {
    let mib = kind.bytes_per_second / f64::from(1 << 20);
    write!(
        out,
        "{:6} {:>12.0} {mib:>11.1}",
        kind.kind, kind.requests_per_second
    )?;
    for percentile in [50.0, 90.0, 99.0, 99.9, 100.0] {
        write!(out, " {:>10}", svg::time(kind.us(percentile)))?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_kinds_and_parts() {
        assert_eq!(mix("read"), Ok(Mix(vec![(Kind::Read, 1)])));
        let both = Mix(vec![(Kind::Read, 70), (Kind::Write, 30)]);
        assert_eq!(mix("read=70,write=30"), Ok(both));
        for wrong in [
            "",
            "fly",
            "flush=1",
            "read=x",
            "read=0",
            "read=1001",
            "read=-1",
        ] {
            assert!(mix(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_have_bounds() {
        assert_eq!(block("64K"), Ok(65536));
        for wrong in ["0", "64M", "x"] {
            assert!(block(wrong).is_err(), "{wrong}");
        }
        assert!(clients("0").is_err() && depth("1000000").is_err());
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["-1", "inf", "NaN", "1e9"] {
            assert!(seconds(wrong).is_err() && rate(wrong).is_err(), "{wrong}");
        }
    }
}
