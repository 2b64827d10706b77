//! How long an overlay lives.

/// What becomes of a client's changed blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OverlayMode {
    /// Kept until somebody resets it.
    Persistent,
    /// Dropped at the client's next boot, or some time after its last disconnect.
    Ephemeral,
}
