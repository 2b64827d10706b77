//! The machines as reports.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::report::{self, State};
use super::super::stage::Stage;
use super::super::usual::Usual;
use super::super::words;
use super::{At, Boot, Key, Machine, Timelines};

impl Timelines {
    /// All machines with their newest boots, those that need help first, then by name.
    #[must_use]
    pub fn clients(&self, now: At) -> Vec<report::Client> {
        let machines = self.machines.values();
        let mut clients: Vec<_> = machines
            .map(|machine| machine.report(now, &self.usual, 1))
            .collect();
        tell_apart(&mut clients);
        clients.sort_by(|a, b| {
            let order = |client: &report::Client| !client.state.wants_help();
            order(a).cmp(&order(b)).then_with(|| by_name(&a.id, &b.id))
        });
        clients
    }

    /// Machines that are doing otherwise than by `known`, which is brought up to date.
    pub fn changes(&self, now: At, known: &mut HashMap<Key, State>) -> Vec<report::Client> {
        known.retain(|key, _| self.machines.contains_key(key));
        let changed = self.machines.iter().filter(|(key, machine)| {
            let state = machine.state(now, &self.usual);
            let is_known = known.get(key) == Some(&state);
            if !is_known {
                known.insert((*key).clone(), state);
            }
            !is_known
        });
        let report = |(_, machine): (_, &Machine)| machine.report(now, &self.usual, 1);
        changed.map(report).collect()
    }

    /// One machine with all its boots: by its name, MAC address or address.
    #[must_use]
    pub fn client(&self, now: At, who: &str) -> Option<report::Client> {
        let machine = self.machines.get(self.key_named(who)?)?;
        Some(machine.report(now, &self.usual, usize::MAX))
    }
}

/// Two machines may go by one name, and must not be taken for one: lists and metrics go by ids.
fn tell_apart(clients: &mut [report::Client]) {
    let mut known: HashMap<String, usize> = HashMap::new();
    for client in clients.iter() {
        *known.entry(client.id.clone()).or_default() += 1;
    }
    let mut taken = HashSet::new();
    clients.sort_by_key(|client| client.mac.clone());
    for client in clients {
        if known.get(&client.id).is_some_and(|count| *count > 1) {
            let other = client.mac.clone().or_else(|| client.address.clone());
            client.id = other.unwrap_or_else(|| client.id.clone());
        }
        let plain = client.id.clone();
        let mut number = 2;
        while !taken.insert(client.id.clone()) {
            client.id = format!("{plain} ({number})");
            number += 1;
        }
    }
}

/// `pc-2` before `pc-10`.
fn by_name(a: &str, b: &str) -> std::cmp::Ordering {
    let split = |text: &str| {
        let stem = text.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = text
            .get(stem.len()..)
            .and_then(|digits| digits.parse().ok());
        (stem.to_owned(), number.unwrap_or(0_u64))
    };
    split(a).cmp(&split(b))
}

impl Machine {
    fn id(&self) -> String {
        let mac = || self.mac.map(|mac| mac.to_string());
        let address = || self.address.map(|address| address.to_string());
        let id = self.name.clone().or_else(mac).or_else(address);
        id.unwrap_or_else(|| "local".to_owned())
    }

    /// How its newest boot is doing.
    fn state(&self, now: At, usual: &Usual) -> State {
        let earlier = || self.boots.iter().take(self.boots.len().saturating_sub(1));
        if self.is_held_up() {
            return State::Stuck;
        }
        self.newest().map_or(State::Idle, |boot| {
            boot.state(now, self.connections, |stage| usual.of(stage, earlier()))
        })
    }

    /// Whether its requests wait for a disk of ours.
    fn is_held_up(&self) -> bool {
        self.connections > 0 && self.load.is_held_up()
    }

    fn report(&self, now: At, usual: &Usual, boots: usize) -> report::Client {
        let newest = self.boots.len().saturating_sub(1);
        let with_earlier = self.boots.iter().enumerate().rev().take(boots);
        let boots: Vec<_> = with_earlier
            .map(|(index, boot)| {
                let connections = if index == newest { self.connections } else { 0 };
                let earlier = || self.boots.iter().take(index);
                let mut report = boot.report(now, connections, |stage| usual.of(stage, earlier()));
                if index == newest && self.is_held_up() {
                    report.state = State::Stuck;
                    report.problem = Some(words::held_up(boot));
                }
                report
            })
            .collect();
        let boot = self.newest();
        let first = boots.first();
        report::Client {
            id: self.id(),
            name: self.name.clone(),
            mac: self.mac.map(|mac| mac.to_string()),
            address: self.address.map(|address| address.to_string()),
            hostname: self.hostname.clone(),
            vendor: self.vendor.clone(),
            architecture: self.architecture.clone(),
            seen: self.seen,
            state: first.map_or(State::Idle, |boot| boot.state),
            stage: boot.and_then(Boot::reached).map(|passage| passage.stage),
            since: boot.and_then(|boot| match boot.down {
                Some(down) if self.connections == 0 => Some(down),
                _ => boot.reached()?.ended,
            }),
            problem: first.and_then(|boot| boot.problem.clone()),
            export: boot.and_then(|boot| boot.export.clone()),
            connections: self.connections,
            traffic: self.load.report(),
            latencies: BTreeMap::new(),
            boots,
        }
    }
}

type Typical = super::super::usual::Typical;

impl Boot {
    fn report(
        &self,
        now: At,
        connections: u32,
        usual: impl Fn(Stage) -> Option<Typical>,
    ) -> report::Boot {
        let state = self.state(now, connections, &usual);
        let stages = self.passages.iter().map(|passage| {
            let (typical, took) = (usual(passage.stage), self.took(passage.stage));
            report::Passage {
                stage: passage.stage,
                began: passage.began.since(self.began),
                ended: passage.ended.map(|ended| ended.since(self.began)),
                took,
                usual: typical.map(|typical| typical.usual),
                slow: typical.zip(took).is_some_and(|(of, took)| of.is_slow(took)),
                bytes: passage.bytes,
                detail: passage.detail.clone(),
                failure: passage.failure.clone(),
                tries: passage.tries,
            }
        });
        report::Boot {
            began: self.began,
            took: self.took_in_all(),
            state,
            problem: state.wants_help().then(|| words::problem(self)),
            export: self.export.clone(),
            reconnects: self.reconnects,
            stages: stages.collect(),
        }
    }

    fn state(&self, now: At, connections: u32, usual: impl Fn(Stage) -> Option<Typical>) -> State {
        let has_failed = self.newest().is_some_and(|newest| newest.failure.is_some());
        if has_failed && !(self.has(Stage::Connect) && connections > 0) {
            return State::Failed;
        }
        if self.has(Stage::Connect) && connections == 0 {
            return State::Down;
        }
        if self.is_up() {
            return State::Up;
        }
        // One that another boot came after has waited until then.
        let waited = self.over.unwrap_or(now).since(self.last_step());
        let stage = self.newest().map_or(Stage::Discover, |newest| newest.stage);
        let limit = stage.next().and_then(usual).map(Typical::limit);
        let patience = u64::try_from(stage.patience().as_millis()).unwrap_or(u64::MAX);
        let is_slow = waited > limit.unwrap_or(patience);
        match waited > patience.max(limit.unwrap_or(0)) {
            // It reads: that it does not write may be how it is meant.
            true if self.has(Stage::FirstRead) => State::Slow,
            true => State::Stuck,
            false if self.over.is_some() => State::Failed,
            false if is_slow => State::Slow,
            false => State::Booting,
        }
    }

    /// When it got on last. To ask again for the same is no step; whatever is loaded is one.
    fn last_step(&self) -> At {
        match self.newest() {
            None => self.began,
            Some(newest) if newest.stage <= Stage::Ack => newest.began,
            Some(newest) if newest.stage <= Stage::Initramfs => self.last,
            Some(newest) => newest.ended.unwrap_or(newest.began),
        }
    }
}
