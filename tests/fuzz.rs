//! The fuzz targets of `tests/fuzz`, driven for some seconds each without a special compiler: first
//! their corpora, then random changes of these.
//!
//! `FUZZ_SECONDS` says how long (2 by itself). `tests/fuzz/README.md` tells how to fuzz for longer,
//! guided by coverage. `UPDATE_CORPUS=1 cargo test --test fuzz corpora` writes the seeds anew.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "fuzz/seeds.rs"]
mod seeds;
#[path = "fuzz/targets/mod.rs"]
#[allow(clippy::cast_possible_truncation, reason = "patterns of bytes")]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use targets::{CANARY, TARGETS, Target};

/// Inputs don't grow beyond this.
const INPUT_MAX: usize = 4096;

/// A small seeded generator (splitmix64).
struct Dice(u64);

impl Dice {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() % bound.max(1) as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.number().to_le_bytes()[0]
    }
}

fn folder(target: &Target) -> PathBuf {
    let corpora = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    corpora.join(target.name)
}

/// The committed inputs, in the order of their names.
fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder(target)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Runs a target for so long; how often, or the input that it failed for.
fn drive(target: &Target, time: Duration) -> Result<u64, Vec<u8>> {
    let mut inputs = corpus(target);
    assert!(!inputs.is_empty(), "{} has no corpus", target.name);
    let attempt = |input: &[u8]| {
        let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
        outcome.map_err(|_| input.to_vec())
    };
    for input in &inputs {
        attempt(input)?;
    }
    let mut dice = Dice(inputs.len() as u64);
    let mut executions = inputs.len() as u64;
    let end = Instant::now() + time;
    while Instant::now() < end {
        let mut input = inputs[dice.below(inputs.len())].clone();
        for _ in 0..=dice.below(4) {
            let other = dice.below(inputs.len());
            change(&mut input, &inputs[other], &mut dice);
        }
        attempt(&input)?;
        executions += 1;
        // Now and then a changed one is a beginning, too.
        if dice.below(64) == 0 && inputs.len() < 500 {
            inputs.push(input);
        }
    }
    Ok(executions)
}

/// Makes another input of one.
fn change(input: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.below(input.len() + 1);
    match dice.below(7) {
        0 if at < input.len() => input[at] ^= 1 << dice.below(8),
        1 if at < input.len() => input[at] = dice.byte(),
        2 => input.truncate(at),
        3 => {
            let end = (at + 1 + dice.below(16)).min(input.len());
            input.drain(at..end);
        }
        4 => {
            let start = dice.below(other.len() + 1);
            let end = (start + dice.below(64)).min(other.len());
            input.splice(at..at, other[start..end].iter().copied());
        }
        5 => {
            let edges: [u32; 6] = [0, 1, u32::MAX, 1 << 31, 1 << 25, 4096];
            let bytes = edges[dice.below(edges.len())].to_be_bytes();
            let end = (at + 4).min(input.len());
            input.splice(at..end, bytes);
        }
        _ => {
            let bytes: Vec<_> = (0..dice.below(32)).map(|_| dice.byte()).collect();
            input.splice(at..at, bytes);
        }
    }
    input.truncate(INPUT_MAX);
}

fn time() -> Duration {
    let seconds = std::env::var("FUZZ_SECONDS").ok();
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(2.0))
}

fn check(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    match drive(target, time()) {
        Ok(executions) => eprintln!("{name}: {executions} executions, no finding"),
        Err(input) => panic!("{name} fails for {input:02x?}"),
    }
}

#[test]
fn no_bytes_of_a_handshake_break_a_promise() {
    check("handshake");
}

#[test]
fn no_bytes_of_the_transmission_phase_break_a_promise() {
    check("transmission");
}

#[test]
fn no_session_differs_from_its_oracles() {
    check("session");
}

#[test]
fn nothing_crosses_the_boundary_to_tls() {
    check("tls_boundary");
}

#[test]
fn no_journal_is_read_as_what_it_never_was() {
    check("journal");
}

#[test]
fn no_checkpoint_is_read_as_what_it_never_was() {
    check("checkpoint");
}

#[test]
fn no_datagrams_break_a_promise_of_the_dhcp_server() {
    check("dhcp");
}

#[test]
fn no_lease_file_is_read_as_what_it_never_was() {
    check("leases");
}

#[test]
fn no_packets_break_a_promise_of_a_tftp_transfer() {
    check("tftp");
}

#[test]
fn no_name_and_no_link_lead_out_of_a_directory() {
    check("names");
}

#[test]
fn no_damage_to_a_file_system_breaks_its_reader() {
    check("inside");
}

#[test]
fn no_words_of_kernel_or_server_break_a_promise_of_the_client() {
    check("attach");
}

/// A driver that does not find this one finds nothing.
#[test]
fn the_canary_is_found() {
    let found = drive(&CANARY, Duration::from_secs(60)).unwrap_err();
    assert!(found.starts_with(b"moo!"), "{found:02x?}");
    assert!(
        !corpus(&CANARY).contains(&found),
        "it was there to begin with"
    );
}

#[test]
fn the_corpora_are_those_of_the_seeds() {
    for target in TARGETS.iter().chain([&CANARY]) {
        let folder = folder(target);
        let seeds = seeds::of(target.name);
        if std::env::var_os("UPDATE_CORPUS").is_some() {
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder).unwrap();
            for (name, bytes) in &seeds {
                fs::write(folder.join(name), bytes).unwrap();
            }
        }
        for (name, bytes) in seeds {
            let committed = fs::read(folder.join(name)).unwrap_or_default();
            let what = format!("{}/{name}", target.name);
            assert!(committed == bytes, "{what}: UPDATE_CORPUS=1 writes it anew");
        }
    }
}
