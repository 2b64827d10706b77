//! A disk that does not answer: the file system of the overlays is frozen, so that writes to it
//! wait until it is thawed, or that of an image is FUSE, whose process was stopped. One shard
//! serves all clients, and none but the one that waits may notice.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use cowherd::limits::SESSION_REQUESTS_MAX;
use support::nbd::{Client, Request, command, flag};
use support::{
    Frozen, Mount, Server, Setup, StallingDisk, eventually, is_root, make_file_system, require,
    skipped, write_file,
};

const BLOCK: usize = 4096;

/// A server of one shard whose overlays are on a disk of their own.
struct Bench {
    // Dropped in this order: a server can't end while its disk is frozen.
    server: Server,
    disk: Mount,
}

impl Bench {
    fn new() -> Option<Self> {
        if !require(&["mkfs.ext4", "mount", "fsfreeze"]) {
            return None;
        }
        if !is_root() {
            skipped("root, for mounts");
            return None;
        }
        let setup = Setup::of_bytes(&[7; 64 * BLOCK]);
        let file = setup.file("disk.ext4");
        make_file_system(&["mkfs.ext4", "-q", "-F"], &file, 64);
        let disk = Mount::new(&file, &setup.file("disk"))?;
        let setup = setup.with_state(&disk.at.join("state"));
        let server = setup.with_arg("--shards").with_arg("1").start();
        Some(Self { server, disk })
    }

    fn freeze(&self) -> Frozen {
        Frozen::freeze(&self.disk.at)
    }
}

/// Receives the good answer to a request.
fn done(client: &mut Client, cookie: u64) {
    let (answered, result) = client.answer().expect("an answer once the disk answers");
    assert_eq!(answered, cookie);
    result.expect("a good one");
}

/// While the disk is frozen, `stuck` waits for its answer and a neighbour is served.
fn a_neighbour_is_served_beside(stuck: &Request<'_>) {
    let Some(bench) = Bench::new() else {
        return;
    };
    let mut client = bench.server.client("disk@stuck");
    let mut neighbour = bench.server.client("disk@neighbour");
    client.write(0, b"first").expect("a write");
    let frozen = bench.freeze();
    let cookie = client.submit(stuck).expect("room in the socket");
    for block in 0..64 {
        let read = neighbour.read(block * BLOCK as u64, 4096).expect("a read");
        assert_eq!(read, [7; BLOCK]);
    }
    drop(frozen);
    done(&mut client, cookie);
    client.flush().expect("a flush");
}

#[test]
fn a_neighbour_is_served_while_a_write_waits_for_the_disk() {
    a_neighbour_is_served_beside(&Request::write(3, &[1; 10_000]));
}

#[test]
fn a_neighbour_is_served_while_a_flush_waits_for_the_disk() {
    a_neighbour_is_served_beside(&Request::plain(command::FLUSH, 0, 0));
}

#[test]
fn a_neighbour_is_served_while_space_is_being_reserved() {
    let zeroes = Request::plain(command::WRITE_ZEROES, 0, 64 * 4096);
    a_neighbour_is_served_beside(&zeroes.flagged(flag::NO_HOLE));
}

/// A server of one shard, and beside its image, `disk`, another one that can be made to stall.
fn with_stalling_image() -> Option<(Server, StallingDisk)> {
    // One byte a block, so that no block is taken for a hole.
    let setup = Setup::of_bytes(&[7; 1024 * BLOCK])
        .with_arg("--shards")
        .with_arg("1");
    let other = setup.file("slow.img");
    write_file(&other, b"");
    let disk = StallingDisk::over(&other)?;
    Some((setup.with_image(&other).start(), disk))
}

#[test]
fn a_neighbour_is_served_while_reads_of_another_image_wait_for_a_process() {
    let Some((server, disk)) = with_stalling_image() else {
        return;
    };
    let mut client = server.client("slow@stuck");
    let mut neighbour = server.client("disk@neighbour");
    let stalled = disk.stall();
    // Far from what was looked at when the image was opened, and more than have a thread.
    let reads = (0..SESSION_REQUESTS_MAX as u64).map(|piece| (40 << 20) + piece * 16 * 4096);
    let mut cookies: Vec<_> = reads
        .map(|start| {
            client
                .submit(&Request::read(start, 4096))
                .expect("room in the socket")
        })
        .collect();
    for block in 0..64 {
        let read = neighbour.read(block * BLOCK as u64, 4096).expect("a read");
        assert_eq!(read, [7; BLOCK]);
    }
    neighbour.write(1, b"a part of a block").expect("a write");
    neighbour.flush().expect("a flush");
    // So long a read is always given to a thread.
    let whole = neighbour.read(0, 1024 * 4096).expect("a read");
    assert_eq!(whole[1..18], *b"a part of a block");
    drop(stalled);
    let mut answered: Vec<_> = cookies.iter().map(|_| client.answer().unwrap().0).collect();
    answered.sort_unstable();
    cookies.sort_unstable();
    assert_eq!(answered, cookies);
    drop(server);
    drop(disk);
}

/// Whether a thread of this process is in the midst of a question to a process of FUSE.
fn waits_for_a_process(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let place = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("wchan"));
    let places = tasks.flatten().filter_map(|task| place(task).ok());
    places
        .into_iter()
        .any(|place| place == "request_wait_answer")
}

#[test]
fn a_change_of_an_image_is_seen_while_another_one_waits_for_a_process() {
    let Some((server, disk)) = with_stalling_image() else {
        return;
    };
    let stalled = disk.stall();
    eventually(|| {
        waits_for_a_process(server.pid())
            .then_some(())
            .ok_or("nobody looks")
    });
    let disk_image = std::fs::File::options()
        .write(true)
        .open(server.setup().image());
    disk_image
        .and_then(|file| file.set_len(4096))
        .expect("a shorter file");
    server.wait_for_log(&["image disk", "changed while it was served"]);
    drop(stalled);
    drop(server);
    drop(disk);
}

/// So many writes that wait for the disk, and a read of what is in memory behind them.
fn writes_and_a_read(client: &mut Client, writes: usize) -> u64 {
    for block in 0..writes as u64 {
        let write = Request::write(block % 64 * BLOCK as u64, b"stuck");
        client.submit(&write).expect("room in the socket");
    }
    let read = client.submit(&Request::read(63 * BLOCK as u64, 1));
    read.expect("room in the socket")
}

#[test]
fn so_many_requests_of_a_session_are_under_way_and_no_more() {
    let Some(bench) = Bench::new() else {
        return;
    };
    let mut full = bench.server.client("disk@full");
    let mut nearly = bench.server.client("disk@nearly");
    for client in [&mut full, &mut nearly] {
        client.write(0, b"first").expect("a write");
    }
    let frozen = bench.freeze();
    let late = writes_and_a_read(&mut full, SESSION_REQUESTS_MAX);
    // One write less, and the read behind them is taken and answered while the disk is stuck.
    let early = writes_and_a_read(&mut nearly, SESSION_REQUESTS_MAX - 1);
    done(&mut nearly, early);
    drop(frozen);
    let first = full.answer().expect("an answer once the disk answers").0;
    assert_ne!(first, late, "a request too many was under way");
}

/// A trim takes a note on the disk before it is answered (rule R13), and is kept without a flush;
/// what asks nothing of the disk is answered meanwhile.
#[test]
fn a_trim_beside_a_flush_that_is_stuck_is_answered_once_it_is_noted() {
    let Some(bench) = Bench::new() else {
        return;
    };
    let mut client = bench.server.client("disk@a");
    client.write(0, &[1; BLOCK]).expect("a write");
    let frozen = bench.freeze();
    let [flush, trim, read] = [
        Request::plain(command::FLUSH, 0, 0),
        Request::plain(command::TRIM, 2 * BLOCK as u64, 4096),
        Request::read(2 * BLOCK as u64, 1),
    ]
    .map(|request| client.submit(&request).expect("room in the socket"));
    let first = client.answer().expect("an answer");
    assert_eq!(first.0, read, "only the read takes no disk");
    drop(frozen);
    let mut later = [
        client.answer().expect("an answer"),
        client.answer().expect("an answer"),
    ];
    later.sort_by_key(|answer| answer.0);
    assert_eq!(later.map(|answer| answer.0), [flush, trim]);
    let Bench { server, disk } = bench;
    let server = server.kill().start();
    let mut client = server.client("disk@a");
    assert_eq!(client.read(0, 4096).expect("a read"), [1; BLOCK]);
    let trimmed = client.read(2 * BLOCK as u64, 4096).expect("a read");
    assert_eq!(trimmed, [0; BLOCK]);
    drop(server);
    drop(disk);
}

/// The old connection's write has its turn before those of its successor, whenever the disk
/// answers.
#[test]
fn a_write_that_was_stuck_never_lands_after_those_of_a_successor() {
    let Some(bench) = Bench::new() else {
        return;
    };
    let mut old = bench.server.client("disk@a");
    old.write(0, b"first").expect("a write");
    let frozen = bench.freeze();
    old.submit(&Request::write(7, &[1; 100]))
        .expect("room in the socket");
    bench.server.wait_for_log(&["uses", "disk+1@a"]);
    let mut successor = bench.server.client("disk@a");
    assert_eq!(successor.read(8192, 4).expect("a read"), [7; 4]);
    bench.server.wait_for_log(&["older connection", "stuck"]);
    let cookie = successor
        .submit(&Request::write(7, &[2; 100]))
        .expect("room in the socket");
    drop(frozen);
    done(&mut successor, cookie);
    assert_eq!(successor.read(7, 100).expect("a read"), [2; 100]);
    drop(old);
    successor.flush().expect("a flush");
    let Bench { server, disk } = bench;
    let server = server.terminate().start();
    let kept = server.client("disk@a").read(7, 100).expect("a read");
    assert_eq!(kept, [2; 100]);
    drop(server);
    drop(disk);
}

#[test]
fn nothing_is_taken_over_as_long_as_the_disk_does_not_answer() {
    let Some(bench) = Bench::new() else {
        return;
    };
    let mut client = bench.server.client("disk@stuck");
    let mut neighbour = bench.server.client("disk@neighbour");
    client.write(0, b"first").expect("a write");
    let frozen = bench.freeze();
    let write = Request::write(3, b"stuck");
    let cookie = client.submit(&write).expect("room in the socket");
    let mut next = bench.server.successor(|_| {});
    let refusal = ["take-over failed", "does not answer", "disk+1@stuck"];
    bench.server.wait_for_log(&refusal);
    assert_ne!(next.ended().code(), Some(0));
    let read = neighbour.read(0, 4096).expect("a read");
    assert_eq!(read, [7; BLOCK]);
    drop(frozen);
    done(&mut client, cookie);
    let Bench { server, disk } = bench;
    let server = server.taken_over();
    assert_eq!(client.read(0, 8).expect("a read"), b"firstuck");
    server.terminate();
    drop(disk);
}
