//! A virtual machine boots straight from an export, reads its disk and writes to it.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use support::{Fingerprint, Server, Setup, Tool, require};

const SECTOR: usize = 512;

/// What the boot sector says on the serial port before it touches the disk.
const HELLO: &str = "booted from the herd\n";
/// What stands at [`READ_AT`] of the disk, and is said next.
const WORDS: &str = "and this was read from the disk\n";

/// Sectors that the program reads, and where it writes them again.
const READ_AT: usize = 8;
const WRITE_AT: usize = 64;
const COUNT: usize = 8;

/// What qemu ends with when the program writes 0x10 to its debug port: twice that and 1.
const DONE: i32 = 0x21;

/// A program for a PC's first sector, 16-bit code at 0x7c00, 0x7c65 being its first text:
///
/// ```text
///         xor ax, ax; mov ds, ax; mov es, ax; mov ss, ax; mov sp, 0x7c00
///         push dx                                  the disk that was booted from
///         mov si, hello; call print
///         pop dx; push dx; mov si, read;  mov ah, 0x42;   int 0x13; jc fail
///         mov si, 0x8000; call print               what was read
///         pop dx;          mov si, write; mov ax, 0x4300; int 0x13; jc fail
///         mov al, 0x10; jmp done
/// fail:   mov al, 0x20
/// done:   out 0xf4, al
/// halt:   hlt; jmp halt
/// print:  lodsb; test al, al; jz end; mov dx, 0x3f8; out dx, al; jmp print
/// end:    ret
/// read:   16, 0, 8 sectors to 0000:8000, from sector 8
/// write:  16, 0, 8 sectors from 0000:8000, to sector 64
/// ```
#[rustfmt::skip]
const PROGRAM: [u8; 0x65] = [
    0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c,
    0x52,
    0xbe, 0x65, 0x7c, 0xe8, 0x27, 0x00,
    0x5a, 0x52, 0xbe, 0x45, 0x7c, 0xb4, 0x42, 0xcd, 0x13, 0x72, 0x15,
    0xbe, 0x00, 0x80, 0xe8, 0x16, 0x00,
    0x5a, 0xbe, 0x55, 0x7c, 0xb8, 0x00, 0x43, 0xcd, 0x13, 0x72, 0x04,
    0xb0, 0x10, 0xeb, 0x02,
    0xb0, 0x20,
    0xe6, 0xf4,
    0xf4, 0xeb, 0xfd,
    0xac, 0x84, 0xc0, 0x74, 0x06, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xf5,
    0xc3,
    0x10, 0x00, 0x08, 0x00, 0x00, 0x80, 0x00, 0x00, 0x08, 0, 0, 0, 0, 0, 0, 0,
    0x10, 0x00, 0x08, 0x00, 0x00, 0x80, 0x00, 0x00, 0x40, 0, 0, 0, 0, 0, 0, 0,
];

/// A disk of 1 MiB that boots.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    let hello = PROGRAM.len();
    disk[..hello].copy_from_slice(&PROGRAM);
    disk[hello..hello + HELLO.len()].copy_from_slice(HELLO.as_bytes());
    disk[510..SECTOR].copy_from_slice(&[0x55, 0xaa]);
    disk[READ_AT * SECTOR..][..WORDS.len()].copy_from_slice(WORDS.as_bytes());
    disk
}

/// Boots a machine from an export; what it said on its serial port.
fn boot(uri: &str) -> String {
    let booted = Tool::new("qemu-system-x86_64")
        .args(["-machine", "pc,accel=tcg", "-m", "64", "-nodefaults"])
        .args(["-display", "none", "-serial", "stdio", "-no-reboot"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .args(["-drive", &format!("file={uri},format=raw,if=virtio")])
        .run();
    assert_eq!(booted.code, Some(DONE), "{booted}");
    booted.stdout.replace('\r', "")
}

fn written(server: &Server, export: &str) -> Vec<u8> {
    let at = (WRITE_AT * SECTOR) as u64;
    let len = u32::try_from(COUNT * SECTOR).expect("a few sectors");
    server.client(export).read(at, len).expect("a read")
}

#[test]
fn a_machine_boots_from_its_export_and_keeps_what_it_wrote() {
    if !require(&["qemu-system-x86_64"]) {
        return;
    }
    let server = Setup::of_bytes(&disk()).start();
    let image = server.setup().image().to_owned();
    let before = Fingerprint::of(&image);
    let said = boot(&server.uri("disk@a"));
    assert!(said.contains(&format!("{HELLO}{WORDS}")), "{said:?}");
    let expected = &disk()[READ_AT * SECTOR..][..COUNT * SECTOR];
    assert_eq!(
        written(&server, "disk@a"),
        expected,
        "what the machine wrote"
    );
    assert_eq!(
        written(&server, "disk@b"),
        [0; COUNT * SECTOR],
        "another client"
    );
    let setup = server.terminate();
    assert_eq!(Fingerprint::of(&image), before, "the image was written");
    let again = setup.start();
    assert_eq!(written(&again, "disk@a"), expected, "after a restart");
    assert!(boot(&again.uri("disk@a")).contains(WORDS), "it boots again");
}
