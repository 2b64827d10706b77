//! What a machine will read is brought into memory while its firmware still asks for an address.
//!
//! Sessions note what they read of an image when they begin (see [`crate::image::BootSet`]). That
//! is kept in the state directory, a file for each generation, and read when the image is opened.
//!
//! Invariants:
//! - Nothing waits for this, and nothing hangs on it: a file that can't be read is left out.
//! - No machine that runs has anything brought in, whoever sends a DISCOVER in its name.
//! - What is brought in leaves half of the memory that can be had to others.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::herd::Herd;
use super::host;
use super::offer::Offer;
use super::state_dir::{StateDir, durable};
use crate::access::{Caller, Peer};
use crate::config::Choice;
use crate::image::{BootSet, Complaint, Image, Warmed, Warming};
use crate::limits::{BOOT_SET_FILE_MAX, BOOT_WARM_SHARE};
use crate::name::Name;

/// How often what is new is saved, at most.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// A machine that is being switched on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    /// As its overlay is called.
    pub(super) name: Name,
    /// What it gets, where that is known.
    pub(super) address: Option<Ipv4Addr>,
}

impl Machine {
    /// Its address, as sessions have it.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        self.address.map(IpAddr::V4)
    }
}

/// From now on what boots read of `image` is remembered; and what they read before, where there is
/// a state directory that has it.
pub(super) fn remember(state: Option<&StateDir>, image: &Image, generation: u32) {
    if image.boot_set().is_some() {
        return;
    }
    let path = state.map(|state| state.boot_set(image.name(), generation));
    let saved = path.and_then(|path| read(&path, image));
    image.keep_boot_set(saved.unwrap_or_else(|| BootSet::new(image.size())));
}

fn read(path: &Path, image: &Image) -> Option<BootSet> {
    match try_read(path, image) {
        Ok(set) => Some(set),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(
                "what boots read of image {} can't be taken from {}: {error}; it is learnt anew",
                image.name(),
                path.display()
            );
            None
        }
    }
}

fn try_read(path: &Path, image: &Image) -> io::Result<BootSet> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(BOOT_SET_FILE_MAX)
        .read_to_end(&mut bytes)?;
    BootSet::from_bytes(&bytes, image.identity()).map_err(io::Error::other)
}

/// Saves what is new, now and then, until this is dropped.
pub(super) async fn save_regularly(herd: Arc<Herd>) {
    let mut tick = tokio::time::interval(SAVE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let failing = Arc::<Complaint>::default();
    loop {
        tick.tick().await;
        let (herd, failing) = (Arc::clone(&herd), Arc::clone(&failing));
        // Nothing in it panics; were it to, the next one saves.
        let _ = tokio::task::spawn_blocking(move || save(&herd, &failing)).await;
    }
}

/// Saves what is new. This waits for a disk.
pub(super) fn save(herd: &Herd, failing: &Complaint) {
    let Some(state) = herd.state() else {
        return;
    };
    let offer = herd.offer();
    for generations in &offer.images.0 {
        for (generation, image) in &generations.images {
            let path = state.boot_set(image.name(), *generation);
            save_one(path, image, failing);
        }
    }
}

fn save_one(path: PathBuf, image: &Image, failing: &Complaint) {
    let Some(set) = image.boot_set().filter(|set| set.take_unsaved()) else {
        return;
    };
    if let Err(error) = durable::write(&path, &set.to_bytes(image.identity())) {
        set.keep_unsaved();
        if failing.is_due() {
            tracing::warn!(
                "what boots read of image {} can't be saved to {}: {error}; it is forgotten when \
                 the server ends",
                image.name(),
                path.display()
            );
        }
    }
}

/// Brings in what the boots of a machine's image read, unless the machine is up.
pub(super) async fn for_machine(herd: &Herd, machine: Machine) {
    let Some((generation, image)) = image_of(&herd.offer(), &machine.name) else {
        return;
    };
    if image.boot_set().is_none() {
        return;
    }
    if herd.has(&machine).await {
        return tracing::debug!("{} is up: nothing is brought in for it", machine.name);
    }
    let Some(warming) = image.begin_warming() else {
        return;
    };
    let what = format!("{}+{generation}", image.name());
    // A thread that nobody waits for at the end, as a disk may be slow.
    let thread = std::thread::Builder::new().name("prefetch".to_owned());
    if let Err(error) = thread.spawn(move || run(warming, &what, &machine.name)) {
        tracing::debug!("no thread to bring in an image: {error}");
    }
}

fn run(warming: Warming, what: &str, machine: &Name) {
    let begun = Instant::now();
    let Warmed {
        remembered,
        brought_in,
        left_out,
    } = warming.run(host::available_memory() / BOOT_WARM_SHARE);
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    if brought_in > 0 || left_out > 0 {
        tracing::info!(
            "{machine} boots: of {} MiB that boots of {what} read, {} MiB were brought into memory \
             in {} ms, and {} MiB left out for want of it",
            mib(remembered),
            mib(brought_in),
            begun.elapsed().as_millis(),
            mib(left_out)
        );
    }
}

/// The image that a machine boots where nobody chooses another, and its generation.
fn image_of(offer: &Offer, machine: &Name) -> Option<(u32, Arc<Image>)> {
    let caller = Caller::plain(Peer::Local);
    let client = offer.known.client_of(&caller, Some(machine));
    let own = offer.images.get(client.image.as_ref()).ok()?;
    let found = match default_choice(offer, machine, &own.name) {
        Some(choice) => {
            let chosen = offer.images.get(Some(&choice.image)).ok()?;
            chosen.get(choice.generation)
        }
        None => own.get(None),
    };
    let (generation, image) = found.ok()?;
    Some((generation, Arc::clone(image)))
}

/// What is booted by the menu of a machine, where that says so.
fn default_choice(offer: &Offer, machine: &Name, image: &Name) -> Option<Choice> {
    let known = &offer.known;
    let own = known.config_of(machine).map(|config| &config.menu);
    let of_image = offer.boots.get(image).map(|boot| &boot.menu);
    let menus = own
        .into_iter()
        .chain(of_image)
        .chain([known.default_menu()]);
    menus.filter_map(|menu| menu.default.clone()).next()
}
