//! What is kept for machines that the config knows, whatever machines that it does not know do.

use super::*;

/// `settings` with these addresses of our own network as its range.
fn ranged(first: u8, last: u8) -> impl Fn(&mut Settings) {
    move |settings| settings.networks[0].ranges = vec![here(first)..=here(last)]
}

#[test]
fn an_address_is_kept_for_a_known_machine_that_declined_one() {
    let mut lab = Lab::with(ranged(100, 102));
    lab.boots(&discover(guest(1)));
    let offered = lab.offered(&discover(FLOATING));
    assert_eq!(offered, here(101));
    lab.send(&message(MessageType::Decline, FLOATING).wants(offered));
    assert_eq!(lab.silence(&discover(guest(2))), Reason::NoAddress);
    assert_eq!(lab.boots(&discover(FLOATING)), here(102));
}

#[test]
fn an_address_is_kept_for_a_known_machine_that_had_one_in_another_network() {
    let mut lab = Lab::with(ranged(100, 101));
    let upstairs = lab.boots(&discover(FLOATING).behind(RELAY));
    lab.send(&message(MessageType::Release, FLOATING).at(upstairs));
    lab.boots(&discover(guest(1)));
    assert_eq!(lab.silence(&discover(guest(2))), Reason::NoAddress);
    assert_eq!(lab.boots(&discover(FLOATING)), here(101));
}

#[test]
fn an_address_is_kept_for_a_known_machine_whose_range_is_gone() {
    let mut lab = Lab::with(ranged(100, 101));
    lab.boots(&discover(FLOATING));
    let mut changed = settings();
    ranged(110, 111)(&mut changed);
    lab.server.replace(changed);
    lab.boots(&discover(guest(1)));
    assert_eq!(lab.silence(&discover(guest(2))), Reason::NoAddress);
    assert_eq!(lab.boots(&discover(FLOATING)), here(111));
}

#[test]
fn an_address_is_kept_for_a_machine_whose_own_one_another_still_has() {
    let alone = |settings: &mut Settings| {
        ranged(100, 102)(settings);
        settings.machines.truncate(1);
    };
    let mut lab = Lab::with(alone);
    lab.boots(&discover(guest(1)));
    let mut changed = settings();
    alone(&mut changed);
    changed.machines[0].address = Some(here(100));
    lab.server.replace(changed);
    lab.boots(&discover(guest(2)));
    assert_eq!(lab.silence(&discover(guest(3))), Reason::NoAddress);
    assert_eq!(lab.boots(&discover(OWN)), here(102));
}

#[test]
fn nothing_is_kept_for_a_machine_that_can_have_its_own_address() {
    let alone = |settings: &mut Settings| {
        ranged(100, 101)(settings);
        settings.machines.truncate(1);
    };
    let mut lab = Lab::with(alone);
    lab.boots(&discover(guest(1)));
    assert_eq!(lab.boots(&discover(guest(2))), here(101));
    assert_eq!(lab.boots(&discover(OWN)), here(10));
}

#[test]
fn an_offer_that_a_known_machine_needs_by_now_can_not_be_accepted() {
    let mut lab = Lab::with(ranged(100, 101));
    assert_eq!(lab.offered(&discover(guest(1))), here(100));
    assert_eq!(lab.offered(&discover(FLOATING)), here(101));
    lab.send(&message(MessageType::Decline, FLOATING).wants(here(101)));
    lab.refused(&accepts(guest(1), here(100)));
    assert_eq!(lab.boots(&discover(FLOATING)), here(100));
}
