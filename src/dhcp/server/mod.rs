//! The DHCP server: messages, moments and answers to probes come in, effects go out.

mod effect;

pub use effect::{Arrival, Destination, Effect, Event, Link, Port, Probed, Reason, Reply, Report};
