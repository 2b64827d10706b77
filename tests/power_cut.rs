//! Power cuts, as near as one comes without cutting the power: while the server writes, the disk
//! under its file system is snapshotted at one instant, and the machine goes on from that snapshot.
//!
//! The snapshot is a reflink of the backing file of a loop device, which is atomic. It has what the
//! file system had sent to its disk by then and nothing of what was only in memory; mounting it
//! replays the file system's own journal, as after a power loss.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::path::{Path, PathBuf};

use support::{
    Mount, SECTOR, Seeded, Server, Setup, Stamps, Tool, checkpoint_generation, is_root,
    make_file_system, nearly_fill_journal, require, skipped, write_file,
};

const CUTS: u64 = 12;
const SECTORS: usize = 8000;
/// After about so many flushes, a few cuts later, a checkpoint is due.
const FLUSHES_LEFT: u64 = 120;

/// A machine whose state directory is on a disk that can be snapshotted.
struct Machine {
    // Dropped in this order: the disk lies on the snapshotting file system.
    disk: Option<Mount>,
    backing: PathBuf,
    _outer: Mount,
    setup: Setup,
}

impl Machine {
    fn new(file_system: &[&str]) -> Option<Self> {
        if !require(&["mkfs.btrfs", file_system[0], "mount", "cp"]) {
            return None;
        }
        if !is_root() {
            skipped("root, for mounts");
            return None;
        }
        let setup = Setup::of_bytes(&[0; SECTORS * SECTOR]);
        let outer_file = setup.file("outer.img");
        make_file_system(&["mkfs.btrfs", "-q"], &outer_file, 1500);
        let outer = Mount::new(&outer_file, &setup.file("outer"))?;
        let backing = outer.at.join("disk.img");
        make_file_system(file_system, &backing, 300);
        let disk = Mount::new(&backing, &setup.file("disk"))?;
        let setup = setup.clone().with_state(&disk.at.join("state"));
        Some(Self {
            disk: Some(disk),
            backing,
            _outer: outer,
            setup,
        })
    }

    /// The power goes while the server works, and comes back.
    fn cut(&mut self, server: Server, cut: impl FnOnce(&Path)) {
        let snapshot = self.backing.with_extension("cut");
        cut(&snapshot);
        server.kill();
        let at = self.disk.take().expect("a mounted disk").at.clone();
        std::fs::rename(&snapshot, &self.backing).expect("the snapshot takes its place");
        self.disk = Mount::new(&self.backing, &at);
        self.of_an_earlier_boot();
    }

    /// A host that has lost its power is booted anew: what was noted under the boot before is.
    fn of_an_earlier_boot(&self) {
        let overlay = self.setup.state().join("overlays/disk+1/a");
        for name in ["recent.a", "recent.b"] {
            let path = overlay.join(name);
            let mut bytes = std::fs::read(&path).unwrap_or_default();
            // Maybe its head had not come to the disk by then.
            if let Some(boot) = bytes.get_mut(BOOT_ID) {
                boot.fill(0xb0);
                write_file(&path, &bytes);
            }
        }
    }
}

/// Where a file of notes has the boot that it is of: cowherd-overlay(5).
const BOOT_ID: std::ops::Range<usize> = 48..64;

fn cut_the_power(file_system: &[&str], seed: u64) {
    let Some(mut machine) = Machine::new(file_system) else {
        return;
    };
    let mut random = Seeded(seed);
    let mut stamps = Stamps::new(seed, SECTORS);
    let server = machine.setup.clone().start();
    server.client("disk@a").disconnect();
    let overlay = server.terminate().state().join("overlays/disk+1/a");
    nearly_fill_journal(&overlay, FLUSHES_LEFT);
    for _ in 0..CUTS {
        let server = machine.setup.clone().start();
        let mut clients = [server.client("disk@a"), server.client("disk@a")];
        stamps.check(&clients[0].read_all().expect("a read of all"));
        stamps.scatter(&mut clients[1], random.below(100));
        stamps.work(&mut clients, random.below(300), 8);
        let backing = machine.backing.clone();
        let writes = random.below(100);
        machine.cut(server, |snapshot| {
            stamps.burst(&mut clients, writes);
            Tool::new("cp")
                .arg("--reflink=always")
                .arg(&backing)
                .arg(snapshot)
                .ok();
        });
    }
    let generation = checkpoint_generation(&overlay);
    assert!(generation > 1, "no journal was full");
}

#[test]
fn what_was_acknowledged_outlives_power_cuts_on_ext4() {
    cut_the_power(&["mkfs.ext4", "-q", "-F"], 1);
}

#[test]
fn what_was_acknowledged_outlives_power_cuts_on_btrfs() {
    cut_the_power(&["mkfs.btrfs", "-q"], 2);
}
