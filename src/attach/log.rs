//! Where the resident process logs: the kernel's own log, which is never on a disk.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use super::options::Device;

/// How bad it is, as the kernel numbers it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Level {
    Error = 3,
    Warning = 4,
    Info = 6,
}

/// The log.
#[derive(Debug)]
pub(super) struct Log {
    kernel: Option<File>,
    to_stderr: bool,
    device: Device,
}

impl Log {
    /// Opens it while files can be opened.
    pub(super) fn open(device: Device, to_stderr: bool) -> Self {
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let kernel = OpenOptions::new()
            .write(true)
            .custom_flags(nonblocking)
            .open("/dev/kmsg");
        Self {
            kernel: kernel.ok(),
            to_stderr,
            device,
        }
    }

    /// One line. A log that can't be written is nothing to fail for.
    pub(super) fn say(&self, level: Level, text: &str) {
        let device = self.device;
        if self.to_stderr {
            let _ = writeln!(std::io::stderr(), "cowherd-attach: {device}: {text}");
        }
        if let Some(mut kernel) = self.kernel.as_ref() {
            // One write is one line of the kernel's.
            let line = format!("<{}>cowherd-attach: {device}: {text}\n", level as u8);
            let _ = kernel.write_all(line.as_bytes());
        }
    }

    pub(super) fn info(&self, text: &str) {
        self.say(Level::Info, text);
    }

    pub(super) fn warn(&self, text: &str) {
        self.say(Level::Warning, text);
    }

    pub(super) fn error(&self, text: &str) {
        self.say(Level::Error, text);
    }
}
