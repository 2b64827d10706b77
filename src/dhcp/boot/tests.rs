//! Every row of the table, and every rule around it.

use super::*;
use crate::mac::MacAddress;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

fn request(options: &[(u8, &[u8])]) -> Message {
    let mut request = Message::request(1, MacAddress([0x52, 0x54, 0, 0, 0, 1]));
    request.options = options
        .iter()
        .map(|(code, value)| (*code, *value))
        .collect();
    request.options.set(code::MESSAGE_TYPE, [1]);
    request
}

fn pxe(architectures: &[u16]) -> Message {
    let list: Vec<u8> = architectures.iter().flat_map(|a| a.to_be_bytes()).collect();
    request(&[(60, b"PXEClient:Arch:00000:UNDI:003016"), (93, &list)])
}

fn http(architecture: u16) -> Message {
    request(&[
        (60, b"HTTPClient:Arch:00016:UNDI:003016"),
        (93, &architecture.to_be_bytes()),
    ])
}

/// With HTTP where it usually is.
fn usual() -> BootConfig {
    BootConfig {
        http: vec!["0.0.0.0:80".parse().unwrap()],
        ..BootConfig::default()
    }
}

fn served(request: &Message) -> Decision {
    decide(&usual(), Mode::Server, request, SERVER)
}

fn proxied(request: &Message) -> Decision {
    decide(&usual(), Mode::Proxy, request, SERVER)
}

fn option(decision: &Decision, wanted: u8) -> Option<&[u8]> {
    let found = decision.options.iter().find(|(code, _)| *code == wanted);
    found.map(|(_, value)| value.as_slice())
}

#[test]
fn each_pxe_architecture_gets_the_grub_of_its_platform() {
    for (number, file) in [
        (0, "boot/grub/i386-pc/core.0"),
        (6, "boot/grub/i386-efi/core.efi"),
        (7, "boot/grub/x86_64-efi/core.efi"),
        (9, "boot/grub/x86_64-efi/core.efi"),
        (10, "boot/grub/arm-efi/core.efi"),
        (11, "boot/grub/arm64-efi/core.efi"),
        (27, "boot/grub/riscv64-efi/core.efi"),
        (39, "boot/grub/loongarch64-efi/core.efi"),
    ] {
        assert_eq!(
            served(&pxe(&[number])).file.as_deref(),
            Some(file),
            "{number}"
        );
    }
}

#[test]
fn the_uri_leads_to_where_http_is_served() {
    for (listen, file) in [
        (
            &["0.0.0.0:80"][..],
            Some("http://10.77.0.1/boot/grub/x86_64-efi/core.efi"),
        ),
        (
            &["10.77.0.1:80"],
            Some("http://10.77.0.1/boot/grub/x86_64-efi/core.efi"),
        ),
        (
            &["10.0.0.1:80", "10.77.0.1:8080"],
            Some("http://10.77.0.1:8080/boot/grub/x86_64-efi/core.efi"),
        ),
        (&["10.0.0.1:80"], None),
        (&[], None),
    ] {
        let config = BootConfig {
            http: listen.iter().map(|at| at.parse().unwrap()).collect(),
            ..BootConfig::default()
        };
        let decision = decide(&config, Mode::Server, &http(16), SERVER);
        assert_eq!(decision.file.as_deref(), file, "{listen:?}");
        // Without the class the offer is none to firmware that boots by HTTP.
        assert_eq!(
            option(&decision, 60).is_some(),
            file.is_some(),
            "{listen:?}"
        );
        let is_said = decision.why.iter().any(|why| why.contains("no [http]"));
        assert_eq!(is_said, file.is_none(), "{listen:?}");
    }
}

#[test]
fn a_uri_of_the_config_needs_no_http_of_ours() {
    let elsewhere = "http://files.example/grub.efi";
    let config = BootConfig {
        files: vec![(Platform::X64, elsewhere.to_owned())],
        ..BootConfig::default()
    };
    let decision = decide(&config, Mode::Server, &http(16), SERVER);
    assert_eq!(decision.file.as_deref(), Some(elsewhere));
}

#[test]
fn each_http_architecture_gets_a_uri_and_its_class() {
    for (number, folder) in [
        (15, "i386-efi"),
        (16, "x86_64-efi"),
        (18, "arm-efi"),
        (19, "arm64-efi"),
        (28, "riscv64-efi"),
        (40, "loongarch64-efi"),
    ] {
        let uri = format!("http://10.77.0.1/boot/grub/{folder}/core.efi");
        for decision in [served(&http(number)), proxied(&http(number))] {
            assert_eq!(decision.file.as_ref(), Some(&uri), "{number}");
            assert_eq!(option(&decision, 60), Some(&b"HTTPClient"[..]));
        }
    }
}

#[test]
fn every_row_is_one_of_those_above_and_stands_once() {
    let numbers: Vec<_> = ARCHITECTURES.iter().map(|row| row.number).collect();
    assert_eq!(
        numbers,
        [0, 6, 7, 9, 10, 11, 15, 16, 18, 19, 27, 28, 39, 40]
    );
}

#[test]
fn of_a_list_the_first_that_is_served_counts() {
    assert_eq!(served(&pxe(&[2, 7, 0])).file, served(&pxe(&[7])).file);
    assert_eq!(served(&pxe(&[2])).file, None);
}

#[test]
fn a_pxe_client_without_architecture_is_a_bios() {
    let old = request(&[(60, b"PXEClient")]);
    assert_eq!(
        served(&old).file.as_deref(),
        Some("boot/grub/i386-pc/core.0")
    );
}

#[test]
fn what_does_not_boot_is_told_nothing() {
    for class in [&b""[..], b"Linux ipconfig", b"udhcp 1.35"] {
        let decision = served(&request(&[(60, class)]));
        assert_eq!((decision.file, decision.options), (None, vec![]));
    }
}

#[test]
fn a_server_s_offer_to_pxe_never_has_60_without_43() {
    for row in ARCHITECTURES
        .iter()
        .filter(|row| row.transport == Transport::Tftp)
    {
        let decision = served(&pxe(&[row.number]));
        assert_eq!(option(&decision, 60), None, "{row:?}");
        assert_eq!(option(&decision, 43), None, "{row:?}");
    }
}

#[test]
fn a_proxy_tells_a_bios_to_use_its_file() {
    let decision = proxied(&pxe(&[0]));
    assert_eq!(option(&decision, 60), Some(&b"PXEClient"[..]));
    assert_eq!(option(&decision, 43), Some(&[6, 1, 8, 255][..]));
}

#[test]
fn a_proxy_lets_uefi_come_back_on_4011() {
    let decision = proxied(&pxe(&[7]));
    assert_eq!(option(&decision, 60), Some(&b"PXEClient"[..]));
    assert_eq!(option(&decision, 43), None);
}

#[test]
fn ipxe_need_not_wait_for_a_proxy_and_loads_as_its_firmware_does() {
    for option_of_ipxe in [(77, &b"iPXE"[..]), (175, &[0xb1, 4, 1, 0x1a, 0xf4, 0x10])] {
        let asks = request(&[(60, b"PXEClient"), (93, &[0, 0]), option_of_ipxe]);
        let decision = served(&asks);
        assert_eq!(decision.file, served(&pxe(&[0])).file);
        assert_eq!(option(&decision, 175), Some(&[176, 1, 1][..]));
        assert_eq!(option(&proxied(&asks), 175), None);
    }
}

#[test]
fn ipxe_gets_its_script_where_there_is_one() {
    let config = BootConfig {
        ipxe: Some("http://10.77.0.1/boot.ipxe".to_owned()),
        files: vec![(Platform::Bios, "undionly.kpxe".to_owned())],
        ..usual()
    };
    let file = |request: &Message| decide(&config, Mode::Server, request, SERVER).file.unwrap();
    let ipxe = request(&[(60, b"PXEClient"), (93, &[0, 0]), (77, b"iPXE")]);
    assert_eq!(file(&ipxe), "http://10.77.0.1/boot.ipxe");
    assert_eq!(file(&pxe(&[0])), "undionly.kpxe");
}

#[test]
fn with_secure_boot_shim_comes_first_where_there_is_one() {
    let config = BootConfig {
        secure_boot: true,
        ..usual()
    };
    let file = |request: &Message| decide(&config, Mode::Server, request, SERVER).file.unwrap();
    assert_eq!(file(&pxe(&[7])), "grub/shimx64.efi");
    assert_eq!(file(&pxe(&[6])), "grub/shimia32.efi");
    assert_eq!(file(&pxe(&[11])), "grub/shimaa64.efi");
    assert_eq!(file(&http(16)), "http://10.77.0.1/grub/shimx64.efi");
    assert_eq!(file(&pxe(&[0])), "boot/grub/i386-pc/core.0");
    assert_eq!(file(&pxe(&[27])), "boot/grub/riscv64-efi/core.efi");
}

#[test]
fn server_file_and_option_67_all_say_it() {
    for row in ARCHITECTURES {
        let asks = pxe(&[row.number]);
        let decision = served(&asks);
        let mut reply = asks.reply();
        decision.fill(&mut reply, SERVER);
        let file = decision.file.unwrap().into_bytes();
        assert_eq!(reply.siaddr, SERVER);
        assert_eq!(reply.file, file);
        assert_eq!(
            reply.options.get(67),
            Some(&[&file[..], b"\0"].concat()[..])
        );
        assert_eq!(reply.options.get(66), Some(&b"10.77.0.1\0"[..]));
        assert_eq!(reply.options.get(13), None);
    }
}

#[test]
fn the_file_has_the_first_claim_to_the_room_of_bootp() {
    let bootp = Message::request(1, MacAddress([2, 0, 0, 0, 0, 1]));
    let mut reply = bootp.reply();
    let config = BootConfig {
        files: vec![(Platform::Bios, "a".repeat(50))],
        ..usual()
    };
    decide(&config, Mode::Server, &bootp, SERVER).fill(&mut reply, SERVER);
    assert_eq!(reply.write(300).left_out, [66]);
}

#[test]
fn a_uri_that_is_too_long_for_the_header_is_said_to_be() {
    let said = |length: usize| {
        let config = BootConfig {
            files: vec![(Platform::X64, format!("http://{}", "a".repeat(length - 7)))],
            ..usual()
        };
        let why = decide(&config, Mode::Server, &http(16), SERVER).why;
        why.concat().contains("only option 67")
    };
    assert!(!said(127));
    assert!(said(128));
}

#[test]
fn platforms_go_by_the_names_that_people_write() {
    let config = BootConfig {
        files: vec![(Platform::X64, "x.efi".to_owned())],
        ..usual()
    };
    let why = decide(&config, Mode::Server, &pxe(&[7]), SERVER).why;
    assert!(
        why.contains(&"the config gives x.efi to x64".to_owned()),
        "{why:?}"
    );
}

#[test]
fn a_file_that_is_too_long_for_the_header_is_in_option_67_alone() {
    let long = "a".repeat(128);
    let decision = Decision {
        file: Some(long.clone()),
        ..Decision::default()
    };
    let mut reply = pxe(&[0]).reply();
    decision.fill(&mut reply, SERVER);
    assert_eq!(reply.file, b"");
    let with_nul = [long.as_bytes(), b"\0"].concat();
    assert_eq!(reply.options.get(67), Some(&with_nul[..]));
    let read = Message::read(&reply.write(1000).bytes);
    assert_eq!(read, Ok(reply));
}

#[test]
fn who_is_told_nothing_gets_no_server_either() {
    let asks = request(&[]);
    let mut reply = asks.reply();
    served(&asks).fill(&mut reply, SERVER);
    assert_eq!(reply, asks.reply());
}

#[test]
fn every_decision_says_why() {
    for row in ARCHITECTURES {
        for mode in [Mode::Server, Mode::Proxy] {
            let why = decide(&BootConfig::default(), mode, &pxe(&[row.number]), SERVER).why;
            assert!(why[0].contains(row.name), "{why:?}");
            assert!(why.len() > 1, "{why:?}");
        }
    }
}

#[test]
fn bootp_which_names_no_architecture_gets_the_file_of_a_bios() {
    let bootp = Message::request(1, MacAddress([2, 0, 0, 0, 0, 1]));
    assert_eq!(
        served(&bootp).file.as_deref(),
        Some("boot/grub/i386-pc/core.0")
    );
}

#[test]
fn ipxe_takes_the_file_of_a_proxy_by_options_60_and_43() {
    let ipxe = request(&[(77, b"iPXE"), (93, &[0, 7])]);
    let decision = proxied(&ipxe);
    assert_eq!(option(&decision, 60), Some(&b"PXEClient"[..]));
    assert_eq!(option(&decision, 43), Some(&[6, 1, 8, 255][..]));
    assert_eq!(option(&decision, 175), None);
}
