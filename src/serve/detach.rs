//! A server that goes on in the background: who started it waits until it serves, and no longer.
//!
//! That is what systemd wants of a command that reloads a service.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::options::Failure;
use super::service::{READY, unsaid};

/// The option that brings one here.
const OPTION: &str = "--detach";

/// Starts this very program again, with the same options, and waits until it serves.
pub(super) fn run() -> Result<(), Failure> {
    let failed = |what: &str, error: std::io::Error| {
        Failure::failed(format!("{what}: {error}; start it without {OPTION}"))
    };
    let mut child = Command::new("/proc/self/exe")
        .args(without_option(std::env::args_os().skip(1)))
        .arg0("cowherd")
        // What is typed to end this command is not meant for the server.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed("the server can't be started in the background", error))?;
    let said = child.stdout.take().map(BufReader::new);
    for line in said.into_iter().flat_map(BufRead::lines) {
        let line = line.map_err(|error| failed("what the server says", error))?;
        writeln!(std::io::stdout().lock(), "{line}").map_err(unsaid)?;
        if line == READY {
            return Ok(());
        }
    }
    let status = child.wait();
    let code = status.ok().and_then(|status| status.code());
    let failure = "the server in the background ended before it served: see what it said";
    Err(match code {
        Some(2) => Failure::usage(failure),
        _ => Failure::failed(failure),
    })
}

fn without_option(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    arguments.filter(|argument| argument != OPTION)
}
