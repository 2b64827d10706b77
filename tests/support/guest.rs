//! A virtual machine with a kernel of Debian and next to nothing else: `tools/make-guest` in QEMU.
//!
//! It reaches the loopback of this host as 10.0.2.2. Its console is its script's standard output,
//! and all that the kernel says.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{Tool, require, skipped};

/// What all of this takes.
const TOOLS: [&str; 4] = ["qemu-system-x86_64", "busybox", "apt-get", "dpkg-deb"];

/// How long a guest may take for one thing: it is emulated, on a busy machine maybe.
const GUEST_TIME: Duration = Duration::from_secs(150);

/// The begin of a line by which a script says that something went wrong.
const FAILED: &str = "FAILED";

/// A guest that runs. It is switched off when dropped.
pub(crate) struct Guest {
    machine: Child,
    lines: Receiver<String>,
    /// All lines so far.
    console: Vec<String>,
}

impl Guest {
    /// Boots a guest with these programs, that runs `script`. `None` where there can be none here.
    pub(crate) fn boot(home: &Path, programs: &[&str], script: &str) -> Option<Self> {
        Self::boot_with(home, programs, script, &[])
    }

    /// The same with more hardware, in words of QEMU.
    pub(crate) fn boot_with(
        home: &Path,
        programs: &[&str],
        script: &str,
        hardware: &[&str],
    ) -> Option<Self> {
        if !require(&TOOLS) || !require(programs) {
            return None;
        }
        let kernels = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("guest");
        let (initramfs, file) = (home.join("initramfs"), home.join("script"));
        std::fs::write(&file, script).expect("a script");
        let made = Tool::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tools/make-guest"))
            .arg(&kernels)
            .arg(&initramfs)
            .arg(&file)
            .arg(env!("CARGO_BIN_EXE_cowherd-attach"))
            .args(programs)
            .run();
        if made.code != Some(0) {
            assert!(std::env::var_os("CI").is_none(), "{made}");
            skipped(&format!("a kernel: {made}"));
            return None;
        }
        let kernel = kernels.join("kernel");
        Some(Self::of(start(&kernel, &initramfs, hardware)))
    }

    fn of(mut machine: Child) -> Self {
        let console = machine.stdout.take().expect("it is piped");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(console).lines().map_while(Result::ok) {
                if sender.send(line.trim_end().to_owned()).is_err() {
                    break;
                }
            }
        });
        Self {
            machine,
            lines,
            console: Vec::new(),
        }
    }

    /// Waits for a line with this in it, and gives what is behind it.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + GUEST_TIME;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no {wanted:?} in the console:\n{}", self.shown());
            };
            self.console.push(line.clone());
            assert!(!line.starts_with(FAILED), "{}", self.shown());
            if let Some((_, rest)) = line.split_once(wanted) {
                return rest.to_owned();
            }
        }
    }

    /// Types a line at the console.
    pub(crate) fn type_line(&mut self, line: &str) {
        let keyboard = self.machine.stdin.as_mut().expect("it is piped");
        writeln!(keyboard, "{line}").expect("the machine runs");
    }

    /// Waits until it has switched itself off; its whole console.
    #[track_caller]
    pub(crate) fn end(mut self) -> String {
        self.wait_for("reboot: Power down");
        self.shown()
    }

    fn shown(&self) -> String {
        self.console.join("\n")
    }
}

fn start(kernel: &Path, initramfs: &Path, hardware: &[&str]) -> Child {
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
        .args(["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "qemu64"])
        .args(["-machine", "q35", "-m", "768", "-display", "none"])
        .args(["-monitor", "none", "-no-reboot", "-serial", "stdio"])
        .args(["-netdev", "user,id=n"])
        .args(["-device", "virtio-net-pci,netdev=n,romfile="])
        .args([
            "-append",
            "console=ttyS0,115200 panic=-1 quiet loglevel=4 net.ifnames=0",
        ])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(hardware)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("QEMU starts")
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.machine.kill();
        let _ = self.machine.wait();
    }
}
