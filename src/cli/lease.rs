//! The options of `cowherd lease`, and its answers for people and for programs.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use super::asking::Asking;
use crate::serve::Failure;
use crate::serve::control::answer::Lease;
use crate::serve::control::{Answer, Command, Progress, Reporter};

/// Lists the addresses that machines have, and forgets leases
///
/// It asks the running server by its control socket, which only the server's own user can do.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(disable_help_subcommand = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Lists all leases: address, network card, name, and how long each goes on
    List {
        #[command(flatten)]
        shared: Asking,
    },

    /// Ends the leases of a machine before their time
    ///
    /// The address can be given to another machine at once, after it was looked whether anybody
    /// answers to it. The machine is not told: it is for machines that are gone for good. A machine
    /// that is connected to its disk keeps its lease.
    Forget {
        /// The machine: its name, MAC address or IP address
        #[arg(value_name = "CLIENT")]
        who: String,
        /// Do not ask
        ///
        /// Needed where standard input is no terminal.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        shared: Asking,
    },
}

/// Has it done, and prints the answer.
pub(super) fn run(
    arguments: Arguments,
    work: impl Fn(Option<PathBuf>, &Command, &Reporter) -> Result<Answer, Failure>,
) -> Result<bool, Failure> {
    let (command, shared) = match arguments.action {
        Action::List { shared } => (Command::Leases, shared),
        Action::Forget { who, yes, shared } => {
            if !yes {
                confirm(&who)?;
            }
            (Command::ForgetLease { who }, shared)
        }
    };
    let report: Reporter = Arc::new(|_: &Progress| ControlFlow::Continue(()));
    let answer = work(shared.state, &command, &report)?;
    match print(&answer, shared.json) {
        // Whoever reads has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(Failure::failed(format!("standard output: {error}"))),
        Ok(()) => Ok(true),
    }
}

/// Asks on the terminal; an error unless the answer was yes.
fn confirm(who: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(
            "forget: another machine may be given the address; pass --yes if that is meant",
        ));
    }
    let failed = |error: io::Error| Failure::failed(format!("terminal: {error}"));
    let mut terminal = io::stderr();
    write!(terminal, "forget the lease of {who}? [y/N] ").map_err(failed)?;
    terminal.flush().map_err(failed)?;
    let mut reply = String::new();
    io::stdin().read_line(&mut reply).map_err(failed)?;
    match reply.trim() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::failed("forget: nothing was done")),
    }
}

fn print(answer: &Answer, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match answer {
        Answer::Leases(leases) if json => line_of(&mut out, leases),
        Answer::Leases(leases) => table(&mut out, leases),
        Answer::ForgetLease { addresses } if json => {
            line_of(&mut out, &serde_json::json!({ "addresses": addresses }))
        }
        Answer::ForgetLease { addresses } => addresses
            .iter()
            .try_for_each(|address| writeln!(out, "the lease of {address} is forgotten")),
        _ => Err(io::Error::other("the server answered something else")),
    }
}

fn line_of(out: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}

fn table(out: &mut impl Write, leases: &[Lease]) -> io::Result<()> {
    writeln!(
        out,
        "{:<16}{:<19}{:>10}  NAME",
        "ADDRESS", "MAC ADDRESS", "MINUTES"
    )?;
    leases.iter().try_for_each(|lease| {
        let name = lease.name.as_deref().unwrap_or("-");
        let (address, minutes) = (lease.address.to_string(), lease.seconds_left / 60);
        writeln!(out, "{address:<16}{:<19}{minutes:>10}  {name}", lease.mac)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_a_line() {
        let lease = Lease {
            address: [10, 0, 0, 1].into(),
            mac: "52:54:00:00:00:0a".to_owned(),
            name: Some("pc-1".to_owned()),
            seconds_left: 3600,
        };
        let mut out = Vec::new();
        table(&mut out, &[lease]).unwrap();
        let text = String::from_utf8(out).unwrap();
        let line = text.lines().nth(1).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, ["10.0.0.1", "52:54:00:00:00:0a", "60", "pc-1"]);
    }
}
