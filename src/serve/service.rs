//! The server as it runs: everything answers, until a signal or another server ends it.

use std::io::Write;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};

use super::control::{self, Control, ControlSocket, Workshop};
use super::dhcp::{Dhcp, Steward};
use super::gate::Gate;
use super::herd::{Herd, Reopened};
use super::http::Http;
use super::images::Images;
use super::kept::{self, Before, Store};
use super::listen::{self, Bound, BoundAddress};
use super::options::{Failure, Options};
use super::placement::Placement;
use super::posts::{Opened, Served};
use super::prefetch;
use super::reload::{Reloader, Running};
use super::seats::Seats;
use super::shard::{self, ShardHandle};
use super::stop::{StopSignals, drain, until};
use super::takeover::wire::Door;
use super::takeover::{
    self, Ending, Giving, Predecessor, Prepared, Shown, Successor, Taken, Taking,
};
use super::tftp::Tftp;
use super::tree::Tree;
use super::{accept, admin, boots, demo, failed};
use crate::image::Complaint;
use crate::io::DatagramSocket;
use crate::limits::{LINGER_TIME, NBD_PORT, SHARDS_MAX};

/// The data-plane threads.
pub(super) struct Shards {
    pub(super) placement: Arc<Placement>,
    pub(super) handles: Vec<ShardHandle>,
    threads: Vec<JoinHandle<()>>,
}

impl Shards {
    pub(super) fn start(asked: Option<NonZeroUsize>, keepalive: Duration) -> Result<Self, Failure> {
        let processors = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let count = asked
            .map_or_else(processors, NonZeroUsize::get)
            .min(SHARDS_MAX);
        let placement = Arc::new(Placement::new(count));
        let (mut handles, mut threads) = (Vec::new(), Vec::new());
        for index in 0..count {
            let (handle, thread) =
                shard::start(index, Arc::clone(&placement), keepalive).map_err(failed)?;
            handles.push(handle);
            threads.push(thread);
        }
        Ok(Self {
            placement,
            handles,
            threads,
        })
    }

    pub(super) fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

/// Where clients and commands come in.
pub(super) struct Doors {
    pub(super) bound: Vec<Bound>,
    pub(super) control: Option<ControlSocket>,
    pub(super) dhcp: Option<Dhcp>,
    pub(super) tftp: Option<Opened<DatagramSocket>>,
    pub(super) http: Option<Opened<TcpListener>>,
    pub(super) admin: Option<admin::Opened>,
}

impl Doors {
    /// The sockets that stay what they are once more, for a server that takes over.
    fn share(&self) -> std::io::Result<Vec<(Door, OwnedFd)>> {
        let mut shared = Vec::new();
        for bound in &self.bound {
            let is_inherited = bound.is_inherited;
            shared.push((Door::Nbd { is_inherited }, bound.share()?));
        }
        if let Some(control) = &self.control {
            shared.push((Door::Control, control.share()?));
        }
        Ok(shared)
    }

    /// Where files are served, once they are.
    fn served(&self) -> Served {
        Served {
            tftp: self.tftp.as_ref().map(|tftp| tftp.posted().clone()),
            http: self.http.as_ref().map(|http| http.posted().clone()),
        }
    }

    /// The addresses whose files are still those of the server that was taken over from.
    fn passed(&self) -> Vec<BoundAddress> {
        let passed = |bound: &&Bound| bound.socket_file.is_none() && !bound.is_inherited;
        let passed = self.bound.iter().filter(passed);
        passed.map(|bound| bound.address.clone()).collect()
    }
}

/// A take-over that has begun, and the images to open what it hands over.
pub(super) type Underway = (Taking, Vec<Images>);

/// What serves.
pub(super) struct Service {
    pub(super) options: Options,
    pub(super) running: Running,
    pub(super) herd: Arc<Herd>,
    pub(super) shards: Shards,
    /// What the manager has kept of earlier processes.
    pub(super) before: Before,
}

/// What ends it.
enum End {
    Signal,
    /// Another process serves now.
    Successor(Successor),
}

impl Service {
    /// Serves until SIGTERM or SIGINT, or until another server has taken over.
    pub(super) fn run(self, doors: Doors, underway: Option<Underway>) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime
            .map_err(failed)?
            .block_on(self.serve(doors, underway))
    }

    async fn serve(mut self, mut doors: Doors, underway: Option<Underway>) -> Result<(), Failure> {
        let mut stop = StopSignals::new().map_err(failed)?;
        announce(&self.options, &doors).map_err(unsaid)?;
        let served = doors.served();
        let shown = Shown::new(doors.share().map_err(failed)?, &served);
        let passed = doors.passed();
        let steward = doors.dhcp.as_ref().map(Dhcp::steward);
        let (gate, seats) = (Gate::default(), Arc::<Seats>::default());
        gate.set_open(underway.is_none());
        let prepared = match underway {
            Some(underway) => Some(self.prepare(underway, &mut doors, &seats).await?),
            None => None,
        };
        let left = self.before.reopen(&self.herd, &seats).await;
        let (asking, asked) = mpsc::channel(1);
        let control = start_control(doors.control, (&self.herd, steward.clone()), &gate, asking)
            .map_err(failed)?;
        let mut watching = watch_over(&self.herd);
        let admin = start_admin(doors.admin, &self.herd, steward.clone()).map_err(failed)?;
        let port = nbd_port(&doors.bound);
        let tree = Arc::new(Tree::new(Arc::clone(&self.herd), port, served));
        let tftp = doors.tftp.map(|tftp| Tftp::start(tftp, &tree, &gate));
        let tftp = tftp.transpose().map_err(failed)?;
        let http = doors.http.map(|http| Http::start(http, &tree, &gate));
        let http = http.transpose().map_err(failed)?;
        let boots = tokio::spawn(boots::see_to(Arc::clone(&self.herd)));
        let (watch, begun) = (Arc::clone(self.herd.watch()), Arc::clone(self.herd.boots()));
        let accepting = accept::start(doors.bound, &self.herd, &seats, &gate).map_err(failed)?;
        let leases = Arc::clone(self.running.leases());
        let taken = prepared.map(|prepared| self.take(prepared, &passed, control.as_ref()));
        let (predecessor, files) = taken.transpose()?.unzip();
        let dhcp = doors.dhcp.map(|dhcp| dhcp.start(leases, (watch, begun)));
        let dhcp = dhcp.transpose().map_err(failed)?;
        left.into_iter().for_each(Reopened::serve);
        gate.set_open(true);
        let reloader = self.running.wait_for_word().map_err(failed)?;
        succeed(predecessor).await?;
        let store = Store::of_manager(&shown.share().map_err(failed)?, &self.before);
        let giving = Giving {
            herd: Arc::clone(&self.herd),
            gate,
            seats,
            dhcp: steward.clone(),
        };
        let (shown, herd) = (Arc::new(shown), Arc::clone(&self.herd));
        let mut successors = see_successors(asked, shown, steward, herd);
        let end = until_end(&mut stop, &reloader, &mut successors, &giving).await?;
        if let End::Successor(successor) = end {
            // They are the new server's, and so is the file of boots.
            watching.abort_all();
            std::mem::forget((accepting, files));
            if let Some(control) = control {
                control.own(false);
            }
            tell_of(successor).await;
            linger(tftp.as_ref(), http.as_ref()).await;
            return Ok(());
        }
        tracing::info!("stopping");
        if store.is_some() {
            giving.let_nobody_in().await;
        }
        drop((accepting, control, dhcp, tftp, http, admin, files));
        watching.abort_all();
        prefetch::save(&self.herd, &Complaint::default());
        boots.abort();
        end_by_signal(&self.herd, &self.shards, store, &mut stop).await
    }

    /// Has the server stop that is taken over from, and opens what it hands over.
    async fn prepare(
        &self,
        (taking, images): Underway,
        doors: &mut Doors,
        seats: &Arc<Seats>,
    ) -> Result<Prepared, Failure> {
        let prepared = taking.freeze(&self.herd, &images, seats).await?;
        if let Some(dhcp) = &mut doors.dhcp {
            dhcp.read_leases(self.herd.state().map(|state| state.path()))?;
        }
        Ok(prepared)
    }

    /// Takes over what is prepared. When this returns well, there is no way back.
    fn take(
        &self,
        prepared: Prepared,
        passed: &[BoundAddress],
        control: Option<&Control>,
    ) -> Result<(Predecessor, Vec<listen::SocketFile>), Failure> {
        let Taken {
            sessions,
            lock,
            boots,
            seen,
            predecessor,
        } = prepared.take()?;
        self.herd.watch().replace(seen);
        let count = sessions.len();
        sessions.into_iter().for_each(Reopened::serve);
        tracing::info!("{count} sessions were taken over");
        if let Some(state) = self.herd.state() {
            state.hold(lock);
        }
        if let Some(control) = control {
            control.own(true);
        }
        let files = listen::own_files(passed.iter());
        for name in boots {
            self.herd.boots().add(name);
        }
        Ok((predecessor, files))
    }
}

/// Has the manager keep what it keeps, and lets the rest end.
async fn end_by_signal(
    herd: &Herd,
    shards: &Shards,
    store: Option<Store>,
    stop: &mut StopSignals,
) -> Result<(), Failure> {
    if let Some(store) = store {
        store.keep_sessions(herd).await;
    }
    herd.watch().save();
    drain(shards, stop).await
}

/// Looks after the machines, and saves what is learnt of them.
fn watch_over(herd: &Arc<Herd>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(herd.watch()).run(Arc::clone(herd)));
    tasks.spawn(prefetch::save_regularly(Arc::clone(herd)));
    tasks
}

/// Machines that load something just now load it to its end.
async fn linger(tftp: Option<&Tftp>, http: Option<&Http>) {
    let is_idle = || tftp.is_none_or(Tftp::is_idle) && http.is_none_or(Http::is_idle);
    until(is_idle, Instant::now() + LINGER_TIME).await;
}

/// Starts to answer commands and, beside, to remove overlays of earlier boots.
fn start_control(
    socket: Option<ControlSocket>,
    (herd, dhcp): (&Arc<Herd>, Option<Steward>),
    gate: &Gate,
    asking: mpsc::Sender<UnixStream>,
) -> std::io::Result<Option<Control>> {
    let workshop = Workshop::of_server(Arc::clone(herd), dhcp);
    let (Some(socket), Some(workshop)) = (socket, workshop) else {
        return Ok(None);
    };
    let mut control = Control::start(socket, workshop.clone(), gate, asking)?;
    let gate = gate.clone();
    control.beside(async move {
        // Nothing is begun that is still another server's.
        gate.pass(|| std::future::ready(())).await;
        control::expire(workshop).await;
    });
    Ok(Some(control))
}

/// Shows what there is to servers that ask, one after the other; those come out that have prepared.
fn see_successors(
    mut asked: mpsc::Receiver<UnixStream>,
    shown: Arc<Shown>,
    dhcp: Option<Steward>,
    herd: Arc<Herd>,
) -> mpsc::Receiver<Successor> {
    let (sender, successors) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(stream) = asked.recv().await {
            let prepared = takeover::show(stream, &shown, dhcp.as_ref(), &herd).await;
            if let Some(successor) = prepared
                && sender.send(successor).await.is_err()
            {
                return;
            }
        }
    });
    successors
}

/// Serves until something ends it.
async fn until_end(
    stop: &mut StopSignals,
    reloader: &Reloader,
    successors: &mut mpsc::Receiver<Successor>,
    giving: &Giving,
) -> Result<End, Failure> {
    loop {
        tokio::select! {
            () = stop.wait(|| reloader.reload()) => return Ok(End::Signal),
            Some(successor) = successors.recv() => {
                if let Some(end) = hand_over(giving, successor).await? {
                    return Ok(end);
                }
            }
        }
    }
}

/// Hands all over; what ends this server, if it ends.
async fn hand_over(giving: &Giving, successor: Successor) -> Result<Option<End>, Failure> {
    match giving.give(successor).await {
        Ending::Left(successor) => return Ok(Some(End::Successor(successor))),
        Ending::Kept(why) => {
            tracing::error!("the take-over failed, and this server goes on as before: {why}");
        }
        Ending::KeptDoors(why) => tracing::error!(
            "the take-over failed, and this server goes on without the sessions that it had handed \
             over: {why}"
        ),
        Ending::LockLost => {
            return Err(failed("another server has taken the state directory"));
        }
    }
    Ok(None)
}

/// Tells systemd which process the service is now: from the one that it knows.
async fn tell_of(successor: Successor) {
    let told = spawn_blocking(move || {
        kept::tell_main_process(successor.pid());
        // It waits for that.
        drop(successor);
    });
    // It does nothing that panics.
    let _ = told.await;
}

/// Lets the old server end, where there is one, and then says that this one is ready: whoever hears
/// that may stop the service, and must be understood.
async fn succeed(predecessor: Option<Predecessor>) -> Result<(), Failure> {
    let Some(predecessor) = predecessor else {
        say_ready().map_err(unsaid)?;
        notify(sd_notify::NotifyState::Ready);
        return Ok(());
    };
    // It does nothing that panics.
    let _ = spawn_blocking(|| predecessor.dismiss()).await;
    // There is no way back, and it serves.
    if let Err(error) = say_ready() {
        tracing::warn!("{}", unsaid(error));
    }
    Ok(())
}

/// What is to be said on standard output could not be said.
pub(super) fn unsaid(error: std::io::Error) -> Failure {
    Failure::failed(format!(
        "standard output: {error}; the addresses and `ready` are written there: mend it, or use \
         /dev/null"
    ))
}

/// The port that machines are told to find their disks at.
fn nbd_port(bound: &[Bound]) -> u16 {
    let port = bound.iter().find_map(|bound| match &bound.address {
        BoundAddress::Tcp(address) => Some(address.port()),
        _ => None,
    });
    port.unwrap_or(NBD_PORT)
}

fn start_admin(
    opened: Option<admin::Opened>,
    herd: &Arc<Herd>,
    dhcp: Option<Steward>,
) -> std::io::Result<Option<JoinSet<()>>> {
    opened.map(|admin| admin.start(herd, dhcp)).transpose()
}

/// Says where clients find what.
fn announce(options: &Options, doors: &Doors) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for bound in &doors.bound {
        writeln!(out, "listening on {}", bound.address)?;
    }
    if let Some(tftp) = &doors.tftp {
        tftp.announce(&mut out)?;
    }
    if let Some(http) = &doors.http {
        http.announce(&mut out)?;
    }
    if let Some(admin) = &doors.admin {
        admin.announce(&mut out)?;
    }
    if let Some(dhcp) = &doors.dhcp {
        dhcp.announce(&mut out)?;
    }
    match doors.bound.first() {
        Some(first) if options.demo && !options.read_only => {
            demo::write_hints(&mut out, &first.address)
        }
        _ => Ok(()),
    }
}

/// What is printed when everything is served.
pub(super) const READY: &str = "ready";

fn say_ready() -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{READY}")
}

/// Tells the service manager, where there is one.
pub(super) fn notify(state: sd_notify::NotifyState<'_>) {
    // Without one there is nobody to notify.
    let _ = sd_notify::notify(&[state]);
}
