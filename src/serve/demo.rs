//! The image behind `serve --demo`: a small, real file system.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use thiserror::Error;

use super::listen::BoundAddress;

const DEMO_SIZE: u64 = 64 * 1024 * 1024;

/// FAT labels have eleven bytes.
const LABEL: [u8; 11] = *b"COWHERD    ";

const README: &str = "\
This disk is served by cowherd, to you and to any number of others at the same time.\r\n\
\r\n\
Write to it, format it, delete everything: what you change is kept in an overlay of your\r\n\
own. The image below it is never written, and nobody else sees what you did.\r\n\
\r\n\
Open the export demo@alice from one machine and demo@bob from another, and see.\r\n";

const FILES: [(&str, &str); 4] = [
    ("README.TXT", README),
    (
        "pasture/clover.txt",
        "Every cow finds the same clover here, until it eats some.\r\n",
    ),
    (
        "pasture/brook.txt",
        "The brook runs for the whole herd.\r\n",
    ),
    (
        "barn/straw.txt",
        "Fresh straw. Lie down, the overlay keeps your place.\r\n",
    ),
];

/// The demo image can't be made.
#[derive(Debug, Error)]
#[error("demo image {}: {reason}; choose another directory with --state", path.display())]
pub struct DemoError {
    path: PathBuf,
    reason: io::Error,
}

/// The path of the demo image in `dir`, an existing directory; makes it there the first time.
///
/// # Errors
/// It can't be written.
pub fn demo_image(dir: &Path) -> Result<PathBuf, DemoError> {
    let path = dir.join("demo.img");
    if path.exists() {
        return Ok(path);
    }
    match make(&path) {
        Ok(()) => Ok(path),
        Err(reason) => Err(DemoError { path, reason }),
    }
}

/// Tells what to try with the demo image, in lines for a terminal.
///
/// # Errors
/// Nobody takes the lines.
pub fn write_hints(out: &mut impl Write, address: &BoundAddress) -> io::Result<()> {
    let (a, b) = (address.uri("demo@a"), address.uri("demo@b"));
    writeln!(
        out,
        "\nTry, in another terminal (the tools are Debian's libnbd-bin and qemu-utils):\n\
         \n  nbdinfo {a}\
         \n  qemu-io -f raw -c 'write -P 65 1M 4k' -c flush {a}\
         \n  qemu-io -f raw -c 'read -P 65 1M 4k' {a}   # client a has its change\
         \n  qemu-io -f raw -c 'read -P 65 1M 4k' {b}   # client b does not\n\
         \nStop the server with Ctrl-C and start it again: client a still has its change.\n"
    )
}

/// Fills another file first, so that the image is there whole or not at all.
fn make(path: &Path) -> io::Result<()> {
    let unfinished = path.with_extension("tmp");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&unfinished)?;
    file.set_len(DEMO_SIZE)?;
    fatfs::format_volume(&mut file, FormatVolumeOptions::new().volume_label(LABEL))?;
    file.rewind()?;
    fill(&mut file)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    // An image made anew after a power loss would no longer fit the overlays over it.
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

fn fill(file: &mut File) -> io::Result<()> {
    let system = FileSystem::new(file, FsOptions::new())?;
    let root = system.root_dir();
    for (path, text) in FILES {
        if let Some((folder, _)) = path.split_once('/') {
            root.create_dir(folder)?;
        }
        root.create_file(path)?.write_all(text.as_bytes())?;
    }
    drop(root);
    system.unmount()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_demo_is_a_file_system_with_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = demo_image(dir.path()).unwrap();
        // fatfs wants to write even where it only reads.
        let file = File::options().read(true).write(true).open(path).unwrap();
        let system = FileSystem::new(file, FsOptions::new()).unwrap();
        let label = system.read_volume_label_from_root_dir().unwrap();
        assert_eq!(label.as_deref(), Some("COWHERD"));
        for (path, text) in FILES {
            let mut found = String::new();
            let mut file = system.root_dir().open_file(path).unwrap();
            file.read_to_string(&mut found).unwrap();
            assert_eq!(found, text);
        }
    }

    #[test]
    fn the_demo_is_sparse() {
        let dir = tempfile::tempdir().unwrap();
        let made = demo_image(dir.path()).unwrap().metadata().unwrap();
        assert_eq!(made.len(), DEMO_SIZE);
        assert!(made.blocks() * 512 < DEMO_SIZE / 8);
    }

    #[test]
    fn a_demo_that_is_there_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = demo_image(dir.path()).unwrap();
        let made = path.metadata().unwrap().modified().unwrap();
        assert_eq!(demo_image(dir.path()).unwrap(), path);
        assert_eq!(path.metadata().unwrap().modified().unwrap(), made);
        assert!(!path.with_extension("tmp").exists());
    }

    #[test]
    fn a_directory_that_is_not_there_is_told_in_one_line() {
        let error = demo_image(Path::new("/nonexistent")).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("demo image /nonexistent/demo.img: "));
        assert!(!message.contains('\n'));
    }
}
