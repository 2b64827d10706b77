//! What machines load before they have a disk: files by name.
//!
//! - [`files`] opens them.

pub mod files;
