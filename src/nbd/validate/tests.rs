use super::*;
use crate::nbd::wire::Cookie;

const DISK: u64 = 10_000;
const FUA: CommandFlags = CommandFlags::FUA;
const NO_HOLE: CommandFlags = CommandFlags::NO_HOLE;
const FAST_ZERO: CommandFlags = CommandFlags::FAST_ZERO;
const NONE: CommandFlags = CommandFlags::NONE;

const RANGED: [RequestType; 5] = [
    RequestType::READ,
    RequestType::WRITE,
    RequestType::TRIM,
    RequestType::CACHE,
    RequestType::WRITE_ZEROES,
];

const CHANGING: [RequestType; 3] = [
    RequestType::WRITE,
    RequestType::TRIM,
    RequestType::WRITE_ZEROES,
];

fn info(read_only: bool) -> ExportInfo {
    ExportInfo {
        size: DISK,
        read_only,
        multi_conn: true,
    }
}

fn header(kind: RequestType, flags: CommandFlags, offset: u64, length: u32) -> RequestHeader {
    RequestHeader {
        flags,
        kind,
        cookie: Cookie(1),
        offset,
        length,
    }
}

fn on(disk: &ExportInfo, header: &RequestHeader) -> String {
    match validate(header, disk) {
        Err(errno) => format!("{errno:?}"),
        Ok(Command::Read { range }) => format!("read {range}"),
        Ok(Command::Write { range, fua }) => format!("write {range} fua={fua}"),
        Ok(Command::Flush) => "flush".to_owned(),
        Ok(Command::Trim { range, fua }) => format!("trim {range} fua={fua}"),
        Ok(Command::Cache { range }) => format!("cache {range}"),
        Ok(Command::WriteZeroes {
            range,
            fua,
            no_hole,
            fast,
        }) => format!("zero {range} fua={fua} no_hole={no_hole} fast={fast}"),
    }
}

/// What a writable disk of 10000 bytes makes of a request.
fn rw(kind: RequestType, flags: CommandFlags, offset: u64, length: u32) -> String {
    on(&info(false), &header(kind, flags, offset, length))
}

/// What a read-only disk of 10000 bytes makes of a request.
fn ro(kind: RequestType, flags: CommandFlags, offset: u64, length: u32) -> String {
    on(&info(true), &header(kind, flags, offset, length))
}

#[test]
fn every_command_is_understood_up_to_the_last_byte() {
    let last = |kind| rw(kind, NONE, DISK - 1, 1);
    assert_eq!(
        RANGED.map(last),
        [
            "read 9999+1",
            "write 9999+1 fua=false",
            "trim 9999+1 fua=false",
            "cache 9999+1",
            "zero 9999+1 fua=false no_hole=false fast=false",
        ]
    );
    assert_eq!(rw(RequestType::FLUSH, NONE, 0, 0), "flush");
}

#[test]
fn past_the_end_is_enospc_for_what_writes_and_einval_for_the_rest() {
    let errors = ["EINVAL", "ENOSPC", "EINVAL", "EINVAL", "ENOSPC"];
    assert_eq!(RANGED.map(|kind| rw(kind, NONE, DISK - 1, 2)), errors);
    assert_eq!(RANGED.map(|kind| rw(kind, NONE, u64::MAX, 2)), errors);
    assert_eq!(RANGED.map(|kind| rw(kind, NONE, DISK + 1, 0)), errors);
}

#[test]
fn a_read_only_export_answers_every_change_with_eperm() {
    for kind in CHANGING {
        assert_eq!(ro(kind, NONE, 0, 1), "EPERM", "{kind:?}");
        assert_eq!(ro(kind, NONE, DISK, 1), "EPERM", "{kind:?}");
    }
}

#[test]
fn a_read_only_export_can_be_read_flushed_and_cached() {
    assert_eq!(ro(RequestType::READ, NONE, 0, 1), "read 0+1");
    assert_eq!(ro(RequestType::FLUSH, NONE, 0, 0), "flush");
    assert_eq!(ro(RequestType::CACHE, NONE, 0, 1), "cache 0+1");
}

#[test]
fn fua_is_accepted_on_every_command() {
    assert_eq!(
        RANGED.map(|kind| rw(kind, FUA, 0, 1)),
        [
            "read 0+1",
            "write 0+1 fua=true",
            "trim 0+1 fua=true",
            "cache 0+1",
            "zero 0+1 fua=true no_hole=false fast=false",
        ]
    );
    assert_eq!(rw(RequestType::FLUSH, FUA, 0, 0), "flush");
}

#[test]
fn zeroing_knows_no_hole_and_fast_zero() {
    let zero = |flags| rw(RequestType::WRITE_ZEROES, flags, 0, 8);
    assert_eq!(zero(NO_HOLE), "zero 0+8 fua=false no_hole=true fast=false");
    assert_eq!(
        zero(FAST_ZERO),
        "zero 0+8 fua=false no_hole=false fast=true"
    );
    assert_eq!(
        zero(NO_HOLE.with(FAST_ZERO).with(FUA)),
        "zero 0+8 fua=true no_hole=true fast=true"
    );
}

#[test]
fn a_flag_of_another_command_is_einval() {
    let others = [
        RequestType::READ,
        RequestType::WRITE,
        RequestType::TRIM,
        RequestType::CACHE,
        RequestType::FLUSH,
    ];
    for kind in others {
        assert_eq!(rw(kind, NO_HOLE, 0, 0), "EINVAL", "{kind:?}");
        assert_eq!(rw(kind, FAST_ZERO, 0, 0), "EINVAL", "{kind:?}");
    }
}

#[test]
fn a_flag_that_was_not_offered_is_einval_on_every_command() {
    let flags = [
        CommandFlags::DF,
        CommandFlags::REQ_ONE,
        CommandFlags::PAYLOAD_LEN,
        CommandFlags::from_wire(0x8000),
    ];
    for flag in flags {
        for kind in RANGED {
            assert_eq!(rw(kind, flag, 0, 1), "EINVAL", "{kind:?} {flag:?}");
        }
    }
}

#[test]
fn a_read_longer_than_the_maximum_is_einval() {
    let huge = ExportInfo {
        size: 1 << 40,
        ..info(false)
    };
    let read = |length| on(&huge, &header(RequestType::READ, NONE, 0, length));
    assert_eq!(read(NBD_PAYLOAD_MAX), "read 0+33554432");
    assert_eq!(read(NBD_PAYLOAD_MAX + 1), "EINVAL");
}

#[test]
fn commands_without_payload_may_reach_further_than_the_maximum() {
    let huge = ExportInfo {
        size: 1 << 40,
        ..info(false)
    };
    let far = |kind| on(&huge, &header(kind, NONE, 4096, u32::MAX));
    assert_eq!(far(RequestType::TRIM), "trim 4096+4294967295 fua=false");
    assert_eq!(far(RequestType::CACHE), "cache 4096+4294967295");
    assert_eq!(
        far(RequestType::WRITE_ZEROES),
        "zero 4096+4294967295 fua=false no_hole=false fast=false"
    );
}

#[test]
fn a_length_of_zero_is_harmless_even_at_the_end() {
    for kind in RANGED {
        assert!(rw(kind, NONE, DISK, 0).contains("10000+0"), "{kind:?}");
    }
}

#[test]
fn a_flush_of_a_range_is_einval() {
    assert_eq!(rw(RequestType::FLUSH, NONE, 1, 0), "EINVAL");
    assert_eq!(rw(RequestType::FLUSH, NONE, 0, 1), "EINVAL");
}

#[test]
fn an_unknown_command_is_einval() {
    let block_status = RequestType::from_wire(7);
    assert_eq!(rw(block_status, NONE, 0, 1), "EINVAL");
    assert_eq!(ro(RequestType::from_wire(999), NONE, 0, 1), "EINVAL");
}
