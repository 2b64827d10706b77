//! Disks that stop to answer, for a while.

use std::path::{Path, PathBuf};

use super::Tool;

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
