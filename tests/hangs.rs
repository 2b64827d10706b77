//! Boots that hang, at each stage in turn: `cowherd status`, the API that the page shows, and
//! `cowherd doctor` say at which, and what may be the matter.
//!
//! The clients are real, or speak as firmware does. Where a stage may take a minute, the server is
//! started again with what it knew, made older by so much.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use serde_json::Value;
use support::room::{Room, SERVER, bytes, firmware};
use support::{Finished, require};

use cowherd::dhcp::wire::MessageType;
use cowherd::mac::MacAddress;

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
