//! A gate before sockets: while it is closed, what comes to them waits in the kernel.

use std::sync::Arc;

use tokio::sync::watch;

/// Open at first. Clones are the same gate.
#[derive(Clone, Debug)]
pub(super) struct Gate(Arc<watch::Sender<bool>>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(true)))
    }
}

impl Gate {
    /// Opens or closes it. What is under way through it is given up, and begun again later.
    pub(super) fn set_open(&self, is_open: bool) {
        self.0.send_replace(is_open);
    }

    /// Does `step` while the gate is open; it is dropped and made anew when the gate closes
    /// meanwhile, so it must lose nothing by that.
    pub(super) async fn pass<F: Future>(&self, mut step: impl FnMut() -> F) -> F::Output {
        let mut state = self.0.subscribe();
        loop {
            // The sender lives as long as the gate.
            let _ = state.wait_for(|is_open| *is_open).await;
            tokio::select! {
                biased;
                _ = state.wait_for(|is_open| !is_open) => {}
                done = step() => return done,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::poll_once::now;

    #[test]
    fn what_goes_through_a_gate_waits_while_it_is_closed() {
        let gate = Gate::default();
        assert_eq!(now(gate.pass(|| async { 1 })), Some(1));
        gate.set_open(false);
        assert_eq!(now(gate.clone().pass(|| async { 2 })), None);
        gate.set_open(true);
        assert_eq!(now(gate.pass(|| async { 3 })), Some(3));
    }

    #[test]
    fn what_waits_when_a_gate_closes_is_begun_again_when_it_opens() {
        let gate = Gate::default();
        let mut begun = 0;
        let mut passing = Box::pin(gate.pass(|| {
            begun += 1;
            let is_second = begun == 2;
            async move {
                match is_second {
                    true => begun,
                    false => std::future::pending().await,
                }
            }
        }));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(passing.as_mut().poll(&mut context).is_pending());
        gate.set_open(false);
        assert!(passing.as_mut().poll(&mut context).is_pending());
        gate.set_open(true);
        assert_eq!(
            passing.as_mut().poll(&mut context),
            std::task::Poll::Ready(2)
        );
    }
}
