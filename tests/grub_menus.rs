//! Menus that GRUB itself reads, whatever is in them.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::io::Write;
use std::time::Duration;

use cowherd::boot::grub;
use cowherd::boot::menu::{Entry, Menu, Place, Serial, Transport};
use proptest::prelude::*;
use support::{Tool, require};

fn place() -> impl Strategy<Value = Place> {
    let transport = prop_oneof![Just(Transport::Tftp), Just(Transport::Http)];
    (transport, any::<u32>(), any::<String>()).prop_map(|(transport, server, path)| Place {
        transport,
        server: server.into(),
        path,
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    // Above all what means something to a shell.
    let text = || prop_oneof![any::<String>(), "['\"\\\\${}();\n #|&<>a]{0,20}"];
    let initrds = prop::collection::vec(place(), 0..3);
    let words = prop::collection::vec(text(), 0..6);
    (text(), place(), initrds, words).prop_map(|(title, kernel, initrds, words)| Entry {
        title,
        kernel,
        initrds,
        words,
    })
}

fn menu() -> impl Strategy<Value = Menu> {
    let serial = prop::option::of((any::<u8>(), any::<u32>()));
    let entries = prop::collection::vec(entry(), 0..4);
    (entries, 0..4_usize, 0..100_u64, serial).prop_map(|(entries, default, seconds, serial)| Menu {
        entries,
        default,
        timeout: Duration::from_secs(seconds),
        serial: serial.map(|(unit, speed)| Serial { unit, speed }),
    })
}

/// The lines of a menu that begin a command of ours, which no text can add to.
fn commands(config: &str) -> Vec<&str> {
    let words = config
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    words.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn grub_reads_every_menu(menu in menu()) {
        if !require(&["grub-script-check"]) {
            return Ok(());
        }
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(grub::config(&menu).as_bytes()).expect("room");
        Tool::new("grub-script-check").arg(file.path()).ok();
    }

    #[test]
    fn no_text_adds_a_command(menu in menu()) {
        let plain = |entry: &Entry| Entry {
            title: "t".to_owned(),
            kernel: Place { path: "k".to_owned(), ..entry.kernel.clone() },
            initrds: entry.initrds.clone(),
            words: Vec::new(),
        };
        let same = Menu {
            entries: menu.entries.iter().map(plain).collect(),
            ..menu.clone()
        };
        let (with, without) = (grub::config(&menu), grub::config(&same));
        prop_assert_eq!(commands(&with), commands(&without));
    }
}
