//! The program under test as a child process: started, listened to, killed, started again.

use std::ffi::{OsStr, OsString};
use std::fmt::Debug;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::nbd::{Address, Client};
use super::{Tool, write_file};

/// How long anything may take that should be a matter of moments.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// A command line of `cowherd serve`, with a folder of its own for images and state.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    home: Arc<TempDir>,
    state: PathBuf,
    images: Vec<PathBuf>,
    listen: Vec<String>,
    more: Vec<OsString>,
    around: Vec<OsString>,
}

impl Setup {
    /// Nothing served yet; listens on a free port of the loopback unless told otherwise.
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        Self {
            state: home.path().join("state"),
            home: Arc::new(home),
            images: Vec::new(),
            listen: Vec::new(),
            more: Vec::new(),
            around: Vec::new(),
        }
    }

    /// One small image `disk` of these bytes.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        Self::new().with_bytes("disk.img", bytes)
    }

    /// One more image, at `path`.
    pub(crate) fn with_image(mut self, path: impl Into<PathBuf>) -> Self {
        self.images.push(path.into());
        self
    }

    /// One more image, made of these bytes in the folder of this setup.
    pub(crate) fn with_bytes(self, name: &str, bytes: &[u8]) -> Self {
        let path = self.file(name);
        write_file(&path, bytes);
        self.with_image(path)
    }

    /// One more address to listen on.
    pub(crate) fn with_listen(mut self, address: impl Into<String>) -> Self {
        self.listen.push(address.into());
        self
    }

    /// This address to listen on, and no other.
    pub(crate) fn with_listen_only(mut self, address: &str) -> Self {
        self.listen = vec![address.to_owned()];
        self
    }

    /// Another state directory than its own.
    pub(crate) fn with_state(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.state);
        self
    }

    /// One more argument.
    pub(crate) fn with_arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.more.push(arg.as_ref().to_owned());
        self
    }

    /// Run by this program, which gets the whole command line behind these arguments.
    pub(crate) fn run_by(mut self, around: &[&str]) -> Self {
        self.around = around.iter().map(OsString::from).collect();
        self
    }

    /// A path in the folder of this setup.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The first image.
    pub(crate) fn image(&self) -> &Path {
        self.images.first().expect("an image was named")
    }

    /// The state directory.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// The command line, for those who want to run it their own way.
    pub(crate) fn command(&self) -> Command {
        // Another build can be tried by its path.
        let program = std::env::var_os("COWHERD");
        let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_cowherd").into());
        let mut command = self.command_of(Path::new(&program));
        if self.listen.is_empty() {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command
    }

    /// The same for another copy of the program, and without the address it listens on by itself.
    pub(crate) fn command_of(&self, program: &Path) -> Command {
        let mut words = self
            .around
            .iter()
            .map(OsString::as_os_str)
            .chain([program.as_os_str()]);
        let mut command = Command::new(words.next().expect("a program"));
        command
            .args(words)
            .env_remove("LISTEN_FDS")
            .env_remove("RUST_LOG")
            .arg("serve")
            .args(&self.images)
            .arg("--state")
            .arg(&self.state)
            .args(&self.more);
        for address in &self.listen {
            command.arg("--listen").arg(address);
        }
        command
    }

    /// Starts it and waits until it says that it is ready.
    pub(crate) fn start(self) -> Server {
        Server::start(self)
    }

    /// Runs it in the belief that it will refuse to start.
    pub(crate) fn refused(&self) -> Refusal {
        Refusal::of(self.command())
    }

    /// Runs it in the belief that its arguments can't be read.
    pub(crate) fn misused(&self) -> Refusal {
        Refusal::of_usage(self.command())
    }
}

/// How a server that could not start said so.
pub(crate) struct Refusal {
    /// The exit code: 1 failed, 2 bad usage or config.
    pub(crate) code: i32,
    /// What stood on stderr.
    pub(crate) message: String,
}

impl Refusal {
    /// Runs a command line that must end by itself, with one line of complaint.
    pub(crate) fn of(command: Command) -> Self {
        let finished = Tool::from_command(command, "cowherd").run();
        let lines: Vec<&str> = finished.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "one line on stderr: {finished}");
        assert!(lines[0].starts_with("cowherd: "), "{finished}");
        assert!(!finished.stdout.contains("ready"), "{finished}");
        let message = lines[0].to_owned();
        match finished.code {
            Some(code @ (1 | 2)) => Self { code, message },
            _ => panic!("exit code 1 or 2 expected: {finished}"),
        }
    }

    /// Runs a command line that can't be read: exit code 2, and an explanation of any length.
    pub(crate) fn of_usage(command: Command) -> Self {
        let finished = Tool::from_command(command, "cowherd").run();
        assert_eq!(finished.code, Some(2), "{finished}");
        assert!(finished.stdout.is_empty(), "{finished}");
        Self {
            code: 2,
            message: finished.stderr,
        }
    }

    /// Checks that the message names every one of `words`, in any case.
    #[track_caller]
    pub(crate) fn says(&self, words: &[&str]) {
        let message = self.message.to_lowercase();
        for word in words {
            assert!(
                message.contains(&word.to_lowercase()),
                "{word:?} is missing in: {}",
                self.message
            );
        }
    }
}

/// A running server. It is killed when dropped, and its log is shown when the test fails.
pub(crate) struct Server {
    setup: Setup,
    child: Child,
    /// Lines of stdout; disconnected when the process has ended.
    stdout: Receiver<String>,
    listening: Vec<String>,
    log: Arc<Log>,
}

impl Server {
    fn start(setup: Setup) -> Self {
        let command = setup.command();
        let mut server = Self::spawn(setup, command);
        server.wait_until_ready();
        server
    }

    fn spawn(setup: Setup, mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program under test can be started");
        let stdout = lines_of(child.stdout.take().expect("stdout is piped"));
        let log = Log::of(child.stderr.take().expect("stderr is piped"));
        Self {
            setup,
            child,
            stdout,
            listening: Vec::new(),
            log,
        }
    }

    /// Starts a server that takes over from this one, and does not wait; `change` may change its
    /// command line.
    pub(crate) fn successor(&self, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = self.setup.command();
        command.arg("--takeover");
        change(&mut command);
        Self::spawn(self.setup.clone(), command)
    }

    /// Has another server take over, and waits for the end of this one.
    #[track_caller]
    pub(crate) fn taken_over(mut self) -> Self {
        let mut next = self.successor(|_| {});
        next.wait_until_ready();
        assert_eq!(self.ended().code(), Some(0), "of the old server");
        next
    }

    /// Waits until it says that it is ready.
    pub(crate) fn wait_until_ready(&mut self) {
        loop {
            match self.stdout.recv_timeout(PATIENCE) {
                Ok(line) if line == "ready" => break,
                Ok(line) => self.listening.push(line),
                Err(error) => panic!("not ready ({error}) after {:?}", self.listening),
            }
        }
        assert!(!self.listening.is_empty(), "ready without listening");
    }

    /// How it was started.
    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The number of the process, for tools that look into it.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The URIs it printed, one a listener.
    pub(crate) fn uris(&self) -> Vec<String> {
        let listeners = self.listening.iter();
        let listeners = listeners.filter(|line| line.starts_with("listening on "));
        listeners.map(|line| uri_in(line)).collect()
    }

    /// The line that it printed before it was ready, with this beginning.
    #[track_caller]
    pub(crate) fn said(&self, beginning: &str) -> String {
        let line = self
            .listening
            .iter()
            .find(|line| line.starts_with(beginning));
        let line = line.unwrap_or_else(|| panic!("no {beginning:?} in {:?}", self.listening));
        line.clone()
    }

    /// All that it said before it was ready.
    pub(crate) fn announced(&self) -> &[String] {
        &self.listening
    }

    /// The URI of an export at the first listener.
    pub(crate) fn uri(&self, export: &str) -> String {
        with_export(&uri_in(&self.listening[0]), export)
    }

    /// Where the first listener is.
    pub(crate) fn address(&self) -> Address {
        Address::of_uri(&uri_in(&self.listening[0]))
    }

    /// A client of an export, past its handshake.
    #[track_caller]
    pub(crate) fn client(&self, export: &str) -> Client {
        Client::open(&self.address(), export)
            .unwrap_or_else(|error| panic!("export {export:?}: {error:?}"))
    }

    /// SIGKILL: no time for anything.
    pub(crate) fn kill(mut self) -> Setup {
        self.child.kill().expect("a running child can be killed");
        self.ended();
        self.setup.clone()
    }

    /// SIGTERM, which must end it with exit code 0 in good time.
    pub(crate) fn terminate(mut self) -> Setup {
        self.signal(Signal::TERM);
        let status = self.ended();
        assert_eq!(status.code(), Some(0), "after SIGTERM");
        self.setup.clone()
    }

    /// Sends a signal and does not wait.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid fits");
        let pid = Pid::from_raw(pid).expect("a pid is not 0");
        kill_process(pid, signal).expect("a running child can be signalled");
    }

    /// Waits until the process has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.stdout.recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("still running after {PATIENCE:?}"),
            }
        }
        self.child
            .wait()
            .expect("a started child can be waited for")
    }

    /// Waits for a line of the log that has every one of `words` in it, and returns it.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, words: &[&str]) -> String {
        let wanted = |line: &String| words.iter().all(|word| line.contains(word));
        match self.log.wait_for(wanted) {
            Some(line) => line,
            None => panic!("no line with {words:?} in the log"),
        }
    }

    /// Waits for the end of the log, in which no line may have every one of `words` in it.
    #[track_caller]
    pub(crate) fn assert_never_logged(&self, words: &[&str]) {
        let unwanted = |line: &String| words.iter().all(|word| line.contains(word));
        assert_eq!(self.log.wait_for(unwanted), None);
    }

    /// Asks it to end, and waits; how many lines of its log have every one of `words` in them.
    pub(crate) fn logged_in_all(&mut self, words: &[&str]) -> usize {
        self.signal(Signal::TERM);
        self.ended();
        let wanted = |line: &&String| words.iter().all(|word| line.contains(word));
        self.log.whole().iter().filter(wanted).count()
    }

    /// Whether the process is still there.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- log of {:?}\n{}", self.setup.images, self.log.text());
        }
    }
}

/// Everything the program wrote to stderr.
#[derive(Default)]
struct Log {
    /// The lines, and whether there can be more.
    lines: Mutex<(Vec<String>, bool)>,
    grown: Condvar,
}

impl Log {
    fn of(pipe: impl Read + Send + 'static) -> Arc<Self> {
        let log = Arc::new(Self::default());
        let writer = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                writer.change(|lines| lines.0.push(line));
            }
            writer.change(|lines| lines.1 = true);
        });
        log
    }

    fn change(&self, change: impl FnOnce(&mut (Vec<String>, bool))) {
        change(&mut self.lines.lock().expect("no holder panics"));
        self.grown.notify_all();
    }

    fn wait_for(&self, wanted: impl Fn(&String) -> bool) -> Option<String> {
        let lines = self.lines.lock().expect("no holder panics");
        let missing = |lines: &mut (Vec<String>, bool)| !lines.1 && !lines.0.iter().any(&wanted);
        let (lines, _) = self
            .grown
            .wait_timeout_while(lines, PATIENCE, missing)
            .expect("no holder panics");
        lines.0.iter().find(|line| wanted(line)).cloned()
    }

    /// All lines, once there can be no more.
    fn whole(&self) -> Vec<String> {
        let lines = self.lines.lock().expect("no holder panics");
        let (lines, late) = self
            .grown
            .wait_timeout_while(lines, PATIENCE, |lines| !lines.1)
            .expect("no holder panics");
        assert!(!late.timed_out(), "the log has no end");
        lines.0.clone()
    }

    fn text(&self) -> String {
        self.lines.lock().expect("no holder panics").0.join("\n")
    }
}

/// The lines of a pipe, read in a thread.
fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// The URI in a line such as `listening on nbd://127.0.0.1:10809/`.
fn uri_in(line: &str) -> String {
    line.split_whitespace()
        .find(|word| word.starts_with("nbd://") || word.starts_with("nbd+unix://"))
        .unwrap_or_else(|| panic!("no URI in {line:?}"))
        .to_owned()
}

/// `nbd://host/` or `nbd+unix:///?socket=x` with an export put in.
fn with_export(uri: &str, export: &str) -> String {
    match uri.split_once("/?") {
        Some((before, after)) => format!("{before}/{export}?{after}"),
        None => format!("{}/{export}", uri.trim_end_matches('/')),
    }
}

/// Tries again until `attempt` gives something; panics with its last refusal when time is up.
#[track_caller]
pub(crate) fn eventually<T, E: Debug>(mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(found) => return found,
            Err(error) => assert!(Instant::now() < deadline, "time is up: {error:?}"),
        }
        thread::yield_now();
    }
}
