//! A block device as the image, as a disk partition or a logical volume would be.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::fs::File;
use std::path::{Path, PathBuf};

use support::nbd::{Chunk, ChunkClient, Framing, Wide, command, errno};
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

/// A file cut short under its loop device reads like a disk with bad sectors: the kernel says EIO.
#[test]
fn a_bad_sector_is_told_of_with_its_place_and_the_session_lives_on() {
    if !require(&["losetup"]) {
        return;
    }
    const GOOD: u64 = 32 << 20;
    let disk = pseudo_random(3, 64 << 20);
    let setup = Setup::new();
    let file = setup.file("backing");
    support::write_file(&file, &disk);
    let Some(device) = Loop::over(&file) else {
        return;
    };
    let export = format!("{}@a", device.name());
    let server = setup.clone().with_image(&device.device).start();
    let backing = File::options().write(true).open(&file).expect("the file");
    backing.set_len(GOOD).expect("it can be cut");
    let cached = File::open(&device.device).expect("the device");
    rustix::fs::fadvise(&cached, 0, None, rustix::fs::Advice::DontNeed).expect("advice");
    for framing in [Framing::Structured, Framing::Extended] {
        let mut client = ChunkClient::open(&server.address(), &export, framing, &[]).expect("GO");
        let request = Wide {
            command: command::READ,
            offset: GOOD - 8192,
            len: 65536,
            ..Wide::default()
        };
        let chunks = client.call(&request).expect("a reply");
        let [Chunk::Error { errno, at, .. }] = &chunks[..] else {
            panic!("one error: {chunks:?}");
        };
        assert_eq!((*errno, *at), (errno::EIO, Some(GOOD)));
        let good = client.read(GOOD - 8192, 8192).expect("a read");
        assert_eq!(good[..], disk[33_546_240..33_554_432]);
    }
    let place = format!("byte {GOOD}");
    server.wait_for_log(&["ERROR", device.name().as_str(), "can't be read", &place]);
}
