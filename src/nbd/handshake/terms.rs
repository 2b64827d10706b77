//! What a client has asked for so far, and what of it holds for the export that it opens.

use super::contexts::Selection;
use super::states::{AwaitOption, State};
use super::upgrade::Tls;
use crate::nbd::agreed::{Agreed, Contexts, Headers};

/// What was agreed on, and how patient we still are.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) no_zeroes: bool,
    pub(super) options_left: u32,
    pub(super) tls: Tls,
    pub(super) negotiated: Negotiated,
}

/// What options have changed for the transmission phase.
#[derive(Clone, Debug, Default)]
pub(super) struct Negotiated {
    pub(super) headers: Headers,
    pub(super) selection: Option<Selection>,
}

impl Terms {
    pub(super) const fn next_option(self) -> State {
        State::Header(AwaitOption::new(self))
    }

    /// What holds if the client opens `export`. Contexts were selected for one export: "where the
    /// final time it was sent, it referred to the same export name that was ultimately selected".
    pub(super) fn agreed_for(&self, export: &str) -> Agreed {
        let selection = self.negotiated.selection.as_ref();
        let of_export = selection.filter(|selection| selection.export == export);
        Agreed {
            headers: self.negotiated.headers,
            contexts: of_export.map_or(Contexts::NONE, |selection| selection.contexts),
        }
    }
}
