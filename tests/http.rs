//! Files by HTTP, to real clients and to one that does what none of them would.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Instant;

use cowherd::limits;
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use support::{
    PATIENCE, Server, Setup, Tool, assert_same, eventually, pseudo_random, read_file, require,
    write_file,
};

/// Sizes at which pieces end, or nearly do.
const SIZES: [usize; 7] = [
    0,
    1,
    limits::HTTP_PIECE - 1,
    limits::HTTP_PIECE,
    limits::HTTP_PIECE + 1,
    32 << 20,
    80 << 20,
];

/// A server whose tree has a file for each size, named after it.
struct Bench {
    server: Server,
    at: SocketAddr,
}

impl Bench {
    fn new(sizes: &[usize]) -> Self {
        let setup = Setup::new();
        let root = setup.file("tree");
        std::fs::create_dir_all(root.join("boot")).expect("a new folder");
        let disk = setup.file("disk.img");
        write_file(&disk, &[7; 4096]);
        for size in sizes {
            write_file(&root.join(size.to_string()), &content(*size));
        }
        let config = setup.file("cowherd.toml");
        let text = format!(
            "[image.disk]\nfile = {disk:?}\n[http]\nroot = {root:?}\nlisten = \"127.0.0.1:0\"\n"
        );
        write_file(&config, text.as_bytes());
        let server = setup.with_arg("--config").with_arg(config).start();
        let at = server.said("http on ").replace("http on ", "").parse();
        let at = at.expect("an address and a port");
        Self { server, at }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.server.setup().file(name)
    }

    fn uri(&self, name: &str) -> String {
        format!("http://{}/{name}", self.at)
    }

    /// Fetches every file with `fetch`, which is told its URI and where to put it.
    fn fetches(&self, sizes: &[usize], fetch: impl Fn(&str, &str) -> Tool) {
        for size in sizes {
            let name = size.to_string();
            let target = self.file("fetched");
            let _ = std::fs::remove_file(&target);
            fetch(&self.uri(&name), target.to_str().expect("a plain path")).ok();
            assert_same(&read_file(&target), &content(*size), &name);
        }
    }

    fn connect(&self) -> Wire {
        Wire::from([127, 0, 0, 1].into(), self.at)
    }

    /// What a GET on a connection of its own is answered.
    fn get(&self, target: &str, headers: &str) -> Answer {
        let mut wire = self.connect();
        wire.send(&get(target, headers));
        wire.answer()
    }
}

fn get(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n")
}

fn content(size: usize) -> Vec<u8> {
    pseudo_random(size as u64, size)
}

/// A plain connection.
struct Wire(TcpStream);

/// The head of an answer as it came, and its body.
struct Answer {
    head: String,
    body: Vec<u8>,
}

impl Wire {
    fn from(own: Ipv4Addr, server: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let own = SocketAddr::new(own.into(), 0);
        socket.bind(&own.into()).expect("an address of this host");
        socket.connect(&server.into()).expect("a listener");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time");
        Self(socket.into())
    }

    fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).expect("sent");
    }

    fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("the rest of the head");
            head.push(byte[0]);
        }
        String::from_utf8(head).expect("text")
    }

    fn answer(&mut self) -> Answer {
        let head = self.head();
        let length = header(&head, "Content-Length").expect("a length").parse();
        let mut body = vec![0; length.expect("a number")];
        self.0.read_exact(&mut body).expect("the rest of the body");
        Answer { head, body }
    }

    /// All that comes until the server closes.
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            // What was sent and not read makes a reset of the close.
            Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("{error}"),
            _ => rest,
        }
    }
}

impl Answer {
    fn status(&self) -> u16 {
        let status = self.head.split(' ').nth(1).expect("a status");
        status.parse().expect("a number")
    }

    fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

/// The value of a header, by its name letter by letter, as GRUB looks for it.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.split("\r\n");
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn curl_gets_files_whole() {
    if !require(&["curl"]) {
        return;
    }
    let bench = Bench::new(&SIZES);
    for version in ["--http1.1", "--http1.0"] {
        bench.fetches(&SIZES, |uri, target| {
            Tool::new("curl").args([
                "--silent",
                "--show-error",
                "--fail",
                version,
                "-o",
                target,
                uri,
            ])
        });
    }
}

#[test]
fn busybox_and_wget_get_files_whole() {
    if !require(&["busybox", "wget"]) {
        return;
    }
    let bench = Bench::new(&SIZES);
    bench.fetches(&SIZES, |uri, target| {
        Tool::new("busybox").args(["wget", "-q", "-O", target, uri])
    });
    bench.fetches(&SIZES, |uri, target| {
        Tool::new("wget").args(["-q", "-O", target, uri])
    });
}

#[test]
fn curl_learns_the_size_without_the_file() {
    if !require(&["curl"]) {
        return;
    }
    let bench = Bench::new(&[1 << 20]);
    let head = Tool::new("curl")
        .args(["--silent", "--head", &bench.uri("1048576")])
        .ok();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(header(&head, "Content-Length"), Some("1048576"));
    bench.server.wait_for_log(&["1048576: asked for its size"]);
}

#[test]
fn curl_goes_on_where_a_file_was_cut() {
    if !require(&["curl"]) {
        return;
    }
    let bench = Bench::new(&[1 << 20]);
    let target = bench.file("fetched");
    let whole = content(1 << 20);
    write_file(&target, &whole[..700_000]);
    let arguments = [
        "--silent",
        "--show-error",
        "--fail",
        "--continue-at",
        "-",
        "-o",
    ];
    Tool::new("curl")
        .args(arguments)
        .arg(&target)
        .arg(bench.uri("1048576"))
        .ok();
    assert_same(&read_file(&target), &whole, "continued");
    bench
        .server
        .wait_for_log(&["348576 bytes from 700000 of 1048576 in"]);
}

#[test]
fn curl_gets_many_files_over_one_connection() {
    if !require(&["curl"]) {
        return;
    }
    let bench = Bench::new(&[1, 1000]);
    let (one, other) = (bench.uri("1"), bench.uri("1000"));
    let said = Tool::new("curl")
        .args([
            "--silent",
            "-o",
            "/dev/null",
            "-o",
            "/dev/null",
            "-o",
            "/dev/null",
        ])
        .args([
            "-w",
            "%{num_connects}:%{http_code} ",
            &one,
            &other,
            &bench.uri("none"),
        ])
        .ok();
    assert_eq!(said, "1:200 0:200 0:404 ");
}

#[test]
fn headers_are_written_as_grub_compares_them() {
    let bench = Bench::new(&[1000]);
    let mut wire = bench.connect();
    // What GRUB sends, but for the address.
    wire.send("GET /1000 HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: 2.06\r\n\r\n");
    let answer = wire.answer();
    assert!(
        answer.head.starts_with("HTTP/1.1 200 OK\r\n"),
        "{}",
        answer.head
    );
    assert_eq!(answer.header("Content-Length"), Some("1000"));
    assert_eq!(answer.header("Transfer-Encoding"), None);
    assert_same(&answer.body, &content(1000), "body");
    // When GRUB seeks.
    wire.send(&get("/1000", "Range: bytes=400-\r\n"));
    let answer = wire.answer();
    assert!(answer.head.starts_with("HTTP/1.1 206 "), "{}", answer.head);
    assert_eq!(answer.header("Content-Length"), Some("600"));
    assert_same(&answer.body, &content(1000)[400..], "part");
    wire.send(&get("/grub.cfg", ""));
    assert!(wire.answer().head.starts_with("HTTP/1.1 404 "));
}

#[test]
fn a_range_is_answered_with_its_place() {
    let bench = Bench::new(&[1000]);
    for (range, status, place, part) in [
        ("bytes=0-0", 206, Some("bytes 0-0/1000"), 0..1),
        ("bytes=-5", 206, Some("bytes 995-999/1000"), 995..1000),
        ("bytes=1000-", 416, Some("bytes */1000"), 0..0),
        ("bytes=0-1,5-6", 200, None, 0..1000),
        ("bytes=x", 200, None, 0..1000),
    ] {
        let answer = bench.get("/1000", &format!("Range: {range}\r\n"));
        assert_eq!(answer.status(), status, "{range}");
        assert_eq!(answer.header("Content-Range"), place, "{range}");
        assert_same(&answer.body, &content(1000)[part], range);
    }
}

#[test]
fn what_a_client_has_is_sent_again_only_when_it_has_changed() {
    let bench = Bench::new(&[1000]);
    let tag = bench
        .get("/1000", "")
        .header("Etag")
        .expect("a tag")
        .to_owned();
    let condition = format!("If-None-Match: {tag}\r\n");
    let mut wire = bench.connect();
    wire.send(&get("/1000", &condition));
    let head = wire.head();
    assert!(head.starts_with("HTTP/1.1 304 "), "{head}");
    assert_eq!(header(&head, "Content-Length"), None);
    // Nothing came behind that head.
    wire.send(&get("/1000", ""));
    assert_eq!(wire.answer().status(), 200);
    write_file(&bench.file("tree/1000"), &[1; 1000]);
    assert_eq!(bench.get("/1000", &condition).body, [1; 1000]);
}

#[test]
fn a_client_of_the_old_version_gets_the_file_and_the_end_of_the_connection() {
    let bench = Bench::new(&[1000]);
    let mut wire = bench.connect();
    wire.send("GET /1000 HTTP/1.0\r\n\r\n");
    assert_same(&wire.answer().body, &content(1000), "body");
    assert!(wire.rest().is_empty());
}

#[test]
fn requests_that_come_together_are_answered_in_their_order() {
    let bench = Bench::new(&[1000, 300_000]);
    let mut wire = bench.connect();
    let together = ["/1000", "/300000", "/none", "/1000"].map(|target| get(target, ""));
    wire.send(&together.concat());
    let answers = [(); 4].map(|()| wire.answer());
    assert_eq!(answers.each_ref().map(Answer::status), [200, 200, 404, 200]);
    assert_same(&answers[1].body, &content(300_000), "second");
    assert_same(&answers[3].body, &content(1000), "last");
}

#[test]
fn slashes_are_put_right_without_sending_the_client_elsewhere() {
    let bench = Bench::new(&[1]);
    for target in [
        "//1",
        "/./1",
        "/boot//..%2e/../1",
        "/1?x=/../y",
        "http://127.0.0.1/1",
    ] {
        let wanted = if target.contains("..%2e") { 404 } else { 200 };
        assert_eq!(bench.get(target, "").status(), wanted, "{target}");
    }
}

#[test]
fn no_name_leads_out_of_the_root() {
    let bench = Bench::new(&[1]);
    let config = bench.file("cowherd.toml");
    let absolute = config.to_str().expect("a plain path");
    std::os::unix::fs::symlink(&config, bench.file("tree/link")).expect("room");
    for target in [
        "/../cowherd.toml",
        "/boot/../../cowherd.toml",
        "/%2e%2e/cowherd.toml",
        "/%2E./cowherd.toml",
        "/..%2fcowherd.toml",
        "/..%5ccowherd.toml",
        "/..%255ccowherd.toml",
        "/.%00./cowherd.toml",
        "/%c0%ae%c0%ae/cowherd.toml",
        "/%252e%252e/cowherd.toml",
        "/link",
        &format!("/{absolute}"),
        &format!("/%2f{absolute}"),
    ] {
        let answer = bench.get(target, "");
        assert_eq!((answer.status(), answer.body.len()), (404, 0), "{target}");
    }
}

#[test]
fn a_directory_is_not_found_and_not_listed() {
    let bench = Bench::new(&[1]);
    for target in ["/", "/boot", "/boot/", "/."] {
        let answer = bench.get(target, "");
        assert_eq!((answer.status(), answer.body.len()), (404, 0), "{target}");
    }
}

#[test]
fn other_methods_are_told_which_there_are() {
    let bench = Bench::new(&[1]);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let mut wire = bench.connect();
        wire.send(&format!(
            "{method} /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        ));
        let answer = wire.answer();
        let said = (answer.status(), answer.header("Allow"));
        assert_eq!(said, (405, Some("GET, HEAD")), "{method}");
    }
    assert_eq!(read_file(&bench.file("tree/1")), content(1));
}

#[test]
fn what_is_no_request_ends_its_connection_and_no_other() {
    let bench = Bench::new(&[1]);
    let many: String = (0..200)
        .map(|number| format!("X-{number}: 1\r\n"))
        .collect();
    for (sent, status) in [
        ("\0\0\0\r\n\r\n".to_owned(), "400"),
        ("GET\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), "400"),
        (get("/1", "Content-Length: x\r\n"), "400"),
        (get("/1", &many), "431"),
        (get("/1", &format!("X: {}\r\n", "a".repeat(100_000))), "431"),
        (get(&"/a".repeat(60_000), ""), "431"),
    ] {
        let mut wire = bench.connect();
        // The server may hang up on the end of it.
        let _ = wire.0.write_all(sent.as_bytes());
        let rest = String::from_utf8(wire.rest()).expect("text");
        // What the server had not read when it closed can make the kernel drop its answer.
        let is_said = rest.starts_with(&format!("HTTP/1.1 {status} "));
        assert!(is_said || rest.is_empty() && sent.len() > 20_000, "{rest}");
    }
    assert_eq!(bench.get("/1", "").status(), 200);
}

#[test]
fn a_client_that_sends_its_request_too_slowly_is_cut() {
    let bench = Bench::new(&[1]);
    let begun = Instant::now();
    let mut slow = bench.connect();
    slow.send("GET /1 HTTP/1.1\r\nX: ");
    let mut idle = bench.connect();
    idle.send(&get("/1", ""));
    idle.answer();
    for wire in [&mut slow, &mut idle] {
        assert!(wire.rest().is_empty());
        assert!(begun.elapsed() >= limits::HTTP_REQUEST_TIME);
    }
}

#[test]
fn a_client_that_takes_nothing_is_cut_and_its_neighbour_notices_nothing() {
    let bench = Bench::new(&[80 << 20, 1]);
    let mut stuck = bench.connect();
    stuck.send(&get("/83886080", ""));
    stuck.head();
    assert_eq!(bench.get("/1", "").status(), 200);
    bench
        .server
        .wait_for_log(&["83886080: ended by the client after"]);
    let rest = stuck.rest();
    assert!(rest.len() < 80 << 20, "all of it came");
}

#[test]
fn a_file_that_is_cut_while_it_is_sent_ends_the_connection() {
    let bench = Bench::new(&[80 << 20]);
    let mut wire = bench.connect();
    wire.send(&get("/83886080", ""));
    wire.head();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(bench.file("tree/83886080"));
    file.and_then(|file| file.set_len(1)).expect("cut");
    assert!(wire.rest().len() < 80 << 20, "more came than there is");
    bench.server.wait_for_log(&["WARN", "83886080: "]);
}

#[test]
fn an_address_has_so_many_connections_and_its_neighbours_have_theirs() {
    let bench = Bench::new(&[1]);
    let greeted = |host: u8| {
        let mut wire = Wire::from([127, 0, 0, host].into(), bench.at);
        wire.0.write_all(get("/1", "").as_bytes())?;
        let mut byte = [0];
        wire.0.read_exact(&mut byte).map(|()| wire)
    };
    let most = limits::HTTP_CONNECTIONS_PER_ADDRESS_MAX;
    let mut hoard: Vec<_> = (0..most).map(|_| greeted(1).expect("a seat")).collect();
    assert!(greeted(1).is_err(), "one too many was served");
    bench
        .server
        .wait_for_log(&["closed", "connections from its address already"]);
    greeted(2).expect("a neighbour");
    hoard.pop();
    eventually(|| greeted(1));
}

#[test]
fn another_root_is_served_when_the_config_is_read_again() {
    let bench = Bench::new(&[1]);
    let config = bench.file("cowherd.toml");
    let text = String::from_utf8(read_file(&config)).expect("text");
    let other = bench.file("other");
    std::fs::create_dir(&other).expect("a new folder");
    write_file(&other.join("new"), b"new");
    let (tree, other) = (format!("{:?}", bench.file("tree")), format!("{other:?}"));
    write_file(&config, text.replace(&tree, &other).as_bytes());
    bench.server.signal(Signal::HUP);
    bench.server.wait_for_log(&["config reloaded"]);
    assert_eq!(bench.get("/new", "").body, b"new");
    assert_eq!(bench.get("/1", "").status(), 404);
    // One that is not there changes nothing.
    write_file(&config, text.replace(&tree, "\"/nonexistent\"").as_bytes());
    bench.server.signal(Signal::HUP);
    bench
        .server
        .wait_for_log(&["nothing changes", "/nonexistent", "[http]"]);
    assert_eq!(bench.get("/new", "").body, b"new");
}

#[test]
fn another_port_takes_a_restart_and_the_log_says_so() {
    let bench = Bench::new(&[1]);
    let config = bench.file("cowherd.toml");
    let text = String::from_utf8(read_file(&config)).expect("text");
    write_file(
        &config,
        text.replace("127.0.0.1:0", "127.0.0.2:0").as_bytes(),
    );
    bench.server.signal(Signal::HUP);
    bench
        .server
        .wait_for_log(&["where HTTP is served", "when the server is started again"]);
    assert_eq!(bench.get("/1", "").status(), 200);
}
