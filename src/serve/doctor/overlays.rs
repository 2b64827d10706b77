//! Overlays: what `cowherd overlay check` finds, and those that take no more writes.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::finding::{Area, Finding};
use super::{Step, Told, Visit};
use crate::serve::control::answer::{Checked, Entry};
use crate::serve::control::{self, Answer, Command, Progress, Reporter};
use crate::serve::options::Failure;

pub(super) fn look(visit: &mut Visit<'_>) {
    let about = visit.state.display().to_string();
    if !visit.state.exists() {
        let what = "not there yet: it is made when the server first starts";
        return visit.found(Finding::fine(Area::Overlays, about, what));
    }
    visit.looks("overlays");
    let state = visit.state.clone();
    visit.aside(Area::Overlays, &about, move |told| {
        match look_at(&state, told) {
            Ok(()) => {}
            Err(failure) => {
                let message = failure.to_string();
                let about = state.display().to_string();
                told.found(Finding::from_message(Area::Overlays, about, &message));
            }
        }
    });
}

fn look_at(state: &Path, told: &Told) -> Result<(), Failure> {
    let progress = told.0.clone();
    let report: Reporter = Arc::new(move |of: &Progress| {
        let (done, total) = (of.done, of.total);
        match progress.send(Step::Progress { done, total }) {
            Ok(()) => ControlFlow::Continue(()),
            // Who has waited too long listens no more.
            Err(_) => ControlFlow::Break(()),
        }
    });
    let ask = |command: &Command| control::run(Some(state.to_owned()), command, &report);
    if let Answer::Check(checked) = ask(&Command::Check { overlay: None })? {
        tell(told, &checked);
    }
    if let Answer::List(entries) = ask(&Command::List)? {
        entries.iter().for_each(|entry| closed(told, entry));
    }
    Ok(())
}

fn tell(told: &Told, checked: &[Checked]) {
    let sound = checked.iter().filter(|one| one.problems.is_empty()).count();
    let what = format!("{sound} of {} are sound", checked.len());
    told.found(Finding::fine(Area::Overlays, "overlays", what));
    for one in checked {
        for problem in &one.problems {
            let advice = format!(
                "save what can be read (`cowherd overlay commit {0} --to FILE`), then let its \
                 machine begin anew: `cowherd overlay reset {0}`",
                one.overlay
            );
            told.found(Finding::wrong(Area::Overlays, &one.overlay, problem).advised(advice));
        }
        for warning in &one.warnings {
            told.found(Finding::warning(Area::Overlays, &one.overlay, warning));
        }
    }
}

/// One that its server has closed to writes.
fn closed(told: &Told, entry: &Entry) {
    let poison = entry.facts.as_ref().and_then(|facts| facts.poison.as_ref());
    if let Some(poison) = poison {
        told.found(
            Finding::wrong(
                Area::Overlays,
                &entry.overlay,
                format!("it takes no more writes: {poison}"),
            )
            .advised(
                "look at the health of the disk that the state directory is on; the overlay is \
                 opened again when its machine connects next after a restart",
            ),
        );
    }
}
