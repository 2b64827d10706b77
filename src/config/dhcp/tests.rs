//! `[network]`, `[dhcp]` and what hangs on them: what becomes of good ones, and the line and words
//! of mistakes.

use std::path::Path;

use super::*;
use crate::config::Config;
use crate::dhcp::settings::{Network, Settings};

const IMAGE: &str = "[image.disk]\nfile = \"/srv/disk.img\"\n";

const LAN: &str = "[network]\ninterface = \"lan0\"\n";

fn own() -> OwnNetwork {
    OwnNetwork {
        interface: "lan0".to_owned(),
        address: [10, 77, 0, 1].into(),
        prefix: 24,
    }
}

/// The settings of a file, or the message about it.
fn settings(text: &str) -> Result<Settings, String> {
    let text = format!("{IMAGE}{text}");
    let path = Path::new("c.toml");
    let config = Config::parse(&text);
    let config = config.map_err(|mistake| mistake.in_file(path, &text).to_string())?;
    let mut dhcp = config.dhcp.ok_or("DHCP is off")?;
    dhcp.set_source(path, &text);
    let settings = dhcp.settings(&[own()]);
    settings.map_err(|mistake| mistake.to_string())
}

fn fine(text: &str) -> Settings {
    settings(text).unwrap_or_else(|mistake| panic!("{mistake}\n{text}"))
}

/// What is wrong, at which line of `text`.
#[track_caller]
fn check(text: &str, line: usize, words: &str) {
    let message = settings(text).expect_err("a mistake");
    let at = format!("c.toml:{}: ", line + IMAGE.lines().count());
    assert!(message.starts_with(&at), "{at:?} is not where {message}");
    assert!(message.contains(words), "{words:?} is not in {message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[track_caller]
fn check_dhcp(keys: &str, words: &str) {
    check(&format!("{LAN}[dhcp]\n{keys}"), 4, words);
}

#[track_caller]
fn option(value: &str) -> Vec<u8> {
    let settings = fine(&format!("{LAN}[dhcp]\noptions.150 = {value}\n"));
    let [(150, bytes)] = &settings.told.options[..] else {
        panic!("one option");
    };
    bytes.clone()
}

fn network(settings: &Settings, index: usize) -> &Network {
    &settings.networks[index]
}

#[test]
fn two_lines_are_enough() {
    let settings = fine(&format!(
        "{LAN}[dhcp]\nrange = \"10.77.0.100-10.77.0.200\"\n"
    ));
    assert_eq!(settings.mode, Mode::Server);
    assert_eq!(settings.unknown, Unknown::Serve);
    assert!(settings.probe);
    let network = network(&settings, 0);
    assert_eq!(
        (network.address, network.prefix),
        ([10, 77, 0, 0].into(), 24)
    );
    let range = Ipv4Addr::new(10, 77, 0, 100)..=Ipv4Addr::new(10, 77, 0, 200);
    assert_eq!(network.ranges, [range]);
}

#[test]
fn every_key_is_read() {
    let settings = fine(
        r#"
        [network]
        interface = ["lan0"]
        address = "10.77.0.1/24"
        [dhcp]
        mode = "server"
        range = ["10.77.0.100-10.77.0.109", "10.77.0.120-10.77.0.129"]
        router = "10.77.0.2"
        dns = ["10.77.0.3", "10.77.0.4"]
        domain = "lab.example"
        ntp = "10.77.0.5"
        lease = "8h"
        unknown = "ignore"
        probe = false
        options = { 26 = "u16:1400", 150 = ["10.77.0.9"] }
        [dhcp.boot]
        secure_boot = true
        ipxe = "http://10.77.0.1/menu"
        [dhcp.boot.files]
        riscv64 = "riscv/grub.efi"
        [dhcp.network.upstairs]
        address = "10.78.0.0/16"
        range = "10.78.1.0-10.78.1.255"
        router = "10.78.0.1"
        [group.lab]
        domain = "lab"
        lease = "1d"
        [group.lab.boot]
        ipxe = "lab.ipxe"
        [client.a]
        group = "lab"
        client_identifier = "hex:ff:01"
        uuid = "4c4c4544-0042-3510-8052-b4c04f4e3132"
        address = "10.78.2.2"
        lease = "30m"
        boot.files.x64 = "own.efi"
    "#,
    );
    assert_eq!(network(&settings, 0).ranges.len(), 2);
    assert_eq!(
        network(&settings, 1).told.routers,
        [Ipv4Addr::new(10, 78, 0, 1)]
    );
    assert_eq!(settings.told.dns.len(), 2);
    assert_eq!(settings.told.lease, Some(8 * 3600));
    assert_eq!(settings.told.options[0], (26, vec![0x05, 0x78]));
    assert_eq!((settings.unknown, settings.probe), (Unknown::Ignore, false));
    assert_eq!(
        settings.boot.files,
        [(Platform::Riscv64, "riscv/grub.efi".to_owned())]
    );
    let machine = &settings.machines[0];
    assert_eq!(machine.client_identifier.as_deref(), Some(&[255, 1][..]));
    assert_eq!(machine.uuid.map(|uuid| uuid[0]), Some(0x4c));
    assert_eq!(machine.told.domain.as_deref(), Some("lab"));
    assert_eq!(machine.told.lease, Some(1800));
    let boot = machine.boot.as_ref().unwrap();
    assert!(
        boot.secure_boot,
        "what a narrower table leaves out, the wider one says"
    );
    assert_eq!(boot.ipxe.as_deref(), Some("lab.ipxe"));
    assert_eq!(boot.files.len(), 2);
}

#[test]
fn without_dhcp_or_with_mode_off_there_is_none() {
    for text in [LAN, "[dhcp]\nmode = \"off\"\n", ""] {
        assert_eq!(settings(text), Err("DHCP is off".to_owned()), "{text}");
    }
}

#[test]
fn dhcp_is_served_on_named_interfaces_only() {
    check("[dhcp]\nmode = \"proxy\"\n", 2, "`interface`");
}

#[test]
fn interfaces_have_names_that_can_be() {
    check("[network]\ninterface = \"\"\n", 2, "interface");
    check(
        "[network]\ninterface = [\"lan0\", \"a/b\"]\n",
        2,
        "interface",
    );
    check("[network]\ninterface = [\"a\", \"a\"]\n", 2, "already");
    let two = "[network]\ninterface = [\"a\", \"b\"]\naddress = \"10.0.0.1\"\n";
    check(two, 3, "one `interface`");
}

#[test]
fn a_range_is_in_one_network_without_its_ends() {
    check_dhcp(
        "range = \"10.78.0.1-10.78.0.2\"",
        "not in 10.77.0.0/24 of lan0",
    );
    check_dhcp("range = \"10.77.0.200-10.77.1.2\"", "not in 10.77.0.0/24");
    check_dhcp("range = \"10.77.0.0-10.77.0.9\"", "first and the last");
    check_dhcp("range = \"10.77.0.9-10.77.0.255\"", "first and the last");
}

#[test]
fn a_range_is_written_first_to_last() {
    check_dhcp("range = \"10.77.0.9-10.77.0.8\"", "ends before it begins");
    check_dhcp("range = \"10.77.0.9\"", "no range");
    check_dhcp("range = [\"10.77.0.9-10.77.0.10\", 7]", "string");
}

#[test]
fn ranges_do_not_overlap() {
    check_dhcp(
        "range = [\"10.77.0.9-10.77.0.20\", \"10.77.0.20-10.77.0.30\"]",
        "overlap",
    );
}

#[test]
fn the_mistake_is_in_the_line_of_the_range() {
    let text =
        format!("{LAN}[dhcp]\nrange = [\n\"10.77.0.9-10.77.0.20\",\n\"10.1.0.2-10.1.0.3\"]\n");
    check(&text, 6, "10.1.0.2");
}

#[test]
fn all_ranges_together_are_bounded() {
    let text =
        format!("{LAN}[dhcp.network.a]\naddress = \"10.0.0.0/8\"\nrange = \"10.1.0.0-10.2.0.0\"\n");
    check(&text, 5, "more than 65536 addresses");
}

#[test]
fn our_own_address_is_left_out_of_a_range() {
    let settings = fine(&format!("{LAN}[dhcp]\nrange = \"10.77.0.1-10.77.0.9\"\n"));
    let rest = Ipv4Addr::new(10, 77, 0, 2)..=Ipv4Addr::new(10, 77, 0, 9);
    assert_eq!(network(&settings, 0).ranges, [rest]);
}

#[test]
fn the_router_is_in_no_range() {
    let text = format!("{LAN}[dhcp]\nrouter = \"10.77.0.7\"\nrange = \"10.77.0.5-10.77.0.9\"\n");
    check(&text, 5, "the router's address, 10.77.0.7");
}

#[test]
fn a_proxy_has_no_ranges() {
    let text = format!("{LAN}[dhcp]\nmode = \"proxy\"\nrange = \"10.77.0.5-10.77.0.9\"\n");
    check(&text, 5, "a proxy gives no addresses");
}

#[test]
fn networks_do_not_overlap() {
    let relayed = |address| format!("{LAN}[dhcp.network.a]\naddress = \"{address}\"\n");
    check(&relayed("10.77.0.128/25"), 4, "overlap");
    check(&relayed("10.0.0.0/8"), 4, "overlap");
    check(&relayed("10.78.0.1/24"), 4, "write 10.78.0.0");
    check(&relayed("10.78.0.0/31"), 4, "8 to 30");
    check(
        &format!("{LAN}[dhcp.network.a]\nlease = \"1h\"\n"),
        3,
        "needs its `address`",
    );
}

#[test]
fn an_address_of_a_client_is_one_that_it_can_have() {
    let client = |address| format!("{LAN}[dhcp]\n[client.a]\naddress = \"{address}\"\n");
    check(&client("10.78.0.9"), 5, "in no network");
    check(&client("10.77.0.255"), 5, "at an end");
    check(&client("10.77.0.1"), 5, "cowherd's own");
    let router = "router = \"10.77.0.2\"\n";
    let of_all = format!("{LAN}[dhcp]\n{router}[client.a]\naddress = \"10.77.0.2\"\n");
    check(&of_all, 6, "is a router");
    check(
        &format!("{}{router}", client("10.77.0.2")),
        5,
        "is a router",
    );
    let relayed = "[dhcp.network.b]\naddress = \"10.78.0.0/24\"\nrouter = \"10.78.0.1\"\n";
    let of_network = format!("{}{relayed}", client("10.78.0.1"));
    check(&of_network, 5, "is a router");
    fine(&client("10.77.0.9"));
}

#[test]
fn a_path_of_a_boot_file_fits_in_its_header_field() {
    let files = |file: String| format!("{LAN}[dhcp.boot.files]\nx64 = \"{file}\"\n");
    check(&files("a".repeat(128)), 4, "more than 127 bytes");
    fine(&files("a".repeat(127)));
    fine(&files(format!("http://{}", "a".repeat(200))));
    let script = format!("{LAN}[dhcp.boot]\nipxe = \"{}\"\n", "a".repeat(128));
    check(&script, 4, "more than 127 bytes");
}

#[test]
fn what_a_machine_is_known_by_is_nobody_else_s() {
    let twice = |key: &str| format!("{LAN}[dhcp]\n[client.a]\n{key}\n[client.b]\n{key}\n");
    check(&twice("client_identifier = \"box\""), 7, "client a already");
    let uuid = "uuid = \"4c4c4544-0042-3510-8052-b4c04f4e3132\"";
    check(&twice(uuid), 7, "client a already");
}

#[test]
fn a_group_is_one_that_is_there() {
    check("[client.a]\ngroup = \"lab\"\n", 2, "no [group.lab]");
}

#[test]
fn options_that_are_ours_are_refused() {
    for code in [1, 13, 51, 52, 53, 54, 82] {
        check_dhcp(&format!("options.{code} = \"x\""), "cowherd itself");
    }
    check_dhcp("options.3 = [\"10.0.0.1\"]", "`router`");
    check_dhcp("options.0 = \"x\"", "1 to 254");
    check_dhcp("options.router = \"x\"", "1 to 254");
}

#[test]
fn an_option_is_the_bytes_that_are_meant() {
    assert_eq!(option("\"abc\""), b"abc");
    assert_eq!(option("\"hex:00:0a:FF\""), [0, 10, 255]);
    assert_eq!(option("\"hex:000aff\""), [0, 10, 255]);
    assert_eq!(option("\"text:hex:00\""), b"hex:00");
    assert_eq!(option("\"text:10.0.0.1\""), b"10.0.0.1");
    assert_eq!(
        option("[\"10.0.0.1\", \"10.0.0.2\"]"),
        [10, 0, 0, 1, 10, 0, 0, 2]
    );
    assert_eq!(option("\"u8:7\""), [7]);
    assert_eq!(option("\"u16:258\""), [1, 2]);
    assert_eq!(option("\"u32:16909060\""), [1, 2, 3, 4]);
    assert_eq!(option("true"), [1]);
    assert_eq!(option("\"http://a/b\""), b"http://a/b");
}

#[test]
fn an_option_that_can_be_meant_in_two_ways_is_refused() {
    check_dhcp("options.150 = \"10.0.0.1\"", "in a list");
    check_dhcp("options.150 = 7", "u16:1500");
    check_dhcp("options.150 = \"\"", "without a value");
    check_dhcp("options.150 = []", "without a value");
    check_dhcp("options.150 = \"u8:256\"", "no number of this size");
    check_dhcp("options.150 = \"hex:0\"", "two for each byte");
    check_dhcp("options.150 = \"hex:+1\"", "two for each byte");
}

#[test]
fn a_lease_is_a_minute_to_a_year() {
    for lease in ["59s", "366d", "8", "h", "8 h", "-1h", "99999999999d"] {
        check_dhcp(&format!("lease = \"{lease}\""), "no time");
    }
    for lease in ["60s", "365d", "1m"] {
        fine(&format!("{LAN}[dhcp]\nlease = \"{lease}\"\n"));
    }
}

#[test]
fn names_and_files_are_what_a_reply_can_hold() {
    check_dhcp("domain = \"a b\"", "no domain name");
    check_dhcp("domain = \"\"", "no domain name");
    check_dhcp("boot.ipxe = \"\"", "empty");
    check_dhcp("boot.files.x64 = \"a\\u0000b\"", "control");
    check_dhcp("boot.files.vax = \"a\"", "unknown field");
    check_dhcp("unknown = \"what\"", "unknown variant");
}

#[test]
fn with_its_network_in_the_file_a_range_is_checked_at_once() {
    let text = "[network]\ninterface = \"lan0\"\naddress = \"10.1.0.1/24\"\n\
                [dhcp]\nrange = \"10.77.0.5-10.77.0.9\"\n";
    check(text, 5, "not in 10.1.0.0/24 of lan0");
}

#[test]
fn two_interfaces_in_one_network_are_refused() {
    let text = format!("{IMAGE}[network]\ninterface = [\"lan0\", \"lan1\"]\n[dhcp]\n");
    let mut dhcp = Config::parse(&text).unwrap().dhcp.unwrap();
    dhcp.set_source(Path::new("c.toml"), &text);
    let lan1 = OwnNetwork {
        interface: "lan1".to_owned(),
        address: [10, 77, 0, 9].into(),
        prefix: 24,
    };
    let message = dhcp.settings(&[own(), lan1]).unwrap_err().to_string();
    assert!(message.starts_with("c.toml:4: "), "{message}");
    assert!(message.contains("overlap"), "{message}");
}

#[test]
fn the_router_of_a_client_or_a_group_lies_in_no_range() {
    for told in [
        "[client.a]\nmac = \"52:54:00:00:00:01\"\nrouter = \"10.77.0.150\"\n",
        "[group.g]\nrouter = \"10.77.0.150\"\n\
         [client.a]\nmac = \"52:54:00:00:00:01\"\ngroup = \"g\"\n",
    ] {
        let range = "range = \"10.77.0.100-10.77.0.200\"\n";
        let words = "has the router's address, 10.77.0.150, in it";
        check_dhcp(&format!("{range}{told}"), words);
    }
}

#[test]
fn a_router_is_in_the_network_of_those_that_are_told_of_it() {
    let words = "no machine reaches the router";
    check_dhcp("router = \"10.78.0.1\"\n", words);
    check_dhcp("router = [\"10.77.0.9\", \"10.78.0.1\"]\n", words);
    check_dhcp("router = \"10.77.0.255\"\n", words);
    let relayed = "[dhcp.network.up]\naddress = \"10.78.0.0/24\"\n";
    check(
        &format!("{LAN}[dhcp]\n{relayed}router = \"10.77.0.1\"\n"),
        6,
        words,
    );
    check(
        &format!("{LAN}[dhcp]\n[client.a]\nrouter = \"10.79.0.1\"\n"),
        5,
        words,
    );
    check(
        &format!("{LAN}[dhcp]\n[group.a]\nrouter = \"10.79.0.1\"\n"),
        5,
        words,
    );
    fine(&format!(
        "{LAN}[dhcp]\n{relayed}[client.a]\nrouter = \"10.78.0.1\"\n"
    ));
    fine(&format!(
        "{LAN}[dhcp]\nmode = \"proxy\"\nrouter = \"10.79.0.1\"\n"
    ));
}
