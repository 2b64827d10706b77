//! What outlasts this process in the descriptor store of the service manager: the sockets that it
//! listens on, from the start, and when it is told to end, its sessions.
//!
//! `systemctl restart` ends the server and starts it again. Whoever connects meanwhile waits in the
//! queue of a socket that was never closed; and sessions stop between two requests, as in a
//! take-over, their sockets are kept with what is to be known of them, and the next server goes on
//! with them. Where the service is stopped, the manager closes all that.
//!
//! Invariants:
//! - A session is kept only once its overlay was closed well: who goes on with it, whenever that
//!   is, finds all durable.
//! - The manager has all before this process ends: it is asked, and answers.
//! - What is kept is taken out once: a session that ends later must not live on in the store.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::Pid;

use super::herd::{Herd, Reopened};
use super::images::Images;
use super::options::Failure;
use super::reload::Running;
use super::seats::Seats;
use super::shard::{Leaving, Suspended};
use super::takeover::wire::{Door, HEAD_BYTES, Head, Message, Session, UsedImage};
use super::takeover::{FORMAT, Given, session_words, source_of, suspended_of};
use crate::limits::{CONNECTIONS_MAX, TAKEOVER_DOORS_MAX};
use crate::name::Name;
use manager::Manager;
use names::{SESSIONS, door_name, door_of, session_name, session_of};

pub(super) use names::is_ours;

mod manager;
mod names;

/// Descriptors of this process that the manager has kept for it, with their names.
pub(super) type Stored = Vec<(String, OwnedFd)>;

/// The manager's store, where there is one.
#[derive(Debug)]
pub(super) struct Store {
    manager: Manager,
    room: usize,
    doors: Vec<(String, OwnedFd)>,
}

/// Sessions that an earlier process of this service has left, and the machines that had been
/// switched on and were not seen to.
#[derive(Debug, Default)]
struct Left {
    sessions: Vec<(Session, OwnedFd)>,
    boots: Vec<String>,
}

/// What was kept by the processes of this service before.
#[derive(Debug, Default)]
pub(super) struct Before {
    names: Vec<String>,
    left: Left,
    images: Vec<Images>,
}

impl Before {
    /// Sorts what was kept; the sockets that are listened on go to `given`.
    pub(super) fn of(stored: Stored, given: &mut Given) -> Self {
        let names = stored.iter().map(|(name, _)| name.clone()).collect();
        let (doors, left) = sorted(stored);
        for (door, socket) in doors {
            given.add(door, socket);
        }
        Self {
            names,
            left,
            images: Vec::new(),
        }
    }

    /// Opens the images of its sessions.
    pub(super) fn open_images(&mut self, running: &mut Running) {
        for used in self.left.images() {
            let source = source_of(&used).map(|source| vec![source]);
            match source.and_then(|source| running.open_beside(&source)) {
                Ok(images) => self.images.extend(images),
                Err(error) => tracing::error!("an image that sessions used: {error}"),
            }
        }
    }

    /// Opens the disks of its sessions, and has machines seen to that are being switched on.
    pub(super) async fn reopen(&mut self, herd: &Herd, seats: &Arc<Seats>) -> Vec<Reopened> {
        let Left { sessions, boots } = std::mem::take(&mut self.left);
        for name in boots.iter().filter_map(|name| Name::new(name).ok()) {
            herd.boots().add(name);
        }
        reopen(sessions, herd, &self.images, seats).await
    }
}

/// The sockets that are listened on, and sessions.
fn sorted(stored: Stored) -> (Vec<(Door, OwnedFd)>, Left) {
    let (mut doors, mut sockets, mut words) = (Vec::new(), Vec::new(), None);
    for (name, descriptor) in stored {
        if name == SESSIONS {
            words = Some(File::from(descriptor));
        } else if let Some(number) = session_of(&name) {
            sockets.push((number, descriptor));
        } else if let Some(door) = door_of(&name).filter(|_| doors.len() < TAKEOVER_DOORS_MAX) {
            doors.push((door, descriptor));
        }
    }
    let left = words.map(|words| left(&words, sockets));
    (doors, left.unwrap_or_default())
}

/// The sessions whose sockets are still there: the manager closes those whose peers are gone.
fn left(words: &File, mut sockets: Vec<(usize, OwnedFd)>) -> Left {
    let mut left = Left::default();
    let read = read(words, |number, message| match message {
        Message::Session(session) => {
            let socket = sockets.iter().position(|(other, _)| *other == number);
            let socket = socket.map(|at| sockets.swap_remove(at).1);
            left.sessions.extend(socket.map(|socket| (session, socket)));
        }
        Message::All { boots } => left.boots = boots,
        _ => {}
    });
    if let Err(error) = read {
        tracing::warn!("sessions of the server before this one are closed: {error}");
        left.sessions.clear();
    }
    left
}

fn read(words: &File, mut each: impl FnMut(usize, Message)) -> io::Result<()> {
    let nonsense = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut format = [0; 4];
    words.read_exact_at(&mut format, 0)?;
    if u32::from_be_bytes(format) != FORMAT {
        return Err(nonsense("another version has kept them"));
    }
    let (mut at, end) = (4, words.metadata()?.len());
    for number in 0..=CONNECTIONS_MAX {
        if at >= end {
            return Ok(());
        }
        let mut head = [0; HEAD_BYTES];
        words.read_exact_at(&mut head, at)?;
        let lengths = Head::read(head).map_err(|error| nonsense(&error.to_string()))?;
        let (mut text, mut bytes) = (vec![0; lengths.text], vec![0; lengths.bytes]);
        at += HEAD_BYTES as u64;
        words.read_exact_at(&mut text, at)?;
        at += lengths.text as u64;
        words.read_exact_at(&mut bytes, at)?;
        at += lengths.bytes as u64;
        let message = Message::read(&text, bytes);
        each(
            number,
            message.map_err(|error| nonsense(&error.to_string()))?,
        );
    }
    Err(nonsense("there is no end to them"))
}

impl Left {
    /// The images that they use.
    fn images(&self) -> Vec<UsedImage> {
        let mut images: Vec<UsedImage> = Vec::new();
        for (session, _) in &self.sessions {
            if !images.contains(&session.image) {
                images.push(session.image.clone());
            }
        }
        images
    }
}

/// Opens the disks of sessions. What can't go on is closed, and said.
async fn reopen(
    sessions: Vec<(Session, OwnedFd)>,
    herd: &Herd,
    images: &[Images],
    seats: &Arc<Seats>,
) -> Vec<Reopened> {
    let closed = |why: &str| tracing::error!("a session of before is closed: {why}");
    let mut suspended = Vec::new();
    for (session, socket) in sessions {
        match suspended_of(herd, images, seats, session, socket) {
            Ok(session) => suspended.push(session),
            Err(why) => closed(&why),
        }
    }
    let reopened = herd.reopen(suspended).await.into_iter();
    let whole = reopened.filter_map(|one| one.map_err(|why| closed(&why.to_string())).ok());
    let whole: Vec<_> = whole.collect();
    if !whole.is_empty() {
        tracing::info!("{} sessions go on from before the restart", whole.len());
    }
    whole
}

/// Refuses to take over from a server of which a manager knows, where this process can't tell it
/// anything: with the next take-over, nobody would tell it who has come, and it would end them all.
pub(super) fn must_know_manager_of(server: u32) -> Result<(), Failure> {
    match manager::is_of_another(server) {
        false => Ok(()),
        true => Err(Failure::failed(format!(
            "process {server} is a service of systemd, which would not know this one: use \
             `systemctl reload`; and its unit needs NotifyAccess=all"
        ))),
    }
}

/// Tells the manager, where there is one, which process the service is, and waits until it knows.
pub(super) fn tell_main_process(pid: Pid) {
    let Some(manager) = Manager::connect() else {
        return;
    };
    manager.main_process(pid);
    if !manager.has_all() {
        tracing::warn!("the service manager does not say that it knows the new process");
    }
}

impl Store {
    /// The store, where the manager says that it has one for this service. From now on `doors` are
    /// in it, and nothing else of what was kept before.
    pub(super) fn of_manager(doors: &[(Door, OwnedFd)], before: &Before) -> Option<Self> {
        let room = std::env::var("FDSTORE").ok()?.parse().ok()?;
        let manager = Manager::connect()?;
        let mut store = Self {
            manager,
            room,
            doors: Vec::new(),
        };
        store.keep_doors(doors, before);
        (room > 0).then_some(store)
    }

    fn keep_doors(&mut self, doors: &[(Door, OwnedFd)], before: &Before) {
        let named = doors.iter().filter_map(|(door, socket)| {
            let name = door_name(door, socket)?;
            Some((name, socket.try_clone().ok()?))
        });
        self.doors = named.take(self.room.saturating_sub(1)).collect();
        for name in &before.names {
            if !self.doors.iter().any(|(kept, _)| kept == name) {
                self.manager.forget(name);
            }
        }
        for (name, socket) in &self.doors {
            self.manager.keep(name, socket.as_fd());
        }
    }

    /// Stops all sessions, and has them kept. Where they can't be stopped they go on, to be
    /// drained.
    pub(super) async fn keep_sessions(&self, herd: &Herd) {
        // Another process may be the service by now, which the manager did not know before.
        for (name, socket) in &self.doors {
            self.manager.keep(name, socket.as_fd());
        }
        match herd.suspend(Leaving::Closed).await {
            Ok(sessions) => self.keep(&sessions, herd.boots().names()),
            Err(sessions) => herd.resume(sessions).await,
        }
        if !self.manager.has_all() {
            tracing::warn!("the service manager does not say that it keeps what it was told to");
        }
    }

    fn keep(&self, sessions: &[Suspended], boots: Vec<String>) {
        let room = self.room.saturating_sub(self.doors.len() + 1);
        let plain = sessions.iter().filter(|one| one.can_move());
        let kept: Vec<_> = plain.take(room).collect();
        let words = match words_of(&kept, boots) {
            Ok(words) => words,
            Err(error) => return tracing::error!("sessions can't be kept: {error}"),
        };
        self.manager.keep(SESSIONS, words.as_fd());
        for (number, session) in kept.iter().enumerate() {
            let socket = session.accepted.socket.as_fd();
            self.manager.keep(&session_name(number), socket);
        }
        let (kept, all) = (kept.len(), sessions.len());
        tracing::info!("{kept} of {all} sessions are kept for the next server");
    }
}

fn words_of(sessions: &[&Suspended], boots: Vec<String>) -> io::Result<OwnedFd> {
    let words = File::from(memfd_create("cowherd-sessions", MemfdFlags::CLOEXEC)?);
    let mut bytes = FORMAT.to_be_bytes().to_vec();
    let sessions = sessions
        .iter()
        .map(|one| Message::Session(session_words(one)));
    for message in sessions.chain([Message::All { boots }]) {
        bytes.extend(message.write().map_err(io::Error::other)?);
    }
    words.write_all_at(&bytes, 0)?;
    Ok(words.into())
}

#[cfg(test)]
mod tests;
