//! What BLOCK_STATUS tells of a disk: never a false hole, never a byte too much, and which blocks
//! are the client's own.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;

use support::nbd::{
    Chunk, ChunkClient, Failure, Framing, Handshake, Refused, Wide, command, errno, flag, option,
    reply,
};
use support::{Seeded, Server, Setup, pseudo_random};

const ALLOCATION: &str = "base:allocation";
const OVERLAY: &str = "x-cowherd:overlay";
const BOTH: [&str; 2] = [ALLOCATION, OVERLAY];
const MIB: u64 = 1 << 20;
const BLOCK: u64 = 4096;

const DATA: u64 = 0;
const HOLE_ZERO: u64 = 3;

/// A server of a sparse image of `size` bytes, with noise in some places.
fn serve_sparse(size: u64, noise: &[(u64, usize)]) -> Server {
    let setup = Setup::new();
    let path = setup.file("disk.img");
    let file = File::create(&path).expect("a new file");
    file.set_len(size).expect("a sparse file");
    for (seed, (at, len)) in (1..).zip(noise) {
        file.write_all_at(&pseudo_random(seed, *len), *at)
            .expect("room for a little noise");
    }
    setup.with_image(path).start()
}

fn open(server: &Server, framing: Framing) -> ChunkClient {
    open_with(server, framing, &BOTH)
}

fn open_with(server: &Server, framing: Framing, contexts: &[&str]) -> ChunkClient {
    ChunkClient::open(&server.address(), "disk@a", framing, contexts).expect("the export")
}

/// All that a context says of the whole disk, neighbours put together.
fn whole_map(client: &mut ChunkClient, context: &str, step: u64) -> Vec<(u64, u64)> {
    let size = client.facts.size;
    let mut map: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    while at < size {
        let len = step.min(size - at);
        let extents = client.status(context, at, len, 0).expect("a status");
        let told: u64 = extents.iter().map(|(len, _)| len).sum();
        assert!(told <= len, "more than was asked for at {at}");
        for (len, flags) in extents {
            at += len;
            match map.last_mut() {
                Some(last) if last.1 == flags => last.0 += len,
                _ => map.push((len, flags)),
            }
        }
    }
    map
}

#[test]
fn holes_of_the_image_are_told_and_its_data_are_not_called_holes() {
    let server = serve_sparse(16 * MIB, &[(4 * MIB, 1 << 20), (9 * MIB, 1 << 20)]);
    for framing in [Framing::Structured, Framing::Extended] {
        let mut client = open(&server, framing);
        let expected = [
            (4 * MIB, HOLE_ZERO),
            (MIB, DATA),
            (4 * MIB, HOLE_ZERO),
            (MIB, DATA),
            (6 * MIB, HOLE_ZERO),
        ];
        assert_eq!(whole_map(&mut client, ALLOCATION, 16 * MIB), expected);
        assert_eq!(whole_map(&mut client, ALLOCATION, MIB + 512), expected);
        assert_eq!(whole_map(&mut client, OVERLAY, 16 * MIB), [(16 * MIB, 0)]);
    }
}

#[test]
fn what_a_client_writes_clears_and_trims_is_its_own() {
    let server = serve_sparse(MIB, &[(0, 1 << 19)]);
    let mut client = open(&server, Framing::Structured);
    client.write(600 * 1024, &[7; 8192]).expect("a write");
    client
        .plain(command::WRITE_ZEROES, 0, 2 * BLOCK)
        .expect("zeroing");
    client
        .plain(command::TRIM, 4 * BLOCK, 2 * BLOCK)
        .expect("a trim");
    assert_eq!(
        whole_map(&mut client, ALLOCATION, MIB),
        [
            (2 * BLOCK, HOLE_ZERO),
            (2 * BLOCK, DATA),
            (2 * BLOCK, HOLE_ZERO),
            (512 * 1024 - 6 * BLOCK, DATA),
            (88 * 1024, HOLE_ZERO),
            (2 * BLOCK, DATA),
            (416 * 1024, HOLE_ZERO),
        ]
    );
    assert_eq!(
        whole_map(&mut client, OVERLAY, MIB),
        [
            (2 * BLOCK, 1),
            (2 * BLOCK, 0),
            (2 * BLOCK, 1),
            (600 * 1024 - 6 * BLOCK, 0),
            (2 * BLOCK, 1),
            (416 * 1024, 0),
        ]
    );
    let mut other = ChunkClient::open(&server.address(), "disk@b", Framing::Structured, &BOTH)
        .expect("the export");
    assert_eq!(whole_map(&mut other, OVERLAY, MIB), [(MIB, 0)]);
}

/// What the test believes of one block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Belief {
    Untouched,
    Written,
    Cleared,
}

#[test]
fn after_any_history_zero_means_zero_and_own_means_changed() {
    let noise: Vec<_> = (0..16).map(|n| (n * 128 * 1024, 40_000)).collect();
    let server = serve_sparse(2 * MIB, &noise);
    let mut client = open(&server, Framing::Extended);
    let blocks = 2 * MIB / BLOCK;
    let mut beliefs = vec![Belief::Untouched; usize::try_from(blocks).expect("few blocks")];
    let mut seeded = Seeded(41);
    for _ in 0..50 {
        let first = seeded.below(blocks);
        let count = (1 + seeded.below(24)).min(blocks - first);
        let (at, len) = (first * BLOCK, count * BLOCK);
        let belief = match seeded.below(3) {
            0 => {
                let data = seeded.bytes(usize::try_from(len).expect("a few blocks"));
                client.write(at, &data).expect("a write");
                Belief::Written
            }
            1 => {
                client
                    .plain(command::WRITE_ZEROES, at, len)
                    .expect("zeroing");
                Belief::Cleared
            }
            _ => {
                client.plain(command::TRIM, at, len).expect("a trim");
                Belief::Cleared
            }
        };
        let range =
            usize::try_from(first).expect("few")..usize::try_from(first + count).expect("few");
        beliefs[range].fill(belief);
        check_maps(&mut client, &beliefs);
    }
}

fn check_maps(client: &mut ChunkClient, beliefs: &[Belief]) {
    let content = client.read(0, 2 * MIB).expect("a read");
    let content: Vec<_> = content.chunks(4096).collect();
    for (block, flags) in by_block(&whole_map(client, ALLOCATION, 2 * MIB)) {
        let is_zero = content[block].iter().all(|byte| *byte == 0);
        assert!(
            flags != HOLE_ZERO || is_zero,
            "block {block} is a false hole"
        );
        assert!(flags == HOLE_ZERO || beliefs[block] != Belief::Cleared);
        assert!(flags == DATA || beliefs[block] != Belief::Written);
    }
    for (block, flags) in by_block(&whole_map(client, OVERLAY, 2 * MIB)) {
        assert_eq!(
            flags == 1,
            beliefs[block] != Belief::Untouched,
            "block {block}"
        );
    }
}

fn by_block(map: &[(u64, u64)]) -> Vec<(usize, u64)> {
    let flags = map.iter().flat_map(|(len, flags)| {
        assert_eq!(len % BLOCK, 0, "an extent ends inside a block");
        let blocks = usize::try_from(len / BLOCK).expect("few blocks");
        std::iter::repeat_n(*flags, blocks)
    });
    flags.enumerate().collect()
}

#[test]
fn extents_past_4_gib_are_told_whole_with_extended_headers_and_never_lied_about_without() {
    let size = 10 << 30;
    let server = serve_sparse(size, &[(9 << 30, 1 << 20)]);
    let expected = [
        (9 << 30, HOLE_ZERO),
        (MIB, DATA),
        ((1 << 30) - MIB, HOLE_ZERO),
    ];
    let mut wide = open(&server, Framing::Extended);
    let at_once = wide.status(ALLOCATION, 0, size, 0).expect("a status");
    assert_eq!(at_once, expected);
    let mut compact = open(&server, Framing::Structured);
    let step = u64::from(u32::MAX);
    assert_eq!(whole_map(&mut compact, ALLOCATION, step), expected);
}

#[test]
fn a_zeroing_past_4_gib_is_one_request_with_extended_headers() {
    let size = 10 << 30;
    let server = serve_sparse(size, &[(9 << 30, 1 << 20)]);
    let mut client = open(&server, Framing::Extended);
    client
        .plain(command::WRITE_ZEROES, 0, size)
        .expect("zeroing");
    assert_eq!(whole_map(&mut client, OVERLAY, size), [(size, 1)]);
    assert_eq!(client.read(9 << 30, 65_536).expect("a read"), [0; 65_536]);
}

#[test]
fn one_extent_is_told_where_one_was_asked_for_and_not_past_the_request() {
    let server = serve_sparse(16 * MIB, &[(4 * MIB, 1 << 20)]);
    let mut client = open(&server, Framing::Structured);
    let one = |client: &mut ChunkClient, at, len| {
        client
            .status(ALLOCATION, at, len, flag::REQ_ONE)
            .expect("a status")
    };
    assert_eq!(one(&mut client, 0, 16 * MIB), [(4 * MIB, HOLE_ZERO)]);
    assert_eq!(one(&mut client, 512, 1024), [(1024, HOLE_ZERO)]);
    assert_eq!(one(&mut client, 4 * MIB + 1, 16), [(16, DATA)]);
}

#[test]
fn a_request_may_choose_its_contexts() {
    let server = serve_sparse(MIB, &[(0, 4096)]);
    let mut client = open(&server, Framing::Extended);
    assert!(client.facts.flags & flag::BLOCK_STATUS_PAYLOAD != 0);
    let id = client.contexts.iter().find(|(_, name)| name == OVERLAY);
    let (id, _) = id.expect("the context").clone();
    let mut choose = |ids: &[u32]| {
        let mut payload = MIB.to_be_bytes().to_vec();
        payload.extend(ids.iter().flat_map(|id| id.to_be_bytes()));
        let request = Wide {
            command: command::BLOCK_STATUS,
            flags: flag::PAYLOAD_LEN,
            offset: 0,
            len: payload.len() as u64,
            payload: &payload,
        };
        client.call(&request).expect("a reply")
    };
    let extents = vec![(MIB, 0)];
    assert_eq!(choose(&[id]), [Chunk::Status { id, extents }]);
    for bad in [&[id, id][..], &[77], &[]] {
        let chunks = choose(bad);
        assert!(
            matches!(
                chunks[..],
                [Chunk::Error {
                    errno: errno::EINVAL,
                    ..
                }]
            ),
            "{bad:?}"
        );
    }
    assert_eq!(choose(&[id]).len(), 1, "the session lives on");
}

#[test]
fn without_a_context_for_this_export_there_is_no_status() {
    let server = serve_sparse(MIB, &[]);
    let mut none = open_with(&server, Framing::Structured, &[]);
    let refused = none.plain(command::BLOCK_STATUS, 0, 4096);
    assert!(matches!(refused, Err(Failure::Errno(errno::EINVAL))));
    let mut handshake = Handshake::start(&server.address()).expect("a connection");
    handshake
        .agree_on(Framing::Structured)
        .expect("structured replies");
    let of_none = handshake.contexts(option::SET_META_CONTEXT, "none@a", &BOTH);
    assert!(matches!(
        of_none,
        Err(Refused::Reply {
            kind: reply::ERR_UNKNOWN,
            ..
        })
    ));
}

#[test]
fn of_an_image_that_changed_nothing_is_told() {
    let server = serve_sparse(MIB, &[(0, 4096)]);
    let mut client = open(&server, Framing::Structured);
    assert!(client.status(ALLOCATION, 0, MIB, 0).is_ok());
    let image = File::options()
        .write(true)
        .open(server.setup().image())
        .expect("the image");
    image.write_all_at(&[1; 4096], 512 * 1024).expect("a write");
    drop(image);
    server.wait_for_log(&["image disk"]);
    let refused = client.status(ALLOCATION, 0, MIB, 0);
    assert!(
        matches!(refused, Err(Failure::Errno(errno::EIO))),
        "{refused:?}"
    );
}
