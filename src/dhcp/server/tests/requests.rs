//! REQUEST in each of its states, and how long a lease is.

use super::*;

#[test]
fn what_was_offered_is_leased_and_saved_before_it_is_said() {
    let mut lab = Lab::new();
    let address = lab.offered(&discover(GUEST));
    let effects = lab.send(&accepts(GUEST, address));
    let [Effect::Save(record), Effect::Send(ack)] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!((record.address, record.mac), (address, GUEST));
    assert_eq!(record.until, lab.now.after(HOUR));
    assert_eq!(kind(ack), Some(MessageType::Ack));
    assert_eq!(ack.message.yiaddr, address);
}

#[test]
fn whoever_holds_a_lease_is_known_by_name() {
    let mut lab = Lab::new();
    assert_eq!(lab.server.holder_of(here(10)), None);
    lab.offered(&discover(OWN));
    assert_eq!(lab.server.holder_of(here(10)), None, "an offer is no lease");
    lab.boots(&discover(OWN));
    let holder = lab.server.holder_of(here(10)).unwrap();
    assert_eq!(
        (holder.mac, holder.name),
        (OWN, Some(Name::new("studio-1").unwrap()))
    );
    lab.wait(HOUR);
    assert_eq!(lab.server.holder_of(here(10)), None);
}

#[test]
fn an_offer_that_a_restart_forgot_is_still_good() {
    assert_eq!(Lab::new().acked(&accepts(GUEST, here(104))), here(104));
}

#[test]
fn what_is_another_machine_s_can_not_be_accepted() {
    let mut lab = Lab::new();
    let address = lab.boots(&discover(guest(1)));
    lab.refused(&accepts(guest(2), address));
    lab.refused(&accepts(guest(2), here(10)));
    lab.refused(&accepts(guest(2), HERE));
    lab.refused(&accepts(guest(2), there(100)));
    lab.refused(&accepts(guest(2), here(99)));
    lab.wait(2 * HOUR);
    lab.refused(&accepts(guest(2), address));
}

#[test]
fn a_machine_that_chose_another_server_frees_what_it_was_offered() {
    let mut lab = Lab::new();
    let address = lab.offered(&discover(guest(1)));
    let other = message(MessageType::Request, guest(1)).wants(here(77));
    assert_eq!(
        lab.silence(&other.of_server(here(250))),
        Reason::OtherServer
    );
    assert_eq!(lab.offered(&discover(guest(2))), address);
}

#[test]
fn another_server_is_reported_and_not_all_the_time() {
    let mut lab = Lab::new();
    let chosen = message(MessageType::Request, GUEST)
        .wants(here(77))
        .of_server(here(250));
    let seen = |lab: &mut Lab, message: &Message| events(&lab.send(message)).len();
    assert_eq!(seen(&mut lab, &chosen), 2);
    assert_eq!(seen(&mut lab, &chosen), 1);
    let mut heard = message(MessageType::Offer, GUEST).of_server(here(251));
    heard.op = Op::Reply;
    assert_eq!(seen(&mut lab, &heard), 1);
    assert_eq!(seen(&mut lab, &heard), 0);
    lab.wait(HOUR);
    assert_eq!(events(&lab.send(&heard)), [Event::Rival(here(251))]);
    heard.options.set(code::SERVER_IDENTIFIER, HERE.octets());
    assert_eq!(lab.send(&heard), [], "that is ourselves");
}

#[test]
fn a_machine_that_remembers_its_address_keeps_it() {
    let mut lab = Lab::new();
    let address = lab.boots(&discover(GUEST));
    assert_eq!(lab.acked(&remembers(GUEST, address)), address);
    lab.wait(2 * HOUR);
    assert_eq!(lab.acked(&remembers(GUEST, address)), address);
    assert_eq!(lab.acked(&remembers(OWN, here(10))), here(10));
}

#[test]
fn a_machine_that_remembers_wrongly_is_told_so() {
    let mut lab = Lab::new();
    let address = lab.boots(&discover(guest(1)));
    lab.refused(&remembers(guest(1), there(5)));
    lab.refused(&remembers(guest(1), here(107)));
    lab.refused(&remembers(guest(2), address));
    lab.refused(&remembers(OWN, here(107)));
}

#[test]
fn a_machine_of_which_nothing_is_known_is_not_answered() {
    assert_eq!(
        Lab::new().silence(&remembers(GUEST, here(107))),
        Reason::NoRecord
    );
}

#[test]
fn a_lease_is_renewed_also_when_it_was_forgotten() {
    let mut lab = Lab::new();
    let address = lab.boots(&discover(guest(1)));
    lab.wait(HOUR / 2);
    assert_eq!(lab.acked(&renews(guest(1), address)), address);
    lab.wait(HOUR * 3 / 4);
    assert!(lab.server.holder_of(address).is_some());
    assert_eq!(lab.acked(&renews(guest(2), here(105))), here(105));
}

#[test]
fn a_running_machine_keeps_its_address_when_the_range_changes() {
    let mut lab = Lab::new();
    let address = lab.boots(&discover(GUEST));
    let mut changed = settings();
    changed.networks[0].ranges = vec![here(150)..=here(160)];
    lab.server.replace(changed);
    assert_eq!(lab.acked(&renews(GUEST, address)), address);
    assert_eq!(lab.offered(&discover(GUEST)), here(150));
}

#[test]
fn what_is_another_machine_s_can_not_be_renewed() {
    let mut lab = Lab::new();
    let address = lab.boots(&discover(guest(1)));
    lab.refused(&renews(guest(2), address));
    lab.refused(&renews(guest(1), here(5)).behind(RELAY));
    assert_eq!(lab.silence(&renews(guest(2), here(5))), Reason::NoRecord);
    let foreign = Ipv4Addr::new(192, 0, 2, 9);
    assert_eq!(lab.silence(&renews(guest(2), foreign)), Reason::NoRecord);
}

#[test]
fn a_request_for_nothing_is_not_answered() {
    let mut lab = Lab::new();
    let empty = message(MessageType::Request, GUEST);
    assert_eq!(lab.silence(&empty), Reason::Incomplete);
    assert_eq!(lab.silence(&empty.of_server(HERE)), Reason::Incomplete);
    let mut odd = message(MessageType::Offer, GUEST);
    assert_eq!(lab.silence(&odd), Reason::Type);
    odd.options.set(code::MESSAGE_TYPE, [99]);
    assert_eq!(lab.silence(&odd), Reason::Type);
}

fn lease_time(reply: &Reply) -> Option<u32> {
    reply.message.options.number(code::LEASE_TIME)
}

#[test]
fn a_lease_is_as_long_as_the_config_says_or_shorter_where_the_machine_wants_that() {
    let mut lab = Lab::new();
    let asks = |seconds: u32| accepts(GUEST, here(100)).option(51, seconds.to_be_bytes());
    assert_eq!(lease_time(&lab.reply(&asks(10))), Some(60));
    assert_eq!(lease_time(&lab.reply(&asks(600))), Some(600));
    assert_eq!(lease_time(&lab.reply(&asks(u32::MAX))), Some(3600));
}

#[test]
fn what_was_promised_for_longer_is_kept_for_longer() {
    let mut lab = Lab::new();
    let address = lab.boots(&discover(guest(1)));
    let short = accepts(guest(1), address).option(51, 60_u32.to_be_bytes());
    assert_eq!(lab.acked(&short), address);
    lab.wait(HOUR / 2);
    assert!(
        lab.server.holder_of(address).is_some(),
        "the second ACK may be lost"
    );
}

#[test]
fn a_machine_that_boots_writes_its_lease_once() {
    let mut lab = Lab::new();
    let address = lab.boots(&discover(GUEST));
    lab.wait(Duration::from_secs(20));
    let effects = lab.send(&accepts(GUEST, address));
    assert_eq!(saved(&effects).len(), 0);
    assert_eq!(lease_time(&one_reply(&effects)), Some(3580));
    lab.wait(HOUR / 2);
    let effects = lab.send(&renews(GUEST, address));
    assert_eq!(saved(&effects).len(), 1);
    assert_eq!(lease_time(&one_reply(&effects)), Some(3600));
}

#[test]
fn bootp_is_for_machines_with_an_own_address() {
    let mut lab = Lab::new();
    let reply = lab.reply(&Message::request(7, OWN));
    assert_eq!(reply.message.yiaddr, here(10));
    assert_eq!(reply.message.file, b"boot/grub/i386-pc/core.0");
    assert_eq!(reply.message.options.get(code::MESSAGE_TYPE), None);
    assert_eq!(reply.message.options.get(code::LEASE_TIME), None);
    assert_eq!(reply.room, 300);
    assert_eq!(lab.silence(&Message::request(7, GUEST)), Reason::Bootp);
    assert_eq!(lab.silence(&Message::request(7, FLOATING)), Reason::Bootp);
}
