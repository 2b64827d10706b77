//! A server that goes on in the background: who started it waits until it serves, and no longer.
//!
//! That is what systemd wants of a command that reloads a service. There are three processes: the
//! command, one between, and the server. The one between has ended before the server does anything:
//! systemd waits for the end of a main process only where that was its own child when it was told
//! of it, and has all others killed at once when it stops the service.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, getpid, getppid};

use super::options::{Failure, Options};
use super::reload::Configured;
use super::service::{READY, unsaid};

/// The option that brings one here.
const OPTION: &str = "--detach";
/// Set where this is not the command: to the number of the process between, for the server.
const PARENT: &str = "COWHERD_DETACHED_BY";

/// Starts this very program again, with the same options, and waits until it serves.
pub(super) fn run(options: &Options) -> Result<(), Failure> {
    if std::env::var_os(PARENT).is_some() {
        return between();
    }
    // A mistake is told by the command, whose exit code says that it is one.
    Configured::read(options)?;
    let mut between = again(std::env::args_os().skip(1))
        .env(PARENT, "")
        .stdout(Stdio::piped())
        .spawn()
        .map_err(unstarted)?;
    let said = between.stdout.take().map(BufReader::new);
    let status = between.wait().map_err(unstarted)?;
    for line in said.into_iter().flat_map(BufRead::lines) {
        let line = line.map_err(|error| failed("what the server says", &error))?;
        writeln!(std::io::stdout().lock(), "{line}").map_err(unsaid)?;
        if line == READY && status.success() {
            return Ok(());
        }
    }
    Err(Failure::failed(
        "the server in the background ended before it served: see what it said",
    ))
}

/// Starts the server, and leaves it to whoever takes in orphans.
fn between() -> Result<(), Failure> {
    let own = getpid().as_raw_nonzero().to_string();
    let server = again(without_option(std::env::args_os().skip(1)))
        .env(PARENT, own)
        .spawn();
    server.map(drop).map_err(unstarted)
}

/// Waits for the end of the process between, where there is one.
pub(super) fn until_alone() {
    let parent = std::env::var(PARENT).ok();
    let parent = parent.and_then(|parent| Pid::from_raw(parent.parse().ok()?));
    while parent.is_some() && getppid() == parent {
        sleep(Duration::from_millis(1));
    }
}

fn again(arguments: impl Iterator<Item = OsString>) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .args(arguments)
        .arg0("cowherd")
        // What is typed to end this command is not meant for the server.
        .process_group(0)
        .stdin(Stdio::null());
    command
}

fn unstarted(error: std::io::Error) -> Failure {
    failed("the server can't be started in the background", &error)
}

fn failed(what: &str, error: &std::io::Error) -> Failure {
    Failure::failed(format!("{what}: {error}; start it without {OPTION}"))
}

fn without_option(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    arguments.filter(|argument| argument != OPTION)
}
