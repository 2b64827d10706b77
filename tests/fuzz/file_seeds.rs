//! The seeds of files on their way to boot loaders: TFTP, names, and disks.

use super::Seeds;

/// A transfer of a file of `size` bytes, asked for by `request`, with these events behind it.
fn transfer(size: u32, request: &[u8], events: &[u8]) -> Vec<u8> {
    let length = u16::try_from(request.len()).unwrap();
    let request = [&length.to_be_bytes()[..], request].concat();
    [&size.to_be_bytes()[1..], &request, events].concat()
}

pub(super) fn transfers() -> Seeds {
    let grub = b"\0\x01/boot/grub/grub.cfg\0octet\0blksize\x001024\0tsize\x000\0";
    let edk2 = b"\0\x01shimx64.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0";
    let plain = b"\0\x01//pxelinux.0\0NETASCII\0";
    let slow = b"\0\x01a\0octet\0timeout\x0060\0windowsize\x0065535\0";
    // The last block is acknowledged, or the one before; a timeout; an ERROR.
    let acks = [0, 1].repeat(12);
    let gaps = [0, 1, 0, 2, 0, 2, 2, 0, 0, 1, 0, 1, 2, 0, 0, 0];
    let probe = [3, 5, 0, 5, 0, 8, 0];
    vec![
        ("grub", transfer(5000, grub, &acks)),
        ("plain", transfer(1024, plain, &acks)),
        ("window", transfer(20_000, edk2, &acks)),
        ("gaps", transfer(100_000, edk2, &gaps)),
        ("probe", transfer(100_000, edk2, &probe)),
        ("slow", transfer(500_000, slow, &gaps)),
        (
            "numbers",
            transfer(9000, grub, &[1, 0, 0, 0, 1, 9, 0, 1, 1, 9, 255, 255]),
        ),
    ]
}

/// The target of a link `l`, and a name.
fn named(target: &[u8], name: &[u8]) -> Vec<u8> {
    [&[u8::try_from(target.len()).unwrap()][..], target, name].concat()
}

pub(super) fn names() -> Seeds {
    vec![
        ("plain", named(b"", b"/boot//grub\\grub.cfg")),
        ("junk", named(b"", b"a\xff\xff")),
        ("upwards", named(b"", b"boot/../../secret")),
        ("link", named(b"boot/grub/grub.cfg", b"l")),
        ("out", named(b"../../secret", b"l")),
        ("chain", named(b"up/up/boot/up", b"l")),
        ("magic", named(b"self/etc/passwd", b"root/l")),
        ("round", named(b"round/l/a", b"boot/../l")),
        ("through", named(b"/boot/out", b"l/secret")),
    ]
}

/// A disk with patches.
fn disk(image: u8, flags: u8, patches: &[(u16, u16, &[u8])]) -> Vec<u8> {
    let patches = patches.iter().flat_map(|(sector, offset, bytes)| {
        let place = [sector.to_be_bytes(), offset.to_be_bytes()].concat();
        let length = u8::try_from(bytes.len()).unwrap();
        [&place[..], &[length], bytes].concat()
    });
    [image, flags].into_iter().chain(patches).collect()
}

pub(super) fn disks() -> Seeds {
    vec![
        ("ext4", disk(0, 0, &[])),
        ("ext2", disk(1, 0, &[])),
        ("btrfs-lzo", disk(2, 0, &[])),
        ("btrfs-zlib", disk(3, 2, &[])),
        ("btrfs-zstd", disk(4, 2, &[])),
        ("fat12", disk(5, 0, &[])),
        ("fat32", disk(6, 0, &[])),
        ("gpt", disk(7, 0, &[])),
        ("ext4-many-groups", MANY_GROUPS.to_vec()),
        ("ext2-long-link", LONG_LINK.to_vec()),
        ("ext4-large-blocks", disk(0, 0, &[(0, 24, &[21, 0, 0, 0])])),
        (
            "ext4-patched",
            disk(0, 0, &[(1, 24, &[9]), (40, 100, &[255; 16])]),
        ),
        (
            "btrfs-patched",
            disk(2, 0, &[(20, 96, &[3]), (60, 200, &[255; 8])]),
        ),
        ("btrfs-unsealed", disk(4, 1, &[(20, 96, &[3])])),
        (
            "fat-patched",
            disk(6, 0, &[(0, 13, &[0]), (2, 4, &[255; 12])]),
        ),
        (
            "gpt-patched",
            disk(7, 0, &[(1, 80, &[255; 8]), (2, 32, &[255; 16])]),
        ),
    ]
}

/// A link of ext2 whose inode says that it has 3 GiB; found by fuzzing.
const LONG_LINK: &[u8] = &[
    0x01, 0x42, 0xa9, 0xbf, 0x41, 0x02, 0x84, 0x18, 0xba, 0x68, 0x9f, 0xd4, 0xbe, 0xf9, 0x96, 0xac,
    0x41, 0x20, 0x96, 0x12, 0x0d, 0x46, 0x0f, 0xd8, 0x7e, 0x53, 0x15, 0xb6, 0xb4, 0xc0, 0xf4, 0x98,
    0x08, 0xb8, 0xc1, 0x29, 0xdf, 0x3a, 0xee, 0x7f,
];

/// An ext4 whose superblock has it have thousands of millions of groups; found by fuzzing.
const MANY_GROUPS: &[u8] = &[
    0x58, 0xaa, 0x6e, 0xd3, 0xeb, 0x74, 0x1d, 0x72, 0x43, 0xff, 0xff, 0xff, 0xff, 0xc1, 0x32, 0x53,
    0x1c, 0x11, 0xaf, 0x6b, 0xc6, 0xcf, 0x4b, 0x18, 0xaf, 0xcd, 0x59, 0x00, 0x6e, 0x9a, 0x0b, 0xb4,
    0x80, 0x48, 0xda, 0xbd, 0x00, 0x00, 0x10, 0x00,
];
