//! A real systemd with the unit of tools/systemd: process 1 of namespaces of its own, see
//! `tests/systemd/run`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::nbd::Address;
use super::{Finished, Tool, eventually, is_root, require, skipped, write_file};

/// What all of this takes, beside systemd.
const TOOLS: [&str; 5] = ["systemctl", "unshare", "nsenter", "mount", "pivot_root"];
const SYSTEMD: &str = "/lib/systemd/systemd";

/// The manager, and one service.
pub(crate) struct Manager {
    outer: Child,
    home: tempfile::TempDir,
    /// Its process, as this namespace counts.
    pid: String,
}

impl Manager {
    /// Starts the service, with one image `disk` of these bytes. `None` where this can't be here.
    pub(crate) fn start(image: &[u8]) -> Option<Self> {
        if !is_root() || !Path::new(SYSTEMD).exists() {
            skipped("root and systemd");
            return None;
        }
        if !require(&TOOLS) {
            return None;
        }
        let home = tempfile::tempdir().expect("a folder");
        write_file(&home.path().join("disk.img"), image);
        let config = home.path().join("etc/cowherd");
        std::fs::create_dir_all(config).expect("a folder");
        configure(home.path(), "127.0.0.1:0");
        let mut outer = run(home.path());
        let Some(pid) = process_one(&mut outer) else {
            assert!(std::env::var_os("CI").is_none(), "no namespaces");
            skipped("namespaces and overlayfs");
            return None;
        };
        let manager = Self { outer, home, pid };
        manager.until_active();
        // From now on it is the same port.
        let Address::Tcp(address) = manager.address() else {
            unreachable!("it listens on TCP");
        };
        configure(manager.home.path(), &address.to_string());
        Some(manager)
    }

    /// Writes the config, to listen on this address.
    pub(crate) fn configure(&self, listen: &str) {
        configure(self.home.path(), listen);
    }

    /// A path in its folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Runs a command where the manager is.
    pub(crate) fn tool(&self, name: &str) -> Tool {
        let nsenter = Tool::new("nsenter").arg(format!("--target={}", self.pid));
        nsenter.args(["--mount", "--pid", "--cgroup"]).arg(name)
    }

    /// `systemctl`, to its end.
    pub(crate) fn systemctl(&self, words: &[&str]) -> Finished {
        self.tool("systemctl").args(words).run()
    }

    /// What the manager knows of the service.
    pub(crate) fn shows(&self, property: &str) -> String {
        let words = ["show", "--value", "--property", property, "cowherd"];
        self.systemctl(&words).stdout.trim().to_owned()
    }

    /// Waits until the service is up.
    pub(crate) fn until_active(&self) {
        eventually(|| match self.shows("ActiveState").as_str() {
            "active" => Ok(()),
            other => Err(format!("{other}: {}", self.log())),
        });
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> Address {
        Address::of_uri(&self.uri(""))
    }

    /// The URI of an export.
    pub(crate) fn uri(&self, export: &str) -> String {
        let said = std::fs::read_to_string(self.file("out")).expect("what it said");
        let uri = said
            .lines()
            .find_map(|line| line.strip_prefix("listening on "));
        format!("{}{export}", uri.expect("a listener"))
    }

    /// The log of the service.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap_or_default()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let manager = std::fs::read_to_string(self.file("manager")).unwrap_or_default();
            eprintln!(
                "--- log of the service\n{}\n--- of systemd\n{manager}",
                self.log()
            );
        }
        let _ = self.outer.kill();
        let _ = self.outer.wait();
        let groups = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let groups = groups.into_iter().find(|groups| groups.is_dir());
        let own = groups.map(|groups| groups.join(format!("cowherd-{}", self.outer.id())));
        own.into_iter().for_each(|own| remove_group(&own));
    }
}

fn configure(home: &Path, listen: &str) {
    let text = format!(
        "state = \"/var/lib/cowherd\"\n[image.disk]\nfile = \"/srv/disk.img\"\n\
         [nbd]\nlisten = [{listen:?}]\n"
    );
    write_file(&home.join("etc/cowherd/cowherd.toml"), text.as_bytes());
}

fn run(home: &Path) -> Child {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/systemd/run"))
        .arg(home)
        .arg(env!("CARGO_BIN_EXE_cowherd"))
        .stdin(Stdio::null())
        .spawn()
        .expect("bash")
}

/// The number of systemd, once it is that; `None` where it came to nothing.
fn process_one(outer: &mut Child) -> Option<String> {
    let id = outer.id();
    let inner = || {
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        let pid = children.split_whitespace().next()?.to_owned();
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name.trim() == "systemd").then_some(pid)
    };
    eventually(|| match (inner(), outer.try_wait()) {
        (Some(pid), _) => Ok(Some(pid)),
        (None, Ok(None)) => Err("not yet systemd"),
        (None, _) => Ok(None),
    })
}

/// Removes a control group and those in it, which are empty once its processes are gone.
fn remove_group(group: &Path) {
    let below = std::fs::read_dir(group).into_iter().flatten().flatten();
    let folders = below.map(|entry| entry.path()).filter(|path| path.is_dir());
    folders.for_each(|folder| remove_group(&folder));
    eventually(|| match std::fs::remove_dir(group) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
            Err(error)
        }
        _ => Ok(()),
    });
}
