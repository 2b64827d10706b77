//! Where log lines go: standard error, in the form that its reader likes.

mod lines;

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use lines::{Journal, Json, Plain};

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Form {
    /// For people; systemd's journal gets its own priorities, and no second time.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts the log. `RUST_LOG` decides what is shown; where it is unset or wrong, `verbose` does.
pub(super) fn start(verbose: u8, form: Form) {
    start_with(directive(verbose), form);
}

/// Starts the log of a command whose answer says all there is to say: warnings only.
pub(super) fn start_quietly() {
    start_with("warn,fatfs=error", Form::Text);
}

fn start_with(default: &str, form: Form) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(default))
        .with_writer(io::stderr)
        .fmt_fields(Plain)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .compact();
    // A second start in one process (tests do that) leaves the first in place.
    let _ = match form {
        Form::Json => builder.event_format(Json).try_init(),
        Form::Text if to_journal() => builder.event_format(Journal).try_init(),
        Form::Text => builder.try_init(),
    };
}

fn filter(default: &str) -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default))
}

/// fatfs warns of every disk that is not quite as it would make one: nobody can do anything then.
const fn directive(verbose: u8) -> &'static str {
    match verbose {
        0 => "warn,cowherd=info,fatfs=error",
        1 => "warn,cowherd=debug,fatfs=error",
        _ => "info,cowherd=trace",
    }
}

/// Whether systemd's journal reads our standard error: it puts its own time on every line.
fn to_journal() -> bool {
    std::env::var_os("JOURNAL_STREAM").is_some() && !io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verbose_shows_more() {
        let shown = [0, 1, 2, 9].map(directive);
        assert_eq!(shown[0], "warn,cowherd=info,fatfs=error");
        assert_eq!(shown[1], "warn,cowherd=debug,fatfs=error");
        assert_eq!(shown[2], shown[3]);
    }
}
