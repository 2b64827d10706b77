//! The old server's side: it shows what it serves on, stops, hands over, and ends or goes on.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::net::UnixStream;
use tokio::task::spawn_blocking;

use super::line::{Line, Silence};
use super::steps::{Event, Giver, Next};
use super::terms::{of_image, session_words};
use super::wire::{Door, Message};
use crate::limits::{SUSPEND_TIME, TAKEOVER_FLUSH_TIME, TAKEOVER_PREPARATION_TIME, TAKEOVER_TIME};
use crate::serve::dhcp::Steward;
use crate::serve::gate::Gate;
use crate::serve::herd::Herd;
use crate::serve::posts::{Posted, Served};
use crate::serve::seats::Seats;
use crate::serve::shard::{Leaving, Suspended};
use crate::status::timelines::Saved;

/// How long handshakes may take to end once nobody new is let in.
const HANDSHAKES_END: Duration = Duration::from_millis(100);

/// The sockets that are shown to a server which takes over.
#[derive(Debug)]
pub(in crate::serve) struct Shown {
    fixed: Vec<(Door, OwnedFd)>,
    /// Those of addresses that come and go.
    posted: Vec<Posted>,
}

impl Shown {
    pub(in crate::serve) fn new(fixed: Vec<(Door, OwnedFd)>, served: &Served) -> Self {
        let posted = served.all().cloned().collect();
        Self { fixed, posted }
    }

    /// Those of this moment once more.
    pub(in crate::serve) fn share(&self) -> std::io::Result<Vec<(Door, OwnedFd)>> {
        let mut sockets = Vec::new();
        for (door, socket) in &self.fixed {
            sockets.push((door.clone(), socket.try_clone()?));
        }
        for posted in &self.posted {
            sockets.extend(posted.share()?);
        }
        Ok(sockets)
    }
}

/// A new server that wants all we have.
#[derive(Debug)]
pub(in crate::serve) struct Successor {
    line: Line,
    pid: Pid,
    /// To end it, should it take too long.
    process: OwnedFd,
    giver: Giver,
}

/// How it came out.
#[derive(Debug)]
pub(in crate::serve) enum Ending {
    /// The new server serves: this one is to end, and nothing of what it has is its own any more.
    Left(Successor),
    /// This one goes on; why.
    Kept(String),
    /// This one goes on without its sessions, since the new one ended when they were its own.
    KeptDoors(String),
    /// The new server ended, and somebody else was quicker to have the state directory.
    LockLost,
}

/// Shows a server that has asked what we serve on, and waits until it has prepared. `None` where
/// nothing comes of it.
pub(in crate::serve) async fn show(
    stream: UnixStream,
    shown: &Shown,
    dhcp: Option<&Steward>,
    herd: &Herd,
) -> Option<Successor> {
    let doors = match doors(shown, dhcp).await {
        Ok(doors) => doors,
        Err(error) => {
            tracing::warn!("a take-over came to nothing: {error}");
            return None;
        }
    };
    let images = herd.open_now().await;
    let prepared = spawn_blocking(move || {
        let pid = stream.peer_cred().ok()?.pid().and_then(Pid::from_raw)?;
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let line = Line::new(stream.into_std().ok()?).ok()?;
        let mut successor = Successor {
            line,
            pid,
            process,
            giver: Giver::default(),
        };
        let mut images: Vec<_> = images
            .iter()
            .map(|target| of_image(&target.key, &target.image))
            .collect();
        images.sort_by(|a, b| (&a.name, a.generation).cmp(&(&b.name, b.generation)));
        images.dedup();
        let images = images.into_iter().map(Message::Image).collect::<Vec<_>>();
        let next = match successor.show(&doors, &images) {
            Ok(()) => successor.hear(),
            Err(silence) => event_of(silence),
        };
        match successor.giver.handle(next) {
            Next::Freeze => Some(successor),
            Next::Keep(why) => {
                tracing::warn!("a take-over came to nothing: {why}");
                None
            }
            _ => None,
        }
    });
    // The task does nothing that panics.
    prepared.await.ok().flatten()
}

/// All sockets once more.
async fn doors(shown: &Shown, dhcp: Option<&Steward>) -> std::io::Result<Vec<(Door, OwnedFd)>> {
    let mut doors = match dhcp {
        Some(dhcp) => dhcp.share().await?,
        None => Vec::new(),
    };
    doors.extend(shown.share()?);
    Ok(doors)
}

fn event_of(silence: Silence) -> Event {
    match silence {
        Silence::Ended { is_unread } => Event::Ended { is_unread },
        Silence::Late => Event::Late,
        other => Event::Nonsense(other.to_string()),
    }
}

impl Successor {
    /// Its process.
    pub(in crate::serve) const fn pid(&self) -> Pid {
        self.pid
    }

    fn show(&self, doors: &[(Door, OwnedFd)], images: &[Message]) -> Result<(), Silence> {
        self.line.set_patience(Some(TAKEOVER_PREPARATION_TIME))?;
        for (door, socket) in doors {
            self.line
                .say(&Message::Door(door.clone()), Some(socket.as_fd()))?;
        }
        for image in images {
            self.line.say(image, None)?;
        }
        self.line.say(&Message::Shown, None)
    }

    fn hear(&self) -> Event {
        match self.line.hear() {
            Ok((Message::Freeze, _)) => Event::Freeze,
            Ok((Message::Prepared, _)) => Event::Prepared,
            Ok((Message::Serving, _)) => Event::Serving,
            Ok((Message::Refused { why }, _)) => Event::Refused(why),
            Ok(_) => Event::Nonsense("the new server said what only an old one says".to_owned()),
            Err(silence) => event_of(silence),
        }
    }

    /// Hands sessions over; those with TLS stay.
    fn hand_over(
        &self,
        sessions: &[Suspended],
        seen: Vec<Saved>,
        boots: Vec<String>,
        lock: &OwnedFd,
    ) -> Result<(), Silence> {
        self.line.set_patience(Some(TAKEOVER_TIME))?;
        for session in sessions {
            if session.can_move() {
                let socket = session.accepted.socket.as_fd();
                let words = Message::Session(session_words(session));
                self.line.say(&words, Some(socket))?;
            }
        }
        for some in seen {
            self.line.say(&Message::Seen(some), None)?;
        }
        let all = Message::All { boots };
        self.line.say(&all, Some(lock.as_fd()))
    }

    /// Does what is next until it is known how all ends.
    fn conclude(&mut self, mut event: Event) -> Next {
        loop {
            match self.giver.handle(event) {
                Next::Give => {
                    event = match self.give() {
                        Ok(()) => self.hear(),
                        // It was never there to be taken.
                        Err(_) => Event::Ended { is_unread: true },
                    };
                }
                Next::Kill => {
                    // One that has ended already is as good.
                    let _ = pidfd_send_signal(&self.process, Signal::KILL);
                    event = self.hear_for_ever();
                }
                Next::Await => event = self.hear_for_ever(),
                // Only asked for before.
                Next::Freeze => event = Event::Freeze,
                next @ (Next::Leave | Next::Keep(_) | Next::KeepDoors(_)) => return next,
            }
        }
    }

    fn give(&self) -> Result<(), Silence> {
        // It may be serving already, or not yet: that is for as long as it takes.
        self.line.set_patience(None)?;
        self.line.say(&Message::Yours, None)
    }

    fn hear_for_ever(&self) -> Event {
        // Without that it is asked again.
        let _ = self.line.set_patience(None);
        self.hear()
    }
}

/// What the old server stops and gives.
#[derive(Debug)]
pub(in crate::serve) struct Giving {
    pub(in crate::serve) herd: Arc<Herd>,
    pub(in crate::serve) gate: Gate,
    pub(in crate::serve) seats: Arc<Seats>,
    pub(in crate::serve) dhcp: Option<Steward>,
}

impl Giving {
    /// Hands all over to a server that has prepared, or goes on.
    pub(in crate::serve) async fn give(&self, mut successor: Successor) -> Ending {
        let flushed = tokio::time::timeout(TAKEOVER_FLUSH_TIME, async {
            // Twice, since the first time may be long and leave much behind it.
            self.herd.flush().await;
            self.herd.flush().await;
        });
        let flushed = flushed.await.is_ok();
        let begun = Instant::now();
        let (sessions, failure) = match flushed {
            true => self.stop().await,
            // Nobody has to wait for it.
            false => (Vec::new(), Some(self.busy().await)),
        };
        let stopped = begun.elapsed().as_millis();
        let lock = self.lock();
        let boots = self.herd.boots().names();
        let seen = self.seen().await;
        let concluded = spawn_blocking(move || {
            let handed = match (failure, lock) {
                (Some(failure), _) => Some(Event::Failed(failure)),
                (None, Err(error)) => Some(Event::Failed(format!("the lock: {error}"))),
                (None, Ok(lock)) => {
                    let handed = successor.hand_over(&sessions, seen, boots, &lock);
                    handed.err().map(event_of)
                }
            };
            let event = handed.unwrap_or_else(|| successor.hear());
            let next = successor.conclude(event);
            (next, sessions, Some(successor))
        });
        let (next, sessions, successor) = match concluded.await {
            Ok(concluded) => concluded,
            // It does nothing that panics; were it to, the sessions are gone.
            Err(error) => (Next::KeepDoors(error.to_string()), Vec::new(), None),
        };
        self.end((next, successor), sessions, (begun, stopped))
            .await
    }

    /// What is known of the machines, up to this moment.
    async fn seen(&self) -> Vec<Saved> {
        let watch = self.herd.watch();
        watch.look(&self.herd).await;
        watch.saved().in_parts()
    }

    /// Stops everything; why not, where it can't be.
    async fn stop(&self) -> (Vec<Suspended>, Option<String>) {
        self.let_nobody_in().await;
        let (rests, suspended) = tokio::join!(self.rest_dhcp(), self.herd.suspend(Leaving::Open));
        match suspended {
            Ok(sessions) => (sessions, rests.err()),
            Err(sessions) => (sessions, Some(self.busy().await)),
        }
    }

    async fn end(
        &self,
        (next, successor): (Next, Option<Successor>),
        sessions: Vec<Suspended>,
        (begun, stopped): (Instant, u128),
    ) -> Ending {
        let time = begun.elapsed().as_millis();
        match (next, successor) {
            (Next::Leave, Some(successor)) => {
                let (stay, go): (Vec<_>, Vec<_>) = sessions
                    .into_iter()
                    .partition(|session| !session.can_move());
                let count = go.len();
                let process = successor.pid.as_raw_nonzero();
                tracing::info!(
                    "process {process} has taken over, with {count} sessions, which waited for \
                     {time} ms, {stopped} of them to stop"
                );
                for session in stay {
                    let (peer, key) = session.names();
                    tracing::warn!(
                        "{peer} used {key} over TLS, which can't be handed over: closed"
                    );
                }
                if let Some(state) = self.herd.state() {
                    state.leave();
                }
                Ending::Left(successor)
            }
            (Next::KeepDoors(why), _) => {
                for session in sessions {
                    let (peer, key) = session.names();
                    tracing::error!(
                        "{peer} used {key}: closed, since the new server ended with it"
                    );
                }
                // The new one may have given it up in good order.
                if !self.herd.state().is_some_and(|state| state.hold_again()) {
                    return Ending::LockLost;
                }
                self.go_on(Vec::new(), true).await;
                Ending::KeptDoors(why)
            }
            (Next::Keep(why), _) => {
                self.go_on(sessions, false).await;
                Ending::Kept(why)
            }
            _ => Ending::Kept(String::new()),
        }
    }

    fn lock(&self) -> std::io::Result<OwnedFd> {
        let state = self.herd.state().ok_or(std::io::ErrorKind::NotFound)?;
        state.lock()
    }

    async fn rest_dhcp(&self) -> Result<(), String> {
        let Some(dhcp) = &self.dhcp else {
            return Ok(());
        };
        let rests = tokio::time::timeout(SUSPEND_TIME, dhcp.rest()).await;
        rests.map_err(|_| "leases can't be saved: the disk does not answer".to_owned())
    }

    async fn go_on(&self, sessions: Vec<Suspended>, leases_changed: bool) {
        if let Some(dhcp) = &self.dhcp {
            dhcp.go_on(leases_changed);
        }
        self.herd.resume(sessions).await;
        self.gate.set_open(true);
    }

    /// Whoever connects from now on waits in the kernel; handshakes that are under way are mostly
    /// at their end.
    pub(in crate::serve) async fn let_nobody_in(&self) {
        self.gate.set_open(false);
        let deadline = Instant::now() + HANDSHAKES_END;
        while self.seats.handshakes() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Who can't stop.
    async fn busy(&self) -> String {
        let open = self.herd.open_now().await;
        let names: Vec<_> = open.iter().map(|target| target.key.to_string()).collect();
        match names.is_empty() {
            true => "overlays are being worked on: try again later".to_owned(),
            false => format!(
                "the disk does not answer, or work on overlays goes on: {}",
                names.join(", ")
            ),
        }
    }
}
