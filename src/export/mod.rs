//! An image generation plus a client's overlay as one disk.
//!
//! - [`extents`] says what its blocks are.
//! - [`merge`] writes it to a new image.
//! - [`name`] is the grammar of export names.
//! - [`plan`] turns a range into runs: image, overlay or zeros.
//! - [`snapshot`] is the disk as it is at one moment, for who reads files out of it.
//! - [`volume`] reads, writes and flushes it on its shard.

pub mod extents;
pub mod merge;
pub mod name;
pub mod plan;
pub mod snapshot;
pub mod volume;

pub use volume::{Piece, Volume, VolumeError};

#[cfg(test)]
fn overlay_over(
    image: &crate::image::Image,
    home: &std::path::Path,
) -> crate::overlay::Overlay<crate::disk::RealDisk> {
    let spec = crate::overlay::Spec {
        base: merge::base_of(image.identity()),
        mode: crate::overlay::OverlayMode::Persistent,
        boot_id: [1; 16],
        uuid: [5; 16],
        now: 0,
    };
    let client = home.join("client");
    crate::overlay::Overlay::open(&crate::disk::RealDisk, &client, &spec).unwrap()
}
