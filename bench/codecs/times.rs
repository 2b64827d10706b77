//! What requests and flushes cost in pure code: wire codecs, the plan, the map, the journal.
//!
//! `bench/codecs/run [NAME]` takes the times, and says how they compare with those of the run
//! before.

mod pieces;

use criterion::{BatchSize, Criterion, Throughput};

fn main() {
    // `cargo test --all-targets` starts benchmarks too, without this.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    wire(&mut criterion);
    plan(&mut criterion);
    map(&mut criterion);
    journal(&mut criterion);
    criterion.final_summary();
}

fn wire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire");
    let requests = pieces::requests();
    assert_eq!(pieces::answer(&requests) as u64, pieces::REQUESTS);
    group.throughput(Throughput::Elements(pieces::REQUESTS));
    group.bench_function("nbd, 64 reads", |run| {
        run.iter(|| pieces::answer(&requests))
    });
    group.throughput(Throughput::Elements(1));
    let discover = pieces::discover();
    assert_ne!(pieces::read_and_write(&discover), 0);
    group.bench_function("dhcp, a DISCOVER read and written", |run| {
        run.iter(|| pieces::read_and_write(&discover));
    });
    let request = pieces::tftp_request();
    assert!(pieces::read_packet(&request));
    group.bench_function("tftp, a request", |run| {
        run.iter(|| pieces::read_packet(&request));
    });
    group.finish();
}

fn plan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan");
    let map = pieces::fragmented();
    group.throughput(Throughput::Elements(1000));
    group.bench_function("1000 reads of 4 KiB, no overlay", |run| {
        run.iter(|| pieces::plan_reads(None, 1000, 4096));
    });
    group.bench_function("1000 reads of 4 KiB", |run| {
        run.iter(|| pieces::plan_reads(Some(&map), 1000, 4096));
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("a read of 1 MiB in 256 runs", |run| {
        run.iter(|| pieces::plan_reads(Some(&map), 1, 1 << 20));
    });
    group.finish();
}

fn map(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("map");
    group.throughput(Throughput::Elements(pieces::CHANGES));
    let empty = || cowherd::overlay::map::BlockMap::new(pieces::BLOCKS);
    group.bench_function("1000 scattered blocks marked, empty map", |run| {
        run.iter_batched(empty, pieces::mark, BatchSize::LargeInput);
    });
    let marked = || pieces::mark(empty());
    group.bench_function("1000 scattered blocks marked again", |run| {
        run.iter_batched(marked, pieces::mark, BatchSize::LargeInput);
    });
    group.finish();
}

fn journal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal");
    let (changes, file) = (pieces::changes(), pieces::journal_file());
    assert_eq!(pieces::replay(&file) as u64, pieces::CHANGES);
    group.throughput(Throughput::Elements(pieces::CHANGES));
    group.bench_function("an epoch of 1000 changes written", |run| {
        run.iter(|| pieces::write_epoch(&changes));
    });
    let one = changes.get(..1).unwrap_or_default();
    group.throughput(Throughput::Elements(1));
    group.bench_function("an epoch of one change written", |run| {
        run.iter(|| pieces::write_epoch(one));
    });
    group.bench_function("a journal with 1000 changes read", |run| {
        run.iter(|| pieces::replay(&file));
    });
    group.finish();
}
