//! Which messages begin a boot.

use super::*;

fn beginnings(effects: &[Effect]) -> Vec<&Beginning> {
    let begun = effects.iter().filter_map(|effect| match effect {
        Effect::Begin(boot) => Some(boot),
        _ => None,
    });
    begun.collect()
}

fn boot(client: Option<&str>, address: Option<Ipv4Addr>) -> Beginning {
    let client = client.map(|name| Name::new(name).unwrap());
    Beginning { client, address }
}

#[test]
fn firmware_that_asks_for_an_address_begins_a_boot() {
    let effects = Lab::new().send(&pxe(OWN, 7));
    let boot = boot(Some("studio-1"), Some(here(10)));
    assert_eq!(beginnings(&effects), [&boot]);
}

#[test]
fn a_boot_begins_before_its_machine_is_answered() {
    let effects = Lab::new().send(&pxe(OWN, 7));
    let is_begin = |effect: &Effect| matches!(effect, Effect::Begin(_));
    let is_send = |effect: &Effect| matches!(effect, Effect::Send(_));
    let begun = effects.iter().position(is_begin).unwrap();
    assert!(begun < effects.iter().position(is_send).unwrap());
}

#[test]
fn a_machine_that_is_in_no_config_begins_a_boot_of_its_address() {
    let effects = Lab::new().send(&pxe(guest(9), 0).option(code::MACHINE_UUID, [0; 17]));
    assert_eq!(beginnings(&effects), [&boot(None, Some(here(100)))]);
}

#[test]
fn ipxe_and_http_boot_begin_boots_too() {
    let ipxe = discover(OWN).option(code::USER_CLASS, &b"iPXE"[..]);
    let http = discover(OWN).option(code::VENDOR_CLASS, &b"HTTPClient:Arch:00016"[..]);
    for message in [ipxe, http] {
        assert_eq!(beginnings(&Lab::new().send(&message)).len(), 1);
    }
}

#[test]
fn what_the_firmware_has_loaded_begins_none() {
    let initramfs = discover(OWN).option(code::VENDOR_CLASS, &b"Linux ipconfig"[..]);
    for message in [discover(OWN), initramfs] {
        assert!(beginnings(&Lab::new().send(&message)).is_empty());
    }
}

#[test]
fn a_machine_that_accepts_or_renews_its_lease_begins_none() {
    let mut lab = Lab::new();
    lab.send(&pxe(OWN, 7));
    let class = &b"PXEClient:Arch:00007:UNDI:003016"[..];
    for message in [accepts(OWN, here(10)), renews(OWN, here(10))] {
        let effects = lab.send(&message.option(code::VENDOR_CLASS, class));
        assert!(beginnings(&effects).is_empty());
    }
}

#[test]
fn machines_that_are_not_served_begin_none() {
    let mut lab = Lab::with(|settings| settings.unknown = Unknown::Ignore);
    let stranger = pxe(GUEST, 7).option(code::MACHINE_UUID, [0; 17]);
    assert!(beginnings(&lab.send(&stranger)).is_empty());
}

#[test]
fn a_boot_begins_beside_another_server_too() {
    let mut lab = Lab::with(|settings| settings.mode = Mode::Proxy);
    let effects = lab.send(&pxe(OWN, 7));
    assert_eq!(beginnings(&effects), [&boot(Some("studio-1"), None)]);
}

#[test]
fn beside_another_server_the_firmware_tells_which_address_it_took() {
    let mut lab = Lab::with(|settings| settings.mode = Mode::Proxy);
    let takes = accepts(guest(9), here(50));
    assert!(beginnings(&lab.send(&takes)).is_empty());
    let takes = takes.option(code::VENDOR_CLASS, &b"PXEClient:Arch:00000"[..]);
    let effects = lab.send(&takes);
    assert_eq!(beginnings(&effects), [&boot(None, Some(here(50)))]);
}
