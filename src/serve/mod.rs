//! Sockets, threads and signals: joins protocol and storage, and decides neither.

pub mod who;
