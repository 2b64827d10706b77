//! What is said to the kernel's network block devices: generic netlink as values, and back. Pure.
//!
//! The numbers are those of `linux/nbd-netlink.h` and `linux/genetlink.h`. netlink(7): all of them
//! are in the byte order of the host.
//!
//! Invariants: no function here panics on what it reads; a length inside a message is compared
//! with what is there before anything is taken.
#![deny(clippy::indexing_slicing)]
#![allow(
    clippy::host_endian_bytes,
    reason = "netlink is spoken with the kernel below us only"
)]

mod read;
mod write;

pub use read::{Family, Incoming, incoming};
pub use write::{Connect, Reconfigure, connect, disconnect, get_family, reconfigure, status};

/// The family of the devices: `NBD_GENL_FAMILY_NAME`.
pub const FAMILY: &str = "nbd";

/// The group that hears of dead connections: `NBD_GENL_MCAST_GROUP_NAME`.
pub const GROUP: &str = "nbd_mc_group";

/// The family that knows all others: `GENL_ID_CTRL`.
const CONTROL: u16 = 0x10;

/// Types of messages that belong to no family.
const NLMSG_ERROR: u16 = 2;

/// What is asked for, and asked to be confirmed.
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;

/// Bytes of `struct nlmsghdr` and of `struct genlmsghdr`.
const MESSAGE_HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;

/// Bytes of `struct nlattr`.
const ATTRIBUTE_HEADER: usize = 4;

/// "NLA_F_NESTED: Indicates that the attribute has nested attributes."
const NESTED: u16 = 1 << 15;
/// The type of an attribute without its two flags.
const TYPE_MASK: u16 = 0x3fff;

/// Attributes and messages are "aligned to a boundary of 4 bytes".
const fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// Commands and attributes of the control family.
mod control {
    pub(super) const GET_FAMILY: u8 = 3;
    pub(super) const NEW_FAMILY: u8 = 1;
    pub(super) const VERSION: u8 = 1;
    pub(super) const FAMILY_ID: u16 = 1;
    pub(super) const FAMILY_NAME: u16 = 2;
    pub(super) const GROUPS: u16 = 7;
    pub(super) const GROUP_NAME: u16 = 1;
    pub(super) const GROUP_ID: u16 = 2;
}

/// Commands and attributes of the family of devices.
mod device {
    pub(super) const CONNECT: u8 = 1;
    pub(super) const DISCONNECT: u8 = 2;
    pub(super) const RECONFIGURE: u8 = 3;
    pub(super) const LINK_DEAD: u8 = 4;
    pub(super) const STATUS: u8 = 5;
    pub(super) const VERSION: u8 = 1;

    pub(super) const INDEX: u16 = 1;
    pub(super) const SIZE_BYTES: u16 = 2;
    pub(super) const BLOCK_SIZE_BYTES: u16 = 3;
    pub(super) const TIMEOUT: u16 = 4;
    pub(super) const SERVER_FLAGS: u16 = 5;
    pub(super) const SOCKETS: u16 = 7;
    pub(super) const DEAD_CONN_TIMEOUT: u16 = 8;
    pub(super) const DEVICE_LIST: u16 = 9;
    pub(super) const BACKEND_IDENTIFIER: u16 = 10;

    pub(super) const SOCKET_ITEM: u16 = 1;
    pub(super) const SOCKET_FD: u16 = 1;

    pub(super) const LIST_ITEM: u16 = 1;
    pub(super) const LIST_INDEX: u16 = 1;
    pub(super) const LIST_CONNECTED: u16 = 2;
}

#[cfg(test)]
mod tests;
