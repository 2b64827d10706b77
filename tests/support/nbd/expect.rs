//! Assertions about refusals.

use std::fmt::Debug;

use super::{Failure, Refused};

/// Asserts that a command was answered with error number `wanted`.
#[track_caller]
pub(crate) fn assert_errno<T: Debug>(result: Result<T, Failure>, wanted: u32) {
    match result {
        Err(Failure::Errno(number)) => assert_eq!(number, wanted, "error number"),
        other => panic!("error {wanted} expected, not {other:?}"),
    }
}

/// Asserts that an option was answered with an error reply of one of these kinds.
#[track_caller]
pub(crate) fn assert_refused<T: Debug>(result: Result<T, Refused>, kinds: &[u32]) {
    match result {
        Err(Refused::Reply { kind, .. }) if kinds.contains(&kind) => {}
        other => panic!("one of {kinds:x?} expected, not {other:x?}"),
    }
}
