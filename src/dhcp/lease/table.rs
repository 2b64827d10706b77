//! The table of bindings.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use super::pool::{self, Pool, Rank, Source};
use super::reserve::Reserve;
use super::{Binding, Key, Record, State};
use crate::dhcp::moment::{Moment, millis};
use crate::limits::{DHCP_OFFER_TIME, DHCP_OFFERS_MAX, DHCP_QUARANTINE_TIME};
use crate::mac::MacAddress;

/// The machines that the config knows.
#[derive(Clone, Debug, Default)]
pub struct Herd {
    /// All of them.
    pub known: HashSet<Key>,
    /// Those without an own address, which need one of a pool.
    pub floating: Arc<HashSet<Key>>,
    /// Addresses that are a machine's own, and the pool of their network.
    pub own: HashMap<Ipv4Addr, (Key, usize)>,
}

/// Every binding there is.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    bindings: BTreeMap<Ipv4Addr, Binding>,
    of_key: HashMap<Key, BTreeSet<Ipv4Addr>>,
    /// The machines that are known by something else than this network card.
    of_card: HashMap<MacAddress, Key>,
    /// When live bindings end.
    ends: BTreeSet<(Moment, Ipv4Addr)>,
    pub(super) pools: Vec<Pool>,
    pub(super) herd: Herd,
}

impl Leases {
    /// The table that was saved by these records.
    #[must_use]
    pub fn recovered(records: impl IntoIterator<Item = Record>) -> Self {
        let mut all = Self::default();
        for record in records {
            let address = record.address;
            all.put(address, record.into());
        }
        all
    }

    /// Says which pools there are, one a network, and who is known.
    #[must_use]
    pub fn arranged(self, mut pools: Vec<Pool>, herd: Herd) -> Self {
        for pool in &mut pools {
            pool.reserve = Reserve::new(Arc::clone(&herd.floating));
        }
        let mut all = Self {
            pools,
            herd,
            ..Self::default()
        };
        for (address, binding) in self.bindings {
            all.put(address, binding);
        }
        all
    }

    /// The binding of an address.
    #[must_use]
    pub fn get(&self, address: Ipv4Addr) -> Option<&Binding> {
        self.bindings.get(&address)
    }

    /// The bindings of a machine.
    pub fn of(&self, key: &Key) -> impl Iterator<Item = (Ipv4Addr, &Binding)> {
        let addresses = self.of_key.get(key).into_iter().flatten();
        addresses.filter_map(|address| Some((*address, self.bindings.get(address)?)))
    }

    /// The bindings of a machine, and those of its network card by what it was known by before.
    pub fn held_by(
        &self,
        key: &Key,
        mac: MacAddress,
    ) -> impl Iterator<Item = (Ipv4Addr, &Binding)> {
        let card = Key::Mac(mac);
        let seen = self.of_card.get(&mac).filter(|seen| *seen != key);
        let card = (card != *key).then_some(card);
        let others = card.into_iter().chain(seen.cloned());
        let others = others.flat_map(|other| self.of(&other).collect::<Vec<_>>());
        self.of(key).chain(others)
    }

    /// The machine that has a binding for this network card, where it is known by something else.
    #[must_use]
    pub fn machine_of_card(&self, mac: MacAddress) -> Option<&Key> {
        self.of_card.get(&mac)
    }

    /// All that is to be saved.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let all = self.bindings.iter();
        all.filter_map(|(address, binding)| binding.record(*address))
    }

    /// When [`Self::pass`] has something to do.
    #[must_use]
    pub fn next_end(&self) -> Option<Moment> {
        self.ends.first().map(|(moment, _)| *moment)
    }

    /// Ends what has ended, and says which addresses that are.
    pub fn pass(&mut self, now: Moment) -> Vec<Ipv4Addr> {
        let mut ended = Vec::new();
        while let Some((moment, address)) = self.ends.first().copied()
            && moment <= now
        {
            self.end(address, moment);
            ended.push(address);
        }
        ended
    }

    fn end(&mut self, address: Ipv4Addr, until: Moment) {
        let Some(mut binding) = self.take(address) else {
            return;
        };
        binding.state = if binding.had {
            State::Expired
        } else {
            State::Lapsed
        };
        binding.until = until;
        self.put(address, binding);
    }

    /// Keeps an address for a machine that is to be offered it. A lease stays as it is.
    pub fn offer(&mut self, now: Moment, address: Ipv4Addr, key: &Key, mac: MacAddress) {
        let own = self.get(address).filter(|binding| binding.key == *key);
        if own.is_some_and(|binding| binding.state == State::Leased) {
            return;
        }
        let binding = Binding {
            key: key.clone(),
            mac,
            state: State::Offered,
            until: now.after(DHCP_OFFER_TIME),
            length: millis(DHCP_OFFER_TIME),
            checked: own.and_then(|binding| binding.checked),
            in_use: None,
            had: own.is_some_and(|binding| binding.had),
            refused: false,
            reported: false,
        };
        self.put(address, binding);
    }

    /// Gives a machine an address for so long. `None` where it already has it for as long.
    ///
    /// What was promised before stays: the machine may never hear of a shorter time.
    pub fn lease(
        &mut self,
        now: Moment,
        address: Ipv4Addr,
        key: &Key,
        mac: MacAddress,
        length: Duration,
    ) -> Option<Record> {
        let old = self.get(address).filter(|old| old.key == *key);
        let old = old.filter(|old| old.state == State::Leased);
        let promised = old.map_or(Moment(0), |old| old.until);
        let until = now.after(length).max(promised);
        if until == promised && old.is_some_and(|old| old.mac == mac) {
            if let Some(binding) = self.bindings.get_mut(&address) {
                binding.refused = false;
            }
            return None;
        }
        let binding = Binding {
            key: key.clone(),
            mac,
            state: State::Leased,
            until,
            length: millis(until.since(now)),
            checked: Some((now, mac)),
            in_use: None,
            had: true,
            refused: false,
            reported: false,
        };
        let record = binding.record(address);
        self.put(address, binding);
        record
    }

    /// Has a binding go by another key of the same machine.
    pub fn rename(&mut self, address: Ipv4Addr, key: &Key) -> Option<Record> {
        let mut binding = self.take(address)?;
        binding.key = key.clone();
        let record = binding.record(address);
        self.put(address, binding);
        record
    }

    /// Notes that nobody answers to an address, but perhaps this card.
    pub fn check(&mut self, now: Moment, address: Ipv4Addr, mac: MacAddress) {
        if let Some(binding) = self.bindings.get_mut(&address) {
            binding.checked = Some((now, mac));
            binding.in_use = None;
        }
    }

    /// Notes that the card which has the address answers to it, while another one asks for it.
    pub fn see_in_use(&mut self, now: Moment, address: Ipv4Addr) {
        if let Some(binding) = self.bindings.get_mut(&address) {
            binding.in_use = Some(now);
        }
    }

    /// Notes that the machine which has the address is told that it can't keep it.
    pub fn refuse(&mut self, address: Ipv4Addr) {
        if let Some(binding) = self.bindings.get_mut(&address) {
            binding.refused = true;
        }
    }

    /// Whether it is to be reported that another machine waits for the address: once a lease.
    pub fn report(&mut self, address: Ipv4Addr) -> bool {
        let binding = self.bindings.get_mut(&address);
        binding.is_some_and(|binding| !std::mem::replace(&mut binding.reported, true))
    }

    /// Ends a lease or an offer before its time.
    pub fn give_back(&mut self, now: Moment, address: Ipv4Addr) -> Option<Record> {
        let was = self.get(address)?.state;
        self.end(address, now);
        let ended = self.get(address)?.record(address);
        ended.filter(|_| was == State::Leased)
    }

    /// Ends a lease although its machine may go on with it. Before another is given the address, it
    /// is looked whether anybody answers to it.
    pub fn forget(&mut self, now: Moment, address: Ipv4Addr) -> Option<Record> {
        let record = self.give_back(now, address)?;
        if let Some(binding) = self.bindings.get_mut(&address) {
            binding.checked = None;
        }
        Some(record)
    }

    /// Keeps an address from everybody for a while, since somebody uses it.
    pub fn decline(&mut self, now: Moment, address: Ipv4Addr) -> Option<Record> {
        let mut binding = self.take(address)?;
        binding.state = State::Declined;
        binding.until = now.after(DHCP_QUARANTINE_TIME);
        binding.length = millis(DHCP_QUARANTINE_TIME);
        (binding.checked, binding.in_use) = (None, None);
        binding.had = false;
        let record = binding.record(address);
        self.put(address, binding);
        record
    }

    /// An address of a pool for a machine that has none.
    pub fn pick(&mut self, pool: usize, is_known: bool) -> Option<(Ipv4Addr, Source)> {
        let unused = self.first_unused(pool);
        if !is_known && !self.has_room_for_unknown(pool) {
            return None;
        }
        let pool = self.pools.get(pool)?;
        let oldest = |rank, source| Some((pool.oldest(rank)?, source));
        oldest(Rank::Lapsed, Source::Lapsed)
            .or_else(|| Some((unused?, Source::Unused)))
            .or_else(|| oldest(Rank::Expired, Source::Expired))
            .or_else(|| oldest(Rank::Offered, Source::Offered).filter(|_| is_known))
            .or_else(|| oldest(Rank::Kept, Source::Kept).filter(|_| is_known))
    }

    fn first_unused(&mut self, pool: usize) -> Option<Ipv4Addr> {
        self.pools.get_mut(pool)?.first_unused(&self.bindings)
    }

    /// Whether unknown machines may be given more: known ones that have nothing here yet come
    /// first, and offers that nobody takes must not use up everything.
    #[must_use]
    pub fn has_room_for_unknown(&self, pool: usize) -> bool {
        self.pools.get(pool).is_some_and(|pool| {
            let surplus = pool.surplus().unwrap_or(0);
            surplus > 0 && pool.offered() < DHCP_OFFERS_MAX
        })
    }

    /// Whether unknown machines may take what they were offered. Known ones may need more since.
    #[must_use]
    pub fn offers_stand(&self, pool: usize) -> bool {
        let pool = self.pools.get(pool);
        pool.is_some_and(|pool| pool.surplus().is_some())
    }

    /// Whether a machine that asks for this address may have it, since nobody ever had it.
    #[must_use]
    pub fn is_free(&self, pool: usize, address: Ipv4Addr, is_known: bool) -> bool {
        let in_pool = self.pools.get(pool).is_some_and(|pool| pool.holds(address));
        let free = match self.get(address) {
            None => true,
            Some(binding) => self.rank(binding) == Some(Rank::Lapsed),
        };
        in_pool && free && (is_known || self.has_room_for_unknown(pool))
    }

    /// Whether the address is one of the pool.
    #[must_use]
    pub fn is_pooled(&self, pool: usize, address: Ipv4Addr) -> bool {
        self.pools.get(pool).is_some_and(|pool| pool.holds(address))
    }

    fn rank(&self, binding: &Binding) -> Option<Rank> {
        pool::rank(binding, self.herd.known.contains(&binding.key))
    }

    fn put(&mut self, address: Ipv4Addr, binding: Binding) {
        let is_known = self.herd.known.contains(&binding.key);
        self.take(address);
        let addresses = self.of_key.entry(binding.key.clone()).or_default();
        addresses.insert(address);
        if binding.key != Key::Mac(binding.mac) {
            self.of_card.insert(binding.mac, binding.key.clone());
        }
        if binding.is_live() {
            self.ends.insert((binding.until, address));
        }
        if let Some(pool) = self.pools.iter_mut().find(|pool| pool.holds(address)) {
            pool.add(address, &binding, is_known);
        }
        if let Some((owner, reserve)) = self.displaced(address, &binding) {
            reserve.displace(&owner);
        }
        self.bindings.insert(address, binding);
    }

    /// The machine whose own address this is, where it can't have it for this binding, and the
    /// reserve that it needs one of.
    fn displaced(&mut self, address: Ipv4Addr, binding: &Binding) -> Option<(Key, &mut Reserve)> {
        let (owner, pool) = self.herd.own.get(&address)?.clone();
        let is_in_the_way = match binding.state {
            State::Declined => true,
            State::Leased => binding.key != owner,
            State::Offered | State::Expired | State::Lapsed => false,
        };
        let pool = self.pools.get_mut(pool).filter(|_| is_in_the_way)?;
        Some((owner, &mut pool.reserve))
    }

    fn is_last_of_card(&self, binding: &Binding) -> bool {
        let mut others = self.of(&binding.key);
        !others.any(|(_, other)| other.mac == binding.mac)
    }

    /// Takes a binding out of the table. It must be followed by [`Self::put`] of the same address.
    fn take(&mut self, address: Ipv4Addr) -> Option<Binding> {
        let binding = self.bindings.remove(&address)?;
        let is_known = self.herd.known.contains(&binding.key);
        if let Some(addresses) = self.of_key.get_mut(&binding.key) {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.of_key.remove(&binding.key);
            }
        }
        if self.is_last_of_card(&binding) && self.of_card.get(&binding.mac) == Some(&binding.key) {
            self.of_card.remove(&binding.mac);
        }
        self.ends.remove(&(binding.until, address));
        if let Some(pool) = self.pools.iter_mut().find(|pool| pool.holds(address)) {
            pool.remove(address, &binding, is_known);
        }
        if let Some((owner, reserve)) = self.displaced(address, &binding) {
            reserve.replace(&owner);
        }
        Some(binding)
    }
}
