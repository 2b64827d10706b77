//! The options of `cowherd status`, and its answers for people and for programs.

mod live;
mod screen;

use std::io::{self, Write};
use std::path::PathBuf;

use super::asking::{Asking, json_line, no_progress, print};
use crate::serve::Failure;
use crate::serve::control::answer::Status;
use crate::serve::control::{Answer, Command, Reporter};

/// Shows how the machines are doing: who boots, how far, how fast, from what, and what is wrong
///
/// It asks the running server by its control socket, which only the server's own user can do.
/// Without a server it shows what the last one knew when it ended, or some seconds before that if
/// it was killed.
///
/// Machines that need help come first, each with what is wrong and what to do. With CLIENT, the
/// boots of that machine are shown stage by stage; what took far longer than usual, for this
/// machine or for the herd, is marked.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The machine: its name, MAC address or IP address
    #[arg(value_name = "CLIENT")]
    client: Option<String>,

    /// Show it live, until q is pressed
    #[arg(long, conflicts_with = "json")]
    watch: bool,

    #[command(flatten)]
    asking: Asking,
}

/// Shows it; whether no machine needs help is not what the exit code is about.
pub(super) fn run(
    arguments: Arguments,
    work: impl Fn(Option<PathBuf>, &Command, &Reporter) -> Result<Answer, Failure>,
) -> Result<bool, Failure> {
    let Arguments {
        client,
        watch,
        asking: Asking { state, json },
    } = arguments;
    let report = no_progress();
    let ask = || {
        let client = client.clone();
        match work(state.clone(), &Command::Status { client }, &report)? {
            Answer::Status(status) => Ok(status),
            _ => Err(Failure::failed("the server answered something else")),
        }
    };
    if watch {
        return live::run(ask, client.is_some()).map(|()| true);
    }
    let status = ask()?;
    print(|out| write(out, &status, client.is_some(), json)).map(|()| true)
}

fn write(out: &mut impl Write, status: &Status, is_one: bool, json: bool) -> io::Result<()> {
    if json {
        return json_line(out, status);
    }
    let lines = match status.clients.first() {
        Some(client) if is_one => screen::one(client, status.now),
        _ => screen::all(status),
    };
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))
}
