//! A block device as the image, as a disk partition or a logical volume would be.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::path::{Path, PathBuf};

use support::{Fingerprint, Setup, Tool, assert_same, is_root, pseudo_random, require, skipped};

/// A loop device over a file, taken away when dropped.
struct Loop {
    device: PathBuf,
}

impl Loop {
    /// None, loudly, where the machine lets us have none.
    fn over(file: &Path) -> Option<Self> {
        if !is_root() {
            skipped("root, for a loop device");
            return None;
        }
        let finished = Tool::new("losetup")
            .args(["--find", "--show"])
            .arg(file)
            .run();
        if finished.code != Some(0) {
            skipped("loop devices");
            return None;
        }
        let device = PathBuf::from(finished.stdout.trim());
        Some(Self { device })
    }

    fn name(&self) -> String {
        let name = self.device.file_name().expect("/dev/loopN has a name");
        name.to_string_lossy().into_owned()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = Tool::new("losetup").arg("-d").arg(&self.device).run();
        if detached.code != Some(0) {
            eprintln!("{detached}");
        }
    }
}

#[test]
fn a_loop_device_is_served_and_kept_over_a_kill() {
    if !require(&["losetup"]) {
        return;
    }
    let mut disk = pseudo_random(1, 4 << 20);
    let setup = Setup::new();
    let file = setup.file("backing");
    support::write_file(&file, &disk);
    let before = Fingerprint::of(&file);
    let Some(device) = Loop::over(&file) else {
        return;
    };
    let export = format!("{}@a", device.name());
    let server = setup.clone().with_image(&device.device).start();
    let mut client = server.client(&export);
    assert_eq!(client.size, 4 << 20);
    assert_same(&client.read_all().expect("a read"), &disk, "the device");
    client.write(4_194_300, b"last").expect("a write");
    client.flush().expect("a flush");
    disk[4_194_300..].copy_from_slice(b"last");
    let server = server.kill().start();
    let seen = server.client(&export).read_all().expect("a read");
    assert_same(&seen, &disk, "after the kill");
    drop(server);
    drop(device);
    assert_eq!(Fingerprint::of(&file), before, "the device was written");
}

#[test]
fn a_loop_device_of_an_odd_number_of_sectors_is_served_whole() {
    if !require(&["losetup"]) {
        return;
    }
    let disk = pseudo_random(2, 4096 + 512);
    let setup = Setup::new();
    let file = setup.file("backing");
    support::write_file(&file, &disk);
    let Some(device) = Loop::over(&file) else {
        return;
    };
    let export = format!("{}@a", device.name());
    let server = setup.clone().with_image(&device.device).start();
    let seen = server.client(&export).read_all().expect("a read");
    assert_same(&seen, &disk, "the device");
    drop(server);
}
