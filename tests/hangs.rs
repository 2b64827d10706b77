//! Boots that hang, at each stage in turn: `cowherd status`, the API, the page in a real browser,
//! the log and `cowherd doctor` say at which, and what may be the matter.
//!
//! The clients are real, or speak as firmware does. Where a stage may take a minute, the server is
//! started again with what it knew, made older by so much.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use serde_json::{Value, json};
use support::nbd::{Request, go_data, option};
use support::room::{Room, SERVER, bytes, firmware};
use support::{
    Browser, Finished, Frozen, Mount, Setup, StallingDisk, make_file_system, picture, require, row,
};

use cowherd::dhcp::wire::MessageType;
use cowherd::mac::MacAddress;
use cowherd::status::Stage;

/// Machines in trouble are shown everywhere with the last stage that was done, how they are doing,
/// and a sentence with these words.
#[track_caller]
fn assert_shown(room: &Room, who: &str, stage: &str, state: &str, words: &[&str]) {
    let is_it = |client: &Value| client["id"] == who && client["state"] == state;
    let client = room.admin().until(is_it);
    assert_eq!(client["stage"], stage, "{client}");
    let problem = client["problem"].as_str().unwrap_or_default().to_owned();
    for word in words {
        assert!(problem.contains(word), "{word:?} is not in {problem:?}");
    }
    let said = room.cowherd(&["status"]).ok();
    let line = format!("{who}: {problem}");
    assert!(said.lines().any(|said| said == line), "{line}\n{said}");
    room.server()
        .wait_for_log(&[&format!("{who} needs help: {problem}")]);
    let doctor = room.cowherd(&["doctor", "--json", "--silent"]);
    let finished = doctor.arg("--config").arg(&room.config).run();
    let found = of_machine(&finished, who);
    assert!(
        found["what"].as_str().unwrap().contains(&problem),
        "{found}"
    );
    assert!(found["what"].as_str().unwrap().contains(state), "{found}");
    assert!(found["advice"].as_str().unwrap().contains(who), "{found}");
    let is_bad = found["level"] == "wrong";
    assert_eq!(finished.code, Some(i32::from(is_bad)), "{finished}");
    assert_on_page(room, &client);
}

/// The page says the same: in the row of the machine, in its list of what is wrong, and stage by
/// stage where the timeline of the machine is opened.
#[track_caller]
fn assert_on_page(room: &Room, client: &Value) {
    let Some(mut page) = Browser::open(Some(&room.host), &room.admin().url()) else {
        return;
    };
    let [who, state, problem] = ["id", "state", "problem"].map(|key| text(&client[key]));
    let stages = client["boots"][0]["stages"].as_array().unwrap();
    let newest = stages.last().unwrap();
    let (row, at) = (row(&who), title(&newest["stage"]));
    let is_begun = newest["stage"] != client["stage"];
    let shown = format!("{at}{}", if is_begun { " …" } else { "" });
    page.until(&format!("{row}.cells[1].textContent === '{state}'"));
    page.until(&format!("{row}.cells[2].textContent === '{shown}'"));
    let line = json!(format!("{who}: {problem}"));
    page.until(&format!(
        "[...document.querySelectorAll('#problems li')].some((li) => li.textContent === {line})"
    ));
    page.click("#rows button", &who);
    let head = json!(format!("{who}: {state}"));
    page.until(&format!(
        "document.getElementById('detail-title').textContent === {head}"
    ));
    page.until(&format!(
        "document.getElementById('detail-problem').textContent === {}",
        json!(problem)
    ));
    let boot = "document.querySelector('#boots section')";
    let last = format!("[...{boot}.querySelectorAll('tbody tr')].at(-1)");
    page.until(&format!("{last}.cells[0].textContent === '{at}'"));
    let done = page.text(&format!("{last}.cells[1].textContent"));
    assert_eq!(done == "not done", newest["ended"].is_null(), "{done}");
    let notes = page.text(&format!("{last}.cells[5].textContent"));
    assert!(notes.contains(&text(&newest["failure"])), "{notes}");
    assert_eq!(
        page.value(&format!("{boot}.querySelectorAll('rect').length")),
        json!(stages.len())
    );
    page.screenshot(&picture(&format!("hang-{at}-{state}")), (1280, 900), false);
    assert_eq!(page.complaints, Vec::<String>::new());
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What the page calls a stage.
fn title(stage: &Value) -> &'static str {
    let stage: Stage = serde_json::from_value(stage.clone()).unwrap();
    stage.title()
}

/// What the doctor says of a machine.
#[track_caller]
fn of_machine(finished: &Finished, who: &str) -> Value {
    let report: Value = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("{error}: {finished}"));
    let mut findings = report["findings"].as_array().unwrap().iter();
    let found = findings.find(|of| of["area"] == "machines" && of["about"] == who);
    found
        .unwrap_or_else(|| panic!("no {who} in {finished}"))
        .clone()
}

/// A room whose server runs.
fn started() -> Option<Room> {
    if !require(&["curl"]) {
        return None;
    }
    let mut room = Room::new("")?;
    room.start();
    Some(room)
}

#[test]
fn a_discover_that_gets_no_offer_is_shown_with_the_reason() {
    let Some(mut room) = started() else { return };
    room.write("");
    let text = std::fs::read_to_string(&room.config).unwrap();
    let full = text.replace("10.77.0.100-10.77.0.199", "10.77.0.100-10.77.0.100");
    std::fs::write(&room.config, full).unwrap();
    room.start();
    let card = room.machine.card("lan0", 68);
    let offer = room.discovers(&card, MacAddress([2, 0, 0, 0, 0, 1]));
    room.requests(&card, &offer);
    let unlucky = MacAddress([2, 0, 0, 0, 0, 2]);
    card.broadcast(&bytes(&firmware(MessageType::Discover, unlucky)), 67);
    let id = unlucky.to_string();
    assert_shown(
        &room,
        &id,
        "discover",
        "failed",
        &["its DHCP request got no answer"],
    );
}

#[test]
fn an_offer_that_is_not_taken_is_shown() {
    let Some(room) = started() else { return };
    let card = room.machine.card("lan0", 68);
    room.discovers(&card, room.mac);
    let id = room.mac.to_string();
    let words = ["did not take it", "another DHCP server"];
    assert_shown(&room, &id, "offer", "stuck", &words);
}

#[test]
fn a_machine_that_asks_for_no_boot_loader_is_shown() {
    let Some(room) = started() else { return };
    room.has_address();
    let words = ["asked for no boot loader", "UDP port 69"];
    assert_shown(&room, "pc-1", "ack", "stuck", &words);
}

#[test]
fn tftp_answers_that_do_not_arrive_are_shown() {
    let Some(room) = started() else { return };
    room.has_address();
    let _deaf = room.asks_only("core.0");
    let words = ["boot loader, core.0", "does not arrive", "firewall"];
    assert_shown(&room, "pc-1", "ack", "stuck", &words);
}

#[test]
fn a_boot_loader_that_asks_for_no_menu_is_shown() {
    let Some(mut room) = started() else { return };
    room.has_address();
    room.loads(&["core.0"]);
    room.let_pass(40);
    assert_shown(
        &room,
        "pc-1",
        "loader",
        "stuck",
        &["asked for no menu", "Secure Boot"],
    );
}

#[test]
fn a_menu_from_which_nothing_is_loaded_is_shown() {
    let Some(mut room) = started() else { return };
    room.has_address();
    room.loads(&["core.0", "grub.cfg"]);
    room.let_pass(70);
    assert_shown(
        &room,
        "pc-1",
        "config",
        "stuck",
        &["asked for no kernel", "`kernel`"],
    );
}

#[test]
fn a_kernel_that_is_missing_is_shown_by_its_name() {
    let Some(room) = started() else { return };
    room.has_address();
    room.loads(&["core.0", "grub.cfg"]);
    let finished = room.fetches("vmlinuz-6.1");
    assert_ne!(finished.code, Some(0), "{finished}");
    let words = ["kernel, vmlinuz-6.1", "no such file"];
    assert_shown(&room, "pc-1", "config", "failed", &words);
}

#[test]
fn a_kernel_without_its_initramfs_is_shown() {
    let Some(mut room) = started() else { return };
    room.has_address();
    room.loads(&["core.0", "grub.cfg", "vmlinuz"]);
    room.let_pass(70);
    assert_shown(
        &room,
        "pc-1",
        "kernel",
        "stuck",
        &["asked for no initramfs", "`initrd`"],
    );
}

#[test]
fn a_kernel_that_is_not_heard_of_again_is_shown() {
    let Some(mut room) = started() else { return };
    room.has_address();
    room.loads(&["core.0", "grub.cfg", "vmlinuz", "initrd.img"]);
    room.let_pass(100);
    let words = [
        "nothing was heard of it since",
        "driver of its network card",
    ];
    assert_shown(&room, "pc-1", "initramfs", "stuck", &words);
}

#[test]
fn an_initramfs_that_opens_no_disk_is_shown() {
    let Some(mut room) = started() else { return };
    room.has_address();
    room.loads(&["core.0", "grub.cfg", "vmlinuz", "initrd.img"]);
    room.asks_again();
    room.let_pass(40);
    let words = ["opened no disk", "nbd-client"];
    assert_shown(&room, "pc-1", "dhcp-again", "stuck", &words);
}

#[test]
fn a_wrong_export_is_shown_by_its_name() {
    if !require(&["nbdinfo"]) {
        return;
    }
    let Some(room) = started() else { return };
    room.has_address();
    room.loads(&["core.0", "grub.cfg", "vmlinuz", "initrd.img"]);
    room.asks_again();
    let nbdinfo = room.machine.tool("nbdinfo");
    let finished = nbdinfo.arg(format!("nbd://{SERVER}/windows")).run();
    assert_ne!(finished.code, Some(0), "{finished}");
    let words = ["it was not given its disk", "windows"];
    assert_shown(&room, "pc-1", "dhcp-again", "failed", &words);
}

#[test]
fn a_disk_that_is_opened_and_not_read_is_shown() {
    let Some(room) = started() else { return };
    room.has_address();
    room.loads(&["core.0", "grub.cfg", "vmlinuz", "initrd.img"]);
    room.asks_again();
    let _silent = room.opens();
    let words = ["has opened disk+1@pc-1 and reads nothing", "nbd module"];
    assert_shown(&room, "pc-1", "connect", "stuck", &words);
}

#[test]
fn a_root_that_is_never_written_to_is_shown() {
    let Some(mut room) = started() else { return };
    room.has_address();
    let mut client = room.opens();
    client.read(0, 4096).unwrap();
    room.admin().until(|client| client["stage"] == "first-read");
    drop(client);
    room.let_pass(130);
    let mut client = room.opens();
    client.read(0, 4096).unwrap();
    let words = ["reads disk+1@pc-1 and has not written", "read-only"];
    assert_shown(&room, "pc-1", "first-read", "slow", &words);
}

#[test]
fn a_first_read_that_waits_for_our_disk_is_shown() {
    if !require(&["curl"]) {
        return;
    }
    let Some(mut room) = Room::new("") else {
        return;
    };
    let Some(disk) = StallingDisk::over(&room.setup.file("disk.img")) else {
        return;
    };
    room.start();
    room.has_address();
    room.loads(&["core.0", "grub.cfg", "vmlinuz", "initrd.img"]);
    room.asks_again();
    let mut client = room.opens();
    let stalled = disk.stall();
    // Far from what was looked at when the image was opened.
    client.submit(&Request::read(40 << 20, 4096)).unwrap();
    let words = ["its first read waits for our disk", "disk+1@pc-1", "dmesg"];
    assert_shown(&room, "pc-1", "connect", "stuck", &words);
    // Once it answers, all is well.
    drop(stalled);
    client.answer().unwrap().1.unwrap();
    let client = room.admin().until(|client| client["stage"] == "first-read");
    assert_eq!(client["problem"], Value::Null);
}

/// A room whose overlays are on a disk of their own, that can be frozen.
struct WithDisk {
    // Dropped in this order: a server can't end while its disk is frozen.
    room: Room,
    disk: Mount,
    _home: Setup,
}

impl WithDisk {
    /// With a machine that has all but its disk.
    fn new() -> Option<Self> {
        if !require(&["curl", "mkfs.ext4", "mount", "fsfreeze"]) {
            return None;
        }
        let mut room = Room::new("")?;
        let file = room.setup.file("disk.ext4");
        make_file_system(&["mkfs.ext4", "-q", "-F"], &file, 64);
        let disk = Mount::new(&file, &room.setup.file("disk"))?;
        room.setup = room.setup.clone().with_state(&disk.at.join("state"));
        room.start();
        room.has_address();
        room.loads(&["core.0", "grub.cfg", "vmlinuz", "initrd.img"]);
        room.asks_again();
        let _home = room.setup.clone();
        Some(Self { room, disk, _home })
    }
}

#[test]
fn an_overlay_that_does_not_open_since_its_disk_does_not_answer_is_shown() {
    let Some(with) = WithDisk::new() else { return };
    let _frozen = Frozen::freeze(&with.disk.at);
    let mut greeted = with.room.greets();
    greeted.option(option::GO, &go_data(b"disk", &[])).unwrap();
    let admin = with.room.admin();
    let stuck = admin.until(|client| client["state"] == "stuck");
    let problem = text(&stuck["problem"]);
    assert!(problem.contains("it asks for disk, whose overlay is not open yet"));
    // After so long it is turned away, and that is not put down to the machine.
    let words = ["disk", "could not be opened", "does not answer"];
    assert_shown(&with.room, "pc-1", "dhcp-again", "failed", &words);
}

#[test]
fn a_write_that_waits_for_our_disk_is_shown() {
    let Some(with) = WithDisk::new() else { return };
    let mut client = with.room.opens();
    client.read(0, 4096).unwrap();
    client.write(0, b"first").unwrap();
    let admin = with.room.admin();
    admin.until(|client| client["state"] == "up");
    let frozen = Frozen::freeze(&with.disk.at);
    client.submit(&Request::write(4096, b"stuck")).unwrap();
    let words = ["its requests wait for our disk", "disk+1@pc-1"];
    assert_shown(&with.room, "pc-1", "mounted", "stuck", &words);
    drop(frozen);
    client.answer().unwrap().1.unwrap();
    admin.until(|client| client["state"] == "up");
}
