//! Sessions in words that both servers understand.

use std::sync::Arc;

use super::wire::{self, Kept, Terms, UsedImage};
use crate::config::Keep;
use crate::image::Image;
use crate::name::Name;
use crate::nbd::ExportInfo;
use crate::nbd::agreed::{Agreed, Contexts, Headers};
use crate::overlay::journal::{ChainEnd, Cursor};
use crate::overlay::{OverlayMode, Voucher};
use crate::serve::catalog::{Target, VolumeKey};
use crate::serve::shard::Suspended;

/// What the other server has to know of an image.
pub(super) fn of_image(key: &VolumeKey, image: &Image) -> UsedImage {
    UsedImage {
        name: key.image.to_string(),
        generation: key.generation,
        path: image.path().to_string_lossy().into_owned(),
        identity: image.identity().to_text(),
    }
}

/// What the other server has to know of a session.
pub(in crate::serve) fn session_words(session: &Suspended) -> wire::Session {
    let Target { key, image, .. } = &*session.target;
    let standing = &session.accepted.standing;
    let mode = session
        .target
        .overlay
        .as_ref()
        .map(|(_, spec)| match spec.mode {
            OverlayMode::Persistent => Kept::Persistent,
            OverlayMode::Ephemeral => Kept::Ephemeral,
        });
    let client = key.client.as_ref().map(Name::to_string);
    wire::Session {
        image: of_image(key, image),
        overlay: client.zip(mode),
        terms: terms_of(standing.info, standing.agreed),
        peer: standing.peer.clone(),
        is_successor: standing.is_successor,
        voucher: session.voucher.and_then(of_voucher),
        leftover: standing.leftover.clone(),
    }
}

fn of_voucher(voucher: Voucher) -> Option<wire::Vouched> {
    let durable = voucher.durable?;
    Some(wire::Vouched {
        uuid: voucher.uuid,
        generation: durable.generation,
        offset: u64::try_from(durable.offset).ok()?,
        frame: durable.chain.seq,
        epoch: durable.chain.epoch,
        checksum: durable.chain.checksum,
        is_noted: voucher.is_noted,
    })
}

/// What the other server has said of an overlay.
pub(super) fn voucher_of(said: &wire::Vouched) -> Voucher {
    let chain = ChainEnd {
        seq: said.frame,
        epoch: said.epoch,
        checksum: said.checksum,
    };
    Voucher {
        uuid: said.uuid,
        durable: Some(Cursor {
            generation: said.generation,
            // What is no place in a journal is not found there.
            offset: usize::try_from(said.offset).unwrap_or(usize::MAX),
            chain,
        }),
        is_noted: said.is_noted,
    }
}

fn terms_of(info: ExportInfo, agreed: Agreed) -> Terms {
    Terms {
        size: info.size,
        read_only: info.read_only,
        multi_conn: info.multi_conn,
        headers: match agreed.headers {
            Headers::Simple => wire::Headers::Simple,
            Headers::Structured => wire::Headers::Structured,
            Headers::Extended => wire::Headers::Extended,
        },
        contexts: agreed.contexts.iter().map(|context| context.id()).collect(),
    }
}

/// What a session goes by; `None` where there is a context that we don't know.
pub(super) fn standing_terms(terms: &Terms) -> Option<(ExportInfo, Agreed)> {
    let info = ExportInfo {
        size: terms.size,
        read_only: terms.read_only,
        multi_conn: terms.multi_conn,
    };
    let all = Contexts::all();
    let contexts = terms.contexts.iter().map(|&id| {
        let mut contexts = all.iter();
        contexts.find(|context| context.id() == id)
    });
    let agreed = Agreed {
        headers: match terms.headers {
            wire::Headers::Simple => Headers::Simple,
            wire::Headers::Structured => Headers::Structured,
            wire::Headers::Extended => Headers::Extended,
        },
        contexts: contexts.collect::<Option<Contexts>>()?,
    };
    Some((info, agreed))
}

/// Whose overlay, and how it is kept.
pub(super) fn overlay_of(session: &wire::Session) -> Option<(Option<Name>, Keep)> {
    let Some((client, kept)) = &session.overlay else {
        return Some((None, Keep::ReadOnly));
    };
    let keep = match kept {
        Kept::Persistent => Keep::Persistent,
        Kept::Ephemeral => Keep::Ephemeral,
    };
    Some((Some(Name::new(client).ok()?), keep))
}

/// Whether an image is the one that the other server has open.
pub(super) fn is_same(image: &Arc<Image>, used: &UsedImage) -> Result<(), String> {
    let identity = crate::image::Identity::from_text(&used.identity);
    let identity = identity.map_err(|error| error.to_string())?;
    let same = image.identity().compare(&identity);
    same.map_err(|difference| difference.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nbd::agreed::Context;

    #[test]
    fn what_was_agreed_on_comes_back_as_it_was() {
        let info = ExportInfo {
            size: 1 << 40,
            read_only: true,
            multi_conn: false,
        };
        for headers in [Headers::Simple, Headers::Structured, Headers::Extended] {
            for contexts in [
                Contexts::NONE,
                Contexts::all(),
                [Context::Overlay].into_iter().collect(),
            ] {
                let agreed = Agreed { headers, contexts };
                let back = standing_terms(&terms_of(info, agreed));
                assert_eq!(back, Some((info, agreed)));
            }
        }
    }

    #[test]
    fn what_is_vouched_for_comes_back_as_it_was() {
        let voucher = Voucher {
            uuid: [7; 16],
            durable: Some(Cursor {
                generation: 3,
                offset: 1024,
                chain: ChainEnd {
                    seq: 1 << 40,
                    epoch: 9,
                    checksum: 77,
                },
            }),
            is_noted: true,
        };
        assert_eq!(of_voucher(voucher).as_ref().map(voucher_of), Some(voucher));
        assert_eq!(of_voucher(voucher.doubted()), None);
    }

    #[test]
    fn a_context_that_is_not_known_is_no_context() {
        let info = ExportInfo {
            size: 1,
            read_only: true,
            multi_conn: true,
        };
        let mut terms = terms_of(info, Agreed::default());
        terms.contexts.push(77);
        assert_eq!(standing_terms(&terms), None);
    }
}
