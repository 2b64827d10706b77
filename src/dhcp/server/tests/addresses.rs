//! Which address a machine gets: its own, the one it had, one of a range, probed or not.

use super::*;
use crate::dhcp::lease::Saved;
use crate::limits::{DHCP_OFFER_TIME, DHCP_OFFERS_MAX, DHCP_PROBE_TIME, DHCP_QUARANTINE_TIME};

#[test]
fn a_machine_with_an_own_address_gets_that() {
    assert_eq!(Lab::new().boots(&discover(OWN)), here(10));
}

#[test]
fn machines_are_known_by_client_identifier_or_uuid_too() {
    let mut lab = Lab::new();
    let kiosk = discover(guest(8)).option(code::CLIENT_IDENTIFIER, &b"\0kiosk"[..]);
    assert_eq!(lab.boots(&kiosk), here(11));
    let tower = discover(guest(9)).option(code::MACHINE_UUID, uuid_option());
    assert_eq!(lab.boots(&tower), here(12));
}

#[test]
fn one_machine_has_one_address_from_firmware_to_system() {
    let mut lab = Lab::new();
    let firmware = pxe(GUEST, 7).option(code::CLIENT_IDENTIFIER, uuid_option());
    let mut firmware = firmware;
    firmware
        .options
        .set(code::MACHINE_UUID, [&[0], [3; 16].as_slice()].concat());
    let address = lab.boots(&firmware);
    let grub = discover(GUEST);
    let initramfs = discover(GUEST).option(code::CLIENT_IDENTIFIER, [&[1], &GUEST.0[..]].concat());
    let system = discover(GUEST).option(code::CLIENT_IDENTIFIER, &b"\xff1234\0\x01"[..]);
    for stage in [grub, initramfs, system] {
        assert_eq!(lab.boots(&stage), address);
    }
}

#[test]
fn a_machine_that_is_known_by_uuid_stays_known_when_its_initramfs_does_not_say_it() {
    let mut lab = Lab::new();
    assert_eq!(lab.boots(&pxe(GUEST, 7)), here(12));
    assert_eq!(lab.boots(&discover(GUEST)), here(12));
    let card_elsewhere = pxe(GUEST, 7).option(code::MACHINE_UUID, [0; 17]);
    assert_eq!(lab.boots(&card_elsewhere), here(100));
}

#[test]
fn a_machine_gets_the_address_that_it_had() {
    let mut lab = Lab::new();
    for number in 1..=5 {
        lab.boots(&discover(guest(number)));
    }
    lab.wait(10 * HOUR);
    assert_eq!(lab.boots(&discover(guest(4))), here(103));
}

#[test]
fn a_machine_gets_the_address_that_it_asks_for_where_that_is_free() {
    let mut lab = Lab::new();
    assert_eq!(lab.boots(&discover(guest(1)).wants(here(105))), here(105));
    assert_eq!(lab.offered(&discover(guest(2)).wants(here(105))), here(100));
    assert_eq!(lab.offered(&discover(guest(3)).wants(here(10))), here(101));
    assert_eq!(lab.offered(&discover(guest(4)).wants(here(250))), here(102));
}

#[test]
fn nobody_is_given_an_address_that_the_config_names() {
    let named = |settings: &mut Settings| {
        settings.networks[0].ranges = vec![here(0)..=here(14)];
        settings.told.routers = vec![here(2)];
        settings.networks[0].told.dns = vec![here(3)];
        settings.unknown = Unknown::Serve;
    };
    let mut lab = Lab::with(named);
    let mut given = Vec::new();
    for number in 1..=9 {
        given.extend(
            replies(&lab.send(&discover(guest(number))))
                .first()
                .map(|reply| {
                    let octets = reply.message.yiaddr.octets();
                    octets[3]
                }),
        );
    }
    // Without the network's, ours, the router, the name server, three own ones; one is kept.
    assert_eq!(given, [4, 5, 6, 7, 8, 9, 13]);
}

#[test]
fn nobody_is_given_a_server_that_a_machine_or_another_network_is_told_of() {
    let mut lab = Lab::with(|settings| {
        settings.machines[0].told.dns = vec![here(100)];
        settings.machines[1].told.ntp = vec![here(101)];
        settings.networks[1].told.routers = vec![here(102)];
    });
    assert_eq!(lab.offered(&discover(GUEST)), here(103));
}

#[test]
fn a_relay_says_which_network_it_is() {
    let mut lab = Lab::new();
    assert_eq!(lab.offered(&discover(guest(1)).behind(RELAY)), there(100));
    let selected = discover(guest(2))
        .behind(Ipv4Addr::new(192, 0, 2, 1))
        .option(code::RELAY_AGENT, [5, 4, 10, 78, 0, 0]);
    assert_eq!(lab.offered(&selected), there(101));
    let by_client = discover(guest(3)).option(code::SUBNET_SELECTION, [10, 78, 0, 0]);
    assert_eq!(lab.offered(&by_client), there(102));
    let nowhere = discover(guest(4)).behind(Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(lab.silence(&nowhere), Reason::Network);
}

#[test]
fn a_machine_whose_own_address_is_in_another_network_gets_one_of_the_range() {
    assert_eq!(Lab::new().boots(&discover(OWN).behind(RELAY)), there(100));
}

#[test]
fn an_own_address_that_is_leased_to_another_is_given_when_that_lease_is_over() {
    let mut lab = Lab::new();
    assert_eq!(lab.boots(&discover(GUEST)), here(100));
    let mut changed = settings();
    changed.machines[0].address = Some(here(100));
    lab.server.replace(changed);
    assert_eq!(lab.offered(&discover(OWN)), here(101));
    let refusal = lab.refused(&renews(GUEST, here(100)));
    assert!(
        refusal.why.concat().contains("another machine"),
        "{:?}",
        refusal.why
    );
    lab.wait(HOUR);
    assert_eq!(lab.offered(&discover(OWN)), here(100));
}

/// What GUEST has is the own address of OWN from now on.
fn taken_from_guest() -> Lab {
    let mut lab = Lab::new();
    assert_eq!(lab.boots(&discover(GUEST)), here(100));
    let mut changed = settings();
    changed.machines[0].address = Some(here(100));
    lab.server.replace(changed);
    lab
}

#[test]
fn an_own_address_is_free_once_its_last_machine_was_refused_it_and_begins_anew() {
    let mut lab = taken_from_guest();
    lab.refused(&renews(GUEST, here(100)));
    assert_eq!(
        lab.offered(&discover(OWN)),
        here(101),
        "the NAK may be lost"
    );
    let effects = lab.send(&discover(GUEST));
    let [Effect::Save(record), Effect::Send(offer)] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!((record.address, record.state), (here(100), Saved::Ended));
    assert_ne!(offer.message.yiaddr, here(100));
    assert_eq!(lab.boots(&discover(OWN)), here(100));
}

#[test]
fn an_own_address_is_free_when_the_firmware_of_its_last_machine_asks() {
    let mut lab = taken_from_guest();
    lab.send(&discover(GUEST));
    assert_ne!(lab.offered(&discover(OWN)), here(100), "a system may run");
    lab.send(&discover(GUEST).option(code::ARCHITECTURE, [0, 7]));
    assert_eq!(lab.offered(&discover(OWN)), here(100));
}

#[test]
fn a_machine_keeps_its_address_when_the_config_knows_it_by_something_else() {
    let named = |message: Message| message.option(code::CLIENT_IDENTIFIER, &b"box"[..]);
    let mut lab = Lab::new();
    lab.boots(&named(discover(OWN)));
    let mut changed = settings();
    changed.machines[0].mac = None;
    changed.machines[0].client_identifier = Some(b"box".to_vec());
    lab.server.replace(changed);
    assert_eq!(lab.acked(&named(renews(OWN, here(10)))), here(10));
    assert_eq!(lab.boots(&named(discover(OWN))), here(10));
    lab.server.replace(settings());
    assert_eq!(lab.acked(&named(renews(OWN, here(10)))), here(10));
}

#[test]
fn a_lease_is_not_another_machine_s_because_of_its_card() {
    let mut lab = Lab::new();
    assert_eq!(lab.boots(&pxe(GUEST, 7)), here(12));
    let elsewhere = discover(GUEST).option(code::MACHINE_UUID, [0; 17]);
    lab.send(&elsewhere);
    assert_eq!(lab.boots(&pxe(guest(9), 7)), here(12));
}

#[test]
fn a_new_card_gets_the_address_of_the_old_one_that_was_refused_it() {
    let mut lab = Lab::new();
    lab.boots(&discover(OWN));
    let mut changed = settings();
    changed.machines[0].mac = Some(guest(9));
    lab.server.replace(changed);
    lab.refused(&renews(OWN, here(10)));
    lab.send(&discover(OWN));
    assert_eq!(lab.boots(&discover(guest(9))), here(10));
}

#[test]
fn a_machine_that_was_refused_its_address_and_given_it_again_keeps_it() {
    let mut lab = taken_from_guest();
    lab.refused(&renews(GUEST, here(100)));
    lab.server.replace(settings());
    lab.acked(&renews(GUEST, here(100)));
    let mut changed = settings();
    changed.machines[0].address = Some(here(100));
    lab.server.replace(changed);
    lab.send(&discover(GUEST));
    assert!(lab.server.holder_of(here(100)).is_some());
}

#[test]
fn a_machine_that_waits_for_its_own_address_is_reported_once() {
    let mut lab = taken_from_guest();
    lab.wait(HOUR / 4);
    let waits = Event::OwnLeased {
        address: here(100),
        holder: GUEST,
        left: HOUR * 3 / 4,
    };
    assert_eq!(events(&lab.send(&discover(OWN))), [waits]);
    assert_eq!(events(&lab.send(&discover(OWN))), []);
}

#[test]
fn machines_that_are_in_no_config_can_be_left_alone() {
    let mut lab = Lab::with(|settings| settings.unknown = Unknown::Ignore);
    assert_eq!(lab.silence(&discover(GUEST)), Reason::Unknown);
    assert_eq!(lab.offered(&discover(FLOATING)), here(100));
}

#[test]
fn a_flood_of_offers_leaves_known_machines_what_they_need() {
    let mut lab = Lab::new();
    for number in 0..=255 {
        lab.send(&discover(guest(number)));
    }
    assert_eq!(
        lab.silence(&discover(MacAddress([2, 0, 0, 0, 2, 0]))),
        Reason::NoAddress
    );
    assert_eq!(lab.offered(&discover(FLOATING)), here(109));
    assert_eq!(lab.offered(&discover(OWN)), here(10));
}

#[test]
fn offers_that_nobody_takes_are_bounded_and_end() {
    let large = |settings: &mut Settings| {
        settings.networks[0].prefix = 16;
        settings.networks[0].address = Ipv4Addr::new(10, 77, 0, 0);
        settings.networks[0].ranges =
            vec![Ipv4Addr::new(10, 77, 1, 0)..=Ipv4Addr::new(10, 77, 30, 255)];
    };
    let mut lab = Lab::with(large);
    let card = |number: usize| {
        let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
        MacAddress([2, 0, 0, 1, high, low])
    };
    for number in 0..DHCP_OFFERS_MAX {
        lab.offered(&discover(card(number)));
    }
    let next = discover(card(DHCP_OFFERS_MAX));
    assert_eq!(lab.silence(&next), Reason::NoAddress);
    assert_eq!(lab.offered(&discover(card(3))), Ipv4Addr::new(10, 77, 1, 3));
    lab.offered(&discover(FLOATING));
    lab.wait(DHCP_OFFER_TIME);
    assert_eq!(
        lab.offered(&next),
        Ipv4Addr::new(10, 77, 1, 0),
        "before any unused one"
    );
}

#[test]
fn a_card_is_known_by_what_it_said_in_another_network() {
    let mut lab = Lab::new();
    lab.boots(&pxe(GUEST, 7));
    lab.boots(&pxe(GUEST, 7).behind(RELAY));
    lab.send(&message(MessageType::Decline, GUEST).wants(there(100)));
    lab.boots(&pxe(guest(9), 7).behind(RELAY));
    assert_eq!(lab.boots(&discover(GUEST)), here(12));
}

#[test]
fn known_machines_take_over_what_others_were_merely_offered() {
    let mut lab = Lab::with(|settings| settings.machines[1].address = Some(here(13)));
    for number in 0..=255 {
        lab.send(&discover(guest(number)));
    }
    let mut changed = settings();
    changed
        .machines
        .push(machine("late", Some(guest(200)), None));
    lab.server.replace(changed);
    assert_eq!(lab.boots(&discover(guest(200))), here(100));
    let refusal = lab.refused(&accepts(guest(0), here(100)));
    assert!(refusal.why.concat().contains("no longer free"));
}

fn probing() -> Lab {
    Lab::with(|settings| settings.probe = true)
}

#[test]
fn a_fresh_address_is_offered_once_nobody_answers_to_it() {
    let mut lab = probing();
    let effects = lab.send(&discover(GUEST));
    assert_eq!(
        (probes(&effects), replies(&effects).len()),
        (vec![here(100)], 0)
    );
    let reply = one_reply(&lab.probed(here(100), Probed::Free));
    assert_eq!(
        (kind(&reply), reply.message.yiaddr),
        (Some(MessageType::Offer), here(100))
    );
    assert_eq!(
        lab.boots(&discover(GUEST)),
        here(100),
        "without another probe"
    );
}

#[test]
fn a_probe_holds_up_nobody_else() {
    let mut lab = probing();
    lab.send(&discover(guest(1)));
    lab.send(&discover(guest(2)));
    let reply = one_reply(&lab.probed(here(101), Probed::Free));
    assert_eq!(reply.message.chaddr, guest(2));
}

#[test]
fn an_address_that_somebody_uses_is_left_alone_and_another_one_tried() {
    let mut lab = probing();
    lab.send(&discover(GUEST));
    let effects = lab.probed(here(100), Probed::Taken);
    assert_eq!(events(&effects), [Event::Taken(here(100))]);
    assert_eq!(saved(&effects).len(), 1, "so that a restart knows it");
    assert_eq!(probes(&effects), [here(101)]);
    let reply = one_reply(&lab.probed(here(101), Probed::Free));
    assert_eq!(reply.message.yiaddr, here(101));
}

#[test]
fn a_request_that_comes_again_is_answered_once() {
    let mut lab = probing();
    lab.send(&discover(GUEST));
    let mut again = discover(GUEST);
    again.xid = 8;
    assert_eq!(lab.silence(&again), Reason::Probing);
    assert_eq!(
        one_reply(&lab.probed(here(100), Probed::Free)).message.xid,
        8
    );
    assert_eq!(lab.probed(here(100), Probed::Free), []);
}

#[test]
fn a_probe_whose_answer_is_lost_is_made_again() {
    let mut lab = probing();
    lab.send(&discover(GUEST));
    lab.wait(DHCP_PROBE_TIME);
    assert_eq!(probes(&lab.send(&discover(GUEST))), [here(100)]);
    lab.wait(DHCP_OFFER_TIME);
    assert_eq!(
        lab.probed(here(100), Probed::Taken),
        [],
        "too late to matter"
    );
}

#[test]
fn what_was_never_offered_is_accepted_once_nobody_answers_to_it() {
    for (mac, address) in [(GUEST, here(105)), (OWN, here(10))] {
        let mut lab = probing();
        let effects = lab.send(&accepts(mac, address));
        assert_eq!(
            (probes(&effects), replies(&effects)),
            (vec![address], vec![])
        );
        assert_eq!(lab.silence(&accepts(mac, address)), Reason::Probing);
        let effects = lab.probed(address, Probed::Free);
        assert_eq!(saved(&effects).len(), 1);
        let reply = one_reply(&effects);
        assert_eq!(
            (kind(&reply), reply.message.yiaddr),
            (Some(MessageType::Ack), address)
        );
    }
}

#[test]
fn what_was_never_offered_is_refused_when_somebody_answers_to_it() {
    for (mac, address) in [(GUEST, here(105)), (OWN, here(10))] {
        let mut lab = probing();
        lab.send(&accepts(mac, address));
        let effects = lab.probed(address, Probed::Taken);
        assert_eq!(kind(&one_reply(&effects)), Some(MessageType::Nak));
        assert_eq!(events(&effects), [Event::Taken(address)]);
        assert_ne!(lab.send(&discover(mac)), []);
        assert_eq!(lab.server.holder_of(address), None);
    }
}

#[test]
fn a_remembered_address_is_acknowledged_once_nobody_answers_to_it() {
    let mut lab = probing();
    assert_eq!(probes(&lab.send(&remembers(OWN, here(10)))), [here(10)]);
    let ack = one_reply(&lab.probed(here(10), Probed::Free));
    assert_eq!(
        (kind(&ack), ack.message.yiaddr),
        (Some(MessageType::Ack), here(10))
    );
    assert_eq!(lab.acked(&remembers(OWN, here(10))), here(10));
    lab.wait(3 * HOUR);
    assert_eq!(probes(&lab.send(&remembers(OWN, here(10)))), [here(10)]);
}

#[test]
fn a_remembered_address_is_refused_when_somebody_answers_to_it() {
    let mut lab = probing();
    lab.send(&remembers(OWN, here(10)));
    let nak = one_reply(&lab.probed(here(10), Probed::Taken));
    assert_eq!(kind(&nak), Some(MessageType::Nak));
    assert!(nak.why.concat().contains("somebody else"), "{:?}", nak.why);
}

#[test]
fn bootp_gives_an_address_once_nobody_answers_to_it() {
    let mut lab = probing();
    assert_eq!(probes(&lab.send(&Message::request(7, OWN))), [here(10)]);
    let reply = one_reply(&lab.probed(here(10), Probed::Free));
    assert_eq!((kind(&reply), reply.message.yiaddr), (None, here(10)));
    let mut lab = probing();
    lab.send(&Message::request(7, OWN));
    assert_eq!(
        replies(&lab.probed(here(10), Probed::Taken)),
        [] as [&Reply; 0]
    );
}

#[test]
fn a_machine_that_runs_is_held_up_by_no_probe() {
    let mut lab = probing();
    assert_eq!(lab.acked(&renews(OWN, here(10))), here(10));
    lab.wait(3 * HOUR);
    assert_eq!(lab.acked(&renews(OWN, here(10))), here(10));
}

#[test]
fn an_offer_that_is_accepted_before_its_probe_is_over_waits_for_that() {
    let mut lab = probing();
    lab.send(&discover(GUEST));
    assert_eq!(lab.silence(&accepts(GUEST, here(100))), Reason::Probing);
    let reply = one_reply(&lab.probed(here(100), Probed::Free));
    assert_eq!(kind(&reply), Some(MessageType::Ack));
}

#[test]
fn a_machine_that_boots_again_is_not_held_up_by_a_probe() {
    let mut lab = probing();
    lab.send(&discover(GUEST));
    lab.probed(here(100), Probed::Free);
    lab.acked(&accepts(GUEST, here(100)));
    lab.wait(HOUR / 2);
    assert_eq!(lab.offered(&discover(GUEST)), here(100));
    lab.wait(10 * HOUR);
    assert_eq!(probes(&lab.send(&discover(GUEST))), [here(100)]);
}

#[test]
fn a_declined_address_is_given_to_nobody_for_a_while() {
    let mut lab = Lab::new();
    let own = lab.boots(&discover(OWN));
    let decline = message(MessageType::Decline, OWN)
        .wants(own)
        .of_server(HERE);
    let effects = lab.send(&decline);
    assert_eq!(events(&effects), [Event::Declined(own)]);
    assert_eq!(saved(&effects).len(), 1);
    assert_eq!(lab.offered(&discover(OWN)), here(100));
    lab.wait(DHCP_QUARANTINE_TIME);
    assert_eq!(lab.offered(&discover(OWN)), own);
}

#[test]
fn a_machine_is_not_offered_again_what_it_declined() {
    let mut lab = Lab::new();
    let address = lab.boots(&discover(GUEST));
    lab.send(
        &message(MessageType::Decline, GUEST)
            .wants(address)
            .of_server(HERE),
    );
    lab.refused(&accepts(GUEST, address));
    assert_eq!(lab.boots(&discover(GUEST)), here(101));
    lab.wait(DHCP_QUARANTINE_TIME);
    assert_eq!(lab.boots(&discover(guest(2))), address);
}

#[test]
fn a_machine_can_not_decline_what_it_no_longer_has() {
    let mut lab = Lab::new();
    let address = lab.offered(&discover(GUEST));
    lab.wait(DHCP_OFFER_TIME);
    let decline = message(MessageType::Decline, GUEST).wants(address);
    assert_eq!(lab.silence(&decline), Reason::NoRecord);
}

#[test]
fn a_machine_in_no_config_does_not_get_back_what_a_known_one_needs() {
    let mut lab = Lab::with(|settings| settings.networks[0].ranges = vec![here(100)..=here(101)]);
    lab.offered(&discover(guest(1)));
    lab.wait(DHCP_OFFER_TIME);
    assert_eq!(lab.acked(&accepts(guest(2), here(101))), here(101));
    assert_eq!(lab.silence(&discover(guest(1))), Reason::NoAddress);
    lab.refused(&accepts(guest(1), here(100)));
    assert_eq!(lab.boots(&discover(FLOATING)), here(100));
}

#[test]
fn nobody_can_decline_or_release_what_is_another_s() {
    let mut lab = Lab::new();
    let address = lab.boots(&discover(guest(1)));
    let decline = message(MessageType::Decline, guest(2)).wants(address);
    assert_eq!(lab.silence(&decline), Reason::NoRecord);
    let release = message(MessageType::Release, guest(2)).at(address);
    assert_eq!(lab.silence(&release), Reason::NoRecord);
    let elsewhere = message(MessageType::Release, guest(1)).at(address);
    let elsewhere = elsewhere.of_server(here(99));
    assert_eq!(lab.silence(&elsewhere), Reason::OtherServer);
    assert!(lab.server.holder_of(address).is_some());
}

#[test]
fn an_address_that_was_given_back_is_kept_for_its_machine() {
    let mut lab = Lab::new();
    let address = lab.boots(&discover(guest(1)));
    let effects = lab.send(&message(MessageType::Release, guest(1)).at(address));
    assert_eq!(events(&effects), [Event::Released(address)]);
    assert_eq!(saved(&effects).len(), 1);
    assert_eq!(lab.server.holder_of(address), None);
    assert_eq!(lab.boots(&discover(guest(2))), here(101));
    assert_eq!(lab.boots(&discover(guest(1))), address);
}
