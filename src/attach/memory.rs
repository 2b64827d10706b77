//! A process that needs no disk: what the kernel has to be told for that.

use std::fs;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::configure_io_flusher_behavior;

/// Keeps this process in memory, whatever happens; what could not be had, in words.
///
/// Its pages are never taken away, since there may be no disk to get them back from. Memory that
/// the kernel needs for its sockets is never waited for in the hope that dirty pages of a disk can
/// be written: prctl(2), `PR_SET_IO_FLUSHER`: "the process is used in the block layer or file
/// system I/O path". And it is not what is killed when memory runs out.
pub(super) fn stay() -> Vec<String> {
    let locked = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE);
    let flusher = configure_io_flusher_behavior(true);
    let spared = fs::write("/proc/self/oom_score_adj", "-1000");
    let complaint = |what: &str, error: std::io::Error| format!("{what}: {error}");
    let complaints = [
        locked
            .err()
            .map(|error| complaint("not locked in memory", error.into())),
        flusher
            .err()
            .map(|error| complaint("memory may wait for a disk", error.into())),
        spared
            .err()
            .map(|error| complaint("may be killed when memory runs out", error)),
    ];
    complaints.into_iter().flatten().collect()
}
