//! A bad network for datagrams: a relay that loses some, doubles some and holds some back.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How many of 10,000 datagrams meet which fate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Odds {
    /// They are lost.
    pub(crate) lost: u64,
    /// They come twice.
    pub(crate) twice: u64,
    /// They come after later ones.
    pub(crate) late: u64,
    /// Whether none of this befalls the agreement on options: OACK, and ACK of block 0.
    pub(crate) spares_options: bool,
}

/// How long late ones are held back: a packet to a neighbour takes hundredths of that.
const LATE: Duration = Duration::from_millis(2);

/// A relay between TFTP clients and a server, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Where clients send their requests.
    pub(crate) at: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Tally>>,
}

/// What it did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) lost: u64,
    pub(crate) twice: u64,
    pub(crate) late: u64,
}

impl Relay {
    /// One to the server at `server`; the same `seed` rolls the same dice.
    pub(crate) fn to(server: SocketAddr, odds: Odds, seed: u64) -> Self {
        let front = socket();
        let at = front.local_addr().expect("an address");
        let is_over = Arc::new(AtomicBool::new(false));
        let mut network = Network {
            sockets: vec![front],
            ways: vec![Way::In],
            server,
            odds,
            seed,
            waiting: BTreeMap::new(),
            number: 0,
            tally: Tally::default(),
        };
        let flag = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                network.turn();
            }
            network.tally
        });
        Self {
            at,
            is_over,
            thread: Some(thread),
        }
    }

    /// Ends it.
    pub(crate) fn end(mut self) -> Tally {
        self.is_over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is ended once");
        thread.join().expect("no panic")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// What a socket of the relay is for.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Clients send their requests here.
    In,
    /// It stands for a client, to the server; the last socket that stood for the server, to it.
    Client { address: SocketAddr, line: usize },
    /// It stands for one port of the server, to the client behind another socket.
    Server { port: SocketAddr, client: usize },
}

struct Network {
    sockets: Vec<UdpSocket>,
    ways: Vec<Way>,
    server: SocketAddr,
    odds: Odds,
    seed: u64,
    /// Datagrams that are late: when, a number, the socket to send from, where to.
    waiting: BTreeMap<(Instant, u64), (usize, SocketAddr, Vec<u8>)>,
    number: u64,
    tally: Tally,
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_nonblocking(true).expect("a flag");
    socket
}

impl Network {
    /// Waits for something to do, but not for long, and does it.
    fn turn(&mut self) {
        self.send_late();
        let next = self.waiting.keys().next();
        let wait = next.map_or(Duration::from_millis(20), |(when, _)| {
            when.saturating_duration_since(Instant::now())
        });
        let wait = Timespec::try_from(wait).expect("a short time");
        let mut polled: Vec<_> = self
            .sockets
            .iter()
            .map(|socket| PollFd::new(socket, PollFlags::IN))
            .collect();
        let _ = poll(&mut polled, Some(&wait));
        let ready: Vec<_> = polled.iter().map(|one| !one.revents().is_empty()).collect();
        let all = ready.into_iter().enumerate();
        all.filter(|(_, is_ready)| *is_ready)
            .for_each(|(index, _)| self.receive(index));
    }

    fn receive(&mut self, index: usize) {
        let mut packet = [0; 2000];
        loop {
            match self.sockets[index].recv_from(&mut packet) {
                Ok((length, from)) => self.relay(index, from, &packet[..length]),
                // ICMP tells of a port that is gone.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                Err(_) => return,
            }
        }
    }

    fn add(&mut self, way: Way) -> usize {
        self.sockets.push(socket());
        self.ways.push(way);
        self.ways.len() - 1
    }

    fn relay(&mut self, index: usize, from: SocketAddr, packet: &[u8]) {
        let (out, to) = match self.ways[index] {
            Way::In => (self.client(from), self.server),
            Way::Server { port, client } => (client, port),
            Way::Client { address, .. } => (self.line(index, from), address),
        };
        self.submit(out, to, packet);
    }

    /// The socket that stands for a client.
    fn client(&mut self, from: SocketAddr) -> usize {
        let is_it = |way: &Way| matches!(way, Way::Client { address, .. } if *address == from);
        match self.ways.iter().position(is_it) {
            Some(index) => index,
            None => self.add(Way::Client {
                address: from,
                line: 0,
            }),
        }
    }

    /// The socket that stands for a port of the server to a client.
    fn line(&mut self, client: usize, from: SocketAddr) -> usize {
        let Way::Client { address, line } = self.ways[client] else {
            unreachable!("it stands for a client");
        };
        match self.ways[line] {
            Way::Server { port, .. } if port == from => line,
            _ => {
                let line = self.add(Way::Server { port: from, client });
                self.ways[client] = Way::Client { address, line };
                line
            }
        }
    }

    fn submit(&mut self, out: usize, to: SocketAddr, packet: &[u8]) {
        self.tally.passed += 1;
        let Odds {
            lost, twice, late, ..
        } = self.odds;
        let is_of_options = packet.starts_with(b"\0\x06") || packet == b"\0\x04\0\0";
        if is_of_options && self.odds.spares_options {
            let _ = self.sockets[out].send_to(packet, to);
            return;
        }
        let roll = self.roll();
        if roll < lost {
            self.tally.lost += 1;
        } else if roll < lost + twice {
            self.tally.twice += 1;
            let _ = self.sockets[out].send_to(packet, to);
            let _ = self.sockets[out].send_to(packet, to);
        } else if roll < lost + twice + late {
            self.tally.late += 1;
            self.number += 1;
            let when = (Instant::now() + LATE, self.number);
            self.waiting.insert(when, (out, to, packet.to_vec()));
        } else {
            let _ = self.sockets[out].send_to(packet, to);
        }
    }

    fn send_late(&mut self) {
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 > Instant::now() {
                return;
            }
            let (out, to, packet) = entry.remove();
            let _ = self.sockets[out].send_to(&packet, to);
        }
    }

    /// Below 10,000 (splitmix64).
    fn roll(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % 10_000
    }
}
