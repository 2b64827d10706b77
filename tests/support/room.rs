//! A server with all that machines boot by, and machines that boot in a network of the test's own.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::PathBuf;

use cowherd::dhcp::wire::{Message, MessageType, code};
use cowherd::mac::MacAddress;
use serde_json::Value;

use super::nbd::{Address, Client, Handshake};
use super::{Admin, Card, Finished, Host, Lan, Server, Setup, Tool, write_file};

/// The address of the server.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The address of its one named machine, `pc-1`.
pub(crate) const MACHINE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 50);

/// A server and a machine.
pub(crate) struct Room {
    pub(crate) lan: Lan,
    /// Where the server runs.
    pub(crate) host: Host,
    /// A machine that has its address already, so that the kernel lets answers in.
    pub(crate) machine: Host,
    pub(crate) mac: MacAddress,
    pub(crate) setup: Setup,
    pub(crate) config: PathBuf,
    server: Option<Server>,
}

impl Room {
    /// A server that has not started; `more` stands at the end of its config. `None`, loudly, where
    /// there can be no network.
    pub(crate) fn new(more: &str) -> Option<Self> {
        let lan = Lan::new()?;
        let (host, machine) = (lan.host(), lan.host());
        host.ip("addr add 10.77.0.1/24 dev lan0");
        machine.ip("addr add 10.77.0.50/24 dev lan0");
        let setup = Setup::new();
        let root = setup.file("tree");
        std::fs::create_dir(&root).expect("a folder");
        for file in ["core.0", "grub.cfg", "vmlinuz", "initrd.img"] {
            write_file(&root.join(file), &[7; 20_000]);
        }
        write_file(&setup.file("disk.img"), &[b'a'; 1 << 20]);
        let runner = host.runner();
        let runner: Vec<&str> = runner.iter().map(String::as_str).collect();
        let config = setup.file("cowherd.toml");
        let setup = setup.with_listen("10.77.0.1:10809").run_by(&runner);
        let setup = setup.with_arg("--config").with_arg(&config);
        let mac = machine.mac();
        let room = Self {
            lan,
            host,
            machine,
            mac,
            setup,
            config,
            server: None,
        };
        room.write(more);
        Some(room)
    }

    /// The config, with `more` at its end.
    pub(crate) fn write(&self, more: &str) {
        let (image, root) = (self.setup.file("disk.img"), self.setup.file("tree"));
        let mac = self.mac;
        let text = format!(
            "[image.disk]\nfile = {image:?}\n[network]\ninterface = \"lan0\"\n\
             [nbd]\nlisten = [\"10.77.0.1:10809\"]\n\
             [dhcp]\nrange = \"10.77.0.100-10.77.0.199\"\n[tftp]\nroot = {root:?}\n[http]\n\
             [client.pc-1]\nmac = \"{mac}\"\naddress = \"10.77.0.50\"\noverlay = \"persistent\"\n\
             [admin]\nlisten = \"127.0.0.1:9810\"\n{more}"
        );
        write_file(&self.config, text.as_bytes());
    }

    pub(crate) fn start(&mut self) -> &Server {
        // One that runs ends first: it has the ports.
        self.server = None;
        self.server.insert(self.setup.clone().start())
    }

    /// The server ends, as it should.
    pub(crate) fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.terminate();
        }
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().expect("it was started")
    }

    pub(crate) fn admin(&self) -> Admin<'_> {
        Admin::of(self.server(), Some(&self.host))
    }

    /// Starts the server again, to which it is now so many seconds later.
    pub(crate) fn let_pass(&mut self, seconds: u64) {
        let setup = self.server.take().expect("it was started").terminate();
        let file = setup.state().join("boots");
        let text = std::fs::read(&file).expect("boots that were saved");
        let mut saved: Value = serde_json::from_slice(&text).expect("JSON");
        earlier(&mut saved, seconds * 1000);
        write_file(&file, saved.to_string().as_bytes());
        self.server = Some(setup.start());
    }

    /// A command of the program, where the server runs.
    pub(crate) fn cowherd(&self, words: &[&str]) -> Tool {
        let tool = self.host.tool(env!("CARGO_BIN_EXE_cowherd")).args(words);
        tool.arg("--state").arg(self.setup.state())
    }

    /// The firmware of a machine asks for an address.
    pub(crate) fn discovers(&self, card: &Card, mac: MacAddress) -> Message {
        card.broadcast(&bytes(&firmware(MessageType::Discover, mac)), 67);
        let (offer, _) = card.receive();
        assert_eq!(offer.kind(), Ok(Some(MessageType::Offer)));
        offer
    }

    /// It takes what it was offered.
    pub(crate) fn requests(&self, card: &Card, offer: &Message) {
        card.broadcast(&bytes(&taking(offer)), 67);
        let (ack, _) = card.receive();
        assert_eq!(ack.kind(), Ok(Some(MessageType::Ack)));
    }

    /// The machine has its address.
    pub(crate) fn has_address(&self) -> Card {
        let card = self.machine.card("lan0", 68);
        let offer = self.discovers(&card, self.mac);
        self.requests(&card, &offer);
        card
    }

    /// A file by TFTP, as a real client fetches it.
    pub(crate) fn fetches(&self, path: &str) -> Finished {
        let url = format!("tftp://{SERVER}/{path}");
        let curl = self.machine.tool("curl").args(["-sS", "-o", "/dev/null"]);
        curl.args(["--max-time", "20"]).arg(url).run()
    }

    /// The machine loads these files.
    pub(crate) fn loads(&self, paths: &[&str]) {
        for path in paths {
            let finished = self.fetches(path);
            assert_eq!(finished.code, Some(0), "{finished}");
        }
    }

    /// Asks for a file by TFTP, and takes none of what comes.
    pub(crate) fn asks_only(&self, path: &str) -> UdpSocket {
        let request = [&[0, 1][..], path.as_bytes(), b"\0octet\0"].concat();
        self.machine.within(move || {
            let socket = UdpSocket::bind((MACHINE, 0)).expect("a socket");
            let to = SocketAddrV4::new(SERVER, 69);
            socket.send_to(&request, to).expect("a datagram");
            socket
        })
    }

    /// The initramfs of the machine asks for an address.
    pub(crate) fn asks_again(&self) {
        let card = self.machine.card("lan0", 68);
        let mut request = message(MessageType::Request, self.mac);
        request
            .options
            .set(code::REQUESTED_ADDRESS, MACHINE.octets());
        card.broadcast(&bytes(&request), 67);
        let (ack, _) = card.receive();
        assert_eq!(ack.kind(), Ok(Some(MessageType::Ack)));
    }

    /// The machine is greeted by the server of its disk, and has said nothing yet.
    pub(crate) fn greets(&self) -> Handshake {
        let address = Address::Tcp(SocketAddrV4::new(SERVER, 10809).into());
        let greeted = self.machine.within(move || Handshake::start(&address));
        greeted.expect("a greeting")
    }

    /// The machine opens its disk.
    pub(crate) fn opens(&self) -> Client {
        let address = Address::Tcp(SocketAddrV4::new(SERVER, 10809).into());
        let opened = self.machine.within(move || Client::open(&address, "disk"));
        opened.unwrap_or_else(|error| panic!("{error:?}"))
    }
}

/// A message of a machine, answered by broadcast.
pub(crate) fn message(kind: MessageType, mac: MacAddress) -> Message {
    let mut message = Message::request(0x1234_5678, mac);
    message.broadcast = true;
    message.options.set(code::MESSAGE_TYPE, [kind as u8]);
    message
}

/// The same of firmware that boots from the network.
pub(crate) fn firmware(kind: MessageType, mac: MacAddress) -> Message {
    let mut message = message(kind, mac);
    let options = &mut message.options;
    options.set(code::VENDOR_CLASS, *b"PXEClient:Arch:00000:UNDI:002001");
    options.set(code::ARCHITECTURE, [0, 0]);
    options.set(code::NETWORK_INTERFACE, [1, 2, 1]);
    message
}

/// What takes an offer.
pub(crate) fn taking(offer: &Message) -> Message {
    let mut request = firmware(MessageType::Request, offer.chaddr);
    let options = &mut request.options;
    options.set(code::REQUESTED_ADDRESS, offer.yiaddr.octets());
    options.set(code::SERVER_IDENTIFIER, SERVER.octets());
    request
}

/// As it is sent.
pub(crate) fn bytes(message: &Message) -> Vec<u8> {
    message.write(1472).bytes
}

/// Makes all moments in `value` earlier: numbers that are so large are milliseconds since 1970.
fn earlier(value: &mut Value, millis: u64) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(|one| earlier(one, millis)),
        Value::Object(all) => all.values_mut().for_each(|one| earlier(one, millis)),
        Value::Number(number) => {
            if let Some(moment) = number.as_u64().filter(|moment| *moment > 1_000_000_000_000) {
                *value = Value::from(moment - millis);
            }
        }
        _ => {}
    }
}
