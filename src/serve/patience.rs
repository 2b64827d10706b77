//! Waiting at start for a network that is not there yet.
//!
//! When the power returns to a whole room, a server may be up before its switch. Where a service
//! manager waits for us (sd_notify(3), `NOTIFY_SOCKET`), so do we, as long as it takes: it is told
//! why, and that this is no reason to give up. A human at a terminal, who may have misspelt an
//! interface, is told at once and can try again.

use std::thread::sleep;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::options::Failure;

/// How often it is tried again.
const TRY_EVERY: Duration = Duration::from_millis(500);
/// How often that is told, where nothing changes.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// What a service manager is asked for, every time.
const MORE_TIME_US: u32 = 10_000_000;

/// Does `attempt` until what it needs of the network is there.
pub(super) fn until_there<T>(attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        let mut attempt = attempt;
        return attempt();
    }
    wait(attempt, TRY_EVERY, tell)
}

fn tell(reason: &str) {
    tracing::warn!("waiting: {reason}");
    let status = format!("waiting: {reason}");
    let _ = sd_notify::notify(&[NotifyState::Status(&status)]);
}

fn wait<T>(
    mut attempt: impl FnMut() -> Result<T, Failure>,
    pause: Duration,
    mut tell: impl FnMut(&str),
) -> Result<T, Failure> {
    let mut told: Option<(String, Instant)> = None;
    loop {
        let reason = match attempt() {
            Err(failure) if failure.may_pass() => failure.to_string(),
            end => return end,
        };
        let is_old = told
            .as_ref()
            .is_some_and(|(last, when)| *last == reason && when.elapsed() < TELL_EVERY);
        if !is_old {
            tell(&reason);
            told = Some((reason, Instant::now()));
        }
        let _ = sd_notify::notify(&[NotifyState::ExtendTimeoutUsec(MORE_TIME_US)]);
        sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits through these attempts; what was told meanwhile.
    fn through(attempts: &[Result<u8, Failure>]) -> (Result<u8, Failure>, Vec<String>) {
        let mut told = Vec::new();
        let mut attempts = attempts.iter().cloned();
        let attempt = || {
            attempts
                .next()
                .expect("it goes on no longer than it has to")
        };
        let end = wait(attempt, Duration::ZERO, |reason| {
            told.push(reason.to_owned())
        });
        (end, told)
    }

    #[test]
    fn what_may_pass_is_waited_for_and_told_once() {
        let not_yet = || Err(Failure::not_yet("lan0 has no address"));
        let (end, told) = through(&[not_yet(), not_yet(), not_yet(), Ok(7)]);
        assert_eq!(
            (end, told.as_slice()),
            (Ok(7), &["lan0 has no address".to_owned()][..])
        );
    }

    #[test]
    fn another_reason_is_told_again() {
        let not_yet = |reason: &str| Err(Failure::not_yet(reason));
        let (_, told) = through(&[not_yet("a"), not_yet("b"), not_yet("b"), Ok(0)]);
        assert_eq!(told, ["a", "b"]);
    }

    #[test]
    fn what_waiting_does_not_mend_is_not_waited_for() {
        let (end, told) = through(&[Err(Failure::failed("port in use"))]);
        assert_eq!(
            (end, told),
            (Err(Failure::failed("port in use")), Vec::new())
        );
    }
}
