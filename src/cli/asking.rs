//! What commands that ask about a state directory have in common.

use std::io::{self, IsTerminal, StdoutLock, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use crate::serve::Failure;
use crate::serve::control::{Progress, Reporter};

/// Where to ask, and for whom the answer is.
#[derive(Debug, clap::Args)]
pub(super) struct Asking {
    /// Directory that keeps the overlays
    ///
    /// Without it, the one that `cowherd serve` uses without it.
    #[arg(long, value_name = "DIR")]
    pub(super) state: Option<PathBuf>,

    /// Print the answer as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// For what is done at once.
pub(super) fn no_progress() -> Reporter {
    Arc::new(|_: &Progress| ControlFlow::Continue(()))
}

/// Asks on the terminal; an error unless the answer was yes. Where there is no terminal, that says
/// what `command` would do.
pub(super) fn confirm(
    command: &str,
    warning: &str,
    question: impl FnOnce() -> Result<String, Failure>,
) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "{command}: {warning}; pass --yes if that is meant"
        )));
    }
    let question = question()?;
    let failed = |error: io::Error| Failure::failed(format!("terminal: {error}"));
    let mut terminal = io::stderr();
    write!(terminal, "{question} [y/N] ").map_err(failed)?;
    terminal.flush().map_err(failed)?;
    let mut reply = String::new();
    io::stdin().read_line(&mut reply).map_err(failed)?;
    match reply.trim() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::failed(format!("{command}: nothing was done"))),
    }
}

/// Prints an answer.
pub(super) fn print(
    write: impl FnOnce(&mut StdoutLock<'static>) -> io::Result<()>,
) -> Result<(), Failure> {
    match write(&mut io::stdout().lock()) {
        // Like `head`, the reader has had enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::failed(format!("standard output: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// An answer for programs: one line.
pub(super) fn json_line(out: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}
