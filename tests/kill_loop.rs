//! kill -9, hundreds of times, in the middle of writes: what was acknowledged is there.
//!
//! `COWHERD_KILL_ROUNDS` and `COWHERD_SEED` make a run longer or another.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use support::{SECTOR, Seeded, Setup, Stamps};

const ROUNDS: u64 = 200;
const SECTORS: usize = 1000;

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
    for _ in 0..rounds {
        let server = setup.start();
        let mut client = server.client("disk@a");
        stamps.check(&client.read_all().expect("a read of all"));
        stamps.work(&mut client, random.below(60), 6);
        stamps.burst(&mut client, random.below(40));
        setup = server.kill();
    }
}
