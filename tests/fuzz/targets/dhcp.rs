//! Any datagrams, in any order and at any time, on a DHCP server with few addresses.
//!
//! Promises: no address is leased to two network cards at a time; every reply can be written into
//! the room that its client has, and read again.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use cowherd::dhcp::Moment;
use cowherd::dhcp::boot::{BootConfig, Mode};
use cowherd::dhcp::lease::Leases;
use cowherd::dhcp::server::{Arrival, Effect, Event, Link, Port, Probed, Reply, Server};
use cowherd::dhcp::settings::{Machine, Network, Settings, Told, Unknown};
use cowherd::dhcp::wire::{Message, MessageType, code};
use cowherd::mac::MacAddress;
use cowherd::name::Name;

use super::Input;

const LINK: Link = Link {
    interface: 1,
    address: Ipv4Addr::new(10, 77, 0, 1),
};

fn settings(flags: u8) -> Settings {
    let studio = Machine {
        name: Name::new("studio").unwrap(),
        mac: Some(MacAddress([2, 0, 0, 0, 0, 1])),
        client_identifier: None,
        uuid: None,
        address: Some(Ipv4Addr::new(10, 77, 0, 10)),
        told: Told::default(),
        boot: None,
    };
    Settings {
        mode: if flags & 1 == 0 {
            Mode::Server
        } else {
            Mode::Proxy
        },
        networks: vec![Network {
            address: Ipv4Addr::new(10, 77, 0, 0),
            prefix: 24,
            ranges: vec![Ipv4Addr::new(10, 77, 0, 100)..=Ipv4Addr::new(10, 77, 0, 102)],
            told: Told::default(),
        }],
        told: Told {
            lease: Some(300),
            routers: vec![LINK.address],
            ..Told::default()
        },
        machines: vec![studio],
        boot: BootConfig::default(),
        unknown: Unknown::Serve,
        probe: flags & 2 != 0,
    }
}

/// Who was told to have which address until when.
#[derive(Default)]
struct Promises(BTreeMap<Ipv4Addr, (MacAddress, u64)>);

impl Promises {
    fn sent(&mut self, now: u64, reply: &Reply) {
        let written = reply.message.write(reply.room);
        assert!((300..=1472).contains(&written.bytes.len()), "{reply:?}");
        let message = Message::read(&written.bytes).unwrap();
        let seconds = message.options.number(code::LEASE_TIME);
        let (Ok(Some(MessageType::Ack)), Some(seconds)) = (message.kind(), seconds) else {
            return;
        };
        let until = now + u64::from(seconds) * 1000;
        let entry = self
            .0
            .entry(message.yiaddr)
            .or_insert((message.chaddr, until));
        assert!(
            entry.0 == message.chaddr || entry.1 <= now,
            "{entry:?}: {reply:?}"
        );
        *entry = match entry.0 == message.chaddr {
            true => (entry.0, entry.1.max(until)),
            false => (message.chaddr, until),
        };
    }

    fn see(&mut self, now: u64, effect: &Effect) {
        match effect {
            Effect::Send(reply) => self.sent(now, reply),
            Effect::Report(report) => match report.what {
                Event::Released(address) | Event::Declined(address) => {
                    self.0.remove(&address);
                }
                _ => {}
            },
            Effect::Save(_) | Effect::Probe { .. } | Effect::Begin(_) => {}
        }
    }
}

/// `flags[1]`, and then for each datagram: tenths of a second before it, where it arrives and
/// whether its probe finds somebody, its length, itself.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut server = Server::new(settings(input.byte()), Leases::default());
    let mut promises = Promises::default();
    let mut now = 0;
    while !input.0.is_empty() {
        let [tenths, how] = input.array();
        now += u64::from(tenths) * 100 * if how & 4 == 0 { 1 } else { 100 };
        let length = u16::from_be_bytes(input.array());
        let Ok(message) = Message::read(input.bytes(length.into())) else {
            continue;
        };
        let arrival = Arrival {
            link: LINK,
            port: if how & 1 == 0 {
                Port::Server
            } else {
                Port::Boot
            },
            from: SocketAddrV4::new(message.ciaddr, 68),
            message: &message,
        };
        server.handle_message(Moment(now), &arrival);
        let found = if how & 2 == 0 {
            Probed::Free
        } else {
            Probed::Taken
        };
        while let Some(effect) = server.poll_effect() {
            promises.see(now, &effect);
            if let Effect::Probe { address, .. } = effect {
                server.handle_probed(Moment(now), address, found);
            }
        }
    }
}
