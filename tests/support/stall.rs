//! Disks that stop to answer, for a while.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{Tool, eventually, is_root, require, skipped};

/// A file system that takes no writes until this is dropped.
pub(crate) struct Frozen(PathBuf);

impl Frozen {
    pub(crate) fn freeze(at: &Path) -> Self {
        Tool::new("fsfreeze").arg("-f").arg(at).ok();
        Self(at.to_owned())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let thawed = Tool::new("fsfreeze").arg("-u").arg(&self.0).run();
        if thawed.code != Some(0) {
            eprintln!("{thawed}");
        }
    }
}

/// A file whose bytes come from another process, as those of a disk in the network do.
pub(crate) struct StallingDisk {
    fuse: Child,
    at: PathBuf,
}

/// A disk that answers nothing until this is dropped.
pub(crate) struct Stalled<'a>(&'a StallingDisk);

impl StallingDisk {
    /// One of 64 MiB, mounted over a file that is there. `None`, loudly, where there can be none.
    pub(crate) fn over(file: &Path) -> Option<Self> {
        if !require(&["nbdfuse", "nbdkit", "umount"]) {
            return None;
        }
        if !is_root() || !Path::new("/dev/fuse").exists() {
            skipped("mounts of FUSE");
            return None;
        }
        let before = std::fs::metadata(file).expect("a file").dev();
        let fuse = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "nbdfuse", "-r"])
            .arg(file)
            .args(["[", "nbdkit", "--exit-with-parent", "pattern", "64M", "]"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("nbdfuse starts");
        let at = file.to_owned();
        let disk = Self { fuse, at };
        eventually(|| {
            let now = std::fs::metadata(&disk.at).map(|now| now.dev());
            now.as_ref()
                .is_ok_and(|now| *now != before)
                .then_some(())
                .ok_or(now)
        });
        Some(disk)
    }

    pub(crate) fn stall(&self) -> Stalled<'_> {
        self.signal(Signal::STOP);
        Stalled(self)
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.fuse.id()).expect("a process");
        let pid = Pid::from_raw(pid).expect("a process");
        kill_process(pid, signal).expect("it runs");
    }
}

impl Drop for Stalled<'_> {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}

impl Drop for StallingDisk {
    fn drop(&mut self) {
        // It ends with that; who has it open still keeps what is left.
        let unmounted = Tool::new("umount").arg("-l").arg(&self.at).run();
        if unmounted.code != Some(0) {
            eprintln!("{unmounted}");
        }
        let _ = self.fuse.kill();
        let _ = self.fuse.wait();
    }
}
