//! Ends the new server in the middle of a take-over, so that tests can see what the old one makes
//! of it. Builds without debug assertions have none of this.

/// Where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Before it has asked.
    Connected,
    /// In the middle of the sockets.
    Doors,
    /// It has opened the images.
    Images,
    /// It has asked for the rest.
    Frozen,
    /// In the middle of the sessions.
    Sessions,
    /// It has heard all.
    All,
    /// The overlays are open.
    Reopened,
    /// It has said that it is prepared, and hears no answer.
    Prepared,
    /// It has taken the word, and has done nothing yet.
    Yours,
}

/// Ends the process here, if it is to end here: as a kill would, without a word.
#[cfg(debug_assertions)]
pub(super) fn perhaps(place: Place) {
    let chosen = std::env::var("COWHERD_TAKEOVER_SABOTAGE");
    if chosen.is_ok_and(|chosen| chosen.eq_ignore_ascii_case(&format!("{place:?}"))) {
        let own = rustix::process::getpid();
        // It can't fail: the process is there, and its own.
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
        // A signal to oneself is delivered before the call returns, to one thread at least.
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}

/// Does nothing in this build.
#[cfg(not(debug_assertions))]
pub(super) const fn perhaps(_: Place) {}
