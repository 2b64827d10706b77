//! An image generation and a client's overlay as one disk.

pub mod name;
