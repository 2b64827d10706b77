//! The only code that touches image and overlay files.

#![allow(
    unsafe_code,
    reason = "mappings of files live here, each block with its SAFETY line"
)]

mod mapping;

pub use mapping::ImageMapping;
