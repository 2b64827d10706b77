//! The ports that a server listens at: free, its own, or somebody else's.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};

use rustix::process::geteuid;
use socket2::{Domain, Socket, Type};

use super::Visit;
use super::finding::{Area, Finding};
use super::owner::{self, Transport};
use crate::dhcp::boot::Mode;
use crate::io::DatagramSocket;
use crate::io::interface;
use crate::serve::listen::ListenAddress;
use crate::serve::posts;
use crate::serve::reach;

/// A port that a server needs.
#[derive(Clone, Debug)]
struct Wanted {
    transport: Transport,
    address: SocketAddr,
    /// The interface that DHCP is bound to.
    interface: Option<String>,
    /// What it is for, and where the config says so.
    what: &'static str,
    key: &'static str,
}

pub(super) fn look(visit: &mut Visit<'_>) {
    let (wanted, unresolved) = wanted(visit);
    unresolved
        .into_iter()
        .for_each(|finding| visit.found(finding));
    if no_machine_gets_its_disk(&wanted) {
        let finding = Finding::wrong(Area::Ports, "NBD", reach::OUT_OF_REACH);
        visit.found(finding.advised(reach::ADVICE));
    }
    for port in wanted {
        let about = about(&port);
        let finding = match bind(&port, visit) {
            Ok(()) => free(visit, about, &port),
            Err(error) => refused(visit, about, &port, &error),
        };
        visit.found(finding);
    }
}

/// Whether boot files are served to the network, and disks to this host alone.
fn no_machine_gets_its_disk(wanted: &[Wanted]) -> bool {
    let of = |whats: &'static [&'static str]| {
        let of = wanted.iter().filter(move |port| whats.contains(&port.what));
        of.map(|port| port.address.ip())
    };
    reach::is_out_of_reach(of(&["NBD"]), of(&["TFTP", "HTTP"]))
}

fn about(port: &Wanted) -> String {
    let on = port.interface.as_ref();
    let on = on.map_or_else(String::new, |name| format!(" on {name}"));
    format!(
        "{}: {} {}{on}",
        port.what,
        port.transport.name(),
        port.address
    )
}

/// All ports, and what is wrong with their addresses.
fn wanted(visit: &Visit<'_>) -> (Vec<Wanted>, Vec<Finding>) {
    let config = &visit.config;
    let (mut all, mut unresolved) = (Vec::new(), Vec::new());
    for address in nbd(visit) {
        match resolved(&address) {
            Ok(addresses) => all.extend(addresses.into_iter().map(|address| Wanted {
                transport: Transport::Tcp,
                address,
                interface: None,
                what: "NBD",
                key: "`listen` in [nbd]",
            })),
            Err(finding) => unresolved.push(finding),
        }
    }
    let mut add = |transport, address, what, key| {
        all.push(Wanted {
            transport,
            address,
            interface: None,
            what,
            key,
        });
    };
    let tftp = config.tftp.as_ref().map(|of| &of.listen);
    let http = config.http.as_ref().map(|of| &of.listen);
    for (listen, transport, what, key) in [
        (tftp, Transport::Udp, "TFTP", "`listen` in [tftp]"),
        (http, Transport::Tcp, "HTTP", "`listen` in [http]"),
    ] {
        match listen.map(posts::addresses).transpose() {
            Ok(addresses) => addresses.into_iter().flatten().for_each(|address| {
                add(transport, SocketAddr::V4(address), what, key);
            }),
            Err(failure) => {
                let message = failure.to_string();
                unresolved.push(Finding::from_message(Area::Ports, what, &message));
            }
        }
    }
    for address in config.admin.iter().flat_map(|of| &of.listen) {
        add(Transport::Tcp, *address, "admin", "`listen` in [admin]");
    }
    all.extend(dhcp(visit));
    // Port 0 is whichever is free.
    all.retain(|port| port.address.port() != 0);
    (all, unresolved)
}

fn nbd(visit: &Visit<'_>) -> Vec<ListenAddress> {
    match visit.config.nbd_listen.as_slice() {
        [] => vec![ListenAddress::default()],
        said => said.to_vec(),
    }
}

fn resolved(address: &ListenAddress) -> Result<Vec<SocketAddr>, Finding> {
    let ListenAddress::Tcp { host, port } = address else {
        return Ok(Vec::new());
    };
    if host.is_empty() {
        return Ok(vec![SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), *port)]);
    }
    let found = (host.as_str(), *port).to_socket_addrs();
    found.map(Iterator::collect).map_err(|error| {
        let what = format!("the name {host} has no address: {error}");
        Finding::wrong(Area::Ports, format!("NBD: {address}"), what)
            .advised("write an address as `listen` in [nbd]")
    })
}

fn dhcp(visit: &Visit<'_>) -> Vec<Wanted> {
    let Some(dhcp) = &visit.config.dhcp else {
        return Vec::new();
    };
    // A proxy does without the first, where it may open packet sockets.
    let ports: &[u16] = match dhcp.mode() {
        Mode::Server => &[67, 4011],
        Mode::Proxy => &[4011],
    };
    let on = |name: &str| {
        let name = name.to_owned();
        ports.iter().map(move |port| Wanted {
            transport: Transport::Udp,
            address: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), *port),
            interface: Some(name.clone()),
            what: "DHCP",
            key: "[dhcp]",
        })
    };
    dhcp.interfaces().flat_map(on).collect()
}

const LISTENS: &str = "the server that runs listens there";

/// Binds it as a server would, for a moment.
fn bind(port: &Wanted, visit: &Visit<'_>) -> io::Result<()> {
    if let (Some(name), SocketAddr::V4(address)) = (&port.interface, port.address) {
        let all = interface::addresses()?;
        let found = all.iter().find(|one| one.interface == *name);
        let index = found.ok_or(io::ErrorKind::AddrNotAvailable)?.index;
        let mode = visit
            .config
            .dhcp
            .as_ref()
            .map(crate::config::DhcpConfig::mode);
        let shared = mode == Some(Mode::Proxy);
        return DatagramSocket::bind(name, index, address, shared).map(drop);
    }
    let kind = match port.transport {
        Transport::Tcp => Type::STREAM,
        Transport::Udp => Type::DGRAM,
    };
    let socket = Socket::new(Domain::for_address(port.address), kind, None)?;
    if port.transport == Transport::Tcp {
        // Connections that have ended are no matter.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&port.address.into())
}

fn free(visit: &Visit<'_>, about: String, port: &Wanted) -> Finding {
    let Some(server) = visit.server else {
        return Finding::fine(Area::Ports, about, "free");
    };
    // A proxy shares its port: that it can be bound says nothing.
    if owner::of(port.transport, port.address).is_some_and(|owner| owner.pid == server) {
        return Finding::fine(Area::Ports, about, LISTENS);
    }
    let what = "the server that runs does not listen there";
    let key = port.key;
    match port.what {
        "NBD" => Finding::warning(Area::Ports, about, what).advised(format!(
            "where its command line has no --listen, restart cowherd: {key} is read at the start"
        )),
        _ => Finding::wrong(Area::Ports, about, what)
            .advised(format!("restart cowherd: {key} is read at the start")),
    }
}

fn refused(visit: &Visit<'_>, about: String, port: &Wanted, error: &io::Error) -> Finding {
    match error.kind() {
        io::ErrorKind::AddrInUse => taken(visit, about, port),
        io::ErrorKind::PermissionDenied if !geteuid().is_root() => {
            Finding::unknown(Area::Ports, about, "this user may not have it")
                .advised("run this as root, or as the user and with the rights that cowherd has")
        }
        io::ErrorKind::AddrNotAvailable => {
            Finding::wrong(Area::Ports, about, "this host has no such address").advised(format!(
                "give it to an interface before cowherd starts, or change {}",
                port.key
            ))
        }
        _ => Finding::wrong(Area::Ports, about, error.to_string())
            .advised(format!("change {}", port.key)),
    }
}

fn taken(visit: &Visit<'_>, about: String, port: &Wanted) -> Finding {
    let owner = owner::of(port.transport, port.address);
    match (owner, visit.server) {
        (Some(owner), Some(server)) if owner.pid == server => {
            Finding::fine(Area::Ports, about, LISTENS)
        }
        (Some(owner), _) => {
            let pid = owner.pid.as_raw_nonzero();
            let what = format!("{} (process {pid}) has it", owner.name);
            Finding::wrong(Area::Ports, about, what).advised(advice(&owner.name, port))
        }
        (None, Some(_)) => {
            let what = "somebody has it: the server that runs, as far as this user can see";
            Finding::fine(Area::Ports, about, what)
        }
        (None, None) => Finding::wrong(Area::Ports, about, "another program has it")
            .advised("run this as root to see which one"),
    }
}

fn advice(name: &str, port: &Wanted) -> String {
    match (name, port.what) {
        ("cowherd", _) => "it is a cowherd with another state directory: stop it, or name its \
                           state directory with --state"
            .to_owned(),
        (_, "DHCP") => "stop it (`systemctl disable --now` its service), or have cowherd be a \
                        proxy beside it: mode = \"proxy\" in [dhcp]"
            .to_owned(),
        _ => format!("stop it, or choose another {}", port.key),
    }
}
