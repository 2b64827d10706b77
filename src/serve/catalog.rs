//! What an export name stands for, of what is offered.
//!
//! Invariants: promise 5, "one client's bytes are reachable only as that client": the overlay of a
//! target is named after the client that [`Known::client_of`](super::who::Known::client_of)
//! answers, and after nothing else; nothing is found for a caller that `access` did not let in.

use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use super::host;
use super::offer::Offer;
use super::state_dir::StateDir;
use super::who::Client;
use crate::access::{Caller, Denial};
use crate::config::Keep;
use crate::export::merge::base_of;
use crate::export::name::ExportName;
use crate::image::Image;
use crate::name::Name;
use crate::nbd::handshake::Listing;
use crate::nbd::{Described, ExportInfo, Refusal};
use crate::overlay::{OverlayMode, Spec};
use crate::units::BLOCK_SIZE;

/// What tells one volume from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct VolumeKey {
    pub(super) image: Name,
    pub(super) generation: u32,
    /// Whose overlay; `None` is the bare image.
    pub(super) client: Option<Name>,
}

impl fmt::Display for VolumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.image, self.generation)?;
        self.client
            .as_ref()
            .map_or(Ok(()), |client| write!(f, "@{client}"))
    }
}

/// A refusal, and why in words for the log.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) reason: String,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let reason = refusal.message().to_owned();
        Self { refusal, reason }
    }
}

/// The client is told that it may not, and the log by which rule: rules are not for everybody.
fn refused(denial: Denial, caller: &Caller, what: &str) -> Refused {
    let message = format!("{what} is not for you, who come from {}", caller.peer);
    Refused {
        reason: denial.rule().to_owned(),
        refusal: match denial {
            Denial::Policy(_) => Refusal::Policy(message),
            Denial::TlsRequired(_) => {
                Refusal::TlsRequired(format!("{what} is opened over TLS only"))
            }
        },
    }
}

/// What an export name stands for.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) key: VolumeKey,
    pub(super) image: Arc<Image>,
    pub(super) info: ExportInfo,
    /// Directory and kind of the overlay; `None` where there is none to be.
    pub(super) overlay: Option<(PathBuf, Spec)>,
    /// Blocks that the overlay's data file may have; any number for `None`.
    pub(super) limit: Option<u64>,
    /// The client that was asked for by name.
    pub(super) asked: Option<Name>,
}

impl Target {
    /// What is told of it, with what tells its overlay from all others once that is open.
    ///
    /// A client that comes back by the name that it is told gets the generation that it had. It is
    /// only named there if it named itself: who it is may be known by its address.
    pub(super) fn described(&self, opened: Option<Option<[u8; 16]>>) -> Described {
        let name = ExportName {
            image: Some(self.key.image.clone()),
            generation: Some(self.key.generation),
            client: self.asked.clone(),
        };
        Described {
            info: self.info,
            // A list of exports is of the names that are listed.
            name: opened.is_some().then(|| name.to_string()),
            description: opened.map(|overlay| self.identity(overlay)),
        }
    }

    /// One line that is the same for as long as the disk is, on any server.
    fn identity(&self, overlay: Option<[u8; 16]>) -> String {
        let key = &self.key;
        if let Some(uuid) = overlay {
            return format!("{key}, overlay {:032x}", u128::from_be_bytes(uuid));
        }
        let base = base_of(self.image.identity());
        let (sample, time) = (base.sample, base.mtime_ns);
        format!("{key}, content {sample:08x} of {time}")
    }
}

/// The images of `offer` that `caller` may open.
pub(super) fn listing(offer: &Offer, caller: &Caller) -> Result<Vec<Listing>, Refused> {
    let denied = |denial| refused(denial, caller, "the server");
    offer.known.may_connect(caller).map_err(denied)?;
    let names = offer.images.names();
    let seen = names.filter(|name| offer.known.may_see(caller, name).is_ok());
    let listing = |name: &Name| Listing {
        name: name.to_string(),
        description: String::new(),
    };
    Ok(seen.map(listing).collect())
}

/// What all exports have in common.
#[derive(Debug)]
pub(super) struct Catalog {
    /// Where overlays are; without it all exports are read-only.
    state: Option<Arc<StateDir>>,
    boot_id: [u8; 16],
    /// Bytes that an overlay may have.
    limit: Option<NonZeroU64>,
}

impl Catalog {
    pub(super) fn new(state: Option<Arc<StateDir>>, limit: Option<NonZeroU64>) -> Self {
        Self {
            state,
            boot_id: host::boot_id(),
            limit,
        }
    }

    /// Where overlays are; `None` where none are kept.
    pub(super) const fn state(&self) -> Option<&Arc<StateDir>> {
        self.state.as_ref()
    }

    /// The boot of the host that ephemeral overlays are bound to.
    pub(super) const fn boot_id(&self) -> [u8; 16] {
        self.boot_id
    }

    /// What `caller` gets under `name`.
    pub(super) fn find(
        &self,
        offer: &Offer,
        name: &str,
        caller: &Caller,
    ) -> Result<Target, Refused> {
        let known = &offer.known;
        let denied = |denial| refused(denial, caller, "the server");
        known.may_connect(caller).map_err(denied)?;
        let name: ExportName = name
            .parse()
            .map_err(|error| Refusal::Unknown(format!("not a name of an export: {error}")))?;
        let client = known.client_of(caller, name.client.as_ref());
        let generations = offer
            .images
            .get(name.image.as_ref().or(client.image.as_ref()))?;
        let image = &generations.name;
        let denied = |denial| refused(denial, caller, &format!("{image}@{}", client.name));
        known
            .may_open(caller, image, &client.name)
            .map_err(denied)?;
        let (generation, image) = generations.get(name.generation)?;
        image
            .check()
            .map_err(|changed| Refusal::Failed(changed.to_string()))?;
        let target = self.target(image, generation, client);
        Ok(Target {
            asked: name.client,
            ..target
        })
    }

    /// A client's disk over a generation.
    pub(super) fn target(&self, image: &Arc<Image>, generation: u32, client: Client) -> Target {
        let overlay = self.overlay(image, generation, &client);
        let read_only = overlay.is_none();
        Target {
            key: VolumeKey {
                image: image.name().clone(),
                generation,
                client: (!read_only).then_some(client.name),
            },
            image: Arc::clone(image),
            info: ExportInfo {
                size: image.size(),
                read_only,
                multi_conn: true,
            },
            overlay,
            limit: self.limit.map(|bytes| bytes.get() / BLOCK_SIZE),
            asked: None,
        }
    }

    /// Where the overlay of `client` is and of which kind; `None` where it is to have none.
    fn overlay(&self, image: &Image, generation: u32, client: &Client) -> Option<(PathBuf, Spec)> {
        let mode = match client.keep {
            Keep::Persistent => OverlayMode::Persistent,
            Keep::Ephemeral => OverlayMode::Ephemeral,
            Keep::ReadOnly => return None,
        };
        let overlays = self.state.as_ref()?.overlays_of(image.name(), generation);
        Some((overlays.join(client.name.as_str()), self.spec(image, mode)))
    }

    fn spec(&self, image: &Image, mode: OverlayMode) -> Spec {
        Spec {
            base: base_of(image.identity()),
            mode,
            boot_id: self.boot_id,
            uuid: host::random(),
            now: host::now(),
        }
    }
}
