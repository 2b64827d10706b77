//! Menus that boot loaders take for what they are, whatever is in them; GRUB itself reads them.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::io::Write;
use std::time::Duration;

use cowherd::boot::grub;
use cowherd::boot::menu::{Entry, Format, Menu, Place, Serial, Transport};
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
        let (with, without) = (grub::config(&menu), grub::config(&plain(&menu)));
        prop_assert_eq!(commands(&with), commands(&without));
    }

    #[test]
    fn what_loaders_without_quotes_are_not_refused_adds_no_command(menu in tame_menu()) {
        for format in [Format::Ipxe, Format::Pxelinux] {
            let Ok(with) = menu.written_for(format) else {
                continue;
            };
            let without = plain(&menu).written_for(format).expect("plain texts");
            prop_assert_eq!(commands(&with), commands(&without));
            // All that takes a line of iPXE apart stands where we put it.
            let marks = |text: &str| {
                let words = text.split_whitespace();
                words.filter(|word| ["||", "&&", ";"].contains(word) || word.contains("${")
                    || word.starts_with('#')).count()
            };
            if format == Format::Ipxe {
                prop_assert_eq!(marks(&with), marks(&without));
            }
        }
    }
}

/// The same menu without a text of anybody's.
fn plain(menu: &Menu) -> Menu {
    let place = |place: &Place| Place {
        path: "k".to_owned(),
        ..place.clone()
    };
    let plain = |entry: &Entry| Entry {
        title: "t".to_owned(),
        kernel: place(&entry.kernel),
        initrds: entry.initrds.iter().map(place).collect(),
        words: entry.words.iter().map(|_| "w".to_owned()).collect(),
    };
    Menu {
        entries: menu.entries.iter().map(plain).collect(),
        ..menu.clone()
    }
}

/// Menus of which most can be written without quotes.
fn tame_menu() -> impl Strategy<Value = Menu> {
    let text = || prop_oneof![9 => "[a-z|&;=,^-]{1,9}", 1 => "[a#${}\\n\\x0b \\\\]{0,4}"];
    let titles = prop::collection::vec(text(), 4);
    let words = prop::collection::vec(text(), 0..4);
    (menu(), titles, words).prop_map(|(mut menu, titles, words)| {
        for (entry, title) in menu.entries.iter_mut().zip(titles) {
            let places = std::iter::once(&mut entry.kernel).chain(&mut entry.initrds);
            places
                .for_each(|place| place.path = title.replace(|c: char| !c.is_alphanumeric(), "-"));
            entry.title = title;
            entry.words.clone_from(&words);
        }
        menu
    })
}
