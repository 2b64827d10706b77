//! A time without enough connections: since when, what was tried, when to try again. Pure.

use std::time::Duration;

use super::pace::Pace;

/// Such a time.
#[derive(Debug)]
pub struct Outage {
    pace: Pace,
    /// When to try again.
    next: Duration,
    trouble: Option<String>,
}

impl Outage {
    /// It begins, and the first attempt is made at once.
    #[must_use]
    pub const fn new(now: Duration, seed: u64) -> Self {
        Self {
            pace: Pace::new(now, seed),
            next: now,
            trouble: None,
        }
    }

    /// How long to wait before the next attempt.
    #[must_use]
    pub const fn wait(&self, now: Duration) -> Duration {
        self.next.saturating_sub(now)
    }

    /// How long it has lasted.
    #[must_use]
    pub const fn lasted(&self, now: Duration) -> Duration {
        self.pace.lasted(now)
    }

    /// Why the last attempt failed.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// An attempt has failed; whether for another reason than the one before.
    pub fn handle_failure(&mut self, now: Duration, reason: String) -> bool {
        self.next = now + self.pace.pause(now);
        let is_new = self.trouble.as_ref() != Some(&reason);
        self.trouble = Some(reason);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(5);

    #[test]
    fn the_first_attempt_is_made_at_once_and_the_next_after_a_pause() {
        let mut outage = Outage::new(NOW, 1);
        assert_eq!(outage.wait(NOW), Duration::ZERO);
        outage.handle_failure(NOW, "no".to_owned());
        assert!(!outage.wait(NOW).is_zero());
        assert_eq!(outage.wait(NOW + Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn a_reason_is_new_once() {
        let mut outage = Outage::new(NOW, 1);
        assert!(outage.handle_failure(NOW, "no".to_owned()));
        assert!(!outage.handle_failure(NOW, "no".to_owned()));
        assert!(outage.handle_failure(NOW, "never".to_owned()));
        assert_eq!(outage.trouble(), Some("never"));
    }
}
