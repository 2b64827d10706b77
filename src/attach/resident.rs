//! The process that stays: it attaches a device, hears of dead connections, makes new ones and
//! hands them to the kernel, for ever.
//!
//! What the kernel does meanwhile, as of 6.1: requests that come while all connections are dead
//! wait for `NBD_ATTR_DEAD_CONN_TIMEOUT`. Those that were on their way wait until their own time is
//! up, which is counted from when they were sent, and are sent again then if the connection is
//! another one by that time. So that time (`queue/io_timeout`) is made short. With one connection
//! and a `NBD_ATTR_TIMEOUT` of 0 it does nothing else: a live connection is never given up, however
//! slow its server is. With several it does: one with a request over its time counts as dead.
//!
//! Invariant: an export that differs from the one the device was attached with is never handed to
//! the kernel.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::connections::Connections;
use super::control::{Answer, Condition, Door, Kept, Question, Status};
use super::dial::{self, Dialled};
use super::export::Export;
use super::kernel::{Facts, Kernel, KernelError, News};
use super::log::Log;
use super::memory;
use super::options::Attach;
use super::outage::Outage;
use super::pace::Pace;
use super::wire::{Connect, Reconfigure};
use crate::io::signals;

/// What the starting process is told by its child, one line on the child's standard output.
pub(super) const ATTACHED: &str = "attached";

/// A connection that the kernel has not told the death of is made anew after this time.
const GRACE: Duration = Duration::from_secs(1);

/// Seconds that requests wait for a connection: the kernel counts them in ticks, of which there
/// are a thousand a second at most, in a number of its own width.
const PATIENCE: u64 = if cfg!(target_pointer_width = "64") {
    100 * 365 * 86_400
} else {
    24 * 86_400
};

/// Runs in the process that stays, from before the device is attached to its end.
pub(super) fn run(attach: &Attach) -> ExitCode {
    let log = Log::open(attach.device, attach.foreground);
    match begin(attach, log) {
        Ok(resident) => {
            tell(ATTACHED);
            resident.stay()
        }
        Err(reason) => {
            tell(&reason);
            ExitCode::FAILURE
        }
    }
}

/// Tells who started this process. Who is gone needs not be told.
fn tell(line: &str) {
    let mut out = io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn begin(attach: &Attach, log: Log) -> Result<Resident, String> {
    if !attach.foreground {
        // It is the leader of no group yet: its parent was.
        let _ = rustix::process::setsid();
        signals::ignore_requests_to_end();
    }
    let _ = std::env::set_current_dir("/");
    let device = attach.device;
    let door = Door::open(device).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("another process keeps {device} already: see --status")
        }
        _ => format!("no way to be asked for --status: {error}"),
    })?;
    let mut kernel = Kernel::open().map_err(|error| error.to_string())?;
    let news = kernel.news().map_err(|error| error.to_string())?;
    let attached = kernel.is_attached(device);
    if attached.map_err(|error| error.to_string())? {
        return Err(KernelError::Busy.to_string());
    }
    let (first, server) = first_connection(attach, &log)?;
    let mut resident = Resident {
        servers: dial::addresses(&attach.servers)?,
        server,
        connections: Connections::default(),
        identifier: identifier(attach, &first.export),
        export: first.export,
        deaths: 0,
        begun: Instant::now(),
        outage: None,
        outages: 0,
        last_outage: None,
        attach: attach.clone(),
        log,
        door,
        kernel,
        news,
        facts: Facts::default(),
    };
    for complaint in memory::stay() {
        resident.log.warn(&complaint);
    }
    resident.connect(first.socket)?;
    Ok(resident)
}

/// What the kernel shows as `backend` in /sys: the export, by the best name there is.
fn identifier(attach: &Attach, export: &Export) -> String {
    export.name.clone().unwrap_or_else(|| attach.export.clone())
}

/// The first connection there is, where there is one in the time for it.
fn first_connection(attach: &Attach, log: &Log) -> Result<(Dialled, SocketAddr), String> {
    let begun = Instant::now();
    let mut pace = Pace::new(Duration::ZERO, seed());
    let mut said = String::new();
    loop {
        let reason = match dial::addresses(&attach.servers) {
            Ok(servers) => match any_of(&servers, attach) {
                Ok(found) => return Ok(found),
                Err(reason) => reason,
            },
            Err(reason) => reason,
        };
        if begun.elapsed() >= attach.wait {
            return Err(reason);
        }
        if reason != said {
            log.warn(&format!("waiting for a server: {reason}"));
            said.clone_from(&reason);
        }
        std::thread::sleep(pace.pause(begun.elapsed()));
    }
}

fn any_of(servers: &[SocketAddr], attach: &Attach) -> Result<(Dialled, SocketAddr), String> {
    let mut reasons = Vec::new();
    for &server in servers {
        match dial::dial(server, &attach.export) {
            Ok(dialled) => return Ok((dialled, server)),
            Err(error) => reasons.push(format!("{server}: {error}")),
        }
    }
    Err(reasons.join("; "))
}

/// A number that other machines don't have.
fn seed() -> u64 {
    let mut seed = [0; 8];
    let random = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::NONBLOCK);
    match random {
        Ok(_) => u64::from_le_bytes(seed),
        Err(_) => u64::from(std::process::id()),
    }
}

/// The process that keeps a device.
struct Resident {
    attach: Attach,
    servers: Vec<SocketAddr>,
    /// The one that the connections lead to.
    server: SocketAddr,
    connections: Connections,
    /// What the device was attached with.
    export: Export,
    identifier: String,
    /// Connections that the kernel gave up and that were not replaced.
    deaths: usize,
    begun: Instant,
    outage: Option<Outage>,
    outages: u64,
    last_outage: Option<Duration>,
    log: Log,
    door: Door,
    kernel: Kernel,
    news: News,
    facts: Facts,
}

impl Resident {
    /// Attaches the device.
    fn connect(&mut self, first: TcpStream) -> Result<(), String> {
        self.connections.add(first);
        let wanted = if self.export.is_shared() {
            self.attach.connections
        } else {
            1
        };
        for _ in 1..wanted {
            let more = self.dial(self.server)?;
            self.connections.add(more);
        }
        let asked = Connect {
            index: self.attach.device.0,
            size: self.export.size,
            block_size: u64::from(self.attach.sector),
            flags: u64::from(self.export.flags.to_wire()),
            patience: PATIENCE,
            identifier: &self.identifier,
            sockets: &self.connections.descriptors(),
        };
        let connected = self.kernel.connect(&asked);
        connected.map_err(|error| error.to_string())?;
        self.facts = Facts::of(self.attach.device);
        self.limit_request_time();
        let Self {
            identifier, server, ..
        } = self;
        let count = self.connections.count();
        let size = self.export.size;
        let line = format!("{identifier} at {server}, {size} bytes, connections: {count}");
        self.log.info(&line);
        Ok(())
    }

    /// A connection to the same disk at `server`.
    fn dial(&self, server: SocketAddr) -> Result<TcpStream, String> {
        let name = self.export.name.as_ref().unwrap_or(&self.attach.export);
        let dialled = dial::dial(server, name).map_err(|error| format!("{server}: {error}"))?;
        let same = self.export.continued_by(&dialled.export);
        same.map_err(|difference| {
            format!("{server} has another disk under the name {name}: {difference}")
        })?;
        Ok(dialled.socket)
    }

    fn limit_request_time(&self) {
        let time = self.attach.resend.as_millis();
        if let Err(error) = self.facts.set_request_time(time) {
            let line = format!("requests are sent again after 30 s only: io_timeout: {error}");
            self.log.warn(&line);
        }
    }

    /// Serves the device to its end.
    fn stay(mut self) -> ExitCode {
        loop {
            match self.step() {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return ExitCode::SUCCESS,
                // Not to be seen in practice; to go round in circles would help nobody.
                Err(error) => {
                    self.log.error(&format!("can't go on: {error}"));
                    return ExitCode::FAILURE;
                }
            }
        }
    }

    fn step(&mut self) -> io::Result<ControlFlow<()>> {
        let time = self.time_to_wait();
        let woken = self
            .connections
            .wait(self.news.as_fd(), self.door.as_fd(), time)?;
        if woken.news {
            // Where news was lost, any of them may have died.
            let deaths = self.news.deaths(self.attach.device)?;
            self.deaths += deaths.unwrap_or_else(|| self.connections.count());
        }
        if woken.question && self.answer().is_break() {
            return Ok(ControlFlow::Break(()));
        }
        if self.is_complete() {
            return Ok(ControlFlow::Continue(()));
        }
        if !self.facts.seem_attached() {
            self.log.info("detached by somebody else");
            return Ok(ControlFlow::Break(()));
        }
        self.go_on_with_outage();
        Ok(ControlFlow::Continue(()))
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn is_complete(&self) -> bool {
        self.deaths == 0 && self.connections.ended() == 0
    }

    fn time_to_wait(&self) -> Option<Duration> {
        let now = self.now();
        let outage = self.outage.as_ref()?;
        let until_place = match self.deaths {
            0 => GRACE.saturating_sub(outage.lasted(now)),
            _ => Duration::ZERO,
        };
        Some(outage.wait(now).max(until_place))
    }

    fn go_on_with_outage(&mut self) {
        let now = self.now();
        let Some(outage) = &self.outage else {
            return self.begin_outage(now);
        };
        // A place is free once the kernel has given up what was in it, which it tells.
        let has_place = self.deaths > 0 || outage.lasted(now) >= GRACE;
        if outage.wait(now).is_zero() && has_place {
            self.try_to_reconnect();
        }
    }

    fn begin_outage(&mut self, now: Duration) {
        let alive = self.connections.alive();
        let all = self.connections.count();
        self.outage = Some(Outage::new(now, seed()));
        let line = format!("lost {}; connections: {alive} of {all}", self.server);
        self.log.warn(&line);
        if all == 1 {
            // Requests that were on their way go back to wait with the others, without a line of
            // log each.
            if let Err(error) = self.reconfigure(self.attach.resend.as_secs().max(1), &[]) {
                self.log
                    .warn(&format!("the kernel does not take note of that: {error}"));
            }
        }
    }

    /// Connects again, to whichever server has the disk.
    fn try_to_reconnect(&mut self) {
        let wanted = self.connections.ended().max(1);
        let mut reasons = Vec::new();
        for server in self.servers_by_luck() {
            match self.dial(server) {
                Ok(first) => {
                    let mut sockets = vec![first];
                    let more = (1..wanted).map_while(|_| self.dial(server).ok());
                    sockets.extend(more);
                    return self.hand_over(server, sockets);
                }
                Err(reason) => reasons.push(reason),
            }
        }
        self.failed(reasons.join("; "));
    }

    /// All servers, first the one that worked last.
    fn servers_by_luck(&self) -> Vec<SocketAddr> {
        let others = self.servers.iter().filter(|one| **one != self.server);
        std::iter::once(self.server)
            .chain(others.copied())
            .collect()
    }

    fn failed(&mut self, reason: String) {
        let now = self.now();
        let Some(outage) = &mut self.outage else {
            return;
        };
        let line = format!("no connection yet: {reason}");
        if outage.handle_failure(now, reason) {
            self.log.warn(&line);
        }
    }

    fn hand_over(&mut self, server: SocketAddr, sockets: Vec<TcpStream>) {
        let descriptors: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        // From here on live connections wait for slow answers for ever again.
        if let Err(error) = self.reconfigure(0, &descriptors) {
            return self.failed(error);
        }
        self.limit_request_time();
        self.deaths = self.deaths.saturating_sub(sockets.len());
        for socket in sockets {
            self.connections.replace(socket);
        }
        self.server = server;
        if self.is_complete() {
            self.end_outage();
        }
    }

    fn end_outage(&mut self) {
        let Some(outage) = self.outage.take() else {
            return;
        };
        let lasted = outage.lasted(self.now());
        self.outages += 1;
        self.last_outage = Some(lasted);
        let seconds = lasted.as_secs_f64();
        let line = format!("back at {} after {seconds:.1} seconds", self.server);
        self.log.warn(&line);
    }

    fn reconfigure(&mut self, timeout: u64, sockets: &[i32]) -> Result<(), String> {
        let asked = Reconfigure {
            index: self.attach.device.0,
            identifier: &self.identifier,
            timeout,
            sockets,
        };
        let done = self.kernel.reconfigure(&asked);
        done.map_err(|error| error.to_string())
    }

    /// Answers a question; breaks where that was the last one.
    fn answer(&mut self) -> ControlFlow<()> {
        let Some((question, caller)) = self.door.next() else {
            return ControlFlow::Continue(());
        };
        match question {
            Question::Status => caller.answer(&Answer::Status(self.status())),
            Question::Detach => match self.kernel.disconnect(self.attach.device) {
                Ok(()) => {
                    self.log.info("detached");
                    caller.answer(&Answer::Detached);
                    return ControlFlow::Break(());
                }
                Err(error) => caller.answer(&Answer::Failed(error.to_string())),
            },
        }
        ControlFlow::Continue(())
    }

    fn status(&self) -> Status {
        let now = self.now();
        let current = self.outage.as_ref();
        let lasted = current.map(|outage| outage.lasted(now));
        let outage = lasted.or(self.last_outage);
        Status {
            device: self.attach.device.to_string(),
            state: match current {
                None => Condition::Attached,
                Some(_) => Condition::Reconnecting,
            },
            pid: Some(std::process::id()),
            size: Some(self.export.size),
            kept: Some(Kept {
                export: self.identifier.clone(),
                server: self.server.to_string(),
                read_only: self.export.is_read_only(),
                connections: self.connections.count(),
                alive: self.connections.alive(),
                outages: self.outages,
                outage_ms: outage.and_then(|outage| u64::try_from(outage.as_millis()).ok()),
                trouble: current.and_then(Outage::trouble).map(ToOwned::to_owned),
            }),
        }
    }
}
