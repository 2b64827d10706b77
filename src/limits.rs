//! Every bound of the program, in one place, their relations checked by the compiler.
//!
//! A number that a peer or a file supplies is compared with its limit before it sizes anything.

use std::time::Duration;

mod seen;

pub use seen::*;

/// Longest string the protocol allows (NBD proto.md, "Values": "no larger than 4096 bytes").
pub const NBD_STRING_MAX: usize = 4096;

/// Longest option payload that is read into memory; a longer one is skipped and refused.
pub const NBD_OPTION_MAX: usize = 64 * 1024;

/// Options a client may send before it must have chosen an export.
pub const NBD_OPTIONS_PER_HANDSHAKE: u32 = 256;

/// How long a client may take from connecting to the end of its handshake.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(30);

/// Largest payload of one READ or WRITE, and the maximum block size that is advertised.
pub const NBD_PAYLOAD_MAX: u32 = 32 * 1024 * 1024;

/// How long a client may hold up a take-over with a request of which it sends no more, or with
/// answers that it does not take.
pub const SUSPEND_PATIENCE: Duration = Duration::from_secs(1);

/// How long a session may take to stop for a take-over; after that the old server goes on.
pub const SUSPEND_TIME: Duration = Duration::from_secs(5);

/// How long a server that has been taken over from goes on with files that it sends just then.
pub const LINGER_TIME: Duration = Duration::from_secs(120);

/// How long overlays may take to be flushed before anything is stopped for a take-over.
pub const TAKEOVER_FLUSH_TIME: Duration = Duration::from_secs(20);

/// How long a new server may take to open what it was handed.
pub const TAKEOVER_TIME: Duration = Duration::from_secs(10);

/// How long a new server may prepare while the old one serves on.
pub const TAKEOVER_PREPARATION_TIME: Duration = Duration::from_secs(300);

/// How long the old server of a take-over may take to tell the service manager of the new one.
pub const TAKEOVER_TELLING_TIME: Duration = Duration::from_secs(10);

/// Largest text of a message of a take-over: all names of machines that begin to boot.
pub const TAKEOVER_TEXT_MAX: usize = 1024 * 1024;

/// Largest that came for a session and was not begun: a handshake may leave more than a buffer.
pub const TAKEOVER_BYTES_MAX: usize = 1024 * 1024;

/// Sockets that a server serves on, at most, when another takes over.
pub const TAKEOVER_DOORS_MAX: usize = 1024;

/// Receives of a busy session in a row without the ring, which has its turn then: completions for
/// others wait that long at most.
pub const RECEIVES_AT_ONCE: u32 = 8;

/// Bytes that are encrypted before the neighbours get their turn.
pub const TLS_PIECE: usize = 128 * 1024;

/// Smallest request that is promised to work (any byte range does).
pub const NBD_BLOCK_MIN: u32 = 1;

/// The request size and alignment at which an overlay never has to merge.
pub const NBD_BLOCK_PREFERRED: u32 = 4096;

/// The port of NBD (IANA).
pub const NBD_PORT: u16 = 10809;

/// Largest file that is read out of a disk for a machine to boot: it is held in memory.
pub const BOOT_FILE_MAX: usize = 512 * 1024 * 1024;

/// Connections of a load generator: each has a thread.
pub const BENCH_CLIENTS_MAX: usize = 4096;

/// Requests that one client of a load generator has under way.
pub const BENCH_DEPTH_MAX: usize = 4096;

/// Requests of a trace that is replayed.
pub const BENCH_TRACE_MAX: usize = 10_000_000;

/// Largest boot image of GRUB that is served; those of today have less than a megabyte.
pub const GRUB_IMAGE_MAX: u64 = 32 * 1024 * 1024;

/// Bytes that the reader of a file system may read for one file: the file, and what leads to it.
pub const BOOT_FILE_READ_MAX: u64 = 4 * BOOT_FILE_MAX as u64;

/// How often it may read for that. FAT takes the most: two reads for each cluster, which are
/// rarely smaller than 4 KiB.
pub const BOOT_FILE_READS_MAX: u64 = BOOT_FILE_MAX as u64 / 512;
/// Bytes of all files that were read out of disks and are kept or being sent.
pub const BOOT_MEMORY_MAX: usize = 1024 * 1024 * 1024;

/// Of these, bytes of files that are kept for the next machine that asks.
pub const BOOT_KEPT_MAX: usize = 512 * 1024 * 1024;

/// How long a file waits for room among them.
pub const BOOT_MEMORY_TIME: Duration = Duration::from_secs(20);

/// Files that are read out of disks at a time.
pub const BOOT_READS_MAX: usize = 8;

/// Of these, of one name in one image: a disk that does not answer must not take them all.
pub const BOOT_READS_PER_FILE_MAX: usize = 2;

/// Pieces of a disk that are noted to follow a file from; one of more is read each time.
pub const BOOT_BLOCKS_MAX: usize = 1 << 16;

const _: () = assert!(BOOT_FILE_MAX <= BOOT_KEPT_MAX && BOOT_KEPT_MAX <= BOOT_MEMORY_MAX);
const _: () = assert!(
    BOOT_MEMORY_MAX <= u32::MAX as usize,
    "counted in blocks by a u32"
);
const _: () = assert!(BOOT_READS_PER_FILE_MAX < BOOT_READS_MAX);

/// Threads that wait for disks with files of boot loaders at a time.
pub const BOOT_WAITS_MAX: usize = 256;

/// Links that are followed on the way to one file, as many as the kernel follows.
pub const LINKS_MAX: usize = 40;

/// Groups of blocks of an ext4, each of which takes memory while a file is read: with the usual
/// ones of 128 MiB, these are 32 TiB.
pub const EXT4_GROUPS_MAX: u64 = 1 << 18;

/// Bytes of a link, as many as a path may have (`PATH_MAX`).
pub const LINK_BYTES_MAX: u64 = 4096;

/// Partitions of a disk that are looked at.
pub const PARTITIONS_MAX: u32 = 128;

/// Longest command line of a kernel: `COMMAND_LINE_SIZE` of x86, less its NUL.
pub const KERNEL_LINE_MAX: usize = 2047;

/// Entries of a menu.
pub const MENU_ENTRIES_MAX: usize = 64;

/// Longest title of an entry.
pub const MENU_TITLE_MAX: usize = 200;

/// Longest template of a menu.
pub const TEMPLATE_BYTES_MAX: u64 = 64 * 1024;

/// Bytes of address space in which a template is taken apart.
pub const TEMPLATE_STACK: usize = 512 << 20;

/// Steps that a template may take.
pub const TEMPLATE_FUEL: usize = 1_000_000;

/// Macros within macros of a template.
pub const TEMPLATE_RECURSION_MAX: usize = 64;

/// Longest menu that a template makes.
pub const MENU_BYTES_MAX: usize = 1024 * 1024;

/// Longest list of the files of a tree that `cowherd grub` wrote.
pub const TREE_LIST_MAX: u64 = 64 * 1024 * 1024;

/// Longest that a menu waits for a choice: that of PXELINUX, which counts tenths in 16 bits.
pub const MENU_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// Connections waiting to be accepted: a whole room powers on at once.
pub const LISTEN_BACKLOG: u32 = 4096;

/// Connections at a time, in their handshakes and past them.
pub const CONNECTIONS_MAX: usize = 16 * 1024;

/// Of these, from one address; of IPv6, from one network of 64 bits.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 1024;

/// Connections to one client's overlay at a time.
pub const CONNECTIONS_PER_CLIENT_MAX: usize = 256;

/// Handshakes under way at a time.
pub const HANDSHAKES_MAX: usize = 4096;

/// Of these, from one address, while more than half of all are taken.
pub const HANDSHAKES_CROWDED: usize = 64;

/// Requests of one session that are being worked on and not yet answered.
pub const SESSION_REQUESTS_MAX: usize = 256;

/// Bytes that the unanswered requests of one session may hold in memory.
pub const SESSION_BYTES_MAX: u64 = 2 * NBD_PAYLOAD_MAX as u64;

/// Bytes that the unanswered requests of all sessions of a shard may hold in memory.
pub const SHARD_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Size of the buffer that requests are received into, for each session.
pub const RECEIVE_BUFFER: usize = 64 * 1024;

/// A WRITE payload of at least this many bytes is received straight into an aligned buffer.
pub const DIRECT_PAYLOAD_MIN: usize = 16 * 1024;

/// Seconds of silence after which a peer is asked whether it is still there, where nobody says.
pub const KEEPALIVE_DEFAULT: u16 = 60;

/// The most of them that can be asked for.
pub const KEEPALIVE_MAX: u16 = 3600;

/// Longest name of a file in a TFTP request.
pub const TFTP_NAME_MAX: usize = 512;

/// Options of a TFTP request; there are four that mean something.
pub const TFTP_OPTIONS_MAX: usize = 16;

/// Smallest block of TFTP (RFC 2348).
pub const TFTP_BLOCK_MIN: u16 = 8;

/// Largest block of TFTP that is agreed on: a packet with it fits the frames of Ethernet.
pub const TFTP_BLOCK_MAX: u16 = 1468;

/// TFTP transfers at a time on one port.
pub const TFTP_TRANSFERS_MAX: usize = 2048;

/// Of these, to one address.
pub const TFTP_TRANSFERS_PER_ADDRESS_MAX: usize = 64;

/// Bytes of a file that a TFTP transfer reads at once.
pub const TFTP_READ_AHEAD: usize = 64 * 1024;

/// Largest file that TFTP sends as text, which takes its whole size in memory.
pub const TFTP_TEXT_MAX: usize = 4 * 1024 * 1024;

/// Widest window of TFTP that is agreed on: wider ones overrun what clients and switches hold.
pub const TFTP_WINDOW_MAX: u16 = 64;

/// How often the same is sent to a TFTP client that does not answer.
pub const TFTP_TRIES_MAX: u32 = 10;

/// How long an answer of a TFTP client is waited for, as long as it is not known how long it takes.
pub const TFTP_PATIENCE_START: Duration = Duration::from_secs(1);

/// The least of that.
pub const TFTP_PATIENCE_MIN: Duration = Duration::from_millis(50);

/// The most of that, after several tries.
pub const TFTP_PATIENCE_MAX: Duration = Duration::from_secs(8);

/// How long a client is waited for that says itself how often it is to be asked; but it is asked
/// twice at least.
pub const TFTP_SILENCE_MAX: Duration = Duration::from_secs(60);

/// Connections by HTTP at a time.
pub const HTTP_CONNECTIONS_MAX: usize = 4096;

/// Of these, from one address.
pub const HTTP_CONNECTIONS_PER_ADDRESS_MAX: usize = 64;

/// Bytes of a request by HTTP, without the body that none has.
pub const HTTP_HEAD_MAX: usize = 16 * 1024;

/// Headers of a request by HTTP.
pub const HTTP_HEADERS_MAX: usize = 64;

/// How long a client by HTTP may take for a request, from the end of the one before.
pub const HTTP_REQUEST_TIME: Duration = Duration::from_secs(20);

/// How long a client by HTTP may take none of what is sent to it.
pub const HTTP_STALL_TIME: Duration = Duration::from_secs(20);

/// Bytes of a file that are read and sent at once by HTTP.
pub const HTTP_PIECE: usize = 256 * 1024;

const _: () = assert!(HTTP_CONNECTIONS_PER_ADDRESS_MAX < HTTP_CONNECTIONS_MAX);
const _: () = assert!(HTTP_HEAD_MAX >= 8192, "hyper takes no less");

/// A larger WRITE is received and applied in pieces of this size: neighbours get their turn.
pub const WRITE_PIECE: usize = 1024 * 1024;

/// TRIM and WRITE_ZEROES go through the map in pieces of this many bytes of disk: whole leaves.
pub const FREE_PIECE: u64 = 64 * 1024 * 1024;

/// After about so many runs of blocks that changed their state, and pieces, neighbours get a turn.
pub const FREE_RUNS: usize = 1024;

/// An overlay read up to this size is tried in place; a larger one always goes through the ring.
pub const INLINE_READ_MAX: u64 = 256 * 1024;

/// A longer read of what is not in memory is done by a thread of the kernel from its beginning on.
pub const READ_IN_PLACE_MAX: u32 = 64 * 1024;

/// Reads of one file that are with threads of ours, since a process or another host answers for it.
pub const APART_READS_MAX: usize = 64;

/// A longer one of those is made in pieces.
pub const APART_READ_MAX: usize = 1024 * 1024;

/// Buffers that one gathered send names at most (the kernel's IOV_MAX).
pub const GATHER_SEGMENTS_MAX: usize = 1024;

/// Bytes that one gathered send holds at most, so that sessions of a shard take turns.
pub const GATHER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Largest disk: block indices of the journal have 48 bits.
pub const DISK_SIZE_MAX: u64 = 1 << 60;

/// Longest image, client or host name in an export name.
pub const NAME_MAX: usize = 64;

/// Data-plane threads at most.
pub const SHARDS_MAX: usize = 256;

/// How long a clean stop waits for sessions to end by themselves.
pub const DRAIN_TIME: Duration = Duration::from_secs(10);

/// How long it goes on to begin requests that had come.
pub const DRAIN_ASKED_TIME: Duration = Duration::from_secs(1);

/// How often a served image is looked at, besides the notices of the kernel.
pub const IMAGE_CHECK_EVERY: Duration = Duration::from_secs(1);

const _: () = assert!(
    NBD_PAYLOAD_MAX >= 1 << 25,
    "proto.md: payloads of 32 MiB must work"
);
const _: () = assert!(NBD_BLOCK_PREFERRED.is_power_of_two() && NBD_BLOCK_PREFERRED >= 512);
const _: () = assert!(NBD_BLOCK_PREFERRED as u64 == crate::units::BLOCK_SIZE);
const _: () = assert!(
    SESSION_BYTES_MAX >= NBD_PAYLOAD_MAX as u64,
    "one request must always fit"
);
const _: () = assert!(SHARD_BYTES_MAX >= SESSION_BYTES_MAX);
const _: () = assert!(CONNECTIONS_PER_CLIENT_MAX < CONNECTIONS_PER_ADDRESS_MAX);
const _: () = assert!(CONNECTIONS_PER_ADDRESS_MAX < HANDSHAKES_MAX);
const _: () = assert!(HANDSHAKES_MAX < CONNECTIONS_MAX);
const _: () = assert!(NBD_OPTION_MAX > NBD_STRING_MAX + 6 + 2 * 1024);
const _: () = assert!(DIRECT_PAYLOAD_MIN < RECEIVE_BUFFER && WRITE_PIECE > RECEIVE_BUFFER);
const _: () = assert!(FREE_PIECE.is_multiple_of(crate::units::BLOCK_SIZE) && FREE_RUNS > 0);
const _: () = assert!(DISK_SIZE_MAX / crate::units::BLOCK_SIZE <= 1 << 48);

/// Submissions that the ring of a shard holds before they must go to the kernel.
pub const RING_ENTRIES: u32 = 1024;

/// Smallest buffer of a pool, and the alignment of them all.
pub const POOL_BUFFER_MIN: usize = 4096;

/// Largest buffer of a pool: any one request fits.
pub const POOL_BUFFER_MAX: usize = NBD_PAYLOAD_MAX as usize;

/// Bytes that the pool of a shard keeps for reuse while nobody needs them.
pub const POOL_IDLE_MAX: usize = 4 * 1024 * 1024;

/// A buffer larger than this goes back to the system at once, so that one can't fill the pool.
pub const POOL_KEPT_BUFFER_MAX: usize = WRITE_PIECE;

const _: () = assert!(RING_ENTRIES.is_power_of_two());
const _: () = assert!(POOL_BUFFER_MIN.is_power_of_two() && POOL_BUFFER_MAX.is_power_of_two());
const _: () = assert!(POOL_KEPT_BUFFER_MAX <= POOL_IDLE_MAX);

/// The piece of an image whose pages are looked up in memory at once.
pub const WARM_GRANULE: u64 = 256 * 1024;

/// Pieces of one image that are remembered to be in memory: enough for 64 GiB, at 8 bytes each.
pub const WARM_GRANULES_MAX: u64 = 1 << 18;

/// For how many ticks (one every [`IMAGE_CHECK_EVERY`]) a piece is believed to stay in memory.
pub const WARM_FOR_TICKS: u64 = 4;

/// For how many ticks no such belief is held once a page turned out to be gone.
pub const DOUBT_TICKS: u64 = 10;

/// Bytes of images in one send from which on their pages are looked up again before it.
pub const LOOK_MIN: u64 = 64 * 1024;

const _: () = assert!(WARM_GRANULE.is_power_of_two() && WARM_GRANULE >= crate::units::BLOCK_SIZE);

/// Bytes of one request on the control socket: two paths in JSON's longest spelling, and a name.
pub const CONTROL_REQUEST_MAX: u64 = 64 * 1024;

/// Bytes of one answer that a command takes from its server: some 100,000 overlays in a list.
pub const CONTROL_ANSWER_MAX: u64 = 128 * 1024 * 1024;

/// Connections to the control socket at a time; more wait.
pub const CONTROL_CONNECTIONS_MAX: usize = 16;

/// How long a connection to the control socket may take for its next request.
pub const CONTROL_REQUEST_TIME: Duration = Duration::from_secs(30);

const _: () = assert!(CONTROL_REQUEST_MAX > 2 * 6 * 4096 + 256);

/// Of [`SESSION_BYTES_MAX`], what a session need not share: one piece of a write, or several small
/// reads. It is not counted in [`SHARD_BYTES_MAX`].
pub const SESSION_BYTES_OWN: u64 = WRITE_PIECE as u64;

/// A session that has been sending one lot of replies for so long is cut, if others have waited as
/// long for the memory that it holds.
pub const STALL_TIME: Duration = Duration::from_secs(5);

const _: () =
    assert!(SESSION_BYTES_OWN >= INLINE_READ_MAX && SESSION_BYTES_OWN < SESSION_BYTES_MAX);

/// Bytes of a config file: room for every machine of a large herd.
pub const CONFIG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Ranges of data of one image that are remembered, at 16 bytes each: enough for a hole every
/// megabyte of 256 GiB. What lies behind them counts as data.
pub const IMAGE_DATA_RANGES_MAX: usize = 1 << 18;

/// Extents in one chunk of an answer to BLOCK_STATUS.
pub const STATUS_EXTENTS_MAX: usize = 8 * 1024;

/// Stretches of a disk that are looked at for one such chunk: many may be alike to a context.
pub const STATUS_STRETCHES_MAX: usize = 2 * STATUS_EXTENTS_MAX;

/// Bytes of a disk that one answer to BLOCK_STATUS tells of.
pub const STATUS_BYTES_MAX: u64 = 64 << 30;

const _: () = assert!(
    STATUS_EXTENTS_MAX <= 1 << 20,
    "proto.md: \"SHOULD NOT send more than 2^20 status descriptors in a single chunk\""
);
const _: () = assert!(STATUS_BYTES_MAX > u32::MAX as u64 && STATUS_BYTES_MAX.is_multiple_of(4096));

/// Longest datagram, and longest message, of DHCP: what one frame of Ethernet holds.
pub const DHCP_DATAGRAM_MAX: usize = 1500;

/// RFC 2131, section 2: a client must take a datagram of this length.
pub const DHCP_DATAGRAM_MIN: usize = 576;

/// Shortest reply; old boot ROMs and relays drop shorter ones.
pub const DHCP_REPLY_MIN: usize = 300;

/// Longest client identifier that is told apart from others: RFC 3396 allows more, nobody needs it.
pub const DHCP_CLIENT_IDENTIFIER_MAX: usize = 255;

const _: () = assert!(DHCP_REPLY_MIN + 28 <= DHCP_DATAGRAM_MIN);
const _: () = assert!(DHCP_DATAGRAM_MIN <= DHCP_DATAGRAM_MAX);

/// How long an offered address is kept for its machine.
pub const DHCP_OFFER_TIME: Duration = Duration::from_secs(30);

/// How long an address that somebody else was seen to use is given to nobody.
pub const DHCP_QUARANTINE_TIME: Duration = Duration::from_secs(600);

/// For how long an address that its machine had is believed to be used by nobody else.
pub const DHCP_TRUST_TIME: Duration = Duration::from_secs(3600);

/// How long the answer to a probe is waited for before the machine's next request probes again.
pub const DHCP_PROBE_TIME: Duration = Duration::from_secs(3);

/// How long addresses are leased where the config does not say.
pub const DHCP_LEASE_TIME: Duration = Duration::from_secs(12 * 3600);

/// The shortest lease, however short a one a client asks for.
pub const DHCP_LEASE_TIME_MIN: Duration = Duration::from_secs(60);

/// Offers of one network to machines that are not in the config, at a time.
pub const DHCP_OFFERS_MAX: usize = 4096;

/// How often one other server is reported.
pub const DHCP_RIVAL_EVERY: Duration = Duration::from_secs(600);

/// Other servers that are told apart.
pub const DHCP_RIVALS_MAX: usize = 64;

const _: () = assert!(DHCP_PROBE_TIME.as_secs() < DHCP_OFFER_TIME.as_secs());
const _: () = assert!(DHCP_LEASE_TIME_MIN.as_secs() > DHCP_OFFER_TIME.as_secs());
/// Longest value of an option that a config may name: what fits into no reply helps nobody.
pub const DHCP_OPTION_MAX: usize = 1024;

/// Addresses that all ranges of a config have together.
pub const DHCP_RANGE_ADDRESSES_MAX: u32 = 1 << 16;

const _: () = assert!(DHCP_OPTION_MAX < DHCP_DATAGRAM_MAX);

/// Datagrams that are received by one call.
pub const DATAGRAM_BATCH: usize = 64;

/// Messages of DHCP that have been received and not been looked at.
pub const DHCP_INCOMING_MAX: usize = 256;

/// Replies that wait for the disk; where there are more, nothing is received for a while.
pub const DHCP_REPLIES_WAITING_MAX: usize = 4096;

/// Machines that begin to boot and whose old overlays have not been seen to.
pub const BOOTS_UNSETTLED_MAX: usize = 4096;

/// Longest lease file that is read.
pub const LEASE_FILE_MAX: u64 = 64 << 20;

const _: () = assert!(DATAGRAM_BATCH <= DHCP_INCOMING_MAX);

/// Longest packet of a capture that is read: what tcpdump keeps at most.
pub const CAPTURED_PACKET_MAX: usize = 1 << 18;

/// Packets of DHCP in one capture that are explained.
pub const EXPLAINED_PACKETS_MAX: u64 = 1_000_000;
