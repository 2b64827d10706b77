//! `cowherd explain`: what DHCP would say to a machine, or to those of a capture, and why.
//!
//! The answers come from the same core as those of a running server, on a copy that has no leases.
//! Nothing is sent and no state is touched.

mod capture;
mod loaders;
mod show;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::options::Failure;
use crate::config::{Config, DhcpConfig, OwnNetwork};
use crate::dhcp::Moment;
use crate::dhcp::boot::{ARCHITECTURES, Architecture, Mode, Transport};
use crate::dhcp::lease::Leases;
use crate::dhcp::server::{Arrival, Effect, Event, Link, Port, Probed, Reply, Server};
use crate::dhcp::wire::{Message, MessageType, Op, code};
use crate::io::interface;
use crate::limits::EXPLAINED_PACKETS_MAX;
use crate::mac::MacAddress;
use capture::Packet;
use loaders::Loaders;
pub use show::{Shown, ShownOption};

/// What is to be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The config file.
    pub config: PathBuf,
    /// Whose requests.
    pub of: Of,
}

/// Whose requests are explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    /// Those of a machine that boots.
    Machine(Machine),
    /// Those in a capture.
    Capture(PathBuf),
}

/// A machine that boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its network card.
    pub mac: MacAddress,
    /// The number of its architecture.
    pub architecture: u16,
    /// Whether iPXE asks, and not the firmware below it.
    pub ipxe: bool,
    /// The relay that it is behind.
    pub relay: Option<Ipv4Addr>,
}

/// One message, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Which packet of the capture it is, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packet: Option<u64>,
    /// The message; `None` where it is malformed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Shown>,
    /// What it is answered.
    pub replies: Vec<Answer>,
    /// What else comes of it: why it is not answered, what is noticed.
    pub notes: Vec<Note>,
}

/// A reply, and why it is as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Where it goes.
    pub to: String,
    /// What it says.
    pub message: Shown,
    /// The rules that led to it, in order.
    pub why: Vec<String>,
}

/// Something that is noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// What.
    pub what: String,
    /// The rules that led to it, in order.
    pub why: Vec<String>,
}

/// The number of an architecture by its name or number, for UEFI HTTP boot where `http` says so.
///
/// # Errors
/// There is none such, or it knows no HTTP boot.
pub fn architecture(text: &str, http: bool) -> Result<u16, String> {
    let named = |of: &&Architecture| of.name == text || Ok(of.number) == text.parse();
    let Some(found) = ARCHITECTURES.iter().find(named) else {
        // Numbers that are not served are explained too: as such.
        return text.parse().map_err(|_| {
            let names: Vec<_> = ARCHITECTURES.iter().map(|of| of.name).collect();
            format!(
                "no architecture; they are {}, or a number",
                names.join(", ")
            )
        });
    };
    if !http {
        return Ok(found.number);
    }
    let other = ARCHITECTURES.iter();
    let mut other = other.filter(|of| of.transport == Transport::Http);
    match other.find(|of| of.platform == found.platform) {
        Some(of) => Ok(of.number),
        None => Err(format!("{text} knows no UEFI HTTP boot")),
    }
}

/// Explains; each step is handed out as it is made.
///
/// # Errors
/// One line: what is wrong with the config or the capture.
pub fn run(question: &Question, step: &mut dyn FnMut(Step)) -> Result<(), Failure> {
    let mut explainer = Explainer::new(&question.config)?;
    match &question.of {
        Of::Machine(machine) => explainer.machine(*machine).into_iter().for_each(step),
        Of::Capture(path) => {
            let file = std::fs::File::open(path);
            let unreadable = |why: &dyn std::fmt::Display| {
                Failure::failed(format!("capture {}: {why}", path.display()))
            };
            let file = file.map_err(|error| unreadable(&error))?;
            let mut packets = capture::Reader::new(std::io::BufReader::new(file))
                .map_err(|error| unreadable(&error))?;
            let mut explained = 0;
            while let Some(packet) = packets.next_dhcp().map_err(|error| unreadable(&error))? {
                explained += 1;
                if explained > EXPLAINED_PACKETS_MAX {
                    let why = format!("more than {EXPLAINED_PACKETS_MAX} packets of DHCP");
                    return Err(unreadable(&why));
                }
                step(explainer.packet(&packet));
            }
        }
    }
    Ok(())
}

struct Explainer {
    server: Server,
    loaders: Loaders,
    mode: Mode,
    link: Link,
    /// An address as another DHCP server may have given it.
    elsewhere: Ipv4Addr,
    now: Moment,
}

impl Explainer {
    fn new(path: &Path) -> Result<Self, Failure> {
        let usage = |what: &dyn std::fmt::Display| Failure::usage(what.to_string());
        let config = Config::read(path).map_err(|wrong| usage(&wrong))?;
        let loaders = Loaders::of(&config);
        let Some(dhcp) = config.dhcp else {
            return Err(usage(&format!(
                "{}: DHCP is off in this file",
                path.display()
            )));
        };
        let (own, index) = networks(&dhcp)?;
        let address = own.first().map_or(Ipv4Addr::UNSPECIFIED, |own| own.address);
        let settings = dhcp.settings(&own).map_err(|wrong| usage(&wrong))?;
        Ok(Self {
            server: Server::new(settings, Leases::default()),
            loaders,
            mode: dhcp.mode(),
            link: Link {
                interface: index,
                address,
            },
            elsewhere: own.first().map_or(Ipv4Addr::UNSPECIFIED, neighbour),
            now: Moment(0),
        })
    }

    /// DISCOVER and what follows it.
    fn machine(&mut self, machine: Machine) -> Vec<Step> {
        let discover = request_of(machine, MessageType::Discover);
        let discovered = self.message(Port::Server, &discover);
        let Some(offer) = discovered.1 else {
            return vec![discovered.0];
        };
        let mut request = request_of(machine, MessageType::Request);
        let port = match self.mode {
            Mode::Server => {
                let address = offer.message.yiaddr.octets();
                request.options.set(code::REQUESTED_ADDRESS, address);
                let server = offer.message.options.get(code::SERVER_IDENTIFIER);
                let server = server.unwrap_or_default().to_vec();
                request.options.set(code::SERVER_IDENTIFIER, server);
                Port::Server
            }
            Mode::Proxy => {
                request.ciaddr = self.elsewhere;
                Port::Boot
            }
        };
        vec![discovered.0, self.message(port, &request).0]
    }

    fn packet(&mut self, packet: &Packet) -> Step {
        // A capture of long ago begins now, as far as leases are concerned.
        self.now = Moment(self.now.0.max(packet.millis));
        let step = match Message::read(&packet.payload) {
            Ok(message) if message.op == Op::Request => {
                let port = match packet.to.port() {
                    4011 => Port::Boot,
                    _ => Port::Server,
                };
                self.arrival(port, packet.from, &message).0
            }
            // What another server says is shown, and not answered.
            Ok(message) => Step {
                packet: None,
                message: Some(Shown::of(&message)),
                replies: Vec::new(),
                notes: vec![Note {
                    what: format!("a reply of {} to {}", packet.from, packet.to),
                    why: Vec::new(),
                }],
            },
            Err(why) => Step {
                packet: None,
                message: None,
                replies: Vec::new(),
                notes: vec![Note {
                    what: format!("malformed, from {}: dropped", packet.from),
                    why: vec![why.to_string()],
                }],
            },
        };
        Step {
            packet: Some(packet.number),
            ..step
        }
    }

    fn message(&mut self, port: Port, message: &Message) -> (Step, Option<Reply>) {
        let from = match (message.giaddr, port) {
            // EDK2 asks the boot server from the port that it asks.
            (_, Port::Boot) => SocketAddrV4::new(message.ciaddr, 4011),
            (Ipv4Addr::UNSPECIFIED, _) => SocketAddrV4::new(message.ciaddr, 68),
            (relay, _) => SocketAddrV4::new(relay, 67),
        };
        self.arrival(port, from, message)
    }

    /// What becomes of a message, and the first reply.
    fn arrival(
        &mut self,
        port: Port,
        from: SocketAddrV4,
        message: &Message,
    ) -> (Step, Option<Reply>) {
        let arrival = Arrival {
            link: self.link,
            port,
            from,
            message,
        };
        self.server.handle_message(self.now, &arrival);
        let mut step = Step {
            packet: None,
            message: Some(Shown::of(message)),
            replies: Vec::new(),
            notes: Vec::new(),
        };
        let mut first = None;
        while let Some(effect) = self.server.poll_effect() {
            match effect {
                Effect::Save(_) | Effect::Begin(_) => {}
                Effect::Send(reply) => {
                    let mut answer = Answer::of(&reply);
                    let file = String::from_utf8_lossy(&reply.message.file);
                    answer.why.extend(self.loaders.missing(&file));
                    step.replies.push(answer);
                    first.get_or_insert(reply);
                }
                Effect::Probe { address, .. } => {
                    step.notes.push(Note {
                        what: format!("a server would look whether anybody has {address} first"),
                        why: Vec::new(),
                    });
                    self.server.handle_probed(self.now, address, Probed::Free);
                }
                Effect::Report(report) => step.notes.push(Note {
                    what: told(report.what),
                    why: report.why,
                }),
            }
        }
        (step, first)
    }
}

impl Answer {
    fn of(reply: &Reply) -> Self {
        // As it is sent: without what does not fit.
        let written = reply.message.write(reply.room);
        let mut why = reply.why.clone();
        if !written.left_out.is_empty() {
            why.push(format!(
                "no room for options {:?}: the machine takes {} bytes",
                written.left_out, reply.room
            ));
        }
        let sent = Message::read(&written.bytes);
        Self {
            to: show::destination(reply.to),
            message: Shown::of(sent.as_ref().unwrap_or(&reply.message)),
            why,
        }
    }
}

fn told(event: Event) -> String {
    match event {
        Event::Ignored(reason) => format!("not answered ({})", reason.name()),
        Event::Declined(address) => format!("{address} is given to nobody for a while"),
        Event::Taken(address) => format!("somebody else has {address}"),
        Event::Shared { address, holder } => format!("{address} is used by its card {holder}"),
        Event::Released(address) => format!("{address} is given back"),
        Event::OwnLeased {
            address, holder, ..
        } => format!("its own address {address} is still leased to {holder}"),
        Event::RelayLeftOut => "there is no room for what the relay added".to_owned(),
        Event::Rival(address) => format!("another DHCP server: {address}"),
    }
}

/// Our networks: those of the interfaces or, on another host, that of the config. With the index of
/// the first.
fn networks(config: &DhcpConfig) -> Result<(Vec<OwnNetwork>, u32), Failure> {
    let all = interface::addresses();
    let all = all.map_err(|error| Failure::failed(format!("network interfaces: {error}")))?;
    let mut own = Vec::new();
    let mut index = 0;
    for name in config.interfaces() {
        let said = config.address();
        let mut of_it = all.iter().filter(|one| one.interface == name);
        let found = of_it.find(|one| said.is_none_or(|said| said == one.address));
        match (found, config.said_network()) {
            (_, Some(network)) => own.push(network),
            (Some(found), None) => {
                index = found.index;
                own.push(OwnNetwork {
                    interface: found.interface.clone(),
                    address: found.address,
                    prefix: found.prefix,
                });
            }
            (None, None) => {
                return Err(Failure::failed(format!(
                    "interface {name} is not here, or without that address; say in [network] what \
                     it has there, as in address = \"10.77.0.1/24\""
                )));
            }
        }
    }
    Ok((own, index))
}

/// An address beside ours, that is no end of the network.
fn neighbour(own: &OwnNetwork) -> Ipv4Addr {
    let address = own.address.to_bits();
    let last = address | u32::MAX.checked_shr(own.prefix).unwrap_or(0);
    let next = address.saturating_add(1);
    Ipv4Addr::from_bits(if next < last { next } else { address - 1 })
}

/// A request as firmware, or iPXE above it, sends it.
fn request_of(machine: Machine, kind: MessageType) -> Message {
    let mut message = Message::request(0x00c0_ffee, machine.mac);
    let number = machine.architecture;
    let of = ARCHITECTURES.iter().find(|of| of.number == number);
    let is_http = of.is_some_and(|of| of.transport == Transport::Http) && !machine.ipxe;
    let class = if is_http { "HTTPClient" } else { "PXEClient" };
    let class = format!("{class}:Arch:{number:05}:UNDI:003016");
    if let Some(relay) = machine.relay {
        message.giaddr = relay;
        message.hops = 1;
    }
    let options = &mut message.options;
    options.set(code::MESSAGE_TYPE, [kind as u8]);
    // What EDK2 says that it takes.
    options.set(code::MAX_SIZE, 1472_u16.to_be_bytes());
    options.set(code::VENDOR_CLASS, class.into_bytes());
    options.set(code::ARCHITECTURE, number.to_be_bytes());
    options.set(code::NETWORK_INTERFACE, [1, 3, 16]);
    if machine.ipxe {
        options.set(code::USER_CLASS, *b"iPXE");
    }
    message
}

#[cfg(test)]
mod tests;
