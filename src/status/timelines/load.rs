//! What a machine asks of its disk, now and in all.

use std::time::Duration;

use super::Load;
use crate::status::report;
use crate::status::traffic::Counts;

/// A disk that has not answered for so long is not merely slow.
const DISK_PATIENCE: Duration = Duration::from_secs(10);

/// The load of one machine, over all its connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Loads {
    total: Counts,
    /// Since the last time that all were looked at.
    recent: Load,
    /// Between the last two times.
    reads_per_second: u64,
    writes_per_second: u64,
    requests_per_second: u64,
    underway: u32,
    own_bytes: Option<u64>,
    waits: Option<Duration>,
}

impl Loads {
    pub(super) fn add(&mut self, load: &Load) {
        let Load {
            more,
            underway,
            own_bytes,
            waits,
        } = load;
        self.total.add(more);
        self.recent.more.add(more);
        self.recent.underway = self.recent.underway.saturating_add(*underway);
        // All connections of a machine have one overlay.
        self.recent.own_bytes = self.recent.own_bytes.max(*own_bytes);
        self.recent.waits = self.recent.waits.max(*waits);
    }

    pub(super) fn settle(&mut self, since: Duration) {
        let Load {
            more,
            underway,
            own_bytes,
            waits,
        } = std::mem::take(&mut self.recent);
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = |count: u64| count.saturating_mul(1000) / millis;
        self.reads_per_second = rate(more.bytes_read());
        self.writes_per_second = rate(more.bytes_written());
        self.requests_per_second = rate(more.all_requests());
        self.underway = underway;
        self.waits = waits;
        // Of a machine without a connection, what it had then.
        self.own_bytes = own_bytes.or(self.own_bytes);
    }

    /// Whether its requests wait for a disk of ours that does not answer.
    pub(super) fn is_held_up(&self) -> bool {
        self.waits.is_some_and(|waits| waits >= DISK_PATIENCE)
    }

    /// `None` where there was none.
    pub(super) fn report(&self) -> Option<report::Traffic> {
        let total = &self.total;
        if *total == Counts::default() && self.own_bytes.is_none() {
            return None;
        }
        Some(report::Traffic {
            bytes_read: total.bytes_read(),
            bytes_written: total.bytes_written(),
            reads_per_second: self.reads_per_second,
            writes_per_second: self.writes_per_second,
            requests_per_second: self.requests_per_second,
            underway: self.underway,
            hits: total.hits,
            requests: total.requests_by_name(),
            errors: total.errors_by_name(),
            overlay_bytes: self.own_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::traffic::Kind;

    fn load(bytes: u64, underway: u32) -> Load {
        let mut more = Counts::default();
        more.requests[Kind::Read as usize] = 1;
        more.bytes[Kind::Read as usize] = bytes;
        Load {
            more,
            underway,
            own_bytes: Some(4096),
            waits: None,
        }
    }

    #[test]
    fn a_disk_holds_up_until_it_answers() {
        let mut loads = Loads::default();
        let mut waits = |seconds: Option<u64>| {
            loads.add(&load(0, 1));
            loads.add(&Load {
                waits: seconds.map(Duration::from_secs),
                ..load(0, 1)
            });
            loads.settle(Duration::from_secs(1));
            loads.is_held_up()
        };
        assert!(!waits(Some(9)));
        assert!(waits(Some(10)));
        assert!(!waits(None));
    }

    #[test]
    fn connections_add_up_and_rates_are_of_the_last_time() {
        let mut loads = Loads::default();
        assert_eq!(loads.report(), None);
        loads.add(&load(1000, 2));
        loads.add(&load(3000, 1));
        loads.settle(Duration::from_millis(500));
        let report = loads.report().unwrap();
        assert_eq!((report.bytes_read, report.reads_per_second), (4000, 8000));
        assert_eq!((report.underway, report.overlay_bytes), (3, Some(4096)));
        assert_eq!(report.requests.get("read"), Some(&2));
        loads.settle(Duration::from_secs(1));
        let report = loads.report().unwrap();
        assert_eq!((report.bytes_read, report.reads_per_second), (4000, 0));
        assert_eq!(report.overlay_bytes, Some(4096));
    }
}
