//! What `tools/install-client` puts into a client: each script run by itself, with files in place
//! of the kernel's and with programs that only say how they were called. Whole boots with the ones
//! for initramfs-tools are in `boot.rs`.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Finished, Tool, require};
use tempfile::TempDir;

/// A folder with programs that write down their words, and whatever else a script looks at.
struct Bench {
    home: TempDir,
}

impl Bench {
    fn new(programs: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let bench = Self { home };
        for program in programs {
            let said = bench.path("said");
            let text = format!("#!/bin/sh\necho \"{program} $*\" >>{}\n", said.display());
            bench.program_of(&format!("bin/{program}"), &text);
        }
        bench
    }

    /// A program that does nothing.
    fn program(&self, name: &str) {
        self.program_of(name, "#!/bin/sh\n");
    }

    fn program_of(&self, name: &str, text: &str) {
        self.write(name, text);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.path(name), mode).expect("a mode");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder above")).expect("folders");
        fs::write(path, text).expect("a file");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("a file")
    }

    /// A network card, by its address, and whether it carries anything.
    fn card(&self, name: &str, address: &str, carrier: &str) {
        self.write(
            &format!("sys/class/net/{name}/address"),
            &format!("{address}\n"),
        );
        self.write(&format!("sys/class/net/{name}/flags"), "0x1002\n");
        self.write(
            &format!("sys/class/net/{name}/carrier"),
            &format!("{carrier}\n"),
        );
    }

    fn flags(&self, card: &str) -> String {
        self.read(&format!("sys/class/net/{card}/flags"))
            .trim()
            .to_owned()
    }

    /// Runs a script of tools/client where the command line is this.
    fn run(&self, script: &str, words: &[&str], line: &str) -> Finished {
        self.write("cmdline", &format!("{line}\n"));
        let mut command = self.command("sh");
        command.arg(client(script)).args(words);
        Tool::from_command(command, script).run()
    }

    /// With what is here in place of what the kernel shows.
    fn command(&self, program: &str) -> Command {
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        let mut command = Command::new(program);
        command
            .env("PATH", path)
            .env("COWHERD_CMDLINE", self.path("cmdline"))
            .env("COWHERD_LINKS", self.path("sys/class/net"))
            .env("COWHERD_SYS", self.path("sys"))
            .env("COWHERD_RUN", self.path("run"))
            .env("COWHERD_FSTAB", self.path("fstab"))
            .env("COWHERD_PATIENCE", "2");
        command
    }
}

fn tools(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tools")
        .join(name)
}

fn client(name: &str) -> PathBuf {
    tools("client").join(name)
}

#[track_caller]
fn went_well(finished: &Finished) {
    assert_eq!(
        (finished.code, finished.stderr.as_str()),
        (Some(0), ""),
        "{finished}"
    );
}

#[test]
fn shellcheck_finds_nothing() {
    if !require(&["shellcheck"]) {
        return;
    }
    let check = |dialect: &str, files: &[&str]| {
        let files = files.iter().map(|file| tools(file));
        Tool::new("shellcheck")
            .args(["-S", "warning", "-s", dialect])
            .args(files)
            .ok();
    };
    let posix = [
        "client/initramfs-tools/hook",
        "client/initramfs-tools/link-up",
        "client/any-initramfs/attach-root",
        "client/systemd/generator",
    ];
    check("sh", &posix);
    check("dash", &["client/mkinitcpio/hook"]);
    let bash = ["client/dracut/module-setup.sh", "client/mkinitcpio/install"];
    check("bash", &bash);
    check("bash", &["install-client", "make-image"]);
    check("bash", &["../tests/systemd/run", "../tests/systemd/inside"]);
}

#[test]
fn only_the_card_that_was_booted_from_is_brought_up() {
    let bench = Bench::new(&[]);
    bench.card("eth0", "52:54:00:77:00:10", "1");
    bench.card("eth1", "52:54:00:77:00:11", "1");
    let line = "ip=dhcp BOOTIF=01-52-54-00-77-00-11 quiet";
    went_well(&bench.run("initramfs-tools/link-up", &[], line));
    assert_eq!(
        (bench.flags("eth0"), bench.flags("eth1")),
        ("0x1002".into(), "0x1003".into())
    );
}

#[test]
fn a_card_without_a_cable_is_not_waited_for_for_ever() {
    let bench = Bench::new(&[]);
    bench.card("eth0", "52:54:00:77:00:10", "0");
    went_well(&bench.run("initramfs-tools/link-up", &[], "ip=dhcp"));
    assert_eq!(bench.flags("eth0"), "0x1003");
}

/// What is called when attach-root gets these words, where there are these programs.
fn called(programs: &[&str], words: &str, line: &str) -> Vec<String> {
    let bench = Bench::new(programs);
    let words: Vec<_> = words.split(' ').collect();
    went_well(&bench.run("any-initramfs/attach-root", &words, line));
    let said = bench.read("said");
    said.lines().map(ToOwned::to_owned).collect()
}

#[test]
fn a_name_with_a_slash_is_the_name_and_partitions_are_looked_for() {
    for (words, client) in [
        (
            "10.77.0.1 -N /arch /dev/nbd0 -swap",
            "nbd-client 10.77.0.1 /dev/nbd0 -N arch -b 512 -swap",
        ),
        (
            "10.77.0.1 -N arch 10810 /dev/nbd0",
            "nbd-client 10.77.0.1 10810 /dev/nbd0 -N arch -b 512",
        ),
        // As dracut calls it, for root=nbd:10.77.0.1:10810/arch.
        (
            "-p -systemd-mark 10.77.0.1 -name 10810/arch /dev/nbd0 -timeout 30",
            "nbd-client 10.77.0.1 10810 /dev/nbd0 -N arch -b 512 -p -systemd-mark -timeout 30",
        ),
    ] {
        assert_eq!(
            called(&["nbd-client", "blockdev"], words, ""),
            [client, "blockdev --rereadpt /dev/nbd0"]
        );
    }
}

#[test]
fn a_root_is_attached_by_the_program_that_outlives_its_server_where_that_is_there() {
    let all = ["cowherd-attach", "nbd-client", "blockdev"];
    let rescan = "blockdev --rereadpt /dev/nbd0";
    for (words, attached) in [
        (
            "10.77.0.1 -N /arch /dev/nbd0 -swap -persist -systemd-mark",
            "cowherd-attach /dev/nbd0 arch 10.77.0.1 --connections 1 --wait 3600",
        ),
        (
            "fd00::1 10810 /dev/nbd0 -N arch -C 4",
            "cowherd-attach /dev/nbd0 arch [fd00::1]:10810 --connections 4 --wait 3600",
        ),
    ] {
        assert_eq!(called(&all, words, "quiet"), [attached, rescan]);
    }
    let no = "quiet cowherd.attach=no rw";
    assert_eq!(
        called(&all, "10.77.0.1 -N arch /dev/nbd0", no),
        ["nbd-client 10.77.0.1 /dev/nbd0 -N arch -b 512", rescan]
    );
}

#[test]
fn whether_a_root_is_attached_is_asked_of_the_client_that_knows() {
    let all = ["cowherd-attach", "nbd-client", "blockdev"];
    assert_eq!(
        called(&all, "-check /dev/nbd0", ""),
        ["nbd-client -check /dev/nbd0"]
    );
}

#[test]
fn mkinitcpio_attaches_the_root_by_the_card_that_was_booted_from() {
    let bench = Bench::new(&["modprobe", "ipconfig", "attach-root"]);
    bench.card("eth0", "52:54:00:77:00:10", "1");
    bench.card("eth1", "52:54:00:77:00:11", "1");
    let script = format!(". {}; run_hook", client("mkinitcpio/hook").display());
    let mut command = bench.command("sh");
    command
        .args(["-c", &script])
        .env("nbd_host", "10.77.0.1")
        .env("nbd_name", "/arch")
        .env("BOOTIF", "01-52-54-00-77-00-11");
    went_well(&Tool::from_command(command, "run_hook").run());
    let said = bench.read("said");
    let called: Vec<_> = said.lines().collect();
    assert_eq!(
        called,
        [
            "modprobe nbd",
            "ipconfig -t 60 ip=:::::eth1:dhcp",
            "attach-root 10.77.0.1 /dev/nbd0 -N /arch -persist -systemd-mark",
        ]
    );
}

/// The units that the generator writes, by their names.
fn generated(bench: &Bench, line: &str) -> Vec<String> {
    let units = bench.path("units");
    fs::create_dir_all(&units).expect("a folder");
    let words = [units.to_str().expect("a plain path")];
    went_well(&bench.run("systemd/generator", &words, line));
    let entries = fs::read_dir(units).expect("a folder").flatten();
    let names = entries.map(|entry| entry.file_name().into_string().expect("text"));
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

const NBD: &str = "root=/dev/nbd0 nbdroot=10.77.0.1,arch,nbd0 ip=dhcp";

#[test]
fn a_system_with_its_root_elsewhere_is_left_alone() {
    let bench = Bench::new(&[]);
    assert!(generated(&bench, "root=/dev/sda1 ro").is_empty());
    assert!(!bench.path("run").exists());
}

#[test]
fn the_link_of_the_root_is_left_up_whatever_manages_it() {
    let bench = Bench::new(&[]);
    bench.card("eth0", "52:54:00:77:00:10", "1");
    bench.write("sys/class/net/eth0/flags", "0x1003\n");
    bench.card("eth1", "52:54:00:77:00:11", "1");
    assert_eq!(generated(&bench, NBD), ["networking.service.d"]);
    let network = bench.read("run/systemd/network/05-root-525400770010.network");
    assert!(
        network.contains("MACAddress=52:54:00:77:00:10\n"),
        "{network}"
    );
    assert!(network.contains("KeepConfiguration=yes\n"), "{network}");
    let manager = bench.read("run/NetworkManager/conf.d/90-root.conf");
    assert_eq!(
        manager,
        "[keyfile]\nunmanaged-devices=mac:52:54:00:77:00:10\n"
    );
    let ifupdown = bench.read("units/networking.service.d/root.conf");
    assert_eq!(ifupdown, "[Service]\nExecStop=\n");
}

#[test]
fn machines_that_share_a_root_have_their_own_in_memory() {
    let shared = "root=/dev/nfs nfsroot=10.77.0.1:/srv/arch ip=dhcp";
    for line in [shared, &format!("{NBD} cowherd.volatile=yes")] {
        let bench = Bench::new(&[]);
        let units = generated(&bench, line);
        for unit in [
            "tmp.mount",
            "var-log.mount",
            "var-spool.mount",
            "var-tmp.mount",
        ] {
            assert!(
                units.iter().any(|one| one == unit),
                "{unit} is not among {units:?}"
            );
            let wanted = bench.path(&format!("units/local-fs.target.requires/{unit}"));
            assert!(wanted.exists(), "{unit} is not wanted");
        }
    }
}

#[test]
fn a_disk_that_can_not_be_written_makes_a_system_keep_its_own_in_memory() {
    let bench = Bench::new(&[]);
    bench.write("sys/block/nbd0/ro", "1\n");
    assert!(generated(&bench, NBD).contains(&"var-log.mount".to_owned()));
    let bench = Bench::new(&[]);
    bench.write("sys/block/nbd0/ro", "1\n");
    let line = format!("{NBD} cowherd.volatile=no");
    assert!(!generated(&bench, &line).contains(&"var-log.mount".to_owned()));
}

#[test]
fn services_find_a_var_that_can_be_written_where_the_root_can_not() {
    let bench = Bench::new(&["modprobe"]);
    let units = generated(&bench, &format!("{NBD} cowherd.volatile=yes"));
    let mount = bench.read("units/var.mount");
    for line in [
        "Where=/var",
        "Type=overlay",
        "Options=lowerdir=/var,upperdir=/run/diskless/var,workdir=/run/diskless/work",
        // Whether the root can be written is known when it was mounted as fstab says.
        "ConditionPathIsReadWrite=!/var",
        "After=systemd-remount-fs.service",
        "After=diskless-var.service",
    ] {
        assert!(mount.lines().any(|one| one == line), "{line}: {mount}");
    }
    let room = bench.read("units/diskless-var.service");
    assert!(room.contains("mkdir -p /run/diskless/var "), "{room}");
    assert!(units.contains(&"run-diskless.mount".to_owned()));
    // A system whose overlay fails starts without it.
    assert!(bench.path("units/local-fs.target.wants/var.mount").exists());
}

#[test]
fn what_the_table_of_a_root_mounts_is_left_to_it() {
    let bench = Bench::new(&["modprobe"]);
    bench.write(
        "fstab",
        "# /tmp\ntmpfs /var/log tmpfs size=1g 0 0\nLABEL=var\t/var ext4\n",
    );
    let units = generated(&bench, &format!("{NBD} cowherd.volatile=yes"));
    let mounts = units.iter().filter(|unit| unit.ends_with(".mount"));
    let mounts: Vec<_> = mounts.map(String::as_str).collect();
    assert_eq!(mounts, ["tmp.mount", "var-spool.mount", "var-tmp.mount"]);
}

#[test]
fn a_kernel_that_has_no_overlayfs_is_not_asked_for_one() {
    let bench = Bench::new(&[]);
    bench.program_of("bin/modprobe", "#!/bin/sh\nexit 1\n");
    let units = generated(&bench, &format!("{NBD} cowherd.volatile=yes"));
    assert!(!units.contains(&"var.mount".to_owned()), "{units:?}");
}

#[test]
fn systemd_takes_the_units() {
    if !require(&["systemd-analyze"]) {
        return;
    }
    let bench = Bench::new(&["modprobe"]);
    let units = generated(&bench, &format!("{NBD} cowherd.volatile=yes"));
    let units = units
        .iter()
        .filter(|unit| unit.ends_with(".mount") || unit.ends_with(".service"))
        .map(|unit| bench.path("units").join(unit));
    // They name each other.
    let mut command = Command::new("systemd-analyze");
    let path = format!("{}:", bench.path("units").display());
    command.env("SYSTEMD_UNIT_PATH", path);
    Tool::from_command(command, "systemd-analyze")
        .args(["verify", "--man=no"])
        .args(units)
        .ok();
}

#[test]
fn one_command_installs_what_fits_and_takes_it_away_again() {
    let bench = Bench::new(&[]);
    bench.program("root/usr/sbin/update-initramfs");
    bench.program("root/usr/bin/mkinitcpio");
    // nbd-client has files for initramfs-tools whether that is there or not, as others for dracut.
    for folder in ["etc", "usr/lib/dracut/modules.d", "usr/lib/systemd"] {
        fs::create_dir_all(bench.path("root").join(folder)).expect("folders");
    }
    let root = bench.path("root");
    let attach = bench.path("attach");
    bench.program("attach");
    let attach = attach.to_str().expect("a plain path");
    let install = |more: &[&str]| {
        let tool = tools("install-client");
        Tool::new(tool.to_str().expect("a plain path"))
            .arg(&root)
            .args(more)
            .ok()
    };
    install(&[]);
    assert!(!root.join("usr/sbin/cowherd-attach").exists());
    let said = install(&["--attach", attach]);
    assert!(said.contains("update-initramfs -u"), "{said}");
    assert!(!said.contains("dracut"), "{said}");
    let files = [
        "etc/initramfs-tools/hooks/cowherd",
        "etc/initramfs-tools/scripts/init-premount/cowherd-link-up",
        "usr/lib/cowherd/attach-root",
        "usr/sbin/cowherd-attach",
        "etc/initcpio/hooks/cowherd",
        "etc/initcpio/install/cowherd",
        "etc/systemd/system-generators/cowherd",
    ];
    assert!(files.iter().all(|file| root.join(file).is_file()), "{said}");
    install(&["--remove"]);
    assert!(!files.iter().any(|file| root.join(file).exists()));
}

#[test]
fn a_directory_that_holds_no_system_is_refused() {
    let bench = Bench::new(&[]);
    symlink("/nowhere", bench.path("etc")).expect("a link");
    let tool = tools("install-client");
    let said = Tool::new(tool.to_str().expect("a plain path"))
        .arg(bench.home.path())
        .run();
    assert_eq!(said.code, Some(2), "{said}");
    assert!(said.stderr.contains("no etc"), "{said}");
}
