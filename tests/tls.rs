//! TLS: who gets in, as whom, and that what is read and written is what it is without.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use rustix::process::Signal;
use support::nbd::{
    Client, Handshake, IHAVEOPT, Refused, Request, Wire, assert_refused, go_data, option, reply,
};
use support::{
    Certificates, Seeded, Server, Setup, Tool, assert_same, pseudo_random, read_file, require,
    skipped, write_file,
};

const SIZE: usize = 4 << 20;

fn image() -> Vec<u8> {
    pseudo_random(21, SIZE)
}

/// A server of the image `disk` with TLS in this mode, and the certificates of `a` and `b`.
struct Secure {
    certificates: Certificates,
    server: Server,
}

impl Secure {
    fn new(mode: &str, more: &str) -> Option<Self> {
        let certificates = Certificates::new(&["a", "b"])?;
        let setup = Setup::new();
        write_file(&setup.file("disk.img"), &image());
        let config = setup.file("cowherd.toml");
        let text = format!(
            "{}[image.disk]\nfile = \"{}\"\n{more}",
            certificates.config(mode),
            setup.file("disk.img").display()
        );
        write_file(&config, text.as_bytes());
        let server = setup.with_arg("--config").with_arg(&config).start();
        Some(Self {
            certificates,
            server,
        })
    }

    fn plain(&self) -> Handshake {
        Handshake::start(&self.server.address()).expect("a greeting")
    }

    /// Past STARTTLS, with the certificate of `client`.
    fn secured(&self, client: &str) -> Handshake {
        let tls = self.certificates.client(Some(client));
        self.plain().start_tls(tls).expect("TLS")
    }

    fn client(&self, client: &str, export: &str) -> Client {
        self.secured(client).go(export).expect("an export")
    }

    /// For libnbd, as the client `a`.
    fn uri(&self, export: &str) -> String {
        let uri = self.server.uri(export).replace("nbd://", "nbds://");
        let folder = self.certificates.file("a");
        format!("{uri}?tls-certificates={}", folder.display())
    }
}

#[test]
fn a_certificate_opens_the_overlay_of_its_name_and_nothing_else() {
    let Some(secure) = Secure::new("required", "") else {
        return;
    };
    secure
        .client("a", "disk@a")
        .write(0, b"mine")
        .expect("a write");
    for export in ["disk", "", "@a", "disk+1@a"] {
        let seen = secure.client("a", export).read(0, 4).expect("a read");
        assert_eq!(seen, b"mine", "{export:?}");
    }
    for export in ["disk@b", "@b", "disk@127-0-0-1", "disk@somebody"] {
        let refused = secure.secured("a").go(export).map(drop);
        assert_refused(refused, &[reply::ERR_POLICY]);
    }
    secure
        .server
        .wait_for_log(&["disk@b", "certificate is that of \"a\""]);
    assert_ne!(
        secure.client("b", "disk").read(0, 4).expect("a read"),
        b"mine"
    );
}

#[test]
fn a_client_without_a_certificate_does_not_get_in() {
    let Some(secure) = Secure::new("required", "") else {
        return;
    };
    let tls = secure.certificates.client(None);
    // With TLS 1.3 a client learns of it with the first answer that it waits for.
    let outcome = secure.plain().start_tls(tls).and_then(|mut tls| tls.list());
    assert!(matches!(outcome, Err(Refused::Closed(_))), "{outcome:?}");
    secure.server.wait_for_log(&["TLS", "certificate"]);
}

#[test]
fn where_tls_is_required_nothing_is_served_without() {
    let Some(secure) = Secure::new("required", "") else {
        return;
    };
    let mut handshake = secure.plain();
    for number in [option::LIST, option::STRUCTURED_REPLY, 99] {
        assert_refused(handshake.ask(number, &[]), &[reply::ERR_TLS_REQD]);
    }
    assert_refused(handshake.try_go(b"disk@a"), &[reply::ERR_TLS_REQD]);
    let tls = secure.certificates.client(Some("a"));
    let mut handshake = handshake.start_tls(tls).expect("TLS after all");
    assert_refused(handshake.ask(option::STARTTLS, &[]), &[reply::ERR_INVALID]);
    assert_eq!(handshake.list().expect("a list"), ["disk"]);
    let closed = secure.plain().export_name("disk@a").map(drop);
    assert!(matches!(closed, Err(Refused::Closed(_))), "{closed:?}");
}

#[test]
fn where_tls_is_selective_only_what_needs_it_is_refused_without() {
    let client = "[client.a]\ncertificate = true\n";
    let Some(secure) = Secure::new("selective", client) else {
        return;
    };
    let refused = secure.plain().go("disk@a").map(drop);
    assert_refused(refused, &[reply::ERR_TLS_REQD]);
    secure.plain().go("disk@other").expect("no TLS needed");
    secure.client("a", "disk@a");
    let Some(secure) = Secure::new("selective", "tls = true\n") else {
        return;
    };
    let refused = secure.plain().go("disk@other").map(drop);
    assert_refused(refused, &[reply::ERR_TLS_REQD]);
    assert!(secure.plain().list().expect("a list").is_empty());
    assert_eq!(secure.secured("a").list().expect("a list"), ["disk"]);
}

/// The bytes of an option as sent.
fn bytes_of(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = IHAVEOPT.to_be_bytes().to_vec();
    bytes.extend_from_slice(&number.to_be_bytes());
    let len = u32::try_from(data.len()).expect("short");
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

#[test]
fn bytes_sent_with_starttls_are_answered_by_nothing() {
    let Some(secure) = Secure::new("selective", "") else {
        return;
    };
    let mut handshake = secure.plain();
    let go = bytes_of(option::GO, &go_data(b"disk", &[]));
    let both = [bytes_of(option::STARTTLS, &[]), go].concat();
    handshake.wire.send(&both).expect("bytes can be sent");
    handshake.wire.assert_closed();
    secure.server.wait_for_log(&["behind STARTTLS"]);
}

#[test]
fn plain_options_after_starttls_end_the_connection_unread() {
    let Some(secure) = Secure::new("selective", "") else {
        return;
    };
    let mut handshake = secure.plain();
    handshake.ask(option::STARTTLS, &[]).expect("an ACK");
    let go = bytes_of(option::GO, &go_data(b"disk", &[]));
    handshake.wire.send(&go).expect("bytes can be sent");
    secure.server.wait_for_log(&["TLS: "]);
    // An alert of TLS may come, and no reply.
    assert!(handshake.reply().is_err());
}

#[test]
fn reads_and_writes_through_tls_are_those_without() {
    let Some(secure) = Secure::new("selective", "[client.a]\nallow = [\"127.0.0.1\"]\n") else {
        return;
    };
    let mut expected = image();
    let mut tls = secure.client("a", "disk@a");
    let mut dice = Seeded(77);
    for _ in 0..60 {
        let largest = if dice.below(4) == 0 { 2_000_000 } else { 9000 };
        let len = usize::try_from(1 + dice.below(largest)).expect("small");
        let at = dice.below((SIZE - len) as u64);
        let place = usize::try_from(at).expect("small")..;
        let place = place.start..place.start + len;
        if dice.below(2) == 0 {
            let bytes = dice.bytes(len);
            tls.write(at, &bytes).expect("a write");
            expected[place].copy_from_slice(&bytes);
        } else {
            let seen = tls
                .read(at, u32::try_from(len).expect("small"))
                .expect("a read");
            assert_same(&seen, &expected[place], "a read through TLS");
        }
    }
    tls.flush().expect("a flush");
    let mut plain = secure.server.client("disk@a");
    assert_same(
        &plain.read_all().expect("reads"),
        &expected,
        "the disk without TLS",
    );
}

#[test]
fn many_requests_are_under_way_at_a_time() {
    let Some(secure) = Secure::new("required", "") else {
        return;
    };
    let mut client = secure.client("a", "disk@a");
    for nth in 0..64_u64 {
        client
            .submit(&Request::read(nth * 65_536, 65_536))
            .expect("a request");
    }
    for _ in 0..64 {
        let (cookie, bytes) = client.answer().expect("an answer");
        let at = usize::try_from(cookie & 0xff).expect("small") * 65_536;
        assert_same(&bytes.expect("a read"), &image()[at..at + 65_536], "a read");
    }
    client.disconnect();
}

#[test]
fn sighup_reads_certificates_again_and_sessions_keep_theirs() {
    let Some(secure) = Secure::new("required", "") else {
        return;
    };
    let first = secure.certificates.of_server();
    let mut old = secure.client("a", "disk@a");
    secure.certificates.make(&[]);
    let second = secure.certificates.of_server();
    assert_ne!(first, second);
    assert_eq!(secure.secured("a").wire.certificate(), Some(first.clone()));
    secure.server.signal(Signal::HUP);
    secure.server.wait_for_log(&["config reloaded"]);
    assert_eq!(secure.secured("a").wire.certificate(), Some(second));
    old.write(0, b"still here").expect("a write");
    assert_eq!(old.wire.certificate(), Some(first));
}

#[test]
fn certificates_that_can_not_be_read_change_nothing_on_sighup() {
    let Some(secure) = Secure::new("required", "") else {
        return;
    };
    write_file(&secure.certificates.file("server-key.pem"), b"gone");
    secure.server.signal(Signal::HUP);
    secure
        .server
        .wait_for_log(&["not reloaded", "server-key.pem"]);
    secure.client("a", "disk@a");
}

#[test]
fn certificates_that_can_not_be_read_end_with_2() {
    let Some(certificates) = Certificates::new(&[]) else {
        return;
    };
    let setup = Setup::new();
    let config = setup.file("cowherd.toml");
    write_file(&certificates.file("server-cert.pem"), b"nothing");
    let tls = certificates.config("required");
    write_file(
        &config,
        format!("{tls}[image.a]\nfile = \"/dev/null\"\n").as_bytes(),
    );
    let refusal = setup.with_arg("--config").with_arg(&config).refused();
    assert_eq!(refusal.code, 2);
    refusal.says(&["server-cert.pem", "no certificate"]);
}

#[test]
fn a_client_that_never_finishes_its_tls_handshake_is_closed_in_time() {
    let Some(secure) = Secure::new("required", "") else {
        return;
    };
    let mut handshake = secure.plain();
    handshake.ask(option::STARTTLS, &[]).expect("an ACK");
    secure.server.wait_for_log(&["more than 30 seconds"]);
    handshake.wire.assert_closed();
}

#[test]
fn nbdinfo_and_nbdcopy_go_through_tls() {
    let Some(secure) = Secure::new("required", "") else {
        return;
    };
    if !require(&["nbdinfo", "nbdcopy"]) {
        return;
    }
    let json = Tool::new("nbdinfo")
        .arg("--json")
        .arg(secure.uri("disk@a"))
        .ok();
    assert!(json.contains("\"TLS\": true"), "{json}");
    let list = Tool::new("nbdinfo").arg("--list").arg(secure.uri("")).ok();
    assert!(list.contains("export=\"disk\""), "{list}");
    let new = secure.server.setup().file("new.raw");
    write_file(&new, &pseudo_random(5, SIZE));
    Tool::new("nbdcopy")
        .arg(&new)
        .arg(secure.uri("disk@a"))
        .ok();
    let back = secure.server.setup().file("back.raw");
    Tool::new("nbdcopy")
        .arg(secure.uri("disk@a"))
        .arg(&back)
        .ok();
    assert_same(
        &read_file(&back),
        &pseudo_random(5, SIZE),
        "what comes back",
    );
    let other = Tool::new("nbdinfo").arg(secure.uri("disk@b")).run();
    assert_ne!(other.code, Some(0), "{other}");
}

/// fio can't be told of certificates. libnbd looks for them in the home of whoever is not root.
#[test]
fn fio_verifies_its_random_writes_through_tls() {
    let Some(secure) = Secure::new("required", "") else {
        return;
    };
    if !require(&["fio", "unshare"]) {
        return;
    }
    let unshare = ["--user", "--map-user=1000"];
    if Tool::new("unshare").args(unshare).arg("true").run().code != Some(0) {
        return skipped("user namespaces");
    }
    let home = secure.server.setup().file("home");
    std::fs::create_dir_all(home.join(".pki")).expect("a new folder");
    let certificates = home.join(".pki/libnbd");
    std::os::unix::fs::symlink(secure.certificates.file("a"), certificates).expect("a link");
    let uri = secure.server.uri("disk@a").replace("nbd://", "nbds://");
    let said = Tool::new("unshare")
        .args(unshare)
        .arg("env")
        .arg(format!("HOME={}", home.display()))
        .args(["fio", "--name=v", "--ioengine=nbd", "--rw=randwrite"])
        .args(["--bssplit=4k/60:512/20:16k/10:128k/10", "--blockalign=512"])
        .args(["--iodepth=16", "--fsync=64", "--randseed=7"])
        .args(["--verify=crc32c", "--do_verify=1", "--verify_fatal=1"])
        .args(["--verify_state_save=0"])
        .arg(format!("--size={SIZE}"))
        .arg(format!("--uri={uri}"))
        .inside(&home)
        .ok();
    assert!(said.contains("err= 0"), "{said}");
    let mut client = secure.client("a", "disk");
    assert_ne!(client.read_all().expect("a read"), image());
}

#[test]
fn qemu_img_goes_through_tls() {
    let Some(secure) = Secure::new("required", "") else {
        return;
    };
    if !require(&["qemu-img"]) {
        return;
    }
    let folder = secure.certificates.file("a");
    let credentials = format!(
        "tls-creds-x509,id=tls,endpoint=client,dir={}",
        folder.display()
    );
    let address = secure.server.uri("");
    let port = address
        .trim_end_matches('/')
        .rsplit(':')
        .next()
        .expect("a port");
    let source = format!("driver=nbd,host=localhost,port={port},export=disk@a,tls-creds=tls");
    let copy = secure.server.setup().file("copy.raw");
    Tool::new("qemu-img")
        .args(["convert", "--object", &credentials, "--image-opts", &source])
        .args(["-O", "raw"])
        .arg(&copy)
        .ok();
    assert_same(&read_file(&copy), &image(), "what qemu-img copies");
}

#[test]
fn qemu_io_writes_through_tls() {
    let Some(secure) = Secure::new("required", "") else {
        return;
    };
    if !require(&["qemu-io"]) {
        return;
    }
    let folder = secure.certificates.file("a").display().to_string();
    let credentials = format!("tls-creds-x509,id=tls,endpoint=client,dir={folder}");
    let address = secure.server.uri("");
    let port = address
        .trim_end_matches('/')
        .rsplit(':')
        .next()
        .expect("a port");
    let disk = format!("driver=nbd,host=localhost,port={port},export=disk@a,tls-creds=tls");
    let said = Tool::new("qemu-io")
        .args(["--object", &credentials, "--image-opts"])
        .args([
            "-c",
            "write -P 5 1M 70k",
            "-c",
            "write -z 2M 64k",
            "-c",
            "write -f -P 6 9 5",
        ])
        .args([
            "-c",
            "read -P 5 1M 70k",
            "-c",
            "read -P 0 2M 64k",
            "-c",
            "flush",
        ])
        .arg(&disk)
        .ok();
    assert!(!said.contains("failed"), "{said}");
    let mut client = secure.client("a", "disk");
    assert_eq!(client.read(9, 5).expect("a read"), [6; 5]);
    assert_eq!(client.read(1 << 20, 1000).expect("a read"), [5; 1000]);
}

#[test]
fn the_map_of_blocks_is_the_same_through_tls() {
    let Some(secure) = Secure::new("selective", "[client.a]\nallow = [\"127.0.0.1\"]\n") else {
        return;
    };
    if !require(&["nbdinfo"]) {
        return;
    }
    let mut client = secure.client("a", "disk");
    client.zero(0, 1 << 20).expect("zeroes");
    client.write(2 << 20, &[1; 100]).expect("a write");
    for context in ["base:allocation", "x-cowherd:overlay"] {
        let map = |uri: &str| {
            let arg = format!("--map={context}");
            Tool::new("nbdinfo").arg(arg).arg(uri).ok()
        };
        let plain = map(&secure.server.uri("disk@a"));
        assert!(plain.lines().count() > 1, "{plain}");
        assert_eq!(map(&secure.uri("disk@a")), plain);
    }
}

#[test]
fn nbdkit_is_a_proxy_for_clients_without_tls() {
    let Some(secure) = Secure::new("required", "") else {
        return;
    };
    if !require(&["nbdkit", "nbdcopy"]) {
        return;
    }
    let copy = secure.server.setup().file("copy.raw");
    let run = format!("nbdcopy \"$uri\" {}", copy.display());
    let address = secure.server.uri("");
    let port = address
        .trim_end_matches('/')
        .rsplit(':')
        .next()
        .expect("a port");
    let folder = secure.certificates.file("a");
    Tool::new("nbdkit")
        .args([
            "-U",
            "-",
            "nbd",
            "hostname=localhost",
            "export=disk@a",
            "tls=require",
        ])
        .arg(format!("port={port}"))
        .arg(format!("tls-certificates={}", folder.display()))
        .args(["--run", &run])
        .ok();
    assert_same(&read_file(&copy), &image(), "what comes through the proxy");
}

/// What the network has brought of an older connection is done before a newer one is served.
#[test]
fn writes_of_a_dead_connection_never_land_after_those_of_its_successor() {
    let Some(secure) = Secure::new("required", "") else {
        return;
    };
    let mut dead = secure.client("a", "disk@a");
    secure.server.signal(Signal::STOP);
    for _ in 0..400 {
        dead.submit(&Request::write(7, &[1; 5000]))
            .expect("room in the socket");
    }
    drop(dead);
    secure.server.signal(Signal::CONT);
    let mut successor = secure.client("a", "disk@a");
    successor.write(7, &[2; 5000]).expect("a write");
    let seen = secure.client("a", "disk@a").read(7, 5000).expect("a read");
    assert_same(&seen, &[2; 5000], "what the successor wrote");
}

/// Replies that nobody takes are cut by the rules that hold without TLS.
#[test]
fn a_successor_is_served_though_its_predecessor_takes_no_replies() {
    let Some(secure) = Secure::new("required", "") else {
        return;
    };
    let mut stuck = secure.client("a", "disk@a");
    for _ in 0..200 {
        stuck
            .submit(&Request::read(0, 1 << 20))
            .expect("room in the socket");
    }
    let seen = secure.client("a", "disk@a").read(0, 9).expect("a read");
    assert_eq!(seen, image()[..9]);
    secure.server.wait_for_log(&["older connection", "cut"]);
}

/// A reset in the middle of everything, as of a machine that lost its power.
#[test]
fn a_secured_connection_that_breaks_harms_nobody() {
    let Some(secure) = Secure::new("required", "") else {
        return;
    };
    for nth in 0..8_u8 {
        let mut client = secure.client("a", "disk@a");
        client
            .submit(&Request::read(0, 2 << 20))
            .expect("a request");
        let payload = vec![nth; 100_000];
        let write = Request::write(0, &payload);
        client.submit(&write).expect("a request");
        drop(client);
    }
    let mut wire = Wire::connect(&secure.server.address()).expect("a connection");
    wire.send(&[0x16, 3, 1]).expect("bytes can be sent");
    let seen = secure.client("b", "disk").read(0, 4096).expect("a read");
    assert_same(&seen, &image()[..4096], "what a neighbour reads");
}
