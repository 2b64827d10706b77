//! The options of `cowherd overlay`, and its answers for people and for programs.

mod report;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use indicatif::{ProgressBar, ProgressStyle};

use super::asking::{Asking, confirm, print};
use crate::serve::Failure;
use crate::serve::control::{Answer, Command, OverlayName, Progress, Reporter};

/// Lists, shows, checks, resets and commits overlays
///
/// An overlay is what one client changed of one image. It is named IMAGE[+GENERATION]@CLIENT, as in
/// `disk@studio-3`; without the generation the newest is meant, and where only one image has an
/// overlay of that client the image can be left out too.
///
/// The commands work while the server runs and while it does not. A running server does the work
/// itself, on an overlay that it holds back from clients meanwhile; an overlay that a client has
/// open can be listed, shown and checked, but not reset or committed.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(disable_help_subcommand = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Lists all overlays: mode, size, own blocks, age, and whether it is in use
    List {
        #[command(flatten)]
        shared: Asking,
    },

    /// Shows what an overlay is and holds
    ///
    /// Size is what the overlay takes of its file system. Last written is when its data or journals
    /// were written last, which opening it counts as. Last client is who began a session last; it
    /// may be missing after a crash.
    Show {
        /// The overlay, such as disk@studio-3
        #[arg(value_name = "OVERLAY")]
        overlay: OverlayName,
        #[command(flatten)]
        shared: Asking,
    },

    /// Checks overlays, and changes nothing
    ///
    /// Verifies both copies of the header, the newest checkpoint and the chain of the journals, and
    /// compares the map of blocks with the holes of the data file. A block that should have data
    /// and lies in a hole is a warning and not a problem: file systems and copies may make holes of
    /// zeros. Data blocks have no checksum. Of an overlay in use, header and map are checked; its
    /// journals and checkpoint can be when it is closed.
    ///
    /// Exits with 1 where something is wrong.
    Check {
        /// The overlay, such as disk@studio-3
        #[arg(value_name = "OVERLAY", required_unless_present = "all")]
        overlay: Option<OverlayName>,
        /// Check all overlays
        #[arg(long, conflicts_with = "overlay")]
        all: bool,
        #[command(flatten)]
        shared: Asking,
    },

    /// Removes an overlay: its client begins with the image again
    ///
    /// All that the client has written is lost. An overlay that a client has open is not removed.
    Reset {
        /// The overlay, such as disk@studio-3
        #[arg(value_name = "OVERLAY")]
        overlay: OverlayName,
        /// Do not ask
        ///
        /// Needed where standard input is no terminal.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        shared: Asking,
    },

    /// Writes an image and an overlay over it to a new image
    ///
    /// The new file has the size of the image, and what the client sees. It shares unchanged blocks
    /// with the image where the file system can do that; else they are copied. Holes and zeroed
    /// blocks become holes. Image and overlay stay as they are. A client that connects meanwhile
    /// waits for its overlay, and is turned away after half a minute.
    ///
    /// The file gets its name when all of it is on the disk, and never replaces another. Until then
    /// it is called .NAME.cowherd-new; what a crash left under that name is removed by the next
    /// commit to the same file.
    Commit {
        /// The overlay, such as disk@studio-3
        #[arg(value_name = "OVERLAY")]
        overlay: OverlayName,
        /// The new image; there must be no such file
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// The image below; without it, the file that was served last
        ///
        /// It must be the one that the overlay was made over.
        #[arg(long, value_name = "FILE")]
        image: Option<PathBuf>,
        #[command(flatten)]
        shared: Asking,
    },
}

impl Action {
    /// What is to be done, where, and whether somebody is to be asked before.
    fn take_apart(self) -> Result<(Command, Asking, bool), Failure> {
        Ok(match self {
            Self::List { shared } => (Command::List, shared, false),
            Self::Show { overlay, shared } => (Command::Show { overlay }, shared, false),
            Self::Check {
                overlay, shared, ..
            } => (Command::Check { overlay }, shared, false),
            Self::Reset {
                overlay,
                yes,
                shared,
            } => (Command::Reset { overlay }, shared, !yes),
            Self::Commit {
                overlay,
                to,
                image,
                shared,
            } => {
                let (to, image) = (whole(to)?, image.map(whole).transpose()?);
                (Command::Commit { overlay, to, image }, shared, false)
            }
        })
    }
}

/// The server that does the work stands elsewhere.
fn whole(path: PathBuf) -> Result<PathBuf, Failure> {
    std::path::absolute(&path)
        .map_err(|error| Failure::usage(format!("{}: {error}; name a file", path.display())))
}

/// Has the work done and prints its answer; whether all is well.
pub(super) fn run(
    arguments: Arguments,
    work: impl Fn(Option<PathBuf>, &Command, &Reporter) -> Result<Answer, Failure>,
) -> Result<bool, Failure> {
    let (command, shared, ask) = arguments.action.take_apart()?;
    let bar = Arc::new(Bar::default());
    let drawn = Arc::clone(&bar);
    let report: Reporter = Arc::new(move |progress: &Progress| drawn.show(progress));
    let work = |command: &Command| work(shared.state.clone(), command, &report);
    if let (Command::Reset { overlay }, true) = (&command, ask) {
        let warning = "what the client has written would be lost";
        let overlay = overlay.clone();
        confirm("reset", warning, || {
            match work(&Command::Show { overlay })? {
                Answer::Show(entry) => Ok(report::question(&entry)),
                _ => Err(Failure::failed("reset: the overlay was not found")),
            }
        })?;
    }
    let answer = work(&command);
    bar.clear();
    let answer = answer?;
    print(|out| match shared.json {
        true => report::write_json(out, &answer),
        false => report::write_text(out, &answer),
    })?;
    Ok(report::is_well(&answer))
}

/// A bar on standard error for work that takes long; nothing where that is no terminal.
#[derive(Debug, Default)]
struct Bar(OnceLock<ProgressBar>);

impl Bar {
    fn show(&self, progress: &Progress) -> ControlFlow<()> {
        let bar = self.0.get_or_init(|| {
            let style = "{prefix} [{bar:30}] {bytes} of {total_bytes}, {eta} left";
            let style = ProgressStyle::with_template(style);
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(progress.total).with_style(style.progress_chars("=> "))
        });
        bar.set_prefix(progress.overlay.clone());
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        ControlFlow::Continue(())
    }

    fn clear(&self) {
        if let Some(bar) = self.0.get() {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Overlay {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn command(arguments: &[&str]) -> Result<(Command, bool), clap::error::ErrorKind> {
        let parsed = Overlay::try_parse_from(std::iter::once(&"overlay").chain(arguments));
        let action = parsed.map_err(|error| error.kind())?.arguments.action;
        let (command, _, ask) = action.take_apart().unwrap();
        Ok((command, ask))
    }

    fn name(text: &str) -> OverlayName {
        text.parse().unwrap()
    }

    #[test]
    fn a_check_is_of_one_overlay_or_all() {
        let one = Command::Check {
            overlay: Some(name("disk@a")),
        };
        assert_eq!(command(&["check", "disk@a"]), Ok((one, false)));
        let all = Command::Check { overlay: None };
        assert_eq!(command(&["check", "--all"]), Ok((all, false)));
        assert!(command(&["check"]).is_err());
        assert!(command(&["check", "--all", "disk@a"]).is_err());
    }

    #[test]
    fn a_reset_is_asked_for_unless_told_not_to() {
        let overlay = name("disk+2@a");
        let reset = Command::Reset { overlay };
        assert_eq!(command(&["reset", "disk+2@a"]), Ok((reset.clone(), true)));
        assert_eq!(command(&["reset", "disk+2@a", "--yes"]), Ok((reset, false)));
    }

    #[test]
    fn the_files_of_a_commit_get_their_whole_paths() {
        let (commit, _) = command(&["commit", "disk@a", "--to", "new.img"]).unwrap();
        let Command::Commit { to, image, .. } = commit else {
            panic!("{commit:?}");
        };
        assert!(to.is_absolute() && to.ends_with("new.img"));
        assert_eq!(image, None);
        assert!(command(&["commit", "disk@a"]).is_err());
    }

    #[test]
    fn the_state_directory_stands_behind_the_command() {
        let arguments = ["show", "disk@a", "--state", "/s", "--json"];
        assert!(command(&arguments).is_ok());
        assert!(command(&["list", "--json", "--state", "/s"]).is_ok());
    }
}
