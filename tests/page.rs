//! The admin's page in a real browser, while machines boot: what it shows, that it can be used
//! without a mouse, that nothing a machine sends becomes markup, and that it keeps up with a herd.
//!
//! Pictures are left in `target/tmp`, for whoever wants to look.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cowherd::dhcp::wire::{MessageType, code};
use cowherd::mac::MacAddress;
use serde_json::json;
use support::nbd::{Address, Handshake};
use support::room::{Room, SERVER, bytes, firmware, taking};
use support::{Browser, TOKEN, picture, require, seconds_of, write_file};

/// The text of the row of a machine.
fn row(who: &str) -> String {
    format!("({}?.innerText ?? '')", support::row(who))
}

/// A room whose server runs, and its page.
fn open(more: &str) -> Option<(Room, Browser)> {
    if !require(&["chromium", "curl"]) {
        return None;
    }
    let mut room = Room::new(more)?;
    room.start();
    let url = room.admin().url();
    let browser = Browser::open(Some(&room.host), &url)?;
    Some((room, browser))
}

#[test]
fn a_boot_is_shown_stage_by_stage_and_what_is_wrong_in_words() {
    let Some((room, mut page)) = open("") else {
        return;
    };
    page.until("document.getElementById('empty').hidden === false");
    room.has_address();
    page.until(&format!("{}.includes('DHCP ACK')", row("pc-1")));
    room.loads(&["core.0", "grub.cfg", "vmlinuz", "initrd.img"]);
    page.until(&format!("{}.includes('initramfs')", row("pc-1")));
    let mut client = room.opens();
    client.read(0, 4096).unwrap();
    page.until(&format!("{}.includes('first read')", row("pc-1")));
    client.write(0, &[1; 4096]).unwrap();
    page.until(&format!("{}.includes('root mounted')", row("pc-1")));
    page.until(&format!("{}.includes('up')", row("pc-1")));
    let failed = room
        .machine
        .tool("curl")
        .args(["-sS", "tftp://10.77.0.1/vmlinuz-6.1"])
        .run();
    assert_ne!(failed.code, Some(0));
    drop(client);
    // A second machine, which fails at its kernel.
    let other = room.lan.host();
    other.ip("addr add 10.77.0.60/24 dev lan0");
    other
        .tool("curl")
        .args(["-sS", "tftp://10.77.0.1/core.0", "-o", "/dev/null"])
        .ok();
    other
        .tool("curl")
        .args(["-sS", "tftp://10.77.0.1/vmlinuz-6.1"])
        .run();
    page.until("!document.getElementById('trouble').hidden");
    let problem = room.admin().until(|client| !client["problem"].is_null());
    let (id, problem) = (
        problem["id"].as_str().unwrap(),
        problem["problem"].as_str().unwrap(),
    );
    let shown = json!(format!("{id}: {problem}"));
    page.until(&format!(
        "[...document.querySelectorAll('#problems li')].some((li) => li.textContent === {shown})"
    ));
    page.value("document.querySelector('#rows button').focus()");
    page.press("Enter");
    page.until("document.getElementById('detail').open");
    page.until("document.querySelectorAll('#boots rect').length > 1");
    page.screenshot(&picture("detail"), (1280, 900), false);
    page.press("Escape");
    page.until("!document.getElementById('detail').open");
    page.screenshot(&picture("five"), (1280, 900), true);
    assert_eq!(page.complaints, Vec::<String>::new());
}

#[test]
fn names_that_machines_send_stay_text() {
    let Some((room, mut page)) = open("") else {
        return;
    };
    let card = room.machine.card("lan0", 68);
    let bad = [
        "<img src=x onerror=\"window.hacked=1\">",
        "</td><script>window.hacked=1</script>",
        "\u{202e}\u{1b}[2J\"'><svg onload=window.hacked=1>",
        "javascript:window.hacked=1",
    ];
    for (number, name) in (1..).zip(bad) {
        let mut discover = firmware(MessageType::Discover, MacAddress([2, 0, 0, 0, 0, number]));
        discover.options.set(code::HOST_NAME, name.as_bytes());
        discover
            .options
            .set(code::VENDOR_CLASS, format!("PXEClient{name}").as_bytes());
        card.broadcast(&bytes(&discover), 67);
        card.receive();
    }
    room.asks_only("<img src=x onerror=window.hacked=1>/vmlinuz");
    page.until("document.querySelectorAll('#rows tr').length >= 4");
    for number in 1..=4 {
        let id = format!("02:00:00:00:00:0{number}");
        page.until(&format!("{} !== ''", row(&id)));
        page.click("#rows button", &id);
        page.until("document.getElementById('facts').children.length > 4");
        let facts = page.text("document.getElementById('facts').innerText");
        assert!(facts.contains("PXEClient"), "{facts}");
        page.screenshot(&picture("hostile"), (1280, 900), false);
        page.value("document.getElementById('detail').close()");
    }
    assert_eq!(page.value("window.hacked === undefined"), json!(true));
    assert_eq!(page.value("document.scripts.length"), json!(1));
    assert_eq!(
        page.value("document.querySelectorAll('img').length"),
        json!(0)
    );
    assert_eq!(page.complaints, Vec::<String>::new());
}

/// Goes on by Tab until an element has the focus.
#[track_caller]
fn tab_to(page: &mut Browser, what: &str) {
    for _ in 0..60 {
        if page.value(&format!("document.activeElement.matches({what:?})")) == json!(true) {
            return;
        }
        page.press("Tab");
    }
    panic!("Tab leads to no {what}");
}

#[test]
fn actions_ask_before_and_take_no_mouse() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    write_file(&token, TOKEN.as_bytes());
    let Some((room, mut page)) = open(&format!("token-file = {token:?}\n")) else {
        return;
    };
    room.has_address();
    let mut client = room.opens();
    client.write(0, &[1; 4096]).unwrap();
    client.disconnect();
    // The token, which is typed.
    page.until("document.getElementById('login').open");
    page.call("Input.insertText", &json!({ "text": TOKEN }));
    page.press("Enter");
    page.until(&format!("{}.includes('down')", row("pc-1")));
    // An overlay: not by the first press, and by the second.
    tab_to(&mut page, "[data-view=overlays]");
    page.press("Enter");
    page.until("document.querySelector('#overlay-rows button')?.disabled === false");
    page.screenshot(&picture("overlays"), (1280, 900), false);
    tab_to(&mut page, "#overlay-rows button");
    page.press("Enter");
    page.until("document.getElementById('confirm').open");
    assert_eq!(page.text("document.activeElement.id"), "confirm-no");
    page.screenshot(&picture("confirm"), (1280, 900), true);
    page.press("Enter");
    page.until("!document.getElementById('confirm').open");
    let overlays = || room.cowherd(&["overlay", "list"]).ok();
    assert!(overlays().contains("disk+1@pc-1"));
    assert_eq!(
        page.value("document.activeElement.matches('#overlay-rows button')"),
        json!(true)
    );
    page.press("Enter");
    page.until("document.getElementById('confirm').open");
    tab_to(&mut page, "#confirm-yes");
    page.press("Enter");
    page.until("document.getElementById('overlays-said').textContent.includes('no overlays')");
    assert!(!overlays().contains("disk+1@pc-1"));
    // Its lease, then all that is known of it.
    tab_to(&mut page, "[data-view=machines]");
    page.press("Enter");
    tab_to(&mut page, "#rows button");
    page.press("Enter");
    page.until("document.getElementById('detail').open");
    for (button, gone) in [
        ("#forget-lease", "!document.getElementById('confirm').open"),
        (
            "#forget",
            "document.querySelectorAll('#rows tr').length === 0",
        ),
    ] {
        tab_to(&mut page, button);
        page.press("Enter");
        page.until("document.getElementById('confirm').open");
        tab_to(&mut page, "#confirm-yes");
        page.press("Enter");
        page.until(gone);
    }
    let leases = room.cowherd(&["lease", "list"]).ok();
    assert!(!leases.contains("10.77.0.50"), "{leases}");
    // Without its token it was refused, once.
    page.complaints
        .retain(|complaint| !complaint.contains("status of 401"));
    assert_eq!(page.complaints, Vec::<String>::new());
}

#[test]
fn everything_is_named_for_those_who_do_not_see() {
    let Some((room, mut page)) = open("") else {
        return;
    };
    room.has_address();
    page.until(&format!("{} !== ''", row("pc-1")));
    let tree = page.call("Accessibility.getFullAXTree", &json!({}));
    let nodes = tree["nodes"].as_array().unwrap();
    let role = |node: &serde_json::Value| node["role"]["value"].as_str().unwrap_or("").to_owned();
    let controls = ["button", "textbox", "searchbox", "combobox", "link"];
    let unnamed = nodes.iter().filter(|node| {
        let is_control = controls.contains(&role(node).as_str()) && node["ignored"] == false;
        is_control && node["name"]["value"].as_str().unwrap_or("").is_empty()
    });
    assert_eq!(unnamed.count(), 0);
    for wanted in [
        "main",
        "banner",
        "table",
        "columnheader",
        "rowheader",
        "status",
    ] {
        assert!(nodes.iter().any(|node| role(node) == wanted), "no {wanted}");
    }
}

/// The generations of the images, a line for each.
const GENERATIONS: &str = "[...document.querySelectorAll('#image-rows tr')]
    .map((row) => [...row.children].map((cell) => cell.textContent).join(' | ')).join('\\n')";

#[test]
fn generations_are_shown_with_the_machines_that_run_them() {
    let Some((room, mut page)) = open("") else {
        return;
    };
    room.has_address();
    let old = room.opens();
    // Another file is the current generation now, and the old one goes on beside it.
    let (first, second) = (room.setup.file("disk.img"), room.setup.file("second.img"));
    write_file(&second, &[b'b'; 2 << 20]);
    let text = std::fs::read_to_string(&room.config).unwrap();
    let both = format!("file = {second:?}\ngeneration = 2\nolder = {{ 1 = {first:?} }}\n");
    let text = text.replacen(&format!("file = {first:?}\n"), &both, 1);
    write_file(&room.config, text.as_bytes());
    room.server().signal(rustix::process::Signal::HUP);
    room.server().wait_for_log(&["config reloaded"]);
    let other = room.lan.host();
    other.ip("addr add 10.77.0.60/24 dev lan0");
    let address = Address::Tcp(SocketAddrV4::new(SERVER, 10809).into());
    let opened = other.within(move || support::nbd::Client::open(&address, "disk"));
    let new = opened.unwrap();
    tab_to(&mut page, "[data-view=images]");
    page.press("Enter");
    let shown = |first: &str, second: &str| {
        let lines =
            format!("disk | 1 | 1.0 MiB | {first}\ndisk | 2 (current) | 2.0 MiB | {second}");
        format!("{GENERATIONS} === {}", json!(lines))
    };
    page.until(&shown("pc-1", "10.77.0.60"));
    page.screenshot(&picture("generations"), (1280, 900), false);
    // It changes as they do, and its older machine gets the current one when it comes again.
    old.disconnect();
    page.until(&shown("none", "10.77.0.60"));
    let _again = room.opens();
    page.until(&shown("none", "10.77.0.60, pc-1"));
    drop(new);
    assert_eq!(page.complaints, Vec::<String>::new());
}

/// Machines of the herd.
const HERD: u16 = 500;
/// So many boot at a time.
const PARTS: u16 = 10;

/// The n-th machine: its card.
fn card_of(number: u16) -> MacAddress {
    let [high, low] = number.to_be_bytes();
    MacAddress([2, 0, 0, 1, high, low])
}

/// All get addresses, many at a time; which.
fn addresses(room: &Room) -> Vec<Ipv4Addr> {
    let card = room.machine.card("lan0", 68);
    let mut all = Vec::new();
    let numbers: Vec<_> = (0..HERD).collect();
    for some in numbers.chunks(50) {
        for number in some {
            let discover = firmware(MessageType::Discover, card_of(*number));
            card.broadcast(&bytes(&discover), 67);
        }
        let end = all.len() + some.len();
        while all.len() < end {
            let (answer, _) = card.receive();
            match answer.kind() {
                Ok(Some(MessageType::Offer)) => card.broadcast(&bytes(&taking(&answer)), 67),
                _ => all.push(answer.yiaddr),
            }
        }
    }
    all
}

/// A file by TFTP to one address, as plain as can be.
fn fetch(from: Ipv4Addr, path: &str) {
    let socket = UdpSocket::bind((from, 0)).expect("a socket");
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a time");
    let request = [&[0, 1][..], path.as_bytes(), b"\0octet\0blksize\x001400\0"].concat();
    socket
        .send_to(&request, SocketAddrV4::new(SERVER, 69))
        .expect("a datagram");
    let mut packet = [0; 2000];
    loop {
        let (length, to) = socket.recv_from(&mut packet).expect("an answer");
        let is_data = packet[1] == 3;
        let block = if is_data {
            [packet[2], packet[3]]
        } else {
            [0, 0]
        };
        socket
            .send_to(&[0, 4, block[0], block[1]], to)
            .expect("a datagram");
        if is_data && length < 1404 {
            return;
        }
    }
}

/// The machines boot one after the other, and read and write for as long as it is wanted.
fn live(all: &[Ipv4Addr], ends: &AtomicBool, running: &AtomicUsize) {
    let mut clients = Vec::new();
    for address in all {
        for path in ["core.0", "vmlinuz"] {
            fetch(*address, path);
        }
        let at = Address::Tcp(SocketAddrV4::new(SERVER, 10809).into());
        let greeted = Handshake::start_from(address.octets(), &at).expect("a greeting");
        let mut client = greeted.go("disk").expect("a session");
        client.read(0, 4096).expect("a read");
        client.write(0, &[1; 4096]).expect("a write");
        clients.push(client);
        if ends.load(Ordering::Relaxed) {
            return;
        }
    }
    running.fetch_add(1, Ordering::Relaxed);
    let mut turn = 0;
    while !ends.load(Ordering::Relaxed) {
        turn += 1;
        for (number, client) in clients.iter_mut().enumerate() {
            client
                .read((turn + number as u64) % 200 * 4096, 4096)
                .expect("a read");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Processor time of server and browser in the next seconds, as shares of one processor.
fn shares(room: &Room, page: &Browser, seconds: u64) -> (f64, f64) {
    let pid = room.server().pid();
    let (server, browser, start) = (seconds_of(pid), page.seconds(), Instant::now());
    std::thread::sleep(Duration::from_secs(seconds));
    let took = start.elapsed().as_secs_f64();
    (
        (seconds_of(pid) - server) / took,
        (page.seconds() - browser) / took,
    )
}

#[test]
fn five_hundred_machines_update_smoothly() {
    if !require(&["chromium"]) {
        return;
    }
    let Some(mut room) = Room::new("") else {
        return;
    };
    for (host, address) in [(&room.host, "10.77.0.1"), (&room.machine, "10.77.0.50")] {
        host.ip("addr flush dev lan0");
        host.ip(&format!("addr add {address}/16 dev lan0"));
    }
    let text = std::fs::read_to_string(&room.config).unwrap();
    let text = text.replace("10.77.0.100-10.77.0.199", "10.77.1.0-10.77.2.255");
    write_file(&room.config, text.as_bytes());
    room.start();
    let all = addresses(&room);
    let batch = room.setup.file("batch");
    let lines = all
        .iter()
        .map(|address| format!("addr add {address}/16 dev lan0\n"));
    write_file(&batch, lines.collect::<String>().as_bytes());
    room.machine.tool("ip").arg("-batch").arg(&batch).ok();
    let url = room.admin().url();
    let Some(mut page) = Browser::open(Some(&room.host), &url) else {
        return;
    };
    page.until(&format!(
        "document.querySelectorAll('#rows tr').length === {HERD}"
    ));
    page.value(
        "window.long = []; new PerformanceObserver((list) => { for (const one of list.getEntries())
            window.long.push(one.duration); }).observe({ type: 'longtask' }); undefined",
    );
    let flags = Arc::new((AtomicBool::new(false), AtomicUsize::new(0)));
    std::thread::scope(|scope| {
        // However this ends, the herd ends too.
        let _end = Ends(&flags.0);
        for part in all.chunks(HERD.div_ceil(PARTS).into()) {
            let (machine, flags, part) = (&room.machine, Arc::clone(&flags), part.to_vec());
            scope.spawn(move || machine.within(move || live(&part, &flags.0, &flags.1)));
        }
        let booting = shares(&room, &page, 15);
        let end = Instant::now() + Duration::from_secs(150);
        while flags.1.load(Ordering::Relaxed) < usize::from(PARTS) {
            assert!(Instant::now() < end, "the herd is still booting");
            std::thread::sleep(Duration::from_millis(100));
        }
        let running = shares(&room, &page, 15);
        page.until("document.getElementById('summary').textContent === '500 machines: 500 up'");
        page.screenshot(&picture("herd"), (1280, 900), false);
        let long = page.value("window.long.map(Math.round).sort((a, b) => b - a).slice(0, 9)");
        eprintln!(
            "500 machines, shares of one processor (server, page): booting {booting:.2?}, running \
             {running:.2?}; longest tasks of the page in ms: {long}"
        );
        assert_eq!(page.complaints, Vec::<String>::new());
    });
}

/// Raises a flag when it goes.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
