//! The only code that touches image and overlay files.

#![allow(
    unsafe_code,
    reason = "mappings of files live here, each block with its SAFETY line"
)]

mod image_file;
mod mapping;

pub use image_file::{FileKind, ImageFile, Stamp};
pub use mapping::ImageMapping;
