//! The task that drives the core: what comes in goes to it, what it wants done is done.
//!
//! Records are saved together: while the disk is at work on one batch, the next one gathers. The
//! replies behind them leave when their batch is durable.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::lease_file::{LeaseFile, Saving};
use super::link::OpenedLink;
use super::log::Log;
use super::probes::{Due, Probes, Way};
use crate::dhcp::Moment;
use crate::dhcp::lease::{Record, Saved};
use crate::dhcp::server::{Arrival, Effect, Port, Probed, Reply, Server};
use crate::dhcp::settings::Settings;
use crate::dhcp::wire::{Malformed, Message, Op};
use crate::io::{Batch, EAR_BYTES, EchoProbe, Heard};
use crate::limits::{DHCP_INCOMING_MAX, DHCP_REPLIES_WAITING_MAX};
use crate::mac::MacAddress;
use crate::name::Name;
use crate::serve::holders::Holders;
use crate::serve::host;

/// What a socket has received.
#[derive(Debug)]
enum Incoming {
    Message {
        link: usize,
        port: Port,
        from: SocketAddrV4,
        message: Message,
    },
    Malformed {
        from: SocketAddrV4,
        why: Malformed,
    },
    Heard(Heard),
    Echoed(Ipv4Addr),
}

/// Starts the tasks of all sockets and the one that drives the core.
pub(super) fn start(
    links: Vec<OpenedLink>,
    echo: Option<EchoProbe>,
    server: Server,
    file: LeaseFile,
    replace: mpsc::UnboundedReceiver<Settings>,
    leases: Arc<Holders>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let links: Arc<[OpenedLink]> = links.into();
    let (sender, incoming) = mpsc::channel(DHCP_INCOMING_MAX);
    for link in 0..links.len() {
        for port in [Port::Server, Port::Boot] {
            tasks.spawn(receive(Arc::clone(&links), link, port, sender.clone()));
        }
        tasks.spawn(hear(Arc::clone(&links), link, sender.clone()));
        tasks.spawn(overhear(Arc::clone(&links), link, sender.clone()));
    }
    let echo = echo.map(Arc::new);
    if let Some(echo) = echo.clone() {
        tasks.spawn(hear_echoes(echo, sender));
    }
    let mut driver = Driver {
        links,
        echo,
        server,
        file: Some(file),
        saving: None,
        records: Vec::new(),
        held: Vec::new(),
        waiting: Vec::new(),
        probes: Probes::default(),
        leases,
        log: Log::default(),
    };
    tasks.spawn(async move { driver.run(incoming, replace).await });
    tasks
}

/// Receives what comes to one port of one link, until nobody takes it any more.
async fn receive(links: Arc<[OpenedLink]>, link: usize, port: Port, to: mpsc::Sender<Incoming>) {
    let Some(of) = links.get(link) else { return };
    let Some(socket) = of.socket(port) else {
        return;
    };
    let mut batch = Batch::default();
    while socket.readable().await.is_ok() {
        match socket.receive(&mut batch) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => {
                // Such as an interface that went down: what comes next may be fine.
                tracing::debug!("DHCP: {error}");
                tokio::time::sleep(RETRY_AFTER).await;
                continue;
            }
        }
        for (envelope, bytes) in batch.iter() {
            let from = envelope.from;
            let incoming = match Message::read(bytes) {
                Ok(message) => Incoming::Message {
                    link,
                    port,
                    from,
                    message,
                },
                Err(why) => Incoming::Malformed { from, why },
            };
            if to.send(incoming).await.is_err() {
                return;
            }
        }
    }
}

/// Passes on what is heard on a link beside the sockets: the requests that come to the port of
/// another server where we are a proxy, and else what other servers tell all clients.
async fn overhear(links: Arc<[OpenedLink]>, link: usize, to: mpsc::Sender<Incoming>) {
    let Some(of) = links.get(link) else { return };
    let Some(ear) = of.ear() else { return };
    let is_proxy = of.socket(Port::Server).is_none();
    let mut packet = [0; EAR_BYTES];
    loop {
        let Ok((from, bytes)) = ear.hear(&mut packet).await else {
            tokio::time::sleep(RETRY_AFTER).await;
            continue;
        };
        let incoming = match Message::read(bytes) {
            Ok(message) if is_proxy || message.op == Op::Reply => Incoming::Message {
                link,
                port: Port::Server,
                from,
                message,
            },
            Err(why) if is_proxy => Incoming::Malformed { from, why },
            // What strangers send to clients is no business of ours.
            _ => continue,
        };
        if to.send(incoming).await.is_err() {
            return;
        }
    }
}

/// Pause after a socket failed, which only time can mend.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Passes on who says on a link that they have an address.
async fn hear(links: Arc<[OpenedLink]>, link: usize, to: mpsc::Sender<Incoming>) {
    let Some(arp) = links.get(link).and_then(|link| link.arp.as_ref()) else {
        return;
    };
    loop {
        match arp.hear().await {
            Ok(heard) => {
                if to.send(Incoming::Heard(heard)).await.is_err() {
                    return;
                }
            }
            Err(_) => tokio::time::sleep(RETRY_AFTER).await,
        }
    }
}

/// Passes on who answers to an echo request.
async fn hear_echoes(echo: Arc<EchoProbe>, to: mpsc::Sender<Incoming>) {
    loop {
        match echo.hear().await {
            Ok(address) => {
                if to.send(Incoming::Echoed(address)).await.is_err() {
                    return;
                }
            }
            Err(_) => tokio::time::sleep(RETRY_AFTER).await,
        }
    }
}

/// The file comes back when it is done.
type Saver = JoinHandle<(LeaseFile, io::Result<()>)>;

struct Driver {
    links: Arc<[OpenedLink]>,
    echo: Option<Arc<EchoProbe>>,
    server: Server,
    /// `None` while it is being saved to.
    file: Option<LeaseFile>,
    saving: Option<Saver>,
    /// To be saved next.
    records: Vec<Record>,
    /// Replies that wait for what is being saved.
    held: Vec<Reply>,
    /// Replies that wait for `records`.
    waiting: Vec<Reply>,
    probes: Probes,
    leases: Arc<Holders>,
    log: Log,
}

impl Driver {
    async fn run(
        &mut self,
        mut incoming: mpsc::Receiver<Incoming>,
        mut replace: mpsc::UnboundedReceiver<Settings>,
    ) {
        self.tell_of_known_leases();
        loop {
            // So many that wait mean a disk that does not answer. The kernel drops the rest.
            let has_room = self.waiting.len() < DHCP_REPLIES_WAITING_MAX;
            let pause = tokio::time::sleep(self.pause());
            tokio::select! {
                biased;
                Some(settings) = replace.recv() => {
                    self.server.replace(settings);
                    self.tell_of_known_leases();
                }
                saved = finished(&mut self.saving) => self.saved(saved),
                Some(first) = incoming.recv(), if has_room => {
                    self.take(first);
                    for _ in 0..DHCP_INCOMING_MAX {
                        let Ok(more) = incoming.try_recv() else { break };
                        self.take(more);
                    }
                }
                () = pause => self.time_passed(),
            }
            self.drain();
        }
    }

    fn take(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Message {
                link,
                port,
                from,
                message,
            } => {
                let Some(of) = self.links.get(link) else {
                    return;
                };
                let arrival = Arrival {
                    link: of.link,
                    port,
                    from,
                    message: &message,
                };
                self.server.handle_message(host::moment(), &arrival);
            }
            Incoming::Malformed { from, why } => self.log.malformed(from, why),
            Incoming::Heard(Heard { address, mac }) => self.heard(address, Some(mac)),
            Incoming::Echoed(address) => self.heard(address, None),
        }
    }

    fn heard(&mut self, address: Ipv4Addr, mac: Option<MacAddress>) {
        if self.probes.heard(address, mac) {
            let now = host::moment();
            self.server.handle_probed(now, address, Probed::Taken);
        }
    }

    /// How long nothing has to be done by itself.
    fn pause(&self) -> Duration {
        let of_server = self.server.poll_timeout();
        let of_server = of_server.map(|moment| moment.since(host::moment()));
        let own = self.probes.next().into_iter().chain(self.log.next()).min();
        let own = own.map(|next| next.saturating_duration_since(Instant::now()));
        let first = of_server.into_iter().chain(own).min();
        // A timer that rings early rings again; a moment that is long past must not spin.
        first.unwrap_or(IDLE).clamp(Duration::from_millis(1), IDLE)
    }

    fn time_passed(&mut self) {
        self.server.handle_timeout(host::moment());
        self.log.tell_due(Instant::now());
        for due in self.probes.due(Instant::now()) {
            match due {
                Due::Ask { way, address } => self.ask(way, address),
                Due::Free(address) => {
                    self.server
                        .handle_probed(host::moment(), address, Probed::Free);
                }
            }
        }
    }

    /// Does what the core wants done.
    fn drain(&mut self) {
        while let Some(effect) = self.server.poll_effect() {
            match effect {
                Effect::Save(record) => {
                    self.tell_of_lease(&record);
                    self.records.push(record);
                }
                Effect::Send(reply) if self.records.is_empty() && self.saving.is_none() => {
                    self.send(&reply);
                }
                Effect::Send(reply) => self.waiting.push(reply),
                Effect::Probe { link, address, mac } => self.probe(link.interface, address, mac),
                Effect::Report(report) => self.log.report(&report),
            }
        }
        self.save();
    }

    fn probe(&mut self, interface: u32, address: Ipv4Addr, mac: MacAddress) {
        match self.way_to(interface, address) {
            Some(way) => {
                self.probes.begin(way, address, mac, Instant::now());
                self.ask(way, address);
            }
            // There is no right to raw sockets.
            None => self
                .server
                .handle_probed(host::moment(), address, Probed::Free),
        }
    }

    fn way_to(&self, interface: u32, address: Ipv4Addr) -> Option<Way> {
        let mut links = self.links.iter().enumerate();
        let (index, link) = links.find(|(_, link)| link.link.interface == interface)?;
        match link.is_near(address) {
            true => link.arp.is_some().then_some(Way::Arp(index)),
            false => self.echo.is_some().then_some(Way::Echo),
        }
    }

    fn ask(&self, way: Way, address: Ipv4Addr) {
        let asked = match way {
            Way::Arp(link) => {
                let link = self.links.get(link);
                let arp = link.and_then(|link| link.arp.as_ref());
                arp.map(|arp| arp.ask(address))
            }
            Way::Echo => self.echo.as_ref().map(|echo| echo.ask(address)),
        };
        if let Some(Err(error)) = asked {
            tracing::debug!("cannot look for {address}: {error}");
        }
    }

    /// Has what is to be saved saved, unless the disk is at work already.
    fn save(&mut self) {
        if self.records.is_empty() {
            return;
        }
        let Some(mut file) = self.file.take() else {
            return;
        };
        let records = std::mem::take(&mut self.records);
        self.held = std::mem::take(&mut self.waiting);
        let saving = match file.wants_all() {
            true => Saving::Anew(self.server.records().collect()),
            false => Saving::Append(records),
        };
        self.saving = Some(tokio::task::spawn_blocking(move || {
            let saved = file.save(&saving);
            (file, saved)
        }));
    }

    fn saved(&mut self, (file, saved): (LeaseFile, io::Result<()>)) {
        self.file = Some(file);
        self.saving = None;
        let held = std::mem::take(&mut self.held);
        match saved {
            Ok(()) => held.iter().for_each(|reply| self.send(reply)),
            // The machines ask again, and then all that is known is written to a new file.
            Err(error) => self.log.not_saved(&error, held.len()),
        }
        if self.records.is_empty() {
            let waiting = std::mem::take(&mut self.waiting);
            waiting.iter().for_each(|reply| self.send(reply));
        }
    }

    fn send(&mut self, reply: &Reply) {
        let of = |link: &&OpenedLink| link.link.interface == reply.link.interface;
        let Some(link) = self.links.iter().find(of) else {
            return;
        };
        match link.send(reply) {
            Ok(()) => self.log.sent(reply),
            Err(error) => self.log.not_sent(reply, &error),
        }
    }

    fn tell_of_lease(&self, record: &Record) {
        self.leases.set(record.address, self.lease_of(record));
    }

    fn tell_of_known_leases(&self) {
        let records = self.server.records();
        let lease = |record: Record| Some((record.address, self.lease_of(&record)?));
        self.leases.replace(records.filter_map(lease).collect());
    }

    /// The client that has a lease, and until when.
    fn lease_of(&self, record: &Record) -> Option<(Name, Moment)> {
        let holder = self.server.holder_of(record.address)?;
        (record.state == Saved::Leased).then_some((holder.name?, record.until))
    }
}

/// How long the task sleeps at most.
const IDLE: Duration = Duration::from_secs(60);

/// Waits until the disk is done, for ever where it is not at work.
async fn finished(saving: &mut Option<Saver>) -> (LeaseFile, io::Result<()>) {
    match saving {
        // It does nothing that panics; were it to, leases could be promised no more.
        Some(saving) => saving.await.expect("the lease file is being written"),
        None => std::future::pending().await,
    }
}
