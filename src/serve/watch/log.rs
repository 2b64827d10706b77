//! What the log is told of machines: boots that went well, and those that did not.

use crate::status::report::{Client, State};

/// A machine is doing otherwise than before.
pub(super) fn tell(client: &Client) {
    let (id, state) = (client.id.as_str(), client.state.name());
    let stage = client.stage.map_or("none", crate::status::Stage::name);
    let problem = client.problem.as_deref().unwrap_or_default();
    match client.state {
        State::Failed | State::Stuck | State::Slow => {
            tracing::warn!(client = id, state, stage, "{id} needs help: {problem}");
        }
        State::Up => {
            let took = client.boots.first().and_then(|boot| boot.took);
            let seconds = took.unwrap_or_default() / 1000;
            tracing::info!(client = id, state, seconds, "{id} is up");
        }
        State::Booting | State::Down | State::Idle => {
            tracing::debug!(client = id, state, stage, "{id} is {state}");
        }
    }
}
