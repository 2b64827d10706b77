//! A client's changed blocks over one image generation.

mod mode;

pub use mode::OverlayMode;
