//! Any sequence of operations by several clients, with reconnects, kills and restarts in between,
//! against the simplest thing that can be right: a `Vec<u8>` for each client.
//!
//! What the model allows beyond the last written value:
//! - after a kill, a sector may have any value it had since it was last made durable;
//! - after TRIM, a trimmed part of a sector is what it was, or zeroes.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use support::nbd::{Client, Failure, Request, command, errno, flag};
use support::{Server, Setup, assert_same, pseudo_random};

const SECTOR: usize = 512;
const CLIENTS: usize = 3;
/// Connections a client keeps at a time.
const CONNECTIONS: usize = 2;

/// A part of the disk, whatever its size turns out to be.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    len: u32,
}

impl Span {
    /// The span fitted into a disk: never empty, never past the end.
    fn within(self, size: usize) -> (usize, usize) {
        let start = self.start as usize % size;
        (start, (self.len as usize).clamp(1, size - start))
    }
}

#[derive(Clone, Copy, Debug)]
enum Command {
    Read(Span),
    Write { span: Span, seed: u64, fua: bool },
    Zero { span: Span, flags: u16 },
    Trim { span: Span, fua: bool },
    Cache(Span),
    Flush,
    Disconnect,
    Reset,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// `client` does something on one of its connections.
    Client {
        client: usize,
        connection: usize,
        command: Command,
    },
    Kill,
    Restart,
}

fn spans() -> impl Strategy<Value = Span> {
    let aligned = (0_u32..64, 1_u32..8).prop_map(|(block, blocks)| Span {
        start: block * 4096,
        len: blocks * 4096,
    });
    let sectors = (0_u32..500, 1_u32..20).prop_map(|(sector, sectors)| Span {
        start: sector * 512,
        len: sectors * 512,
    });
    let medium = (any::<u32>(), 1_u32..30_000).prop_map(|(start, len)| Span { start, len });
    let tiny = (any::<u32>(), 1_u32..20).prop_map(|(start, len)| Span { start, len });
    prop_oneof![aligned, sectors, medium, tiny]
}

fn commands() -> impl Strategy<Value = Command> {
    let fua = || prop::bool::weighted(0.15);
    let zero_flags = prop::sample::select(vec![
        0,
        0,
        flag::FUA,
        flag::NO_HOLE,
        flag::FAST_ZERO,
        flag::NO_HOLE | flag::FUA,
    ]);
    prop_oneof![
        4 => spans().prop_map(Command::Read),
        8 => (spans(), any::<u64>(), fua())
            .prop_map(|(span, seed, fua)| Command::Write { span, seed, fua }),
        3 => (spans(), zero_flags).prop_map(|(span, flags)| Command::Zero { span, flags }),
        2 => (spans(), fua()).prop_map(|(span, fua)| Command::Trim { span, fua }),
        1 => spans().prop_map(Command::Cache),
        3 => Just(Command::Flush),
        1 => Just(Command::Disconnect),
        1 => Just(Command::Reset),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let command =
        (0..CLIENTS, 0..CONNECTIONS, commands()).prop_map(|(client, connection, command)| {
            Step::Client {
                client,
                connection,
                command,
            }
        });
    prop_oneof![30 => command, 1 => Just(Step::Kill), 1 => Just(Step::Restart)]
}

/// What one client's disk may be.
struct Model {
    /// What a read must return.
    now: Vec<u8>,
    /// For a sector changed since it was durable: every value it had from then on.
    unsettled: HashMap<usize, Vec<Vec<u8>>>,
}

impl Model {
    fn of(image: &[u8]) -> Self {
        Self {
            now: image.to_vec(),
            unsettled: HashMap::new(),
        }
    }

    fn sector(&self, number: usize) -> Vec<u8> {
        let start = number * SECTOR;
        self.now[start..self.now.len().min(start + SECTOR)].to_vec()
    }

    /// New bytes at `start`, not durable yet.
    fn change(&mut self, start: usize, bytes: &[u8]) {
        let end = start + bytes.len();
        let sectors = start / SECTOR..end.div_ceil(SECTOR);
        for number in sectors.clone() {
            let before = self.sector(number);
            self.unsettled.entry(number).or_insert_with(|| vec![before]);
        }
        self.now[start..end].copy_from_slice(bytes);
        for number in sectors {
            let after = self.sector(number);
            self.unsettled.entry(number).or_default().push(after);
        }
    }

    /// What is there now is durable, within the range.
    fn settle(&mut self, start: usize, len: usize) {
        for number in start / SECTOR..(start + len).div_ceil(SECTOR) {
            self.unsettled.remove(&number);
        }
    }

    /// After a trim, `seen` is what the range reads as: its old bytes or zeroes, by sector.
    fn trimmed(&mut self, start: usize, seen: &[u8]) {
        let mut at = start;
        for part in seen.chunk_by_sector(start) {
            let old = &self.now[at..at + part.len()];
            let zero = part.iter().all(|byte| *byte == 0);
            assert!(
                zero || part == old,
                "trimmed bytes at {at} are neither old nor zero"
            );
            at += part.len();
        }
        self.change(start, seen);
    }

    /// After a kill, `seen` is the disk: every sector has some value it may have.
    fn recovered(&mut self, seen: &[u8]) {
        for (number, allowed) in &self.unsettled {
            let start = number * SECTOR;
            let end = self.now.len().min(start + SECTOR);
            let value = &seen[start..end];
            assert!(
                allowed.iter().any(|one| one == value),
                "sector {number} has none of its {} values after a kill",
                allowed.len()
            );
            self.now[start..end].copy_from_slice(value);
        }
        assert_same(seen, &self.now, "flushed bytes after a kill");
    }
}

/// Cuts bytes that start at a position of the disk where its sectors end.
trait BySector {
    fn chunk_by_sector(&self, start: usize) -> Vec<&[u8]>;
}

impl BySector for [u8] {
    fn chunk_by_sector(&self, start: usize) -> Vec<&[u8]> {
        let first = (SECTOR - start % SECTOR).min(self.len());
        let (head, rest) = self.split_at(first);
        std::iter::once(head).chain(rest.chunks(SECTOR)).collect()
    }
}

/// The server, its clients and what they believe.
struct World {
    /// None only while it is being restarted.
    server: Option<Server>,
    connections: Vec<Vec<Option<Client>>>,
    models: Vec<Model>,
    size: usize,
}

impl World {
    fn new(size: usize) -> Self {
        let image = pseudo_random(size as u64, size);
        Self {
            server: Some(Setup::of_bytes(&image).with_arg("--shards=2").start()),
            connections: no_connections(),
            models: (0..CLIENTS).map(|_| Model::of(&image)).collect(),
            size,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Client {
                client,
                connection,
                command,
            } => self.act(client, connection, command),
            Step::Kill => self.kill(),
            Step::Restart => self.restart(),
        }
    }

    fn kill(&mut self) {
        let setup = self.server.take().expect("a server runs").kill();
        self.connections = no_connections();
        self.server = Some(setup.start());
        for client in 0..CLIENTS {
            let seen = self.read_all(client);
            self.models[client].recovered(&seen);
        }
    }

    fn restart(&mut self) {
        // Clients that stay connected would only make the stop wait.
        self.connections = no_connections();
        let setup = self.server.take().expect("a server runs").terminate();
        self.server = Some(setup.start());
        for client in 0..CLIENTS {
            let seen = self.read_all(client);
            let model = &mut self.models[client];
            assert_same(&seen, &model.now, "the disk after a clean stop");
            model.unsettled.clear();
        }
    }

    fn read_all(&mut self, client: usize) -> Vec<u8> {
        self.connection(client, 0).read_all().expect("a read")
    }

    fn connection(&mut self, client: usize, connection: usize) -> &mut Client {
        let server = self.server.as_ref().expect("a server runs");
        self.connections[client][connection]
            .get_or_insert_with(|| server.client(&format!("disk@client-{client}")))
    }

    fn act(&mut self, client: usize, connection: usize, command: Command) {
        let size = self.size;
        match command {
            Command::Disconnect => self.leave(client, connection, Client::disconnect),
            Command::Reset => self.leave(client, connection, |client| client.wire.reset()),
            Command::Flush => {
                let wire = self.connection(client, connection);
                wire.flush().expect("a flush");
                self.models[client].unsettled.clear();
            }
            Command::Read(span) => self.read(client, connection, span.within(size)),
            Command::Cache(span) => {
                let (start, len) = span.within(size);
                self.call(client, connection, &plain(command::CACHE, start, len))
                    .expect("a hint");
            }
            Command::Write { span, seed, fua } => {
                let (start, len) = span.within(size);
                let data = pseudo_random(seed, len);
                let request = Request::write(start as u64, &data);
                self.change(client, connection, &request.flagged(u16::from(fua)), &data);
            }
            Command::Zero { span, flags } => {
                let (start, len) = span.within(size);
                let request = plain(command::WRITE_ZEROES, start, len).flagged(flags);
                self.change(client, connection, &request, &vec![0; len]);
            }
            Command::Trim { span, fua } => {
                self.trim(client, connection, span.within(size), fua);
            }
        }
    }

    fn leave(&mut self, client: usize, connection: usize, how: impl FnOnce(Client)) {
        if let Some(left) = self.connections[client][connection].take() {
            how(left);
        }
    }

    fn call(
        &mut self,
        client: usize,
        connection: usize,
        request: &Request<'_>,
    ) -> Result<Vec<u8>, Failure> {
        self.connection(client, connection).call(request)
    }

    fn read(&mut self, client: usize, connection: usize, (start, len): (usize, usize)) {
        let seen = self.call(client, connection, &plain(command::READ, start, len));
        let expected = &self.models[client].now[start..start + len];
        assert_same(&seen.expect("a read"), expected, "a read");
    }

    /// A write, or zeroes: what the range holds afterwards is known.
    fn change(&mut self, client: usize, connection: usize, request: &Request<'_>, after: &[u8]) {
        match self.call(client, connection, request) {
            Ok(_) => {}
            // Not faster than writing: nothing was altered.
            Err(Failure::Errno(errno::ENOTSUP)) if request.flags & flag::FAST_ZERO != 0 => return,
            Err(failure) => panic!("{failure:?}"),
        }
        let start = usize::try_from(request.offset).expect("a small disk");
        let model = &mut self.models[client];
        model.change(start, after);
        if request.flags & flag::FUA != 0 {
            model.settle(start, after.len());
        }
    }

    fn trim(&mut self, client: usize, connection: usize, (start, len): (usize, usize), fua: bool) {
        let request = plain(command::TRIM, start, len).flagged(u16::from(fua));
        self.call(client, connection, &request).expect("a trim");
        let seen = self.call(client, connection, &plain(command::READ, start, len));
        let model = &mut self.models[client];
        model.trimmed(start, &seen.expect("a read"));
        if fua {
            model.settle(start, len);
        }
    }
}

fn no_connections() -> Vec<Vec<Option<Client>>> {
    (0..CLIENTS)
        .map(|_| (0..CONNECTIONS).map(|_| None).collect())
        .collect()
}

fn plain(command: u16, start: usize, len: usize) -> Request<'static> {
    let len = u32::try_from(len).expect("a small disk");
    Request::plain(command, start as u64, len)
}

fn config(cases: u32) -> ProptestConfig {
    let fallback = ProptestConfig::default();
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    ProptestConfig {
        // For a long run: PROPTEST_CASES=2000 cargo test --test model
        cases: if asked { fallback.cases } else { cases },
        max_shrink_iters: 300,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..fallback
    }
}

fn run(size: usize, steps: Vec<Step>) {
    let mut world = World::new(size);
    for step in steps {
        world.step(step);
    }
    // Whatever came before, a clean stop keeps every disk.
    world.restart();
}

/// Odd sizes: within a sector, within a block, past some blocks, and a round one.
fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        1 => 1_usize..600,
        2 => 4_000_usize..9_000,
        4 => 9_000_usize..300_000,
        1 => Just(262_144_usize),
    ]
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn every_client_reads_what_a_vec_of_bytes_would_hold(
        size in sizes(),
        steps in prop::collection::vec(steps(), 1..120),
    ) {
        run(size, steps);
    }
}

proptest! {
    #![proptest_config(config(8))]

    #[test]
    fn long_histories_with_few_kills_keep_every_disk(
        steps in prop::collection::vec(steps(), 400..600),
    ) {
        run(200_001, steps);
    }
}

#[test]
fn the_model_allows_any_unflushed_value_and_no_other() {
    let mut model = Model::of(&[1; 600]);
    model.change(510, &[2; 4]);
    model.change(510, &[3; 2]);
    let mut seen = vec![1; 600];
    seen[512..514].fill(2);
    model.recovered(&seen);
    assert_same(&model.now, &seen, "sector 0 lost, sector 1 kept");
    seen[511] = 9;
    let garbage = std::panic::catch_unwind(move || model.recovered(&seen));
    assert!(garbage.is_err(), "a value that nobody wrote was accepted");
}
