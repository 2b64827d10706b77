//! The one place that says whether a request is allowed, and with which error it is refused.
//!
//! Invariants: a command that passes lies wholly inside the disk, changes no read-only export, and
//! moves no more payload than [`NBD_PAYLOAD_MAX`]. Zero lengths are harmless and pass.

use super::ExportInfo;
use super::session::Command;
use super::wire::{CommandFlags, Errno, RequestHeader, RequestType};
use crate::limits::NBD_PAYLOAD_MAX;
use crate::units::ByteRange;

/// What `header` asks for, if it may.
///
/// # Errors
/// The error number to reply. Of several broken rules the first in this order decides: the command
/// is known, the export may be changed, the flags belong to the command, the range lies in the
/// disk.
pub fn validate(header: &RequestHeader, info: &ExportInfo) -> Result<Command, Errno> {
    match header.kind {
        RequestType::READ => read(header, info),
        RequestType::WRITE => write(header, info),
        RequestType::FLUSH => flush(header),
        RequestType::TRIM => trim(header, info),
        RequestType::WRITE_ZEROES => write_zeroes(header, info),
        RequestType::CACHE => cache(header, info),
        // "The server SHOULD return NBD_EINVAL if it receives an unknown command." DISC has no
        // reply and never comes here.
        _ => Err(Errno::EINVAL),
    }
}

fn read(header: &RequestHeader, info: &ExportInfo) -> Result<Command, Errno> {
    only(header, CommandFlags::NONE)?;
    // "The server SHOULD report an NBD_EINVAL error if the client's request is [...] larger than
    // the advertised maximum block size."
    if header.length > NBD_PAYLOAD_MAX {
        return Err(Errno::EINVAL);
    }
    let range = inside(header, info, Errno::EINVAL)?;
    Ok(Command::Read { range })
}

fn write(header: &RequestHeader, info: &ExportInfo) -> Result<Command, Errno> {
    writable(info)?;
    only(header, CommandFlags::NONE)?;
    // "The server SHOULD return NBD_ENOSPC if it receives a write request including one or more
    // sectors beyond the size of the device."
    let range = inside(header, info, Errno::ENOSPC)?;
    let fua = fua(header);
    Ok(Command::Write { range, fua })
}

fn flush(header: &RequestHeader) -> Result<Command, Errno> {
    only(header, CommandFlags::NONE)?;
    // "For a flush request, length and offset are reserved, and MUST be set to all-zero."
    if header.offset != 0 || header.length != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(Command::Flush)
}

fn trim(header: &RequestHeader, info: &ExportInfo) -> Result<Command, Errno> {
    writable(info)?;
    only(header, CommandFlags::NONE)?;
    let range = inside(header, info, Errno::EINVAL)?;
    let fua = fua(header);
    Ok(Command::Trim { range, fua })
}

fn write_zeroes(header: &RequestHeader, info: &ExportInfo) -> Result<Command, Errno> {
    writable(info)?;
    only(header, CommandFlags::NO_HOLE.with(CommandFlags::FAST_ZERO))?;
    // "The server SHOULD return NBD_ENOSPC if it receives a write zeroes request including one or
    // more sectors beyond the size of the device."
    let range = inside(header, info, Errno::ENOSPC)?;
    Ok(Command::WriteZeroes {
        range,
        fua: fua(header),
        no_hole: header.flags.contains(CommandFlags::NO_HOLE),
        fast: header.flags.contains(CommandFlags::FAST_ZERO),
    })
}

fn cache(header: &RequestHeader, info: &ExportInfo) -> Result<Command, Errno> {
    // "if it advertised the command, the server MUST reject any command flags it does not
    // recognize"
    only(header, CommandFlags::NONE)?;
    let range = inside(header, info, Errno::EINVAL)?;
    Ok(Command::Cache { range })
}

/// "It also SHOULD return NBD_EINVAL if it receives a request with a flag not explicitly documented
/// as applicable to the given request."
fn only(header: &RequestHeader, documented: CommandFlags) -> Result<(), Errno> {
    // FUA: "This flag is valid for all commands, provided NBD_FLAG_SEND_FUA has been negotiated",
    // and "existing clients are known to set this bit on other commands".
    if documented.with(CommandFlags::FUA).contains(header.flags) {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

/// NBD_FLAG_READ_ONLY: "the server MUST error subsequent write operations to the export"; "it
/// SHOULD return NBD_EPERM if it receives a write or trim request on a read-only export".
const fn writable(info: &ExportInfo) -> Result<(), Errno> {
    if info.read_only {
        Err(Errno::EPERM)
    } else {
        Ok(())
    }
}

/// The bytes that are meant, or `past_end` where one of them, or an empty range, lies past the end.
fn inside(header: &RequestHeader, info: &ExportInfo, past_end: Errno) -> Result<ByteRange, Errno> {
    ByteRange::new(header.offset, u64::from(header.length))
        .filter(|range| range.end() <= info.size)
        .ok_or(past_end)
}

const fn fua(header: &RequestHeader) -> bool {
    header.flags.contains(CommandFlags::FUA)
}

#[cfg(test)]
mod tests;
