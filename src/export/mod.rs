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
