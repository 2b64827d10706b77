//! What is kept is told apart by its name. Pure.
//!
//! Names of the manager have no colon, and are the same for the same socket in every process: so
//! what is kept twice is kept once.

use std::os::fd::OwnedFd;

use socket2::SockRef;

use super::super::takeover::wire::Door;

/// The words about sessions.
pub(super) const SESSIONS: &str = "kept.sessions";
const SESSION: &str = "kept.session.";
const DOORS: [(&str, Door); 3] = [
    (
        "kept.nbd.",
        Door::Nbd {
            is_inherited: false,
        },
    ),
    ("kept.http.", Door::Http),
    ("kept.tftp.", Door::Tftp),
];

/// Whether something of this name was kept by an earlier server of ours.
pub(in crate::serve) fn is_ours(name: &str) -> bool {
    name.starts_with("kept.")
}

/// The socket of a session.
pub(super) fn session_name(number: usize) -> String {
    format!("{SESSION}{number}")
}

/// Which session's socket it is.
pub(super) fn session_of(name: &str) -> Option<usize> {
    name.strip_prefix(SESSION)?.parse().ok()
}

/// What a socket is kept as; `None` for those that are not kept: a socket file is removed when the
/// service ends, and what hears DHCP is bound to interfaces that may be others next time.
pub(super) fn door_name(door: &Door, socket: &OwnedFd) -> Option<String> {
    let (kind, _) = DOORS.iter().find(|(_, other)| other == door)?;
    let address = SockRef::from(socket).local_addr().ok()?.as_socket()?;
    let address: String = address
        .to_string()
        .chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '.'
            }
        })
        .collect();
    Some(format!("{kind}{address}"))
}

/// What a kept socket is for.
pub(super) fn door_of(name: &str) -> Option<Door> {
    let found = DOORS.iter().find(|(kind, _)| name.starts_with(kind));
    found.map(|(_, door)| door.clone())
}
