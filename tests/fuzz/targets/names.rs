//! Any names, in a directory with any link in it.
//!
//! Promise: what is opened is a file inside of the directory, whatever a name or a link says.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::sync::{Mutex, OnceLock};

use cowherd::boot::files::Files;
use cowherd::tftp::name::path_of;
use tempfile::TempDir;

use super::Input;

const INSIDE: &[u8] = b"inside";

/// `root` with some files and links, beside files that nobody may read.
struct Tree {
    home: TempDir,
    files: Files,
}

fn tree() -> &'static Mutex<Tree> {
    static TREE: OnceLock<Mutex<Tree>> = OnceLock::new();
    TREE.get_or_init(|| {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("root");
        for path in [
            "root/boot/grub/grub.cfg",
            "root/a",
            "secret",
            "rootsecret",
            "boot/secret",
        ] {
            let is_inside = path.starts_with("root/");
            let path = home.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, if is_inside { INSIDE } else { b"secret" }).unwrap();
        }
        for (name, target) in [
            ("up", ".."),
            ("root", "/"),
            ("boot/up", "../../secret"),
            ("boot/out", home.path().to_str().unwrap()),
            ("self", "/proc/self/root"),
            ("round", "round"),
        ] {
            symlink(target, root.join(name)).unwrap();
        }
        let files = Files::below(&root).unwrap();
        Mutex::new(Tree { home, files })
    })
}

/// `length[1]` and the target of a link `l`, and then the name that a client asks for.
pub(crate) fn run(data: &[u8]) {
    let tree = tree()
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut input = Input(data);
    let length = input.byte();
    let target = input.bytes(length.into());
    let link = tree.home.path().join("root/l");
    let _ = fs::remove_file(&link);
    if !target.is_empty() && !target.contains(&0) {
        // One that is too long is none.
        let _ = symlink(OsStr::from_bytes(target), &link);
    }
    let Ok(path) = path_of(input.0) else {
        return;
    };
    if let Ok(Some(content)) = tree.files.open(&path) {
        let mut bytes = vec![0; usize::try_from(content.size()).unwrap()];
        content.read_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, INSIDE, "{path:?} by {target:?}");
    }
}
