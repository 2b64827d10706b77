//! Networks of the tests' own: namespaces of the kernel around one bridge, each with one card.
//!
//! A namespace lives as long as a process in it, and that process ends with the thread that started
//! it, however that ends: nothing is left behind.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cowherd::dhcp::wire::Message;
use cowherd::mac::MacAddress;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, Socket, Type};

use super::{PATIENCE, Tool, is_root, require, skipped};

/// What all of this takes.
const TOOLS: [&str; 4] = ["ip", "unshare", "nsenter", "setpriv"];

/// A network: a bridge that hosts are plugged into.
pub(crate) struct Lan {
    bridge: NameSpace,
}

/// A host with one card, `lan0`.
pub(crate) struct Host {
    space: NameSpace,
}

/// A process that keeps a network namespace.
struct NameSpace {
    keeper: Child,
}

impl NameSpace {
    fn new() -> Self {
        let keeper = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--net",
                "sleep",
                "infinity",
            ])
            .stdin(Stdio::null())
            .spawn()
            .expect("a namespace of its own");
        let space = Self { keeper };
        let own = std::fs::read_link("/proc/self/ns/net").expect("a namespace");
        super::eventually(|| match std::fs::read_link(space.path()) {
            Ok(link) if link != own && space.sleeps() => Ok(()),
            other => Err(other),
        });
        space
    }

    /// Whether it is what it is to be, and not one of the programs that lead there.
    fn sleeps(&self) -> bool {
        let path = format!("/proc/{}/comm", self.keeper.id());
        std::fs::read_to_string(path).is_ok_and(|name| name.trim() == "sleep")
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.keeper.id())
    }

    /// The words that have a command run in it.
    fn runner(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net={}", self.path())]
    }

    fn ip(&self, words: &str) {
        self.shown(words);
    }

    /// What `ip` has to say.
    fn shown(&self, words: &str) -> String {
        let tool = Tool::new("nsenter").arg(format!("--net={}", self.path()));
        tool.arg("ip").args(words.split_whitespace()).ok()
    }
}

impl Drop for NameSpace {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

impl Lan {
    /// A network without hosts; `None` where such networks can't be made here.
    pub(crate) fn new() -> Option<Self> {
        if !is_root() {
            skipped("root");
            return None;
        }
        require(&TOOLS).then(|| {
            let bridge = NameSpace::new();
            bridge.ip("link add br0 type bridge forward_delay 0");
            bridge.ip("link set br0 up");
            Self { bridge }
        })
    }

    /// One more host, with no address.
    pub(crate) fn host(&self) -> Host {
        let host = Host {
            space: NameSpace::new(),
        };
        host.space.ip("link set lo up");
        self.plug(&host, "lan0");
        host
    }

    /// Gives `host` a card of this network.
    pub(crate) fn plug(&self, host: &Host, card: &str) {
        let keeper = host.space.keeper.id();
        let port = format!("p{keeper}");
        self.bridge.ip(&format!(
            "link add {port} type veth peer name {card} netns {keeper}"
        ));
        self.bridge.ip(&format!("link set {port} master br0 up"));
        host.space.ip(&format!("link set {card} up"));
        // The kernel takes its time to see that both ends are up; what is sent before is lost.
        super::eventually(|| {
            let port = self.bridge.shown(&format!("-d link show {port}"));
            let card = host.space.shown(&format!("link show {card}"));
            let is_up = port.contains("state forwarding") && card.contains("state UP");
            if is_up { Ok(()) } else { Err((port, card)) }
        });
    }

    /// Takes the cable out of the card of `host`, at our end.
    pub(crate) fn unplug(&self, host: &Host) {
        let port = format!("p{}", host.space.keeper.id());
        self.bridge.ip(&format!("link set {port} down"));
    }
}

impl Host {
    /// Runs `ip` there.
    pub(crate) fn ip(&self, words: &str) {
        self.space.ip(words);
    }

    /// The words that have a command run there.
    pub(crate) fn runner(&self) -> Vec<String> {
        self.space.runner()
    }

    /// A program of the system, run there.
    pub(crate) fn tool(&self, name: &str) -> Tool {
        let runner = self.runner();
        let (program, words) = runner.split_first().expect("at least the program");
        Tool::new(program).args(words).arg(name)
    }

    /// Starts a program of the system there, which says nothing.
    pub(crate) fn spawn(&self, program: &str, words: &[&str]) -> Child {
        let runner = self.runner();
        let (first, rest) = runner.split_first().expect("at least the program");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", first]).args(rest);
        command.arg(program).args(words);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().expect("a program of the system")
    }

    /// The address of its card.
    pub(crate) fn mac(&self) -> MacAddress {
        // sysfs shows the interfaces of whoever mounted it, so `ip` is asked.
        let shown = self.tool("ip").args(["-o", "link", "show", "lan0"]).ok();
        let mac = shown
            .split("link/ether ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        mac.expect("a card").parse().expect("its address")
    }

    /// A UDP socket on one of its cards, that DHCP is spoken through.
    pub(crate) fn card(&self, name: &str, port: u16) -> Card {
        let name = name.to_owned();
        let opened = self.within(move || open(&name, port));
        Card {
            socket: opened.expect("a socket in the namespace"),
        }
    }

    /// Does something there. Sockets that come of it stay of this host.
    pub(crate) fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let path = self.space.path();
        // A thread of its own enters the namespace, and ends there.
        let thread = std::thread::spawn(move || {
            let space = std::fs::File::open(path).expect("a namespace");
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(space.as_fd(), kind).expect("the namespace can be entered");
            work()
        });
        thread.join().expect("no panic")
    }
}

fn open(name: &str, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(name.as_bytes()))?;
    socket.set_broadcast(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
    Ok(socket.into())
}

/// A socket that DHCP is spoken through.
pub(crate) struct Card {
    socket: UdpSocket,
}

impl Card {
    /// Sends bytes to a port of everybody.
    pub(crate) fn broadcast(&self, bytes: &[u8], port: u16) {
        self.send(bytes, SocketAddrV4::new(Ipv4Addr::BROADCAST, port));
    }

    /// Sends bytes.
    pub(crate) fn send(&self, bytes: &[u8], to: SocketAddrV4) {
        let sent = self.socket.send_to(bytes, to);
        assert_eq!(sent.expect("a datagram is sent"), bytes.len());
    }

    /// The next message, and where it came from.
    pub(crate) fn receive(&self) -> (Message, SocketAddrV4) {
        self.next(PATIENCE).expect("an answer")
    }

    /// What is there now, or soon.
    pub(crate) fn next(&self, patience: Duration) -> Option<(Message, SocketAddrV4)> {
        let mut bytes = [0; 2048];
        self.socket
            .set_read_timeout(Some(patience))
            .expect("a time");
        let (length, from) = self.socket.recv_from(&mut bytes).ok()?;
        let message = Message::read(&bytes[..length]).expect("a DHCP message");
        match from {
            SocketAddr::V4(from) => Some((message, from)),
            SocketAddr::V6(_) => panic!("an answer over IPv6"),
        }
    }
}
