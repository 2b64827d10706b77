//! Who may still need an address of a pool: that many are kept from machines that are in no config.
//!
//! Invariant: [`Reserve::open`] is the number of machines that need an address and have none.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Binding, Key, State};

/// The machines of the config that need an address of one pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Reserve {
    /// Those without an own address, wherever they are: any of them may come here.
    floating: Arc<HashSet<Key>>,
    /// Those whose own address, in the same network, somebody else has.
    displaced: HashSet<Key>,
    /// How many addresses of the pool each known machine has, had, or was offered.
    served: HashMap<Key, usize>,
    open: usize,
}

impl Reserve {
    pub(super) fn new(floating: Arc<HashSet<Key>>) -> Self {
        Self {
            open: floating.len(),
            floating,
            displaced: HashSet::new(),
            served: HashMap::new(),
        }
    }

    /// For how many machines an address is to be kept.
    pub(super) const fn open(&self) -> usize {
        self.open
    }

    fn needs(&self, key: &Key) -> bool {
        self.floating.contains(key) || self.displaced.contains(key)
    }

    /// A known machine has a binding in the pool.
    pub(super) fn add(&mut self, binding: &Binding) {
        if !will_serve(binding) {
            return;
        }
        let count = self.served.entry(binding.key.clone()).or_default();
        *count += 1;
        if *count == 1 && self.needs(&binding.key) {
            self.open -= 1;
        }
    }

    /// It no longer has it.
    pub(super) fn remove(&mut self, binding: &Binding) {
        let Some(count) = self.served.get_mut(&binding.key) else {
            return;
        };
        if !will_serve(binding) {
            return;
        }
        *count -= 1;
        if *count == 0 {
            self.served.remove(&binding.key);
            self.open += usize::from(self.needs(&binding.key));
        }
    }

    /// A machine can't have its own address.
    pub(super) fn displace(&mut self, key: &Key) {
        let is_new = !self.needs(key);
        if is_new && self.displaced.insert(key.clone()) && !self.served.contains_key(key) {
            self.open += 1;
        }
    }

    /// It can again.
    pub(super) fn replace(&mut self, key: &Key) {
        if self.displaced.remove(key) && !self.served.contains_key(key) {
            self.open -= 1;
        }
    }
}

/// Whether the machine gets the address of the binding when it asks.
fn will_serve(binding: &Binding) -> bool {
    binding.state != State::Declined
}
