//! Whether a machine has gone without a word: it was switched off and on, and its connections to us
//! are there at our end only.
//!
//! Each connection is asked, by the probes of TCP's keep-alive. The kernel of a machine that runs
//! answers them, however idle or busy its programs are; firmware knows nothing of the connection
//! and says so or nothing at all.
//!
//! Invariant: one connection that answers, or can't be asked, and its machine is there.

use std::time::{Duration, Instant};

use super::succession::Elder;

/// How long an answer is waited for: three probes, a second apart, and the way of the last.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);

/// How often is looked whether it has come.
const LOOK: Duration = Duration::from_millis(100);

/// What is heard so shortly after the question may have been under way before: the kernel's clock
/// has ticks.
const TICK: Duration = Duration::from_millis(20);

/// Asks the machine behind `sessions`; whether it is gone. It is where there are none.
pub(super) async fn is_gone(sessions: &[Elder], keepalive: Duration) -> bool {
    let asked = Instant::now();
    for session in sessions {
        // One that is closed already has not answered, and won't.
        let _ = session.socket.ask_peer();
    }
    let is_there = is_there_before(sessions, asked, asked + PATIENCE).await;
    for session in sessions {
        let _ = session.socket.set_keepalive(keepalive);
    }
    !is_there
}

async fn is_there_before(sessions: &[Elder], asked: Instant, end: Instant) -> bool {
    loop {
        let mut open = sessions.iter().filter(|session| !session.has_ended());
        let mut heard = open.clone().map(|session| session.socket.last_heard());
        if heard.any(|ago| answered(ago, asked.elapsed())) {
            return true;
        }
        if open.next().is_none() || Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether what was heard so long ago came after the question, which is that old.
fn answered(heard_ago: Option<Duration>, asked_ago: Duration) -> bool {
    heard_ago.is_none_or(|ago| ago + TICK < asked_ago)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_before_the_question_is_no_answer() {
        let second = Duration::from_secs(1);
        assert!(!answered(Some(2 * second), second));
        assert!(!answered(Some(second), second));
        assert!(answered(Some(second / 2), second));
    }

    #[test]
    fn a_connection_that_can_not_be_asked_is_taken_for_one_that_lives() {
        assert!(answered(None, Duration::ZERO));
    }
}
