//! `cowherd doctor`: looks at all that a server needs, and says what is wrong and what to do.
//!
//! - `finding` is what is said. `settings`, `interfaces`, `ports`, `rivals`, `images`, `overlays`,
//!   `room`, `kernel` and `machines` look at one thing each; `owner` knows who has a port.
//!
//! Invariants:
//! - Nothing is changed: no file is written, no address is taken from another DHCP server. Ports
//!   are bound for a moment, and are not listened at.
//! - What can't be looked at is said, and is not taken for being well.
//! - A disk that does not answer is told of, and not waited for.

mod finding;
mod images;
mod interfaces;
mod kernel;
mod machines;
mod overlays;
mod owner;
mod ports;
mod rivals;
mod room;
mod settings;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

use rustix::process::Pid;

use super::control;
use super::options::Failure;
use super::state_dir::StateDir;
use crate::config::{Config, ImageSource};
use crate::limits::DOCTOR_PATIENCE;
pub use finding::{Area, Finding, Level};

/// The config of a host that is served by its service manager.
pub const CONFIG: &str = "/etc/cowherd/cowherd.toml";

/// What is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// The config file; without it [`CONFIG`], where that is there.
    pub config: Option<PathBuf>,
    /// Images of the command line.
    pub images: Vec<PathBuf>,
    /// The state directory, where it is not the config's.
    pub state: Option<PathBuf>,
    /// Read the images from end to end.
    pub read_images: bool,
    /// Send nothing to the network.
    pub is_silent: bool,
}

/// What is told meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something is looked at now that may take its time.
    Looks(String),
    /// Of the same, so much is done.
    Progress {
        /// Bytes that were looked at.
        done: u64,
        /// Bytes that there are.
        total: u64,
    },
    /// Something was found.
    Found(Finding),
}

/// All that is known when it is looked at one thing.
struct Visit<'a> {
    question: &'a Question,
    config: Config,
    state: PathBuf,
    /// The server that runs on the state directory.
    server: Option<Pid>,
    told: &'a mut dyn FnMut(Step),
}

/// Looks at everything; `told` gets what is found.
///
/// # Errors
/// One line, where nothing can be looked at at all.
pub fn run(question: &Question, told: &mut dyn FnMut(Step)) -> Result<(), Failure> {
    let Some(config) = settings::read(question, told) else {
        // What a config means that can't be read, nobody knows.
        return Ok(());
    };
    let state = question.state.clone().or_else(|| config.state.clone());
    let state = state.unwrap_or_else(StateDir::default_path);
    let mut visit = Visit {
        server: server_of(&state),
        question,
        config,
        state,
        told,
    };
    settings::look(&mut visit);
    interfaces::look(&mut visit);
    ports::look(&mut visit);
    rivals::look(&mut visit);
    kernel::look(&mut visit);
    machines::look(&mut visit);
    room::look(&mut visit);
    images::look(&mut visit)?;
    overlays::look(&mut visit);
    Ok(())
}

/// The process that answers on the control socket.
fn server_of(state: &Path) -> Option<Pid> {
    let stream = control::connect(state)?;
    let peer = rustix::net::sockopt::socket_peercred(stream.as_fd()).ok()?;
    Some(peer.pid)
}

impl Visit<'_> {
    fn found(&mut self, finding: Finding) {
        (self.told)(Step::Found(finding));
    }

    fn looks(&mut self, at: impl Into<String>) {
        (self.told)(Step::Looks(at.into()));
    }

    /// Has something done that waits for disks, for as long as it gets on.
    fn aside(&mut self, area: Area, about: &str, work: impl FnOnce(&Told) + Send + 'static) {
        let (sender, steps) = channel();
        // It ends with the process where its disk never answers.
        let begun = std::thread::Builder::new().spawn(move || work(&Told(sender)));
        if let Err(error) = begun {
            return self.found(Finding::unknown(area, about, error.to_string()));
        }
        loop {
            match steps.recv_timeout(DOCTOR_PATIENCE) {
                Ok(step) => (self.told)(step),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = DOCTOR_PATIENCE.as_secs();
                    let what = format!("its disk has not answered for {seconds} seconds");
                    let found = Finding::wrong(area, about, what);
                    let advice = "look at the health of that disk, at the network behind it, and \
                                  at what `dmesg` says of it";
                    return self.found(found.advised(advice));
                }
            }
        }
    }

    /// All images: those of the command line, then those of the config.
    fn images(&self) -> Result<Vec<ImageSource>, Failure> {
        let failed = |error: crate::image::ImageError| Failure::usage(error.to_string());
        let named = self.question.images.iter().map(|file| {
            let name = crate::image::Image::name_of(file).map_err(failed)?;
            Ok(ImageSource::of_file(name, file.clone()))
        });
        let named: Vec<_> = named.collect::<Result<_, Failure>>()?;
        Ok(named
            .into_iter()
            .chain(self.config.images.clone())
            .collect())
    }
}

/// Where those tell what they find that wait for disks.
struct Told(Sender<Step>);

impl Told {
    fn tell(&self, step: Step) {
        // Who has waited too long listens no more.
        let _ = self.0.send(step);
    }

    fn found(&self, finding: Finding) {
        self.tell(Step::Found(finding));
    }
}
