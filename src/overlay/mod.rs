//! A client's changed blocks over a shared image, and the order of writes that keeps them.
//!
//! - [`map`] says which blocks are the client's own; [`epoch`] what changed since the last flush.
//! - [`journal`] and [`checkpoint`] are the map on disk, [`header`] says what the overlay is.
//! - [`store`] is one open overlay, `underway` the order of its changes, [`cycle`] the order in
//!   which a flush writes, [`commit`] who waits for it, [`space`] what is given back to the file
//!   system.
//! - `recent` notes what is acknowledged and not flushed, for a server that is killed.
//! - `create` and [`recover`] are its beginning and its return, `voucher` its way from one server
//!   to the next, [`inspect`] a look at it from outside that changes nothing, [`quota`] the limit
//!   on what it may hold.
//! - [`sabotage`] breaks rules for tests, in debug builds only.
//!
//! All of it is synchronous and knows neither protocol nor runtime; the disk is a parameter.

pub mod checkpoint;
pub mod commit;
mod create;
pub mod cycle;
pub mod epoch;
pub mod flush;
pub mod header;
pub mod inspect;
pub mod journal;
pub mod map;
mod mode;
pub mod quota;
mod recent;
pub mod recover;
pub mod sabotage;
pub mod space;
pub mod store;
mod underway;
mod voucher;

pub use create::remove;
pub use mode::OverlayMode;
pub use recent::Note;
pub use recover::{OpenError, Spec};
pub use store::Overlay;
pub use voucher::Voucher;
