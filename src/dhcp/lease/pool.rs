//! The addresses of one network that machines without an own address get.
//!
//! Invariant: an address of the pool is either unused (never bound), or ranked (bound, and to be
//! had by somebody else if need be), or neither (bound, and nobody else's).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use super::reserve::Reserve;
use super::{Binding, State};
use crate::dhcp::moment::Moment;

/// How readily a bound address goes to another machine: the first of them first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// An offer that was not taken.
    Lapsed,
    /// A lease of an unknown machine that is over.
    Expired,
    /// An offer to an unknown machine. Only a known one may take that over.
    Offered,
    /// Something of a known machine that is over. Only a known one may take that over.
    Kept,
}

/// Where an address for a machine comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody took it when it was offered.
    Lapsed,
    /// Nobody ever had it.
    Unused,
    /// Nobody has had it for longer.
    Expired,
    /// An unknown machine was offered it.
    Offered,
    /// A known machine had it, none for longer.
    Kept,
}

/// The addresses of one network that machines without an own address get.
#[derive(Clone, Debug)]
pub struct Pool {
    ranges: Vec<RangeInclusive<Ipv4Addr>>,
    left_out: HashSet<Ipv4Addr>,
    /// How many addresses are unused.
    unused: u64,
    /// The range, and the address in it, before which none is unused.
    cursor: (usize, Option<Ipv4Addr>),
    ranked: BTreeSet<(Rank, Moment, Ipv4Addr)>,
    counts: [usize; 4],
    pub(super) reserve: Reserve,
}

impl Pool {
    /// All of `ranges`, in this order, but those in `left_out`.
    #[must_use]
    pub fn new(
        ranges: Vec<RangeInclusive<Ipv4Addr>>,
        left_out: impl IntoIterator<Item = Ipv4Addr>,
    ) -> Self {
        let in_ranges = |address: &Ipv4Addr| ranges.iter().any(|range| range.contains(address));
        let left_out: HashSet<_> = left_out.into_iter().filter(in_ranges).collect();
        let all: u64 = ranges.iter().map(size).sum();
        Self {
            unused: all.saturating_sub(left_out.len() as u64),
            ranges,
            left_out,
            cursor: (0, None),
            ranked: BTreeSet::new(),
            counts: [0; 4],
            reserve: Reserve::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn emptied(&self) -> Self {
        Self::new(self.ranges.clone(), self.left_out.iter().copied())
    }

    /// Whether `address` is one of them.
    pub(super) fn holds(&self, address: Ipv4Addr) -> bool {
        self.ranges.iter().any(|range| range.contains(&address))
            && !self.left_out.contains(&address)
    }

    /// An address of the pool is bound.
    pub(super) fn add(&mut self, address: Ipv4Addr, binding: &Binding, is_known: bool) {
        self.unused = self.unused.saturating_sub(1);
        if is_known {
            self.reserve.add(binding);
        }
        if let Some(rank) = rank(binding, is_known)
            && self.ranked.insert((rank, binding.until, address))
        {
            *self.count(rank) += 1;
        }
    }

    /// It no longer is, or not like this: [`Self::add`] follows.
    pub(super) fn remove(&mut self, address: Ipv4Addr, binding: &Binding, is_known: bool) {
        self.unused += 1;
        if is_known {
            self.reserve.remove(binding);
        }
        if let Some(rank) = rank(binding, is_known)
            && self.ranked.remove(&(rank, binding.until, address))
        {
            *self.count(rank) -= 1;
        }
    }

    fn count(&mut self, rank: Rank) -> &mut usize {
        let [lapsed, expired, offered, kept] = &mut self.counts;
        match rank {
            Rank::Lapsed => lapsed,
            Rank::Expired => expired,
            Rank::Offered => offered,
            Rank::Kept => kept,
        }
    }

    /// Offers to unknown machines.
    pub(super) const fn offered(&self) -> usize {
        let [_, _, offered, _] = self.counts;
        offered
    }

    /// How many addresses an unknown machine could be given, were there no known ones.
    pub(super) const fn spare(&self) -> u64 {
        let [lapsed, expired, _, _] = self.counts;
        self.unused + lapsed as u64 + expired as u64
    }

    /// How many of those known machines do not need; `None` where they need more.
    pub(super) fn surplus(&self) -> Option<u64> {
        self.spare().checked_sub(self.reserve.open() as u64)
    }

    /// The address of this rank that has had it for longest.
    pub(super) fn oldest(&self, wanted: Rank) -> Option<Ipv4Addr> {
        let from = (wanted, Moment(0), Ipv4Addr::UNSPECIFIED);
        let (rank, _, address) = self.ranked.range(from..).next()?;
        (*rank == wanted).then_some(*address)
    }

    /// The first address that is unused.
    pub(super) fn first_unused(
        &mut self,
        bindings: &BTreeMap<Ipv4Addr, Binding>,
    ) -> Option<Ipv4Addr> {
        if self.unused == 0 {
            return None;
        }
        let is_unused = |address: &Ipv4Addr| {
            !bindings.contains_key(address) && !self.left_out.contains(address)
        };
        let (first, at) = self.cursor;
        for (index, range) in self.ranges.iter().enumerate().skip(first) {
            let from = at
                .filter(|_| index == first)
                .unwrap_or_else(|| *range.start());
            let found = addresses(from, *range.end()).find(is_unused);
            if found.is_some() {
                self.cursor = (index, found);
                return found;
            }
        }
        self.cursor = (self.ranges.len(), None);
        None
    }
}

/// What `binding` is for others.
pub(super) const fn rank(binding: &Binding, is_known: bool) -> Option<Rank> {
    match (binding.state, is_known) {
        (State::Leased | State::Declined, _) | (State::Offered, true) => None,
        (State::Offered, false) => Some(Rank::Offered),
        (State::Lapsed | State::Expired, true) => Some(Rank::Kept),
        (State::Lapsed, false) => Some(Rank::Lapsed),
        (State::Expired, false) => Some(Rank::Expired),
    }
}

fn size(range: &RangeInclusive<Ipv4Addr>) -> u64 {
    let (start, end) = (range.start().to_bits(), range.end().to_bits());
    match end.checked_sub(start) {
        Some(more) => u64::from(more) + 1,
        None => 0,
    }
}

fn addresses(from: Ipv4Addr, to: Ipv4Addr) -> impl Iterator<Item = Ipv4Addr> {
    (from.to_bits()..=to.to_bits()).map(Ipv4Addr::from_bits)
}
