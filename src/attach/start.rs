//! The process that a user starts: it starts the one that stays, or asks it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use super::control::{self, Answer, Condition, Question, Status};
use super::kernel::{Facts, Kernel, KernelError};
use super::options::{Attach, Device, Work};
use super::resident;
use super::show;

/// The name of the process that stays. systemd, "Storage Daemons for the Root File System": it
/// "excludes all processes whose argv[0][0] is '@'" from being killed at shutdown.
const NAME: &str = "@cowherd-attach";

/// How long a device may take to be gone after it was detached.
const GONE_TIME: Duration = Duration::from_secs(10);

/// Does what is asked, and prints what comes of it.
#[must_use]
pub fn run(work: &Work, json: bool) -> ExitCode {
    let done = match work {
        Work::Attach(attach) if is_resident() => return resident::run(attach),
        Work::Attach(attach) => start(attach, json),
        Work::Status(device) => status(*device).and_then(|status| told(&status, json)),
        Work::Detach { device, force } => detach(*device, *force).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            // Nobody is left to tell when standard error is gone.
            let _ = writeln!(io::stderr(), "cowherd-attach: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn is_resident() -> bool {
    let name = std::env::args_os().next();
    name.is_some_and(|name| name.as_encoded_bytes().starts_with(b"@"))
}

/// The same command line, for the process that stays.
fn resident_command() -> Result<Command, String> {
    let program = std::env::current_exe();
    let program = program.map_err(|error| format!("can't find this program again: {error}"))?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut command = Command::new(program);
    command.arg0(NAME).args(arguments);
    Ok(command)
}

fn start(attach: &Attach, json: bool) -> Result<bool, String> {
    provide_module()?;
    let mut command = resident_command()?;
    if attach.foreground {
        // Comes back only where it could not be done.
        return Err(format!("can't start again: {}", command.exec()));
    }
    command.stdin(Stdio::null()).stderr(Stdio::null());
    let child = command.stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| format!("can't start again: {error}"))?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        let read = BufReader::new(out).read_line(&mut line);
        read.map_err(|error| error.to_string())?;
    }
    match line.trim_end() {
        resident::ATTACHED => {}
        "" => return Err("the process that was to stay ended without a word".to_owned()),
        reason => return Err(reason.to_owned()),
    }
    // The kernel looks for partitions when the device is opened for the first time. This process
    // may wait for that, the other may not.
    let _ = File::open(format!("/dev/{}", attach.device));
    told(&status(attach.device)?, json)
}

/// Loads the kernel's module, where it is not there.
fn provide_module() -> Result<(), String> {
    match Kernel::open() {
        Err(KernelError::NoModule) => {
            // Whether that helped shows next.
            let _ = Command::new("modprobe").arg("nbd").status();
            Kernel::open().map(drop).map_err(|error| error.to_string())
        }
        other => other.map(drop).map_err(|error| error.to_string()),
    }
}

fn status(device: Device) -> Result<Status, String> {
    let asked = control::ask(device, Question::Status);
    let answer = asked.map_err(|error| format!("{device}: no answer: {error}"))?;
    match answer {
        Some(Answer::Status(status)) => return Ok(status),
        Some(Answer::Failed(reason)) => return Err(reason),
        Some(Answer::Detached) | None => {}
    }
    let kernel = Kernel::open();
    let attached = match kernel {
        Ok(mut kernel) => kernel
            .is_attached(device)
            .map_err(|error| error.to_string())?,
        Err(KernelError::NoModule) => false,
        Err(error) => return Err(error.to_string()),
    };
    Ok(Status {
        device: device.to_string(),
        state: if attached {
            Condition::Unattended
        } else {
            Condition::Detached
        },
        pid: None,
        size: attached.then(|| Facts::of(device).size()).flatten(),
        kept: None,
    })
}

/// Prints a status; whether a process keeps the device.
fn told(status: &Status, json: bool) -> Result<bool, String> {
    let text = if json {
        serde_json::to_string(status).map_err(|error| error.to_string())?
    } else {
        show::status(status)
    };
    let _ = writeln!(io::stdout(), "{text}");
    Ok(status.kept.is_some())
}

fn detach(device: Device, force: bool) -> Result<(), String> {
    if !force {
        say_what_is_waited_for(device);
        finish_writing(device)?;
    }
    let asked = control::ask(device, Question::Detach);
    match asked.map_err(|error| format!("{device}: no answer: {error}"))? {
        Some(Answer::Failed(reason)) => return Err(reason),
        Some(_) => {}
        None => detach_unattended(device)?,
    }
    let end = Instant::now() + GONE_TIME;
    while fs::exists(format!("/sys/block/{device}/pid")).unwrap_or(false) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Without its server a device can't be written to, and to wait for that may take for ever.
fn say_what_is_waited_for(device: Device) {
    // Who does not answer is asked again later, and that is told.
    let Ok(Some(Answer::Status(status))) = control::ask(device, Question::Status) else {
        return;
    };
    if status.state == Condition::Reconnecting {
        let trouble = status.kept.and_then(|kept| kept.trouble);
        let why = trouble.map_or(String::new(), |trouble| format!(" ({trouble})"));
        let mut err = io::stderr();
        // Who does not hear it waits all the same.
        let _ = writeln!(
            err,
            "{device} waits for its server{why}; --force detaches it without what was not written"
        );
    }
}

/// Sees that nobody has mounted the device, and that all that was written to it is at the server.
fn finish_writing(device: Device) -> Result<(), String> {
    let path = format!("/dev/{device}");
    let exclusively = rustix::fs::OFlags::EXCL.bits().cast_signed();
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(exclusively)
        .open(&path);
    let file = match opened {
        Ok(file) => file,
        // The kernel says why it is not there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            return Err(format!(
                "{device} is in use: unmount it first, or use --force"
            ));
        }
        Err(error) => return Err(format!("{path}: {error}")),
    };
    let written = file.sync_all();
    written.map_err(|error| format!("{path}: not all could be written: {error}; see --force"))
}

fn detach_unattended(device: Device) -> Result<(), String> {
    let mut kernel = Kernel::open().map_err(|error| error.to_string())?;
    let attached = kernel
        .is_attached(device)
        .map_err(|error| error.to_string())?;
    if !attached {
        return Err(format!("{device} is not attached"));
    }
    kernel.disconnect(device).map_err(|error| error.to_string())
}
