//! How long a client's overlay is kept.

/// How long a client's overlay is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OverlayMode {
    /// Until it is reset. What FLUSH acknowledged survives anything.
    Persistent,
    /// Through reconnects, kill -9 and a restart of the server, but never into another boot of the
    /// host. So its FLUSH needs no fsync.
    Ephemeral,
}
