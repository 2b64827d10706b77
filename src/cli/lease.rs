//! The options of `cowherd lease`, and its answers for people and for programs.

use std::io::{self, Write};
use std::path::PathBuf;

use super::asking::{Asking, confirm, json_line, no_progress, print};
use crate::serve::Failure;
use crate::serve::control::answer::Lease;
use crate::serve::control::{Answer, Command, Reporter};

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
                let warning = "another machine may be given the address";
                confirm("forget", warning, || {
                    Ok(format!("forget the lease of {who}?"))
                })?;
            }
            (Command::ForgetLease { who }, shared)
        }
    };
    let answer = work(shared.state, &command, &no_progress())?;
    print(|out| write(out, &answer, shared.json)).map(|()| true)
}

fn write(out: &mut impl Write, answer: &Answer, json: bool) -> io::Result<()> {
    match answer {
        Answer::Leases(leases) if json => json_line(out, leases),
        Answer::Leases(leases) => table(out, leases),
        Answer::ForgetLease { addresses } if json => {
            json_line(out, &serde_json::json!({ "addresses": addresses }))
        }
        Answer::ForgetLease { addresses } => addresses
            .iter()
            .try_for_each(|address| writeln!(out, "the lease of {address} is forgotten")),
        _ => Err(io::Error::other("the server answered something else")),
    }
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
