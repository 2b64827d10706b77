//! Complaints that come once, however often there is a reason.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a complaint is not repeated.
const QUIET: Duration = Duration::from_secs(60);

/// Says whether it is time to complain.
#[derive(Debug, Default)]
pub struct Complaint {
    last: Mutex<Option<Instant>>,
}

impl Complaint {
    /// Whether the last one was long ago. If so, this is the last one now.
    pub fn is_due(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= QUIET);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_complaint_is_enough_for_a_while() {
        let complaint = Complaint::default();
        assert!(complaint.is_due());
        assert!(!complaint.is_due());
    }
}
