//! `cowherd grub`: menus, and whole trees of boot files for TFTP servers that are not ours, made of
//! the config. No server is asked, and none is needed.

mod exports;
mod loaders;
mod output;
mod plan;
mod subject;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::Serialize;

use super::options::Failure;
use super::templates::Templates;
use crate::boot::menu::{Entry, Format};
use crate::config::Config;
pub use exports::NfsServer;
pub use output::{Outcome, State, Written};
pub(super) use subject::Herd;

/// What is to be made, and of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The config file.
    pub config: PathBuf,
    /// Our address, as machines see it; `None` means what the config says.
    pub server: Option<Ipv4Addr>,
    /// What.
    pub task: Task,
}

/// What is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// One menu.
    Print {
        /// Of a client, a network card or an address; `None` is a machine that nobody knows.
        who: Option<String>,
        /// For which loader.
        format: Format,
    },
    /// A tree of files.
    Write {
        /// Below this directory.
        directory: PathBuf,
        /// With menus for these loaders.
        formats: Vec<Format>,
    },
    /// What an NFS server has to export.
    Exports(NfsServer),
}

/// How far the work has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The file that comes next.
    pub file: String,
    /// How many are done.
    pub done: u64,
    /// Of how many.
    pub total: u64,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// A menu.
    Menu(Menu),
    /// A tree.
    Tree(Tree),
    /// A text.
    Text {
        /// The text.
        text: String,
    },
}

/// A menu, and what it is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Menu {
    /// For which loader.
    pub format: &'static str,
    /// The client of the config that it is for.
    pub client: Option<String>,
    /// What it says.
    pub text: String,
    /// Which entry is booted where nobody chooses.
    pub default: usize,
    /// Seconds that a choice is waited for.
    pub timeout: u64,
    /// The entries.
    pub entries: Vec<ShownEntry>,
    /// What is not in it.
    pub left_out: Vec<LeftOut>,
}

/// An entry of a menu.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownEntry {
    /// What people read.
    pub title: String,
    /// The path of the kernel.
    pub kernel: String,
    /// The paths of what is loaded with it.
    pub initrds: Vec<String>,
    /// The command line.
    pub words: Vec<String>,
}

/// What can't be booted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LeftOut {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

/// A tree that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tree {
    /// What became of its files.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What is in no menu, or not in the tree.
    pub left_out: Vec<LeftOut>,
}

impl From<&Entry> for ShownEntry {
    fn from(entry: &Entry) -> Self {
        Self {
            title: entry.title.clone(),
            kernel: entry.kernel.path.clone(),
            initrds: entry
                .initrds
                .iter()
                .map(|place| place.path.clone())
                .collect(),
            words: entry.words.clone(),
        }
    }
}

/// Makes what is asked for, telling `progress` how far it has come.
///
/// # Errors
/// One line: what is wrong with the config, the images or the directory.
pub fn run(question: &Question, progress: &mut dyn FnMut(Progress)) -> Result<Answer, Failure> {
    let usage = |wrong: &dyn std::fmt::Display| Failure::usage(wrong.to_string());
    let config = Config::read(&question.config).map_err(|wrong| usage(&wrong))?;
    let templates = Templates::read(&config)?;
    let herd = |config| {
        let mut herd = Herd::new(config, question.server)?;
        herd.templates = templates;
        let unread = herd.find_roots();
        Ok::<_, Failure>((herd, unread))
    };
    match &question.task {
        Task::Print { who, format } => {
            let (herd, unread) = herd(config)?;
            let mut menu = herd.print(who.as_deref(), *format)?;
            menu.left_out.extend(unread);
            Ok(Answer::Menu(menu))
        }
        Task::Write { directory, formats } => {
            let (herd, unread) = herd(config)?;
            let plan = plan::plan(&herd, formats)?;
            let left_out = [plan.left_out.clone(), unread].concat();
            let outcome = output::write(directory, plan, progress)?;
            Ok(Answer::Tree(Tree { outcome, left_out }))
        }
        Task::Exports(kind) => {
            let text = exports::text(&config, question.server, *kind)?;
            Ok(Answer::Text { text })
        }
    }
}
