//! When to try again after a connection could not be made. Pure.
//!
//! Soon at first, since a server that was restarted is back in a moment; then every two seconds or
//! so; after a minute every ten. Never at the same time as the other machines of the room.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause of the first minute.
const SOON: Duration = Duration::from_secs(2);
/// The first minute.
const FRESH: Duration = Duration::from_secs(60);
/// The longest pause after that.
const LATE: Duration = Duration::from_secs(10);

/// The pauses of one outage.
#[derive(Clone, Debug)]
pub struct Pace {
    /// When the outage began.
    since: Duration,
    /// The next pause, before chance has shortened it.
    pause: Duration,
    dice: u64,
}

impl Pace {
    /// The pace of an outage that begins at `now`. `seed` is to differ between machines.
    #[must_use]
    pub const fn new(now: Duration, seed: u64) -> Self {
        Self {
            since: now,
            pause: FIRST,
            // A generator of this kind stays at 0 for ever.
            dice: seed | 1,
        }
    }

    /// How long the outage has lasted.
    #[must_use]
    pub const fn lasted(&self, now: Duration) -> Duration {
        now.saturating_sub(self.since)
    }

    /// How long to wait after an attempt that failed at `now`: between half of a pause and all of
    /// it.
    pub fn pause(&mut self, now: Duration) -> Duration {
        let longest = if self.lasted(now) < FRESH { SOON } else { LATE };
        let pause = self.pause.min(longest);
        self.pause = (pause * 2).min(LATE);
        pause / 2 + pause * self.roll() / 2048
    }

    /// A number below 1024 (xorshift64).
    const fn roll(&mut self) -> u32 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 40 & 1023) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses of an outage of `length`, with attempts that take no time.
    fn pauses(length: Duration, seed: u64) -> Vec<Duration> {
        let mut now = Duration::from_secs(1000);
        let end = now + length;
        let mut pace = Pace::new(now, seed);
        let mut pauses = Vec::new();
        while now < end {
            let pause = pace.pause(now);
            pauses.push(pause);
            now += pause;
        }
        pauses
    }

    #[test]
    fn a_server_that_is_back_in_a_moment_is_found_in_a_moment() {
        let first = pauses(Duration::from_millis(500), 7);
        assert!(first[0] <= FIRST && first.len() >= 2, "{first:?}");
    }

    #[test]
    fn for_a_minute_no_pause_is_longer_than_two_seconds() {
        for pause in pauses(FRESH, 3) {
            assert!(pause <= SOON, "{pause:?}");
        }
    }

    #[test]
    fn an_outage_of_a_day_is_asked_after_every_few_seconds_to_its_end() {
        let day = pauses(Duration::from_secs(86_400), 5);
        let late = &day[100..];
        assert!(
            late.iter()
                .all(|pause| *pause <= LATE && *pause >= LATE / 2)
        );
    }

    #[test]
    fn machines_that_lost_their_server_together_come_back_apart() {
        let of = |seed| pauses(Duration::from_secs(30), seed);
        let (one, other) = (of(1), of(2));
        let same = one.iter().zip(&other).filter(|(a, b)| a == b).count();
        assert!(same < one.len() / 4, "{one:?} {other:?}");
    }
}
