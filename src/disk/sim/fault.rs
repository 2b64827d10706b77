//! What can go wrong with a call of the simulated disk, and what it leaves then.

use std::io;

use rustix::io::Errno;

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// EIO. A write may have been done in part; a sync of a file loses some of what was to become
    /// durable, and what it lost counts as clean from then on. Names are not forgotten so: a file
    /// system whose own journal fails takes no more writes at all.
    Io,
    /// ENOSPC; a sync fails as with [`Fault::Io`].
    NoSpace,
    /// EINTR, of reads and writes; other calls are spared.
    Interrupted,
    /// Reads and writes do half of what is asked; other calls are spared.
    Short,
}

pub(super) fn refuse(fault: Option<Fault>) -> io::Result<()> {
    match fault {
        Some(Fault::Io) => Err(Errno::IO.into()),
        Some(Fault::NoSpace) => Err(Errno::NOSPC.into()),
        Some(Fault::Interrupted | Fault::Short) | None => Ok(()),
    }
}

pub(super) fn interrupt(fault: Option<Fault>) -> io::Result<()> {
    match fault {
        Some(Fault::Interrupted) => Err(Errno::INTR.into()),
        _ => refuse(fault),
    }
}

/// Whether something survives a failed sync: a coin that falls the same way each time.
pub(super) fn survives(call: u64, item: u64) -> bool {
    let mut mixed = (call << 32 ^ item).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^= mixed >> 29;
    mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 63 == 1
}

pub(super) const fn half(len: usize, fault: Option<Fault>) -> usize {
    match fault {
        Some(Fault::Short | Fault::Io) => len.div_ceil(2),
        _ => len,
    }
}
