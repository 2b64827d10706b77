//! Command lines, word by word.

use super::*;

fn root() -> Root {
    Root {
        server: [10, 77, 0, 1].into(),
        port: NBD_PORT,
        export: "arch".to_owned(),
        partition: None,
        filesystem: None,
        flags: None,
        is_writable: true,
    }
}

fn line(kind: Initramfs, root: &Root) -> String {
    let words = command_line(kind, root, &Machine::default(), &[]);
    words.unwrap().join(" ")
}

#[test]
fn each_initramfs_has_its_own_words() {
    use Initramfs::{Archiso, Dracut, InitramfsTools, MkinitcpioNbd};
    for (kind, words) in [
        (
            InitramfsTools,
            "root=/dev/nbd0 nbdroot=10.77.0.1,arch,nbd0 ip=dhcp rw",
        ),
        (
            MkinitcpioNbd,
            "root=/dev/nbd0 nbd_host=10.77.0.1 nbd_name=arch ip=dhcp rw",
        ),
        (Dracut, "root=nbd:10.77.0.1:arch ip=dhcp rd.neednet=1 rw"),
        (
            Archiso,
            "ip=dhcp archiso_nbd_srv=10.77.0.1 archiso_nbd_name=arch",
        ),
    ] {
        assert_eq!(line(kind, &root()), words);
    }
}

#[test]
fn a_root_on_nfs_is_said_to_a_kernel_and_to_dracut() {
    let mut root = NfsMount {
        server: [10, 77, 0, 2].into(),
        path: "/srv/nfs/debian",
        options: None,
        is_writable: false,
    };
    let line = |kind, root: &NfsMount<'_>| {
        let more = ["quiet".to_owned()];
        let words = nfs_command_line(kind, root, &Machine::default(), &more);
        words.unwrap().join(" ")
    };
    for kind in [
        NfsInitramfs::InitramfsTools,
        NfsInitramfs::Mkinitcpio,
        NfsInitramfs::None,
    ] {
        assert_eq!(
            line(kind, &root),
            "root=/dev/nfs nfsroot=10.77.0.2:/srv/nfs/debian ip=dhcp ro quiet"
        );
    }
    root.options = Some("vers=3,tcp");
    root.is_writable = true;
    assert_eq!(
        line(NfsInitramfs::None, &root),
        "root=/dev/nfs nfsroot=10.77.0.2:/srv/nfs/debian,vers=3,tcp ip=dhcp rw quiet"
    );
    assert_eq!(
        line(NfsInitramfs::Dracut, &root),
        "root=nfs:10.77.0.2:/srv/nfs/debian:vers=3,tcp rd.neednet=1 ip=dhcp rw quiet"
    );
}

#[test]
fn how_the_root_is_mounted_is_said_where_it_is_known() {
    let root = Root {
        filesystem: Some("btrfs".to_owned()),
        flags: Some("compress=lzo,noatime".to_owned()),
        is_writable: false,
        ..root()
    };
    assert!(
        line(Initramfs::InitramfsTools, &root)
            .ends_with(" rootfstype=btrfs rootflags=compress=lzo,noatime ro")
    );
    assert!(
        line(Initramfs::Dracut, &root)
            .starts_with("root=nbd:10.77.0.1:arch:btrfs:compress=lzo,noatime ")
    );
}

#[test]
fn a_root_in_a_partition_is_named_as_that() {
    let root = Root {
        partition: Some(2),
        flags: Some("subvol=@".to_owned()),
        ..root()
    };
    for (kind, words) in [
        (
            Initramfs::InitramfsTools,
            "root=/dev/nbd0p2 nbdroot=10.77.0.1,arch,nbd0 ip=dhcp rootflags=subvol=@ rw",
        ),
        (
            Initramfs::MkinitcpioNbd,
            "root=/dev/nbd0p2 nbd_host=10.77.0.1 nbd_name=arch ip=dhcp rootflags=subvol=@ rw",
        ),
        (
            Initramfs::Dracut,
            "root=/dev/nbd0p2 netroot=nbd:10.77.0.1:arch ip=dhcp rd.neednet=1 \
             rootflags=subvol=@ rw",
        ),
    ] {
        assert_eq!(line(kind, &root), words);
    }
}

/// The root of dracut is what it attaches, too, unless that is said elsewhere.
#[test]
fn dracut_attaches_the_export_whatever_root_the_config_says() {
    for partition in [None, Some(2)] {
        let root = Root {
            partition,
            ..root()
        };
        let more = ["root=LABEL=system".to_owned()];
        let words = command_line(Initramfs::Dracut, &root, &Machine::default(), &more);
        assert_eq!(
            words.unwrap().join(" "),
            "netroot=nbd:10.77.0.1:arch ip=dhcp rd.neednet=1 rw root=LABEL=system"
        );
    }
}

#[test]
fn another_port_is_said_where_it_can_be() {
    let root = Root {
        port: 2000,
        ..root()
    };
    assert!(line(Initramfs::InitramfsTools, &root).contains("nbdroot=10.77.0.1:2000/arch "));
    assert!(line(Initramfs::MkinitcpioNbd, &root).contains(" nbd_port=2000 "));
    let refused = command_line(Initramfs::Dracut, &root, &Machine::default(), &[]);
    assert_eq!(refused, Err(BadLine::Port(2000)));
}

#[test]
fn a_machine_is_the_same_one_on_every_boot() {
    let mac = "52:54:00:77:00:10".parse().unwrap();
    let machine = Machine {
        name: Some(Name::new("studio-3").unwrap()),
        card: Some(mac),
        id: Some(MachineId::of_card(mac)),
    };
    let words = command_line(Initramfs::Archiso, &root(), &machine, &["quiet".to_owned()]);
    let words = words.unwrap();
    assert_eq!(
        words[3..],
        [
            "BOOTIF=01-52-54-00-77-00-10",
            "systemd.hostname=studio-3",
            "systemd.machine_id=636f7768657264000000525400770010",
            "quiet",
        ]
    );
}

#[test]
fn a_machine_id_is_made_of_what_is_known() {
    let uuid = std::array::from_fn(|nth| u8::try_from(nth).unwrap());
    assert_eq!(
        MachineId::of_uuid(uuid).to_string(),
        "000102030405060708090a0b0c0d0e0f"
    );
    // A vector of the FNV authors: the hash of "a".
    assert_eq!(
        MachineId::of_name(&Name::new("a").unwrap()).to_string(),
        "d228cb696f1a8caf78912b704e4a8964"
    );
}

#[test]
fn what_would_come_apart_is_refused() {
    for word in ["", "a b", "a\nb", "a\"b", "a'b", "a\\b", "\u{e9}"] {
        let more = [word.to_owned()];
        let refused = command_line(Initramfs::Archiso, &root(), &Machine::default(), &more);
        assert_eq!(refused, Err(BadLine::Word(word.to_owned())));
    }
    let more = vec!["a".repeat(KERNEL_LINE_MAX)];
    let refused = command_line(Initramfs::Archiso, &root(), &Machine::default(), &more);
    assert!(matches!(refused, Err(BadLine::Long(_))));
}
