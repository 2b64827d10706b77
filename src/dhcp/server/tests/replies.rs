//! What stands in a reply, and where it goes.

use super::*;

fn option(reply: &Reply, code: u8) -> Option<Vec<u8>> {
    reply.message.options.get(code).map(<[u8]>::to_vec)
}

fn codes(reply: &Reply) -> Vec<u8> {
    reply.message.options.iter().map(|(code, _)| code).collect()
}

#[test]
fn an_offer_says_who_offers_what_for_how_long() {
    let mut lab = Lab::new();
    let offer = lab.reply(&discover(OWN));
    assert_eq!(option(&offer, 54), Some(HERE.octets().into()));
    assert_eq!(option(&offer, 51), Some(3600_u32.to_be_bytes().into()));
    assert_eq!(option(&offer, 58), Some(1800_u32.to_be_bytes().into()));
    assert_eq!(option(&offer, 59), Some(3150_u32.to_be_bytes().into()));
    assert_eq!(option(&offer, 1), Some(vec![255, 255, 255, 0]));
    assert_eq!(option(&offer, 3), Some(vec![10, 77, 0, 254]));
    assert_eq!(option(&offer, 28), Some(vec![10, 77, 0, 255]));
    assert_eq!(option(&offer, 12), Some(b"studio-1".to_vec()));
    assert_eq!(offer.message.xid, 7);
    assert_eq!(offer.link, LINK);
}

#[test]
fn the_type_is_first_and_the_mask_before_the_router() {
    let relayed = discover(OWN)
        .behind(RELAY)
        .option(82, [1, 1, 7])
        .option(55, [3, 1, 12]);
    let codes = codes(&Lab::new().reply(&relayed));
    assert_eq!(codes[..2], [53, 54]);
    let place = |code| codes.iter().position(|known| *known == code).unwrap();
    assert!(place(1) < place(3));
}

#[test]
fn what_the_client_wants_comes_in_its_order() {
    let told = |settings: &mut Settings| {
        settings.told.dns = vec![here(1)];
        settings.told.ntp = vec![here(1)];
        settings.told.domain = Some("lan".to_owned());
    };
    let wants = discover(GUEST).option(55, [42, 15, 6]);
    let codes = codes(&Lab::with(told).reply(&wants));
    let rest: Vec<_> = codes
        .into_iter()
        .filter(|c| [6, 15, 28, 42].contains(c))
        .collect();
    assert_eq!(rest, [42, 15, 6, 28]);
}

#[test]
fn the_machine_s_words_come_before_its_network_s_and_those_before_all_s() {
    let told = |settings: &mut Settings| {
        settings.told.dns = vec![here(1)];
        settings.told.ntp = vec![here(1)];
        settings.told.domain = Some("all".to_owned());
        settings.told.options = vec![(200, vec![1]), (201, vec![1]), (202, vec![1])];
        settings.networks[0].told.ntp = vec![here(2)];
        settings.networks[0].told.domain = Some("network".to_owned());
        settings.networks[0].told.options = vec![(200, vec![2]), (201, vec![2])];
        settings.machines[0].told.domain = Some("machine".to_owned());
        settings.machines[0].told.options = vec![(200, vec![3])];
    };
    let offer = Lab::with(told).reply(&discover(OWN));
    assert_eq!(option(&offer, 6), Some(here(1).octets().into()));
    assert_eq!(option(&offer, 42), Some(here(2).octets().into()));
    assert_eq!(option(&offer, 15), Some(b"machine".to_vec()));
    let own = [200, 201, 202].map(|code| option(&offer, code).unwrap()[0]);
    assert_eq!(own, [3, 2, 1]);
}

#[test]
fn identifier_and_uuid_go_back_as_they_came() {
    let asks = pxe(OWN, 0).option(code::CLIENT_IDENTIFIER, &b"\0abc"[..]);
    let mut lab = Lab::new();
    let offer = lab.reply(&asks);
    assert_eq!(option(&offer, 61), Some(b"\0abc".to_vec()));
    assert_eq!(option(&offer, 97), Some(uuid_option()));
    let refused = accepts(OWN, here(99)).option(code::CLIENT_IDENTIFIER, &b"\0abc"[..]);
    assert_eq!(option(&lab.refused(&refused), 61), Some(b"\0abc".to_vec()));
}

#[test]
fn a_machine_that_boots_is_told_what() {
    let offer = Lab::new().reply(&pxe(OWN, 7));
    assert_eq!(offer.message.siaddr, HERE);
    assert_eq!(offer.message.file, b"boot/grub/x86_64-efi/core.efi");
    assert_eq!(
        option(&offer, 67),
        Some(b"boot/grub/x86_64-efi/core.efi\0".to_vec())
    );
    assert_eq!(option(&offer, 60), None);
    assert!(
        offer.why.iter().any(|why| why.contains("architecture 7")),
        "{:?}",
        offer.why
    );
}

#[test]
fn a_machine_may_boot_otherwise_than_all() {
    let own = |settings: &mut Settings| {
        settings.machines[0].boot = Some(BootConfig {
            secure_boot: true,
            ..BootConfig::default()
        });
    };
    assert_eq!(
        Lab::with(own).reply(&pxe(OWN, 7)).message.file,
        b"grub/shimx64.efi"
    );
}

#[test]
fn a_reply_to_a_relay_goes_there_with_what_it_added() {
    let asks = discover(GUEST).behind(RELAY).option(82, [1, 2, 3, 9]);
    let offer = Lab::new().reply(&asks);
    assert_eq!(offer.to, Destination::Relay(SocketAddrV4::new(RELAY, 67)));
    assert_eq!(option(&offer, 82), Some(vec![1, 2, 3, 9]));
    assert_eq!(offer.message.giaddr, RELAY);
    let alone = Lab::new().reply(&discover(GUEST).option(82, [1, 2, 3, 9]));
    assert_eq!(option(&alone, 82), None, "nobody but a relay is told");
}

#[test]
fn what_a_relay_added_is_left_out_and_reported_only_where_there_is_no_room() {
    let asks = |added: usize| {
        let added = [&[9, 0], &vec![0; added - 2][..]].concat();
        discover(GUEST).behind(RELAY).option(82, added)
    };
    let mut lab = Lab::new();
    let seen = |effects: &[Effect]| {
        let bytes = one_reply(effects).message.write(548).bytes;
        let read = Message::read(&bytes).unwrap();
        (
            events(effects),
            read.options.get(82).is_some(),
            kind(&one_reply(effects)),
        )
    };
    let offer = Some(MessageType::Offer);
    assert_eq!(seen(&lab.send(&asks(200))), (vec![], true, offer));
    let short = (vec![Event::RelayLeftOut], false, offer);
    assert_eq!(seen(&lab.send(&asks(400))), short);
}

#[test]
fn a_relay_can_have_itself_taken_for_the_server() {
    let mut lab = Lab::new();
    let asks = discover(GUEST)
        .behind(RELAY)
        .option(82, [11, 4, 10, 78, 0, 1, 19, 0]);
    let from = SocketAddrV4::new(RELAY, 4000);
    let offer = one_reply(&lab.arrive(Port::Server, from, &asks));
    assert_eq!(option(&offer, 54), Some(RELAY.octets().into()));
    assert_eq!(offer.to, Destination::Relay(from), "RFC 8357");
    let accepts = accepts(GUEST, there(100)).of_server(RELAY).behind(RELAY);
    assert_eq!(lab.silence(&accepts), Reason::OtherServer);
    let accepts = accepts.option(82, [11, 4, 10, 78, 0, 1]);
    assert_eq!(lab.acked(&accepts), there(100));
}

#[test]
fn replies_go_where_the_machine_can_hear_them() {
    let mut lab = Lab::new();
    let card = Destination::Hardware {
        mac: OWN,
        ip: here(10),
    };
    assert_eq!(lab.reply(&discover(OWN)).to, card);
    let mut deaf = discover(OWN);
    deaf.broadcast = true;
    assert_eq!(lab.reply(&deaf).to, Destination::Broadcast);
    lab.boots(&discover(OWN));
    let has = Destination::Unicast(SocketAddrV4::new(here(10), 68));
    assert_eq!(lab.reply(&renews(OWN, here(10))).to, has);
}

#[test]
fn a_refusal_reaches_also_whoever_has_a_wrong_address() {
    let mut lab = Lab::new();
    lab.boots(&discover(guest(1)));
    assert_eq!(
        lab.refused(&renews(guest(2), here(100))).to,
        Destination::Broadcast
    );
    let refusal = lab.refused(&remembers(guest(2), here(9)).behind(RELAY));
    assert_eq!(refusal.to, Destination::Relay(SocketAddrV4::new(RELAY, 67)));
    assert!(refusal.message.broadcast);
    assert_eq!(refusal.message.yiaddr, Ipv4Addr::UNSPECIFIED);
    assert_eq!(codes(&refusal), [53, 54, 56]);
}

#[test]
fn who_has_an_address_is_told_the_rest() {
    let mut lab = Lab::new();
    let inform = message(MessageType::Inform, GUEST).at(here(50));
    let ack = lab.reply(&inform);
    assert_eq!(kind(&ack), Some(MessageType::Ack));
    assert_eq!(ack.message.yiaddr, Ipv4Addr::UNSPECIFIED);
    assert_eq!(ack.message.ciaddr, here(50));
    assert_eq!(
        ack.to,
        Destination::Unicast(SocketAddrV4::new(here(50), 68))
    );
    assert_eq!(option(&ack, 51), None);
    assert_eq!(option(&ack, 3), Some(vec![10, 77, 0, 254]));
    let nobody = message(MessageType::Inform, GUEST);
    assert_eq!(lab.silence(&nobody), Reason::Incomplete);
}

#[test]
fn who_has_an_address_behind_a_relay_is_told_the_rest_there() {
    let mut lab = Lab::new();
    let inform = message(MessageType::Inform, GUEST)
        .at(there(50))
        .behind(RELAY)
        .option(82, [1, 1, 7]);
    let ack = lab.reply(&inform);
    let there = Destination::Unicast(SocketAddrV4::new(there(50), 68));
    assert_eq!(ack.to, there);
    assert_eq!(option(&ack, 82), None, "nobody but a relay is told");
}

#[test]
fn who_does_not_say_its_address_is_told_the_rest_where_it_asks_from() {
    let mut lab = Lab::new();
    let inform = message(MessageType::Inform, GUEST);
    let from = SocketAddrV4::new(here(50), 68);
    let ack = one_reply(&lab.arrive(Port::Server, from, &inform));
    assert_eq!(ack.to, Destination::Unicast(from));
    let relayed = inform.behind(RELAY).option(82, [1, 1, 7]);
    let from = SocketAddrV4::new(RELAY, 67);
    let ack = one_reply(&lab.arrive(Port::Server, from, &relayed));
    assert_eq!(ack.to, Destination::Relay(from));
    assert!(ack.message.broadcast, "the relay can't know where else");
    assert_eq!(option(&ack, 82), Some(vec![1, 1, 7]));
}

#[test]
fn nothing_goes_to_an_address_that_is_everybody_s() {
    let mut lab = Lab::new();
    let all = [
        here(255),
        there(255),
        here(0),
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(224, 0, 0, 1),
        Ipv4Addr::new(0, 0, 0, 1),
    ];
    for address in all {
        let relayed = discover(GUEST).behind(address);
        assert_eq!(lab.silence(&relayed), Reason::Network, "{address}");
        let selected = relayed.option(82, [5, 4, 10, 77, 0, 0]);
        assert_eq!(lab.silence(&selected), Reason::Network, "{address}");
        let inform = message(MessageType::Inform, GUEST).at(address);
        assert_eq!(lab.silence(&inform), Reason::Network, "{address}");
    }
}

#[test]
fn the_boot_file_stays_where_what_a_relay_added_leaves_little_room() {
    let mut lab = Lab::with(|settings| {
        settings.told.options = vec![(26, vec![5, 120])];
        settings.told.domain = Some("lan".to_owned());
    });
    let added = [&[1, 248], &[0; 248][..]].concat();
    let mut asks = discover(OWN).behind(RELAY).option(82, added);
    asks.options.set(code::ARCHITECTURE, [0, 0]);
    let offer = lab.reply(&asks);
    let read = Message::read(&offer.message.write(offer.room).bytes).unwrap();
    let has = [53, 54, 51, 1, 3, 67, 82, 66, 26].map(|code| read.options.get(code).is_some());
    let wanted = [true, true, true, true, true, true, true, false, false];
    assert_eq!(has, wanted, "{:?}", codes(&offer));
}

#[test]
fn every_reply_says_why() {
    let mut lab = Lab::new();
    let offer = lab.reply(&pxe(OWN, 7));
    for rule in [
        "studio-1, by its MAC address",
        "network 10.77.0.0/24",
        "own address",
    ] {
        assert!(
            offer.why.iter().any(|why| why.contains(rule)),
            "{rule}: {:?}",
            offer.why
        );
    }
}
