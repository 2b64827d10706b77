//! The command line: options become checked values, failures become one line and an exit code.
//!
//! The doc comments of the options are their help texts and, through `tests/man.rs`, the man pages.
//!
//! Invariant: this module decides nothing about serving and overlays. What runs is handed in by
//! `main.rs`.

mod asking;
mod attach;
mod bench;
mod doctor;
mod explain;
mod grub;
mod lease;
mod log;
mod moment;
mod overlay;
mod serve;
mod size;
mod status;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::serve::control::{Answer, Command as OverlayCommand, Reporter};
use crate::serve::doctor::{Question as Complaint, Step as Look};
use crate::serve::explain::{Question, Step};
use crate::serve::grub::{
    Answer as GrubAnswer, Progress as GrubProgress, Question as GrubQuestion,
};
use crate::serve::{Failure, Options};

pub use attach::{attach_command, attach_with};

/// Boots a herd of diskless machines from one disk image
///
/// cowherd serves disk images over NBD, the network block device protocol. Each client gets its own
/// copy-on-write overlay over the shared image: it reads the image, its writes go to its overlay,
/// and the image file is never written. Overlays outlive connections, restarts and crashes.
#[derive(Debug, Parser)]
#[command(name = "cowherd", version, propagate_version = true)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(disable_help_subcommand = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Overlay(overlay::Arguments),
    Status(status::Arguments),
    Lease(lease::Arguments),
    Doctor(doctor::Arguments),
    Explain(explain::Arguments),
    Grub(grub::Arguments),
    Bench(bench::Arguments),
}

/// What the commands do, once their options are read.
pub struct Work<S, O, E, G, D> {
    /// `cowherd serve`.
    pub serve: S,
    /// `cowherd overlay`, `cowherd status` and `cowherd lease`, on the state directory that was
    /// named.
    pub overlay: O,
    /// `cowherd explain`: a question, and who takes the steps of its answer.
    pub explain: E,
    /// `cowherd grub`: what is to be made, and who is told how far it has come.
    pub grub: G,
    /// `cowherd doctor`: what is to be looked at, and who is told what is found.
    pub doctor: D,
}

impl<S, O, E, G, D> std::fmt::Debug for Work<S, O, E, G, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").finish_non_exhaustive()
    }
}

/// The whole command line, for man pages and tests.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Reads the process arguments, starts the log and has `work` done.
pub fn main_with<S, O, E, G, D>(work: Work<S, O, E, G, D>) -> ExitCode
where
    S: FnOnce(Options) -> Result<(), Failure>,
    O: Fn(Option<PathBuf>, &OverlayCommand, &Reporter) -> Result<Answer, Failure>,
    E: FnOnce(&Question, &mut dyn FnMut(Step)) -> Result<(), Failure>,
    G: FnOnce(&GrubQuestion, &mut dyn FnMut(GrubProgress)) -> Result<GrubAnswer, Failure>,
    D: FnOnce(&Complaint, &mut dyn FnMut(Look)) -> Result<(), Failure>,
{
    match run_from(std::env::args_os(), work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(code) => ExitCode::from(code),
    }
}

fn run_from<S, O, E, G, D>(
    arguments: impl IntoIterator<Item = OsString>,
    work: Work<S, O, E, G, D>,
) -> Result<(), u8>
where
    S: FnOnce(Options) -> Result<(), Failure>,
    O: Fn(Option<PathBuf>, &OverlayCommand, &Reporter) -> Result<Answer, Failure>,
    E: FnOnce(&Question, &mut dyn FnMut(Step)) -> Result<(), Failure>,
    G: FnOnce(&GrubQuestion, &mut dyn FnMut(GrubProgress)) -> Result<GrubAnswer, Failure>,
    D: FnOnce(&Complaint, &mut dyn FnMut(Look)) -> Result<(), Failure>,
{
    let cli = Cli::try_parse_from(arguments).map_err(|e| explain(&e))?;
    let done = match cli.command {
        Command::Serve(arguments) => {
            log::start(arguments.verbose, arguments.log);
            (work.serve)(arguments.into()).map(|()| true)
        }
        Command::Overlay(arguments) => {
            log::start_quietly();
            overlay::run(arguments, work.overlay)
        }
        Command::Status(arguments) => {
            log::start_quietly();
            status::run(arguments, work.overlay)
        }
        Command::Lease(arguments) => {
            log::start_quietly();
            lease::run(arguments, work.overlay)
        }
        Command::Doctor(arguments) => {
            log::start_quietly();
            doctor::run(arguments, work.doctor)
        }
        Command::Explain(arguments) => {
            log::start_quietly();
            explain::run(arguments, work.explain)
        }
        Command::Grub(arguments) => {
            log::start_quietly();
            grub::run(arguments, work.grub)
        }
        Command::Bench(arguments) => {
            log::start_quietly();
            bench::run(arguments)
        }
    };
    match done {
        Ok(true) => Ok(()),
        // What is wrong was printed as the answer.
        Ok(false) => Err(1),
        Err(failure) => {
            // Nobody is left to tell when standard error is gone.
            let _ = writeln!(io::stderr(), "cowherd: {failure}");
            Err(failure.code())
        }
    }
}

/// Prints what clap has to say (help and version are "errors" to it too) and gives the exit code.
fn explain(error: &clap::Error) -> u8 {
    let _ = error.print();
    u8::from(error.use_stderr()) * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(arguments: &[&str], result: Result<(), Failure>) -> Result<(), u8> {
        let arguments = std::iter::once(&"cowherd")
            .chain(arguments)
            .map(OsString::from);
        let serve = |_| result;
        let overlay = |_: Option<PathBuf>, _: &OverlayCommand, _: &Reporter| {
            Err(Failure::failed("no overlay in this test"))
        };
        let explain = |_: &Question, _: &mut dyn FnMut(Step)| {
            Err(Failure::failed("nothing to explain in this test"))
        };
        let grub = |_: &GrubQuestion, _: &mut dyn FnMut(GrubProgress)| {
            Err(Failure::failed("no menu in this test"))
        };
        let doctor = |_: &Complaint, _: &mut dyn FnMut(Look)| Ok(());
        let work = Work {
            doctor,
            serve,
            overlay,
            explain,
            grub,
        };
        run_from(arguments, work)
    }

    #[test]
    fn the_definition_of_the_options_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn work_that_succeeds_ends_well() {
        assert_eq!(outcome(&["serve", "disk.img"], Ok(())), Ok(()));
    }

    #[test]
    fn work_that_fails_exits_with_1() {
        let failed = Err(Failure::failed("disk.img: no such file; check the path"));
        assert_eq!(outcome(&["serve", "disk.img"], failed), Err(1));
    }

    #[test]
    fn options_that_fail_later_exit_with_2() {
        let usage = Err(Failure::usage("disk.img: a directory; name a file"));
        assert_eq!(outcome(&["serve", "disk.img"], usage), Err(2));
    }

    #[test]
    fn an_unknown_option_exits_with_2() {
        assert_eq!(
            outcome(&["serve", "--frobnicate", "disk.img"], Ok(())),
            Err(2)
        );
    }

    #[test]
    fn a_name_that_is_no_overlay_s_exits_with_2() {
        assert_eq!(outcome(&["overlay", "show", "disk"], Ok(())), Err(2));
        assert_eq!(outcome(&["overlay", "show", "disk@a"], Ok(())), Err(1));
    }

    #[test]
    fn no_command_at_all_exits_with_2() {
        assert_eq!(outcome(&[], Ok(())), Err(2));
    }

    #[test]
    fn asking_for_the_version_is_no_failure() {
        assert_eq!(
            outcome(&["--version"], Err(Failure::failed("never run"))),
            Err(0)
        );
    }

    #[test]
    fn a_failure_prints_as_its_message() {
        assert_eq!(Failure::failed("a: b; c").to_string(), "a: b; c");
    }
}
