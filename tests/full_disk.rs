//! The file system of the overlays is full: the client is told, nothing is lost, and all is well
//! again once there is space.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::io::Write;

use support::nbd::{Client, Failure, Request, assert_errno, command, errno, flag};
use support::{Mount, Server, Setup, assert_same, is_root, make_file_system, require, skipped};

const DISK: usize = 64 << 20;
const PIECE: usize = 256 << 10;

/// A server whose overlays have about 20 MiB, and a filler that takes a half of that.
fn cramped() -> Option<(Server, Mount)> {
    let (server, mount) = with_overlays_on(DISK as u64, 32)?;
    std::fs::write(mount.at.join("filler"), vec![1; 10 << 20]).expect("room for the filler");
    Some((server, mount))
}

/// A server of a disk of zeros whose overlays are on a file system of so many MiB.
fn with_overlays_on(disk: u64, mebibytes: u64) -> Option<(Server, Mount)> {
    if !require(&["mkfs.ext4", "mount"]) {
        return None;
    }
    if !is_root() {
        skipped("root, for mounts");
        return None;
    }
    let setup = Setup::of_bytes(&[0; 4096]);
    let image = std::fs::OpenOptions::new().write(true).open(setup.image());
    image
        .and_then(|image| image.set_len(disk))
        .expect("a sparse image");
    let file = setup.file("small.img");
    make_file_system(&["mkfs.ext4", "-q", "-F"], &file, mebibytes);
    let mount = Mount::new(&file, &setup.file("small"))?;
    let state = mount.at.join("state");
    Some((setup.with_state(&state).start(), mount))
}

fn piece(number: usize) -> Vec<u8> {
    vec![u8::try_from(number % 251).expect("below 251") + 1; PIECE]
}

/// Writes piece after piece until one is refused; how many there was room for.
fn fill(client: &mut Client) -> usize {
    for number in 0..DISK / PIECE {
        match client.write((number * PIECE) as u64, &piece(number)) {
            Ok(()) => {}
            Err(Failure::Errno(code)) if code == errno::ENOSPC => return number,
            Err(other) => panic!("piece {number}: {other:?}"),
        }
    }
    panic!("a disk of 64 MiB fitted into 20");
}

fn assert_pieces(client: &mut Client, count: usize) {
    for number in 0..count {
        let seen = client.read(
            (number * PIECE) as u64,
            u32::try_from(PIECE).expect("small"),
        );
        assert_same(
            &seen.expect("a read"),
            &piece(number),
            &format!("piece {number}"),
        );
    }
}

#[test]
fn a_full_file_system_is_told_and_loses_nothing() {
    let Some((server, mount)) = cramped() else {
        return;
    };
    let mut client = server.client("disk@a");
    let count = fill(&mut client);
    assert!(count > 0, "there was room for something");
    assert_pieces(&mut client, count);
    client.flush().expect("a flush needs no more room");
    let server = server.kill().start();
    assert_pieces(&mut server.client("disk@a"), count);
    drop(server);
    drop(mount);
}

#[test]
fn writes_succeed_again_once_there_is_space() {
    let Some((server, mount)) = cramped() else {
        return;
    };
    let mut client = server.client("disk@a");
    let count = fill(&mut client);
    let next = (count * PIECE) as u64;
    assert_errno(client.write(next, &piece(count)), errno::ENOSPC);
    std::fs::remove_file(mount.at.join("filler")).expect("a filler");
    client.write(next, &piece(count)).expect("room again");
    client.flush().expect("a flush");
    let server = server.kill().start();
    assert_pieces(&mut server.client("disk@a"), count + 1);
    drop(server);
    drop(mount);
}

/// Writes to all blocks of 4 KiB of the first `blocks`, 64 under way.
fn write_blocks(client: &mut Client, blocks: u64) {
    let payload = |block: u64| vec![u8::try_from(block % 251).expect("below 251") + 1; 4096];
    for block in 0..blocks + 64 {
        if block < blocks {
            let payload = payload(block);
            client
                .submit(&Request::write(block * 4096, &payload))
                .expect("a request");
        }
        if block >= 64 {
            let (_, result) = client.answer().expect("an answer");
            result.expect("a write to space that was reserved");
        }
    }
}

/// Takes all space, also what the file system finds it has once it has written that down.
fn fill_up(mount: &Mount) {
    for filler in 0..4 {
        let mut file = std::fs::File::create(mount.at.join(format!("filler-{filler}")));
        while let Ok(filler) = &mut file
            && filler.write_all(&[1; 4096]).is_ok()
        {}
        rustix::fs::sync();
    }
}

#[test]
fn reserved_space_can_be_written_on_a_full_disk_however_long_nobody_flushes() {
    // Each write is noted, and notes have space of their own for 65,532.
    const BLOCKS: u64 = 70_000;
    let Some((server, mount)) = with_overlays_on(BLOCKS * 4096, 400) else {
        return;
    };
    let mut client = server.client("disk@a");
    let length = u32::try_from(BLOCKS * 4096).expect("32 bits");
    let zeroes = Request::plain(command::WRITE_ZEROES, 0, length);
    client
        .call(&zeroes.flagged(flag::NO_HOLE))
        .expect("room for all of it");
    client.flush().expect("a flush");
    fill_up(&mount);
    write_blocks(&mut client, BLOCKS);
    let server = server.kill().start();
    let seen = server.client("disk@a").read((BLOCKS - 1) * 4096, 4096);
    let last = u8::try_from((BLOCKS - 1) % 251).expect("below 251") + 1;
    assert_same(&seen.expect("a read"), &[last; 4096], "the last block");
    drop(server);
    drop(mount);
}
