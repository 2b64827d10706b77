//! Carries commands out, with or without a server around it.
//!
//! Invariant: what holds an overlay back goes with the work to its thread and is given up there:
//! work that nobody waits for any more still has the overlay to itself until it has ended.

use std::path::PathBuf;
use std::sync::Arc;

use super::answer::{Answer, Checked, Committed, Entry, Status};
use super::message::{Command, OverlayName};
use super::task::{self, Hold, Site};
use super::{Reporter, failed};
use crate::serve::blocking::blocking;
use crate::serve::catalog::VolumeKey;
use crate::serve::dhcp::Steward;
use crate::serve::herd::Herd;
use crate::serve::host;
use crate::serve::options::Failure;
use crate::serve::shard::{Held, Live};
use crate::serve::state_dir::StateDir;
use crate::serve::watch::Watch;
use crate::status::report::{Client, Export};

/// A state directory, and the server that is on it if one is.
#[derive(Clone, Debug)]
pub(in crate::serve) struct Workshop {
    state: Arc<StateDir>,
    pub(super) herd: Option<Arc<Herd>>,
    /// Where addresses are given.
    pub(super) dhcp: Option<Steward>,
    boot_id: [u8; 16],
}

impl Workshop {
    /// Without a server.
    pub(super) fn alone(state: Arc<StateDir>) -> Self {
        Self {
            state,
            herd: None,
            dhcp: None,
            boot_id: host::boot_id(),
        }
    }

    /// Within the server; `None` where it keeps no overlays.
    pub(in crate::serve) fn of_server(herd: Arc<Herd>, dhcp: Option<Steward>) -> Option<Self> {
        Some(Self {
            state: Arc::clone(herd.state()?),
            boot_id: herd.boot_id(),
            herd: Some(herd),
            dhcp,
        })
    }

    /// Does what `command` says.
    pub(in crate::serve) async fn run(
        &self,
        command: Command,
        report: Reporter,
    ) -> Result<Answer, Failure> {
        match command {
            Command::List => self.list().await.map(Answer::List),
            Command::Show { overlay } => self.show(&overlay).await.map(Answer::Show),
            Command::Check { overlay } => {
                let checked = self.check(overlay.as_ref(), &report).await;
                checked.map(Answer::Check)
            }
            Command::Reset { overlay } => {
                let overlay = self.reset(&overlay).await?;
                Ok(Answer::Reset { overlay })
            }
            Command::Status { client } => self.status(client).await.map(Answer::Status),
            Command::Leases => self.leases().await.map(Answer::Leases),
            Command::ForgetLease { who } => {
                let addresses = self.forget_lease(&who).await?;
                Ok(Answer::ForgetLease { addresses })
            }
            Command::Commit { overlay, to, image } => {
                let committed = self.commit(&overlay, to, image, report).await;
                committed.map(Answer::Commit)
            }
        }
    }

    /// All overlays, in order.
    pub(super) async fn overlays(&self) -> Result<Vec<Site>, Failure> {
        let state = Arc::clone(&self.state);
        let keys = blocking(move || state.contents()).await?;
        let sites = keys.map_err(failed)?.overlays.into_iter();
        Ok(sites.map(|key| self.site(key)).collect())
    }

    pub(super) const fn state(&self) -> &Arc<StateDir> {
        &self.state
    }

    fn site(&self, key: VolumeKey) -> Site {
        Site {
            dir: self.state.overlay_dir(&key),
            key,
            boot_id: self.boot_id,
        }
    }

    async fn find(&self, name: &OverlayName) -> Result<Site, Failure> {
        let sites = self.overlays().await?;
        let keys: Vec<_> = sites.into_iter().map(|site| site.key).collect();
        choose(&keys, name).map(|key| self.site(key.clone()))
    }

    pub(super) async fn hold(&self, key: &VolumeKey) -> Result<Hold, Failure> {
        match &self.herd {
            None => Ok(Hold::NoServer),
            Some(herd) => herd
                .hold(key)
                .await
                .map(Hold::Server)
                .ok_or_else(|| Failure::failed("the server is going down")),
        }
    }

    /// Has the overlay to itself, or says who uses it.
    async fn hold_alone(&self, key: &VolumeKey) -> Result<Hold, Failure> {
        match self.hold(key).await? {
            Hold::Server(Held::Live(live)) => Err(in_use(key, &live)),
            hold => Ok(hold),
        }
    }

    /// How the machines are doing; without a server, how they were doing when it ended.
    async fn status(&self, client: Option<String>) -> Result<Status, Failure> {
        let watch = match &self.herd {
            Some(herd) => {
                herd.watch().look(herd).await;
                Arc::clone(herd.watch())
            }
            None => {
                let state = Arc::clone(&self.state);
                blocking(move || Watch::new(Some(&state))).await?
            }
        };
        let exports = match (&self.herd, &client) {
            (Some(herd), None) => Export::all(&herd.exports().await),
            _ => Vec::new(),
        };
        let clients = match client {
            None => watch.clients(),
            Some(who) => match self.client(&watch, &who).await {
                Some(client) => vec![client],
                None => {
                    return Err(Failure::failed(format!(
                        "no machine {who} was seen: `cowherd status` shows those that were"
                    )));
                }
            },
        };
        Ok(Status {
            running: self.herd.is_some(),
            now: watch.now(),
            clients,
            exports,
        })
    }

    async fn client(&self, watch: &Watch, who: &str) -> Option<Client> {
        match &self.herd {
            Some(herd) => watch.client_with_latencies(herd, who).await,
            None => watch.client(who),
        }
    }

    async fn list(&self) -> Result<Vec<Entry>, Failure> {
        let mut entries = Vec::new();
        for site in self.overlays().await? {
            let hold = self.hold(&site.key).await?;
            entries.push(blocking(move || site.entry(&hold)).await?);
        }
        Ok(entries)
    }

    async fn show(&self, name: &OverlayName) -> Result<Entry, Failure> {
        let site = self.find(name).await?;
        let hold = self.hold(&site.key).await?;
        Ok(blocking(move || site.entry(&hold)).await?)
    }

    async fn check(
        &self,
        name: Option<&OverlayName>,
        report: &Reporter,
    ) -> Result<Vec<Checked>, Failure> {
        let sites = match name {
            Some(name) => vec![self.find(name).await?],
            None => self.overlays().await?,
        };
        let mut all = Vec::new();
        for site in sites {
            all.push(self.check_one(&site, report).await?);
        }
        Ok(all)
    }

    async fn check_one(&self, site: &Site, report: &Reporter) -> Result<Checked, Failure> {
        let (mut checked, mut found) = self.look_at(site, report).await?;
        if checked.in_use && !found.is_sound() {
            // It may have freed those blocks just then. A second look tells.
            let (again, second) = self.look_at(site, report).await?;
            found = found.also_in(&second);
            checked = again;
        }
        task::add(&mut checked, found.findings());
        Ok(checked)
    }

    async fn look_at(
        &self,
        site: &Site,
        report: &Reporter,
    ) -> Result<(Checked, crate::overlay::inspect::Disagreement), Failure> {
        let hold = self.hold(&site.key).await?;
        let (site, report) = (site.clone(), Arc::clone(report));
        Ok(blocking(move || site.check(&hold, &report)).await?)
    }

    async fn reset(&self, name: &OverlayName) -> Result<String, Failure> {
        let site = self.find(name).await?;
        let hold = self.hold_alone(&site.key).await?;
        let overlay = site.key.to_string();
        blocking(move || {
            let result = site.reset();
            drop(hold);
            result
        })
        .await??;
        tracing::info!("overlay {overlay} was reset");
        Ok(overlay)
    }

    async fn commit(
        &self,
        name: &OverlayName,
        to: PathBuf,
        image: Option<PathBuf>,
        report: Reporter,
    ) -> Result<Committed, Failure> {
        let site = self.find(name).await?;
        let image = match image {
            Some(image) => image,
            None => self.recorded_image(&site.key)?,
        };
        if !to.is_absolute() || !image.is_absolute() {
            return Err(Failure::usage("files must be named by their whole paths"));
        }
        let hold = self.hold_alone(&site.key).await?;
        let committed = blocking(move || {
            let result = site.commit(&image, &to, &report);
            drop(hold);
            result
        })
        .await??;
        tracing::info!(
            "overlay {} was committed to {}",
            committed.overlay,
            committed.file.display()
        );
        Ok(committed)
    }

    fn recorded_image(&self, key: &VolumeKey) -> Result<PathBuf, Failure> {
        let recorded = self.state.image_path(&key.image, key.generation);
        recorded.map_err(failed)?.ok_or_else(|| {
            Failure::failed(format!(
                "overlay {key}: where its image lies was not recorded; name it with --image"
            ))
        })
    }
}

fn in_use(key: &VolumeKey, live: &Live) -> Failure {
    let users = match live.users.as_slice() {
        [] => "a client that is just connecting".to_owned(),
        users => users.join(", "),
    };
    Failure::failed(format!(
        "overlay {key}: in use by {users}: disconnect it first"
    ))
}

/// The one overlay that a name means.
fn choose<'a>(keys: &'a [VolumeKey], name: &OverlayName) -> Result<&'a VolumeKey, Failure> {
    let fits = |key: &&VolumeKey| {
        key.client.as_ref() == Some(&name.client)
            && name.image.as_ref().is_none_or(|image| *image == key.image)
            && name
                .generation
                .is_none_or(|generation| generation == key.generation)
    };
    let fitting: Vec<_> = keys.iter().filter(fits).collect();
    let Some(newest) = fitting.iter().max_by_key(|key| key.generation) else {
        return Err(Failure::failed(format!(
            "there is no overlay {name}: `cowherd overlay list` shows those there are"
        )));
    };
    match fitting.iter().find(|key| key.image != newest.image) {
        None => Ok(newest),
        Some(other) => Err(Failure::usage(format!(
            "{name} may be {newest} or {other}: name the image too"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Name;

    fn key(image: &str, generation: u32, client: &str) -> VolumeKey {
        VolumeKey {
            image: Name::new(image).unwrap(),
            generation,
            client: Some(Name::new(client).unwrap()),
        }
    }

    fn chosen(name: &str) -> Result<String, Failure> {
        let keys = [
            key("arch", 9, "a"),
            key("arch", 10, "a"),
            key("arch", 9, "b"),
            key("tools", 1, "a"),
            key("tools", 1, "c"),
        ];
        choose(&keys, &name.parse().unwrap()).map(ToString::to_string)
    }

    #[test]
    fn the_newest_generation_is_meant() {
        assert_eq!(chosen("arch@a").as_deref(), Ok("arch+10@a"));
        assert_eq!(chosen("arch+9@a").as_deref(), Ok("arch+9@a"));
    }

    #[test]
    fn the_image_can_be_left_out_where_only_one_has_such_an_overlay() {
        assert_eq!(chosen("@c").as_deref(), Ok("tools+1@c"));
        let ambiguous = chosen("@a").unwrap_err();
        assert_eq!(ambiguous.code(), 2);
    }

    #[test]
    fn an_overlay_that_is_not_there_is_named() {
        let missing = chosen("arch@x").unwrap_err();
        assert!(missing.to_string().contains("arch@x"), "{missing}");
        assert_eq!(missing.code(), 1);
    }
}
