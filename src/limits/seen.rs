//! Bounds of what is seen of machines, of the listener that shows it, and of `cowherd-attach`.

use std::time::Duration;

/// Connections of one device that `cowherd-attach` keeps.
pub const ATTACH_CONNECTIONS_MAX: u16 = 16;

/// Addresses of servers that it tries.
pub const ATTACH_ADDRESSES_MAX: usize = 64;

/// How long it waits for a server to answer a connection at all.
pub const ATTACH_CONNECT_TIME: Duration = Duration::from_secs(3);

/// How long it waits for the end of a handshake: a server may have an overlay to recover first.
pub const ATTACH_HANDSHAKE_TIME: Duration = Duration::from_secs(30);

/// Machines whose boots are remembered; of more, those that were seen longest ago are forgotten.
pub const STATUS_CLIENTS_MAX: usize = 2048;

/// Boots of one machine that are remembered.
pub const STATUS_BOOTS_MAX: usize = 6;

/// Bytes of one text that a machine sent.
pub const STATUS_TEXT_MAX: usize = 160;

/// How long each stage took in the last boots of all: so many are remembered of each.
pub const STATUS_SAMPLES_MAX: usize = 128;

/// Sessions of a shard that have ended and that nobody was told of yet.
pub const STATUS_ENDED_MAX: usize = 4096;

/// Clients of a shard whose latencies are kept when they have no session any more; for each that is
/// some ten kilobytes for each kind of request.
pub const STATUS_LATENCIES_MAX: usize = 256;

/// Machines that metrics have series of their own for.
pub const STATUS_SERIES_CLIENTS_MAX: usize = 1000;

/// Connections to the admin's listener at a time; more wait.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Bytes of the head of an admin's request.
pub const ADMIN_HEADER_BYTES: usize = 16 * 1024;

/// How long an admin's request may take to come.
pub const ADMIN_HEADER_TIME: Duration = Duration::from_secs(10);

/// The shortest token of an admin.
pub const ADMIN_TOKEN_MIN: usize = 16;

/// The longest token of an admin.
pub const ADMIN_TOKEN_MAX: usize = 256;

/// The least piece of an image that a boot is remembered to have read.
pub const BOOT_SET_GRANULE: u64 = 64 * 1024;

/// Pieces of one image that are told apart for that; those of larger images are larger.
pub const BOOT_SET_GRANULES_MAX: u64 = 1 << 22;

/// Bytes of one generation of an image that are remembered like that, twice: of late and of before.
pub const BOOT_SET_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// Sessions after which what was read of late is of before.
pub const BOOT_SET_SESSIONS: u32 = 64;

/// Ticks that must have passed too, so that a herd which boots at once makes nothing old.
pub const BOOT_SET_TICKS: u64 = 3600;

/// For how many ticks after it began a session is taken for a boot.
pub const BOOT_READS_FOR_TICKS: u64 = 180;

/// Largest file that this is read from.
pub const BOOT_SET_FILE_MAX: u64 = 1024 * 1024;

/// Bytes of an image that are asked for at once, to be in memory for a boot.
pub const BOOT_WARM_PIECE: u64 = 1024 * 1024;

/// Ticks after which it is looked again whether all of them still are.
pub const BOOT_WARM_REST_TICKS: u64 = 10;

/// Of the memory that is free or can be made so, the part that is filled like that: one in so many.
pub const BOOT_WARM_SHARE: u64 = 2;

/// Largest file of boots that is read.
pub const STATUS_FILE_MAX: u64 = 64 * 1024 * 1024;
