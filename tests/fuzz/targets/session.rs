//! A whole session on a disk of plain memory, against two oracles: rules written once more from the
//! protocol text, and a `Vec<u8>` that is the disk.
//!
//! Under test are the parser and its rules, the map of blocks, and the plan of a read.

use cowherd::export::plan::{Source, plan};
use cowherd::nbd::ExportInfo;
use cowherd::nbd::agreed::Agreed;
use cowherd::nbd::session::{Command, Event, Session};
use cowherd::overlay::map::{BlockMap, BlockState};
use cowherd::units::{BLOCK_BYTES, BlockIndex, BlockRange, ByteRange};

use super::Input;

const BLOCKS: usize = 12;
/// Ends inside of a block.
const SIZE: usize = BLOCKS * BLOCK_BYTES - 1000;

/// What is to come of a request, by the protocol text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accept,
    Reject(u32),
    Disconnect,
    Violation,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    magic: u32,
    flags: u16,
    kind: u16,
    offset: u64,
    len: u32,
}

impl Request {
    /// Of few bytes, so that most requests make sense.
    fn read(input: &mut Input<'_>) -> Self {
        let [choice, kind] = input.array();
        let [a, b] = input.array::<2>();
        let near = u64::from(u16::from_be_bytes([a, b])) % (SIZE as u64 + 64);
        let [c, d] = input.array::<2>();
        let short = u32::from(u16::from_be_bytes([c, d])) % 20_000;
        let (offset, len) = match choice & 0x1f {
            0 => (input.number(), short),
            1 => (near, u32::from_be_bytes(input.array())),
            2 | 3 => (0, 0),
            4..=9 => (near / 4096 * 4096, short.div_ceil(4096) * 4096),
            _ => (near, short),
        };
        Self {
            magic: if choice == 0xff {
                0x2560_9514
            } else {
                0x2560_9513
            },
            flags: if choice & 0x80 == 0 {
                0
            } else {
                1 << (kind >> 4)
            },
            kind: u16::from(kind % 16),
            offset,
            len,
        }
    }

    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.magic.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.flags.to_be_bytes());
        bytes.extend_from_slice(&self.kind.to_be_bytes());
        bytes.extend_from_slice(&[7; 8]);
        bytes.extend_from_slice(&self.offset.to_be_bytes());
        bytes.extend_from_slice(&self.len.to_be_bytes());
        bytes
    }

    fn verdict(self, read_only: bool) -> Verdict {
        const EPERM: u32 = 1;
        const EINVAL: u32 = 22;
        const ENOSPC: u32 = 28;
        const LARGEST: u32 = 32 << 20;
        let inside = u128::from(self.offset) + u128::from(self.len) <= SIZE as u128;
        // FUA is for all; NO_HOLE and FAST_ZERO for WRITE_ZEROES.
        let allowed = if self.kind == 6 { 1 | 2 | 16 } else { 1 };
        let past_end = if matches!(self.kind, 1 | 6) {
            ENOSPC
        } else {
            EINVAL
        };
        match self.kind {
            _ if self.magic != 0x2560_9513 => Verdict::Violation,
            2 => Verdict::Disconnect,
            1 if self.len > LARGEST => Verdict::Violation,
            1 | 4 | 6 if read_only => Verdict::Reject(EPERM),
            0 | 1 | 3..=6 if self.flags & !allowed != 0 => Verdict::Reject(EINVAL),
            3 if self.offset != 0 || self.len != 0 => Verdict::Reject(EINVAL),
            3 => Verdict::Accept,
            0 if self.len > LARGEST => Verdict::Reject(EINVAL),
            0 | 1 | 4..=6 if !inside => Verdict::Reject(past_end),
            0 | 1 | 4..=6 => Verdict::Accept,
            _ => Verdict::Reject(EINVAL),
        }
    }
}

/// An image and a client's blocks over it, in memory.
struct Disk {
    image: Vec<u8>,
    data: Vec<u8>,
    map: BlockMap,
    oracle: Vec<u8>,
}

impl Disk {
    fn new() -> Self {
        let image: Vec<u8> = (0..SIZE).map(|at| (at / 7 % 251) as u8 | 1).collect();
        Self {
            data: vec![0xdd; BLOCKS * BLOCK_BYTES],
            map: BlockMap::new(BLOCKS as u64),
            oracle: image.clone(),
            image,
        }
    }

    fn set(&mut self, blocks: BlockRange, state: BlockState) {
        self.map.set(blocks, state, |_, _| {});
    }

    /// As an overlay does: what a block lacks is completed first.
    fn write(&mut self, range: ByteRange, bytes: &[u8]) {
        if range.is_empty() {
            return;
        }
        let blocks = range.blocks_touched();
        for block in blocks.start().0..blocks.end().0 {
            let index = BlockIndex(block);
            let start = usize::try_from(block).expect("small") * BLOCK_BYTES;
            let place = start..start + BLOCK_BYTES;
            match self.map.state(index) {
                BlockState::Present => {}
                BlockState::Zero => self.data[place].fill(0),
                BlockState::Absent => {
                    let end = place.end.min(SIZE);
                    self.data[place.clone()].fill(0);
                    self.data[start..end].copy_from_slice(&self.image[start..end]);
                }
            }
        }
        let place = bytes_of(range);
        self.data[place.clone()].copy_from_slice(bytes);
        self.set(blocks, BlockState::Present);
        self.oracle[place].copy_from_slice(bytes);
    }

    fn zero(&mut self, range: ByteRange) {
        let end = range.end();
        let first = range.start().div_ceil(BLOCK_BYTES as u64);
        // The last block ends with the disk.
        let last = match end == SIZE as u64 {
            true => BLOCKS as u64,
            false => end / BLOCK_BYTES as u64,
        };
        if first >= last {
            self.write(range, &vec![0; range.len_usize()]);
            return;
        }
        let whole = BlockRange::between(BlockIndex(first), BlockIndex(last));
        let start = whole.bytes().start();
        let stop = whole.bytes().end().min(end);
        for edge in [
            ByteRange::between(range.start(), start),
            ByteRange::between(stop, end),
        ] {
            self.write(edge, &vec![0; edge.len_usize()]);
        }
        self.set(whole, BlockState::Zero);
        self.oracle[bytes_of(range)].fill(0);
    }

    fn read(&self, range: ByteRange) {
        let mut seen = Vec::new();
        for run in plan(Some(&self.map), range) {
            let place = bytes_of(run.range);
            match run.source {
                Source::Zero => seen.resize(seen.len() + place.len(), 0),
                Source::Image => seen.extend_from_slice(&self.image[place]),
                Source::Overlay => seen.extend_from_slice(&self.data[place]),
            }
        }
        assert!(
            seen == self.oracle[bytes_of(range)],
            "{range:?} reads wrong"
        );
    }
}

fn bytes_of(range: ByteRange) -> std::ops::Range<usize> {
    let start = usize::try_from(range.start()).expect("inside the disk");
    start..start + range.len_usize()
}

/// See the module.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input(data);
    let read_only = input.byte() == 0xff;
    let info = ExportInfo {
        size: SIZE as u64,
        read_only,
        multi_conn: true,
    };
    let mut session = Session::new(info, Agreed::default());
    let mut disk = Disk::new();
    while !input.0.is_empty() {
        let request = Request::read(&mut input);
        let verdict = request.verdict(read_only);
        let stream = request.to_bytes();
        let outcome = session.handle_bytes(&stream);
        let Ok((used, event)) = outcome else {
            assert_eq!(verdict, Verdict::Violation, "{request:?} {outcome:?}");
            return;
        };
        assert_eq!(used, stream.len(), "{request:?}");
        let Some(event) = skip_payload(&mut session, request, event) else {
            return;
        };
        let shown = match event {
            Event::Command(..) => Verdict::Accept,
            Event::Reject(_, rejection) => Verdict::Reject(rejection.errno.to_wire()),
            Event::Disconnect => Verdict::Disconnect,
        };
        assert_eq!(shown, verdict, "{request:?}");
        match event {
            Event::Command(_, command) => apply(&mut session, &mut disk, command, &mut input),
            Event::Disconnect => return,
            Event::Reject(..) => {}
        }
    }
    disk.read(ByteRange::between(0, SIZE as u64));
}

/// The payload of a write that is rejected comes all the same; an end where it is very long.
fn skip_payload(session: &mut Session, request: Request, event: Option<Event>) -> Option<Event> {
    if let Some(event) = event {
        return Some(event);
    }
    assert_eq!(request.kind, 1, "only a write has a payload");
    let payload = vec![9; request.len as usize];
    if payload.len() > 1 << 20 {
        return None;
    }
    let (used, event) = session
        .handle_bytes(&payload)
        .expect("a payload is anything");
    assert_eq!(used, payload.len());
    event
}

fn apply(session: &mut Session, disk: &mut Disk, command: Command, input: &mut Input<'_>) {
    match command {
        Command::Read { range, .. } => disk.read(range),
        Command::Write { range, .. } => {
            let fill = input.byte();
            let bytes: Vec<u8> = (0..range.len_usize())
                .map(|at| fill ^ (at % 249) as u8)
                .collect();
            disk.write(range, &bytes);
            session.payload_taken(range.len());
        }
        Command::Trim { range, .. } | Command::WriteZeroes { range, .. } => disk.zero(range),
        Command::Cache { .. } | Command::Flush => {}
        Command::BlockStatus { .. } => panic!("no context was agreed on"),
    }
}
