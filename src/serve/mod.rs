//! Sockets, threads and signals: joins protocol and storage, and decides neither.

pub mod demo;
pub mod listen;
pub mod state_dir;
pub mod who;
