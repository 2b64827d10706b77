//! The DHCP server: messages, moments and answers to probes come in, effects go out.
//!
//! After each `handle_*`, drain [`Server::poll_effect`]; call [`Server::handle_timeout`] at the
//! moment of [`Server::poll_timeout`].
//!
//! Invariants:
//! - What a machine is promised stands in an [`Effect::Save`] before the [`Effect::Send`] with the
//!   promise, or did earlier.
//! - A probe holds up the machine whose address is probed, and nobody else.
//! - Unknown machines get nothing that known ones may need.
//! - A machine that has an address keeps it while it runs, whatever the config says now: its root
//!   file system hangs on it. The one exception is an address that the config gives to another: it
//!   is refused at the next renewal, and free once the machine has begun anew.

mod answer;
mod ask;
mod choose;
mod discover;
mod effect;
mod herd;
mod notice;
mod proxy;
mod request;
mod rivals;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::boot::Mode;
use super::lease::{Leases, Pool, Record, State};
use super::moment::Moment;
use super::settings::{Settings, Unknown};
use super::wire::{Message, MessageType, Op};
use crate::mac::MacAddress;
use crate::name::Name;
use ask::Asked;
use discover::Waiting;
pub use effect::{
    Arrival, Beginning, Destination, Effect, Event, Link, Port, Probed, Reason, Reply, Report,
};
use herd::Machines;
use rivals::Rivals;

/// The server.
#[derive(Clone, Debug)]
pub struct Server {
    settings: Arc<Settings>,
    machines: Machines,
    leases: Leases,
    /// Our own addresses: nobody is given those.
    ours: BTreeSet<Ipv4Addr>,
    /// Requests whose address is being probed.
    waiting: BTreeMap<Ipv4Addr, Waiting>,
    rivals: Rivals,
    effects: VecDeque<Effect>,
    now: Moment,
}

/// The machine that has a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The network card.
    pub mac: MacAddress,
    /// Its name in the config.
    pub name: Option<Name>,
}

impl Server {
    /// A server that goes by `settings` and knows what the lease file held.
    #[must_use]
    pub fn new(settings: Settings, leases: Leases) -> Self {
        let mut server = Self {
            machines: Machines::default(),
            settings: Arc::new(settings),
            leases,
            ours: BTreeSet::new(),
            waiting: BTreeMap::new(),
            rivals: Rivals::default(),
            effects: VecDeque::new(),
            now: Moment(0),
        };
        server.arrange();
        server
    }

    /// Goes by other settings from now on. Leases stay.
    pub fn replace(&mut self, settings: Settings) {
        self.settings = Arc::new(settings);
        self.arrange();
    }

    /// Says at which addresses we are. Those that messages come to need not be said.
    pub fn serve_on(&mut self, addresses: impl IntoIterator<Item = Ipv4Addr>) {
        let before = self.ours.len();
        self.ours.extend(addresses);
        if self.ours.len() > before {
            self.arrange();
        }
    }

    /// Makes the pools anew.
    fn arrange(&mut self) {
        self.machines = Machines::of(&self.settings);
        let in_use = self.settings.addresses_in_use();
        let pools = self.settings.networks.iter().map(|network| {
            let left_out = in_use.iter().chain(&self.ours).copied();
            Pool::new(network.ranges.clone(), left_out)
        });
        let pools = pools.collect();
        self.leases = std::mem::take(&mut self.leases).arranged(pools, self.machines.herd());
    }

    /// A message has arrived.
    pub fn handle_message(&mut self, now: Moment, arrival: &Arrival<'_>) {
        self.pass(now);
        self.serve_on([arrival.link.address]);
        if arrival.message.op == Op::Reply {
            return self.overhear(arrival);
        }
        self.answer(arrival);
    }

    /// The answer to [`Effect::Probe`].
    pub fn handle_probed(&mut self, now: Moment, address: Ipv4Addr, found: Probed) {
        self.pass(now);
        if let Some(waiting) = self.waiting.remove(&address) {
            self.probed(address, found, &waiting);
        }
    }

    /// Somebody who may orders that the lease of an address ends now; whether there was one.
    pub fn handle_forget(&mut self, now: Moment, address: Ipv4Addr) -> bool {
        self.pass(now);
        let record = self.leases.forget(self.now, address);
        let was_leased = record.is_some();
        self.save(record);
        was_leased
    }

    /// The moment of [`Self::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.pass(now);
    }

    /// When [`Self::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Moment> {
        self.leases.next_end()
    }

    /// What is to be done next.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// All bindings that are to be in a lease file that is written anew.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        self.leases.records()
    }

    /// The machine that has the lease of an address.
    #[must_use]
    pub fn holder_of(&self, address: Ipv4Addr) -> Option<Holder> {
        let binding = self.leases.get(address)?;
        let machine = self.machines.of_key(&self.settings.machines, &binding.key);
        (binding.state == State::Leased).then(|| Holder {
            mac: binding.mac,
            name: machine.map(|machine| machine.name.clone()),
        })
    }

    fn pass(&mut self, now: Moment) {
        self.now = self.now.max(now);
        for address in self.leases.pass(self.now) {
            self.waiting.remove(&address);
        }
    }

    fn answer(&mut self, arrival: &Arrival<'_>) {
        let settings = Arc::clone(&self.settings);
        let mut asked = self.ask(&settings, arrival);
        self.adopt(&asked);
        if let Err(reason) = self.try_answer(&mut asked) {
            self.report(&mut asked, Event::Ignored(reason));
        }
    }

    fn try_answer(&mut self, asked: &mut Asked<'_>) -> Result<(), Reason> {
        let kind = asked.message.kind().map_err(|_| Reason::Type)?;
        asked.check_addresses()?;
        if asked.machine.is_none() && self.settings.unknown == Unknown::Ignore {
            asked.say("the config says not to serve machines that are not in it");
            return Err(Reason::Unknown);
        }
        match (self.settings.mode, asked.port, kind) {
            (_, Port::Boot, kind) => self.boot_server(asked, kind),
            (Mode::Proxy, Port::Server, kind) => self.proxy(asked, kind),
            (Mode::Server, Port::Server, None) => self.bootp(asked),
            (Mode::Server, Port::Server, Some(kind)) => self.serve(asked, kind),
        }
    }

    fn serve(&mut self, asked: &mut Asked<'_>, kind: MessageType) -> Result<(), Reason> {
        match kind {
            MessageType::Discover => self.discover(asked),
            MessageType::Request => self.request(asked),
            MessageType::Decline => self.decline(asked),
            MessageType::Release => self.release(asked),
            MessageType::Inform => self.inform(asked),
            MessageType::Offer | MessageType::Ack | MessageType::Nak => Err(Reason::Type),
        }
    }

    /// Whether a message that names this server means us.
    fn is_ours(&self, server: Ipv4Addr, message: &Message) -> bool {
        self.ours.contains(&server) || message.server_override() == Some(server)
    }

    fn save(&mut self, record: Option<Record>) {
        self.effects.extend(record.map(Effect::Save));
    }

    fn report(&mut self, asked: &mut Asked<'_>, what: Event) {
        self.effects.push_back(Effect::Report(Report {
            what,
            mac: asked.message.chaddr,
            kind: asked.message.kind().ok().flatten(),
            why: std::mem::take(&mut asked.why),
        }));
    }
}
