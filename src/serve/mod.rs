//! Sockets, threads and signals: joins protocol and storage, and decides neither.
//!
//! - `listen`, `state_dir`, `who`, `catalog`, `demo` and `host` turn options, files and peers into
//!   checked values; `upgrade` has the certificates, `shelf` opens the `images`, and `reload` reads
//!   the config file again. An `offer` is what all that comes to.
//! - [`control`] answers `cowherd overlay`, on the socket of a running server or without one.
//! - `accept` and `connection` are the control plane: one ordinary tokio runtime.
//! - `placement` and `herd` say which shard a volume is on; `shard`, `volumes`, `session`, `link`,
//!   `succession`, `outbox`, `memory` and `budget` are the data plane: threads with a ring each.

mod absence;
mod accept;
mod admin;
mod boots;
mod budget;
mod catalog;
mod connection;
pub mod control;
pub mod demo;
mod describe;
mod dhcp;
pub mod explain;
pub mod grub;
mod herd;
mod holders;
mod host;
mod http;
mod images;
mod link;
pub mod listen;
mod loaders;
mod memory;
mod menus;
mod meter;
mod offer;
mod options;
mod outbox;
mod patience;
mod placement;
#[cfg(test)]
mod poll_once;
mod reload;
mod reply;
mod seats;
mod session;
mod shard;
mod shelf;
pub mod state_dir;
mod succession;
mod templates;
mod tftp;
mod tree;
mod upgrade;
mod user;
mod volumes;
mod watch;
pub mod who;

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::ImageSource;
use crate::image::Image;
use crate::limits::{DRAIN_TIME, NBD_PORT, SHARDS_MAX};
pub use options::{Failure, Options};

use catalog::Catalog;
use control::{Control, ControlSocket, Workshop};
use dhcp::Dhcp;
use herd::Herd;
use listen::{Bound, BoundAddress, ListenAddress};
use placement::Placement;
use reload::{Configured, Running};
use shard::ShardHandle;
use state_dir::StateDir;
use tree::Tree;
use watch::Watch;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// One line: what could not be served, and what to do.
pub fn run(options: Options) -> Result<(), Failure> {
    // Before any thread is there: this changes the environment.
    let inherited = listen::inherited().map_err(failed)?;
    host::raise_file_limit();
    let configured = Configured::read(&options)?;
    let options = configured.complete(options);
    // What takes privileges comes first; then they are given up, before there is any other thread.
    let admin = patience::until_there(|| configured.open_admin())?;
    let mut dhcp = patience::until_there(|| configured.open_dhcp())?;
    let tftp = patience::until_there(|| configured.open_tftp())?;
    let http = patience::until_there(|| configured.open_http())?;
    let bound = bind(&options.listen, inherited)?;
    configured.give_up_privileges()?;
    let state = open_state(&options)?;
    // Right after the lock, so that no command finds one without the other for long.
    let control = state.as_deref().map(bind_control).transpose()?;
    if let Some(dhcp) = &mut dhcp {
        dhcp.read_leases(state.as_deref().map(StateDir::path))?;
    }
    let named = named_images(&options, state.as_deref())?;
    let watch = Watch::new(state.as_deref());
    // The demo keeps its image there, and a read-only one nothing else.
    let overlays = state.filter(|_| !options.read_only);
    let changer = dhcp.as_ref().map(Dhcp::changer);
    let running = configured.open(named, overlays.as_ref(), changer)?;
    let shards = Shards::start(options.shards, options.keepalive)?;
    let herd = Arc::new(Herd::new(
        Catalog::new(overlays, options.overlay_limit),
        Arc::clone(running.offers()),
        Arc::clone(&shards.placement),
        shards.handles.clone(),
        watch,
    ));
    let doors = Doors {
        bound,
        control,
        dhcp,
        tftp,
        admin,
        http,
    };
    serve(&options, doors, running, herd, shards)
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error.to_string())
}

/// What is to be said on standard output could not be said.
fn unsaid(error: std::io::Error) -> Failure {
    Failure::failed(format!(
        "standard output: {error}; the addresses and `ready` are written there: mend it, or use \
         /dev/null"
    ))
}

/// The state directory; none where no overlay is to be made.
fn open_state(options: &Options) -> Result<Option<Arc<StateDir>>, Failure> {
    if options.read_only && !options.demo {
        return Ok(None);
    }
    let path = options.state.clone().unwrap_or_else(StateDir::default_path);
    let state = StateDir::open(&path).map_err(failed)?;
    Ok(Some(Arc::new(state)))
}

fn bind_control(state: &StateDir) -> Result<ControlSocket, Failure> {
    let path = state.path().join(state_dir::CONTROL_SOCKET);
    ControlSocket::bind(state).map_err(|error| {
        Failure::failed(format!(
            "control socket {}: {error}; choose another directory with --state",
            path.display()
        ))
    })
}

/// The images of the command line, under the names of their files.
fn named_images(options: &Options, state: Option<&StateDir>) -> Result<Vec<ImageSource>, Failure> {
    let of_file = |path: PathBuf| {
        let name = Image::name_of(&path).map_err(failed)?;
        Ok(ImageSource::of_file(name, path))
    };
    if let Some(state) = state.filter(|_| options.demo) {
        let demo = demo::demo_image(state.path()).map_err(failed)?;
        return Ok(vec![of_file(demo)?]);
    }
    options.images.iter().cloned().map(of_file).collect()
}

/// What was asked for; else what systemd handed over; else the default.
fn bind(asked: &[ListenAddress], inherited: Vec<Bound>) -> Result<Vec<Bound>, Failure> {
    let default = [ListenAddress::default()];
    let addresses = match asked {
        [] if inherited.is_empty() => &default,
        asked => asked,
    };
    let mut bound = inherited;
    for address in addresses {
        bound.extend(patience::until_there(|| listen_on(address))?);
    }
    Ok(bound)
}

fn listen_on(address: &ListenAddress) -> Result<Vec<Bound>, Failure> {
    listen::bind(address).map_err(|error| match error.may_pass() {
        true => Failure::not_yet(error.to_string()),
        false => failed(error),
    })
}

/// The data-plane threads.
struct Shards {
    placement: Arc<Placement>,
    handles: Vec<ShardHandle>,
    threads: Vec<JoinHandle<()>>,
}

impl Shards {
    fn start(asked: Option<NonZeroUsize>, keepalive: Duration) -> Result<Self, Failure> {
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

    fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

/// Where clients and commands come in.
struct Doors {
    bound: Vec<Bound>,
    control: Option<ControlSocket>,
    dhcp: Option<Dhcp>,
    tftp: Option<tftp::Opened>,
    admin: Option<admin::Opened>,
    http: Option<http::Opened>,
}

/// Starts to answer commands and, beside, to remove overlays of earlier boots.
fn start_control(
    socket: Option<ControlSocket>,
    herd: &Arc<Herd>,
) -> std::io::Result<Option<Control>> {
    let workshop = Workshop::of_server(Arc::clone(herd));
    let (Some(socket), Some(workshop)) = (socket, workshop) else {
        return Ok(None);
    };
    let mut control = Control::start(socket, workshop.clone())?;
    control.beside(control::expire(workshop));
    Ok(Some(control))
}

fn serve(
    options: &Options,
    doors: Doors,
    running: Running,
    herd: Arc<Herd>,
    shards: Shards,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(failed)?.block_on(async {
        let mut stop = StopSignals::new().map_err(failed)?;
        announce(options, &doors).map_err(unsaid)?;
        let control = start_control(doors.control, &herd).map_err(failed)?;
        let watch = Arc::clone(herd.watch());
        let watching = tokio::spawn(Arc::clone(&watch).run(Arc::clone(&herd)));
        let admin = doors.admin.map(|admin| admin.start(&herd));
        let admin = admin.transpose().map_err(failed)?;
        let tree = Arc::new(Tree::new(Arc::clone(&herd), nbd_port(&doors.bound)));
        let tftp = doors.tftp.map(|tftp| tftp.start(&tree));
        let tftp = tftp.transpose().map_err(failed)?;
        let http = doors.http.map(|http| http.start(&tree));
        let http = http.transpose().map_err(failed)?;
        let boots = tokio::spawn(boots::see_to(Arc::clone(&herd)));
        let begun = Arc::clone(herd.boots());
        let accepting = accept::start(doors.bound, herd).map_err(failed)?;
        let leases = Arc::clone(running.leases());
        let seen = (Arc::clone(&watch), begun);
        let dhcp = doors.dhcp.map(|dhcp| dhcp.start(leases, seen));
        let dhcp = dhcp.transpose().map_err(failed)?;
        let reloader = running.wait_for_word().map_err(failed)?;
        ready().map_err(unsaid)?;
        stop.wait(|| reloader.reload()).await;
        tracing::info!("stopping");
        drop(accepting);
        drop(control);
        drop(dhcp);
        drop(tftp);
        drop(admin);
        watching.abort();
        watch.save();
        drop(http);
        boots.abort();
        drain(&shards, &mut stop).await
    })
}

/// The port that machines are told to find their disks at.
fn nbd_port(bound: &[Bound]) -> u16 {
    let port = bound.iter().find_map(|bound| match &bound.address {
        BoundAddress::Tcp(address) => Some(address.port()),
        _ => None,
    });
    port.unwrap_or(NBD_PORT)
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
    if let Some(dhcp) = &doors.dhcp {
        dhcp.announce(&mut out)?;
    }
    if let Some(admin) = &doors.admin {
        admin.announce(&mut out)?;
    }
    match doors.bound.first() {
        Some(first) if options.demo && !options.read_only => {
            demo::write_hints(&mut out, &first.address)
        }
        _ => Ok(()),
    }
}

fn ready() -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "ready")?;
    // Without systemd there is nobody to notify.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    Ok(())
}

/// SIGTERM and SIGINT end the server, SIGHUP makes it read its config again.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for an end; each SIGHUP before that calls `reload`.
    async fn wait(&mut self, mut reload: impl FnMut()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => reload(),
            }
        }
    }
}

/// Lets sessions end by themselves, then ends them; a second signal cuts the waiting short.
async fn drain(shards: &Shards, stop: &mut StopSignals) -> Result<(), Failure> {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    shards.handles.iter().for_each(ShardHandle::drain);
    tokio::select! {
        () = finished(shards, Instant::now() + DRAIN_TIME) => {}
        () = stop.wait(|| tracing::info!("SIGHUP: the server is going down")) => {}
    }
    if shards.is_finished() {
        return Ok(());
    }
    tracing::warn!("some clients take no replies, or a disk is slow: cutting their connections");
    shards.handles.iter().for_each(ShardHandle::cut);
    finished(shards, Instant::now() + DRAIN_TIME).await;
    match shards.is_finished() {
        true => Ok(()),
        false => Err(Failure::failed(
            "a disk does not answer: overlays were not all closed; their recovery is automatic",
        )),
    }
}

/// Waits until all shards have ended, but not past `deadline`.
async fn finished(shards: &Shards, deadline: Instant) {
    while !shards.is_finished() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
