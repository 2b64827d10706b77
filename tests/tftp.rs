//! Files by TFTP, to real clients and to one that does what none of them would.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use support::{
    Mount, PATIENCE, Server, Setup, TftpServer, Tool, assert_same, is_root, make_file_system,
    pseudo_random, read_file, require, skipped, write_file,
};

/// Sizes at which blocks of every client end, or nearly do.
const SIZES: [usize; 6] = [0, 1, 511, 512, 513, 32 << 20];

/// A client with a port of its own.
fn client(bench: &TftpServer) -> Client {
    Client::at("127.0.0.1", bench.at)
}

/// Plain datagrams.
struct Client {
    socket: UdpSocket,
    server: SocketAddr,
}

impl Client {
    /// One with a port of its own at an address.
    fn at(address: &str, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((address, 0)).expect("a port");
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a time is no 0");
        Self { socket, server }
    }

    /// Fetches a whole file in blocks of 1468 bytes; an error packet as it is.
    fn fetch(&self, name: &str) -> Result<Vec<u8>, Vec<u8>> {
        let request = [b"\0\x01", name.as_bytes(), b"\0octet\0blksize\x001468\0"].concat();
        let (mut packet, line) = self.request(&request);
        let mut file = Vec::new();
        loop {
            match packet[1] {
                6 => self.send(b"\0\x04\0\0", line),
                3 => {
                    file.extend_from_slice(&packet[4..]);
                    self.send(&[0, 4, packet[2], packet[3]], line);
                    if packet.len() < 1472 {
                        return Ok(file);
                    }
                }
                _ => return Err(packet),
            }
            packet = self.receive().0;
        }
    }

    fn send(&self, packet: &[u8], to: SocketAddr) {
        self.socket.send_to(packet, to).expect("sent");
    }

    fn request(&self, packet: &[u8]) -> (Vec<u8>, SocketAddr) {
        self.send(packet, self.server);
        self.receive()
    }

    fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut packet = [0; 2000];
        let (length, from) = self.socket.recv_from(&mut packet).expect("an answer");
        (packet[..length].to_vec(), from)
    }
}

const NOT_FOUND: &[u8] = b"\0\x05\0\x01";
const FORBIDDEN: &[u8] = b"\0\x05\0\x02";
const ILLEGAL: &[u8] = b"\0\x05\0\x04";

#[test]
fn tftp_hpa_gets_files_whole() {
    if !require(&["tftp"]) {
        return;
    }
    let bench = TftpServer::new(&SIZES);
    bench.fetches(&SIZES, |name, target| {
        let (host, port) = (bench.host(), bench.port());
        let command = ["get", name, target];
        Tool::new("tftp")
            .args(["-m", "binary", &host, &port, "-c"])
            .args(command)
    });
}

#[test]
fn atftp_gets_files_whole_with_every_option() {
    if !require(&["atftp"]) {
        return;
    }
    let bench = TftpServer::new(&SIZES);
    for options in [
        &["blksize 1428"][..],
        &["tsize 0", "timeout 5"],
        &["windowsize 1", "blksize 1024"],
        &["windowsize 8", "blksize 1428", "tsize 0"],
        &["windowsize 64"],
    ] {
        bench.fetches(&SIZES, |name, target| {
            let options = options.iter().flat_map(|option| ["--option", option]);
            let ends = ["-r", name, "-l", target];
            Tool::new("atftp")
                .args(options)
                .arg("-g")
                .args(ends)
                .args([bench.host(), bench.port()])
        });
    }
}

#[test]
fn a_name_shows_in_the_log_as_what_it_is() {
    let bench = TftpServer::new(&[]);
    let refused = client(&bench).fetch("gnp\u{202e}a\u{9b}2J.\u{7f}x");
    assert!(refused.expect_err("an error").starts_with(NOT_FOUND));
    let spelt = "gnp\\u{202e}a\\u{9b}2J.\\u{7f}x: there is no such file";
    bench.server.wait_for_log(&[spelt]);
}

#[test]
fn curl_gets_files_whole() {
    if !require(&["curl"]) {
        return;
    }
    // It takes no empty file: "TFTP: no data".
    let sizes = &SIZES[1..];
    let bench = TftpServer::new(sizes);
    for options in [&["--tftp-blksize", "1428"][..], &["--tftp-no-options"]] {
        bench.fetches(sizes, |name, target| {
            let uri = format!("tftp://{}/{name}", bench.at);
            Tool::new("curl")
                .args(["--silent", "--show-error"])
                .args(options)
                .args(["-o", target, &uri])
        });
    }
}

#[test]
fn busybox_gets_files_whole_past_65535_blocks() {
    if !require(&["busybox"]) {
        return;
    }
    // GRUB's size of blocks makes more than 65535 of them.
    let sizes = [513, 80 << 20];
    let bench = TftpServer::new(&sizes);
    bench.fetches(&sizes, |name, target| {
        let ends = ["-r", name, "-l", target];
        Tool::new("busybox")
            .args(["tftp", "-g", "-b", "1024"])
            .args(ends)
            .args([bench.host(), bench.port()])
    });
}

#[test]
fn text_comes_as_text() {
    if !require(&["tftp"]) {
        return;
    }
    let bench = TftpServer::new(&[]);
    let root = bench.file("tree");
    write_file(&root.join("text"), b"one\ntwo\rthree\n");
    let target = bench.file("fetched");
    Tool::new("tftp")
        .args([
            "-m",
            "netascii",
            &bench.host(),
            &bench.port(),
            "-c",
            "get",
            "text",
        ])
        .arg(&target)
        .ok();
    assert_eq!(read_file(&target), b"one\ntwo\rthree\n");
}

#[test]
fn a_missing_file_is_told_at_once_and_so_is_one_outside() {
    let bench = TftpServer::new(&[1]);
    let client = client(&bench);
    let (answer, _) = client.request(b"\0\x01nothing\0octet\0");
    assert!(answer.starts_with(NOT_FOUND), "{answer:?}");
    let (answer, _) = client.request(b"\0\x01../cowherd.toml\0octet\0");
    assert!(answer.starts_with(FORBIDDEN), "{answer:?}");
}

#[test]
fn nothing_is_written() {
    let bench = TftpServer::new(&[]);
    let (answer, _) = client(&bench).request(b"\0\x02new\0octet\0");
    assert!(answer.starts_with(FORBIDDEN), "{answer:?}");
}

#[test]
fn odd_names_of_boot_loaders_are_understood() {
    let bench = TftpServer::new(&[1]);
    for name in ["/1", "//1", "\\1", "1\u{1}"] {
        let request = [b"\0\x01", name.as_bytes(), b"\0octet\0"].concat();
        let (answer, _) = client(&bench).request(&request);
        assert_eq!(answer[..4], *b"\0\x03\0\x01", "{name:?}");
    }
}

#[test]
fn a_client_that_asks_for_the_size_first_gets_the_file_then_from_the_same_port() {
    let bench = TftpServer::new(&[513]);
    let client = client(&bench);
    // As EDK2 does.
    let (answer, line) = client.request(b"\0\x01513\0octet\0tsize\x000\0blksize\x001468\0");
    assert_eq!(answer, b"\0\x06tsize\x00513\0blksize\x001468\0");
    client.send(b"\0\x05\0\x08User aborted the transfer\0", line);
    let (answer, _) = client.request(b"\0\x01513\0octet\0blksize\x001468\0");
    assert_eq!(answer, b"\0\x06blksize\x001468\0");
    bench.server.wait_for_log(&["513", "asked for its size"]);
}

#[test]
fn a_client_that_ends_a_transfer_can_ask_for_the_same_at_once() {
    let bench = TftpServer::new(&[513]);
    let client = client(&bench);
    // Some servers take the second request for a copy of the first.
    let request = b"\0\x01513\0octet\0blksize\x001468\0";
    for _ in 0..100 {
        let (answer, line) = client.request(request);
        assert_eq!(answer, b"\0\x06blksize\x001468\0");
        client.send(b"\0\x05\0\x08User aborted the transfer\0", line);
    }
}

#[test]
fn a_transfer_has_a_port_of_its_own_and_hears_its_client_only() {
    let bench = TftpServer::new(&[2000]);
    let client = client(&bench);
    let (first, line) = client.request(b"\0\x012000\0octet\0");
    assert_ne!(line, bench.at);
    assert_eq!(first[..4], *b"\0\x03\0\x01");
    let stranger = Client::at("127.0.0.1", bench.at);
    stranger.send(b"\0\x05\0\0stop\0", line);
    stranger.send(b"\0\x04\0\x01", line);
    client.send(b"\0\x04\0\x01", line);
    let (second, from) = client.receive();
    assert_eq!((&second[..4], from), (&b"\0\x03\0\x02"[..], line));
}

#[test]
fn a_copy_of_a_request_starts_no_second_transfer() {
    let bench = TftpServer::new(&[2000]);
    let client = client(&bench);
    let request = b"\0\x012000\0octet\0";
    client.send(request, bench.at);
    let (_, line) = client.request(request);
    // Whatever comes until the second block comes from the one transfer that there is.
    client.send(b"\0\x04\0\x01", line);
    loop {
        let (packet, from) = client.receive();
        assert_eq!(from, line);
        if packet[..4] == *b"\0\x03\0\x02" {
            break;
        }
    }
}

#[test]
fn garbage_is_dropped_and_the_next_client_is_served() {
    let bench = TftpServer::new(&[1]);
    let client = client(&bench);
    for garbage in [&b""[..], b"\0", b"\0\x09", &[0xff; 1500]] {
        client.send(garbage, bench.at);
    }
    for bad_request in [&b"\0\x01"[..], b"\0\x011\0mail\0"] {
        let (answer, _) = client.request(bad_request);
        assert!(answer.starts_with(ILLEGAL), "{answer:?}");
    }
    let (answer, _) = client.request(b"\0\x011\0octet\0");
    assert_eq!(answer[..4], *b"\0\x03\0\x01");
}

/// A disk with a kernel of this content in its file system; none where nothing can be mounted.
fn bootable(home: &Path, name: &str, kernel: &[u8]) -> Option<PathBuf> {
    if !require(&["mount", "mkfs.btrfs"]) {
        return None;
    }
    if !is_root() {
        skipped("root, to mount");
        return None;
    }
    let disk = home.join(name);
    make_file_system(&["mkfs.btrfs", "-q"], &disk, 120);
    let mount = Mount::new(&disk, &home.join("mnt"))?;
    std::fs::create_dir(mount.at.join("boot")).expect("room");
    write_file(&mount.at.join("boot/vmlinuz-6.1"), kernel);
    write_file(&mount.at.join("boot/initrd"), b"an initramfs");
    std::os::unix::fs::symlink("boot/vmlinuz-6.1", mount.at.join("vmlinuz")).expect("room");
    drop(mount);
    Some(disk)
}

/// A server of `disk` with a menu, to which 127.0.0.1 is the client `a`.
fn with_menu(setup: Setup, disk: &Path) -> (Server, SocketAddr) {
    let config = setup.file("cowherd.toml");
    let text = format!(
        "[image.arch]
file = {disk:?}
kernel = \"vmlinuz\"
initrd = \"boot/initrd\"
initramfs = \"initramfs-tools\"
cmdline = \"quiet\"
[client.a]
address = \"127.0.0.1\"
mac = \"52:54:00:77:00:10\"
[tftp]
listen = \"127.0.0.1:0\"
"
    );
    write_file(&config, text.as_bytes());
    let server = setup.with_arg("--config").with_arg(config).start();
    let at = server.said("tftp on ").replace("tftp on ", "").parse();
    (server, at.expect("an address and a port"))
}

#[test]
fn a_machine_gets_a_menu_with_its_own_disk_and_the_kernel_out_of_it() {
    let setup = Setup::new();
    let kernel = pseudo_random(1, 3_000_000);
    let Some(disk) = bootable(&setup.file(""), "arch.img", &kernel) else {
        return;
    };
    let (server, at) = with_menu(setup, &disk);
    let client = Client::at("127.0.0.1", at);
    let menu = client.fetch("boot/grub/grub.cfg").expect("a menu");
    let menu = String::from_utf8(menu).expect("text");
    for words in [
        "linux '(tftp,127.0.0.1)/disk/arch+1/kernel' 'root=/dev/nbd0' 'nbdroot=127.0.0.1:",
        "/arch+1' 'ip=dhcp' 'rw' 'BOOTIF=01-52-54-00-77-00-10' 'systemd.hostname=a' ",
        "initrd '(tftp,127.0.0.1)/disk/arch+1/initrd0'",
        " 'quiet'\n",
    ] {
        assert!(menu.contains(words), "{words} is not in\n{menu}");
    }
    let seen = client.fetch("disk/arch+1/kernel").expect("a kernel");
    assert_same(&seen, &kernel, "kernel");
    let initrd = client.fetch("/disk/arch+1/initrd0").expect("an initramfs");
    assert_eq!(initrd, b"an initramfs");
    for missing in [
        "disk/arch+1/initrd1",
        "disk/arch+1/vmlinuz",
        "disk/none/kernel",
    ] {
        let refused = client.fetch(missing).expect_err("nothing is there");
        assert!(refused.starts_with(NOT_FOUND), "{missing}: {refused:?}");
    }
    drop(server);
}

#[test]
fn a_machine_that_replaced_its_kernel_boots_that_and_the_others_the_image_s() {
    if !require(&["nbdcopy"]) {
        return;
    }
    let setup = Setup::new();
    let (old, new) = (pseudo_random(1, 2_000_000), pseudo_random(2, 2_500_000));
    let home = setup.file("");
    let Some(disk) = bootable(&home, "arch.img", &old) else {
        return;
    };
    let changed = home.join("changed.img");
    std::fs::copy(&disk, &changed).expect("room");
    let mount = Mount::new(&changed, &home.join("mnt")).expect("a mount");
    write_file(&mount.at.join("boot/vmlinuz-6.1"), &new);
    drop(mount);
    let (server, at) = with_menu(setup, &disk);
    let client = Client::at("127.0.0.1", at);
    assert_same(
        &client.fetch("disk/arch+1/kernel").expect("it"),
        &old,
        "before",
    );
    // It writes its whole disk through its export, and is still connected, or not.
    let uri = server.uri("arch@a");
    Tool::new("nbdcopy")
        .arg("--flush")
        .arg(&changed)
        .arg(&uri)
        .ok();
    assert_same(
        &client.fetch("disk/arch+1/kernel").expect("it"),
        &new,
        "after",
    );
    let connected = server.client("arch@a");
    assert_same(
        &client.fetch("disk/arch+1/kernel").expect("it"),
        &new,
        "connected",
    );
    drop(connected);
    let other = Client::at("127.0.0.2", at);
    assert_same(
        &other.fetch("disk/arch+1/kernel").expect("it"),
        &old,
        "another's",
    );
}
