//! Other DHCP servers on our links, asked for by a DISCOVER as a machine sends it.
//!
//! Nothing that they offer is taken. What runs on this very host does not hear what is sent below
//! UDP: `ports` finds that.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Visit;
use super::finding::{Area, Finding};
use crate::dhcp::boot::Mode;
use crate::dhcp::wire::{Message, MessageType, Op, code};
use crate::io::interface::{self, InterfaceAddress};
use crate::io::{CardSender, EAR_BYTES, EarSocket, Hears};
use crate::limits::DHCP_DATAGRAM_MIN;
use crate::mac::MacAddress;
use crate::serve::host;

/// The ports of DHCP.
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Servers that first look whether anybody has the address take up to three seconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Servers that are told of; whoever makes them up makes up no more.
const SERVERS_MAX: usize = 16;

pub(super) fn look(visit: &mut Visit<'_>) {
    let Some(dhcp) = visit.config.dhcp.clone() else {
        return;
    };
    if visit.question.is_silent {
        let what = "not asked for, since nothing is to be sent";
        return visit.found(Finding::unknown(Area::Dhcp, "other DHCP servers", what));
    }
    let all = interface::addresses().unwrap_or_default();
    for name in dhcp.interfaces() {
        // One that is not there was told of.
        let Some(found) = all.iter().find(|one| one.interface == name && one.is_up) else {
            continue;
        };
        visit.looks(format!("other DHCP servers on {name}"));
        let servers = ask(found);
        visit.found(judged(name, dhcp.mode(), servers));
    }
}

fn judged(name: &str, mode: Mode, servers: io::Result<BTreeSet<Ipv4Addr>>) -> Finding {
    let servers = match servers {
        Ok(servers) => servers,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let what = "other servers can't be asked for by this user";
            return Finding::unknown(Area::Dhcp, name, what)
                .advised("run this as root, or with the capability CAP_NET_RAW");
        }
        Err(error) => {
            let what = format!("other servers can't be asked for: {error}");
            return Finding::unknown(Area::Dhcp, name, what);
        }
    };
    let list: Vec<_> = servers.iter().map(ToString::to_string).collect();
    let list = list.join(", ");
    match (mode, list.is_empty()) {
        (Mode::Server, true) => Finding::fine(Area::Dhcp, name, "no other server answers"),
        (Mode::Proxy, false) => Finding::fine(
            Area::Dhcp,
            name,
            format!("{list} gives addresses, as a proxy needs"),
        ),
        (Mode::Server, false) => {
            let what = format!(
                "{list} gives addresses too: machines take those of the first that answers, and \
                 then may not find what to boot"
            );
            Finding::wrong(Area::Dhcp, name, what).advised(
                "switch that one off for this network, or be a proxy beside it: mode = \"proxy\" \
                 in [dhcp]",
            )
        }
        (Mode::Proxy, true) => {
            let what = "no server gives addresses, and a proxy gives none";
            Finding::warning(Area::Dhcp, name, what).advised(
                "start the other server (one on this very host is not heard by this), or have \
                 cowherd be one: mode = \"server\" in [dhcp]",
            )
        }
    }
}

/// The servers that answer a machine on this link.
fn ask(on: &InterfaceAddress) -> io::Result<BTreeSet<Ipv4Addr>> {
    let ear = EarSocket::open(on.index, CLIENT_PORT, Hears::Broadcasts)?;
    let sender = CardSender::open(on.index)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let own: Vec<_> = interface::addresses()?
        .iter()
        .map(|one| one.address)
        .collect();
    let mut servers = runtime.block_on(hear(ear, &sender))?;
    servers.retain(|server| !own.contains(server));
    Ok(servers)
}

async fn hear(ear: EarSocket, sender: &CardSender) -> io::Result<BTreeSet<Ipv4Addr>> {
    let ear = ear.watched()?;
    let discover = discover();
    let bytes = discover.write(DHCP_DATAGRAM_MIN).bytes;
    let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT);
    let mut servers = BTreeSet::new();
    let end = Instant::now() + PATIENCE;
    // One of the two may be lost.
    for until in [Instant::now() + PATIENCE / 5, end] {
        sender.broadcast(&bytes, from, SERVER_PORT)?;
        let mut packet = [0; EAR_BYTES];
        while let Ok(heard) = timeout_at(until, ear.hear(&mut packet)).await {
            let (_, bytes) = heard?;
            servers.extend(offerer(bytes, discover.xid).filter(|_| servers.len() < SERVERS_MAX));
        }
    }
    Ok(servers)
}

/// The server that offers something in answer to our question.
fn offerer(bytes: &[u8], xid: u32) -> Option<Ipv4Addr> {
    let message = Message::read(bytes).ok()?;
    let is_offer = message.op == Op::Reply
        && message.xid == xid
        && matches!(message.kind(), Ok(Some(MessageType::Offer)))
        && !message.yiaddr.is_unspecified();
    let server = message.options.address(code::SERVER_IDENTIFIER)?;
    is_offer.then_some(server)
}

/// As a machine sends it that nobody knows: of a card that was made up just now.
fn discover() -> Message {
    let [a, b, c, d, e, f, g, h, ..] = host::random();
    // Locally administered, and of one card.
    let mac = MacAddress([0x02, a, b, c, d, e]);
    let mut message = Message::request(u32::from_be_bytes([f, g, h, a]), mac);
    // There is nobody to answer ARP for what is offered.
    message.broadcast = true;
    message
        .options
        .set(code::MESSAGE_TYPE, [MessageType::Discover as u8]);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(xid: u32, server: [u8; 4]) -> Vec<u8> {
        let mut reply = discover().reply();
        reply.xid = xid;
        reply.yiaddr = Ipv4Addr::new(10, 0, 0, 9);
        reply
            .options
            .set(code::MESSAGE_TYPE, [MessageType::Offer as u8]);
        reply.options.set(code::SERVER_IDENTIFIER, server);
        reply.write(DHCP_DATAGRAM_MIN).bytes
    }

    #[test]
    fn an_offer_to_us_tells_of_its_server() {
        assert_eq!(
            offerer(&offer(7, [10, 0, 0, 1]), 7),
            Some(Ipv4Addr::new(10, 0, 0, 1))
        );
        assert_eq!(
            offerer(&offer(8, [10, 0, 0, 1]), 7),
            None,
            "somebody else's"
        );
        assert_eq!(offerer(b"no message", 7), None);
    }

    #[test]
    fn a_server_is_too_much_beside_a_server_and_needed_by_a_proxy() {
        use super::super::finding::Level;
        let level = |mode, servers: &[Ipv4Addr]| {
            judged("lan0", mode, Ok(servers.iter().copied().collect())).level
        };
        let one = [Ipv4Addr::new(10, 0, 0, 1)];
        assert_eq!(level(Mode::Server, &[]), Level::Fine);
        assert_eq!(level(Mode::Server, &one), Level::Wrong);
        assert_eq!(level(Mode::Proxy, &one), Level::Fine);
        assert_eq!(level(Mode::Proxy, &[]), Level::Warning);
    }
}
