//! Inputs that fuzzing begins with: one of each kind of thing that a target can meet.

use cowherd::attach::wire::{self as attach, Connect};
use cowherd::dhcp::Moment;
use cowherd::dhcp::lease::file;
use cowherd::dhcp::lease::{Key, Record, Saved};
use cowherd::dhcp::wire::Message;
use cowherd::mac::MacAddress;

mod file_seeds;

const IHAVEOPT: &[u8; 8] = b"IHAVEOPT";

/// A name and an input each.
type Seeds = Vec<(&'static str, Vec<u8>)>;

/// The seeds of a target.
pub(crate) fn of(target: &str) -> Seeds {
    match target {
        "handshake" => handshakes(),
        "transmission" => transmissions(),
        "session" => sessions(),
        "tls_boundary" => boundaries(),
        "journal" => journals(),
        "checkpoint" => checkpoints(),
        "dhcp" => conversations(),
        "leases" => leases(),
        "tftp" => file_seeds::transfers(),
        "names" => file_seeds::names(),
        "inside" => file_seeds::disks(),
        "attach" => attachments(),
        "canary" => vec![("nearly", b"moo? said the cow".to_vec())],
        other => panic!("{other} has no seeds"),
    }
}

fn option(code: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = IHAVEOPT.to_vec();
    bytes.extend_from_slice(&code.to_be_bytes());
    let len = u32::try_from(data.len()).unwrap();
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn string(text: &str) -> Vec<u8> {
    let len = u32::try_from(text.len()).unwrap();
    [&len.to_be_bytes()[..], text.as_bytes()].concat()
}

fn go(name: &str) -> Vec<u8> {
    [&string(name)[..], &[0, 2, 0, 1, 0, 3]].concat()
}

fn contexts(export: &str, queries: &[&str]) -> Vec<u8> {
    let mut bytes = string(export);
    bytes.extend_from_slice(&u32::try_from(queries.len()).unwrap().to_be_bytes());
    queries
        .iter()
        .for_each(|query| bytes.extend_from_slice(&string(query)));
    bytes
}

/// A handshake in a mode, cut by a seed, with the flags of a client of today.
fn handshake(mode: u8, options: &[Vec<u8>]) -> Vec<u8> {
    [&[mode, 3][..], &3_u32.to_be_bytes(), &options.concat()].concat()
}

fn handshakes() -> Seeds {
    let all = contexts("disk", &["base:allocation", "x-cowherd:overlay"]);
    let structured = [option(8, b""), option(10, &all), option(7, &go("disk"))];
    let extended = [
        option(11, b""),
        option(9, &contexts("", &[])),
        option(6, &go("")),
    ];
    let secured = [
        option(5, b""),
        option(7, &go("tls")),
        option(5, b""),
        option(2, b"bye"),
    ];
    vec![
        ("abort", handshake(0, &[option(2, b"")])),
        ("export-name", handshake(0, &[option(1, b"disk")])),
        ("extended", handshake(1, &extended)),
        (
            "list",
            handshake(0, &[option(3, b""), option(3, b"x"), option(99, b"?")]),
        ),
        (
            "no-flags",
            [&[0, 9, 0, 0, 0, 0][..], &option(1, b"")].concat(),
        ),
        ("required", handshake(2, &secured)),
        (
            "selective",
            handshake(1, &[option(7, &go("tls")), option(7, &go("none"))]),
        ),
        ("structured", handshake(0, &structured)),
    ]
}

fn request(flags: u16, kind: u16, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend_from_slice(&flags.to_be_bytes());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(b"a cookie");
    bytes.extend_from_slice(&offset.to_be_bytes());
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes
}

fn extended(flags: u16, kind: u16, offset: u64, len: u64) -> Vec<u8> {
    let mut bytes = 0x21e4_1c71_u32.to_be_bytes().to_vec();
    bytes.extend_from_slice(&flags.to_be_bytes());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(b"a cookie");
    bytes.extend_from_slice(&offset.to_be_bytes());
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes
}

fn transmissions() -> Seeds {
    let write = [request(1, 1, 4096, 10), b"0123456789".to_vec()].concat();
    let all: Vec<_> = (0..9).map(|kind| request(0, kind, 0, 0)).collect();
    let past = [
        request(0, 1, u64::MAX, 5),
        b"12345".to_vec(),
        request(0, 0, 1 << 40, 1),
    ];
    let status = [&2_000_u64.to_be_bytes()[..], &1_u32.to_be_bytes()].concat();
    let wide = [
        extended(32, 1, 7, 3),
        b"abc".to_vec(),
        extended(32, 7, 0, 12),
        status,
        extended(8, 7, 5, 100_000),
        extended(0, 6, 0, 1_000_000),
    ];
    vec![
        ("all-kinds", [&[0x10, 1][..], &all.concat()].concat()),
        ("extended", [&[0x1a, 7][..], &wide.concat()].concat()),
        ("past-the-end", [&[0x10, 2][..], &past.concat()].concat()),
        (
            "read-only",
            [&[0x14, 2][..], &write, &request(0, 2, 0, 0)].concat(),
        ),
        (
            "structured",
            [&[0x19, 5][..], &request(4, 0, 0, 512), &request(8, 7, 0, 9)].concat(),
        ),
        (
            "write",
            [&[0x10, 5][..], &write, &request(0, 3, 0, 0)].concat(),
        ),
    ]
}

fn sessions() -> Seeds {
    // A choice, flag and kind, two bytes each of offset and length, and the fill of a write.
    let write = |choice: u8, at: u16, len: u16| {
        let [a, b] = at.to_be_bytes();
        let [c, d] = len.to_be_bytes();
        vec![choice, 1, a, b, c, d, 0x55]
    };
    let other = |choice: u8, kind: u8, at: u16, len: u16| {
        let [a, b] = at.to_be_bytes();
        let [c, d] = len.to_be_bytes();
        vec![choice, kind, a, b, c, d]
    };
    let mixed = [
        write(0x10, 100, 5000),
        other(0x10, 6, 4000, 9000),
        write(0x05, 8192, 4096),
        other(0x10, 4, 0, 12_288),
        other(0x10, 0, 0, 19_000),
        other(2, 3, 0, 0),
        other(0x90, 0x46, 8000, 8000),
        write(0x1f, 40_000, 3000),
        other(0x1f, 0, 30_000, 18_000),
    ];
    vec![
        ("mixed", [&[0][..], &mixed.concat()].concat()),
        (
            "read-only",
            [&[0xff][..], &other(0x10, 0, 5, 500), &write(0x10, 1, 2)].concat(),
        ),
        ("wrong-magic", [&[0][..], &other(0xff, 0, 0, 0)].concat()),
    ]
}

fn boundaries() -> Seeds {
    let piece = |bytes: &[u8]| [&[u8::try_from(bytes.len()).unwrap()][..], bytes].concat();
    let greeted = |option: &[u8]| piece(&[&3_u32.to_be_bytes()[..], option].concat());
    let starttls = option(5, b"");
    let upgraded = |behind: &[u8]| [&[0][..], &greeted(&starttls), &piece(behind)].concat();
    // The beginning of a ClientHello: record, handshake, version, and zeros.
    let hello = [&[0x16, 3, 1, 0, 0x2d, 1, 0, 0, 0x29, 3, 3][..], &[0; 39]].concat();
    let (first, rest) = hello.split_at(7);
    let halves = [upgraded(first), piece(rest)].concat();
    let listed = [greeted(&option(3, b"")), piece(&starttls), piece(&hello)].concat();
    let together = [&starttls[..], &option(7, &go("disk"))].concat();
    vec![
        ("go-behind", upgraded(&option(7, &go("disk")))),
        ("go-with-it", [&[0][..], &greeted(&together)].concat()),
        ("hello", upgraded(&hello)),
        ("hello-in-halves", halves),
        ("list-first", [&[1][..], &listed].concat()),
    ]
}

fn journals() -> Seeds {
    let epochs = |harm: &[u8]| {
        let changes: Vec<u8> = (0..=255).cycle().take(40 * 3).collect();
        let mut bytes = vec![3, 39];
        bytes.extend_from_slice(&changes);
        bytes.extend_from_slice(&[1, 1, 2, 3, 4, 5, 6, 0, 9, 9, 9, 1]);
        bytes.extend_from_slice(harm);
        bytes
    };
    vec![
        ("flipped", [&[0][..], &epochs(&[1, 1, 2, 0, 0x40])].concat()),
        (
            "resealed",
            [&[1][..], &epochs(&[2, 1, 2, 0x10, 0x40, 3, 2, 0, 0xff])].concat(),
        ),
        ("torn", [&[0][..], &epochs(&[1, 0, 6, 3, 0])].concat()),
        ("whole", [&[0][..], &epochs(&[0])].concat()),
    ]
}

fn checkpoints() -> Seeds {
    let map = |harm: &[u8]| {
        let mut bytes = vec![
            4, 0, 9, 7, 1, 0x40, 0, 255, 200, 0xbf, 0xff, 1, 2, 0, 9, 1, 0,
        ];
        bytes.extend_from_slice(harm);
        bytes
    };
    vec![
        ("flipped", [&[0][..], &map(&[1, 8, 0, 20, 1])].concat()),
        (
            "resealed",
            [&[1][..], &map(&[2, 9, 0, 7, 0x80, 13, 0, 3, 0x11])].concat(),
        ),
        ("torn", [&[0][..], &map(&[1, 2, 0x10, 0x20, 0])].concat()),
        ("whole", [&[0][..], &map(&[0])].concat()),
    ]
}

/// A datagram of a client, as the target `dhcp` takes it: after `tenths` of a second.
fn datagram(tenths: u8, how: u8, who: u8, ciaddr: [u8; 4], options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut message = Message::request(1, MacAddress([2, 0, 0, 0, 0, who]));
    message.ciaddr = ciaddr.into();
    for (code, value) in options {
        message.options.set(*code, *value);
    }
    let bytes = message.write(1400).bytes;
    let length = u16::try_from(bytes.len()).unwrap();
    [&[tenths, how], &length.to_be_bytes()[..], &bytes].concat()
}

fn conversations() -> Seeds {
    const NOBODY: [u8; 4] = [0; 4];
    const SERVER: (u8, &[u8]) = (54, &[10, 77, 0, 1]);
    const FIRST: [u8; 4] = [10, 77, 0, 100];
    let wanted: (u8, &[u8]) = (50, &FIRST);
    let boots = |who: u8, wanted: (u8, &[u8])| {
        let discover = datagram(1, 0, who, NOBODY, &[(53, &[1])]);
        let request = datagram(1, 0, who, NOBODY, &[(53, &[3]), SERVER, wanted]);
        [discover, request].concat()
    };
    let pxe: [(u8, &[u8]); 3] = [
        (53, &[1]),
        (60, b"PXEClient:Arch:00007:UNDI:003016"),
        (93, &[0, 7]),
    ];
    let asks_boot_server: [(u8, &[u8]); 3] = [
        (53, &[3]),
        (60, b"PXEClient:Arch:00000:UNDI:002001"),
        (43, &[71, 4, 0, 0, 0, 0, 255]),
    ];
    let two = [
        &[0][..],
        &boots(2, wanted),
        &boots(3, (50, &[10, 77, 0, 101])),
    ]
    .concat();
    let own = [&[0][..], &boots(1, (50, &[10, 77, 0, 10]))].concat();
    let probed = [&[2][..], &boots(2, wanted)].concat();
    let renewal = datagram(200, 4, 2, FIRST, &[(53, &[3])]);
    let renewal = [&[0][..], &boots(2, wanted), &renewal].concat();
    let release = datagram(1, 0, 2, FIRST, &[(53, &[7]), SERVER]);
    let release = [&[0][..], &boots(2, wanted), &release, &boots(3, wanted)].concat();
    let decline = datagram(1, 0, 2, NOBODY, &[(53, &[4]), SERVER, wanted]);
    let decline = [&[0][..], &boots(2, wanted), &decline, &boots(2, wanted)].concat();
    let reboot = datagram(1, 0, 3, NOBODY, &[(53, &[3]), wanted]);
    let reboot = [&[0][..], &boots(2, wanted), &reboot].concat();
    let proxy = datagram(0, 0, 2, NOBODY, &pxe);
    let boot_server = datagram(0, 1, 2, FIRST, &asks_boot_server);
    let proxy = [&[1][..], &proxy, &boot_server].concat();
    let bootp = [&[0][..], &datagram(0, 0, 1, NOBODY, &[])].concat();
    vec![
        ("two", two),
        ("own", own),
        ("probed", probed),
        ("renewal", renewal),
        ("release", release),
        ("decline", decline),
        ("reboot", reboot),
        ("proxy", proxy),
        ("bootp", bootp),
    ]
}

fn leases() -> Seeds {
    let (mut file, mut chain) = file::start(&[5; 16], []);
    let record = Record {
        address: [10, 77, 0, 100].into(),
        key: Key::Client([1, 2, 3].into()),
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        state: Saved::Leased,
        until: Moment(1 << 20),
        length: 7,
    };
    file.extend(chain.append(&[record.clone(), record]));
    let damaged: Vec<u8> = (1..=80).collect();
    vec![
        ("file", [&[0], &file[..]].concat()),
        (
            "sound",
            vec![1, 3, 0, 0, 2, 0, 0, 9, 0, 1, 1, 1, 1, 1, 1, 1, 9, 9, 1],
        ),
        ("damaged", [&[1, 3, 100, 1][..], &damaged].concat()),
        ("torn", [&[1, 2, 250, 255][..], &damaged].concat()),
    ]
}

/// What a client is told, by the kernel (first byte 0) and by a server (first byte 1).
fn attachments() -> Seeds {
    let of_kernel = |message: Vec<u8>| [&[0], &message[..]].concat();
    let server = |replies: &[&[u8]]| {
        let greeting = &b"\x01NBDMAGICIHAVEOPT\0\x03"[..];
        [greeting, &replies.concat()].concat()
    };
    let size = option_reply(3, &[0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 5]);
    let connect = Connect {
        index: 3,
        size: 512,
        block_size: 512,
        flags: 5,
        patience: 9,
        identifier: "d",
        sockets: &[3, 4],
    };
    vec![
        ("family", of_kernel(attach::get_family(1))),
        ("connect", of_kernel(attach::connect(0x20, 1, &connect))),
        ("status", of_kernel(attach::status(0x20, 1, 3))),
        ("dead", of_kernel(attach::disconnect(0x20, 1, 3))),
        ("export", server(&[&size, &option_reply(1, &[])])),
        ("refusal", server(&[&option_reply((1 << 31) + 6, b"no")])),
        ("name", server(&[&option_reply(3, b"\0\x01disk+1@a")])),
    ]
}

/// A reply to GO.
fn option_reply(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = 0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec();
    for number in [7, kind, u32::try_from(data.len()).unwrap()] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.extend_from_slice(data);
    bytes
}
