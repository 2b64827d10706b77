//! Instructions of wire codecs, the plan, the map and the journal, counted by valgrind: the same on
//! a busy machine as on a quiet one.
//!
//! Start it by `bench/codecs/run count`, which says how the counts compare with those of the run
//! before.

mod pieces;

use std::hint::black_box;

use cowherd::overlay::journal::Change;
use cowherd::overlay::map::BlockMap;
use gungraun::{library_benchmark, library_benchmark_group, main};

#[library_benchmark]
#[bench::reads_64(pieces::requests())]
fn nbd(requests: Vec<u8>) -> usize {
    black_box(pieces::answer(&requests))
}

#[library_benchmark]
#[bench::discover(pieces::discover())]
fn dhcp(datagram: Vec<u8>) -> usize {
    black_box(pieces::read_and_write(&datagram))
}

#[library_benchmark]
#[bench::request(pieces::tftp_request())]
fn tftp(datagram: Vec<u8>) -> bool {
    black_box(pieces::read_packet(&datagram))
}

#[library_benchmark]
#[bench::small_reads_1000(pieces::fragmented(), 1000, 4096)]
#[bench::long_read_in_256_runs(pieces::fragmented(), 1, 1 << 20)]
fn plan(map: BlockMap, count: u64, length: u64) -> (u64, BlockMap) {
    // The map comes back, so that its end is not counted.
    (
        black_box(pieces::plan_reads(Some(&map), count, length)),
        map,
    )
}

#[library_benchmark]
#[bench::empty(BlockMap::new(pieces::BLOCKS))]
#[bench::marked(pieces::mark(BlockMap::new(pieces::BLOCKS)))]
fn mark_1000(map: BlockMap) -> BlockMap {
    black_box(pieces::mark(map))
}

#[library_benchmark]
#[bench::changes_1000(pieces::changes())]
#[bench::change_1(pieces::changes().into_iter().take(1).collect())]
fn write_epoch(changes: Vec<Change>) -> Vec<u8> {
    black_box(pieces::write_epoch(&changes))
}

#[library_benchmark]
#[bench::changes_1000(pieces::journal_file())]
fn read_journal(journal: Vec<u8>) -> (usize, Vec<u8>) {
    (black_box(pieces::replay(&journal)), journal)
}

library_benchmark_group!(name = wire, benchmarks = [nbd, dhcp, tftp]);
library_benchmark_group!(name = export, benchmarks = plan);
library_benchmark_group!(name = map, benchmarks = mark_1000);
library_benchmark_group!(name = journal, benchmarks = [write_epoch, read_journal]);

main!(library_benchmark_groups = [wire, export, map, journal]);
