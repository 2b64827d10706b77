//! Troubles of the network, in one of the tests' own.

use serde_json::Value;

use super::support::{Host, Room, Setup, Tool, eventually, require, write_file};
use super::{assert_found, found};

/// A room whose server does not run, and the doctor in it.
fn doctor_in(room: &Room) -> Tool {
    room.cowherd(&["doctor", "--json"])
        .arg("--config")
        .arg(&room.config)
}

#[test]
fn an_interface_that_is_not_there_is_told() {
    let Some(room) = Room::new("") else { return };
    let text = std::fs::read_to_string(&room.config).unwrap();
    write_file(&room.config, text.replace("lan0", "lan7").as_bytes());
    assert_found(
        doctor_in(&room),
        "interfaces",
        "wrong",
        &["lan7", "no such interface", "ip link"],
    );
}

#[test]
fn an_interface_without_an_address_is_told() {
    let Some(room) = Room::new("") else { return };
    room.host.ip("addr flush dev lan0");
    assert_found(
        doctor_in(&room),
        "interfaces",
        "wrong",
        &["lan0", "no IPv4 address"],
    );
}

#[test]
fn an_interface_that_is_down_is_told() {
    let Some(room) = Room::new("") else { return };
    room.host.ip("link set lan0 down");
    assert_found(
        doctor_in(&room),
        "interfaces",
        "wrong",
        &["is down", "ip link set lan0 up"],
    );
}

#[test]
fn an_interface_without_a_cable_is_told() {
    let Some(room) = Room::new("") else { return };
    room.lan.unplug(&room.host);
    eventually(|| {
        let (finished, findings) = found(doctor_in(&room).arg("--silent"));
        let mut findings = findings.iter();
        let is_told = findings.any(|found| found.to_string().contains("no carrier"));
        if is_told {
            Ok(())
        } else {
            Err(finished.stdout)
        }
    });
}

#[test]
fn a_range_that_does_not_fit_the_interface_is_told() {
    let Some(room) = Room::new("") else { return };
    room.host.ip("addr flush dev lan0");
    room.host.ip("addr add 192.168.7.1/24 dev lan0");
    assert_found(
        doctor_in(&room),
        "interfaces",
        "wrong",
        &["[dhcp]", "10.77.0.100"],
    );
}

/// dnsmasq on a host, giving addresses when it is back.
struct Dnsmasq(std::process::Child);

impl Dnsmasq {
    fn new(setup: &Setup, host: &Host) -> Self {
        let leases = format!("--dhcp-leasefile={}", setup.file("dnsmasq").display());
        let range = "--dhcp-range=10.77.0.220,10.77.0.230,1h";
        let words = [
            "--no-daemon",
            "--conf-file=/dev/null",
            "--port=0",
            "--user=root",
        ];
        let words = [&words[..], &["--no-ping", range, leases.as_str()]].concat();
        Self(host.spawn("dnsmasq", &words))
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn another_dhcp_server_on_the_link_is_told_by_its_address() {
    if !require(&["dnsmasq"]) {
        return;
    }
    let Some(room) = Room::new("") else { return };
    let (finished, findings) = found(doctor_in(&room));
    let fine = |found: &Value| found["area"] == "dhcp" && found["level"] == "fine";
    assert!(findings.iter().any(fine), "{finished}");
    let other = room.lan.host();
    other.ip("addr add 10.77.0.3/24 dev lan0");
    let _dnsmasq = Dnsmasq::new(&room.setup, &other);
    eventually(|| {
        let (finished, findings) = found(doctor_in(&room));
        let is_told = |found: &Value| {
            found["area"] == "dhcp"
                && found["level"] == "wrong"
                && found["what"].to_string().contains("10.77.0.3")
        };
        if findings.iter().any(is_told) {
            Ok(())
        } else {
            Err(finished.stdout)
        }
    });
}

#[test]
fn another_dhcp_server_on_this_host_is_told_by_its_port() {
    if !require(&["dnsmasq"]) {
        return;
    }
    let Some(room) = Room::new("") else { return };
    let _dnsmasq = Dnsmasq::new(&room.setup, &room.host);
    eventually(|| {
        let (finished, findings) = found(doctor_in(&room).arg("--silent"));
        let is_told = |found: &Value| {
            found["area"] == "ports" && found["what"].to_string().contains("dnsmasq (process ")
        };
        if findings.iter().any(is_told) {
            Ok(())
        } else {
            Err(finished.stdout)
        }
    });
}

/// The server gives no addresses: it has no range, and only tells what to boot.
fn be_a_proxy(room: &Room) {
    let text = std::fs::read_to_string(&room.config).unwrap();
    let range = "range = \"10.77.0.100-10.77.0.199\"";
    let text = text
        .replace(range, "mode = \"proxy\"")
        .replace("address = \"10.77.0.50\"\n", "");
    write_file(&room.config, text.as_bytes());
}

#[test]
fn a_proxy_without_a_server_beside_it_is_told() {
    let Some(room) = Room::new("") else { return };
    be_a_proxy(&room);
    assert_found(
        doctor_in(&room),
        "dhcp",
        "warning",
        &["lan0", "a proxy gives none"],
    );
}

#[test]
fn a_proxy_beside_the_server_that_it_needs_is_well_before_and_while_it_runs() {
    if !require(&["dnsmasq"]) {
        return;
    }
    let Some(mut room) = Room::new("") else {
        return;
    };
    be_a_proxy(&room);
    let other = room.lan.host();
    other.ip("addr add 10.77.0.3/24 dev lan0");
    let _dnsmasq = Dnsmasq::new(&room.setup, &other);
    let is_well = |room: &Room| {
        let (finished, findings) = found(doctor_in(room));
        let of_network = ["config", "interfaces", "ports", "dhcp"];
        let mut of_network = findings
            .iter()
            .filter(|found| of_network.contains(&found["area"].as_str().unwrap_or_default()));
        let is_found = findings.iter().any(|found| {
            let what = "10.77.0.3 gives addresses, as a proxy needs";
            found["area"] == "dhcp" && found["level"] == "fine" && found["what"] == what
        });
        match is_found && of_network.all(|found| found["level"] == "fine") {
            true => Ok(()),
            false => Err(finished.stdout),
        }
    };
    eventually(|| is_well(&room));
    room.start();
    eventually(|| is_well(&room));
}
