//! The machines, as the running server sees them: boots that hang or failed, and where.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::Visit;
use super::finding::{Area, Finding};
use crate::serve::control::{self, Answer, Command, Progress, Reporter};
use crate::status::Stage;
use crate::status::report::{Client, State};

pub(super) fn look(visit: &mut Visit<'_>) {
    let about = visit.state.display().to_string();
    if visit.server.is_none() {
        let what = "no server runs on this state directory";
        return visit.found(Finding::unknown(Area::Machines, about, what).advised(
            "start it (`systemctl start cowherd`), or name its state directory with --state",
        ));
    }
    let report: Reporter = Arc::new(|_: &Progress| ControlFlow::Continue(()));
    let command = Command::Status { client: None };
    match control::run(Some(visit.state.clone()), &command, &report) {
        Ok(Answer::Status(status)) => {
            let wrong = status.clients.iter().filter_map(told);
            let wrong: Vec<_> = wrong.collect();
            let what = format!("{} seen, {} need help", status.clients.len(), wrong.len());
            visit.found(Finding::fine(Area::Machines, "machines", what));
            wrong.into_iter().for_each(|finding| visit.found(finding));
        }
        Ok(_) => {}
        Err(failure) => {
            let message = failure.to_string();
            visit.found(Finding::from_message(Area::Machines, about, &message));
        }
    }
}

/// What is wrong with one, if anything is.
fn told(client: &Client) -> Option<Finding> {
    let problem = client.problem.as_ref()?;
    let boot = client.boots.first();
    let newest = boot.and_then(|boot| boot.stages.last());
    let state = client.state.name();
    let what = match newest.map(|newest| newest.stage) {
        Some(Stage::Mounted) => format!("it is {state}: {problem}"),
        stage => {
            let at = stage.map_or("power-on", Stage::title);
            format!("its boot is {state} at {at}: {problem}")
        }
    };
    let finding = match client.state {
        State::Slow => Finding::warning(Area::Machines, &client.id, what),
        _ => Finding::wrong(Area::Machines, &client.id, what),
    };
    Some(finding.advised(format!(
        "`cowherd status {}` shows every stage of it",
        client.id
    )))
}
