//! Links on the way to a file, followed as the kernel does, but that none leads out of the file
//! system.
//!
//! The readers are asked for one link at a time: one of them takes as much memory for a link as the
//! disk says that it is long.

use super::InsideError;
use crate::limits::{LINK_BYTES_MAX, LINKS_MAX};

/// The path, without a link in it, of what is at `path`. `link_at` says where the last part of a
/// path leads, or `None` where that is no link; no other part of what it is asked for is one.
pub(super) fn resolve(
    path: &str,
    mut link_at: impl FnMut(&[u8]) -> Result<Option<Vec<u8>>, InsideError>,
) -> Result<Vec<u8>, InsideError> {
    let mut links = 0;
    let mut ahead: Vec<Vec<u8>> = parts(path.as_bytes()).rev().collect();
    let mut behind: Vec<Vec<u8>> = Vec::new();
    while let Some(part) = ahead.pop() {
        if part == b".." {
            behind.pop();
            continue;
        }
        behind.push(part);
        let Some(link) = link_at(&behind.join(&b'/'))? else {
            continue;
        };
        links += 1;
        if links > LINKS_MAX {
            return Err(InsideError::Unreadable("too many links".to_owned()));
        }
        match link.first() {
            Some(b'/') => behind.clear(),
            _ => drop(behind.pop()),
        }
        ahead.extend(parts(&link).rev());
    }
    Ok(behind.join(&b'/'))
}

/// Whether a link of so many bytes may be read.
pub(super) fn check_length(bytes: u64) -> Result<(), InsideError> {
    match bytes > LINK_BYTES_MAX {
        true => Err(InsideError::Unreadable("a link is too long".to_owned())),
        false => Ok(()),
    }
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|&byte| byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .map(<[u8]>::to_vec)
}
