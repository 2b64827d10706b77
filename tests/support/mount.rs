//! File systems of their own for tests that fill, cut or break them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::tool::{Tool, skipped};

/// A mounted file system, unmounted when dropped.
pub(crate) struct Mount {
    /// Where it is mounted.
    pub(crate) at: PathBuf,
}

impl Mount {
    /// Mounts the file system in `file` by a loop device; none, loudly, where the machine lets us
    /// have none.
    pub(crate) fn new(file: &Path, at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a folder to mount on");
        let mounted = Tool::new("mount")
            .args(["-o", "loop"])
            .arg(file)
            .arg(at)
            .run();
        if mounted.code != Some(0) {
            eprintln!("{mounted}");
            skipped("loop mounts");
            return None;
        }
        Some(Self { at: at.to_owned() })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // The kernel lets go of the files of a ring some time after its process has ended.
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            let unmounted = Tool::new("umount").arg(&self.at).run();
            if unmounted.code == Some(0) {
                return;
            }
            if Instant::now() > deadline {
                eprintln!("{unmounted}");
                return;
            }
        }
    }
}

/// A sparse file of so many MiB with a file system, made by the command `tool`.
pub(crate) fn make_file_system(tool: &[&str], file: &Path, mebibytes: u64) {
    let made = std::fs::File::create(file).expect("room for a sparse file");
    made.set_len(mebibytes << 20)
        .expect("room for a sparse file");
    Tool::new(tool[0]).args(&tool[1..]).arg(file).ok();
}
