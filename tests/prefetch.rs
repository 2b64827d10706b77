//! What boots read of an image is in memory when a machine is switched on.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::fs::File;
use std::path::{Path, PathBuf};

use cowherd::dhcp::wire::{Message, MessageType, code};
use cowherd::disk::ImageMapping;
use cowherd::mac::MacAddress;
use cowherd::units::ByteRange;
use support::nbd::{Address, Client};
use support::{Card, Host, Lan, Server, Setup, eventually, pseudo_random, skipped, write_file};

const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
const PXE: &str = "PXEClient:Arch:00007:UNDI:003016";
const MIB: u64 = 1 << 20;
const SIZE: usize = 64 << 20;

/// A network with a server in it, which may be started again, machine `a`, and a host that sends in
/// its name.
struct Lab {
    setup: Setup,
    card: Card,
    machine: Host,
    _hosts: [Host; 2],
    _lan: Lan,
}

impl Lab {
    fn new() -> Option<Self> {
        let lan = Lan::new()?;
        let (host, sender, machine) = (lan.host(), lan.host(), lan.host());
        host.ip("addr add 10.77.0.1/24 dev lan0");
        sender.ip("addr add 10.77.0.250/24 dev lan0");
        machine.ip("addr add 10.77.0.10/24 dev lan0");
        let setup = Setup::new();
        let (config, image) = (setup.file("cowherd.toml"), setup.file("disk.img"));
        write_file(&image, &pseudo_random(1, SIZE));
        let text = format!(
            "[image.disk]\nfile = \"{}\"\n[network]\ninterface = \"lan0\"\n[dhcp]\n\
             range = \"10.77.0.100-10.77.0.109\"\nprobe = false\n\
             [client.a]\nmac = \"{MAC}\"\naddress = \"10.77.0.10\"\n",
            image.display()
        );
        write_file(&config, text.as_bytes());
        let runner = host.runner();
        let runner: Vec<&str> = runner.iter().map(String::as_str).collect();
        let setup = setup.with_arg("--config").with_arg(&config).with_arg("-v");
        Some(Self {
            setup: setup.with_listen("10.77.0.1:10809").run_by(&runner),
            card: sender.card("lan0", 68),
            machine,
            _hosts: [host, sender],
            _lan: lan,
        })
    }

    fn image(&self) -> PathBuf {
        self.setup.file("disk.img")
    }

    fn boot_set(&self) -> PathBuf {
        self.setup.state().join("overlays/disk+1/.boot-set")
    }

    /// The firmware of the machine asks for an address, and gets one.
    fn switch_on(&self) {
        let mut message = Message::request(0x1234_5678, MAC);
        message.broadcast = true;
        let kind = MessageType::Discover as u8;
        message.options.set(code::MESSAGE_TYPE, [kind]);
        message.options.set(code::VENDOR_CLASS, PXE.as_bytes());
        message.options.set(code::ARCHITECTURE, [0, 7]);
        self.card.broadcast(&message.write(1472).bytes, 67);
        self.card.receive();
    }

    fn session(&self) -> Client {
        let address = Address::Tcp("10.77.0.1:10809".parse().expect("an address"));
        self.machine
            .within(move || Client::open(&address, "disk").expect("its disk"))
    }

    /// The machine boots, for a server that is there as long.
    fn boot_once(&self, reads: &[ByteRange]) {
        let server = self.setup.clone().start();
        let mut client = self.session();
        for read in reads {
            let length = u32::try_from(read.len()).expect("a short read");
            client.read(read.start(), length).expect("a read");
        }
        client.disconnect();
        server.terminate();
    }

    /// A server that finds the image on the disk only; `None` where its file system has no disk.
    fn restarted(&self) -> Option<Server> {
        let server = self.setup.clone().start();
        chill(&self.image()).then_some(server)
    }
}

/// Drops the pages of a file from memory; `false` (said aloud) where its file system keeps them.
fn chill(path: &Path) -> bool {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    let file = File::open(path).expect("a file");
    file.sync_all().expect("a sync");
    if rustix::fs::fstatfs(&file).expect("a file system").f_type == TMPFS_MAGIC {
        skipped("files that can be out of memory, as on tmpfs they can't");
        return false;
    }
    let advice = rustix::fs::Advice::DontNeed;
    rustix::fs::fadvise(&file, 0, None, advice).expect("advice is taken");
    true
}

fn is_in_memory(path: &Path, range: ByteRange) -> bool {
    let file = File::open(path).expect("a file");
    let mapping = ImageMapping::new(&file, SIZE).expect("a mapping");
    mapping.resident(range).expect("the truth about pages")
}

fn range(start: u64, length: u64) -> ByteRange {
    ByteRange::between(start, start + length)
}

#[test]
fn what_a_boot_read_is_in_memory_when_the_machine_is_switched_on_again() {
    let Some(lab) = Lab::new() else { return };
    let (read, other) = (range(20 * MIB + 5, 100_000), range(40 * MIB, 65_536));
    lab.boot_once(&[read]);
    let Some(server) = lab.restarted() else {
        return;
    };
    assert!(!is_in_memory(&lab.image(), read));
    lab.switch_on();
    server.wait_for_log(&["a boots", "of disk+1", "brought into memory"]);
    assert!(is_in_memory(&lab.image(), read));
    assert!(!is_in_memory(&lab.image(), other));
}

#[test]
fn a_machine_that_runs_has_nothing_brought_in() {
    let Some(lab) = Lab::new() else { return };
    let read = range(20 * MIB, 65_536);
    lab.boot_once(&[read]);
    let Some(server) = lab.restarted() else {
        return;
    };
    let _session = lab.session();
    lab.switch_on();
    server.wait_for_log(&["a is up"]);
    assert!(!is_in_memory(&lab.image(), read));
}

#[test]
fn what_boots_read_is_saved_while_the_server_runs() {
    let Some(lab) = Lab::new() else { return };
    let _server = lab.setup.clone().start();
    lab.session().read(20 * MIB, 5).expect("a read");
    eventually(|| match lab.boot_set().exists() {
        true => Ok(()),
        false => Err("no file yet"),
    });
}

#[test]
fn a_damaged_file_is_told_of_and_replaced() {
    let setup = Setup::of_bytes(&pseudo_random(1, 1 << 20));
    let file = setup.state().join("overlays/disk+1/.boot-set");
    let server = setup.start();
    server.client("disk@a").read(5, 5).expect("a read");
    let setup = server.terminate();
    let whole = std::fs::read(&file).expect("what the boot read");
    let mut damaged = whole.clone();
    *damaged.last_mut().expect("a byte") ^= 1;
    write_file(&file, &damaged);
    let server = setup.start();
    server.wait_for_log(&["disk", ".boot-set", "it is damaged", "learnt anew"]);
    server.client("disk@a").read(5, 5).expect("a read");
    let _setup = server.terminate();
    assert_eq!(std::fs::read(&file).expect("a new one"), whole);
}

#[test]
fn nothing_is_remembered_where_that_is_not_wanted() {
    let setup = Setup::of_bytes(&pseudo_random(1, 1 << 20)).with_arg("--no-prefetch");
    let file = setup.state().join("overlays/disk+1/.boot-set");
    let server = setup.start();
    server.client("disk@a").read(5, 5).expect("a read");
    let _setup = server.terminate();
    assert!(file.with_file_name(".identity").exists() && !file.exists());
}
