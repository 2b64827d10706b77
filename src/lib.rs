//! cowherd boots a herd of diskless machines from one disk image.
//!
//! The layers, in the order a byte from the network meets them:
//!
//! - [`serve`] owns sockets, threads and signals; it joins protocol and storage, deciding neither.
//! - [`access`] decides who may open what.
//! - [`config`] makes checked values of the config file.
//! - [`tls`] turns bytes of the network into bytes of the protocol, where both sides want it so.
//! - [`nbd`] turns bytes into commands and results into bytes. It does no I/O and knows no storage.
//! - [`dhcp`] tells machines their addresses and what to boot. It does no I/O.
//! - [`status`] knows how far each machine has come with its boot. It does no I/O.
//! - [`tftp`] sends files to boot loaders. It does no I/O.
//! - [`attach`] is the client of the second program, `cowherd-attach`.
//! - [`load`] is a client of its own, which measures servers.
//! - [`export`] makes one disk of an image generation and a client's overlay.
//! - [`overlay`] holds a client's changed blocks, and the order of writes that keeps them.
//! - [`image`] is the shared, never written disk below.
//! - [`disk`] is the only code that touches image and overlay files.
//! - [`io`] is the only code that names the ring.
//!
//! `ARCHITECTURE.md` draws the whole, with the invariants.

pub mod access;
pub mod attach;
pub mod boot;
pub mod cli;
pub mod config;
pub mod dhcp;
pub mod disk;
pub mod export;
pub mod http;
pub mod image;
pub mod io;
pub mod limits;
pub mod load;
pub mod mac;
pub mod name;
pub mod nbd;
pub mod overlay;
pub mod serve;
pub mod status;
pub mod tftp;
pub mod tls;
pub mod units;
