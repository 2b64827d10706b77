//! The new server's side: it gets what the old one serves on, prepares, and takes the rest.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustix::net::{RecvFlags, recv};
use socket2::SockRef;

use super::line::Line;
use super::sabotage::{Place, perhaps};
use super::terms::{is_same, overlay_of, standing_terms, voucher_of};
use super::wire::{Door, FORMAT, Message, Session, UsedImage};
use crate::access::Peer;
use crate::config::ImageSource;
use crate::image::Image;
use crate::io::DatagramSocket;
use crate::limits::{
    CONNECTIONS_MAX, CONTROL_ANSWER_MAX, TAKEOVER_DOORS_MAX, TAKEOVER_PREPARATION_TIME,
    TAKEOVER_TELLING_TIME,
};
use crate::name::Name;
use crate::serve::connection::address_of;
use crate::serve::control;
use crate::serve::herd::{Herd, Reopened};
use crate::serve::images::Images;
use crate::serve::kept;
use crate::serve::listen;
use crate::serve::options::Failure;
use crate::serve::seats::Seats;
use crate::serve::shard::{Accepted, Standing, Suspended};
use crate::serve::state_dir;
use crate::status::timelines::Saved;

/// The sockets of the old server, from which the new one takes those that it wants. Empty where
/// nothing is taken over.
#[derive(Debug, Default)]
pub(in crate::serve) struct Given(Vec<(Door, OwnedFd)>);

impl Given {
    /// One more.
    pub(in crate::serve) fn add(&mut self, door: Door, socket: OwnedFd) {
        self.0.push((door, socket));
    }

    /// The first one that is wanted.
    pub(in crate::serve) fn take(
        &mut self,
        is_wanted: impl Fn(&Door, &OwnedFd) -> bool,
    ) -> Option<(Door, OwnedFd)> {
        let mut all = self.0.iter();
        let found = all.position(|(door, socket)| is_wanted(door, socket))?;
        Some(self.0.remove(found))
    }

    /// A socket for datagrams that is on an address.
    pub(in crate::serve) fn datagrams(
        &mut self,
        door: &Door,
        address: SocketAddrV4,
    ) -> Option<DatagramSocket> {
        let socket = self.on(door, address)?;
        Some(DatagramSocket::passed(socket, None))
    }

    /// Binds another socket on a port, where those of the old server may be in the way.
    pub(in crate::serve) fn beside<T>(
        &self,
        door: &Door,
        port: u16,
        bind: impl Fn(bool) -> io::Result<T>,
    ) -> io::Result<T> {
        let is_there = |socket: &OwnedFd| {
            let bound = SockRef::from(socket).local_addr().ok();
            bound
                .and_then(|bound| bound.as_socket())
                .map(|bound| bound.port())
                == Some(port)
        };
        let all = self.0.iter();
        let others = all.filter(|(one, socket)| one == door && is_there(socket));
        listen::beside(others.map(|(_, socket)| SockRef::from(socket)), bind)
    }

    /// A socket that is on an address.
    pub(in crate::serve) fn on(&mut self, door: &Door, address: SocketAddrV4) -> Option<OwnedFd> {
        let is_there = |socket: &OwnedFd| {
            let bound = SockRef::from(socket).local_addr().ok();
            let bound = bound.and_then(|bound| bound.as_socket_ipv4());
            // Any port is as good as another where none was said.
            let is_port = |port| address.port() == 0 || port == address.port();
            bound.is_some_and(|bound| bound.ip() == address.ip() && is_port(bound.port()))
        };
        let (_, socket) = self.take(|one, socket| one == door && is_there(socket))?;
        Some(socket)
    }
}

/// A take-over that has begun. The old server serves on.
#[derive(Debug)]
pub(in crate::serve) struct Taking {
    line: Line,
    used: Vec<UsedImage>,
}

/// A take-over in which all is open, and nothing begun.
#[derive(Debug)]
pub(in crate::serve) struct Prepared {
    line: Line,
    /// The lock of the state directory.
    pub(in crate::serve) lock: OwnedFd,
    sessions: Vec<Reopened>,
    /// Machines that have been switched on and not seen to.
    pub(in crate::serve) boots: Vec<Name>,
    /// What is known of all machines.
    seen: Saved,
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(format!(
        "the take-over failed: {error}; the running server goes on"
    ))
}

impl Taking {
    /// Asks the server of a state directory for all it has.
    pub(in crate::serve) fn begin(state: &Path) -> Result<(Self, Given), Failure> {
        if let Some(server) = state_dir::holder_of(state) {
            kept::must_know_manager_of(server)?;
        }
        let Some(mut stream) = control::connect(state) else {
            return Err(Failure::failed(format!(
                "state directory {}: no server to take over from: start without --takeover",
                state.display()
            )));
        };
        perhaps(Place::Connected);
        stream
            .write_all(&control::take_over(FORMAT))
            .map_err(failed)?;
        refused(&stream)?;
        let line = Line::new(stream).map_err(failed)?;
        line.set_patience(Some(TAKEOVER_PREPARATION_TIME))
            .map_err(failed)?;
        let (mut given, mut used) = (Given::default(), Vec::new());
        loop {
            match line.hear().map_err(failed)? {
                (Message::Door(door), Some(socket)) if given.0.len() < TAKEOVER_DOORS_MAX => {
                    given.add(door, socket);
                    perhaps(Place::Doors);
                }
                (Message::Image(image), None) if used.len() < CONNECTIONS_MAX => used.push(image),
                (Message::Shown, None) => return Ok((Self { line, used }, given)),
                (Message::Refused { why }, _) => return Err(failed(why)),
                _ => {
                    return Err(failed(
                        "the running server has mixed up the order of things",
                    ));
                }
            }
        }
    }

    /// The images that sessions use, wherever the config has them now.
    pub(in crate::serve) fn used(&self) -> Result<Vec<ImageSource>, Failure> {
        self.used.iter().map(source_of).collect()
    }

    /// Has the old server stop, and opens all that it hands over. `images` are those of the
    /// config and those in use, in this order of preference.
    pub(in crate::serve) async fn freeze(
        self,
        herd: &Herd,
        images: &[Images],
        seats: &Arc<Seats>,
    ) -> Result<Prepared, Failure> {
        perhaps(Place::Images);
        keep_open_for_ever(&self.line)?;
        self.line.say(&Message::Freeze, None).map_err(failed)?;
        perhaps(Place::Frozen);
        let taken = self.take(herd, images, seats).await;
        taken
            .map_err(|why| {
                // Where the old one has ended, too, there is nobody to tell.
                let _ = self.line.say(&Message::Refused { why: why.clone() }, None);
                failed(why)
            })
            .map(|(lock, boots, sessions, seen)| Prepared {
                seen,
                line: self.line,
                lock,
                sessions,
                boots,
            })
    }

    async fn take(
        &self,
        herd: &Herd,
        images: &[Images],
        seats: &Arc<Seats>,
    ) -> Result<(OwnedFd, Vec<Name>, Vec<Reopened>, Saved), String> {
        let (mut suspended, mut seen) = (Vec::new(), Saved::default());
        let (lock, boots) = loop {
            match self.line.hear().map_err(|silence| silence.to_string())? {
                (Message::Session(session), Some(socket)) if suspended.len() < CONNECTIONS_MAX => {
                    suspended.push(suspended_of(herd, images, seats, session, socket)?);
                    perhaps(Place::Sessions);
                }
                (Message::Seen(more), None) => seen.extend(more),
                (Message::All { boots }, Some(lock)) => break (lock, boots),
                (Message::Refused { why }, _) => return Err(why),
                _ => return Err("the running server has mixed up the order of things".to_owned()),
            }
        };
        perhaps(Place::All);
        let boots = boots
            .iter()
            .map(|name| Name::new(name))
            .collect::<Result<_, _>>();
        let boots = boots.map_err(|error| error.to_string())?;
        let begun = Instant::now();
        let reopened = herd.reopen(suspended).await.into_iter();
        let time = begun.elapsed().as_millis();
        tracing::debug!("the disks of the sessions were opened in {time} ms");
        let sessions = reopened.collect::<Result<_, _>>();
        let sessions = sessions.map_err(|error| error.to_string())?;
        perhaps(Place::Reopened);
        Ok((lock, boots, sessions, seen))
    }
}

impl Prepared {
    /// Says so, and waits for the word: when this returns well, all is ours.
    pub(in crate::serve) fn take(self) -> Result<Taken, Failure> {
        self.line.say(&Message::Prepared, None).map_err(failed)?;
        perhaps(Place::Prepared);
        // This receive is the point of no return.
        match self.line.hear() {
            Ok((Message::Yours, None)) => {
                perhaps(Place::Yours);
                Ok(Taken {
                    predecessor: Predecessor(self.line),
                    sessions: self.sessions,
                    lock: self.lock,
                    boots: self.boots,
                    seen: self.seen,
                })
            }
            Ok(_) => Err(failed(
                "the running server has mixed up the order of things",
            )),
            Err(silence) => Err(failed(silence)),
        }
    }
}

/// A take-over behind its point of no return.
#[derive(Debug)]
pub(in crate::serve) struct Taken {
    pub(in crate::serve) sessions: Vec<Reopened>,
    /// The lock of the state directory.
    pub(in crate::serve) lock: OwnedFd,
    /// Machines that have been switched on and not seen to.
    pub(in crate::serve) boots: Vec<Name>,
    /// What is known of all machines.
    pub(in crate::serve) seen: Saved,
    pub(in crate::serve) predecessor: Predecessor,
}

/// The old server, which waits for the new one to serve.
#[derive(Debug)]
pub(in crate::serve) struct Predecessor(Line);

impl Predecessor {
    /// Lets it end: this server serves. When this returns, the service manager knows.
    pub(in crate::serve) fn dismiss(self) {
        // One that has ended by now needs no word.
        let _ = self.0.say(&Message::Serving, None);
        let _ = self.0.set_patience(Some(TAKEOVER_TELLING_TIME));
        // It says nothing more, and closes its end once it has told.
        let _ = self.0.hear();
    }
}

/// The old server takes the end of this connection for the end of the process, so from now on
/// nothing else may end it: threads of this process could have files open.
fn keep_open_for_ever(line: &Line) -> Result<(), Failure> {
    std::mem::forget(line.socket().try_clone().map_err(failed)?);
    Ok(())
}

/// What the server says in place of all it has: one line of JSON.
fn refused(stream: &UnixStream) -> Result<(), Failure> {
    let mut first = [0];
    let (count, _) = recv(stream, &mut first[..], RecvFlags::PEEK).map_err(failed)?;
    if count == 0 {
        return Err(failed("it has ended, or is ending"));
    }
    if first != *b"{" {
        return Ok(());
    }
    let mut line = Vec::new();
    let mut answer = BufReader::new(stream).take(CONTROL_ANSWER_MAX);
    answer.read_until(b'\n', &mut line).map_err(failed)?;
    let refusal = control::refusal_in(&line);
    Err(refusal.unwrap_or_else(|| failed("its answer can't be read")))
}

/// Where an image is opened again.
pub(in crate::serve) fn source_of(used: &UsedImage) -> Result<ImageSource, Failure> {
    let name = Name::new(&used.name).map_err(failed)?;
    let mut source = ImageSource::of_file(name, PathBuf::from(&used.path));
    source.current = used.generation;
    source.files = [(used.generation, PathBuf::from(&used.path))].into();
    Ok(source)
}

/// A session in this process, of what another says of it.
pub(in crate::serve) fn suspended_of(
    herd: &Herd,
    images: &[Images],
    seats: &Arc<Seats>,
    session: Session,
    socket: OwnedFd,
) -> Result<Suspended, String> {
    let about = |why: String| format!("{}: {why}", session.peer);
    let unknown = || about("it goes by what this server does not know".to_owned());
    let (info, agreed) = standing_terms(&session.terms).ok_or_else(unknown)?;
    let (client, keep) = overlay_of(&session).ok_or_else(unknown)?;
    let image = image_of(images, &session.image).map_err(about)?;
    let generation = session.image.generation;
    let target = herd.target_of(&image, generation, client, keep);
    if target.info.size != info.size || target.info.read_only != info.read_only {
        return Err(about("its disk is another one here".to_owned()));
    }
    let caller = peer_of(&socket);
    let seat = seats.keep(&caller);
    let standing = Standing {
        channel: None,
        seat,
        leftover: session.leftover,
        info,
        agreed,
        peer: session.peer,
        address: address_of(&caller),
        is_successor: session.is_successor,
        goes_on: true,
    };
    Ok(Suspended {
        target: Arc::new(target),
        accepted: Accepted { socket, standing },
        voucher: session.voucher.as_ref().map(voucher_of),
    })
}

fn image_of(images: &[Images], used: &UsedImage) -> Result<Arc<Image>, String> {
    let of_name = |images: &Images| {
        let mut all = images.0.iter();
        let of_name = all.find(|image| image.name.to_string() == used.name)?;
        of_name.images.get(&used.generation).cloned()
    };
    let (name, number) = (&used.name, used.generation);
    let image = images.iter().find_map(of_name);
    let image = image.ok_or_else(|| format!("image {name}+{number} is not there any more"))?;
    is_same(&image, used).map_err(|why| {
        format!("image {name}+{number} is another one than the running server has: {why}")
    })?;
    Ok(image)
}

fn peer_of(socket: &OwnedFd) -> Peer {
    let address = SockRef::from(socket).peer_addr();
    let address = address.ok().and_then(|address| address.as_socket());
    address.map_or(Peer::Local, |address| Peer::Ip(address.ip()))
}
