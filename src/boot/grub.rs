//! Menus as GRUB reads them.
//!
//! Invariants:
//! - Whatever a title, a path or a word holds, it stays in its place: everything that is not ours
//!   stands between single quotes, in which GRUB's shell knows no special character.
//! - Files are named with their device, so that it counts neither where GRUB was loaded from nor
//!   which server it takes for its own: behind a proxy that is the wrong one.

use std::net::Ipv4Addr;

use crate::mac::MacAddress;

use super::menu::{Entry, Menu, Place, Serial, put, shown};

/// The menu as a `grub.cfg`.
#[must_use]
pub fn config(menu: &Menu) -> String {
    let mut out = String::from("# Made by cowherd for this machine.\n");
    if let Some(Serial { unit, speed }) = menu.serial {
        put(
            &mut out,
            format_args!("serial --unit={unit} --speed={speed}"),
        );
        put(&mut out, format_args!("terminal_input console serial"));
        put(&mut out, format_args!("terminal_output console serial"));
    }
    let style = if menu.is_shown() { "menu" } else { "hidden" };
    put(&mut out, format_args!("set default={}", menu.default));
    put(
        &mut out,
        format_args!("set timeout={}", menu.timeout.as_secs()),
    );
    put(&mut out, format_args!("set timeout_style={style}"));
    for (number, entry) in menu.entries.iter().enumerate() {
        put_entry(&mut out, entry, number);
    }
    out
}

fn put_entry(out: &mut String, entry: &Entry, number: usize) {
    let title = quoted(&entry.title);
    put(
        out,
        format_args!("menuentry {title} --id 'cowherd-{number}' {{"),
    );
    let (kernel, words) = (place(&entry.kernel), words(&entry.words));
    let space = if words.is_empty() { "" } else { " " };
    put(out, format_args!("    linux {kernel}{space}{words}"));
    if !entry.initrds.is_empty() {
        let initrds = entry
            .initrds
            .iter()
            .map(|initrd| format!(" {}", place(initrd)));
        put(
            out,
            format_args!("    initrd{}", initrds.collect::<String>()),
        );
    }
    put(out, format_args!("}}"));
}

/// A command line, each of its words as one word of GRUB's shell.
pub(super) fn words(words: &[String]) -> String {
    let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
    words.join(" ")
}

/// What leads machines to menus of their own, by their network cards. GRUB goes on behind it where
/// there is none.
#[must_use]
pub fn dispatch(server: Ipv4Addr, menus: &[(MacAddress, String)]) -> String {
    let mut out = String::new();
    for (mac, path) in menus {
        let menu = quoted(&format!("(tftp,{server})/{path}"));
        put(
            &mut out,
            format_args!("if [ \"$net_default_mac\" = '{mac}' ]; then"),
        );
        put(&mut out, format_args!("    configfile {menu}"));
        put(&mut out, format_args!("fi"));
    }
    out
}

/// A file as one word, with its device.
#[must_use]
pub fn place(place: &Place) -> String {
    let device = place.transport.name();
    quoted(&format!("({device},{})/{}", place.server, place.path))
}

/// A text as one word of GRUB's shell. A quote ends the quoting, stands for itself behind a
/// backslash, and begins it anew. Control characters, which no screen shows, become spaces.
#[must_use]
pub fn quoted(text: &str) -> String {
    format!("'{}'", shown(text).replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::boot::menu::Transport;

    fn at(path: &str) -> Place {
        Place {
            transport: Transport::Tftp,
            server: [10, 77, 0, 1].into(),
            path: path.to_owned(),
        }
    }

    fn entry() -> Entry {
        Entry {
            title: "arch".to_owned(),
            kernel: at("disk/arch/vmlinuz"),
            initrds: vec![at("disk/arch/initrd.img")],
            words: vec!["root=/dev/nbd0".to_owned(), "quiet".to_owned()],
        }
    }

    #[test]
    fn an_entry_loads_kernel_and_initramfs_from_the_server_that_is_meant() {
        let menu = Menu {
            entries: vec![entry()],
            timeout: Duration::from_secs(5),
            ..Menu::default()
        };
        assert_eq!(
            config(&menu),
            "# Made by cowherd for this machine.
set default=0
set timeout=5
set timeout_style=menu
menuentry 'arch' --id 'cowherd-0' {
    linux '(tftp,10.77.0.1)/disk/arch/vmlinuz' 'root=/dev/nbd0' 'quiet'
    initrd '(tftp,10.77.0.1)/disk/arch/initrd.img'
}
"
        );
    }

    #[test]
    fn a_serial_console_is_set_up_first() {
        let serial = Some(Serial {
            unit: 0,
            speed: 115_200,
        });
        let menu = Menu {
            serial,
            ..Menu::default()
        };
        let config = config(&menu);
        let lines: Vec<_> = config.lines().collect();
        assert_eq!(lines[1], "serial --unit=0 --speed=115200");
        assert_eq!(lines[6], "set timeout_style=hidden");
    }

    #[test]
    fn a_quote_does_not_end_a_word() {
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted("a\n}\tb"), "'a } b'");
        assert_eq!(quoted("$root"), "'$root'");
    }
}
