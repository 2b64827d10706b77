//! The task that drives the core: what comes in goes to it, what it wants done is done.
//!
//! Records are saved together: while the disk is at work on one batch, the next one gathers. The
//! replies behind them leave when their batch is durable.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use super::incoming::{Incoming, hear_echoes};
use super::lease_file::{LeaseFile, Saving};
use super::log::Log;
use super::places::{LOOK_EVERY, Places};
use super::probes::{Due, Probes, Way};
use super::{Change, Dhcp, Lease, Word};
use crate::dhcp::Moment;
use crate::dhcp::lease::{Leases, Record, Saved};
use crate::dhcp::server::{Arrival, Effect, Probed, Reply, Server};
use crate::dhcp::settings::Settings;
use crate::io::{EchoProbe, Heard};
use crate::limits::{DHCP_INCOMING_MAX, DHCP_REPLIES_WAITING_MAX};
use crate::mac::MacAddress;
use crate::name::Name;
use crate::serve::boots::Boots;
use crate::serve::holders::Holders;
use crate::serve::host;
use crate::serve::takeover::wire::Door;
use crate::serve::watch::Watch;

/// Starts the tasks of all sockets and the one that drives the core.
pub(super) fn start(
    dhcp: Dhcp,
    echo: Option<EchoProbe>,
    server: Server,
    leases: Arc<Holders>,
    (watch, boots): (Arc<Watch>, Arc<Boots>),
) -> io::Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    let (sender, incoming) = mpsc::channel(DHCP_INCOMING_MAX);
    let echo = echo.map(Arc::new);
    if let Some(echo) = echo.clone() {
        tasks.spawn(hear_echoes(echo, sender.clone()));
    }
    let mut driver = Driver {
        places: Places::open(dhcp.links, dhcp.config, dhcp.own, sender)?,
        echo,
        server,
        file: Some(dhcp.file),
        saving: None,
        records: Vec::new(),
        held: Vec::new(),
        waiting: Vec::new(),
        probes: Probes::default(),
        leases,
        watch,
        boots,
        log: Log::default(),
        settings: dhcp.settings,
        rest: Rest::No,
    };
    let words = dhcp.words.1;
    tasks.spawn(async move { driver.run(incoming, words).await });
    Ok(tasks)
}

/// The file comes back when it is done.
type Saver = JoinHandle<(LeaseFile, io::Result<()>)>;

struct Driver {
    places: Places,
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
    watch: Arc<Watch>,
    boots: Arc<Boots>,
    log: Log,
    settings: Settings,
    rest: Rest,
}

/// Whether it answers.
#[derive(Debug)]
enum Rest {
    No,
    /// It is to stop, once all that it promised is durable and said.
    Wanted(oneshot::Sender<()>),
    Yes,
}

impl Driver {
    async fn run(
        &mut self,
        mut incoming: mpsc::Receiver<Incoming>,
        mut words: mpsc::UnboundedReceiver<Word>,
    ) {
        self.tell_of_known_leases();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // So many that wait mean a disk that does not answer. The kernel drops the rest.
            let has_room = self.waiting.len() < DHCP_REPLIES_WAITING_MAX;
            let answers = matches!(self.rest, Rest::No);
            let pause = tokio::time::sleep(self.pause());
            tokio::select! {
                biased;
                Some(word) = words.recv() => self.follow(word, &mut incoming),
                _ = look.tick(), if answers => {
                    if let Some(settings) = self.places.look() {
                        self.go_by(settings);
                    }
                }
                saved = finished(&mut self.saving) => self.saved(saved),
                Some(first) = incoming.recv(), if has_room && answers => {
                    self.take(first);
                    for _ in 0..DHCP_INCOMING_MAX {
                        let Ok(more) = incoming.try_recv() else { break };
                        self.take(more);
                    }
                }
                () = pause, if answers => self.time_passed(),
            }
            self.drain();
            self.tell_if_at_rest();
        }
    }

    fn follow(&mut self, word: Word, incoming: &mut mpsc::Receiver<Incoming>) {
        match word {
            Word::Change(change) => {
                let Change { config, settings } = *change;
                self.places.replace(config);
                self.go_by(settings);
            }
            // Who asked is waiting.
            Word::Share(answer) => drop(answer.send(self.share())),
            Word::Leases(answer) => drop(answer.send(self.all_leases())),
            Word::Forget(address, answer) => {
                let was_leased = self.server.handle_forget(host::moment(), address);
                let _ = answer.send(was_leased);
            }
            Word::Rest(answer) => {
                self.places.listen(false);
                // What has left the kernel is answered here.
                while let Ok(more) = incoming.try_recv() {
                    self.take(more);
                }
                self.rest = Rest::Wanted(answer);
            }
            Word::GoOn { leases_changed } => {
                if leases_changed {
                    self.read_again();
                }
                self.rest = Rest::No;
                self.places.listen(true);
            }
        }
    }

    fn share(&self) -> io::Result<Vec<(Door, OwnedFd)>> {
        let mut shared = self.places.share()?;
        if let Some(echo) = &self.echo {
            shared.push((Door::Echo, echo.as_fd().try_clone_to_owned()?));
        }
        Ok(shared)
    }

    /// Says that it rests, where it was asked to and nothing is left to be done.
    fn tell_if_at_rest(&mut self) {
        if self.saving.is_some() || !self.records.is_empty() {
            return;
        }
        match std::mem::replace(&mut self.rest, Rest::Yes) {
            // Who asked may have given up, and says so by letting it go on.
            Rest::Wanted(answer) => drop(answer.send(())),
            other => self.rest = other,
        }
    }

    /// Reads the leases that another server has given meanwhile.
    fn read_again(&mut self) {
        // It rests, so nobody else has the file.
        let Some(file) = self.file.take() else { return };
        match file.read_again() {
            Ok(records) => {
                self.server = Server::new(self.settings.clone(), Leases::recovered(records));
                self.tell_of_known_leases();
            }
            Err(failure) => tracing::error!("{failure}"),
        }
        self.file = Some(file.begin_anew());
    }

    fn go_by(&mut self, settings: Settings) {
        self.settings.clone_from(&settings);
        self.server.replace(settings);
        self.tell_of_known_leases();
    }

    fn take(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Message {
                link,
                port,
                from,
                message,
            } => {
                let Some(of) = self.places.get(link) else {
                    return;
                };
                let arrival = Arrival {
                    link: of.link,
                    port,
                    from,
                    message: &message,
                };
                self.watch.dhcp_asks(&message);
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
                Effect::Report(report) => {
                    self.watch.dhcp_reported(&report);
                    self.log.report(&report);
                }
                Effect::Begin(boot) => self.boots.begin(&boot),
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
        let (index, place) = self.places.of_interface(interface)?;
        match place.is_near(address) {
            true => place.sockets.arp.is_some().then_some(Way::Arp(index)),
            false => self.echo.is_some().then_some(Way::Echo),
        }
    }

    fn ask(&self, way: Way, address: Ipv4Addr) {
        let asked = match way {
            Way::Arp(link) => {
                let place = self.places.get(link);
                let arp = place.and_then(|place| place.sockets.arp.as_ref());
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
        let Some((_, place)) = self.places.of_interface(reply.link.interface) else {
            return;
        };
        match place.sockets.send(reply) {
            Ok(()) => {
                let holder = self.server.holder_of(reply.message.yiaddr);
                let name = holder.and_then(|holder| holder.name);
                self.watch
                    .dhcp_replied(reply, name.map(|name| name.to_string()));
                self.log.sent(reply);
            }
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

    fn all_leases(&self) -> Vec<Lease> {
        let leased = |record: &Record| record.state == Saved::Leased;
        let lease = |record: Record| Lease {
            address: record.address,
            mac: record.mac,
            name: self
                .server
                .holder_of(record.address)
                .and_then(|holder| holder.name),
            left: record.until.since(host::moment()),
        };
        self.server.records().filter(leased).map(lease).collect()
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
