//! A server in a lab: messages go in, and what comes of them is looked at.

#![allow(clippy::indexing_slicing, reason = "a test ends at the first surprise")]

mod addresses;
mod boots;
mod cards;
mod nuisances;
mod properties;
mod proxy;
mod replies;
mod requests;
mod reserve;

use std::net::SocketAddrV4;
use std::time::Duration;

use super::*;
use crate::dhcp::boot::BootConfig;
use crate::dhcp::settings::{Machine, Network, Told};
use crate::dhcp::wire::code;

const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
const LINK: Link = Link {
    interface: 2,
    address: HERE,
};
/// A machine with an address of its own.
const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
/// A machine that is known, and gets an address of a range.
const FLOATING: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
/// A machine that is in no config.
const GUEST: MacAddress = MacAddress([2, 0, 0, 0, 1, 1]);
const UUID: [u8; 16] = [7; 16];
const HOUR: Duration = Duration::from_secs(3600);

fn here(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, last)
}

fn there(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, 0, last)
}

fn guest(number: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 1, number])
}

fn network(address: Ipv4Addr, range: (Ipv4Addr, Ipv4Addr)) -> Network {
    Network {
        address,
        prefix: 24,
        ranges: vec![range.0..=range.1],
        told: Told::default(),
    }
}

fn machine(name: &str, mac: Option<MacAddress>, address: Option<Ipv4Addr>) -> Machine {
    Machine {
        name: Name::new(name).unwrap(),
        mac,
        client_identifier: None,
        uuid: None,
        address,
        told: Told::default(),
        boot: None,
    }
}

/// Two networks, one of them behind a relay, and four machines.
fn settings() -> Settings {
    let kiosk = Machine {
        client_identifier: Some(b"\0kiosk".to_vec()),
        ..machine("kiosk", None, Some(here(11)))
    };
    let tower = Machine {
        uuid: Some(UUID),
        ..machine("tower", None, Some(here(12)))
    };
    Settings {
        mode: Mode::Server,
        networks: vec![
            network(here(0), (here(100), here(109))),
            network(there(0), (there(100), there(109))),
        ],
        told: Told {
            routers: vec![here(254)],
            lease: Some(3600),
            ..Told::default()
        },
        machines: vec![
            machine("studio-1", Some(OWN), Some(here(10))),
            machine("studio-2", Some(FLOATING), None),
            kiosk,
            tower,
        ],
        boot: BootConfig {
            http: vec!["0.0.0.0:80".parse().unwrap()],
            ..BootConfig::default()
        },
        unknown: Unknown::Serve,
        probe: false,
    }
}

struct Lab {
    server: Server,
    now: Moment,
}

impl Lab {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        Self {
            server: Server::new(settings, Leases::default()),
            now: Moment(1_000_000),
        }
    }

    fn wait(&mut self, length: Duration) {
        self.now = self.now.after(length);
        self.server.handle_timeout(self.now);
    }

    fn probed(&mut self, address: Ipv4Addr, found: Probed) -> Vec<Effect> {
        self.server.handle_probed(self.now, address, found);
        self.effects()
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.server.poll_effect()).collect()
    }

    fn arrive(&mut self, port: Port, from: SocketAddrV4, message: &Message) -> Vec<Effect> {
        let arrival = Arrival {
            link: LINK,
            port,
            from,
            message,
        };
        self.server.handle_message(self.now, &arrival);
        self.effects()
    }

    fn send(&mut self, message: &Message) -> Vec<Effect> {
        let from = SocketAddrV4::new(message.ciaddr, 68);
        self.arrive(Port::Server, from, message)
    }

    /// The one reply that a message gets.
    #[track_caller]
    fn reply(&mut self, message: &Message) -> Reply {
        let effects = self.send(message);
        one_reply(&effects)
    }

    /// Why a message gets no reply.
    #[track_caller]
    fn silence(&mut self, message: &Message) -> Reason {
        let effects = self.send(message);
        match effects.last() {
            Some(Effect::Report(Report {
                what: Event::Ignored(reason),
                ..
            })) if replies(&effects).is_empty() => *reason,
            _ => panic!("{effects:?}"),
        }
    }

    #[track_caller]
    fn offered(&mut self, message: &Message) -> Ipv4Addr {
        let reply = self.reply(message);
        assert_eq!(kind(&reply), Some(MessageType::Offer), "{:?}", reply.why);
        reply.message.yiaddr
    }

    #[track_caller]
    fn acked(&mut self, message: &Message) -> Ipv4Addr {
        let reply = self.reply(message);
        assert_eq!(kind(&reply), Some(MessageType::Ack), "{:?}", reply.why);
        reply.message.yiaddr
    }

    #[track_caller]
    fn refused(&mut self, message: &Message) -> Reply {
        let reply = self.reply(message);
        assert_eq!(kind(&reply), Some(MessageType::Nak), "{:?}", reply.why);
        reply
    }

    /// A machine gets an address, and has it.
    #[track_caller]
    fn boots(&mut self, discover: &Message) -> Ipv4Addr {
        let address = self.offered(discover);
        let mut request = discover.clone();
        request.options.set(code::MESSAGE_TYPE, [3]);
        request
            .options
            .set(code::REQUESTED_ADDRESS, address.octets());
        request.options.set(code::SERVER_IDENTIFIER, HERE.octets());
        assert_eq!(self.acked(&request), address);
        address
    }
}

fn replies(effects: &[Effect]) -> Vec<&Reply> {
    let sent = effects.iter().filter_map(|effect| match effect {
        Effect::Send(reply) => Some(reply),
        _ => None,
    });
    sent.collect()
}

fn events(effects: &[Effect]) -> Vec<Event> {
    let reports = effects.iter().filter_map(|effect| match effect {
        Effect::Report(report) => Some(report.what),
        _ => None,
    });
    reports.collect()
}

fn probes(effects: &[Effect]) -> Vec<Ipv4Addr> {
    let probes = effects.iter().filter_map(|effect| match effect {
        Effect::Probe { address, .. } => Some(*address),
        _ => None,
    });
    probes.collect()
}

fn saved(effects: &[Effect]) -> Vec<&Record> {
    let saved = effects.iter().filter_map(|effect| match effect {
        Effect::Save(record) => Some(record),
        _ => None,
    });
    saved.collect()
}

#[track_caller]
fn one_reply(effects: &[Effect]) -> Reply {
    match replies(effects)[..] {
        [reply] => reply.clone(),
        _ => panic!("{effects:?}"),
    }
}

fn kind(reply: &Reply) -> Option<MessageType> {
    reply.message.kind().unwrap()
}

fn message(kind: MessageType, mac: MacAddress) -> Message {
    let mut message = Message::request(7, mac);
    message.options.set(code::MESSAGE_TYPE, [kind as u8]);
    message
}

fn discover(mac: MacAddress) -> Message {
    message(MessageType::Discover, mac)
}

trait Build: Sized {
    fn option(self, code: u8, value: impl Into<Vec<u8>>) -> Self;
    fn at(self, address: Ipv4Addr) -> Self;
    fn behind(self, relay: Ipv4Addr) -> Self;
    fn wants(self, address: Ipv4Addr) -> Self {
        self.option(code::REQUESTED_ADDRESS, address.octets())
    }
    fn of_server(self, server: Ipv4Addr) -> Self {
        self.option(code::SERVER_IDENTIFIER, server.octets())
    }
}

impl Build for Message {
    fn option(mut self, code: u8, value: impl Into<Vec<u8>>) -> Self {
        self.options.set(code, value);
        self
    }

    fn at(mut self, address: Ipv4Addr) -> Self {
        self.ciaddr = address;
        self
    }

    fn behind(mut self, relay: Ipv4Addr) -> Self {
        self.giaddr = relay;
        self
    }
}

fn accepts(mac: MacAddress, address: Ipv4Addr) -> Message {
    message(MessageType::Request, mac)
        .wants(address)
        .of_server(HERE)
}

fn remembers(mac: MacAddress, address: Ipv4Addr) -> Message {
    message(MessageType::Request, mac).wants(address)
}

fn renews(mac: MacAddress, address: Ipv4Addr) -> Message {
    message(MessageType::Request, mac).at(address)
}

fn uuid_option() -> Vec<u8> {
    [&[0], UUID.as_slice()].concat()
}

fn pxe(mac: MacAddress, architecture: u8) -> Message {
    discover(mac)
        .option(code::VENDOR_CLASS, &b"PXEClient:Arch:00000:UNDI:003016"[..])
        .option(code::ARCHITECTURE, [0, architecture])
        .option(code::MACHINE_UUID, uuid_option())
}
