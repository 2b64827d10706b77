//! The pieces of work that `times` takes the time of.
//!
//! Each is what one request, or one flush, costs in pure code: no clock, no file, no socket.

use std::hint::black_box;

use cowherd::dhcp::wire::{Message, MessageType, code};
use cowherd::export::plan::plan;
use cowherd::mac::MacAddress;
use cowherd::nbd::ExportInfo;
use cowherd::nbd::agreed::{Agreed, Contexts, Headers};
use cowherd::nbd::session::Session;
use cowherd::nbd::wire::{CommandFlags, RequestHeader, RequestType, SimpleReply};
use cowherd::overlay::journal::{
    self, ChainEnd, Change, Cursor, JOURNAL_BYTES, epoch_frames, start_frame,
};
use cowherd::overlay::map::{BlockMap, BlockState};
use cowherd::tftp::wire::Packet;
use cowherd::units::{BLOCK_SIZE, BlockIndex, BlockRange, ByteRange};

/// Requests that come in one receive.
pub(crate) const REQUESTS: u64 = 64;
/// Blocks of the disk that maps are of: 16 GiB.
pub(crate) const BLOCKS: u64 = 1 << 22;
/// Changes of one flush.
pub(crate) const CHANGES: u64 = 1000;

const UUID: [u8; 16] = *b"0123456789abcdef";
const CHAIN: ChainEnd = ChainEnd {
    seq: 41,
    epoch: 7,
    checksum: 0xdead_beef,
};

/// Reads of 4 KiB, as they come from a socket.
pub(crate) fn requests() -> Vec<u8> {
    let header = |mark| RequestHeader {
        flags: CommandFlags::NONE,
        kind: RequestType::READ,
        mark,
        offset: scattered(mark) * BLOCK_SIZE,
        length: BLOCK_SIZE,
    };
    let headers = (0..REQUESTS).filter_map(|mark| header(mark).to_bytes());
    headers.flatten().collect()
}

/// A number of a block that is unlike the one before.
fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % BLOCKS
}

/// Takes all requests off a stream, and makes the head of the answer to each.
pub(crate) fn answer(requests: &[u8]) -> usize {
    let info = ExportInfo {
        size: BLOCKS * BLOCK_SIZE,
        read_only: false,
        multi_conn: true,
    };
    let agreed = Agreed {
        headers: Headers::Simple,
        contexts: Contexts::default(),
    };
    let mut session = Session::new(info, agreed);
    let (mut rest, mut answered) = (requests, 0);
    while let Ok((used, Some(event))) = session.handle_bytes(rest) {
        rest = rest.get(used..).unwrap_or_default();
        if let cowherd::nbd::session::Event::Command(cookie, command) = event {
            black_box(command);
            black_box(SimpleReply::new(cookie, Ok(())).to_bytes());
            answered += 1;
        }
    }
    answered
}

/// A DISCOVER of firmware.
pub(crate) fn discover() -> Vec<u8> {
    let mut message = Message::request(0x1234_5678, MacAddress([0x52, 0x54, 0, 0, 0, 1]));
    let kind = MessageType::Discover as u8;
    message.options.set(code::MESSAGE_TYPE, [kind]);
    let class = b"PXEClient:Arch:00007:UNDI:003016";
    message.options.set(code::VENDOR_CLASS, class);
    message.options.set(code::ARCHITECTURE, [0, 7]);
    message.write(1472).bytes
}

/// Reads a message of DHCP and writes it again.
pub(crate) fn read_and_write(datagram: &[u8]) -> usize {
    Message::read(datagram).map_or(0, |message| message.write(1472).bytes.len())
}

/// A request of TFTP with the options of a boot loader.
pub(crate) fn tftp_request() -> Vec<u8> {
    let words = [
        "grub/x86_64-efi/core.efi",
        "octet",
        "tsize",
        "0",
        "blksize",
        "1468",
    ];
    let words = words.into_iter().chain(["windowsize", "4"]);
    let words = words.flat_map(|word| word.bytes().chain([0]));
    [0, 1].into_iter().chain(words).collect()
}

/// Reads a packet of TFTP.
pub(crate) fn read_packet(datagram: &[u8]) -> bool {
    black_box(Packet::read(datagram)).is_ok()
}

/// A map of which every other block of a tenth of the disk is the client's own.
pub(crate) fn fragmented() -> BlockMap {
    let mut map = BlockMap::new(BLOCKS);
    for block in (0..BLOCKS / 10).step_by(2) {
        set(&mut map, block, BlockState::Present);
    }
    map
}

fn set(map: &mut BlockMap, block: u64, state: BlockState) {
    let blocks = BlockRange::between(BlockIndex(block), BlockIndex(block + 1));
    map.set(blocks, state, |changed, state| {
        black_box((changed, state));
    });
}

/// Where the bytes of many small reads, or of one long one, come from.
pub(crate) fn plan_reads(map: Option<&BlockMap>, count: u64, length: u64) -> u64 {
    let mut image = 0;
    for number in 0..count {
        let start = scattered(number) * BLOCK_SIZE % (BLOCKS / 10 * BLOCK_SIZE);
        for run in plan(map, ByteRange::between(start, start + length)) {
            image += black_box(run).range.len();
        }
    }
    image
}

/// Marks scattered blocks as the client's own.
pub(crate) fn mark(mut map: BlockMap) -> BlockMap {
    for number in 0..CHANGES {
        set(&mut map, scattered(number), BlockState::Present);
    }
    map
}

/// The changes of a flush.
pub(crate) fn changes() -> Vec<Change> {
    let change = |number| Change {
        blocks: BlockRange::between(BlockIndex(number * 10), BlockIndex(number * 10 + 3)),
        state: BlockState::Present,
    };
    (0..CHANGES).map(change).collect()
}

/// The bytes that a flush appends to the journal.
pub(crate) fn write_epoch(changes: &[Change]) -> Vec<u8> {
    let cursor = Cursor {
        generation: 3,
        offset: journal::SECTOR,
        chain: CHAIN,
    };
    epoch_frames(&UUID, cursor, changes).bytes
}

/// A journal with the changes of one flush.
pub(crate) fn journal_file() -> Vec<u8> {
    let mut bytes = vec![0; JOURNAL_BYTES];
    let start = start_frame(&UUID, 3, CHAIN);
    let epoch = epoch_frames(&UUID, start.after, &changes());
    for frames in [start, epoch] {
        let place = frames.offset..frames.offset + frames.bytes.len();
        if let Some(place) = bytes.get_mut(place) {
            place.copy_from_slice(&frames.bytes);
        }
    }
    bytes
}

/// Reads a journal, as it is done when an overlay is opened.
pub(crate) fn replay(journal: &[u8]) -> usize {
    let replay = journal::replay(&UUID, 3, CHAIN, journal);
    replay
        .ok()
        .flatten()
        .map_or(0, |replay| replay.changes.len())
}
