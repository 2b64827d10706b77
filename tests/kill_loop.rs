//! kill -9, hundreds of times, in the middle of changes that come by two connections: what was
//! acknowledged is there. The journals are switched on the way.
//!
//! `COWHERD_KILL_ROUNDS` and `COWHERD_SEED` make a run longer or another.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use support::{SECTOR, Seeded, Setup, Stamps, checkpoint_generation, nearly_fill_journal};

const ROUNDS: u64 = 200;
const SECTORS: usize = 3000;
/// After about so many flushes a checkpoint is due.
const FLUSHES_LEFT: u64 = 150;

fn number(variable: &str, default: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn what_was_acknowledged_outlives_every_kill() {
    let (rounds, seed) = (
        number("COWHERD_KILL_ROUNDS", ROUNDS),
        number("COWHERD_SEED", 1),
    );
    println!("{rounds} rounds, seed {seed}");
    let mut random = Seeded(seed);
    let mut stamps = Stamps::new(seed, SECTORS);
    let mut setup = Setup::of_bytes(&[0; SECTORS * SECTOR]);
    let overlay = setup.state().join("overlays/disk+1/a");
    let server = setup.start();
    server.client("disk@a").disconnect();
    setup = server.terminate();
    nearly_fill_journal(&overlay, FLUSHES_LEFT);
    for _ in 0..rounds {
        let server = setup.start();
        let mut clients = [server.client("disk@a"), server.client("disk@a")];
        stamps.check(&clients[0].read_all().expect("a read of all"));
        stamps.work(&mut clients, random.below(40), 6);
        stamps.scatter(&mut clients[1], random.below(20));
        stamps.burst(&mut clients, random.below(40));
        setup = server.kill();
    }
    let generation = checkpoint_generation(&overlay);
    assert!(rounds < ROUNDS || generation > 1, "no journal was full");
}
