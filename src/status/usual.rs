//! How long stages usually take: for one machine by its last boots, else for the herd.

use std::collections::VecDeque;

use super::Stage;
use super::boot::Boot;
use crate::limits::STATUS_SAMPLES_MAX;

/// Boots of a machine that say what is usual for it.
const OF_MACHINE_MIN: usize = 3;
/// Boots of all machines that say what is usual for the herd.
const OF_HERD_MIN: usize = 5;
/// What takes so many times as long as usual is slow,
const TIMES: u64 = 3;
/// where it takes so many milliseconds longer, too.
const LONGER: u64 = 3000;

/// How long each stage took in the last boots of all machines, in milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Usual {
    herd: [VecDeque<u64>; Stage::ALL.len()],
}

/// What is usual of one stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Typical {
    /// The median, in milliseconds.
    pub usual: u64,
    /// It is this machine's own.
    pub is_own: bool,
}

impl Typical {
    /// Whether `took` is far longer than usual.
    #[must_use]
    pub const fn is_slow(self, took: u64) -> bool {
        took > self.limit()
    }

    /// From how many milliseconds on it is.
    #[must_use]
    pub const fn limit(self) -> u64 {
        let (times, more) = (
            self.usual.saturating_mul(TIMES),
            self.usual.saturating_add(LONGER),
        );
        if times > more { times } else { more }
    }
}

impl Usual {
    /// A stage of some boot took so long.
    pub fn learn(&mut self, stage: Stage, took: u64) {
        if let Some(samples) = self.herd.get_mut(stage as usize) {
            if samples.len() == STATUS_SAMPLES_MAX {
                samples.pop_front();
            }
            samples.push_back(took);
        }
    }

    /// What is usual of `stage` for a machine with these earlier boots.
    #[must_use]
    pub fn of<'a>(
        &self,
        stage: Stage,
        earlier: impl IntoIterator<Item = &'a Boot>,
    ) -> Option<Typical> {
        let own = earlier.into_iter().filter_map(|boot| boot.took(stage));
        let own: Vec<_> = own.collect();
        if own.len() >= OF_MACHINE_MIN {
            let usual = median(own)?;
            return Some(Typical {
                usual,
                is_own: true,
            });
        }
        let herd = self.herd.get(stage as usize)?;
        let herd = (herd.len() >= OF_HERD_MIN).then(|| herd.iter().copied().collect());
        let usual = median(herd?)?;
        Some(Typical {
            usual,
            is_own: false,
        })
    }
}

fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::At;

    fn boot(kernel: u64) -> Boot {
        let mut boot = Boot::new(At(0));
        boot.reach(At(0), Stage::Config);
        boot.reach(At(kernel), Stage::Kernel);
        boot
    }

    #[test]
    fn a_machine_goes_by_its_own_boots_once_there_are_enough() {
        let mut usual = Usual::default();
        (0..5).for_each(|_| usual.learn(Stage::Kernel, 100));
        let own = [boot(900), boot(1000), boot(1100)];
        let of_herd = usual.of(Stage::Kernel, &own[..2]).unwrap();
        assert_eq!((of_herd.usual, of_herd.is_own), (100, false));
        let of_own = usual.of(Stage::Kernel, &own).unwrap();
        assert_eq!((of_own.usual, of_own.is_own), (1000, true));
    }

    #[test]
    fn nothing_is_usual_of_what_was_seldom_seen() {
        let mut usual = Usual::default();
        (0..4).for_each(|_| usual.learn(Stage::Kernel, 100));
        assert_eq!(usual.of(Stage::Kernel, []), None);
    }

    #[test]
    fn slow_is_several_times_and_some_seconds_longer() {
        let typical = |usual| Typical {
            usual,
            is_own: true,
        };
        assert!(!typical(10).is_slow(3000) && typical(10).is_slow(3011));
        assert!(!typical(10_000).is_slow(30_000) && typical(10_000).is_slow(30_001));
    }

    #[test]
    fn the_herd_is_remembered_within_its_bound() {
        let mut usual = Usual::default();
        (0..10_000).for_each(|took| usual.learn(Stage::Ack, took));
        assert_eq!(usual.herd[Stage::Ack as usize].len(), STATUS_SAMPLES_MAX);
        assert!(usual.of(Stage::Ack, []).unwrap().usual > 9000);
    }
}
