//! A server that is started before its network is there, as when the power returns to a room.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};

use support::{Host, Lan, PATIENCE, Setup, write_file};

/// A server in a namespace, and what it tells the manager that started it.
struct Started {
    child: Child,
    manager: UnixDatagram,
    /// Its files go with it.
    _setup: Setup,
}

impl Started {
    fn new(host: &Host, network: &str) -> Self {
        let setup = Setup::of_bytes(&[1; 8192]);
        let config = setup.file("cowherd.toml");
        let image = setup.image().display();
        let state = setup.state().display();
        let text = format!("state = \"{state}\"\n{network}[image.disk]\nfile = \"{image}\"\n");
        write_file(&config, text.as_bytes());
        let path = setup.file("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        manager.set_read_timeout(Some(PATIENCE)).expect("a time");
        let runner = host.runner();
        let (program, words) = runner.split_first().expect("at least the program");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", program])
            .args(words)
            .arg(env!("CARGO_BIN_EXE_cowherd"))
            .args(["serve", "--config"])
            .arg(&config)
            .env("NOTIFY_SOCKET", &path)
            .env_remove("LISTEN_FDS")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program under test");
        Self {
            child,
            manager,
            _setup: setup,
        }
    }

    /// Waits until the manager is told this.
    #[track_caller]
    fn tells(&self, wanted: &str) {
        let mut said = Vec::new();
        let mut bytes = [0; 4096];
        loop {
            let Ok(length) = self.manager.recv(&mut bytes) else {
                panic!("no {wanted:?} in {said:#?}");
            };
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if text.contains(wanted) {
                return;
            }
            said.push(text);
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const DHCP: &str = "[nbd]\nlisten = [\"10.77.0.1:10809\"]\n[network]\ninterface = \"lan0\"\n\
    [dhcp]\nrange = \"10.77.0.100-10.77.0.109\"\n[tftp]\nlisten = \"10.77.0.1:69\"\n";

#[test]
fn a_server_waits_for_the_address_of_its_interface() {
    let Some(lan) = Lan::new() else { return };
    let host = lan.host();
    let started = Started::new(&host, DHCP);
    started.tells("STATUS=waiting: interface lan0 has no IPv4 address");
    started.tells("EXTEND_TIMEOUT_USEC=");
    host.ip("addr add 10.77.0.1/24 dev lan0");
    started.tells("READY=1");
}

#[test]
fn a_server_of_files_waits_for_the_address_of_its_interface() {
    let Some(lan) = Lan::new() else { return };
    let host = lan.host();
    let tables = "[network]\ninterface = \"lan0\"\n[tftp]\n[http]\n";
    let started = Started::new(&host, tables);
    started.tells("STATUS=waiting: interface lan0 has no IPv4 address");
    host.ip("addr add 10.77.0.1/24 dev lan0");
    started.tells("READY=1");
}

#[test]
fn a_server_waits_for_the_address_that_http_is_to_be_on() {
    let Some(lan) = Lan::new() else { return };
    let host = lan.host();
    let started = Started::new(&host, "[http]\nlisten = \"10.77.0.1:80\"\n");
    started.tells("STATUS=waiting: http on 10.77.0.1:80");
    host.ip("addr add 10.77.0.1/24 dev lan0");
    started.tells("READY=1");
}

#[test]
fn a_server_waits_for_its_interface() {
    let Some(lan) = Lan::new() else { return };
    let host = lan.host();
    let config = DHCP.replace("lan0", "lan7");
    let started = Started::new(&host, &config);
    started.tells("STATUS=waiting: interface lan7: there is none");
    host.ip("link add lan7 type bridge");
    host.ip("addr add 10.77.0.1/24 dev lan7");
    started.tells("READY=1");
}

#[test]
fn a_server_waits_for_the_address_that_it_listens_on() {
    let Some(lan) = Lan::new() else { return };
    let host = lan.host();
    let network = "[nbd]\nlisten = [\"10.77.0.1:10809\"]\n";
    let started = Started::new(&host, network);
    started.tells("STATUS=waiting: 10.77.0.1:10809");
    host.ip("addr add 10.77.0.1/24 dev lan0");
    started.tells("READY=1");
}
