//! The man pages say what the program does: they are made of its options, its limits and man/parts.
//!
//! `UPDATE_MAN=1 cargo test --test man committed` rewrites the committed pages.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use clap::ArgAction;
use clap_mangen::Man;
use cowherd::limits;

#[path = "man/bounds.rs"]
mod bounds;

use bounds::Bound::{Bytes, Count, Time};
use bounds::{INNER, SHOWN};

/// The date in the pages: that of the last change of the outside they describe.
const DATE: &str = "2026-11-22";

fn file(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// One page of `man/`: the program itself, or one of its commands.
struct Page {
    name: String,
    command: clap::Command,
}

fn pages() -> Vec<Page> {
    let mut program = cowherd::cli::command();
    program.build();
    let commands: Vec<_> = program.get_subcommands().cloned().collect();
    let mut client = cowherd::cli::attach_command();
    client.build();
    std::iter::once(program)
        .chain(commands)
        .chain([client])
        .filter(|command| command.get_name() != "help")
        .map(|command| Page {
            name: command
                .get_display_name()
                .unwrap_or_else(|| command.get_name())
                .to_owned(),
            command,
        })
        .collect()
}

impl Page {
    fn committed(&self) -> PathBuf {
        file(&format!("man/{}.1", self.name))
    }

    /// The page as it should be: what clap knows, then the sections that are written by hand.
    fn rendered(&self) -> String {
        let version = format!("cowherd {}", env!("CARGO_PKG_VERSION"));
        let man = Man::new(self.command.clone())
            .title(self.name.to_uppercase())
            .date(DATE)
            .source(version)
            .manual("cowherd");
        // Not clap's synopsis, which leaves out values, nor its version and authors sections.
        let mut head = Vec::new();
        man.render_title(&mut head).unwrap();
        man.render_name_section(&mut head).unwrap();
        let mut body = Vec::new();
        man.render_description_section(&mut body).unwrap();
        man.render_options_section(&mut body).unwrap();
        if self.is_program() {
            man.render_subcommands_section(&mut body).unwrap();
        }
        let parts = [
            tidied(&head),
            self.synopsis(),
            tidied(&body),
            self.actions().map(section).collect(),
            self.hand_written(),
        ];
        parts.concat()
    }

    fn is_program(&self) -> bool {
        self.name == "cowherd"
    }

    /// The commands of a command: each is a section of its page.
    fn actions(&self) -> impl Iterator<Item = &clap::Command> {
        let below = self.command.get_subcommands();
        below.filter(|_| !self.is_program())
    }

    fn synopsis(&self) -> String {
        let mut lines: Vec<_> = self.actions().map(usage_of_action).collect();
        if lines.is_empty() {
            lines.push(usage(&self.command));
        }
        if self.is_program() {
            lines.push("\\fICOMMAND\\fR ...".to_owned());
        }
        let between = if self.is_program() { "\n" } else { "\n.br\n" };
        format!(".SH SYNOPSIS\n{}\n", lines.join(between))
    }

    fn hand_written(&self) -> String {
        let part = file(&format!("man/parts/{}.roff", self.name));
        let text =
            fs::read_to_string(&part).unwrap_or_else(|error| panic!("{}: {error}", part.display()));
        let filled = text
            .replace("{{NAME_MAX}}", &limits::NAME_MAX.to_string())
            .replace(
                "{{DRAIN_SECONDS}}",
                &limits::DRAIN_TIME.as_secs().to_string(),
            )
            .replace(
                "{{SUSPEND_SECONDS}}",
                &limits::SUSPEND_PATIENCE.as_secs().to_string(),
            )
            .replace(
                "{{CONTROL_REQUEST_KIB}}",
                &(limits::CONTROL_REQUEST_MAX / 1024).to_string(),
            )
            .replace("{{LIMITS}}", &limits_table());
        assert!(
            !filled.contains("{{"),
            "{}: a blank that nothing fills",
            part.display()
        );
        filled
    }

    /// The long options that the page must describe, as a reader would type them.
    fn options(&self) -> Vec<String> {
        let own = self.command.get_arguments();
        let of_actions = self.actions().flat_map(clap::Command::get_arguments);
        let longs = own.chain(of_actions).filter_map(clap::Arg::get_long);
        longs.map(|long| format!("--{long}")).collect()
    }
}

/// Options that every command has; a page tells of them once.
const EVERYWHERE: [&str; 2] = ["help", "version"];

/// A command line, as a synopsis shows it.
fn usage(command: &clap::Command) -> String {
    usage_with(command, command.get_arguments())
}

fn usage_of_action(action: &clap::Command) -> String {
    let is_own = |argument: &&clap::Arg| !EVERYWHERE.contains(&argument.get_id().as_str());
    usage_with(action, action.get_arguments().filter(is_own))
}

fn usage_with<'a>(
    command: &clap::Command,
    arguments: impl Iterator<Item = &'a clap::Arg>,
) -> String {
    // The programs themselves have no name but their own.
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let mut words = format!("\\fB{name}\\fR");
    for argument in arguments {
        words.push('\n');
        words.push_str(&synopsis_of(argument));
    }
    words.replace('-', "\\-")
}

/// A command of a command: what it does and its options.
fn section(action: &clap::Command) -> String {
    let mut action = action.clone();
    for everywhere in EVERYWHERE {
        action = action.mut_arg(everywhere, |argument| argument.hide(true));
    }
    let man = Man::new(action.clone());
    let mut body = Vec::new();
    man.render_description_section(&mut body).unwrap();
    man.render_options_section(&mut body).unwrap();
    let body = tidied(&body)
        .replace(".SH DESCRIPTION\n", "")
        .replace(".SH OPTIONS\n", "");
    format!(".SH \"{}\"\n{body}", action.get_name().to_uppercase())
}

/// An option or argument as a synopsis shows it, such as `[--listen ADDR]...`.
fn synopsis_of(argument: &clap::Arg) -> String {
    let repeats = match argument.get_action() {
        ArgAction::Append | ArgAction::Count => "...",
        _ => "",
    };
    let value = argument
        .get_action()
        .takes_values()
        .then(|| argument.get_value_names().and_then(<[_]>::first))
        .flatten();
    let value = value.map(|name| format!("\\fI{name}\\fR"));
    let name = argument.get_long().map(|long| format!("\\fB--{long}\\fR"));
    let words: Vec<_> = name.into_iter().chain(value).collect();
    let words = words.join(" ");
    match argument.is_required_set() {
        true => format!("{words}{repeats}"),
        false => format!("[{words}]{repeats}"),
    }
}

/// clap's roff with its repeated preamble dropped and `code` in bold.
fn tidied(roff: &[u8]) -> String {
    let mut text = String::new();
    for line in String::from_utf8_lossy(roff).lines() {
        if line.starts_with(".ie ") || line.starts_with(".el ") {
            continue;
        }
        for (nth, piece) in line.split('`').enumerate() {
            match nth % 2 {
                1 => text.push_str("\\fB"),
                _ if nth > 0 => text.push_str("\\fR"),
                _ => {}
            }
            text.push_str(piece);
        }
        text.push('\n');
    }
    text.replace("\\*(Aq", "\\(aq")
}

/// The bounds that a user can run into, as rows of a tbl(1) table.
fn limits_table() -> String {
    let rows = SHOWN.iter().map(|(what, _, bound)| {
        let bound = match *bound {
            Count(count) => count.to_string(),
            Bytes(bytes) => size(bytes),
            Time(time) => format!("{} s", time.as_secs()),
        };
        format!("{what}\t{bound}")
    });
    rows.collect::<Vec<_>>().join("\n")
}

fn size(bytes: u64) -> String {
    let units = [(60, "EiB"), (30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "B")];
    let fits = |(shift, _): &&(u32, _)| bytes >> shift << shift == bytes && bytes >> shift > 0;
    let (shift, unit) = units.iter().find(fits).unwrap();
    format!("{} {unit}", bytes >> shift)
}

#[test]
fn every_limit_is_in_the_page_or_nothing_that_a_user_meets() {
    let files = ["src/limits.rs", "src/limits/seen.rs"];
    let source = files
        .map(|path| fs::read_to_string(file(path)).unwrap())
        .concat();
    let constants = source
        .lines()
        .filter_map(|line| line.strip_prefix("pub const "));
    let mut defined: Vec<_> = constants
        .map(|line| line.split(':').next().unwrap())
        .collect();
    let shown = SHOWN.iter().map(|(_, name, _)| *name);
    let mut known: Vec<_> = shown.chain(INNER.iter().copied()).collect();
    defined.sort_unstable();
    known.sort_unstable();
    assert_eq!(known, defined, "a new limit goes to SHOWN or to INNER");
}

/// The text of a page without roff's escapes of the minus sign.
fn readable(roff: &str) -> String {
    roff.replace("\\-", "-")
}

#[test]
fn the_committed_pages_are_those_of_the_options() {
    for page in pages() {
        let path = page.committed();
        let rendered = page.rendered();
        if std::env::var_os("UPDATE_MAN").is_some() {
            fs::write(&path, &rendered).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == rendered,
            "{} is out of date: run UPDATE_MAN=1 cargo test --test man committed",
            path.display()
        );
    }
}

#[test]
fn every_synopsis_begins_with_its_command() {
    for page in pages() {
        let page = fs::read_to_string(page.committed()).unwrap();
        let (_, synopsis) = page.split_once(".SH SYNOPSIS\n").unwrap();
        assert!(synopsis.starts_with("\\fBcowherd"), "{page}");
    }
}

#[test]
fn every_option_is_in_its_page() {
    for page in pages() {
        let text = readable(&fs::read_to_string(page.committed()).unwrap());
        for option in page.options() {
            assert!(
                text.contains(&option),
                "{} is not in man/{}.1",
                option,
                page.name
            );
        }
    }
}

#[test]
fn no_page_is_left_of_a_command_that_is_gone() {
    let known: Vec<_> = pages().iter().map(Page::committed).collect();
    for entry in fs::read_dir(file("man")).unwrap() {
        let path = entry.unwrap().path();
        let made = path.extension().is_some_and(|section| section == "1");
        assert!(
            !made || known.contains(&path),
            "{} describes no command",
            path.display()
        );
    }
}

#[test]
fn mandoc_finds_nothing_wrong_with_any_page() {
    for entry in fs::read_dir(file("man")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let Ok(lint) = Command::new("mandoc")
            .args(["-T", "lint", "-W", "warning"])
            .arg(&path)
            .output()
        else {
            eprintln!("skipped: mandoc is not installed");
            return;
        };
        let complaints = String::from_utf8_lossy(&lint.stdout).into_owned();
        assert!(lint.status.success(), "{complaints}");
    }
}

/// The section that a reader is sent to by a line of roff behind one that ends in "see".
fn sent_to<'a>(before: &str, line: &'a str) -> Option<&'a str> {
    let words = line
        .strip_prefix(".BR ")
        .or_else(|| line.strip_prefix(".B "))?;
    let name = match words.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => words.split(' ').next()?,
    };
    let is_section = name.len() > 1 && name.chars().all(|one| matches!(one, 'A'..='Z' | ' '));
    (is_section && before.to_lowercase().ends_with("see")).then_some(name)
}

#[test]
fn sections_that_readers_of_the_config_are_sent_to_are_there() {
    let page = fs::read_to_string(file("man/cowherd.toml.5")).unwrap();
    let lines: Vec<_> = page.lines().collect();
    let heads: Vec<_> = lines
        .iter()
        .filter_map(|line| line.strip_prefix(".SH "))
        .map(|head| head.trim_matches('"'))
        .collect();
    let sent: Vec<_> = lines
        .windows(2)
        .filter_map(|pair| sent_to(pair[0], pair[1]))
        .collect();
    assert!(sent.contains(&"MENUS"), "{sent:?}");
    for section in sent {
        assert!(
            heads.contains(&section),
            "{section} is in none of {heads:?}"
        );
    }
}
