//! The one place that says whether a request is allowed, and with which error it is refused.
//!
//! Invariants: a command that passes lies wholly inside the disk, changes no read-only export, and
//! moves no more payload than [`NBD_PAYLOAD_MAX`]. Zero lengths are harmless and pass, but for
//! BLOCK_STATUS, which has no answer to them.

use super::ExportInfo;
use super::agreed::{Agreed, Context, Contexts, Headers};
use super::session::Command;
use super::wire::{CommandFlags, Errno, RequestHeader, RequestType};
use crate::limits::NBD_PAYLOAD_MAX;
use crate::units::ByteRange;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The error number to reply.
    pub errno: Errno,
    /// The same for a human.
    pub why: &'static str,
    /// The byte of the request that is at fault, where one is.
    pub at: Option<u64>,
}

const fn reject(errno: Errno, why: &'static str) -> Rejection {
    let at = None;
    Rejection { errno, why, at }
}

/// What a request is held against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) info: ExportInfo,
    pub(super) agreed: Agreed,
}

/// What `header` asks for, if it may.
///
/// # Errors
/// What to reply. Of several broken rules the first in this order decides: the command is known,
/// the export may be changed, the flags belong to the command, the range lies in the disk.
pub(super) fn validate(header: &RequestHeader, rules: &Rules) -> Result<Command, Rejection> {
    match header.kind {
        RequestType::READ => read(header, rules),
        RequestType::WRITE => write(header, rules),
        RequestType::FLUSH => flush(header),
        RequestType::TRIM => trim(header, rules),
        RequestType::WRITE_ZEROES => write_zeroes(header, rules),
        RequestType::CACHE => cache(header, rules),
        RequestType::BLOCK_STATUS => block_status(header, rules),
        // "The server SHOULD return NBD_EINVAL if it receives an unknown command." DISC has no
        // reply and never comes here.
        _ => Err(reject(
            Errno::EINVAL,
            "this server does not know the command",
        )),
    }
}

fn read(header: &RequestHeader, rules: &Rules) -> Result<Command, Rejection> {
    // NBD_FLAG_SEND_DF is set where replies come in chunks: "Clients MUST NOT set the
    // NBD_CMD_FLAG_DF request flag unless this transmission flag is set."
    only(
        header,
        if_agreed(rules, Headers::have_chunks, CommandFlags::DF),
    )?;
    // "The server SHOULD report an NBD_EINVAL error if the client's request is [...] larger than
    // the advertised maximum block size."
    if header.length > u64::from(NBD_PAYLOAD_MAX) {
        let why = "the read is larger than the advertised maximum";
        return Err(reject(Errno::EINVAL, why));
    }
    let range = inside(header, header.length, rules, Errno::EINVAL)?;
    let in_one = header.flags.contains(CommandFlags::DF);
    Ok(Command::Read { range, in_one })
}

fn write(header: &RequestHeader, rules: &Rules) -> Result<Command, Rejection> {
    writable(rules)?;
    // A write has a payload with and without the flag: see `session`.
    only(header, rules.agreed.payload_flag())?;
    // "The server SHOULD return NBD_ENOSPC if it receives a write request including one or more
    // sectors beyond the size of the device."
    let range = inside(header, header.length, rules, Errno::ENOSPC)?;
    let fua = fua(header);
    Ok(Command::Write { range, fua })
}

fn flush(header: &RequestHeader) -> Result<Command, Rejection> {
    only(header, CommandFlags::NONE)?;
    // "For a flush request, length and offset are reserved, and MUST be set to all-zero."
    if header.offset != 0 || header.length != 0 {
        let why = "offset and length of a flush must be zero";
        return Err(reject(Errno::EINVAL, why));
    }
    Ok(Command::Flush)
}

fn trim(header: &RequestHeader, rules: &Rules) -> Result<Command, Rejection> {
    writable(rules)?;
    only(header, CommandFlags::NONE)?;
    let range = inside(header, header.length, rules, Errno::EINVAL)?;
    let fua = fua(header);
    Ok(Command::Trim { range, fua })
}

fn write_zeroes(header: &RequestHeader, rules: &Rules) -> Result<Command, Rejection> {
    writable(rules)?;
    only(header, CommandFlags::NO_HOLE.with(CommandFlags::FAST_ZERO))?;
    // "The server SHOULD return NBD_ENOSPC if it receives a write zeroes request including one or
    // more sectors beyond the size of the device."
    let range = inside(header, header.length, rules, Errno::ENOSPC)?;
    Ok(Command::WriteZeroes {
        range,
        fua: fua(header),
        no_hole: header.flags.contains(CommandFlags::NO_HOLE),
        fast: header.flags.contains(CommandFlags::FAST_ZERO),
    })
}

fn cache(header: &RequestHeader, rules: &Rules) -> Result<Command, Rejection> {
    // "if it advertised the command, the server MUST reject any command flags it does not
    // recognize"
    only(header, CommandFlags::NONE)?;
    let range = inside(header, header.length, rules, Errno::EINVAL)?;
    Ok(Command::Cache { range })
}

fn block_status(header: &RequestHeader, rules: &Rules) -> Result<Command, Rejection> {
    only(header, CommandFlags::REQ_ONE)?;
    describe(header, header.length, rules.agreed.contexts, rules)
}

/// A BLOCK_STATUS that carries what it is about: "64 bits, effect length", then the numbers of the
/// contexts that are wanted. `payload` is all of it.
pub(super) fn block_status_of(
    header: &RequestHeader,
    payload: &[u8],
    rules: &Rules,
) -> Result<Command, Rejection> {
    only(
        header,
        CommandFlags::REQ_ONE.with(CommandFlags::PAYLOAD_LEN),
    )?;
    let malformed = || reject(Errno::EINVAL, "the payload of the request is malformed");
    let (length, ids) = payload.split_first_chunk().ok_or_else(malformed)?;
    let (ids, rest) = ids.as_chunks();
    if !rest.is_empty() {
        return Err(malformed());
    }
    let contexts = chosen(ids, rules.agreed.contexts)?;
    describe(header, u64::from_be_bytes(*length), contexts, rules)
}

/// A number that is unknown, or comes twice, is an error: the client must not send one.
fn chosen(ids: &[[u8; 4]], agreed: Contexts) -> Result<Contexts, Rejection> {
    let mut chosen = Vec::new();
    for id in ids {
        match agreed.with_id(u32::from_be_bytes(*id)) {
            Some(context) if !chosen.contains(&context) => chosen.push(context),
            _ => {
                let why = "a context was not agreed on, or comes twice";
                return Err(reject(Errno::EINVAL, why));
            }
        }
    }
    Ok(chosen.into_iter().collect())
}

fn describe(
    header: &RequestHeader,
    length: u64,
    contexts: Contexts,
    rules: &Rules,
) -> Result<Command, Rejection> {
    // "Servers SHOULD reply with NBD_EINVAL to clients sending NBD_CMD_BLOCK_STATUS without
    // selecting at least one metadata context."
    if contexts.is_empty() {
        return Err(reject(Errno::EINVAL, "no metadata context was selected"));
    }
    // "The client SHOULD NOT request a status length of 0": no extent could answer it, for each
    // "MUST be nonzero".
    if length == 0 {
        return Err(reject(Errno::EINVAL, "no bytes to describe"));
    }
    // "The server SHOULD return NBD_EINVAL if it receives a NBD_CMD_BLOCK_STATUS request including
    // one or more sectors beyond the size of the device."
    let range = inside(header, length, rules, Errno::EINVAL)?;
    let only_one = header.flags.contains(CommandFlags::REQ_ONE);
    Ok(Command::BlockStatus {
        range,
        contexts,
        only_one,
    })
}

fn if_agreed(rules: &Rules, is_so: fn(Headers) -> bool, flag: CommandFlags) -> CommandFlags {
    if is_so(rules.agreed.headers) {
        flag
    } else {
        CommandFlags::NONE
    }
}

/// "It also SHOULD return NBD_EINVAL if it receives a request with a flag not explicitly documented
/// as applicable to the given request."
fn only(header: &RequestHeader, documented: CommandFlags) -> Result<(), Rejection> {
    // FUA: "This flag is valid for all commands, provided NBD_FLAG_SEND_FUA has been negotiated",
    // and "existing clients are known to set this bit on other commands".
    if documented.with(CommandFlags::FUA).contains(header.flags) {
        Ok(())
    } else {
        let why = "the request has a flag that is not for this command";
        Err(reject(Errno::EINVAL, why))
    }
}

/// NBD_FLAG_READ_ONLY: "the server MUST error subsequent write operations to the export"; "it
/// SHOULD return NBD_EPERM if it receives a write or trim request on a read-only export".
const fn writable(rules: &Rules) -> Result<(), Rejection> {
    if rules.info.read_only {
        Err(reject(Errno::EPERM, "the export is read-only"))
    } else {
        Ok(())
    }
}

/// The bytes that are meant, or `past_end` where one of them, or an empty range, lies past the end.
fn inside(
    header: &RequestHeader,
    length: u64,
    rules: &Rules,
    past_end: Errno,
) -> Result<ByteRange, Rejection> {
    let size = rules.info.size;
    let range = ByteRange::new(header.offset, length).filter(|range| range.end() <= size);
    range.ok_or_else(|| Rejection {
        errno: past_end,
        why: "the request reaches past the end of the disk",
        // "an error occurred at a given offset, which MUST lie within the original offset and
        // length of the request"
        at: (length > 0).then_some(size.max(header.offset)),
    })
}

const fn fua(header: &RequestHeader) -> bool {
    header.flags.contains(CommandFlags::FUA)
}

/// The longest payload that a BLOCK_STATUS can carry: a length and the numbers of all contexts.
pub(super) const STATUS_PAYLOAD_MAX: usize = 8 + 4 * Context::ALL.len();

#[cfg(test)]
mod tests;
