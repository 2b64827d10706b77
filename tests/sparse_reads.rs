//! Reads whose replies come in chunks: zeros are sent as holes, errors with a message.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;

use support::nbd::{Chunk, ChunkClient, Framing, Wide, assemble, command, errno, flag};
use support::{Seeded, Server, Setup, assert_same, pseudo_random, read_file};

const KIB: u64 = 1024;
const MIB: u64 = 1 << 20;
const BOTH: [Framing; 2] = [Framing::Structured, Framing::Extended];

/// A server of an image of 4 MiB with noise from 1 to 2 MiB, and holes around it.
fn serve() -> Server {
    let setup = Setup::new();
    let path = setup.file("disk.img");
    let file = File::create(&path).expect("a new file");
    file.set_len(4 * MIB).expect("a sparse file");
    file.write_all_at(&pseudo_random(5, 1 << 20), MIB)
        .expect("room for a little noise");
    setup.with_image(path).start()
}

fn open(server: &Server, framing: Framing) -> ChunkClient {
    // Who asks for a status knows afterwards that the holes of the image have been found.
    let contexts = ["base:allocation"];
    let mut client =
        ChunkClient::open(&server.address(), "disk@a", framing, &contexts).expect("the export");
    client.status(contexts[0], 0, MIB, 0).expect("a status");
    client
}

/// Kind, offset and length of each chunk.
fn shapes(chunks: &[Chunk]) -> Vec<(&'static str, u64, u64)> {
    let shape = |chunk: &Chunk| match chunk {
        Chunk::Data { offset, data } => ("data", *offset, data.len() as u64),
        Chunk::Hole { offset, len } => ("hole", *offset, *len),
        other => panic!("no content: {other:?}"),
    };
    chunks.iter().map(shape).collect()
}

#[test]
fn holes_of_the_image_are_not_sent() {
    let server = serve();
    for framing in BOTH {
        let mut client = open(&server, framing);
        let chunks = client.read_chunks(0, 4 * MIB, 0).expect("a read");
        assert_eq!(
            shapes(&chunks),
            [
                ("hole", 0, MIB),
                ("data", MIB, MIB),
                ("hole", 2 * MIB, 2 * MIB)
            ]
        );
        let seen = assemble(0, 4 * MIB, &chunks);
        assert_same(&seen, &read_file(server.setup().image()), "the image");
    }
}

#[test]
fn blocks_that_the_client_has_cleared_are_not_sent() {
    let server = serve();
    let mut client = open(&server, Framing::Structured);
    client
        .plain(command::WRITE_ZEROES, MIB + 64 * KIB, 128 * KIB)
        .expect("zeroing");
    client.write(3 * MIB, &[9; 512]).expect("a write");
    let chunks = client.read_chunks(MIB, 256 * KIB, 0).expect("a read");
    assert_eq!(
        shapes(&chunks),
        [
            ("data", MIB, 64 * KIB),
            ("hole", MIB + 64 * KIB, 128 * KIB),
            ("data", MIB + 192 * KIB, 64 * KIB),
        ]
    );
    let chunks = client.read_chunks(3 * MIB - 10, 20, 0).expect("a read");
    assert_eq!(
        shapes(&chunks),
        [("hole", 3 * MIB - 10, 10), ("data", 3 * MIB, 10)]
    );
}

#[test]
fn a_read_in_one_piece_has_one_chunk() {
    let server = serve();
    for framing in BOTH {
        let mut client = open(&server, framing);
        for (at, len) in [(0, 4 * MIB), (MIB - 5, 10), (0, 512), (MIB, 512)] {
            let chunks = client.read_chunks(at, len, flag::DF).expect("a read");
            assert_eq!(chunks.len(), 1, "{at}+{len}");
            let seen = assemble(at, len, &chunks);
            let image = read_file(server.setup().image());
            let range =
                usize::try_from(at).expect("small")..usize::try_from(at + len).expect("small");
            assert_same(&seen, &image[range], "the image");
        }
    }
}

#[test]
fn a_read_of_nothing_is_answered() {
    let server = serve();
    for framing in BOTH {
        let mut client = open(&server, framing);
        let chunks = client.read_chunks(512, 0, 0).expect("a read");
        assert_eq!(chunks, [Chunk::None]);
    }
}

#[test]
fn errors_come_with_a_message_and_the_first_byte_that_is_not_there() {
    let server = serve();
    for framing in BOTH {
        let mut client = open(&server, framing);
        let past_end = Wide {
            command: command::READ,
            offset: 4 * MIB - 1,
            len: 2,
            ..Wide::default()
        };
        let [Chunk::Error { errno, message, at }] = &client.call(&past_end).expect("a reply")[..]
        else {
            panic!("no error");
        };
        assert_eq!((*errno, *at), (errno::EINVAL, Some(4 * MIB)));
        assert!(message.contains("past the end"), "{message}");
        let odd = Wide {
            command: command::FLUSH,
            len: 7,
            ..Wide::default()
        };
        let [
            Chunk::Error {
                message, at: None, ..
            },
        ] = &client.call(&odd).expect("a reply")[..]
        else {
            panic!("no error");
        };
        assert!(message.contains("flush"), "{message}");
        let seen = client.read(MIB, 512).expect("the session lives on");
        assert_same(&seen, &pseudo_random(5, 1 << 20)[..512], "the image");
    }
}

#[test]
fn a_payload_where_none_belongs_is_dropped_and_the_session_lives_on() {
    let server = serve();
    let mut client = open(&server, Framing::Extended);
    for command in [command::READ, command::TRIM, command::FLUSH, 99] {
        let payload = [3; 5000];
        let request = Wide {
            command,
            flags: flag::PAYLOAD_LEN,
            offset: 0,
            len: payload.len() as u64,
            payload: &payload,
        };
        let chunks = client.call(&request).expect("a reply");
        assert!(matches!(
            chunks[..],
            [Chunk::Error {
                errno: errno::EINVAL,
                ..
            }]
        ));
    }
    assert_eq!(client.read(0, 4096).expect("a read"), [0; 4096]);
}

#[test]
fn a_payload_larger_than_the_maximum_closes_the_connection() {
    let server = serve();
    let mut client = open(&server, Framing::Extended);
    let request = Wide {
        command: command::WRITE,
        flags: flag::PAYLOAD_LEN,
        len: (32 << 20) + 1,
        ..Wide::default()
    };
    client.submit(&request).expect("the header leaves");
    client.wire.assert_closed();
}

#[test]
fn whatever_is_written_and_cleared_reads_the_same_in_chunks_and_without() {
    let server = serve();
    let mut model = read_file(server.setup().image());
    let mut structured = open(&server, Framing::Structured);
    let mut extended = open(&server, Framing::Extended);
    let mut simple = server.client("disk@a");
    let mut seeded = Seeded(77);
    for _ in 0..60 {
        let at = seeded.below(4 * MIB - 1);
        let len = 1 + seeded.below((4 * MIB - at).min(200 * KIB));
        let range = usize::try_from(at).expect("small")..usize::try_from(at + len).expect("small");
        if seeded.below(2) == 0 {
            model[range.clone()].copy_from_slice(&seeded.bytes(range.len()));
            structured.write(at, &model[range]).expect("a write");
        } else {
            model[range].fill(0);
            extended
                .plain(command::WRITE_ZEROES, at, len)
                .expect("zeroing");
        }
        let at = seeded.below(4 * MIB - 1);
        let len = 1 + seeded.below(4 * MIB - at);
        let expected =
            &model[usize::try_from(at).expect("small")..usize::try_from(at + len).expect("small")];
        assert_same(
            &structured.read(at, len).expect("a read"),
            expected,
            "structured",
        );
        assert_same(
            &extended.read(at, len).expect("a read"),
            expected,
            "extended",
        );
        let len = u32::try_from(len).expect("small");
        assert_same(&simple.read(at, len).expect("a read"), expected, "simple");
    }
}
