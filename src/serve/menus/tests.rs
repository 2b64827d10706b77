//! Menus, made of configs.

use super::*;
use crate::access::{Caller, Peer};
use crate::config::Config;
use std::sync::Arc;

const SITE: Site = Site {
    server: Ipv4Addr::new(10, 77, 0, 1),
    port: 10809,
    via: Transport::Tftp,
    also: None,
    is_static: false,
};

const IMAGES: &str = r#"
    [image.arch]
    file = "/srv/arch-3.img"
    generation = 3
    older = { 1 = "/srv/arch-1.img", 2 = "/srv/arch-2.img" }
    kernel = "boot/vmlinuz"
    initrd = ["boot/ucode", "boot/initrd"]
    initramfs = "mkinitcpio-nbd"
    cmdline = "quiet"
    title = "Arch"
    [image.rescue]
    file = "/srv/rescue.img"
    kernel = "vmlinuz"
    initramfs = "dracut"
    [image.data]
    file = "/srv/data.img"
    [client.studio-3]
    mac = "52:54:00:77:00:10"
    group = "lab"
"#;

fn config(more: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cowherd.toml");
    let has_defaults = more.contains("[defaults]");
    let defaults = if has_defaults {
        ""
    } else {
        "[defaults]\nimage = \"arch\"\n"
    };
    let has_group = more.contains("[group.lab");
    let group = if has_group { "" } else { "[group.lab]\n" };
    std::fs::write(&path, format!("{defaults}{IMAGES}{group}{more}")).unwrap();
    Config::read(&path).unwrap_or_else(|mistake| panic!("{mistake}"))
}

/// The menu of the client of this name, or of one without a name.
fn made(more: &str, name: Option<&str>) -> Made {
    made_at(SITE, more, name)
}

fn made_at(site: Site, more: &str, name: Option<&str>) -> Made {
    let config = config(more);
    let boots = config.images.iter();
    let boots = boots.filter_map(|image| Some((image.name.clone(), image.boot.clone()?)));
    let boots = boots.collect();
    let images = config.images.iter().map(|image| Stocked {
        name: image.name.clone(),
        current: image.current,
        numbers: image.files.keys().copied().collect(),
    });
    let images = images.collect();
    let known = Known::new(config.herd, Arc::default());
    let caller = Caller::plain(Peer::Ip([10, 77, 0, 9].into()));
    let name = name.map(|name| Name::new(name).unwrap());
    let client = known.client_of(&caller, name.as_ref());
    let guest = Guest::new(&known, client, name, None);
    let stock = Stock {
        images,
        boots: &boots,
        roots: &Roots::default(),
        nfs: &config.nfs,
        default_menu: known.default_menu(),
    };
    make(site, &guest, &stock)
}

fn titles(more: &str, name: Option<&str>) -> Vec<String> {
    let entries = made(more, name).menu.entries.into_iter();
    entries.map(|entry| entry.title).collect()
}

fn default_title(more: &str, name: Option<&str>) -> String {
    let menu = made(more, name).menu;
    menu.entries[menu.default].title.clone()
}

#[test]
fn a_menu_has_the_current_generation_and_then_the_older_ones() {
    assert_eq!(
        titles("", None),
        ["Arch", "Arch (generation 2)", "Arch (generation 1)"]
    );
    let menu = made("", None).menu;
    assert_eq!((menu.default, menu.timeout.as_secs()), (0, 5));
    assert_eq!(menu.entries[1].kernel.path, "disk/arch+2/kernel");
    let initrds: Vec<_> = menu.entries[1]
        .initrds
        .iter()
        .map(|place| &place.path)
        .collect();
    assert_eq!(initrds, ["disk/arch+2/initrd0", "disk/arch+2/initrd1"]);
}

#[test]
fn older_generations_can_be_left_out_and_then_there_is_nothing_to_wait_for() {
    let more = "[defaults.menu]\nolder = false\n";
    assert_eq!(titles(more, None), ["Arch"]);
    assert_eq!(made(more, None).menu.timeout, Duration::ZERO);
}

#[test]
fn other_images_and_the_default_are_offered_too() {
    let more = "[defaults.menu]\nolder = false\nimages = [\"rescue\"]\ndefault = \"arch+1\"\n";
    assert_eq!(
        titles(more, None),
        ["Arch", "rescue+1", "Arch (generation 1)"]
    );
    assert_eq!(default_title(more, None), "Arch (generation 1)");
    let more = "[defaults.menu]\ndefault = \"rescue\"\n";
    assert_eq!(default_title(more, None), "rescue+1");
}

#[test]
fn a_client_goes_before_its_group_that_before_the_image_and_that_before_the_defaults() {
    let tables = [
        "[defaults.menu]\ntimeout = 1\n",
        "[image.arch.menu]\ntimeout = 2\n",
        "[group.lab.menu]\ntimeout = 3\n",
        "[client.studio-3.menu]\ntimeout = 4\n",
    ];
    for count in 1..=tables.len() {
        let more = tables[..count].concat();
        let menu = made(&more, Some("studio-3")).menu;
        assert_eq!(menu.timeout.as_secs(), count as u64);
        let other = made(&more, None).menu;
        assert_eq!(other.timeout.as_secs(), count.min(2) as u64);
    }
}

#[test]
fn a_serial_console_is_one_of_the_kernel_too_and_the_config_has_the_last_word() {
    let menu = made("[defaults.menu]\nserial = \"ttyS1,9600\"\n", None).menu;
    let serial = Serial {
        unit: 1,
        speed: 9600,
    };
    assert_eq!(menu.serial, Some(serial));
    let words = menu.entries[0].words.join(" ");
    assert!(
        words.ends_with("console=tty0 console=ttyS1,9600 quiet"),
        "{words}"
    );
    let off = "[defaults.menu]\nserial = \"ttyS0\"\n[client.studio-3.menu]\nserial = \"off\"\n";
    assert_eq!(made(off, Some("studio-3")).menu.serial, None);
}

#[test]
fn a_machine_that_is_named_opens_its_disk_by_its_name() {
    let menu = made("", Some("studio-3")).menu;
    let entry = &menu.entries[0];
    assert_eq!(entry.kernel.path, "disk/arch+3@studio-3/kernel");
    let words = entry.words.join(" ");
    for word in [
        "nbd_name=arch+3@studio-3 ",
        " BOOTIF=01-52-54-00-77-00-10 ",
        " systemd.hostname=studio-3 ",
        " systemd.machine_id=636f7768657264000000525400770010 ",
    ] {
        assert!(words.contains(word), "{word:?} is not in {words}");
    }
}

#[test]
fn what_can_t_be_booted_is_left_out_and_the_default_stays_what_it_is() {
    let more =
        "[client.a]\n[client.a.menu]\nolder = false\nimages = [\"rescue\"]\ndefault = \"rescue\"\n";
    let on = |port| made_at(Site { port, ..SITE }, more, Some("a"));
    assert_eq!(on(10809).menu.default, 1);
    let elsewhere = on(2000);
    assert_eq!(elsewhere.menu.entries.len(), 1);
    assert_eq!(elsewhere.menu.default, 0);
    assert_eq!(
        elsewhere.left_out,
        [("rescue+1@a".to_owned(), BadLine::Port(2000))]
    );
}

#[test]
fn a_root_on_nfs_is_offered_where_a_menu_names_it() {
    let more = "[nfs.deb]\npath = \"/srv/nfs/deb\"\nkernel = \"vmlinuz\"\ninitrd = \"initrd\"\n\
                initramfs = \"none\"\ntitle = \"Debian\"\n\
                [defaults.menu]\nolder = false\ndefault = \"deb\"\n";
    assert_eq!(titles(more, None), ["Arch", "Debian"]);
    assert_eq!(default_title(more, None), "Debian");
    let menu = made(more, Some("studio-3")).menu;
    let entry = &menu.entries[1];
    assert_eq!(entry.kernel.path, "nfs/deb/kernel");
    assert_eq!(entry.initrds[0].path, "nfs/deb/initrd0");
    let words = entry.words.join(" ");
    assert!(
        words.starts_with("root=/dev/nfs nfsroot=10.77.0.1:/srv/nfs/deb ip=dhcp ro BOOTIF="),
        "{words}"
    );
}

#[test]
fn kernels_are_loaded_by_another_transport_where_the_config_says_so_and_it_is_served() {
    let by = |also, more| {
        let site = Site { also, ..SITE };
        let menu = made_at(site, more, None).menu;
        menu.entries[0].kernel.transport
    };
    let http = "[http]\n[defaults.menu]\ntransport = \"http\"\n";
    assert_eq!(by(Some(Transport::Http), http), Transport::Http);
    assert_eq!(by(None, http), Transport::Tftp);
    assert_eq!(by(Some(Transport::Http), ""), Transport::Tftp);
}
