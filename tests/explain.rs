//! `cowherd explain`: answers for people and for programs, of machines and of captures.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use cowherd::dhcp::wire::{Message, MessageType, code};
use cowherd::mac::MacAddress;
use serde_json::Value;
use support::{Finished, Refusal, Setup, Tool, write_file};

const CONFIG: &str = r#"
[image.disk]
file = "/srv/disk.img"
[network]
interface = "lan-of-nobody"
address = "10.77.0.1/24"
[dhcp]
range = "10.77.0.100-10.77.0.200"
router = "10.77.0.1"
"#;

struct Explain {
    folder: Setup,
    config: PathBuf,
}

impl Explain {
    fn new() -> Self {
        let folder = Setup::new();
        let config = folder.file("cowherd.toml");
        write_file(&config, CONFIG.as_bytes());
        Self { folder, config }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cowherd"));
        command
            .arg("explain")
            .arg("--config")
            .arg(&self.config)
            .args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Finished {
        Tool::from_command(self.command(words), "cowherd").run()
    }

    /// The objects that it prints.
    fn json(&self, words: &[&str]) -> Vec<Value> {
        let words = [words, &["--json"]].concat();
        let finished = self.run(&words);
        assert_eq!(finished.code, Some(0), "{finished}");
        let lines = finished.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("an object"))
            .collect()
    }
}

const MACHINE: [&str; 4] = ["--mac", "52:54:00:12:34:56", "--arch", "x64"];

#[test]
fn a_machine_is_told_its_offer_and_why() {
    let finished = Explain::new().run(&MACHINE);
    assert_eq!(finished.code, Some(0), "{finished}");
    for words in [
        "OFFER of 52:54:00:12:34:56",
        "boot/grub/x86_64-efi/core.efi",
        "option 3 routers",
        "since architecture 7 is x64",
    ] {
        assert!(
            finished.stdout.contains(words),
            "{words:?} is not in {finished}"
        );
    }
}

#[test]
fn programs_get_one_object_a_message() {
    let steps = Explain::new().json(&MACHINE);
    assert_eq!(steps.len(), 2);
    assert_eq!(steps[0]["message"]["kind"], "DISCOVER");
    assert_eq!(steps[1]["replies"][0]["message"]["kind"], "ACK");
    assert!(
        steps[1]["replies"][0]["why"]
            .as_array()
            .is_some_and(|why| !why.is_empty())
    );
}

/// A capture of these datagrams from 0.0.0.0 to port 67.
fn capture(datagrams: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0xa1, 0xb2, 0xc3, 0xd4, 0, 2, 0, 4];
    bytes.extend([0; 12]);
    // Bare IP.
    bytes.extend([0, 0, 0, 101]);
    for datagram in datagrams {
        let udp = u16::try_from(datagram.len() + 8).expect("a datagram");
        let mut packet = vec![0x45, 0];
        packet.extend((udp + 20).to_be_bytes());
        packet.extend([
            0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 68, 0, 67,
        ]);
        packet.extend(udp.to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(datagram);
        let length = u32::try_from(packet.len()).expect("a packet").to_be_bytes();
        bytes.extend([[0; 4], [0; 4], length, length].concat());
        bytes.extend(packet);
    }
    bytes
}

#[test]
fn each_packet_of_a_capture_is_answered_in_turn() {
    let explain = Explain::new();
    let mac = MacAddress([2, 0, 0, 0, 0, 1]);
    let mut discover = Message::request(1, mac);
    discover
        .options
        .set(code::MESSAGE_TYPE, [MessageType::Discover as u8]);
    let mut request = discover.clone();
    request
        .options
        .set(code::MESSAGE_TYPE, [MessageType::Request as u8]);
    request.options.set(
        code::REQUESTED_ADDRESS,
        Ipv4Addr::new(10, 77, 0, 100).octets(),
    );
    request.options.set(
        code::SERVER_IDENTIFIER,
        Ipv4Addr::new(10, 77, 0, 1).octets(),
    );
    let datagrams = [
        discover.write(548).bytes,
        b"junk".to_vec(),
        request.write(548).bytes,
    ];
    let path = explain.folder.file("boot.pcap");
    write_file(&path, &capture(&datagrams));
    let steps = explain.json(&["--pcap", path.to_str().expect("a path")]);
    assert_eq!(steps.len(), 3);
    assert_eq!(steps[0]["replies"][0]["message"]["yiaddr"], "10.77.0.100");
    assert!(
        steps[1]["notes"][0]["what"]
            .as_str()
            .is_some_and(|what| what.contains("malformed"))
    );
    assert_eq!(steps[2]["packet"], 3);
    assert_eq!(steps[2]["replies"][0]["message"]["kind"], "ACK");
}

#[test]
fn what_cannot_be_explained_is_told_in_one_line() {
    let explain = Explain::new();
    let refused = |words: &[&str]| Refusal::of(explain.command(words));
    let refusal = refused(&["--pcap", "/nonexistent.pcap"]);
    refusal.says(&["/nonexistent.pcap", "no such file"]);
    assert_eq!(refusal.code, 1);
    let config = explain.config.to_str().expect("a path");
    refused(&["--pcap", config]).says(&["no pcap file", "tcpdump"]);
    let refusal = refused(&["--mac", "52:54:00:12:34:56", "--arch", "vax"]);
    refusal.says(&["vax", "loongarch64"]);
    assert_eq!(refusal.code, 2);
}
