//! What happens to the machines: how far each boot has come, how long it took, what it waits for.
//!
//! - [`event`] is what is seen of a machine; [`stage`] what a boot goes through.
//! - [`boot`] is one pass from power-on to the mounted root; [`timelines`] has those of all.
//! - [`usual`] knows how long stages take; [`words`] says what is wrong and what to do.
//! - [`traffic`] counts requests and has how long they took.
//! - [`report`] is all that in the form that people and programs get.
//!
//! Invariants:
//! - Nothing here reads a clock or opens anything: moments and events are arguments.
//! - What is kept is bounded, whatever machines send: machines, boots of each, stages of those, and
//!   the length of every text. Texts of machines are made harmless when they come in.

pub mod boot;
pub mod event;
pub mod metrics;
pub mod report;
pub mod stage;
pub mod text;
pub mod timelines;
pub mod traffic;
pub mod usual;
pub mod words;

pub use event::{Asker, Event, FileStep, Sign};
pub use stage::Stage;
pub use timelines::Timelines;

/// A moment: milliseconds since 1970.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct At(pub u64);

impl At {
    /// Milliseconds from `earlier` to this; none where that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
