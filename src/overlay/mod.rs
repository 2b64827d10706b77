//! A client's changed blocks over a shared image, and the order of writes that keeps them.

pub mod checkpoint;
pub mod commit;
pub mod epoch;
pub mod header;
pub mod journal;
pub mod map;
mod mode;
pub mod space;

pub use mode::OverlayMode;
