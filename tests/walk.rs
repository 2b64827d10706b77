//! The walk of cowherd-boot(7), every command of it as it stands there.
//!
//! Files go to a folder of the test, so `/srv/cowherd` and the like are written differently when
//! they are run. The two commands that take minutes, `tools/make-image` and `tools/boot-in-qemu`,
//! are only looked at here: `boot.rs` runs them.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use support::nbd::{Address, Client};
use support::{Host, Lan, Tool, eventually, make_file_system, read_file, write_file};
use tempfile::TempDir;

/// The lines between .EX and .EE, as they are read: a block each.
fn blocks() -> Vec<Vec<String>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/cowherd-boot.7");
    let page = String::from_utf8(read_file(&page)).expect("text");
    let mut blocks = Vec::new();
    for part in page.split("\n.EX\n").skip(1) {
        let (block, _) = part.split_once("\n.EE\n").expect("an end of the example");
        let plain = block.replace("\\-", "-").replace("\\(aq", "'");
        blocks.push(plain.lines().map(str::to_owned).collect());
    }
    blocks
}

/// The server of the page, and its machine.
struct Walk {
    home: TempDir,
    server: Host,
    machine: Host,
    serving: Option<Child>,
    /// The number of a server in the background.
    detached: Option<String>,
    /// The machine's second block has something that was acknowledged.
    has_written: bool,
    ran: Vec<String>,
    /// What the image held when it was made.
    image: Vec<u8>,
    _lan: Lan,
}

impl Drop for Walk {
    fn drop(&mut self) {
        if let Some(mut serving) = self.serving.take() {
            let _ = serving.kill();
            let _ = serving.wait();
        }
        // One that has taken over is nobody's child.
        if let Some(pid) = self.detached.take() {
            Tool::new("kill").args(["-9", &pid]).run();
        }
    }
}

impl Walk {
    fn new() -> Option<Self> {
        let lan = Lan::new()?;
        let (server, machine) = (lan.host(), lan.host());
        server.ip("addr add 10.77.0.1/24 dev lan0");
        machine.ip("addr add 10.77.0.10/24 dev lan0");
        let home = tempfile::tempdir().expect("a folder");
        for folder in ["etc/cowherd", "mnt/etc", "mnt/usr/sbin"] {
            fs::create_dir_all(home.path().join(folder)).expect("folders");
        }
        // What it is that makes the initramfs of the system in /mnt.
        symlink(
            "/bin/true",
            home.path().join("mnt/usr/sbin/update-initramfs"),
        )
        .expect("a link");
        Some(Self {
            home,
            server,
            machine,
            serving: None,
            detached: None,
            has_written: false,
            ran: Vec::new(),
            image: Vec::new(),
            _lan: lan,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// What the page says, with the places of the test.
    fn placed(&self, text: &str) -> String {
        let home = self.home.path().to_str().expect("a plain path");
        let places = ["/srv/cowherd", "/etc/cowherd", "/var/lib/cowherd", "/mnt"];
        let with = |text: String, place| text.replace(place, &format!("{home}{place}"));
        places.into_iter().fold(text.to_owned(), with)
    }

    fn follow(&mut self, line: &str) {
        let command = line.strip_prefix("# ").expect("a command");
        let words: Vec<_> = command.split(' ').collect();
        self.ran.push(words[..words.len().min(3)].join(" "));
        match words[..] {
            ["tools/make-image", image, ..] => {
                let image = PathBuf::from(self.placed(image));
                make_file_system(&["mkfs.ext4", "-q"], &image, 4);
                self.image = read_file(&image);
            }
            ["tools/boot-in-qemu", ..] => {}
            ["cowherd", "serve", .., "--detach"] => self.take_over(command),
            ["cowherd", "serve", ..] => self.serve(command),
            ["kill", "-HUP", ..] => self.reload(command),
            ["cowherd", "grub", "--exports", ..] => {
                let said = self.run(command);
                let exported = self.placed("/srv/cowherd/root 10.77.0.0/24(ro,");
                assert!(said.contains(&exported), "{said}");
            }
            ["kill", ..] => self.end(command),
            ["cp", ..] => self.move_house(command),
            ["cowherd", "overlay", "list", ..] => {
                self.machine_writes(9);
                let said = self.run(command);
                assert!(said.contains("debian+1@studio-1"), "{said}");
            }
            ["cowherd", "overlay", "commit", ..] => {
                self.machine_writes(7);
                self.run(command);
            }
            _ => drop(self.run(command)),
        }
    }

    /// The config, or a table that is added to it.
    fn configure(&self, block: &[String]) {
        let file = self.path("etc/cowherd/cowherd.toml");
        let mut config = match block.first() {
            Some(line) if line.starts_with("[nfs.") => read_file(&file),
            _ => Vec::new(),
        };
        let more = self.placed(&block.join("\n"));
        config.extend(format!("\n{more}\n").bytes());
        write_file(&file, &config);
    }

    fn shell(&self, command: &str) -> Tool {
        let program = Path::new(env!("CARGO_BIN_EXE_cowherd"));
        let folder = program.parent().expect("a folder").display();
        let script = format!("PATH={folder}:$PATH; {}", self.placed(command));
        let top = Path::new(env!("CARGO_MANIFEST_DIR"));
        self.server.tool("sh").args(["-c", &script]).inside(top)
    }

    fn run(&self, command: &str) -> String {
        self.shell(command).ok()
    }

    fn serve(&mut self, command: &str) {
        let words = self.placed(command);
        let words: Vec<_> = words.split(' ').skip(1).collect();
        let serving = self.server.spawn(env!("CARGO_BIN_EXE_cowherd"), &words);
        self.serving = Some(serving);
        let socket = self.path("var/lib/cowherd/control.sock");
        eventually(|| socket.exists().then_some(()).ok_or("no server yet"));
        if self.has_written {
            let mut client = eventually(|| self.session().ok_or("no server yet"));
            assert_eq!(client.read(4096, 4096).expect("a read"), [5; 4096]);
            client.disconnect();
        }
    }

    /// The machine's connection goes on.
    fn take_over(&mut self, command: &str) {
        let mut client = self.session().expect("a session");
        let before = client.read(0, 4096).expect("a read");
        // The log goes on when the command has ended.
        self.run(&format!("{command} >/dev/null 2>&1"));
        assert_eq!(client.read(0, 4096).expect("a read"), before);
        let mut old = self.serving.take().expect("a server");
        assert!(old.wait().expect("its end").success());
        self.detached = Some(self.holder());
    }

    /// The process that has the state directory.
    fn holder(&self) -> String {
        let lock = read_file(&self.path("var/lib/cowherd/lock"));
        String::from_utf8(lock).expect("a number").trim().to_owned()
    }

    /// What was acknowledged is there when the server is, so it is written before.
    fn end(&mut self, command: &str) {
        let mut client = self.session().expect("a session");
        client.write(4096, &[5; 4096]).expect("a write");
        self.has_written = true;
        let process = PathBuf::from("/proc").join(self.holder());
        self.run(command);
        if let Some(mut serving) = self.serving.take() {
            serving.wait().expect("its end");
        }
        let ended = || (!process.exists()).then_some(()).ok_or("it runs");
        eventually(ended);
        self.detached = None;
        // What a killed server leaves behind does not answer.
        let _ = fs::remove_file(self.path("var/lib/cowherd/control.sock"));
    }

    /// The copy is in place of what was copied.
    fn move_house(&self, command: &str) {
        self.run(command);
        let words: Vec<_> = command.split(' ').collect();
        let [.., original, folder] = words[..] else {
            panic!("{command}");
        };
        let (original, folder) = (self.placed(original), self.placed(folder));
        fs::rename(&original, format!("{original}.old")).expect("a rename");
        fs::rename(Path::new(&folder).join("cowherd"), &original).expect("a rename");
    }

    /// The first block of the machine's disk, and what it opens.
    fn session(&self) -> Option<Client> {
        let address = Address::Tcp("10.77.0.1:10809".parse().expect("an address"));
        self.machine.within(move || Client::open(&address, "").ok())
    }

    fn seen(&self) -> Option<Vec<u8>> {
        let mut client = self.session()?;
        let seen = client.read(0, 4096).expect("a read");
        client.disconnect();
        Some(seen)
    }

    fn machine_writes(&self, byte: u8) {
        let mut client = eventually(|| self.session().ok_or("no server yet"));
        client.write(0, &[byte; 4096]).expect("a write");
        client.flush().expect("a flush");
        client.disconnect();
    }

    /// The machine finds the new generation, which is what it had made of the first.
    fn reload(&self, command: &str) {
        // It starts afresh there: its own changes are of the first generation.
        self.run(command);
        let overlay = self.path("var/lib/cowherd/overlays/debian+2/studio-1");
        eventually(|| match self.seen() {
            Some(seen) if seen == [7; 4096] && overlay.exists() => Ok(()),
            _ => Err("not the new generation"),
        });
    }
}

#[test]
fn every_command_of_the_walk_does_what_the_page_says() {
    let Some(mut walk) = Walk::new() else { return };
    for block in blocks() {
        if block.iter().all(|line| line.starts_with("# ")) {
            block.iter().for_each(|line| walk.follow(line));
        } else {
            walk.configure(&block);
        }
    }
    let image = read_file(&walk.path("srv/cowherd/debian.img"));
    assert!(image == walk.image, "the image was written");
    assert!(walk.path("srv/cowherd/root/lost+found").is_dir());
    assert!(walk.ran.len() >= 10, "{:?}", walk.ran);
}

#[test]
fn the_tools_of_the_walk_take_what_the_page_gives_them() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let blocks = blocks();
    let lines = blocks
        .iter()
        .flatten()
        .filter(|line| line.starts_with("# tools/"));
    for line in lines {
        let mut words = line.split(' ').skip(1);
        let tool = top.join(words.next().expect("a tool"));
        let help = Tool::from_command(Command::new(&tool), line)
            .arg("--help")
            .ok();
        let options = words.filter(|word| word.starts_with("--"));
        for option in options {
            assert!(
                help.contains(option),
                "{} has no {option}:\n{help}",
                tool.display()
            );
        }
    }
}
