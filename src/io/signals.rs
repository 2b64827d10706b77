//! Signals that a process takes no notice of.

/// From now on the signals that ask a process to end are ignored; SIGUSR1 and SIGKILL still end it.
pub fn ignore_requests_to_end() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        // SAFETY: no handler runs, the signal is dropped.
        unsafe {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
}
