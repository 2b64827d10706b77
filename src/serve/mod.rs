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
mod blocking;
mod boots;
mod budget;
mod catalog;
mod connection;
pub mod control;
pub mod demo;
mod describe;
mod detach;
mod dhcp;
pub mod doctor;
pub mod explain;
mod gate;
pub mod grub;
mod herd;
mod holders;
mod host;
mod http;
mod images;
mod kept;
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
mod posts;
mod prefetch;
mod reach;
mod reload;
mod reply;
mod roots;
mod seats;
mod service;
mod session;
mod shard;
mod shelf;
pub mod state_dir;
mod stop;
mod succession;
pub mod takeover;
mod templates;
mod tftp;
mod tree;
mod upgrade;
mod user;
mod volumes;
mod watch;
pub mod who;

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::ImageSource;
use crate::image::Image;
pub use crate::io::signals::note_requests_to_end;
pub use options::{Failure, Options};

use catalog::Catalog;
use control::ControlSocket;
use dhcp::Dhcp;
use herd::Herd;
use kept::Before;
use listen::{Bound, ListenAddress};
use reload::Configured;
use service::{Doors, Service, Shards};
use state_dir::StateDir;
use takeover::wire::Door;
use takeover::{Given, Taking};
use watch::Watch;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// One line: what could not be served, and what to do.
pub fn run(options: Options) -> Result<(), Failure> {
    if options.detach {
        return detach::run(&options);
    }
    detach::until_alone();
    // Before any thread is there: this changes the environment.
    let (inherited, stored) = listen::inherited().map_err(failed)?;
    host::raise_file_limit();
    let configured = Configured::read(&options)?;
    let options = configured.complete(options);
    let (taking, mut given) = begin_taking(&options)?;
    let mut before = Before::of(stored, &mut given);
    // What takes privileges comes first; then they are given up, before there is any other thread.
    let waits = !options.takeover;
    let admin = patience::until_there(waits, || configured.open_admin())?;
    let mut dhcp = patience::until_there(waits, || configured.open_dhcp(&mut given))?;
    let tftp = patience::until_there(waits, || configured.open_tftp(&mut given))?;
    let http = patience::until_there(waits, || configured.open_http(&mut given))?;
    let bound = bind(&options, inherited, &mut given)?;
    configured.give_up_privileges()?;
    let state = open_state(&options)?;
    // Right after the lock, so that no command finds one without the other for long.
    let control = state
        .as_deref()
        .map(|state| bind_control(state, &mut given));
    let control = control.transpose()?;
    if let Some(dhcp) = dhcp.as_mut().filter(|_| taking.is_none()) {
        dhcp.read_leases(state.as_deref().map(StateDir::path))?;
    }
    let named = named_images(&options, state.as_deref())?;
    let watch = Watch::new(state.as_deref());
    // The demo keeps its image there, and a read-only one nothing else.
    let overlays = state.filter(|_| !options.read_only);
    let changer = dhcp.as_ref().map(Dhcp::changer);
    let mut running = configured.open(named, &options, overlays.as_ref(), changer)?;
    let taking = match taking {
        Some(taking) => {
            let used = running.open_beside(&taking.used()?)?;
            Some((taking, used))
        }
        None => None,
    };
    before.open_images(&mut running);
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
    reach::warn(&doors);
    let service = Service {
        options,
        running,
        herd,
        shards,
        before,
    };
    service.run(doors, taking)
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error.to_string())
}

/// The state directory; none where no overlay is to be made.
fn open_state(options: &Options) -> Result<Option<Arc<StateDir>>, Failure> {
    if options.read_only && !options.demo {
        return Ok(None);
    }
    let path = options.state.clone().unwrap_or_else(StateDir::default_path);
    let state = match options.takeover {
        true => StateDir::of_server(&path),
        false => StateDir::open(&path),
    };
    Ok(Some(Arc::new(state.map_err(failed)?)))
}

/// Asks the server that runs for all it has, where that is to be taken over.
fn begin_taking(options: &Options) -> Result<(Option<Taking>, Given), Failure> {
    if !options.takeover {
        return Ok((None, Given::default()));
    }
    if options.read_only {
        return Err(Failure::usage(
            "a server with --read-only has no state directory, by which another could be found \
             that takes over: stop it, and start the new one",
        ));
    }
    let state = options.state.clone().unwrap_or_else(StateDir::default_path);
    let (taking, given) = Taking::begin(&state)?;
    Ok((Some(taking), given))
}

fn bind_control(state: &StateDir, given: &mut Given) -> Result<ControlSocket, Failure> {
    if let Some((_, socket)) = given.take(|door, _| *door == Door::Control) {
        return Ok(ControlSocket::passed(state, socket));
    }
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

/// What was asked for; else what systemd handed over, to us or to the server that is taken over
/// from; else the default.
fn bind(
    options: &Options,
    mut bound: Vec<Bound>,
    given: &mut Given,
) -> Result<Vec<Bound>, Failure> {
    let mut passed = Vec::new();
    while let Some((door, socket)) = given.take(|door, _| matches!(door, Door::Nbd { .. })) {
        let is_inherited = door == Door::Nbd { is_inherited: true };
        passed.push(listen::of_passed(socket, is_inherited).map_err(failed)?);
    }
    if bound.is_empty() {
        bound.extend(passed.extract_if(.., |passed| passed.is_inherited));
    }
    let default = [ListenAddress::default()];
    let addresses = match &options.listen[..] {
        [] if bound.is_empty() => &default,
        asked => asked,
    };
    for address in addresses {
        bound.extend(patience::until_there(!options.takeover, || {
            listen_on(address, &mut passed)
        })?);
    }
    Ok(bound)
}

fn listen_on(address: &ListenAddress, passed: &mut Vec<Bound>) -> Result<Vec<Bound>, Failure> {
    listen::bind_or_take(address, passed).map_err(|error| match error.may_pass() {
        true => Failure::not_yet(error.to_string()),
        false => failed(error),
    })
}
