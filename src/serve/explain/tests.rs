//! Questions as people ask them, and what they are told.

use super::*;
use crate::boot::loader::{Kind, Modules};

const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

const CONFIG: &str = r#"
    [image.disk]
    file = "/srv/disk.img"
    [network]
    interface = "lan-of-nobody"
    address = "10.77.0.1/24"
    [dhcp]
    range = "10.77.0.100-10.77.0.200"
    [dhcp.network.far]
    address = "10.78.0.0/24"
    range = "10.78.0.50-10.78.0.59"
    [client.a]
    mac = "52:54:00:12:34:56"
    address = "10.77.0.9"
"#;

fn machine(architecture: u16) -> Machine {
    Machine {
        mac: MAC,
        architecture,
        ipxe: false,
        relay: None,
    }
}

fn explained(config: &str, of: Of) -> Result<Vec<Step>, Failure> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cowherd.toml");
    std::fs::write(&path, config).unwrap();
    let question = Question { config: path, of };
    let mut steps = Vec::new();
    run(&question, &mut |step| steps.push(step)).map(|()| steps)
}

fn steps(config: &str, machine: Machine) -> Vec<Step> {
    explained(config, Of::Machine(machine)).unwrap()
}

fn kinds(steps: &[Step]) -> Vec<&str> {
    let of_step = |step: &'_ Step| {
        let replies = step.replies.iter().map(|answer| answer.message.kind);
        step.message
            .iter()
            .map(|message| message.kind)
            .chain(replies)
            .collect::<Vec<_>>()
    };
    steps.iter().flat_map(of_step).collect()
}

#[test]
fn a_machine_gets_its_offer_and_its_lease_with_reasons() {
    let steps = steps(CONFIG, machine(7));
    assert_eq!(kinds(&steps), ["DISCOVER", "OFFER", "REQUEST", "ACK"]);
    let offer = &steps[0].replies[0];
    assert_eq!(offer.message.yiaddr, Some([10, 77, 0, 9].into()));
    assert_eq!(
        offer.message.file.as_deref(),
        Some("boot/grub/x86_64-efi/core.efi")
    );
    assert!(
        offer
            .why
            .iter()
            .any(|why| why.contains("architecture 7 is x64")),
        "{offer:?}"
    );
}

#[test]
fn a_machine_behind_a_relay_gets_an_address_there() {
    let relay = Some([10, 78, 0, 1].into());
    let of = Machine {
        mac: MacAddress([2; 6]),
        relay,
        ..machine(0)
    };
    let steps = steps(CONFIG, of);
    let offer = &steps[0].replies[0];
    assert_eq!(
        offer.message.yiaddr.map(|address| address.octets()[1]),
        Some(78)
    );
    assert_eq!(offer.to, "the relay at 10.78.0.1:67");
}

#[test]
fn a_proxy_is_asked_on_its_other_port_too() {
    let ranges = "    range = \"10.77.0.100-10.77.0.200\"\n";
    let config = CONFIG.replace(ranges, "    mode = \"proxy\"\n");
    let config = config.replace("    range = \"10.78.0.50-10.78.0.59\"\n", "");
    let steps = steps(&config, machine(7));
    assert_eq!(kinds(&steps), ["DISCOVER", "OFFER", "REQUEST", "ACK"]);
    assert!(
        steps
            .iter()
            .all(|step| step.replies[0].message.yiaddr.is_none())
    );
}

#[test]
fn who_is_not_answered_is_told_why() {
    let config = CONFIG.replace("[dhcp]", "[dhcp]\n    unknown = \"ignore\"");
    let stranger = Machine {
        mac: MacAddress([2; 6]),
        ..machine(7)
    };
    let steps = steps(&config, stranger);
    assert_eq!(kinds(&steps), ["DISCOVER"]);
    assert!(steps[0].notes[0].what.contains("not answered"), "{steps:?}");
}

#[test]
fn ipxe_is_told_what_the_config_has_for_it() {
    let config = format!("{CONFIG}\n[dhcp.boot]\nipxe = \"http://10.77.0.1/menu\"\n");
    let of = Machine {
        ipxe: true,
        ..machine(7)
    };
    let steps = steps(&config, of);
    assert_eq!(
        steps[0].replies[0].message.file.as_deref(),
        Some("http://10.77.0.1/menu")
    );
}

#[test]
fn an_interface_of_another_host_needs_its_network_in_the_file() {
    let config = CONFIG.replace("    address = \"10.77.0.1/24\"\n", "");
    let message = explained(&config, Of::Machine(machine(7)))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("lan-of-nobody") && message.contains("10.77.0.1/24"),
        "{message}"
    );
}

#[test]
fn without_dhcp_there_is_nothing_to_explain() {
    let config = "[image.disk]\nfile = \"/srv/disk.img\"\n";
    let failure = explained(config, Of::Machine(machine(7))).unwrap_err();
    assert_eq!(failure.code(), 2);
    assert!(failure.to_string().contains("DHCP is off"), "{failure}");
}

#[test]
fn a_boot_loader_that_is_not_there_is_told_of() {
    let root = tempfile::tempdir().unwrap();
    let config = format!("{CONFIG}\n[tftp]\nroot = \"{}\"\n", root.path().display());
    let says = || {
        let steps = steps(&config, machine(39));
        let why = steps[0].replies[0].why.join("; ");
        why.contains("boot/grub/loongarch64-efi/core.efi is not there")
    };
    let path = "boot/grub/loongarch64-efi/core.efi";
    let (modules, kind) = (Modules::of_host(), Kind::at(path).unwrap());
    let is_made = modules.is_some_and(|modules| modules.have(kind));
    assert_eq!(says(), !is_made);
    std::fs::create_dir_all(root.path().join(path).parent().unwrap()).unwrap();
    std::fs::write(root.path().join(path), "GRUB").unwrap();
    assert!(!says());
}
