//! What real firmware, boot loaders and clients sent when they were booted by cowherd, sent again.
//!
//! `tests/firmware/` has the recordings, and its README says what of. Each is a boot that went
//! well: so what is answered to its messages must be, but for times, what was answered then, and
//! what the machine did next, which is in the recording too, must fit what it is told now.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

#[path = "firmware/recording.rs"]
mod recording;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;

use cowherd::dhcp::boot::{BootConfig, Mode, Platform};
use cowherd::dhcp::lease::Leases;
use cowherd::dhcp::server::{Arrival, Destination, Effect, Link, Port, Probed, Server};
use cowherd::dhcp::settings::{Network, Settings, Told, Unknown};
use cowherd::dhcp::wire::{Message, MessageType, code};
use recording::{Heard, Packet, file, packets};
use support::{Setup, Tool, write_file};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const EVERYBODY: Ipv4Addr = Ipv4Addr::BROADCAST;
const LINK: Link = Link {
    interface: 2,
    address: SERVER,
};

const BIOS: &str = "boot/grub/i386-pc/core.0";
const UEFI: &str = "boot/grub/x86_64-efi/core.efi";

/// The server that booted the machine of a recording.
fn server(mode: Mode, boot: BootConfig) -> Server {
    let network = Network {
        address: Ipv4Addr::new(10, 77, 0, 0),
        prefix: 24,
        ranges: match mode {
            Mode::Server => vec![Ipv4Addr::new(10, 77, 0, 100)..=Ipv4Addr::new(10, 77, 0, 109)],
            Mode::Proxy => Vec::new(),
        },
        told: Told::default(),
    };
    let routers = match mode {
        Mode::Server => vec![SERVER],
        Mode::Proxy => Vec::new(),
    };
    let settings = Settings {
        mode,
        networks: vec![network],
        told: Told {
            routers,
            ..Told::default()
        },
        machines: Vec::new(),
        boot,
        unknown: Unknown::Serve,
        probe: true,
    };
    Server::new(settings, Leases::default())
}

fn with_ipxe() -> BootConfig {
    BootConfig {
        ipxe: Some("tftp://10.77.0.1/boot.ipxe".to_owned()),
        files: vec![(Platform::X64, "snponly.efi".to_owned())],
        ..usual()
    }
}

fn usual() -> BootConfig {
    BootConfig {
        http: vec!["0.0.0.0:80".parse().expect("an address")],
        ..BootConfig::default()
    }
}

/// An answer of today.
#[derive(Clone)]
struct Answer {
    to: Destination,
    room: usize,
    length: usize,
    message: Message,
}

/// What a recording comes to when its questions are asked again.
struct Replay {
    /// Each question with its answer.
    exchanges: Vec<(Message, Option<Answer>)>,
    /// What we answered when it was recorded.
    told: Vec<Message>,
    /// What another server answered then.
    told_by_another: Vec<Message>,
    /// Each file that was loaded, after so many exchanges.
    loads: Vec<(usize, String)>,
}

impl Replay {
    fn of(name: &str, mode: Mode, boot: BootConfig) -> Self {
        let mut server = server(mode, boot);
        let mut replay = Self {
            exchanges: Vec::new(),
            told: Vec::new(),
            told_by_another: Vec::new(),
            loads: Vec::new(),
        };
        for packet in packets(name) {
            match packet.heard() {
                Heard::Asks(message) => {
                    assert!([SERVER, EVERYBODY].contains(packet.to.ip()), "{name}");
                    let answer = answer(&mut server, &packet, &message);
                    replay.exchanges.push((message, answer));
                }
                Heard::Told(message) => replay.told.push(message),
                Heard::ToldByAnother(message) => replay.told_by_another.push(message),
                Heard::Loads(file) => replay.loads.push((replay.exchanges.len(), file)),
            }
        }
        assert!(
            !replay.exchanges.is_empty() && !replay.loads.is_empty(),
            "{name}"
        );
        replay
    }

    fn answers(&self) -> impl Iterator<Item = &Answer> {
        self.exchanges
            .iter()
            .filter_map(|(_, answer)| answer.as_ref())
    }

    /// The files that were loaded, one after the other, and the last answer with a boot file
    /// before each.
    fn boots(&self) -> Vec<(&str, &Message)> {
        let told = |before: usize| {
            let answers = self.exchanges[..before].iter().rev();
            let mut told = answers.filter_map(|(_, answer)| answer.as_ref());
            let told = told.find(|answer| !answer.message.file.is_empty());
            &told.expect("an answer with a boot file").message
        };
        let mut boots: Vec<_> = self
            .loads
            .iter()
            .map(|(at, file)| (&file[..], told(*at)))
            .collect();
        // UEFI asks twice for each file: at first for its size only.
        boots.dedup_by_key(|(file, _)| *file);
        boots
    }

    /// Each question has its answer, with this address, and the machine took what it was offered.
    #[track_caller]
    fn assert_one_address(&self, address: Ipv4Addr) {
        for (asked, answer) in &self.exchanges {
            let answer = &answer.as_ref().expect("an answer").message;
            assert_eq!(answer.yiaddr, address, "{asked:?}");
            let expected = match kind(asked) {
                MessageType::Discover => MessageType::Offer,
                MessageType::Request => {
                    assert_eq!(
                        asked.options.address(code::REQUESTED_ADDRESS),
                        Some(address)
                    );
                    MessageType::Ack
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(kind(answer), expected);
        }
    }

    /// The boot file stands in all three places, and it is what the machine went on to load.
    #[track_caller]
    fn assert_loads(&self, files: &[&str]) {
        let boots = self.boots();
        let loaded: Vec<_> = boots.iter().map(|(file, _)| *file).collect();
        assert_eq!(loaded, files);
        for (file, told) in boots {
            let said = told
                .file
                .strip_prefix(b"tftp://10.77.0.1/")
                .unwrap_or(&told.file);
            assert_eq!(said, file.as_bytes(), "what was loaded is what is told");
            assert_eq!(told.siaddr, SERVER);
            let with_nul = [&told.file[..], b"\0"].concat();
            assert_eq!(told.options.get(code::BOOT_FILE), Some(&with_nul[..]));
        }
    }
}

fn kind(message: &Message) -> MessageType {
    message.kind().expect("a type").expect("DHCP")
}

/// What is answered to a packet; nobody has the address that is looked for.
fn answer(server: &mut Server, packet: &Packet, message: &Message) -> Option<Answer> {
    let arrival = Arrival {
        link: LINK,
        port: match packet.to.port() {
            67 => Port::Server,
            4011 => Port::Boot,
            other => panic!("nobody is at port {other}"),
        },
        from: packet.from,
        message,
    };
    server.handle_message(packet.at, &arrival);
    let mut answers = Vec::new();
    while let Some(effect) = server.poll_effect() {
        match effect {
            Effect::Probe { address, .. } => server.handle_probed(packet.at, address, Probed::Free),
            Effect::Send(reply) => {
                let bytes = reply.message.write(reply.room).bytes;
                answers.push(Answer {
                    to: reply.to,
                    room: reply.room,
                    length: bytes.len(),
                    message: Message::read(&bytes).expect("a message"),
                });
            }
            Effect::Save(_) | Effect::Report(_) | Effect::Begin(_) => {}
        }
    }
    assert!(answers.len() <= 1, "one question, one answer");
    answers.pop()
}

/// A message without what depends on the moment.
fn timeless(message: &Message) -> Message {
    let mut same = message.clone();
    same.options = Default::default();
    for (code, value) in message.options.iter() {
        let is_time = [code::LEASE_TIME, code::RENEWAL_TIME, code::REBINDING_TIME].contains(&code);
        same.options.set(code, if is_time { &[] } else { value });
    }
    same
}

/// Every recording, with how its server was set up.
fn all() -> Vec<(&'static str, Replay)> {
    let all = [
        ("bios", Mode::Server, usual()),
        ("uefi", Mode::Server, usual()),
        ("uefi-ipxe", Mode::Server, with_ipxe()),
        ("uefi-http", Mode::Server, usual()),
        ("bios-proxy", Mode::Proxy, usual()),
        ("uefi-proxy", Mode::Proxy, usual()),
    ];
    let replayed = all.map(|(name, mode, boot)| (name, Replay::of(name, mode, boot)));
    replayed.into()
}

fn replay(wanted: &str) -> Replay {
    let found = all().into_iter().find(|(name, _)| *name == wanted);
    found.expect("a recording").1
}

/// Where this fails because answers are to be different from now on: `tools/record-firmware`
/// shows whether firmware takes them.
#[test]
fn machines_are_told_what_they_booted_by() {
    for (name, replay) in all() {
        let now: Vec<_> = replay
            .answers()
            .map(|answer| timeless(&answer.message))
            .collect();
        let then: Vec<_> = replay.told.iter().map(timeless).collect();
        assert_eq!(now, then, "{name}");
    }
}

#[test]
fn every_answer_is_long_enough_and_within_what_edk2_takes() {
    for (name, replay) in all() {
        for answer in replay.answers() {
            assert!(answer.length >= 300, "{name}: {}", answer.length);
            // EDK2 says 65,280 bytes once it has an offer, and drops what has more than 1472.
            assert!(
                answer.length <= answer.room && answer.room <= 1472,
                "{name}"
            );
            let message = &answer.message;
            for never in [code::BOOT_FILE_SIZE, code::OVERLOAD] {
                assert_eq!(message.options.get(never), None, "{name}");
            }
        }
    }
}

#[test]
fn a_bios_has_one_address_from_its_rom_to_its_system() {
    let replay = replay("bios");
    replay.assert_one_address(Ipv4Addr::new(10, 77, 0, 100));
    replay.assert_loads(&[BIOS]);
}

#[test]
fn uefi_has_one_address_from_its_firmware_to_its_system() {
    let replay = replay("uefi");
    replay.assert_one_address(Ipv4Addr::new(10, 77, 0, 100));
    replay.assert_loads(&[UEFI]);
}

#[test]
fn ipxe_gets_the_address_of_its_firmware_and_its_own_script() {
    let mut replay = replay("uefi-ipxe");
    replay.assert_one_address(Ipv4Addr::new(10, 77, 0, 100));
    // The last file is what the script says.
    assert_eq!(
        replay.loads.pop().map(|(_, file)| file),
        Some(UEFI.to_owned())
    );
    replay.assert_loads(&["snponly.efi", "boot.ipxe"]);
}

#[test]
fn uefi_http_boot_loads_its_uri() {
    let replay = replay("uefi-http");
    replay.assert_one_address(Ipv4Addr::new(10, 77, 0, 100));
    replay.assert_loads(&[&format!("http://10.77.0.1/{UEFI}")]);
    let (_, told) = replay.boots()[0];
    assert_eq!(
        told.options.get(code::VENDOR_CLASS),
        Some(&b"HTTPClient"[..])
    );
}

#[test]
fn a_server_calls_itself_a_pxe_server_to_nobody() {
    for name in ["bios", "uefi", "uefi-ipxe"] {
        for Answer { message, .. } in replay(name).answers() {
            assert_eq!(message.options.get(code::VENDOR_CLASS), None, "{name}");
        }
    }
}

/// A proxy never answers what is not booting: here that is GRUB.
#[track_caller]
fn assert_is_proxy(replay: &Replay) {
    assert!(!replay.told_by_another.is_empty());
    for (asked, answer) in &replay.exchanges {
        let boots = asked.vendor_class().starts_with(b"PXEClient");
        assert!(boots || answer.is_none(), "{asked:?}");
    }
    for Answer { message, .. } in replay.answers() {
        assert_eq!(message.yiaddr, Ipv4Addr::UNSPECIFIED);
        assert_eq!(
            message.options.get(code::VENDOR_CLASS),
            Some(&b"PXEClient"[..])
        );
    }
}

#[test]
fn beside_another_server_ipxe_takes_the_file_of_the_offer() {
    let replay = replay("bios-proxy");
    assert_is_proxy(&replay);
    replay.assert_loads(&[BIOS]);
    for Answer { message, to, .. } in replay.answers() {
        assert_eq!(
            (kind(message), *to),
            (MessageType::Offer, Destination::Broadcast)
        );
        assert_eq!(message.options.get(code::VENDOR), Some(&[6, 1, 8, 255][..]));
    }
}

#[test]
fn beside_another_server_uefi_asks_on_port_4011() {
    let replay = replay("uefi-proxy");
    assert_is_proxy(&replay);
    replay.assert_loads(&[UEFI]);
    let answers: Vec<_> = replay.answers().collect();
    let [offer, ack] = answers[..] else {
        panic!("an answer to each question of the firmware that is ours");
    };
    assert_eq!(kind(&offer.message), MessageType::Offer);
    assert_eq!(offer.message.options.get(code::VENDOR), None);
    let given = replay.told_by_another[0].yiaddr;
    assert_eq!(kind(&ack.message), MessageType::Ack);
    assert_eq!(ack.to, Destination::Unicast(SocketAddrV4::new(given, 4011)));
}

#[test]
fn a_recording_is_explained_packet_by_packet() {
    let setup = Setup::new();
    let config = setup.file("cowherd.toml");
    let text = "[image.disk]\nfile = \"/srv/disk.img\"\n\
                [network]\ninterface = \"lan-of-nobody\"\naddress = \"10.77.0.1/24\"\n\
                [dhcp]\nrange = \"10.77.0.100-10.77.0.109\"\nrouter = \"10.77.0.1\"\n";
    write_file(&config, text.as_bytes());
    let mut command = Command::new(env!("CARGO_BIN_EXE_cowherd"));
    command.args(["explain", "--json", "--config"]).arg(&config);
    command.arg("--pcap").arg(file("uefi"));
    let said = Tool::from_command(command, "cowherd").ok();
    let steps: Vec<serde_json::Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object"))
        .collect();
    let firmware = &steps[0]["replies"][0];
    assert_eq!(firmware["message"]["file"], UEFI, "{said}");
    assert!(
        firmware["why"]
            .to_string()
            .contains("architecture 7 is x64"),
        "{said}"
    );
    let answers = steps
        .iter()
        .flat_map(|step| step["replies"].as_array().expect("a list"));
    let addresses: Vec<_> = answers.map(|answer| &answer["message"]["yiaddr"]).collect();
    assert_eq!(addresses.len(), replay("uefi").exchanges.len());
    assert!(
        addresses.iter().all(|address| *address == "10.77.0.100"),
        "{said}"
    );
}
