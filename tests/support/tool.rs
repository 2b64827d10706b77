//! Foreign programs, run with a time limit and with everything they said shown when they fail.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// A tool that runs longer than this is stuck.
const TOOL_TIME: Duration = Duration::from_secs(120);

/// Whether every one of `tools` can be run; where not, the test should return.
///
/// In CI (environment variable `CI`) a missing tool fails the test instead.
pub(crate) fn require(tools: &[&str]) -> bool {
    tools.iter().all(|tool| {
        let found = on_path(tool).is_some();
        if !found {
            assert!(std::env::var_os("CI").is_none(), "{tool} is not installed");
            skipped(tool);
        }
        found
    })
}

/// Says loudly that the running test is left out because the machine lacks `what`.
pub(crate) fn skipped(what: &str) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("a test");
    eprintln!("SKIPPED: {name} needs {what}");
}

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn on_path(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(sbin)
        .map(|folder| folder.join(tool))
        .find(|file| file.is_file())
}

/// A command line to be run to its end.
pub(crate) struct Tool {
    command: Command,
    shown: String,
}

impl Tool {
    /// A program of the system by its name.
    pub(crate) fn new(name: &str) -> Self {
        let program = on_path(name).unwrap_or_else(|| PathBuf::from(name));
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        Self::from_command(command, name)
    }

    /// A command put together elsewhere, called `name` in messages.
    pub(crate) fn from_command(command: Command, name: &str) -> Self {
        let mut tool = Self {
            command,
            shown: name.to_owned(),
        };
        for arg in tool.command.get_args() {
            tool.shown.push(' ');
            tool.shown.push_str(&arg.to_string_lossy());
        }
        tool
    }

    /// Adds one argument.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.shown.push(' ');
        self.shown.push_str(&arg.as_ref().to_string_lossy());
        self.command.arg(arg);
        self
    }

    /// Adds several arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// Sets the folder it runs in.
    pub(crate) fn inside(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Runs it; what it printed on stdout. Panics unless it succeeds.
    pub(crate) fn ok(self) -> String {
        let finished = self.run();
        assert!(finished.code == Some(0), "{finished}");
        finished.stdout
    }

    /// Runs it to its end, whatever that is.
    pub(crate) fn run(mut self) -> Finished {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.shown));
        let (stdout, stderr) = self.outputs(&mut child);
        let status = child.wait().expect("a started child can be waited for");
        Finished {
            shown: self.shown,
            code: status.code(),
            stdout,
            stderr,
        }
    }

    /// Both outputs up to their ends; kills the child where they don't end in time.
    fn outputs(&self, child: &mut Child) -> (String, String) {
        let (done, ended) = channel();
        let out = collect(child.stdout.take(), done.clone());
        let err = collect(child.stderr.take(), done);
        // Both threads drop their end of the channel when their pipe is at its end.
        let stuck = ended.recv_timeout(TOOL_TIME) == Err(RecvTimeoutError::Timeout);
        if stuck {
            child.kill().expect("a child that still runs can be killed");
        }
        let text = (
            out.join().expect("the reader does not panic"),
            err.join().expect("the reader does not panic"),
        );
        assert!(!stuck, "{} is stuck; it said {text:?}", self.shown);
        text
    }
}

/// Reads a pipe to its end in a thread, which holds `done` meanwhile.
fn collect(
    pipe: Option<impl Read + Send + 'static>,
    done: std::sync::mpsc::Sender<()>,
) -> thread::JoinHandle<String> {
    let mut pipe = pipe.expect("the output is piped");
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        drop(done);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// What became of a tool.
#[derive(Debug)]
pub(crate) struct Finished {
    shown: String,
    /// The exit code; none where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = self
            .code
            .map_or_else(|| "a signal".to_owned(), |code| code.to_string());
        write!(
            f,
            "{}\nended with {code}\n--- stdout\n{}\n--- stderr\n{}",
            self.shown, self.stdout, self.stderr
        )
    }
}
