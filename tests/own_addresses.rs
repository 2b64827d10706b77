//! Where files are served that the config does not say: at the addresses of its interfaces, however
//! these come and go.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use support::{Finished, Host, Lan, Server, Setup, eventually, write_file};

/// A server on `lan0` that is 10.77.0.1, and a machine beside it.
struct Net {
    host: Host,
    other: Host,
    server: Server,
    _lan: Lan,
}

const FILES: &str = "[network]\ninterface = \"lan0\"\n[tftp]\n[http]\n";

impl Net {
    fn new(tables: &str) -> Option<Self> {
        let lan = Lan::new()?;
        let (host, other) = (lan.host(), lan.host());
        host.ip("addr add 10.77.0.1/24 dev lan0");
        other.ip("addr add 10.77.0.9/24 dev lan0");
        let setup = Setup::new();
        let (config, disk) = (setup.file("cowherd.toml"), setup.file("disk.img"));
        write_file(&disk, &[7; 4096]);
        std::fs::create_dir(setup.file("tree")).expect("a folder");
        write_file(&setup.file("tree/file"), b"a file");
        let text = format!(
            "[image.disk]\nfile = {disk:?}\nkernel = \"vmlinuz\"\ninitramfs = \"dracut\"\n{}",
            tables.replace(
                "[tftp]\n",
                &format!("[tftp]\nroot = {:?}\n", setup.file("tree"))
            )
        );
        write_file(&config, text.as_bytes());
        let runner = host.runner();
        let runner: Vec<_> = runner.iter().map(String::as_str).collect();
        let setup = setup.run_by(&runner).with_listen_only("10.77.0.1:10809");
        let server = setup.with_arg("--config").with_arg(&config).start();
        Some(Self {
            host,
            other,
            server,
            _lan: lan,
        })
    }

    fn lines(&self, server: &Server) -> Vec<String> {
        let lines = server.announced().iter();
        let of_files = lines.filter(|line| line.starts_with("tftp") || line.starts_with("http"));
        of_files.cloned().collect()
    }
}

fn fetch(from: &Host, uri: &str) -> Finished {
    let curl = from.tool("curl");
    let curl = curl.args([
        "--silent",
        "--show-error",
        "--max-time",
        "5",
        "--connect-timeout",
        "2",
    ]);
    curl.arg(uri).run()
}

/// What is there by both ways, or not.
fn is_served(from: &Host, address: &str) -> [bool; 2] {
    ["tftp", "http"].map(|scheme| {
        let finished = fetch(from, &format!("{scheme}://{address}/file"));
        finished.code == Some(0) && finished.stdout == "a file"
    })
}

#[test]
fn files_are_served_on_the_interfaces_of_the_config_and_nowhere_else() {
    let Some(net) = Net::new(FILES) else { return };
    let lines = net.lines(&net.server);
    assert_eq!(lines, ["tftp on 10.77.0.1:69", "http on 10.77.0.1:80"]);
    assert_eq!(is_served(&net.other, "10.77.0.1"), [true; 2]);
    assert_eq!(is_served(&net.host, "10.77.0.1"), [true; 2]);
    assert_eq!(is_served(&net.host, "127.0.0.1"), [false; 2]);
}

#[test]
fn one_address_is_served_where_the_config_names_it() {
    let tables = "[network]\ninterface = \"lo\"\naddress = \"127.0.0.1\"\n[tftp]\n[http]\n";
    let Some(net) = Net::new(tables) else { return };
    net.host.ip("addr add 127.0.0.5/8 dev lo");
    let lines = net.lines(&net.server);
    assert_eq!(lines, ["tftp on 127.0.0.1:69", "http on 127.0.0.1:80"]);
    assert_eq!(is_served(&net.host, "10.77.0.1"), [false; 2]);
}

#[test]
fn an_interface_that_gets_another_address_is_served_there() {
    let Some(net) = Net::new(FILES) else { return };
    net.host.ip("addr add 10.77.0.2/24 dev lan0");
    net.server.wait_for_log(&["tftp on 10.77.0.2:69"]);
    net.server.wait_for_log(&["http on 10.77.0.2:80"]);
    assert_eq!(is_served(&net.other, "10.77.0.2"), [true; 2]);
    assert_eq!(is_served(&net.other, "10.77.0.1"), [true; 2]);
}

#[test]
fn an_address_that_is_gone_is_served_again_when_it_is_back() {
    let Some(net) = Net::new(FILES) else { return };
    net.host.ip("addr del 10.77.0.1/24 dev lan0");
    net.host.ip("addr add 10.77.0.1/24 dev lan0");
    eventually(|| match is_served(&net.other, "10.77.0.1") {
        [true, true] => Ok(()),
        other => Err(other),
    });
}

#[test]
fn a_server_that_takes_over_has_the_addresses_that_the_other_has_by_now() {
    let Some(mut net) = Net::new(FILES) else {
        return;
    };
    net.host.ip("addr add 10.77.0.2/24 dev lan0");
    net.server.wait_for_log(&["http on 10.77.0.2:80"]);
    let mut next = net.server.successor(|_| {});
    next.wait_until_ready();
    assert_eq!(net.server.ended().code(), Some(0));
    let mut lines = net.lines(&next);
    lines.sort();
    let expected = [
        "http on 10.77.0.1:80",
        "http on 10.77.0.2:80",
        "tftp on 10.77.0.1:69",
        "tftp on 10.77.0.2:69",
    ];
    assert_eq!(lines, expected);
    for address in ["10.77.0.1", "10.77.0.2"] {
        assert_eq!(is_served(&net.other, address), [true; 2]);
    }
    next.terminate();
}

#[test]
fn a_grub_that_came_by_tftp_loads_kernels_by_http_where_the_config_says_so() {
    let tables = format!("{FILES}[defaults.menu]\ntransport = \"http\"\n");
    let Some(net) = Net::new(&tables) else { return };
    let menu = |path: &str| fetch(&net.other, &format!("tftp://10.77.0.1/{path}")).stdout;
    let grub = menu("boot/grub/grub.cfg");
    assert!(
        grub.contains("linux '(http,10.77.0.1)/disk/disk+1/kernel'"),
        "{grub}"
    );
    let ipxe = menu("boot.ipxe");
    assert!(
        ipxe.contains("http://10.77.0.1/disk/disk+1/kernel"),
        "{ipxe}"
    );
    let pxelinux = menu("pxelinux.cfg/default");
    assert!(!pxelinux.contains("http"), "{pxelinux}");
}
