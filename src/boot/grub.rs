//! Menus as GRUB reads them.
//!
//! Invariants:
//! - Whatever a title, a path or a word holds, it stays in its place: everything that is not ours
//!   stands between single quotes, in which GRUB's shell knows no special character.
//! - Files are named with their device, so that it counts neither where GRUB was loaded from nor
//!   which server it takes for its own: behind a proxy that is the wrong one.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::time::Duration;

/// What a machine may choose from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Menu {
    /// The entries; the first is the default.
    pub entries: Vec<Entry>,
    /// How long the default is held back for a choice. At zero the menu is not shown.
    pub timeout: Duration,
    /// A serial console beside the screen.
    pub serial: Option<Serial>,
}

/// A serial line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serial {
    /// 0 for the first one.
    pub unit: u8,
    /// Bits a second.
    pub speed: u32,
}

/// One system to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What people read.
    pub title: String,
    /// The kernel.
    pub kernel: Place,
    /// What is loaded with it, in this order.
    pub initrds: Vec<Place>,
    /// Its command line.
    pub words: Vec<String>,
}

/// A file on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// How it is loaded.
    pub transport: Transport,
    /// From where.
    pub server: Ipv4Addr,
    /// Its path, without a slash before it.
    pub path: String,
}

/// How GRUB loads a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// By TFTP.
    Tftp,
    /// By HTTP, on port 80: older ones than 2.12 know no other.
    Http,
}

impl Transport {
    /// GRUB's name of the device.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tftp => "tftp",
            Self::Http => "http",
        }
    }
}

impl Menu {
    /// The menu as a `grub.cfg`.
    #[must_use]
    pub fn to_config(&self) -> String {
        let mut out = String::from("# Made by cowherd for this machine.\n");
        self.put_console(&mut out);
        let seconds = self.timeout.as_secs();
        let style = if seconds == 0 { "hidden" } else { "menu" };
        put(&mut out, format_args!("set default=0"));
        put(&mut out, format_args!("set timeout={seconds}"));
        put(&mut out, format_args!("set timeout_style={style}"));
        for (number, entry) in self.entries.iter().enumerate() {
            entry.put(&mut out, number);
        }
        out
    }

    fn put_console(&self, out: &mut String) {
        if let Some(Serial { unit, speed }) = self.serial {
            put(out, format_args!("serial --unit={unit} --speed={speed}"));
            put(out, format_args!("terminal_input console serial"));
            put(out, format_args!("terminal_output console serial"));
        }
    }
}

impl Entry {
    fn put(&self, out: &mut String, number: usize) {
        let title = quoted(&self.title);
        put(
            out,
            format_args!("menuentry {title} --id 'cowherd-{number}' {{"),
        );
        let words = self.words.iter().map(|word| format!(" {}", quoted(word)));
        let words: String = words.collect();
        put(
            out,
            format_args!("    linux {}{words}", self.kernel.quoted()),
        );
        if !self.initrds.is_empty() {
            let initrds = self
                .initrds
                .iter()
                .map(|place| format!(" {}", place.quoted()));
            put(
                out,
                format_args!("    initrd{}", initrds.collect::<String>()),
            );
        }
        put(out, format_args!("}}"));
    }
}

impl Place {
    fn quoted(&self) -> String {
        let device = self.transport.name();
        quoted(&format!("({device},{})/{}", self.server, self.path))
    }
}

/// One line.
fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Nothing can fail in writing to a String.
    let _ = writeln!(out, "{line}");
}

/// A text as one word of GRUB's shell. A quote ends the quoting, stands for itself behind a
/// backslash, and begins it anew. Control characters, which no screen shows, become spaces.
fn quoted(text: &str) -> String {
    let shown: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    format!("'{}'", shown.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> Place {
        Place {
            transport: Transport::Tftp,
            server: [10, 77, 0, 1].into(),
            path: path.to_owned(),
        }
    }

    fn entry() -> Entry {
        Entry {
            title: "arch".to_owned(),
            kernel: place("disk/arch/vmlinuz"),
            initrds: vec![place("disk/arch/initrd.img")],
            words: vec!["root=/dev/nbd0".to_owned(), "quiet".to_owned()],
        }
    }

    #[test]
    fn an_entry_loads_kernel_and_initramfs_from_the_server_that_is_meant() {
        let menu = Menu {
            entries: vec![entry()],
            timeout: Duration::from_secs(5),
            serial: None,
        };
        assert_eq!(
            menu.to_config(),
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
        let config = menu.to_config();
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
