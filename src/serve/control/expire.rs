//! What a server does by itself when it starts: overlays that can never be served again go.
//!
//! Invariant: an overlay that anybody may open is removed only while it is held back from clients.

use super::task::Site;
use super::workshop::Workshop;
use crate::disk::{Disk, RealDisk};
use crate::serve::blocking::blocking;
use crate::serve::options::Failure;
use crate::serve::state_dir::LeftOver;

/// Removes ephemeral overlays of earlier boots of the host, and what interrupted work left behind.
pub(in crate::serve) async fn expire(workshop: Workshop) {
    if let Err(failure) = expire_all(&workshop).await {
        tracing::warn!("overlays of earlier boots were not all removed: {failure}");
    }
}

async fn expire_all(workshop: &Workshop) -> Result<(), Failure> {
    let mut removed = 0;
    for site in workshop.overlays().await? {
        removed += usize::from(expire_one(workshop, site).await?);
    }
    if removed > 0 {
        tracing::info!("removed {removed} ephemeral overlays of earlier boots of this host");
    }
    let state = workshop.state().clone();
    let contents = blocking(move || state.contents()).await?;
    for left_over in contents.map_err(super::failed)?.left_over {
        clear(workshop, left_over).await?;
    }
    Ok(())
}

async fn expire_one(workshop: &Workshop, site: Site) -> Result<bool, Failure> {
    // A header never changes: most overlays need not be held back to see that they stay.
    let probe = site.clone();
    if !blocking(move || probe.has_expired()).await? {
        return Ok(false);
    }
    let hold = workshop.hold(&site.key).await?;
    if hold.is_live() {
        // It was opened meanwhile, and so made anew.
        return Ok(false);
    }
    blocking(move || {
        let removed = site.remove_if_expired();
        drop(hold);
        removed
    })
    .await?
}

/// What was being made or removed when a server was killed.
async fn clear(workshop: &Workshop, left_over: LeftOver) -> Result<(), Failure> {
    let LeftOver { key, path } = left_over;
    let hold = workshop.hold(&key).await?;
    if hold.is_live() {
        // Whoever opened it has cleared it.
        return Ok(());
    }
    blocking(move || {
        let removed = RealDisk.remove_dir(&path);
        drop(hold);
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!("{}: not removed: {error}", path.display());
            }
            _ => tracing::info!("{}: removed, it was left unfinished", path.display()),
        }
    })
    .await?;
    Ok(())
}
