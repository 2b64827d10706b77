//! Which address is whose: the table of bindings, and how it is saved.
//!
//! - [`Leases`] is the table.
//! - [`file`] has the bytes of the file that it is saved in.
//!
//! Invariants:
//! - An address has one binding at most, so it can't be leased to two machines.
//! - A lease never ends before the latest end that its machine was told, but by an admin's order.
//! - A binding that has ended keeps its machine until another one needs the address.

pub mod file;
mod pool;
mod reserve;
mod table;

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::dhcp::moment::Moment;
use crate::mac::MacAddress;
pub use pool::{Pool, Source};
pub use table::{Herd, Leases};

/// What a machine is told apart by.
///
/// Its network card, since firmware, GRUB, initramfs and system of one machine all call themselves
/// differently in option 61. The other two are for machines that the config knows by them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Its network card.
    Mac(MacAddress),
    /// What it calls itself in option 61.
    Client(Arc<[u8]>),
    /// The UUID in its firmware.
    Uuid([u8; 16]),
}

/// What a binding is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The machine was offered the address, or will be once nobody answers to it.
    Offered,
    /// The machine has the address.
    Leased,
    /// The machine had the address.
    Expired,
    /// The machine was offered the address and did not take it.
    Lapsed,
    /// Somebody else uses the address: nobody is given it for a while.
    Declined,
}

/// One address and its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The machine.
    pub key: Key,
    /// The network card that the address was last given to.
    pub mac: MacAddress,
    /// What it is worth.
    pub state: State,
    /// When that ends or, where it has ended, when it did.
    pub until: Moment,
    /// When it was last seen that nobody uses the address but this network card.
    pub checked: Option<(Moment, MacAddress)>,
    /// When it was last seen that its card uses it, while another card asked for it.
    pub in_use: Option<Moment>,
    /// How many milliseconds there were to `until` when that was set.
    length: u64,
    /// Whether this machine ever had the address.
    had: bool,
    /// Whether it was told since that it can't have it any longer.
    refused: bool,
    /// Whether it was reported that the address is another machine's own.
    reported: bool,
}

/// What is saved of a binding. A later record of the same address replaces an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The address.
    pub address: Ipv4Addr,
    /// The machine.
    pub key: Key,
    /// The network card that the address was last given to.
    pub mac: MacAddress,
    /// What the binding is worth.
    pub state: Saved,
    /// When that ends or, where it has ended, when it did.
    pub until: Moment,
    /// How many milliseconds there were to `until` when that was set.
    pub length: u64,
}

/// The states that are saved. Offers are not: a machine that was offered an address asks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// The machine has the address until then.
    Leased,
    /// The machine gave it back.
    Ended,
    /// Somebody else uses it.
    Declined,
}

impl Binding {
    fn record(&self, address: Ipv4Addr) -> Option<Record> {
        let state = match self.state {
            State::Offered | State::Lapsed => return None,
            State::Leased => Saved::Leased,
            State::Expired => Saved::Ended,
            State::Declined => Saved::Declined,
        };
        Some(Record {
            address,
            key: self.key.clone(),
            mac: self.mac,
            state,
            until: self.until,
            length: self.length,
        })
    }

    /// Whether `key`, or whoever has this card, holds it as a lease. A machine goes by another key
    /// once the config knows it by something else.
    #[must_use]
    pub fn is_leased_to(&self, key: &Key, mac: MacAddress) -> bool {
        self.state == State::Leased && (self.key == *key || self.mac == mac)
    }

    /// Whether the machine was told that it can't have the address any longer.
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        self.refused
    }

    /// Whether somebody counts on it, or must not be given it.
    const fn is_live(&self) -> bool {
        matches!(self.state, State::Offered | State::Leased | State::Declined)
    }
}

impl From<Record> for Binding {
    fn from(record: Record) -> Self {
        Self {
            key: record.key,
            mac: record.mac,
            state: match record.state {
                Saved::Leased => State::Leased,
                Saved::Ended => State::Expired,
                Saved::Declined => State::Declined,
            },
            until: record.until,
            checked: None,
            in_use: None,
            length: record.length,
            had: record.state != Saved::Declined,
            refused: false,
            reported: false,
        }
    }
}
