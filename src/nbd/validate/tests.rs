//! The rules about ranges, flags and error numbers, one by one.

use super::*;

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

fn header(kind: RequestType, flags: CommandFlags, offset: u64, length: u64) -> RequestHeader {
    RequestHeader {
        flags,
        kind,
        mark: 1,
        offset,
        length,
    }
}

fn on(disk: &ExportInfo, header: &RequestHeader) -> String {
    under(*disk, Agreed::default(), header)
}

fn under(info: ExportInfo, agreed: Agreed, header: &RequestHeader) -> String {
    shown(validate(header, &Rules { info, agreed }))
}

fn shown(result: Result<Command, Rejection>) -> String {
    match result {
        Err(rejection) => format!("{:?}", rejection.errno),
        Ok(Command::Read { range, in_one }) if in_one => format!("read {range} in one"),
        Ok(Command::Read { range, .. }) => format!("read {range}"),
        Ok(Command::BlockStatus {
            range,
            contexts,
            only_one,
        }) => {
            let names: Vec<_> = contexts.iter().map(Context::name).collect();
            format!("status {range} {} one={only_one}", names.join("+"))
        }
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
fn rw(kind: RequestType, flags: CommandFlags, offset: u64, length: u64) -> String {
    on(&info(false), &header(kind, flags, offset, length))
}

/// What a read-only disk of 10000 bytes makes of a request.
fn ro(kind: RequestType, flags: CommandFlags, offset: u64, length: u64) -> String {
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
    assert_eq!(read(NBD_PAYLOAD_MAX.into()), "read 0+33554432");
    assert_eq!(read(u64::from(NBD_PAYLOAD_MAX) + 1), "EINVAL");
}

#[test]
fn commands_without_payload_may_reach_further_than_the_maximum() {
    let huge = ExportInfo {
        size: 1 << 40,
        ..info(false)
    };
    let far = |kind| on(&huge, &header(kind, NONE, 4096, u32::MAX.into()));
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
    assert_eq!(rw(RequestType::RESIZE, NONE, 0, 1), "EINVAL");
    assert_eq!(ro(RequestType::from_wire(999), NONE, 0, 1), "EINVAL");
}

const STRUCTURED: Agreed = Agreed {
    headers: Headers::Structured,
    contexts: Contexts::NONE,
};

fn with_contexts(headers: Headers) -> Agreed {
    let contexts = Contexts::all();
    Agreed { headers, contexts }
}

fn status(agreed: Agreed, flags: CommandFlags, offset: u64, length: u64) -> String {
    let header = header(RequestType::BLOCK_STATUS, flags, offset, length);
    under(info(true), agreed, &header)
}

#[test]
fn a_read_in_one_piece_is_for_replies_in_chunks() {
    let read = header(RequestType::READ, CommandFlags::DF, 0, 8);
    assert_eq!(under(info(true), STRUCTURED, &read), "read 0+8 in one");
    assert_eq!(on(&info(true), &read), "EINVAL");
}

#[test]
fn block_status_tells_of_all_contexts_that_were_agreed_on() {
    let agreed = with_contexts(Headers::Structured);
    assert_eq!(
        status(agreed, NONE, 8, DISK - 8),
        "status 8+9992 base:allocation+x-cowherd:overlay one=false"
    );
    assert_eq!(
        status(agreed, CommandFlags::REQ_ONE.with(FUA), 0, 8),
        "status 0+8 base:allocation+x-cowherd:overlay one=true"
    );
}

#[test]
fn block_status_without_a_context_or_bytes_or_past_the_end_is_einval() {
    let agreed = with_contexts(Headers::Structured);
    assert_eq!(status(STRUCTURED, NONE, 0, 8), "EINVAL");
    assert_eq!(status(agreed, NONE, 0, 0), "EINVAL");
    assert_eq!(status(agreed, NONE, 1, DISK), "EINVAL");
    assert_eq!(status(agreed, NO_HOLE, 0, 8), "EINVAL");
}

/// What a BLOCK_STATUS of the bytes from 8 on is, with a payload.
fn status_of(length: u64, ids: &[u32]) -> String {
    let mut payload = length.to_be_bytes().to_vec();
    payload.extend(ids.iter().flat_map(|id| id.to_be_bytes()));
    status_with(&payload)
}

fn status_with(payload: &[u8]) -> String {
    let flags = CommandFlags::PAYLOAD_LEN;
    let header = header(RequestType::BLOCK_STATUS, flags, 8, payload.len() as u64);
    let rules = Rules {
        info: info(true),
        agreed: with_contexts(Headers::Extended),
    };
    shown(block_status_of(&header, payload, &rules))
}

#[test]
fn block_status_with_a_payload_tells_of_the_contexts_in_it() {
    assert_eq!(
        status_of(16, &[2]),
        "status 8+16 x-cowherd:overlay one=false"
    );
    assert_eq!(
        status_of(16, &[2, 1]),
        "status 8+16 base:allocation+x-cowherd:overlay one=false"
    );
}

#[test]
fn unknown_and_repeated_contexts_and_odd_payloads_are_einval() {
    assert_eq!(status_of(16, &[3]), "EINVAL");
    assert_eq!(status_of(16, &[1, 1]), "EINVAL");
    assert_eq!(status_of(16, &[]), "EINVAL");
    assert_eq!(status_of(DISK, &[1]), "EINVAL");
    assert_eq!(status_with(&[0; 7]), "EINVAL");
    assert_eq!(status_with(&[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 1]), "EINVAL");
}

#[test]
fn a_write_with_extended_headers_may_say_that_it_has_a_payload() {
    let agreed = with_contexts(Headers::Extended);
    let write = |flags| {
        under(
            info(false),
            agreed,
            &header(RequestType::WRITE, flags, 0, 8),
        )
    };
    assert_eq!(write(CommandFlags::PAYLOAD_LEN), "write 0+8 fua=false");
    assert_eq!(write(NONE), "write 0+8 fua=false");
    let compact = header(RequestType::WRITE, CommandFlags::PAYLOAD_LEN, 0, 8);
    assert_eq!(under(info(false), STRUCTURED, &compact), "EINVAL");
}

#[test]
fn a_range_past_32_bits_is_a_range_like_any_other() {
    let huge = ExportInfo {
        size: 1 << 40,
        ..info(false)
    };
    let agreed = with_contexts(Headers::Extended);
    let far = |kind| under(huge, agreed, &header(kind, NONE, 0, 1 << 40));
    assert_eq!(far(RequestType::TRIM), "trim 0+1099511627776 fua=false");
    assert_eq!(far(RequestType::CACHE), "cache 0+1099511627776");
    assert!(far(RequestType::BLOCK_STATUS).starts_with("status 0+1099511627776 "));
    assert_eq!(far(RequestType::READ), "EINVAL");
}

/// The byte that is at fault in a read of a disk of 10000 bytes.
fn fault(offset: u64, length: u64) -> Option<u64> {
    let header = header(RequestType::READ, NONE, offset, length);
    let rules = Rules {
        info: info(true),
        agreed: STRUCTURED,
    };
    validate(&header, &rules).unwrap_err().at
}

#[test]
fn a_request_past_the_end_is_told_the_first_byte_that_is_not_there() {
    assert_eq!(fault(DISK - 1, 2), Some(DISK));
    assert_eq!(fault(DISK + 5, 2), Some(DISK + 5));
    assert_eq!(fault(u64::MAX, 2), Some(u64::MAX));
    assert_eq!(fault(DISK + 5, 0), None);
}
