//! One client against a server that the test plays.

use super::*;
use crate::load::course::Rules;
use crate::load::ledger::Ledger;
use crate::load::work::{Area, Made, Pattern, Shape, Work};
use crate::nbd::wire::REQUEST_HEADER;

const AREA: Area = Area {
    start: 0,
    blocks: 64,
    first: 0,
};

const RULES: Rules = Rules {
    depth: 2,
    fua: false,
    counted_from: Duration::ZERO,
    ends: Duration::from_secs(60),
};

fn shape(kind: Kind, interval: Option<Duration>) -> Shape {
    Shape {
        mix: vec![(kind, 1)],
        pattern: Pattern::Sequential,
        block: 16,
        flush_every: None,
        interval,
    }
}

fn session(kind: Kind, interval: Option<Duration>, rules: Rules) -> Session {
    let work = Work::Made(Made::new(shape(kind, interval), AREA, 1));
    of_work(rules, work)
}

fn of_work(rules: Rules, work: Work) -> Session {
    let (ledger, tally) = (Some(Ledger::default()), Tally::new().unwrap());
    Session::new(Course::new(rules, work, ledger, tally))
}

/// The headers of the requests that wait to be sent, which then are.
fn send(session: &mut Session, payload: usize) -> Vec<RequestHeader> {
    let out = session.unsent().to_vec();
    session.was_sent(out.len());
    let each = out.chunks(REQUEST_HEADER + payload);
    each.map(|bytes| RequestHeader::from_bytes(bytes[..REQUEST_HEADER].try_into().unwrap()))
        .map(Option::unwrap)
        .collect()
}

fn reply(header: &RequestHeader, result: Result<(), Errno>) -> Vec<u8> {
    SimpleReply::new(header.cookie(), result)
        .to_bytes()
        .to_vec()
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn as_many_are_under_way_as_asked_for() {
    let mut session = session(Kind::Flush, None, RULES);
    session.fill(millis(0));
    let sent = send(&mut session, 0);
    assert_eq!(sent.len(), 2);
    session.fill(millis(1));
    assert!(session.unsent().is_empty());
    let answer = reply(&sent[0], Ok(()));
    assert_eq!(session.handle_bytes(millis(2), &answer), Ok(()));
    session.fill(millis(2));
    assert_eq!(send(&mut session, 0).len(), 1);
}

#[test]
fn answers_may_come_in_any_pieces_and_order() {
    let mut session = session(Kind::Read, None, RULES);
    session.fill(millis(0));
    let sent = send(&mut session, 0);
    let mut bytes = reply(&sent[1], Ok(()));
    bytes.extend([2; 16]);
    bytes.extend(reply(&sent[0], Ok(())));
    bytes.extend([1; 16]);
    for byte in bytes {
        assert_eq!(session.handle_bytes(millis(3), &[byte]), Ok(()));
    }
    let reads = &session.tally().shares[&Kind::Read];
    assert_eq!((reads.requests, reads.bytes), (2, 32));
    assert_eq!(reads.latencies.max() / 1_000_000, 3);
}

#[test]
fn a_late_answer_counts_from_when_its_request_was_due() {
    let rules = Rules { depth: 1, ..RULES };
    let mut session = session(Kind::Flush, Some(millis(10)), rules);
    let due = session.next_due().unwrap();
    session.fill(due);
    let sent = send(&mut session, 0);
    // The server stalls; the next request is due meanwhile and can't be sent.
    let stalled = due + millis(100);
    session.fill(stalled);
    assert!(session.unsent().is_empty());
    let answer = reply(&sent[0], Ok(()));
    assert_eq!(session.handle_bytes(stalled, &answer), Ok(()));
    session.fill(stalled);
    let sent = send(&mut session, 0);
    let answer = reply(&sent[0], Ok(()));
    assert_eq!(session.handle_bytes(stalled + millis(1), &answer), Ok(()));
    let flushes = &session.tally().shares[&Kind::Flush].latencies;
    // Histograms keep three digits.
    assert!(
        (90_900_000..=91_000_000).contains(&flushes.min()),
        "{flushes:?}"
    );
}

#[test]
fn nothing_is_counted_before_its_time() {
    let counted_from = millis(5);
    let rules = Rules {
        counted_from,
        ..RULES
    };
    let mut session = session(Kind::Flush, None, rules);
    for now in [0, 7] {
        session.fill(millis(now));
        for header in send(&mut session, 0) {
            let answer = reply(&header, Ok(()));
            assert_eq!(session.handle_bytes(millis(now + 1), &answer), Ok(()));
        }
    }
    assert_eq!(session.tally().requests(), 2);
}

#[test]
fn it_ends_when_its_time_is_over_and_all_is_answered() {
    let mut session = session(Kind::Flush, None, RULES);
    session.fill(millis(0));
    let sent = send(&mut session, 0);
    session.fill(RULES.ends);
    for header in &sent {
        assert!(!session.is_done());
        let answer = reply(header, Ok(()));
        assert_eq!(session.handle_bytes(RULES.ends, &answer), Ok(()));
        session.fill(RULES.ends);
    }
    assert!(session.is_done() && session.unsent().is_empty());
}

#[test]
fn errors_are_counted_and_have_no_latency() {
    let mut session = session(Kind::Write, None, RULES);
    session.fill(millis(0));
    let sent = send(&mut session, 16);
    let answer = reply(&sent[0], Err(Errno::ENOSPC));
    assert_eq!(session.handle_bytes(millis(1), &answer), Ok(()));
    assert_eq!(session.tally().errors["ENOSPC"], 1);
    assert_eq!(session.tally().requests(), 0);
}

#[test]
fn an_answer_to_nothing_ends_it() {
    let mut session = session(Kind::Flush, None, RULES);
    session.fill(millis(0));
    let sent = send(&mut session, 0);
    let answer = reply(&sent[0], Ok(()));
    assert_eq!(session.handle_bytes(millis(1), &answer), Ok(()));
    let again = session.handle_bytes(millis(1), &answer);
    assert_eq!(again, Err(Broken::Unasked));
    assert_eq!(
        session.handle_bytes(millis(1), &[0; SIMPLE_REPLY]),
        Err(Broken::NoReply)
    );
}

#[test]
fn a_block_that_changed_by_itself_is_found() {
    let rules = Rules { depth: 1, ..RULES };
    let area = Area { blocks: 1, ..AREA };
    let work = Work::Made(Made::new(shape(Kind::Read, None), area, 1));
    let mut session = of_work(rules, work);
    for content in [1, 2] {
        session.fill(millis(0));
        let sent = send(&mut session, 0);
        let bytes = [reply(&sent[0], Ok(())), vec![content; 16]].concat();
        assert_eq!(session.handle_bytes(millis(1), &bytes), Ok(()));
    }
    assert_eq!(session.tally().wrong_count, 1);
}
