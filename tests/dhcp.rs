//! DHCP to real clients, and to requests as firmware sends them, in networks of the tests' own.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cowherd::dhcp::wire::{Message, MessageType, code};
use cowherd::mac::MacAddress;
use rustix::process::Signal;
use support::{Card, Host, Lan, Refusal, Server, Setup, require, write_file};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// A network with a server that has an address and a config, not started yet.
struct Net {
    lan: Lan,
    host: Host,
    setup: Setup,
    config: PathBuf,
}

impl Net {
    /// The config has an image, the network and then `more`. `None` where there can be no network.
    fn new(more: &str) -> Option<Self> {
        let lan = Lan::new()?;
        let host = lan.host();
        host.ip("addr add 10.77.0.1/24 dev lan0");
        let setup = Setup::new();
        let config = setup.file("cowherd.toml");
        write_file(&setup.file("disk.img"), &[b'a'; 4096]);
        let setup = setup
            .with_arg("--config")
            .with_arg(&config)
            .with_listen("10.77.0.1:10809");
        let runner = host.runner();
        let runner: Vec<&str> = runner.iter().map(String::as_str).collect();
        let setup = setup.run_by(&runner);
        let net = Self {
            lan,
            host,
            setup,
            config,
        };
        net.write(more);
        Some(net)
    }

    fn write(&self, more: &str) {
        let image = self.setup.file("disk.img");
        let text = format!(
            "[image.disk]\nfile = \"{}\"\n[network]\ninterface = \"lan0\"\n{more}",
            image.display()
        );
        write_file(&self.config, text.as_bytes());
    }

    fn start(&self) -> Server {
        self.setup.clone().start()
    }

    fn refused(&self) -> Refusal {
        self.setup.refused()
    }

    /// A machine that has no address.
    fn machine(&self) -> Host {
        self.lan.host()
    }

    /// A machine that requests are written for by hand. It has an address of its own, so that the
    /// kernel lets answers in.
    fn sender(&self) -> Host {
        let host = self.lan.host();
        host.ip("addr add 10.77.0.250/24 dev lan0");
        host
    }
}

/// Ten addresses, a router, a name server.
const USUAL: &str = r#"[dhcp]
range = "10.77.0.100-10.77.0.109"
router = "10.77.0.1"
dns = ["10.77.0.3", "10.77.0.4"]
domain = "lab.example"
lease = "1h"
"#;

/// A script for clients that writes down what they were told, one variable a line.
fn script(setup: &Setup) -> (PathBuf, PathBuf) {
    let (script, told) = (setup.file("script"), setup.file("told"));
    let text = format!("#!/bin/sh\nenv >> {}\n", told.display());
    write_file(&script, text.as_bytes());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).expect("a script");
    (script, told)
}

#[track_caller]
fn assert_told(told: &Path, lines: &[&str]) {
    let text = std::fs::read_to_string(told).expect("what the client was told");
    for line in lines {
        assert!(
            text.lines().any(|told| told == *line),
            "{line:?} is not in\n{text}"
        );
    }
}

/// dhclient until it has an address, and no longer.
fn dhclient(net: &Net, host: &Host) -> String {
    let (script, told) = script(&net.setup);
    let (leases, pid) = (
        net.setup.file("dhclient.leases"),
        net.setup.file("dhclient.pid"),
    );
    // Once it has its lease it would go on in the background; -x takes it away again.
    let dhclient = || {
        host.tool("dhclient")
            .args(["-4", "-v", "-lf"])
            .arg(&leases)
            .arg("-pf")
            .arg(&pid)
            .arg("-sf")
            .arg(&script)
    };
    let said = dhclient().args(["-1", "lan0"]).run();
    dhclient().args(["-x", "lan0"]).run();
    assert_eq!(said.code, Some(0), "{said}");
    drop(told);
    said.stderr
}

const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

/// A message of a machine, answered by broadcast.
fn message(kind: MessageType, mac: MacAddress) -> Message {
    let mut message = Message::request(0x1234_5678, mac);
    message.broadcast = true;
    message.options.set(code::MESSAGE_TYPE, [kind as u8]);
    message
}

/// What a machine that boots asks for.
fn boot_request(kind: MessageType, architecture: u16, class: &str) -> Message {
    let mut message = message(kind, MAC);
    message.options.set(code::VENDOR_CLASS, class.as_bytes());
    message
        .options
        .set(code::ARCHITECTURE, architecture.to_be_bytes());
    message.options.set(code::NETWORK_INTERFACE, [1, 3, 16]);
    message
        .options
        .set(code::MACHINE_UUID, [&[0][..], &[7; 16]].concat());
    message
}

fn bytes(message: &Message) -> Vec<u8> {
    message.write(1472).bytes
}

fn kind(message: &Message) -> Option<MessageType> {
    message.kind().expect("a type")
}

/// DISCOVER to OFFER.
fn offer(card: &Card, discover: &Message) -> Message {
    card.broadcast(&bytes(discover), 67);
    let (offer, from) = card.receive();
    assert_eq!(*from.ip(), SERVER);
    assert_eq!(kind(&offer), Some(MessageType::Offer));
    offer
}

/// DISCOVER to ACK; the address.
fn lease(card: &Card, mac: MacAddress) -> Ipv4Addr {
    let offer = offer(card, &message(MessageType::Discover, mac));
    let mut request = message(MessageType::Request, mac);
    request
        .options
        .set(code::REQUESTED_ADDRESS, offer.yiaddr.octets());
    request
        .options
        .set(code::SERVER_IDENTIFIER, SERVER.octets());
    card.broadcast(&bytes(&request), 67);
    let (ack, _) = card.receive();
    assert_eq!(
        (kind(&ack), ack.yiaddr),
        (Some(MessageType::Ack), offer.yiaddr)
    );
    ack.yiaddr
}

#[test]
fn dhclient_gets_an_address_and_what_comes_with_it() {
    if !require(&["dhclient"]) {
        return;
    }
    let Some(net) = Net::new(USUAL) else { return };
    let server = net.start();
    assert_eq!(
        server.announced().last().map(String::as_str),
        Some("dhcp on lan0 (10.77.0.1)")
    );
    let said = dhclient(&net, &net.machine());
    assert!(said.contains("bound to 10.77.0.10"), "{said}");
    let told = net.setup.file("told");
    assert_told(
        &told,
        &[
            "new_subnet_mask=255.255.255.0",
            "new_routers=10.77.0.1",
            "new_domain_name_servers=10.77.0.3 10.77.0.4",
            "new_domain_name=lab.example",
            "new_dhcp_lease_time=3600",
            "new_dhcp_server_identifier=10.77.0.1",
        ],
    );
    server.terminate();
}

#[test]
fn udhcpc_gets_an_address_and_its_boot_file() {
    if !require(&["busybox"]) {
        return;
    }
    let Some(net) = Net::new(USUAL) else { return };
    let server = net.start();
    let (script, told) = script(&net.setup);
    let machine = net.machine();
    machine
        .tool("busybox")
        .args("udhcpc -f -q -n -t 5 -T 2 -i lan0 -x 0x5d:0007 -O 66 -O 67".split(' '))
        .args(["-V", "PXEClient:Arch:00007:UNDI:003016", "-s"])
        .arg(&script)
        .ok();
    assert_told(
        &told,
        &[
            "router=10.77.0.1",
            "siaddr=10.77.0.1",
            "boot_file=boot/grub/x86_64-efi/core.efi",
        ],
    );
    drop(server);
}

#[test]
fn dhcping_is_answered() {
    if !require(&["dhcping"]) {
        return;
    }
    let client = "[client.a]\nmac = \"52:54:00:12:34:56\"\naddress = \"10.77.0.9\"\n";
    let Some(net) = Net::new(&format!("{USUAL}{client}")) else {
        return;
    };
    let _server = net.start();
    let machine = net.machine();
    machine.ip("addr add 10.77.0.9/24 dev lan0");
    let words = "-c 10.77.0.9 -h 52:54:00:12:34:56 -s 10.77.0.1";
    let said = machine.tool("dhcping").args(words.split(' ')).ok();
    assert!(said.contains("Got answer"), "{said}");
}

#[test]
fn nmap_finds_the_server() {
    if !require(&["nmap"]) {
        return;
    }
    let Some(net) = Net::new(USUAL) else { return };
    let _server = net.start();
    let words = "--script broadcast-dhcp-discover --script-args broadcast-dhcp-discover.timeout=3";
    let machine = net.sender();
    let said = machine
        .tool("nmap")
        .args(words.split(' '))
        .args(["-e", "lan0"])
        .ok();
    for words in ["IP Offered: 10.77.0.10", "Server Identifier: 10.77.0.1"] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
}

#[test]
fn perfdhcp_loses_nothing() {
    if !require(&["perfdhcp"]) {
        return;
    }
    let config = "[dhcp]\nrange = \"10.77.0.100-10.77.0.249\"\nprobe = false\n";
    let Some(net) = Net::new(config) else { return };
    let _server = net.start();
    let words = "-4 -l lan0 -r 100 -R 100 -n 300 -d 5 -W 1000000";
    let said = net.sender().tool("perfdhcp").args(words.split(' ')).run();
    assert_eq!(said.code, Some(0), "{said}");
    let drops = said
        .stdout
        .lines()
        .filter(|line| line.starts_with("drops: "));
    let drops: Vec<_> = drops.collect();
    assert_eq!(drops, ["drops: 0", "drops: 0"], "{said}");
}

#[test]
fn a_lease_that_was_acknowledged_survives_kill_9() {
    let Some(net) = Net::new(USUAL) else { return };
    let sender = net.sender();
    let card = sender.card("lan0", 68);
    let others = (1..=3).map(|last| MacAddress([2, 0, 0, 0, 0, last]));
    let before: Vec<_> = {
        let server = net.start();
        let leases = others.clone().map(|mac| lease(&card, mac)).collect();
        server.kill();
        leases
    };
    let _server = net.start();
    let newcomer = lease(&card, MAC);
    assert!(!before.contains(&newcomer), "{newcomer} is {before:?}");
    let after: Vec<_> = others.map(|mac| lease(&card, mac)).collect();
    assert_eq!(after, before);
}

#[test]
fn a_lease_file_that_is_damaged_is_refused() {
    let Some(net) = Net::new(USUAL) else { return };
    let leases = net.setup.state().join("leases");
    let server = net.start();
    let sender = net.sender();
    let card = sender.card("lan0", 68);
    for last in 1..=3 {
        lease(&card, MacAddress([2, 0, 0, 0, 0, last]));
    }
    server.terminate();
    let mut bytes = std::fs::read(&leases).expect("a lease file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    write_file(&leases, &bytes);
    net.refused()
        .says(&["lease file", "damaged", "move it away"]);
}

#[test]
fn an_address_that_somebody_has_is_not_offered() {
    let Some(net) = Net::new(USUAL) else { return };
    let server = net.start();
    let squatter = net.machine();
    squatter.ip("addr add 10.77.0.100/24 dev lan0");
    let sender = net.sender();
    let card = sender.card("lan0", 68);
    let discover = message(MessageType::Discover, MAC);
    card.broadcast(&bytes(&discover), 67);
    server.wait_for_log(&["somebody uses 10.77.0.100"]);
    // The machine asks again, as all do.
    let offer = offer(&card, &discover);
    assert_ne!(offer.yiaddr, Ipv4Addr::new(10, 77, 0, 100));
}

#[test]
fn nobody_is_answered_on_another_interface() {
    let Some(net) = Net::new(&format!("{USUAL}probe = false\n")) else {
        return;
    };
    let other = Lan::new().expect("one more network");
    other.plug(&net.host, "lan1");
    net.host.ip("addr add 10.99.0.1/24 dev lan1");
    let server = net.start();
    assert_eq!(server.announced().len(), 2, "{:?}", server.announced());
    let stranger = other.host();
    stranger.ip("addr add 10.99.0.9/24 dev lan0");
    let (there, sender) = (stranger.card("lan0", 68), net.sender());
    let here = sender.card("lan0", 68);
    let mut of_stranger = message(MessageType::Discover, MacAddress([2; 6]));
    of_stranger.xid = 7;
    there.broadcast(&bytes(&of_stranger), 67);
    there.broadcast(&bytes(&of_stranger), 4011);
    // Neither is it answered on the interface that is served.
    let discover = message(MessageType::Discover, MAC);
    assert_eq!(offer(&here, &discover).xid, discover.xid);
    assert_eq!(
        there
            .next(Duration::from_millis(200))
            .map(|(answer, _)| answer),
        None
    );
}

#[test]
fn another_server_on_the_segment_is_reported() {
    let Some(net) = Net::new(USUAL) else { return };
    let Some(second) = Net::new(USUAL) else {
        return;
    };
    // Its host is on its own network, and on that of the first.
    net.lan.plug(&second.host, "lan1");
    second.host.ip("addr flush dev lan0");
    second.host.ip("addr add 10.77.0.2/24 dev lan1");
    second.write(&USUAL.replace(".100-10.77.0.109", ".200-10.77.0.209"));
    let text = std::fs::read_to_string(&second.config).expect("a config");
    write_file(&second.config, text.replace("lan0", "lan1").as_bytes());
    let rival = second
        .setup
        .clone()
        .with_listen_only("10.77.0.2:10809")
        .start();
    let server = net.start();
    let sender = net.sender();
    let card = sender.card("lan0", 68);
    card.broadcast(&bytes(&message(MessageType::Discover, MAC)), 67);
    let offers = [card.receive().0, card.receive().0];
    let of_rival = offers
        .iter()
        .find(|offer| offer.yiaddr.octets()[3] >= 200)
        .expect("its offer");
    // The machine takes the other's offer, and says so to all.
    let mut request = message(MessageType::Request, MAC);
    request
        .options
        .set(code::REQUESTED_ADDRESS, of_rival.yiaddr.octets());
    request.options.set(code::SERVER_IDENTIFIER, [10, 77, 0, 2]);
    card.broadcast(&bytes(&request), 67);
    server.wait_for_log(&["another DHCP server", "10.77.0.2"]);
    drop(rival);
}

#[test]
fn a_machine_behind_a_relay_gets_an_address_of_its_network() {
    let relayed = "[dhcp.network.far]\naddress = \"10.78.0.0/24\"\n\
                   range = \"10.78.0.50-10.78.0.59\"\nrouter = \"10.78.0.1\"\n";
    let Some(net) = Net::new(&format!("{USUAL}{relayed}")) else {
        return;
    };
    net.host.ip("route add 10.78.0.0/24 via 10.77.0.250");
    let _server = net.start();
    let relay = net.sender();
    relay.ip("addr add 10.78.0.1/24 dev lan0");
    let card = relay.card("lan0", 67);
    let mut discover = message(MessageType::Discover, MAC);
    discover.giaddr = Ipv4Addr::new(10, 78, 0, 1);
    discover.hops = 1;
    discover.broadcast = false;
    let added = [&[1, 3][..], b"abc", &[151, 1, 0]].concat();
    discover.options.set(code::RELAY_AGENT, added.clone());
    card.send(&bytes(&discover), SocketAddrV4::new(SERVER, 67));
    let (offer, from) = card.receive();
    assert_eq!(from, SocketAddrV4::new(SERVER, 67));
    assert_eq!(offer.yiaddr.octets()[..3], [10, 78, 0]);
    assert_eq!(offer.giaddr, discover.giaddr);
    assert_eq!(offer.options.address(code::ROUTER), Some(discover.giaddr));
    assert_eq!(
        offer.options.iter().last(),
        Some((code::RELAY_AGENT, &added[..]))
    );
}

#[test]
fn an_address_that_somebody_has_behind_a_relay_is_not_offered() {
    let relayed =
        "[dhcp.network.far]\naddress = \"10.78.0.0/24\"\nrange = \"10.78.0.50-10.78.0.59\"\n";
    let Some(net) = Net::new(&format!("{USUAL}{relayed}")) else {
        return;
    };
    net.host.ip("route add 10.78.0.0/24 via 10.77.0.250");
    let server = net.start();
    let relay = net.sender();
    relay.ip("addr add 10.78.0.1/24 dev lan0");
    relay.ip("addr add 10.78.0.50/24 dev lan0");
    let card = relay.card("lan0", 67);
    let mut discover = message(MessageType::Discover, MAC);
    discover.giaddr = Ipv4Addr::new(10, 78, 0, 1);
    card.send(&bytes(&discover), SocketAddrV4::new(SERVER, 67));
    server.wait_for_log(&["somebody uses 10.78.0.50"]);
    card.send(&bytes(&discover), SocketAddrV4::new(SERVER, 67));
    let (offer, _) = card.receive();
    assert_ne!(offer.yiaddr, Ipv4Addr::new(10, 78, 0, 50));
}

#[test]
fn a_flood_of_strangers_leaves_an_address_for_a_machine_of_the_config() {
    if !require(&["perfdhcp"]) {
        return;
    }
    let client = format!("[client.a]\nmac = \"{MAC}\"\n");
    let config = format!("{}probe = false\n{client}", USUAL);
    let Some(net) = Net::new(&config) else { return };
    let server = net.start();
    let sender = net.sender();
    let words = "-4 -l lan0 --scenario avalanche -R 200";
    let mut flood = sender.spawn("perfdhcp", &words.split(' ').collect::<Vec<_>>());
    server.wait_for_log(&["no address left"]);
    // The flood goes on meanwhile: it ends when everybody has an address.
    lease(&sender.card("lan0", 68), MAC);
    assert!(
        flood.try_wait().expect("a child").is_none(),
        "the flood is over"
    );
    flood.kill().expect("a child");
    flood.wait().expect("a child");
}

/// What machines of each architecture are told to load by full DHCP.
const FILES: &[(u16, &str, &str)] = &[
    (0, "PXEClient", "boot/grub/i386-pc/core.0"),
    (6, "PXEClient", "boot/grub/i386-efi/core.efi"),
    (7, "PXEClient", "boot/grub/x86_64-efi/core.efi"),
    (9, "PXEClient", "boot/grub/x86_64-efi/core.efi"),
    (10, "PXEClient", "boot/grub/arm-efi/core.efi"),
    (11, "PXEClient", "boot/grub/arm64-efi/core.efi"),
    (27, "PXEClient", "boot/grub/riscv64-efi/core.efi"),
    (39, "PXEClient", "boot/grub/loongarch64-efi/core.efi"),
    (
        15,
        "HTTPClient",
        "http://10.77.0.1/boot/grub/i386-efi/core.efi",
    ),
    (
        16,
        "HTTPClient",
        "http://10.77.0.1/boot/grub/x86_64-efi/core.efi",
    ),
    (
        18,
        "HTTPClient",
        "http://10.77.0.1/boot/grub/arm-efi/core.efi",
    ),
    (
        19,
        "HTTPClient",
        "http://10.77.0.1/boot/grub/arm64-efi/core.efi",
    ),
    (
        28,
        "HTTPClient",
        "http://10.77.0.1/boot/grub/riscv64-efi/core.efi",
    ),
    (
        40,
        "HTTPClient",
        "http://10.77.0.1/boot/grub/loongarch64-efi/core.efi",
    ),
];

#[test]
fn every_architecture_is_told_its_file() {
    let Some(net) = Net::new(&format!("{USUAL}[http]\n")) else {
        return;
    };
    let _server = net.start();
    let sender = net.sender();
    let card = sender.card("lan0", 68);
    for (architecture, class, file) in FILES {
        let says = format!("{class}:Arch:{architecture:05}:UNDI:003016");
        let offer = offer(
            &card,
            &boot_request(MessageType::Discover, *architecture, &says),
        );
        assert_eq!(offer.siaddr, SERVER, "{architecture}");
        assert_eq!(offer.file, file.as_bytes(), "{architecture}");
        let with_nul = format!("{file}\0");
        assert_eq!(
            offer.options.get(code::BOOT_FILE),
            Some(with_nul.as_bytes())
        );
        let class = (*class == "HTTPClient").then_some(class.as_bytes());
        assert_eq!(
            offer.options.get(code::VENDOR_CLASS),
            class,
            "{architecture}"
        );
        assert_eq!(
            offer.options.get(code::MACHINE_UUID).map(<[u8]>::len),
            Some(17)
        );
    }
}

#[test]
fn a_proxy_tells_what_to_load_and_gives_no_address() {
    let Some(net) = Net::new("[dhcp]\nmode = \"proxy\"\n") else {
        return;
    };
    let server = net.start();
    assert_eq!(server.announced()[1], "proxy dhcp on lan0 (10.77.0.1)");
    assert!(!net.setup.state().join("leases").exists());
    let sender = net.sender();
    let card = sender.card("lan0", 68);
    for (architecture, file) in [(0, "i386-pc/core.0"), (7, "x86_64-efi/core.efi")] {
        let class = format!("PXEClient:Arch:{architecture:05}:UNDI:003016");
        let offer = offer(
            &card,
            &boot_request(MessageType::Discover, architecture, &class),
        );
        assert_eq!(
            (offer.yiaddr, offer.siaddr),
            (Ipv4Addr::UNSPECIFIED, SERVER)
        );
        assert_eq!(
            offer.options.get(code::VENDOR_CLASS),
            Some(&b"PXEClient"[..])
        );
        let loads = format!("boot/grub/{file}");
        if architecture == 0 {
            assert_eq!(offer.file, loads.as_bytes());
            assert_eq!(offer.options.get(code::VENDOR), Some(&[6, 1, 8, 255][..]));
        } else {
            assert_eq!(
                offer.options.get(code::VENDOR),
                None,
                "or it does not ask on port 4011"
            );
        }
        // What a UEFI machine does next: it asks on port 4011, with the address it has.
        let mut request = boot_request(MessageType::Request, architecture, &class);
        request.ciaddr = Ipv4Addr::new(10, 77, 0, 250);
        request.broadcast = false;
        let from_4011 = sender.card("lan0", 4011);
        from_4011.send(&bytes(&request), SocketAddrV4::new(SERVER, 4011));
        let (ack, from) = from_4011.receive();
        assert_eq!(from, SocketAddrV4::new(SERVER, 4011));
        assert_eq!(kind(&ack), Some(MessageType::Ack));
        assert_eq!((ack.siaddr, ack.file), (SERVER, loads.into_bytes()));
    }
}

#[test]
fn a_proxy_leaves_machines_that_do_not_boot_to_the_other_server() {
    let Some(net) = Net::new("[dhcp]\nmode = \"proxy\"\n") else {
        return;
    };
    let _server = net.start();
    let sender = net.sender();
    let card = sender.card("lan0", 68);
    card.broadcast(&bytes(&message(MessageType::Discover, MAC)), 67);
    let class = "PXEClient:Arch:00000:UNDI:002001";
    // Messages of one port are answered in their order: the only answer is to the second.
    let mut booting = boot_request(MessageType::Discover, 0, class);
    booting.xid = 2;
    assert_eq!(offer(&card, &booting).xid, 2);
}

#[test]
fn what_is_malformed_is_dropped_counted_and_told() {
    let Some(net) = Net::new(USUAL) else { return };
    let server = net.start();
    let sender = net.sender();
    let card = sender.card("lan0", 68);
    for junk in [&b""[..], b"junk", &[1; 300], &[0xff; 1472]] {
        card.broadcast(junk, 67);
        card.broadcast(junk, 4011);
    }
    server.wait_for_log(&["malformed DHCP datagrams", "10.77.0.250:68"]);
    offer(&card, &message(MessageType::Discover, MAC));
}

#[test]
fn what_is_malformed_is_told_in_full_before_the_end() {
    let Some(net) = Net::new(USUAL) else { return };
    let server = net.start();
    let sender = net.sender();
    let card = sender.card("lan0", 68);
    for _ in 0..101 {
        card.broadcast(b"junk", 67);
    }
    server.wait_for_log(&["dropped 1 malformed"]);
    // What comes behind them is answered behind them.
    offer(&card, &message(MessageType::Discover, MAC));
    server.signal(Signal::TERM);
    server.wait_for_log(&["dropped 100 malformed", "10.77.0.250:68"]);
}

#[test]
fn a_machine_without_an_address_is_answered_at_its_card() {
    let Some(net) = Net::new(USUAL) else { return };
    let server = net.setup.clone().with_arg("-v").start();
    let sender = net.sender();
    let card = sender.card("lan0", 68);
    let bystander = net.lan.host();
    bystander.ip("addr add 10.77.0.251/24 dev lan0");
    let beside = bystander.card("lan0", 68);
    let mut discover = message(MessageType::Discover, sender.mac());
    discover.broadcast = false;
    card.broadcast(&bytes(&discover), 67);
    // The kernel of the sender lets no datagram in that is for an address it does not have.
    server.wait_for_log(&["OFFER", "Hardware", &sender.mac().to_string()]);
    sender.ip("addr add 10.77.0.100/24 dev lan0");
    card.broadcast(&bytes(&discover), 67);
    let (offer, from) = card.receive();
    assert_eq!(kind(&offer), Some(MessageType::Offer));
    assert_eq!(from, SocketAddrV4::new(SERVER, 67));
    // A broadcast would have come to all.
    let overheard = beside.next(Duration::from_millis(200));
    assert_eq!(overheard.map(|(answer, _)| kind(&answer)), None);
}

#[test]
fn sighup_changes_what_machines_are_told() {
    let Some(net) = Net::new(USUAL) else { return };
    let server = net.start();
    let sender = net.sender();
    let card = sender.card("lan0", 68);
    let discover = message(MessageType::Discover, MAC);
    assert_eq!(
        offer(&card, &discover).options.get(code::DOMAIN),
        Some(&b"lab.example"[..])
    );
    net.write(&USUAL.replace("lab.example", "other.example"));
    server.signal(Signal::HUP);
    server.wait_for_log(&["config reloaded"]);
    assert_eq!(
        offer(&card, &discover).options.get(code::DOMAIN),
        Some(&b"other.example"[..])
    );
    net.write(&USUAL.replace("10.77.0.109", "10.77.1.109"));
    server.signal(Signal::HUP);
    server.wait_for_log(&[
        "config not reloaded",
        "cowherd.toml:6",
        "not in 10.77.0.0/24",
    ]);
    offer(&card, &discover);
}

#[test]
fn a_client_with_a_lease_opens_its_own_overlay_without_a_name() {
    if !require(&["nbdinfo"]) {
        return;
    }
    let client = format!("[client.studio-3]\nmac = \"{MAC}\"\n");
    let Some(net) = Net::new(&format!("{USUAL}{client}")) else {
        return;
    };
    let mut server = net.start();
    for _ in 0..2 {
        let sender = net.sender();
        let card = sender.card("lan0", 68);
        let address = lease(&card, MAC);
        sender.ip("addr del 10.77.0.250/24 dev lan0");
        sender.ip(&format!("addr add {address}/24 dev lan0"));
        sender.tool("nbdinfo").arg("nbd://10.77.0.1/disk").ok();
        let overlays = net.setup.state().join("overlays/disk+1");
        assert!(overlays.join("studio-3").is_dir(), "{overlays:?}");
        // After a restart the lease file tells it.
        server.kill();
        std::fs::remove_dir_all(overlays.join("studio-3")).expect("an overlay");
        server = net.start();
    }
}

#[test]
fn what_dhcp_cannot_be_served_on_is_refused() {
    let Some(net) = Net::new(USUAL) else { return };
    let with = |interface: &str, more: &str| {
        net.write(more);
        let text = std::fs::read_to_string(&net.config).expect("a config");
        write_file(&net.config, text.replace("\"lan0\"", interface).as_bytes());
        net.refused()
    };
    with("\"eth9\"", USUAL).says(&["interface eth9", "there is none", "[network]"]);
    with("\"lan0\"\naddress = \"10.77.0.9\"", USUAL).says(&["does not have the address 10.77.0.9"]);
    with("\"lan0\"", "[dhcp]\nrange = \"10.9.0.1-10.9.0.2\"\n")
        .says(&["cowherd.toml:6", "10.77.0.0/24 of lan0"]);
    net.host.ip("link add lan1 type bridge");
    with("\"lan1\"", USUAL).says(&["lan1", "no IPv4 address"]);
}

#[test]
fn a_port_that_another_server_has_is_named() {
    let Some(net) = Net::new(USUAL) else { return };
    let _other = net.host.card("lan0", 67);
    net.refused()
        .says(&["DHCP on lan0", "port 67", "stop the other DHCP"]);
}

/// The lines of a status of the kernel that tell who every thread of a process is.
fn rights_of_threads(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let status = |task: std::io::Result<std::fs::DirEntry>| {
        let path = task.expect("a thread").path().join("status");
        let text = std::fs::read_to_string(path).expect("its status");
        let wanted = |line: &&str| {
            ["Uid:", "Gid:", "CapEff:", "CapPrm:"]
                .iter()
                .any(|of| line.starts_with(of))
        };
        text.lines().filter(wanted).collect::<Vec<_>>().join(" ")
    };
    tasks.map(status).collect()
}

#[test]
fn dhcp_goes_on_after_the_privileges_are_given_up() {
    let user = "user = \"nobody\"\n";
    let Some(net) = Net::new(USUAL) else { return };
    let text = std::fs::read_to_string(&net.config).expect("a config");
    write_file(&net.config, format!("{user}{text}").as_bytes());
    let home = net.config.parent().expect("a folder");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(home, open).expect("a folder");
    std::fs::create_dir(net.setup.state()).expect("a state directory");
    std::os::unix::fs::chown(net.setup.state(), Some(65_534), Some(65_534)).expect("root");
    let server = net.start();
    let rights = rights_of_threads(server.pid());
    assert!(rights.len() > 1, "{rights:?}");
    for thread in rights {
        let words: Vec<_> = thread.split_whitespace().collect();
        let nobody = ["65534"; 4];
        assert_eq!(
            (&words[1..5], &words[6..10]),
            (&nobody[..], &nobody[..]),
            "{thread}"
        );
        assert_eq!(
            (words[11], words[13]),
            ("0000000000000000", "0000000000000000")
        );
    }
    let sender = net.sender();
    lease(&sender.card("lan0", 68), MAC);
    assert!(net.setup.state().join("leases").exists());
    // A message to a card takes a raw socket, which was opened before.
    let said = dhclient(&net, &net.machine());
    assert!(said.contains("bound to 10.77.0.10"), "{said}");
}

#[test]
fn a_user_that_there_is_not_is_refused() {
    let Some(net) = Net::new(USUAL) else { return };
    let text = std::fs::read_to_string(&net.config).expect("a config");
    write_file(
        &net.config,
        format!("user = \"nobody-here\"\n{text}").as_bytes(),
    );
    net.refused()
        .says(&["user nobody-here", "there is none in /etc/passwd"]);
}

/// dnsmasq on the very host of cowherd, giving addresses when it is back.
fn dnsmasq_beside(net: &Net, card: &Card, binding: &[&str]) -> std::process::Child {
    let leases = format!("--dhcp-leasefile={}", net.setup.file("dnsmasq").display());
    let words = "-k -p 0 --conf-file=/dev/null --pid-file= --user=root --no-ping \
                 --dhcp-authoritative --dhcp-range=10.77.0.100,10.77.0.109,1h";
    let words: Vec<_> = words.split_whitespace().chain([leases.as_str()]).collect();
    let dnsmasq = net.host.spawn("dnsmasq", &[&words, binding].concat());
    support::eventually(|| {
        card.broadcast(&bytes(&message(MessageType::Discover, MAC)), 67);
        card.next(Duration::from_millis(100))
            .map(drop)
            .ok_or("no offer")
    });
    while card.next(Duration::from_millis(100)).is_some() {}
    dnsmasq
}

/// Takes a lease and asks its server, and nobody else, for more of it.
#[track_caller]
fn assert_renewed_by_unicast(sender: &Host, card: &Card) {
    let address = lease(card, MAC);
    sender.ip(&format!("addr add {address}/24 dev lan0"));
    let mut renew = message(MessageType::Request, MAC);
    renew.ciaddr = address;
    card.send(&bytes(&renew), SocketAddrV4::new(SERVER, 67));
    let (ack, _) = card.receive();
    assert_eq!((kind(&ack), ack.yiaddr), (Some(MessageType::Ack), address));
}

#[test]
fn a_proxy_leaves_what_is_sent_to_the_other_server_of_its_host_to_that() {
    if !require(&["dnsmasq"]) {
        return;
    }
    let Some(net) = Net::new("[dhcp]\nmode = \"proxy\"\n") else {
        return;
    };
    let sender = net.sender();
    let card = sender.card("lan0", 68);
    let mut dnsmasq = dnsmasq_beside(&net, &card, &["--bind-dynamic", "--interface=lan0"]);
    let _server = net.start();
    assert_renewed_by_unicast(&sender, &card);
    dnsmasq.kill().expect("a child");
    dnsmasq.wait().expect("a child");
}

#[test]
fn a_proxy_serves_beside_a_server_that_has_the_whole_port() {
    if !require(&["dnsmasq"]) {
        return;
    }
    let Some(net) = Net::new("[dhcp]\nmode = \"proxy\"\n") else {
        return;
    };
    let sender = net.sender();
    let card = sender.card("lan0", 68);
    let mut dnsmasq = dnsmasq_beside(&net, &card, &[]);
    let _server = net.start();
    let class = "PXEClient:Arch:00000:UNDI:002001";
    let discover = boot_request(MessageType::Discover, 0, class);
    card.broadcast(&bytes(&discover), 67);
    let offers = [card.receive(), card.receive()];
    let of = |given: bool| {
        let is_it = |offer: &Message| offer.yiaddr.is_unspecified() != given;
        offers
            .iter()
            .find(|(offer, _)| is_it(offer))
            .expect("both offers")
    };
    assert_eq!(of(true).0.yiaddr.octets()[..3], [10, 77, 0]);
    let (proxied, from) = of(false);
    assert_eq!(proxied.file, b"boot/grub/i386-pc/core.0");
    assert_eq!(*from, SocketAddrV4::new(SERVER, 67));
    dnsmasq.kill().expect("a child");
    dnsmasq.wait().expect("a child");
}

#[test]
fn a_proxy_answers_a_relay_that_sends_to_it() {
    let Some(net) = Net::new("[dhcp]\nmode = \"proxy\"\n") else {
        return;
    };
    let _server = net.start();
    let relay = net.sender();
    let card = relay.card("lan0", 67);
    let class = "PXEClient:Arch:00000:UNDI:002001";
    let mut discover = boot_request(MessageType::Discover, 0, class);
    discover.giaddr = Ipv4Addr::new(10, 77, 0, 250);
    card.send(&bytes(&discover), SocketAddrV4::new(SERVER, 67));
    let (offer, from) = card.receive();
    assert_eq!(offer.file, b"boot/grub/i386-pc/core.0");
    assert_eq!(from, SocketAddrV4::new(SERVER, 67));
}

#[test]
fn a_server_that_answers_clients_only_is_reported() {
    let Some(net) = Net::new(USUAL) else { return };
    let server = net.start();
    // The client of this host has the port; it is heard all the same what comes to that.
    let _client = net.host.card("lan0", 68);
    let rival = net.sender();
    let card = rival.card("lan0", 67);
    let mut offer = message(MessageType::Offer, MAC).reply();
    offer
        .options
        .set(code::MESSAGE_TYPE, [MessageType::Offer as u8]);
    offer.options.set(code::SERVER_IDENTIFIER, [10, 77, 0, 250]);
    card.broadcast(&bytes(&offer), 68);
    server.wait_for_log(&["another DHCP server", "10.77.0.250"]);
}

/// Who offers an address through `card`, as the offer says.
fn offering_server(card: &Card) -> Option<Ipv4Addr> {
    card.broadcast(&bytes(&message(MessageType::Discover, MAC)), 67);
    let (offer, from) = card.next(Duration::from_secs(1))?;
    let server = offer.options.address(code::SERVER_IDENTIFIER);
    assert_eq!(server, Some(*from.ip()));
    server
}

#[test]
fn an_address_that_changes_is_noticed_and_offers_come_from_the_new_one() {
    let Some(net) = Net::new(&format!("{USUAL}probe = false\n")) else {
        return;
    };
    let server = net.start();
    let sender = net.sender();
    let card = sender.card("lan0", 68);
    assert_eq!(offering_server(&card), Some(SERVER));
    net.host.ip("addr flush dev lan0");
    net.host.ip("addr add 10.77.0.2/24 dev lan0");
    server.wait_for_log(&["lan0 has changed", "10.77.0.2/24"]);
    assert_eq!(offering_server(&card), Some(Ipv4Addr::new(10, 77, 0, 2)));
}

#[test]
fn an_interface_that_is_made_anew_is_served_again() {
    let Some(net) = Net::new(&format!("{USUAL}probe = false\n")) else {
        return;
    };
    let server = net.start();
    let sender = net.sender();
    let card = sender.card("lan0", 68);
    net.host.ip("link del lan0");
    server.wait_for_log(&["lan0 is gone"]);
    net.lan.plug(&net.host, "lan0");
    net.host.ip("addr add 10.77.0.1/24 dev lan0");
    server.wait_for_log(&["lan0 has changed", "10.77.0.1/24"]);
    assert_eq!(offering_server(&card), Some(SERVER));
}

#[test]
fn an_interface_that_left_the_network_of_the_config_is_not_served_until_it_is_back() {
    let Some(net) = Net::new(&format!("{USUAL}probe = false\n")) else {
        return;
    };
    let server = net.start();
    let sender = net.sender();
    let card = sender.card("lan0", 68);
    net.host.ip("addr flush dev lan0");
    net.host.ip("addr add 10.99.0.1/24 dev lan0");
    server.wait_for_log(&["10.99.0.1/24", "does not fit", "cowherd.toml:6"]);
    assert_eq!(offering_server(&card), None);
    net.host.ip("addr flush dev lan0");
    net.host.ip("addr add 10.77.0.1/24 dev lan0");
    server.wait_for_log(&["lan0 has changed", "10.77.0.1/24"]);
    assert_eq!(offering_server(&card), Some(SERVER));
}

/// The same, where cowherd may not open raw sockets.
fn without_raw_sockets(net: &Net) -> Setup {
    let mut runner = net.host.runner();
    runner.extend(["setpriv", "--bounding-set", "-net_raw"].map(str::to_owned));
    let runner: Vec<&str> = runner.iter().map(String::as_str).collect();
    net.setup.clone().run_by(&runner)
}

#[test]
fn a_proxy_without_raw_sockets_shares_the_port_and_takes_broadcasts_only() {
    if !require(&["dnsmasq", "setpriv"]) {
        return;
    }
    let Some(net) = Net::new("[dhcp]\nmode = \"proxy\"\n") else {
        return;
    };
    let sender = net.sender();
    let card = sender.card("lan0", 68);
    let mut dnsmasq = dnsmasq_beside(&net, &card, &["--bind-dynamic", "--interface=lan0"]);
    let server = without_raw_sockets(&net).start();
    server.wait_for_log(&["no raw sockets on lan0"]);
    let class = "PXEClient:Arch:00000:UNDI:002001";
    card.broadcast(&bytes(&boot_request(MessageType::Discover, 0, class)), 67);
    let offers = [card.receive(), card.receive()];
    let proxied = offers
        .iter()
        .find(|(offer, _)| offer.yiaddr.is_unspecified());
    let (_, from) = proxied.expect("the offer of the proxy");
    assert_eq!(*from, SocketAddrV4::new(SERVER, 67));
    assert_renewed_by_unicast(&sender, &card);
    dnsmasq.kill().expect("a child");
    dnsmasq.wait().expect("a child");
}

#[test]
fn a_proxy_that_can_not_share_the_port_says_how_it_could() {
    if !require(&["dnsmasq", "setpriv"]) {
        return;
    }
    let Some(net) = Net::new("[dhcp]\nmode = \"proxy\"\n") else {
        return;
    };
    let sender = net.sender();
    let card = sender.card("lan0", 68);
    let mut dnsmasq = dnsmasq_beside(&net, &card, &[]);
    without_raw_sockets(&net).refused().says(&[
        "port 67",
        "CAP_NET_RAW",
        "bind-dynamic",
        "bind-interfaces",
    ]);
    dnsmasq.kill().expect("a child");
    dnsmasq.wait().expect("a child");
}

#[test]
fn an_interface_that_is_made_anew_after_the_privileges_are_gone_takes_a_restart() {
    let Some(net) = Net::new(&format!("{USUAL}probe = false\n")) else {
        return;
    };
    let text = std::fs::read_to_string(&net.config).expect("a config");
    write_file(&net.config, format!("user = \"nobody\"\n{text}").as_bytes());
    let home = net.config.parent().expect("a folder");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(home, open).expect("a folder");
    std::fs::create_dir(net.setup.state()).expect("a state directory");
    std::os::unix::fs::chown(net.setup.state(), Some(65_534), Some(65_534)).expect("root");
    let server = net.start();
    net.host.ip("link del lan0");
    net.lan.plug(&net.host, "lan0");
    net.host.ip("addr add 10.77.0.1/24 dev lan0");
    server.wait_for_log(&["lan0 was made anew", "restart cowherd"]);
}
