//! Signals that ask a process to end, for those who do not end by them.

use std::sync::atomic::{AtomicBool, Ordering};

/// They.
const REQUESTS_TO_END: [libc::c_int; 3] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM];

/// Whether one has come since they are noted.
static IS_TO_END: AtomicBool = AtomicBool::new(false);

/// From now on the signals that ask a process to end are ignored; SIGUSR1 and SIGKILL still end it.
pub fn ignore_requests_to_end() {
    for signal in REQUESTS_TO_END {
        // SAFETY: no handler runs, the signal is dropped.
        unsafe {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
}

extern "C" fn note(_: libc::c_int) {
    IS_TO_END.store(true, Ordering::Relaxed);
}

/// From now on they are noted: whether one has come.
pub fn note_requests_to_end() -> impl Fn() -> bool {
    for signal in REQUESTS_TO_END {
        // SAFETY: the handler stores to an atomic, which may be done at any time.
        unsafe {
            libc::signal(
                signal,
                note as extern "C" fn(libc::c_int) as libc::sighandler_t,
            );
        }
    }
    || IS_TO_END.load(Ordering::Relaxed)
}
