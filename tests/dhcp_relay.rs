//! DHCP through a relay that others wrote: a machine in a network where there is no server.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Child;

use cowherd::dhcp::wire::{Message, MessageType, code};
use cowherd::mac::MacAddress;
use support::{Host, Lan, PATIENCE, Server, Setup, require, write_file};

const CONFIG: &str = r#"
[network]
interface = "lan0"
[dhcp]
range = "10.77.0.100-10.77.0.109"
probe = false
[dhcp.network.far]
address = "10.78.0.0/24"
range = "10.78.0.100-10.78.0.109"
router = "10.78.0.1"
domain = "far.example"
"#;

/// A server in one network, machines in another, and dhcrelay between the two.
struct Site {
    _server: Server,
    far: Lan,
    relay: Child,
    between: Host,
    _home: Host,
    _near: Lan,
}

impl Site {
    /// `None` where there can be no such network.
    fn new() -> Option<Self> {
        if !require(&["dhcrelay"]) {
            return None;
        }
        let (near, far) = (Lan::new()?, Lan::new()?);
        let (home, between) = (near.host(), near.host());
        home.ip("addr add 10.77.0.1/24 dev lan0");
        between.ip("addr add 10.77.0.2/24 dev lan0");
        far.plug(&between, "far0");
        between.ip("addr add 10.78.0.1/24 dev far0");
        home.ip("route add 10.78.0.0/24 via 10.77.0.2");
        let words = "-d -4 -a -id far0 -iu lan0 10.77.0.1";
        let relay = between.spawn("dhcrelay", &words.split(' ').collect::<Vec<_>>());
        Some(Self {
            _server: start(&home),
            far,
            relay,
            between,
            _home: home,
            _near: near,
        })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.relay.kill();
        let _ = self.relay.wait();
    }
}

fn start(home: &Host) -> Server {
    let setup = Setup::new();
    let (image, config) = (setup.file("disk.img"), setup.file("cowherd.toml"));
    write_file(&image, &[7; 4096]);
    let text = format!("[image.disk]\nfile = {image:?}\n{CONFIG}");
    write_file(&config, text.as_bytes());
    let runner = home.runner();
    let runner: Vec<&str> = runner.iter().map(String::as_str).collect();
    let setup = setup.with_arg("--config").with_arg(&config);
    setup.with_listen("10.77.0.1:10809").run_by(&runner).start()
}

const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x57]);

fn message(kind: MessageType) -> Message {
    let mut message = Message::request(0x1234_5678, MAC);
    message.options.set(code::MESSAGE_TYPE, [kind as u8]);
    message
}

#[test]
fn a_machine_gets_an_address_through_dhcrelay() {
    if !require(&["busybox"]) {
        return;
    }
    let Some(site) = Site::new() else { return };
    let machine = site.far.host();
    let said = machine
        .tool("busybox")
        .args("udhcpc -f -q -n -t 8 -T 2 -i lan0 -s /bin/true".split(' '))
        .run();
    assert_eq!(said.code, Some(0), "{said}");
    assert!(said.stderr.contains("lease of 10.78.0.10"), "{said}");
}

#[test]
fn who_asks_for_the_rest_through_dhcrelay_is_told_directly() {
    let Some(site) = Site::new() else { return };
    let machine = site.far.host();
    machine.ip("addr add 10.78.0.88/24 dev lan0");
    machine.ip("route add default via 10.78.0.1");
    let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
    site.between.tool("sh").args(["-c", forward]).ok();
    let card = machine.card("lan0", 68);
    let mut inform = message(MessageType::Inform);
    inform.ciaddr = Ipv4Addr::new(10, 78, 0, 88);
    let answer = support::eventually(|| {
        card.broadcast(&inform.write(1472).bytes, 67);
        card.next(PATIENCE / 20).ok_or("no answer yet")
    });
    let (message, from) = answer;
    assert_eq!(from, SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 1), 67));
    assert_eq!(message.options.get(code::DOMAIN), Some(&b"far.example"[..]));
    assert_eq!(message.yiaddr, Ipv4Addr::UNSPECIFIED);
}
