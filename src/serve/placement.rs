//! Which shard a volume is on.
//!
//! Invariant: as long as anybody uses or opens an overlay, or its shard has not closed it, it stays
//! placed where it is; so all sessions of an overlay meet on one shard. Bare images are on all.

use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::catalog::VolumeKey;

#[derive(Debug)]
struct Place {
    shard: usize,
    users: usize,
}

/// Who is where. Looked at when sessions begin and end only.
#[derive(Debug)]
pub(super) struct Placement {
    places: DashMap<VolumeKey, Place>,
    /// Users of each shard.
    loads: Vec<AtomicUsize>,
}

impl Placement {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            places: DashMap::new(),
            loads: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
        }
    }

    /// The shard of a volume, which gets a user more; the least loaded one where it has none yet.
    pub(super) fn join(&self, key: &VolumeKey) -> usize {
        let shard = self.place(key);
        self.count(shard, |load| load.fetch_add(1, Ordering::Relaxed));
        shard
    }

    fn place(&self, key: &VolumeKey) -> usize {
        if key.client.is_none() {
            // A bare image has no state that its users would have to meet at.
            return self.least_loaded();
        }
        match self.places.entry(key.clone()) {
            Entry::Occupied(mut place) => {
                place.get_mut().users += 1;
                place.get().shard
            }
            Entry::Vacant(free) => {
                let shard = self.least_loaded();
                free.insert(Place { shard, users: 1 });
                shard
            }
        }
    }

    /// The users of a client's volume; none is counted of a bare image.
    pub(super) fn users(&self, key: &VolumeKey) -> usize {
        self.places.get(key).map_or(0, |place| place.users)
    }

    /// A user of `shard` less. The volume stays placed until [`Placement::forget`].
    pub(super) fn leave(&self, key: &VolumeKey, shard: usize) {
        self.count(shard, |load| load.fetch_sub(1, Ordering::Relaxed));
        if let Some(mut place) = self.places.get_mut(key) {
            place.users -= 1;
        }
    }

    /// The volume is closed: the next user may get it elsewhere, if none has come meanwhile.
    pub(super) fn forget(&self, key: &VolumeKey) {
        self.places.remove_if(key, |_, place| place.users == 0);
    }

    fn least_loaded(&self) -> usize {
        let loads = self.loads.iter().map(|load| load.load(Ordering::Relaxed));
        (0..)
            .zip(loads)
            .min_by_key(|&(_, load)| load)
            .map_or(0, |(shard, _)| shard)
    }

    fn count(&self, shard: usize, change: impl Fn(&AtomicUsize) -> usize) {
        if let Some(load) = self.loads.get(shard) {
            change(load);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Name;

    fn key(client: &str) -> VolumeKey {
        VolumeKey {
            image: Name::new("disk").unwrap(),
            generation: 1,
            client: Some(Name::new(client).unwrap()),
        }
    }

    #[test]
    fn all_users_of_a_volume_meet_on_one_shard() {
        let placement = Placement::new(4);
        let first = placement.join(&key("a"));
        placement.join(&key("b"));
        assert_eq!(placement.join(&key("a")), first);
    }

    #[test]
    fn new_volumes_go_where_the_fewest_users_are() {
        let placement = Placement::new(2);
        let first = placement.join(&key("a"));
        placement.join(&key("a"));
        assert_ne!(placement.join(&key("b")), first);
        assert_ne!(placement.join(&key("c")), first);
    }

    #[test]
    fn users_of_a_bare_image_are_spread() {
        let placement = Placement::new(2);
        let bare = VolumeKey {
            client: None,
            ..key("a")
        };
        assert_ne!(placement.join(&bare), placement.join(&bare));
    }

    #[test]
    fn a_volume_that_is_being_closed_stays_where_it_is() {
        let placement = Placement::new(2);
        let first = placement.join(&key("a"));
        placement.leave(&key("a"), first);
        placement.join(&key("b"));
        assert_eq!(placement.join(&key("a")), first);
        placement.forget(&key("a"));
        assert_eq!(placement.join(&key("a")), first);
    }
}
