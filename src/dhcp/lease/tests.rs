//! Bindings over time, and the file that they are saved in.

#![allow(clippy::indexing_slicing, reason = "a test ends at the first surprise")]

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::file::{self, Chain, Damaged};
use super::*;
use crate::limits::{DHCP_OFFER_TIME, DHCP_QUARANTINE_TIME};

const HOUR: Duration = Duration::from_secs(3600);
const NOW: Moment = Moment(1_000_000);
const BOOT: file::BootId = [7; 16];
const NEXT_BOOT: file::BootId = [8; 16];

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, last)
}

fn mac(number: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, number])
}

fn key(number: u8) -> Key {
    Key::Mac(mac(number))
}

/// A table with one pool of the addresses 100 to `last`, 102 left out.
fn table(last: u8, herd: Herd) -> Leases {
    let pool = Pool::new(
        vec![address(100)..=address(last)],
        [address(102), address(7)],
    );
    Leases::default().arranged(vec![pool], herd)
}

fn anybody(last: u8) -> Leases {
    table(last, Herd::default())
}

impl Leases {
    fn lease_to(&mut self, now: Moment, last: u8, number: u8) -> Option<Record> {
        self.lease(now, address(last), &key(number), mac(number), HOUR)
    }

    fn offer_to(&mut self, now: Moment, last: u8, number: u8) {
        self.offer(now, address(last), &key(number), mac(number));
    }

    fn state(&self, last: u8) -> Option<State> {
        self.get(address(last)).map(|binding| binding.state)
    }

    fn picked(&mut self, is_known: bool) -> Option<Ipv4Addr> {
        self.pick(0, is_known).map(|(address, _)| address)
    }
}

impl Leases {
    /// Whether the pools are what the bindings make of new ones.
    pub(in crate::dhcp) fn is_consistent(&self) -> bool {
        let counts = |leases: &Self| {
            let pools = leases.pools.iter();
            pools
                .map(|pool| (pool.spare(), pool.offered(), pool.reserve.open()))
                .collect::<Vec<_>>()
        };
        let fresh = self.pools.iter().map(Pool::emptied).collect();
        let again = self.clone().arranged(fresh, self.herd.clone());
        counts(self) == counts(&again)
    }
}

#[test]
fn the_last_record_of_an_address_counts() {
    let later = Moment(NOW.0 + 1);
    let leases = Leases::recovered([leased(1, key(1), NOW), leased(1, key(2), later)]);
    let binding = leases.get(address(1)).unwrap();
    assert_eq!((&binding.key, binding.until), (&key(2), later));
    assert_eq!(leases.of(&key(1)).count(), 0);
    assert_eq!(leases.next_end(), Some(later));
}

#[test]
fn addresses_nobody_had_are_given_in_order() {
    let mut leases = anybody(103);
    for last in [100, 101, 103] {
        assert_eq!(leases.picked(false), Some(address(last)));
        leases.lease_to(NOW, last, last);
    }
    assert_eq!(leases.picked(false), None);
}

#[test]
fn leases_that_are_over_keep_their_machine_and_are_reused_oldest_first() {
    let mut leases = anybody(101);
    leases.lease_to(NOW.after(HOUR), 100, 1);
    leases.lease_to(NOW, 101, 2);
    leases.pass(NOW.after(3 * HOUR));
    assert_eq!(leases.state(101), Some(State::Expired));
    assert_eq!(leases.of(&key(2)).count(), 1);
    assert_eq!(leases.pick(0, false), Some((address(101), Source::Expired)));
}

#[test]
fn an_offer_that_nobody_took_is_the_first_to_go() {
    let mut leases = anybody(110);
    leases.offer_to(NOW, 105, 1);
    assert_eq!(leases.picked(false), Some(address(100)));
    leases.pass(NOW.after(DHCP_OFFER_TIME));
    assert_eq!(leases.pick(0, false), Some((address(105), Source::Lapsed)));
}

#[test]
fn an_offer_of_an_address_that_its_machine_had_leaves_it_that() {
    let mut leases = anybody(110);
    leases.lease_to(NOW, 100, 1);
    leases.pass(NOW.after(HOUR));
    leases.offer_to(NOW.after(HOUR), 100, 1);
    leases.pass(NOW.after(2 * HOUR));
    assert_eq!(leases.state(100), Some(State::Expired));
}

#[test]
fn a_lease_is_never_cut_short() {
    let mut leases = anybody(110);
    leases.lease_to(NOW, 100, 1);
    let short = Duration::from_secs(60);
    let again = leases.lease(NOW, address(100), &key(1), mac(1), short);
    assert_eq!(again, None, "nothing is new");
    leases.offer_to(NOW, 100, 1);
    assert_eq!(leases.state(100), Some(State::Leased));
    assert_eq!(
        leases.get(address(100)).map(|b| b.until),
        Some(NOW.after(HOUR))
    );
}

#[test]
fn a_declined_address_is_nobody_s_for_a_while() {
    let mut leases = anybody(100);
    leases.lease_to(NOW, 100, 1);
    assert!(leases.decline(NOW, address(100)).is_some());
    assert_eq!(leases.picked(true), None);
    leases.pass(NOW.after(DHCP_QUARANTINE_TIME));
    assert_eq!(leases.picked(true), Some(address(100)));
}

#[test]
fn unknown_machines_leave_as_many_addresses_as_known_ones_may_need() {
    let floating: std::collections::HashSet<_> = [key(1), key(2)].into();
    let known = floating.clone();
    let herd = Herd {
        known,
        floating: floating.into(),
        ..Herd::default()
    };
    let mut leases = table(104, herd);
    for last in [100, 101] {
        assert_eq!(leases.picked(false), Some(address(last)));
        leases.offer_to(NOW, last, last);
    }
    assert_eq!(leases.picked(false), None, "of four, two are kept");
    leases.lease_to(NOW, 103, 1);
    assert_eq!(
        leases.picked(false),
        None,
        "of two, one is had and one kept"
    );
    assert_eq!(leases.picked(true), Some(address(104)));
}

#[test]
fn a_known_machine_takes_over_what_an_unknown_one_was_offered_but_no_lease() {
    let known: std::collections::HashSet<_> = [key(1)].into();
    let mut leases = table(
        101,
        Herd {
            known,
            ..Herd::default()
        },
    );
    leases.lease_to(NOW, 100, 8);
    leases.offer_to(NOW, 101, 9);
    assert_eq!(leases.pick(0, true), Some((address(101), Source::Offered)));
    leases.lease_to(NOW, 101, 9);
    assert_eq!(leases.pick(0, true), None);
}

#[test]
fn what_a_known_machine_had_goes_to_no_unknown_one() {
    let known: std::collections::HashSet<_> = [key(1)].into();
    let mut leases = table(
        100,
        Herd {
            known,
            ..Herd::default()
        },
    );
    leases.lease_to(NOW, 100, 1);
    leases.pass(NOW.after(HOUR));
    assert_eq!(leases.pick(0, false), None);
    assert_eq!(leases.pick(0, true), Some((address(100), Source::Kept)));
}

#[test]
fn a_table_that_is_arranged_anew_keeps_its_bindings() {
    let mut leases = anybody(101);
    leases.lease_to(NOW, 100, 1);
    let pool = Pool::new(vec![address(100)..=address(103)], []);
    let mut leases = leases.arranged(vec![pool], Herd::default());
    assert_eq!(leases.state(100), Some(State::Leased));
    assert_eq!(leases.picked(false), Some(address(101)));
}

fn leased(last: u8, key: Key, until: Moment) -> Record {
    Record {
        address: address(last),
        key,
        mac: mac(last),
        state: Saved::Leased,
        until,
        length: 3_600_000,
    }
}

/// A file that began with two records and got two batches, and where each of those begins.
fn written() -> (Vec<u8>, Vec<Record>, [usize; 2]) {
    let until = NOW.after(HOUR);
    let mut records = vec![
        leased(1, key(1), until),
        leased(2, Key::Client([1, 2, 3].into()), until),
        leased(3, Key::Uuid([9; 16]), until),
        leased(4, key(4), until),
        leased(5, key(5), until),
    ];
    records[1].state = Saved::Ended;
    records[1].until = NOW;
    records[2].state = Saved::Declined;
    let (mut bytes, mut chain): (Vec<u8>, Chain) = file::start(&BOOT, records[..2].to_vec());
    let first = bytes.len();
    bytes.extend(chain.append(&records[2..4]));
    let second = bytes.len();
    bytes.extend(chain.append(&records[4..]));
    (bytes, records, [first, second])
}

#[test]
fn what_is_saved_is_read_again() {
    let (bytes, records, _) = written();
    let recovered = file::read(&bytes, &BOOT, NOW).unwrap();
    assert_eq!((recovered.records, recovered.torn), (records, 0));
}

#[test]
fn the_file_has_the_bytes_that_are_drawn() {
    let (bytes, mut chain) = file::start(&BOOT, []);
    assert_eq!(bytes.len(), 28 + 16 + 4);
    assert_eq!(bytes[..8], [b'C', b'W', b'L', b'1', 0, 16, 1, 1]);
    assert_eq!(bytes[28..44], BOOT);
    let record = chain.append(&[leased(9, key(1), Moment(0x0102))]);
    assert_eq!(record[4..8], [0, 34, 1, 2]);
    assert_eq!(
        record[8..24],
        [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    );
    assert_eq!(record[24..28], bytes[44..48]);
    assert_eq!(record[28..39], [10, 77, 0, 9, 2, 0, 0, 0, 0, 9, 1]);
    assert_eq!(record[39..47], [0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(record[55..62], [1, 2, 0, 0, 0, 0, 1]);
}

#[test]
fn under_another_boot_leases_count_as_given_just_now() {
    let (bytes, _, _) = written();
    let now = Moment(5);
    let recovered = file::read(&bytes, &NEXT_BOOT, now).unwrap();
    assert_eq!(recovered.records[0].until, now.after(HOUR));
    assert_eq!(recovered.records[1].until, Moment(0));
}

#[test]
fn a_clock_that_went_back_makes_no_lease_longer() {
    let (bytes, _, _) = written();
    let recovered = file::read(&bytes, &BOOT, Moment(5)).unwrap();
    assert_eq!(recovered.records[0].until, Moment(5).after(HOUR));
}

#[test]
fn a_write_that_was_cut_anywhere_loses_that_write_only() {
    let (bytes, records, [_, second]) = written();
    for end in second..bytes.len() {
        let recovered = file::read(&bytes[..end], &BOOT, NOW).unwrap();
        assert_eq!(recovered.records, records[..4], "{end}");
        assert_eq!(recovered.torn, end - second);
    }
}

#[test]
fn the_end_of_a_batch_may_be_there_without_its_beginning() {
    let (mut bytes, records, [first, second]) = written();
    bytes.truncate(second);
    bytes[first] = 0;
    let recovered = file::read(&bytes, &BOOT, NOW).unwrap();
    assert_eq!(recovered.records, records[..2]);
}

#[test]
fn damage_before_a_later_batch_is_told_and_not_cut_off() {
    let (good, _, [first, second]) = written();
    for at in 0..second {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        let damaged = file::read(&bytes, &BOOT, NOW).unwrap_err();
        let start = at < 48;
        assert_eq!(damaged == Damaged::Start, start, "{at}: {damaged}");
        let middle = matches!(damaged, Damaged::Middle(frame) if frame <= at);
        assert!(
            start || middle,
            "{at}: {damaged}, batches at {first}, {second}"
        );
    }
}

#[test]
fn a_batch_of_another_file_is_told() {
    let (mut bytes, _, [_, second]) = written();
    let last = bytes.split_off(second);
    let (mut other, mut chain) = file::start(&NEXT_BOOT, []);
    other.extend(chain.append(&[leased(9, key(9), NOW)]));
    let at = other.len();
    other.extend(last);
    assert_eq!(file::read(&other, &BOOT, NOW), Err(Damaged::Order(at)));
    assert_eq!(file::read(&[], &BOOT, NOW), Err(Damaged::Start));
}

proptest! {
    #[test]
    fn no_file_does_harm(bytes in vec(any::<u8>(), 0..400), from in 0..400_usize) {
        let (mut file, _, _) = written();
        let from = from.min(file.len());
        file.splice(from.., bytes);
        let _ = file::read(&file, &BOOT, NOW);
    }
}
