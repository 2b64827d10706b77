//! What machines changed for one boot only: gone with the next one, and not before.
//!
//! A machine is a host in a network of the test's own. That it is switched on is what its firmware
//! sends then, from its network card or from anybody's.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::net::Ipv4Addr;

use cowherd::dhcp::wire::{Message, MessageType, code};
use cowherd::mac::MacAddress;
use support::nbd::{Address, Client};
use support::{Card, Host, Lan, Server, Setup, write_file};

const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
const PXE: &str = "PXEClient:Arch:00007:UNDI:003016";
const OLD: [u8; 4096] = [b'a'; 4096];
const NEW: [u8; 4096] = [b'n'; 4096];

/// A server with machine `a` at 10.77.0.10 and one that the config does not name, and a host that
/// sends as whoever it likes.
struct Lab {
    lan: Lan,
    server: Server,
    card: Card,
    _hosts: [Host; 2],
}

const SERVING: &str = "range = \"10.77.0.100-10.77.0.109\"\nprobe = false\n";

impl Lab {
    fn new(dhcp: &str, overlay: &str) -> Option<Self> {
        let lan = Lan::new()?;
        let (host, sender) = (lan.host(), lan.host());
        host.ip("addr add 10.77.0.1/24 dev lan0");
        sender.ip("addr add 10.77.0.250/24 dev lan0");
        let setup = Setup::new();
        let (config, image) = (setup.file("cowherd.toml"), setup.file("disk.img"));
        write_file(&image, &OLD);
        let text = format!(
            "[image.disk]\nfile = \"{}\"\n[network]\ninterface = \"lan0\"\n[dhcp]\n{dhcp}\
             [defaults]\noverlay = \"{overlay}\"\n\
             [client.a]\nmac = \"{MAC}\"\naddress = \"10.77.0.10\"\n",
            image.display()
        );
        write_file(&config, text.as_bytes());
        let runner = host.runner();
        let runner: Vec<&str> = runner.iter().map(String::as_str).collect();
        let setup = setup.with_arg("--config").with_arg(&config);
        let setup = setup.with_listen("10.77.0.1:10809").run_by(&runner);
        Some(Self {
            server: setup.start(),
            card: sender.card("lan0", 68),
            lan,
            _hosts: [host, sender],
        })
    }

    /// A machine that runs.
    fn machine(&self, address: &str) -> Host {
        let machine = self.lan.host();
        machine.ip(&format!("addr add {address}/24 dev lan0"));
        machine
    }

    /// A message of a machine's is sent, and answered if it is one to be answered.
    fn send(&self, kind: MessageType, mac: MacAddress, class: &str, wants: Option<Ipv4Addr>) {
        let mut message = Message::request(0x1234_5678, mac);
        message.broadcast = true;
        message.options.set(code::MESSAGE_TYPE, [kind as u8]);
        message.options.set(code::VENDOR_CLASS, class.as_bytes());
        message.options.set(code::ARCHITECTURE, [0, 7]);
        if let Some(address) = wants {
            message
                .options
                .set(code::REQUESTED_ADDRESS, address.octets());
        }
        self.card.broadcast(&message.write(1472).bytes, 67);
        if kind == MessageType::Discover {
            self.card.receive();
        }
    }

    /// The firmware of the machine of the config asks.
    fn switch_on(&self) {
        self.send(MessageType::Discover, MAC, PXE, None);
    }
}

/// A session of a machine.
fn session(machine: &Host) -> Client {
    let address = Address::Tcp("10.77.0.1:10809".parse().expect("an address"));
    machine.within(move || Client::open(&address, "disk").expect("its disk"))
}

fn seen_by(machine: &Host) -> Vec<u8> {
    let mut client = session(machine);
    let seen = client.read(0, 4096).expect("a read");
    client.disconnect();
    seen
}

fn write(client: &mut Client) {
    client.write(0, &NEW).expect("a write");
    client.flush().expect("a flush");
}

fn write_and_leave(machine: &Host) {
    let mut client = session(machine);
    write(&mut client);
    client.disconnect();
}

#[test]
fn what_a_machine_changed_is_gone_when_its_firmware_asks_again() {
    let Some(lab) = Lab::new(SERVING, "ephemeral") else {
        return;
    };
    let machine = lab.machine("10.77.0.10");
    write_and_leave(&machine);
    lab.switch_on();
    assert_eq!(seen_by(&machine), OLD);
}

#[test]
fn a_machine_that_connects_again_finds_what_it_changed() {
    let Some(lab) = Lab::new(SERVING, "ephemeral") else {
        return;
    };
    let machine = lab.machine("10.77.0.10");
    write_and_leave(&machine);
    assert_eq!(seen_by(&machine), NEW);
    // The system that runs there may ask for its address at any time.
    lab.send(MessageType::Discover, MAC, "dhcpcd", None);
    assert_eq!(seen_by(&machine), NEW);
}

#[test]
fn what_is_kept_is_kept_over_boots() {
    let Some(lab) = Lab::new(SERVING, "persistent") else {
        return;
    };
    let machine = lab.machine("10.77.0.10");
    write_and_leave(&machine);
    lab.switch_on();
    assert_eq!(seen_by(&machine), NEW);
}

#[test]
fn the_boot_of_one_machine_leaves_the_others_alone() {
    let Some(lab) = Lab::new(SERVING, "ephemeral") else {
        return;
    };
    let (machine, other) = (lab.machine("10.77.0.10"), lab.machine("10.77.0.11"));
    write_and_leave(&machine);
    write_and_leave(&other);
    lab.switch_on();
    assert_eq!(
        (seen_by(&machine), seen_by(&other)),
        (OLD.into(), NEW.into())
    );
}

#[test]
fn a_machine_that_runs_keeps_its_overlay_whoever_asks_in_its_name() {
    let Some(lab) = Lab::new(SERVING, "ephemeral") else {
        return;
    };
    let machine = lab.machine("10.77.0.10");
    let mut client = session(&machine);
    write(&mut client);
    for _ in 0..20 {
        lab.switch_on();
    }
    // It does nothing all the while; its kernel answers.
    lab.server.wait_for_log(&["disk+1@a", "it stays"]);
    assert_eq!(client.read(0, 4096).expect("a read"), NEW);
    // Nor does a second connection change that.
    assert_eq!(seen_by(&machine), NEW);
}

#[test]
fn a_machine_that_went_without_a_word_boots_afresh() {
    let Some(lab) = Lab::new(SERVING, "ephemeral") else {
        return;
    };
    let before = lab.machine("10.77.0.10");
    let mut client = session(&before);
    write(&mut client);
    let card = before.mac();
    before.ip("link set lan0 down");
    lab.switch_on();
    let after = lab.lan.host();
    after.ip(&format!("link set lan0 address {card}"));
    after.ip("addr add 10.77.0.10/24 dev lan0");
    assert_eq!(seen_by(&after), OLD);
    lab.server.wait_for_log(&["disk+1@a", "dropped"]);
    // What the old system had under way reaches nothing any more.
    after.ip("link set lan0 down");
    before.ip("link set lan0 up");
    assert!(client.write(0, &NEW).is_err());
    assert_eq!(seen_by(&before), OLD);
}

#[test]
fn beside_another_server_boots_are_seen_too() {
    let Some(lab) = Lab::new("mode = \"proxy\"\n", "ephemeral") else {
        return;
    };
    let (machine, nameless) = (lab.machine("10.77.0.10"), lab.machine("10.77.0.50"));
    write_and_leave(&machine);
    write_and_leave(&nameless);
    lab.switch_on();
    assert_eq!(seen_by(&machine), OLD);
    let (stranger, address) = (MacAddress([2; 6]), Ipv4Addr::new(10, 77, 0, 50));
    lab.send(MessageType::Request, stranger, PXE, Some(address));
    lab.server.wait_for_log(&["disk+1@10-77-0-50", "dropped"]);
    assert_eq!(seen_by(&nameless), OLD);
}
