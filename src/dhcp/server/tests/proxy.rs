//! A server beside another one, and the port of boot servers.

use super::*;

fn proxy() -> Lab {
    Lab::with(|settings| settings.mode = Mode::Proxy)
}

fn vendor(reply: &Reply) -> Option<&[u8]> {
    reply.message.options.get(code::VENDOR)
}

/// What a machine at 10.77.0.50 asks of port 4011.
fn asks_boot_server(architecture: u8) -> Message {
    let mut asks = pxe(GUEST, architecture).at(here(50));
    asks.options.set(code::MESSAGE_TYPE, [3]);
    asks
}

fn boot_server(lab: &mut Lab, message: &Message) -> Reply {
    let from = SocketAddrV4::new(here(50), 4011);
    one_reply(&lab.arrive(Port::Boot, from, message))
}

#[test]
fn a_bios_gets_its_file_from_the_offer() {
    let offer = proxy().reply(&pxe(GUEST, 0));
    assert_eq!(kind(&offer), Some(MessageType::Offer));
    assert_eq!(offer.message.yiaddr, Ipv4Addr::UNSPECIFIED);
    assert_eq!(offer.message.siaddr, HERE);
    assert_eq!(offer.message.file, b"boot/grub/i386-pc/core.0");
    assert_eq!(vendor(&offer), Some(&[6, 1, 8, 255][..]));
    let options = &offer.message.options;
    assert_eq!(options.get(code::VENDOR_CLASS), Some(&b"PXEClient"[..]));
    assert_eq!(options.address(code::SERVER_IDENTIFIER), Some(HERE));
    assert_eq!(options.get(code::MACHINE_UUID), Some(&uuid_option()[..]));
    assert_eq!(options.get(code::LEASE_TIME), None);
    assert_eq!(offer.to, Destination::Broadcast);
}

#[test]
fn uefi_is_led_to_the_other_port_and_served_there() {
    let mut lab = proxy();
    assert_eq!(vendor(&lab.reply(&pxe(GUEST, 7))), None);
    let ack = boot_server(&mut lab, &asks_boot_server(7));
    assert_eq!(kind(&ack), Some(MessageType::Ack));
    assert_eq!(ack.port, Port::Boot);
    assert_eq!(
        ack.to,
        Destination::Unicast(SocketAddrV4::new(here(50), 4011))
    );
    assert_eq!(ack.message.yiaddr, Ipv4Addr::UNSPECIFIED);
    assert_eq!(ack.message.ciaddr, here(50));
    assert_eq!(ack.message.file, b"boot/grub/x86_64-efi/core.efi");
    assert_eq!(
        ack.message.options.get(code::VENDOR_CLASS),
        Some(&b"PXEClient"[..])
    );
}

#[test]
fn the_boot_server_that_was_asked_for_is_named_in_the_answer() {
    let asks = asks_boot_server(0).option(code::VENDOR, [9, 1, 0, 71, 4, 0, 1, 0, 0, 255]);
    let ack = boot_server(&mut proxy(), &asks);
    assert_eq!(vendor(&ack), Some(&[6, 1, 8, 71, 4, 0, 1, 0, 0, 255][..]));
    let short = asks_boot_server(7).option(code::VENDOR, [71, 4, 0]);
    assert_eq!(vendor(&boot_server(&mut proxy(), &short)), None);
}

#[test]
fn ipxe_gets_its_file_from_the_offer() {
    let asks = pxe(GUEST, 7).option(code::USER_CLASS, &b"iPXE"[..]);
    let offer = proxy().reply(&asks);
    assert_eq!(vendor(&offer), Some(&[6, 1, 8, 255][..]));
    assert_eq!(
        offer.message.options.get(code::VENDOR_CLASS),
        Some(&b"PXEClient"[..])
    );
}

#[test]
fn http_boot_gets_its_uri() {
    let asks = discover(GUEST)
        .option(
            code::VENDOR_CLASS,
            &b"HTTPClient:Arch:00016:UNDI:003016"[..],
        )
        .option(code::ARCHITECTURE, [0, 16]);
    let offer = proxy().reply(&asks);
    assert_eq!(
        offer.message.file,
        b"http://10.77.0.1/boot/grub/x86_64-efi/core.efi"
    );
}

#[test]
fn a_proxy_gives_and_refuses_no_address() {
    let mut lab = proxy();
    let from = discover(GUEST);
    assert_eq!(lab.silence(&from), Reason::NotBooting);
    assert_eq!(lab.silence(&accepts(GUEST, here(9))), Reason::Proxy);
    assert_eq!(lab.silence(&renews(GUEST, here(9))), Reason::Proxy);
    assert_eq!(lab.silence(&Message::request(1, OWN)), Reason::Proxy);
    let theirs = message(MessageType::Request, GUEST).of_server(here(250));
    assert_eq!(
        lab.silence(&theirs),
        Reason::Proxy,
        "and no rival is reported"
    );
    assert_eq!(lab.server.records().count(), 0);
}

#[test]
fn a_proxy_behind_a_relay_answers_the_relay() {
    let offer = proxy().reply(&pxe(GUEST, 0).behind(RELAY));
    assert_eq!(offer.to, Destination::Relay(SocketAddrV4::new(RELAY, 67)));
}

#[test]
fn the_port_of_boot_servers_is_served_by_the_server_too() {
    let ack = boot_server(&mut Lab::new(), &asks_boot_server(7));
    assert_eq!(ack.message.file, b"boot/grub/x86_64-efi/core.efi");
    assert_eq!(
        ack.message.options.get(code::VENDOR_CLASS),
        Some(&b"PXEClient"[..])
    );
}
