//! A client's changed blocks over a shared image, and the order of writes that keeps them.

pub mod journal;
pub mod map;
