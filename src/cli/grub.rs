//! The options of `cowherd grub`, and its answers for people and for programs.

use std::io::{self, IsTerminal, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};

use crate::boot::menu::Format;
use crate::serve::Failure;
use crate::serve::grub::{Answer, LeftOut, NfsServer, Progress, Question, State, Task, Tree};

/// Writes boot menus, and whole trees of boot files for any TFTP server
///
/// It makes of the config what the running server would, without one. With --output it writes all
/// that machines load before they have a disk: menus for each client of the config and for machines
/// that nobody knows, kernels and what goes with them out of the images, and GRUB itself, of the
/// modules that this host has. With --print it shows one menu.
///
/// The kernels are those of the images. What a machine has changed in its own overlay is seen only
/// by the running server.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("task").required(true))]
pub(super) struct Arguments {
    /// Write a tree of boot files below this directory
    ///
    /// It is made where there is none. A file gets its name when all of it is on the disk, menus
    /// after the files that they load. What is no more in the tree is removed. A file that cowherd
    /// did not write, or that was changed since, is neither replaced nor removed: then nothing is
    /// written.
    #[arg(long, value_name = "DIR", group = "task")]
    output: Option<PathBuf>,

    /// Print the menu of a client, given by its name, network card or address
    ///
    /// Without a client that is the menu of a machine that nobody knows.
    #[arg(long, value_name = "CLIENT", group = "task")]
    #[arg(num_args = 0..=1, default_missing_value = "")]
    print: Option<String>,

    /// Print what an NFS server has to export for the roots of [nfs]: kernel or ganesha
    ///
    /// That is a line of exports(5) for each, or a block of the configuration of nfs-ganesha.
    #[arg(long, value_name = "SERVER", value_parser = nfs_server, group = "task")]
    exports: Option<NfsServer>,

    /// The boot loader: grub, ipxe or pxelinux; with --output it may be repeated
    ///
    /// Without it, --print prints a menu for GRUB, and --output writes menus for all of them.
    #[arg(long, value_name = "LOADER", value_parser = format, conflicts_with = "exports")]
    format: Vec<Format>,

    /// Our address, as machines see it
    ///
    /// Without it, that is the address of [network] in the config, or that of its interface here.
    #[arg(long, value_name = "IP")]
    server: Option<Ipv4Addr>,

    /// The config file
    #[arg(long, value_name = "FILE", default_value = "/etc/cowherd/cowherd.toml")]
    config: PathBuf,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn format(text: &str) -> Result<Format, String> {
    let mut all = Format::ALL.into_iter();
    let found = all.find(|format| format.name() == text);
    found.ok_or_else(|| "grub, ipxe or pxelinux".to_owned())
}

fn nfs_server(text: &str) -> Result<NfsServer, String> {
    match text {
        "kernel" => Ok(NfsServer::Kernel),
        "ganesha" => Ok(NfsServer::Ganesha),
        _ => Err("kernel or ganesha".to_owned()),
    }
}

/// Makes what is asked for; `work` does it and says how far it has come.
pub(super) fn run<W>(arguments: Arguments, work: W) -> Result<bool, Failure>
where
    W: FnOnce(&Question, &mut dyn FnMut(Progress)) -> Result<Answer, Failure>,
{
    let json = arguments.json;
    let question = question(arguments)?;
    let bar = Bar::new(io::stderr().is_terminal() && !json);
    let answer = work(&question, &mut |progress| bar.show(&progress));
    bar.clear();
    let answer = answer?;
    if !json {
        complain(answer.left_out());
    }
    match print(&mut io::stdout().lock(), &answer, json) {
        // Whoever reads has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        printed => {
            let failed = |error: io::Error| Failure::failed(format!("standard output: {error}"));
            printed.map(|()| true).map_err(failed)
        }
    }
}

fn question(arguments: Arguments) -> Result<Question, Failure> {
    let mut formats = arguments.format;
    let task = match (arguments.output, arguments.print, arguments.exports) {
        (Some(directory), ..) => {
            if formats.is_empty() {
                formats = Format::ALL.into();
            }
            formats.sort_unstable();
            formats.dedup();
            Task::Write { directory, formats }
        }
        (None, Some(who), _) => {
            let format = match formats.as_slice() {
                [] => Format::Grub,
                [format] => *format,
                _ => return Err(Failure::usage("--print prints one --format")),
            };
            let who = Some(who).filter(|who| !who.is_empty());
            Task::Print { who, format }
        }
        (None, None, Some(server)) => Task::Exports(server),
        (None, None, None) => return Err(Failure::usage("say --output, --print or --exports")),
    };
    Ok(Question {
        config: arguments.config,
        server: arguments.server,
        task,
    })
}

impl Answer {
    fn left_out(&self) -> &[LeftOut] {
        match self {
            Self::Menu(menu) => &menu.left_out,
            Self::Tree(tree) => &tree.left_out,
            Self::Text { .. } => &[],
        }
    }
}

/// Says what is missing from what was made.
fn complain(left_out: &[LeftOut]) {
    for LeftOut { what, why } in left_out {
        // Nobody is left to tell when standard error is gone.
        let _ = writeln!(io::stderr(), "cowherd: {what} is left out: {why}");
    }
}

fn print(out: &mut impl Write, answer: &Answer, json: bool) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, answer)?;
        return writeln!(out);
    }
    match answer {
        Answer::Menu(menu) => out.write_all(menu.text.as_bytes()),
        Answer::Text { text } => out.write_all(text.as_bytes()),
        Answer::Tree(tree) => print_tree(out, tree),
    }
}

fn print_tree(out: &mut impl Write, tree: &Tree) -> io::Result<()> {
    let of = |state| {
        let files = tree.outcome.files.iter();
        files.filter(move |file| file.state == state)
    };
    for (state, word) in [(State::New, "new"), (State::Changed, "changed")] {
        for file in of(state) {
            writeln!(out, "{word:<8} {:>11} {}", file.bytes, file.path)?;
        }
    }
    for path in &tree.outcome.removed {
        writeln!(out, "{:<8} {:>11} {path}", "removed", "")?;
    }
    let (all, same) = (tree.outcome.files.len(), of(State::Same).count());
    writeln!(out, "{all} files, {same} of them there already")
}

/// A bar on standard error; nothing where that is no terminal.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new(is_shown: bool) -> Self {
        let style = || {
            let style = ProgressStyle::with_template("[{bar:30}] {pos} of {len} files {msg}");
            style.unwrap_or_else(|_| ProgressStyle::default_bar())
        };
        Self(is_shown.then(|| ProgressBar::new(0).with_style(style().progress_chars("=> "))))
    }

    fn show(&self, progress: &Progress) {
        if let Some(bar) = &self.0 {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
            bar.set_message(progress.file.clone());
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Grub {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn asked(words: &str) -> Result<Task, String> {
        let words = std::iter::once("grub").chain(words.split_whitespace());
        let grub = Grub::try_parse_from(words).map_err(|error| error.kind().to_string())?;
        let question = question(grub.arguments).map_err(|failure| failure.to_string())?;
        Ok(question.task)
    }

    #[test]
    fn one_thing_is_made_at_a_time() {
        assert!(asked("").is_err());
        assert!(asked("--print --output /tree").is_err());
        assert!(asked("--exports kernel --format grub").is_err());
        assert_eq!(
            asked("--exports ganesha"),
            Ok(Task::Exports(NfsServer::Ganesha))
        );
        assert!(asked("--exports samba").is_err());
    }

    #[test]
    fn a_menu_is_that_of_a_client_or_of_nobody() {
        let print = |who: Option<&str>, format| {
            let who = who.map(str::to_owned);
            Ok(Task::Print { who, format })
        };
        assert_eq!(asked("--print"), print(None, Format::Grub));
        assert_eq!(
            asked("--print a --format ipxe"),
            print(Some("a"), Format::Ipxe)
        );
        assert!(asked("--print --format ipxe --format grub").is_err());
        assert!(asked("--print --format lilo").is_err());
    }

    #[test]
    fn a_tree_has_menus_for_all_loaders_or_for_those_that_are_named() {
        let formats = |words: &str| match asked(&format!("--output /tree {words}")).unwrap() {
            Task::Write { formats, .. } => formats,
            other => panic!("{other:?}"),
        };
        assert_eq!(formats(""), Format::ALL);
        assert_eq!(formats("--format ipxe --format ipxe"), [Format::Ipxe]);
    }
}
