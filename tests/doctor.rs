//! `cowherd doctor`: each kind of trouble, made for real, is named together with what to do.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

#[path = "doctor/network.rs"]
mod network;

use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{
    Finished, Mount, Setup, Tool, eventually, is_root, make_file_system, require, skipped,
    write_file,
};

/// The doctor's words, and what it is to look at.
fn doctor(words: &[&str]) -> Tool {
    let command = Command::new(env!("CARGO_BIN_EXE_cowherd"));
    Tool::from_command(command, "cowherd")
        .args(["doctor", "--json"])
        .args(words)
}

/// The doctor as another program starts it.
fn started_by(tool: Tool, config: impl AsRef<std::ffi::OsStr>) -> Tool {
    tool.arg(env!("CARGO_BIN_EXE_cowherd"))
        .args(["doctor", "--json", "--config"])
        .arg(config)
}

/// A program under which these calls end with an error.
fn failing(calls: &str, error: &str) -> Tool {
    Tool::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null"])
        .args(["-e", &format!("trace={calls}")])
        .args(["-e", &format!("inject={calls}:error={error}")])
}

/// What it found, as JSON.
#[track_caller]
fn found(tool: Tool) -> (Finished, Vec<Value>) {
    let finished = tool.run();
    let report: Value = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("{error}: {finished}"));
    let findings = report["findings"].as_array().expect("findings").clone();
    let is_wrong = findings.iter().any(|found| found["level"] == "wrong");
    assert_eq!(report["ok"], !is_wrong, "{finished}");
    assert_eq!(finished.code, Some(i32::from(is_wrong)), "{finished}");
    (finished, findings)
}

/// One finding of an area and level says all these words, advice included.
#[track_caller]
fn assert_found(tool: Tool, area: &str, level: &str, words: &[&str]) {
    let (finished, findings) = found(tool);
    let fits = |found: &&Value| {
        let text = found.to_string();
        found["area"] == area
            && found["level"] == level
            && words.iter().all(|word| text.contains(word))
    };
    assert!(
        findings.iter().any(|found| fits(&found)),
        "{area} {words:?}: {finished}"
    );
    let is_bad = level == "wrong" || level == "warning";
    let is_advised = |found: &&Value| !found["advice"].is_null();
    assert!(
        !is_bad || findings.iter().filter(fits).all(|found| is_advised(&found)),
        "{finished}"
    );
}

/// A folder with an image, a config with `more` and no server.
fn set_up(more: &str) -> (Setup, std::path::PathBuf) {
    let setup = Setup::of_bytes(&[7; 1 << 20]);
    let config = setup.file("cowherd.toml");
    let text = format!(
        "state = {:?}\n{more}\n[image.disk]\nfile = {:?}\n",
        setup.state(),
        setup.image()
    );
    write_file(&config, text.as_bytes());
    (setup, config)
}

fn doctor_of(config: &Path) -> Tool {
    doctor(&["--config"]).arg(config)
}

/// A port that nobody has, as far as that can be known.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

#[test]
fn where_nothing_is_wrong_that_is_said() {
    let more = format!("[nbd]\nlisten = [\"127.0.0.1:{}\"]", free_port());
    let (_setup, config) = set_up(&more);
    let (finished, findings) = found(doctor_of(&config));
    let is_wrong = |found: &Value| found["level"] == "wrong";
    assert!(!findings.iter().any(is_wrong), "{finished}");
    for area in [
        "config", "ports", "kernel", "space", "images", "overlays", "machines",
    ] {
        assert!(
            findings.iter().any(|found| found["area"] == area),
            "{area}: {finished}"
        );
    }
}

#[test]
fn people_get_a_line_a_finding_and_a_summary() {
    let (setup, config) = set_up("");
    std::fs::remove_file(setup.image()).unwrap();
    let command = Command::new(env!("CARGO_BIN_EXE_cowherd"));
    let tool = Tool::from_command(command, "cowherd").args(["doctor", "--quiet", "--config"]);
    let finished = tool.arg(&config).run();
    assert_eq!(finished.code, Some(1), "{finished}");
    let lines: Vec<_> = finished.stdout.lines().collect();
    let wrong = lines
        .iter()
        .position(|line| line.starts_with("WRONG   images"));
    let wrong = wrong.unwrap_or_else(|| panic!("{finished}"));
    assert!(
        lines[wrong + 1].trim_start().starts_with("-> "),
        "{finished}"
    );
    assert!(lines.last().unwrap().contains("wrong"), "{finished}");
    assert!(
        !lines.iter().any(|line| line.starts_with("fine")),
        "{finished}"
    );
}

#[test]
fn a_mistake_in_the_config_is_told_with_its_line() {
    let (_setup, config) = set_up("flie = 3");
    assert_found(
        doctor_of(&config),
        "config",
        "wrong",
        &["flie", "cowherd.toml:2", "cowherd.toml(5)"],
    );
}

#[test]
fn a_token_that_is_missing_is_told() {
    let (_setup, config) = set_up("[admin]\ntoken-file = \"/no/such/token\"");
    assert_found(
        doctor_of(&config),
        "config",
        "wrong",
        &["[admin]", "/no/such/token"],
    );
}

#[test]
fn a_directory_of_files_that_is_missing_is_told() {
    let (_setup, config) = set_up("[tftp]\nroot = \"/no/such/tree\"");
    assert_found(
        doctor_of(&config),
        "config",
        "wrong",
        &["/no/such/tree", "`root`"],
    );
}

#[test]
fn a_user_that_the_system_does_not_know_is_told() {
    let (_setup, config) = set_up("user = \"nobody-of-this-name\"");
    assert_found(
        doctor_of(&config),
        "config",
        "wrong",
        &["nobody-of-this-name"],
    );
}

#[test]
fn a_port_that_another_program_has_is_told_with_its_name() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let more = format!("[nbd]\nlisten = [\"{}\"]", taken.local_addr().unwrap());
    let (_setup, config) = set_up(&more);
    let pid = format!("process {}", std::process::id());
    assert_found(
        doctor_of(&config),
        "ports",
        "wrong",
        &["NBD", &pid, "`listen` in [nbd]"],
    );
}

#[test]
fn a_port_of_udp_that_another_program_has_is_told_with_its_name() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let more = format!("[tftp]\nlisten = \"{}\"", taken.local_addr().unwrap());
    let (_setup, config) = set_up(&more);
    let pid = format!("process {}", std::process::id());
    assert_found(
        doctor_of(&config),
        "ports",
        "wrong",
        &["TFTP", &pid, "`listen` in [tftp]"],
    );
}

#[test]
fn boot_files_for_the_network_beside_disks_for_this_host_alone_are_told() {
    let (_setup, config) = set_up("[tftp]\nlisten = \"0.0.0.0:6969\"");
    let words = ["NBD", "none of them", "`listen` in [nbd]"];
    assert_found(doctor_of(&config), "ports", "wrong", &words);
}

#[test]
fn an_address_that_this_host_has_not_is_told() {
    let (_setup, config) = set_up("[nbd]\nlisten = [\"192.0.2.1:10809\"]");
    assert_found(
        doctor_of(&config),
        "ports",
        "wrong",
        &["192.0.2.1", "no such address"],
    );
}

#[test]
fn the_ports_of_the_server_that_runs_are_its_own() {
    let (setup, config) = set_up("");
    let server = setup.clone().start();
    let at = server.uri("").replace("nbd://", "");
    let text = std::fs::read_to_string(&config).unwrap();
    let listen = format!("[nbd]\nlisten = [\"{}\"]\n", at.trim_end_matches('/'));
    write_file(&config, format!("{text}{listen}").as_bytes());
    assert_found(
        doctor_of(&config),
        "ports",
        "fine",
        &["the server that runs"],
    );
    let moved = format!("[nbd]\nlisten = [\"127.0.0.1:{}\"]\n", free_port());
    write_file(&config, format!("{text}{moved}").as_bytes());
    assert_found(
        doctor_of(&config),
        "ports",
        "warning",
        &["does not listen", "restart"],
    );
}

#[test]
fn an_image_that_is_missing_is_told() {
    let (setup, config) = set_up("");
    std::fs::remove_file(setup.image()).unwrap();
    assert_found(
        doctor_of(&config),
        "images",
        "wrong",
        &["disk+1", "disk.img"],
    );
}

#[test]
fn an_image_that_is_another_than_before_is_told() {
    let (setup, config) = set_up("");
    let image = setup.image().to_owned();
    let _setup = setup.start().terminate();
    write_file(&image, &[8; 1 << 20]);
    let words = ["disk+1", "generation", "restore the image"];
    assert_found(doctor_of(&config), "images", "wrong", &words);
}

#[test]
fn an_image_that_can_t_be_read_is_told_with_the_place() {
    if !require(&["strace"]) {
        return;
    }
    let (setup, config) = set_up("");
    let tool = failing("pread64,preadv,preadv2", "EIO")
        .arg("-P")
        .arg(setup.image());
    assert_found(
        started_by(tool, &config),
        "images",
        "wrong",
        &["disk+1", "os error 5"],
    );
}

#[test]
fn a_kernel_that_is_not_in_the_image_is_told() {
    if !require(&["mke2fs"]) {
        return;
    }
    let setup = Setup::new();
    let (image, config) = (setup.file("disk.img"), setup.file("cowherd.toml"));
    let tree = setup.file("tree");
    std::fs::create_dir(&tree).unwrap();
    write_file(&tree.join("vmlinuz"), &[7; 9000]);
    let tool = Tool::new("mke2fs")
        .args(["-q", "-t", "ext4", "-d"])
        .arg(&tree);
    tool.arg(&image).arg("8M").ok();
    let write = |initrd: &str| {
        let state = setup.state();
        let text = format!(
            "state = {state:?}\n[image.disk]\nfile = {image:?}\nkernel = \"vmlinuz\"\n\
             initrd = {initrd:?}\ninitramfs = \"initramfs-tools\"\n"
        );
        write_file(&config, text.as_bytes());
    };
    write("initrd.img");
    assert_found(
        doctor_of(&config),
        "images",
        "fine",
        &["kernel /vmlinuz", "9000 bytes"],
    );
    let words = ["initrd /initrd.img", "no such file", "set `initrd`"];
    assert_found(doctor_of(&config), "images", "wrong", &words);
}

#[test]
fn an_overlay_that_is_damaged_is_told() {
    let (setup, config) = set_up("");
    let server = setup.start();
    let mut client = server.client("disk@pc");
    client.write(0, &[1; 4096]).unwrap();
    client.flush().unwrap();
    client.disconnect();
    let setup = server.terminate();
    let header = setup.state().join("overlays/disk+1/pc/header");
    write_file(&header, &[0; 8192]);
    assert_found(
        doctor_of(&config),
        "overlays",
        "wrong",
        &["disk+1@pc", "overlay reset disk+1@pc"],
    );
}

#[test]
fn an_overlay_that_its_server_has_closed_is_told() {
    if !require(&["strace"]) {
        return;
    }
    let (setup, config) = set_up("");
    let fail = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=fdatasync",
    ];
    let setup = setup.run_by(&[&fail[..], &["-e", "inject=fdatasync:error=EIO:when=20+"]].concat());
    let server = setup.start();
    let mut client = server.client("disk@pc");
    eventually(|| {
        client
            .write(0, &[1; 4096])
            .and_then(|()| client.flush())
            .map_or(Ok(()), Err)
    });
    assert_found(
        doctor_of(&config),
        "overlays",
        "wrong",
        &["disk+1@pc", "takes no more writes"],
    );
}

#[test]
fn a_disk_without_room_is_told() {
    if !require(&["mkfs.ext4", "mount"]) {
        return;
    }
    if !is_root() {
        return skipped("root, for mounts");
    }
    let setup = Setup::of_bytes(&[7; 4096]);
    let file = setup.file("small.ext4");
    make_file_system(&["mkfs.ext4", "-q", "-F"], &file, 24);
    let Some(disk) = Mount::new(&file, &setup.file("small")) else {
        return;
    };
    let state = disk.at.join("state");
    let tool = doctor(&["--state"]).arg(&state).arg(setup.image());
    assert_found(tool, "space", "wrong", &["MiB are free", "overlay reset"]);
}

#[test]
fn a_kernel_that_gives_no_io_uring_is_told() {
    if !require(&["strace"]) {
        return;
    }
    let (_setup, config) = set_up("");
    let tool = failing("io_uring_setup", "EPERM");
    assert_found(
        started_by(tool, &config),
        "kernel",
        "wrong",
        &["io_uring", "io_uring_disabled"],
    );
}

#[test]
fn a_limit_of_few_open_files_is_told() {
    if !require(&["prlimit"]) {
        return;
    }
    let (_setup, config) = set_up("");
    let tool = started_by(Tool::new("prlimit").arg("--nofile=200:200"), &config);
    assert_found(tool, "kernel", "wrong", &["at most 200", "LimitNOFILE"]);
}

#[test]
fn without_a_server_that_is_told_and_nothing_is_written() {
    let (setup, config) = set_up("");
    assert_found(
        doctor_of(&config),
        "machines",
        "unknown",
        &["no server runs"],
    );
    assert!(!setup.state().exists());
}
