//! Machines that are known by their UUID: their cards, and restarts.

use super::*;
use crate::limits::DHCP_QUARANTINE_TIME;

/// The server is ended and started again with what was saved.
fn restarted(lab: &Lab, settings: Settings, effects: &[Effect]) -> Lab {
    let records = saved(effects).into_iter().cloned();
    Lab {
        server: Server::new(settings, Leases::recovered(records)),
        now: lab.now,
    }
}

#[test]
fn a_machine_that_got_another_name_keeps_its_lease_over_a_restart() {
    let mut lab = Lab::new();
    let mut effects = lab.send(&accepts(GUEST, here(100)));
    let mut changed = settings();
    changed.machines[3].address = Some(here(100));
    lab.server.replace(changed.clone());
    let with_uuid = accepts(GUEST, here(100)).option(code::MACHINE_UUID, uuid_option());
    effects.extend(lab.send(&with_uuid));
    let mut lab = restarted(&lab, changed, &effects);
    assert_eq!(lab.acked(&renews(GUEST, here(100))), here(100));
}

#[test]
fn the_second_card_of_a_machine_that_is_known_by_the_first_keeps_its_lease_over_a_restart() {
    let mut known = settings();
    known.machines[3].mac = Some(guest(3));
    let mut lab = Lab::with(|settings| *settings = known.clone());
    let firmware = accepts(guest(6), here(12)).option(code::MACHINE_UUID, uuid_option());
    let effects = lab.send(&firmware);
    let mut lab = restarted(&lab, known, &effects);
    assert_eq!(lab.acked(&renews(guest(6), here(12))), here(12));
}

#[test]
fn another_name_is_saved_once() {
    let mut lab = Lab::new();
    lab.boots(&discover(GUEST));
    let mut changed = settings();
    changed.machines[3].address = Some(here(100));
    lab.server.replace(changed);
    assert_eq!(saved(&lab.send(&pxe(GUEST, 7))).len(), 1);
    assert_eq!(saved(&lab.send(&pxe(GUEST, 7))).len(), 0);
    assert_eq!(saved(&lab.send(&discover(GUEST))).len(), 0);
}

/// The tower has its own address on one of its cards; its other card asks.
fn two_cards() -> Lab {
    let mut lab = Lab::new();
    assert_eq!(lab.boots(&pxe(GUEST, 7)), here(12));
    let mut probing = settings();
    probing.probe = true;
    lab.server.replace(probing);
    lab
}

#[test]
fn another_card_of_a_machine_gets_its_address_once_nobody_answers_to_it() {
    let mut lab = two_cards();
    let effects = lab.send(&pxe(guest(9), 7));
    assert_eq!(
        (probes(&effects), replies(&effects)),
        (vec![here(12)], vec![])
    );
    let offer = one_reply(&lab.probed(here(12), Probed::Free));
    assert_eq!(offer.message.yiaddr, here(12));
    assert_eq!(lab.boots(&pxe(guest(9), 7)), here(12));
    assert_eq!(
        probes(&lab.send(&pxe(GUEST, 7))),
        [here(12)],
        "and back again"
    );
}

#[test]
fn a_card_keeps_its_address_when_another_of_the_same_uuid_comes() {
    let mut lab = two_cards();
    lab.send(&pxe(guest(9), 7));
    let effects = lab.probed(here(12), Probed::Taken);
    let shared = Event::Shared {
        address: here(12),
        holder: GUEST,
    };
    assert_eq!(events(&effects), [shared]);
    assert_eq!(saved(&effects), [] as [&Record; 0], "the lease stays");
    assert_eq!(probes(&effects), [here(100)]);
    let offer = one_reply(&lab.probed(here(100), Probed::Free));
    assert_eq!(offer.message.yiaddr, here(100));
    assert_eq!(lab.boots(&pxe(guest(9), 7)), here(100));
    assert_eq!(lab.acked(&renews(GUEST, here(12))), here(12));
    assert_eq!(lab.boots(&pxe(GUEST, 7)), here(12));
    assert_eq!(lab.acked(&renews(guest(9), here(100))), here(100));
    lab.wait(DHCP_QUARANTINE_TIME);
    assert_eq!(probes(&lab.send(&pxe(guest(9), 7))), [here(12)]);
}

#[test]
fn a_card_can_not_take_what_another_of_the_same_uuid_uses() {
    for asks in [accepts(guest(9), here(12)), remembers(guest(9), here(12))] {
        let mut lab = two_cards();
        let asks = asks.option(code::MACHINE_UUID, uuid_option());
        assert_eq!(probes(&lab.send(&asks)), [here(12)]);
        let reply = one_reply(&lab.probed(here(12), Probed::Taken));
        assert_eq!(kind(&reply), Some(MessageType::Nak));
        lab.refused(&asks);
        assert_eq!(lab.acked(&renews(GUEST, here(12))), here(12));
    }
}

#[test]
fn a_card_can_not_give_away_what_another_of_the_same_uuid_has() {
    let mut lab = two_cards();
    for asks in [
        message(MessageType::Decline, guest(9)).wants(here(12)),
        message(MessageType::Release, guest(9)).at(here(12)),
    ] {
        let asks = asks.option(code::MACHINE_UUID, uuid_option());
        assert_eq!(lab.silence(&asks), Reason::NoRecord);
    }
    assert_eq!(lab.acked(&renews(GUEST, here(12))), here(12));
}
