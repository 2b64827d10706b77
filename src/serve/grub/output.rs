//! A tree of files, written so that whoever reads it meanwhile finds the old files or the new ones.
//!
//! Invariants:
//! - What we did not write is neither replaced nor removed: a list in the tree says what is ours,
//!   and with which content. It is written before the first file has its name, so that a crash
//!   leaves nothing that is ours and not in it.
//! - A file gets its name when all of it is on the disk, and after those that it speaks of.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use super::super::options::Failure;
use super::Progress;
use super::plan::Plan;
use crate::limits::{BOOT_FILE_MAX, TREE_LIST_MAX};

/// The list of what is ours.
const LIST: &str = ".cowherd-files";

/// Where files are until they have their names.
const STAGE: &str = ".cowherd-new";

/// What became of the files of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Those that it has now.
    pub files: Vec<Written>,
    /// Those of before that it has no more.
    pub removed: Vec<String>,
}

/// A file of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Its path in the tree.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// What became of it.
    pub state: State,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It was not there.
    New,
    /// It was another one.
    Changed,
    /// It was there already.
    Same,
}

/// What is known of a file by the list: its checksum and size.
type Print = (u32, u64);

/// What is ours. A file may be there with one of several contents.
#[derive(Debug, Default)]
struct List(HashMap<String, HashSet<Print>>);

/// A tree, alone with us.
struct Tree {
    root: PathBuf,
    _lock: File,
    list: List,
}

/// A file that waits for its name.
struct Staged {
    written: Written,
    print: Print,
    /// `None` where it is there already.
    at: Option<PathBuf>,
}

pub(super) fn write(
    root: &Path,
    plan: Plan,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome, Failure> {
    let failed = |error: io::Error| {
        let root = root.display();
        Failure::failed(format!(
            "{root}: {error}; choose a directory that can be written"
        ))
    };
    let tree = Tree::open(root).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            let root = root.display();
            Failure::failed(format!("{root}: another cowherd grub writes it; try again"))
        }
        _ => failed(error),
    })?;
    for planned in &plan.files {
        tree.check_ours(&planned.path)?;
    }
    let total = plan.files.len() as u64;
    let mut staged = Vec::new();
    for (done, planned) in (0..).zip(plan.files) {
        progress(Progress {
            file: planned.path.clone(),
            done,
            total,
        });
        let bytes = planned.source.read(&planned.path)?;
        staged.push(tree.stage(planned.path, &bytes, done).map_err(failed)?);
    }
    tree.finish(staged).map_err(failed)
}

/// What was not finished is of no more use.
impl Drop for Tree {
    fn drop(&mut self) {
        // Where it can't be removed now, the next run does.
        let _ = fs::remove_dir_all(self.root.join(STAGE));
    }
}

impl Tree {
    fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let lock = File::open(root)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let list = List::read(&root.join(LIST))?;
        let stage = root.join(STAGE);
        // Of a run that did not come to its end.
        match fs::remove_dir_all(&stage) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir(&stage)?,
        }
        Ok(Self {
            root: root.to_owned(),
            _lock: lock,
            list,
        })
    }

    /// A file of somebody else's is not replaced.
    fn check_ours(&self, path: &str) -> Result<(), Failure> {
        let at = self.root.join(path);
        let there = match print_of(&at) {
            Ok(None) => return Ok(()),
            Ok(Some(print)) => self
                .list
                .has(path, print)
                .then_some(())
                .ok_or("it is not as cowherd grub wrote it, or was there before"),
            Err(_) => Err("it is no plain file that can be read"),
        };
        there.map_err(|why| {
            let at = at.display();
            Failure::failed(format!(
                "{at}: {why}; move it away, or choose another directory"
            ))
        })
    }

    fn stage(&self, path: String, bytes: &[u8], number: u64) -> io::Result<Staged> {
        let print = (crc32fast::hash(bytes), bytes.len() as u64);
        let there = print_of(&self.root.join(&path))?;
        let state = match there {
            None => State::New,
            Some(there) if there == print => State::Same,
            Some(_) => State::Changed,
        };
        let at = match state {
            State::Same => None,
            _ => Some(self.put(bytes, &format!("{STAGE}/{number}"))?),
        };
        let written = Written {
            path,
            bytes: print.1,
            state,
        };
        Ok(Staged { written, print, at })
    }

    /// A file in the tree, on the disk with all its bytes.
    fn put(&self, bytes: &[u8], path: &str) -> io::Result<PathBuf> {
        let at = self.root.join(path);
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&at)?;
        file.write_all(bytes)?;
        // Whatever the umask: a TFTP server is another user.
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.sync_all()?;
        Ok(at)
    }

    /// Gives all files their names, and takes those away that are no more.
    fn finish(mut self, staged: Vec<Staged>) -> io::Result<Outcome> {
        let wanted: HashSet<_> = staged
            .iter()
            .map(|file| file.written.path.clone())
            .collect();
        let before: Vec<_> = self.list.0.keys().cloned().collect();
        for file in &staged {
            self.list.add(&file.written.path, file.print);
        }
        self.write_list()?;
        let mut after = List::default();
        let mut outcome = Outcome::default();
        for file in staged {
            let to = self.root.join(&file.written.path);
            if let (Some(from), Some(parent)) = (&file.at, to.parent()) {
                self.make_folders(parent)?;
                fs::rename(from, &to)?;
                File::open(parent)?.sync_all()?;
            }
            after.add(&file.written.path, file.print);
            outcome.files.push(file.written);
        }
        for path in before.into_iter().filter(|path| !wanted.contains(path)) {
            let at = self.root.join(&path);
            if matches!(print_of(&at), Ok(Some(print)) if self.list.has(&path, print)) {
                fs::remove_file(&at)?;
                self.remove_empty_folder(&path);
                outcome.removed.push(path);
            }
        }
        outcome.removed.sort();
        self.list = after;
        self.write_list()?;
        fs::remove_dir_all(self.root.join(STAGE))?;
        File::open(&self.root)?.sync_all()?;
        Ok(outcome)
    }

    fn write_list(&self) -> io::Result<()> {
        let at = self.put(self.list.text().as_bytes(), &format!("{STAGE}/list"))?;
        fs::rename(at, self.root.join(LIST))?;
        File::open(&self.root)?.sync_all()
    }

    fn make_folders(&self, folder: &Path) -> io::Result<()> {
        let below = folder.strip_prefix(&self.root).unwrap_or(folder);
        let mut at = self.root.clone();
        for part in below {
            at.push(part);
            match fs::create_dir(&at) {
                Ok(()) => fs::set_permissions(&at, Permissions::from_mode(0o755))?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The folder of a generation that is gone; one that others use is not empty.
    fn remove_empty_folder(&self, path: &str) {
        if let Some((folder, _)) = path.rsplit_once('/').filter(|_| path.starts_with("disk/")) {
            let _ = fs::remove_dir(self.root.join(folder));
        }
    }
}

/// The checksum and size of a file; `None` where there is none.
fn print_of(at: &Path) -> io::Result<Option<Print>> {
    match fs::symlink_metadata(at) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(found) if !found.is_file() => return Err(io::ErrorKind::InvalidInput.into()),
        Ok(found) if found.len() > BOOT_FILE_MAX as u64 => return Ok(Some((0, found.len()))),
        Ok(_) => {}
    }
    let mut file = File::open(at)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut piece = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(Some((hasher.finalize(), size))),
            count => {
                hasher.update(piece.get(..count).unwrap_or_default());
                size += count as u64;
            }
        }
    }
}

impl List {
    fn read(at: &Path) -> io::Result<Self> {
        let file = match File::open(at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            file => file?,
        };
        let mut text = String::new();
        file.take(TREE_LIST_MAX).read_to_string(&mut text)?;
        let mut list = Self::default();
        for line in text.lines() {
            if let Some((path, print)) = entry(line) {
                list.add(path, print);
            }
        }
        Ok(list)
    }

    /// A line for each content: checksum, size, path.
    fn text(&self) -> String {
        let lines = self.0.iter().flat_map(|(path, prints)| {
            let line = move |(sum, size): &Print| format!("{sum:08x} {size} {path}\n");
            prints.iter().map(line)
        });
        let mut lines: Vec<_> = lines.collect();
        lines.sort_by(|one, other| one.rsplit(' ').cmp(other.rsplit(' ')));
        lines.concat()
    }

    fn add(&mut self, path: &str, print: Print) {
        self.0.entry(path.to_owned()).or_default().insert(print);
    }

    fn has(&self, path: &str, print: Print) -> bool {
        self.0
            .get(path)
            .is_some_and(|prints| prints.contains(&print))
    }
}

fn entry(line: &str) -> Option<(&str, Print)> {
    let (sum, rest) = line.split_once(' ')?;
    let (size, path) = rest.split_once(' ')?;
    let print = (u32::from_str_radix(sum, 16).ok()?, size.parse().ok()?);
    // A list that somebody made must not lead out of the tree.
    let is_below = |path: &str| path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    is_below(path).then_some((path, print))
}

#[cfg(test)]
mod tests;
