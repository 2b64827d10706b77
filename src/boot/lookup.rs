//! By which names boot loaders ask for their menus.
//!
//! GRUB and PXELINUX ask by the UUID of the machine, by its network card, by its address, by ever
//! shorter beginnings of that, and then for the menu of all. Debian's signed GRUB and those with an
//! HTTP prefix ask for the last one only.

use std::net::Ipv4Addr;

use super::menu::Format;
use crate::mac::MacAddress;

/// Where GRUB looks for its menu, by the prefixes of grub-mknetdir and of Debian's signed images.
const GRUB: [&str; 2] = ["boot/grub/grub.cfg", "grub/grub.cfg"];

/// The script of iPXE, which looks for none by itself.
const IPXE: &str = "boot.ipxe";

/// The folder of PXELINUX's menus, beside its image.
const PXELINUX: &str = "pxelinux.cfg";

/// A menu that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// By which loader.
    pub format: Format,
    /// Whose menu it is to be.
    pub key: Key,
    /// What all names begin with.
    stem: String,
}

/// Whose menu is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// That of the machine with this UUID, its bytes in the order of DHCP option 97.
    Uuid([u8; 16]),
    /// That of the machine with this network card.
    Card(MacAddress),
    /// That of the machine at this address.
    Address(Ipv4Addr),
    /// That of the machines whose addresses begin with so many hexadecimal digits of this one.
    Near(Ipv4Addr, u8),
    /// That of whoever asks.
    Any,
}

impl Lookup {
    /// What the file at `path` is asked for as; `None` where it is no menu.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        let found = |format, stem: &str, key| {
            let stem = stem.to_owned();
            Some(Self { format, key, stem })
        };
        if path == IPXE {
            return found(Format::Ipxe, IPXE, Key::Any);
        }
        for stem in GRUB {
            match path.strip_prefix(stem) {
                Some("") => return found(Format::Grub, stem, Key::Any),
                Some(rest) => return found(Format::Grub, stem, key_of(rest.strip_prefix('-')?)?),
                None => {}
            }
        }
        let (stem, name) = path.rsplit_once('/')?;
        match (stem.rsplit('/').next(), name) {
            (Some(PXELINUX), "default") => found(Format::Pxelinux, stem, Key::Any),
            (Some(PXELINUX), name) => found(Format::Pxelinux, stem, key_of(name)?),
            _ => None,
        }
    }

    /// The names that a loader at `address` asks for later, where this one is not there.
    #[must_use]
    pub fn later(&self, address: Ipv4Addr) -> Vec<String> {
        let mut keys = vec![Key::Address(address)];
        keys.extend((1..8).rev().map(|digits| Key::Near(address, digits)));
        keys.push(Key::Any);
        match self.key {
            Key::Uuid(_) | Key::Card(_) => {}
            Key::Address(_) => keys.retain(|key| !matches!(key, Key::Address(_))),
            Key::Near(_, above) => keys.retain(|key| match key {
                Key::Near(_, digits) => *digits < above,
                key => *key == Key::Any,
            }),
            Key::Any => keys.clear(),
        }
        keys.into_iter().map(|key| self.named(key)).collect()
    }

    fn named(&self, key: Key) -> String {
        name(self.format, &self.stem, key)
    }
}

/// Where the menu of `key` is looked for by a loader of this format, in every place it may.
#[must_use]
pub fn paths(format: Format, key: Key) -> Vec<String> {
    let stems: &[&str] = match format {
        Format::Grub => &GRUB,
        Format::Ipxe => &[IPXE],
        Format::Pxelinux => &[PXELINUX],
    };
    stems.iter().map(|stem| name(format, stem, key)).collect()
}

fn name(format: Format, stem: &str, key: Key) -> String {
    let key = match key {
        Key::Uuid(uuid) => spelled(uuid),
        Key::Card(mac) => format!("01-{}", mac.name()),
        Key::Address(address) => format!("{:08X}", address.to_bits()),
        Key::Near(address, digits) => {
            let mut hex = format!("{:08X}", address.to_bits());
            hex.truncate(digits.into());
            hex
        }
        Key::Any => match format {
            Format::Grub | Format::Ipxe => return stem.to_owned(),
            Format::Pxelinux => "default".to_owned(),
        },
    };
    match format {
        Format::Grub => format!("{stem}-{key}"),
        Format::Ipxe => format!("ipxe/{key}.ipxe"),
        Format::Pxelinux => format!("{stem}/{key}"),
    }
}

fn spelled(uuid: [u8; 16]) -> String {
    let mut text = String::new();
    for (nth, byte) in uuid.iter().enumerate() {
        if matches!(nth, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn key_of(name: &str) -> Option<Key> {
    if let Some(mac) = name.strip_prefix("01-") {
        return mac.parse().ok().map(Key::Card);
    }
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        return None;
    }
    match u8::try_from(name.len()) {
        Ok(digits @ 1..=8) => {
            let bits = u32::from_str_radix(name, 16).ok()?;
            let address = Ipv4Addr::from_bits(bits << (4 * (8 - u32::from(digits))));
            Some(match digits {
                8 => Key::Address(address),
                digits => Key::Near(address, digits),
            })
        }
        Ok(36) => {
            let number = u128::from_str_radix(&name.replace('-', ""), 16).ok()?;
            let uuid = number.to_be_bytes();
            (spelled(uuid) == name.to_ascii_lowercase()).then_some(Key::Uuid(uuid))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 16);

    fn key(path: &str) -> Option<Key> {
        Lookup::of(path).map(|lookup| lookup.key)
    }

    fn uuid() -> [u8; 16] {
        std::array::from_fn(|nth| u8::try_from(nth).unwrap() * 16)
    }

    fn card() -> MacAddress {
        "52:54:00:77:00:10".parse().unwrap()
    }

    #[test]
    fn grub_asks_for_its_menu_by_what_it_knows_of_the_machine() {
        for (name, expected) in [
            ("-00102030-4050-6070-8090-a0b0c0d0e0f0", Key::Uuid(uuid())),
            ("-01-52-54-00-77-00-10", Key::Card(card())),
            ("-0A4D0010", Key::Address(ADDRESS)),
            ("-0A4D", Key::Near([10, 77, 0, 0].into(), 4)),
            ("-0", Key::Near([0, 0, 0, 0].into(), 1)),
            ("", Key::Any),
        ] {
            for stem in GRUB {
                let path = format!("{stem}{name}");
                assert_eq!(key(&path), Some(expected), "{path}");
                assert_eq!(Lookup::of(&path).unwrap().format, Format::Grub);
            }
        }
    }

    #[test]
    fn pxelinux_asks_in_its_folder_wherever_that_is() {
        for stem in ["pxelinux.cfg", "a/b/pxelinux.cfg"] {
            let at = |name: &str| key(&format!("{stem}/{name}"));
            assert_eq!(at("default"), Some(Key::Any));
            assert_eq!(at("0A4D0010"), Some(Key::Address(ADDRESS)));
            assert_eq!(at("01-52-54-00-77-00-10"), Some(Key::Card(card())));
            assert_eq!(at("graphics.conf"), None);
        }
    }

    #[test]
    fn what_is_no_menu_is_none() {
        for path in [
            "",
            "grub.cfg",
            "boot/grub/grub.cfg.bak",
            "boot/grub/grub.cfg-",
            "boot/grub/grub.cfg-x",
            "boot/grub/grub.cfg-0A4D00100",
            "boot/grub/grub.cfg-01-52-54-00-77-00",
            "boot/grub/grub.cfg-0010203-04050-6070-8090-a0b0c0d0e0f0",
            "boot/grub/i386-pc/grub.cfg",
            "default",
            "a/boot.ipxe",
        ] {
            assert_eq!(key(path), None, "{path}");
        }
    }

    #[test]
    fn a_name_and_its_key_are_the_same_thing() {
        for wanted in [
            Key::Uuid(uuid()),
            Key::Card(card()),
            Key::Address(ADDRESS),
            Key::Near([10, 0, 0, 0].into(), 2),
            Key::Any,
        ] {
            for path in [Format::Grub, Format::Pxelinux]
                .map(|format| paths(format, wanted))
                .concat()
            {
                assert_eq!(key(&path), Some(wanted), "{path}");
            }
        }
        assert_eq!(key(&paths(Format::Ipxe, Key::Any).concat()), Some(Key::Any));
    }

    /// The order that GRUB's documentation and PXELINUX's have.
    #[test]
    fn what_is_asked_for_later_is_known() {
        let later = |path: &str| Lookup::of(path).unwrap().later(ADDRESS);
        let of_card = later("grub/grub.cfg-01-52-54-00-77-00-10");
        assert_eq!(of_card.len(), 9);
        assert_eq!(of_card[0], "grub/grub.cfg-0A4D0010");
        assert_eq!(of_card[1], "grub/grub.cfg-0A4D001");
        assert_eq!(of_card[8], "grub/grub.cfg");
        assert_eq!(later("pxelinux.cfg/0A4D0010")[0], "pxelinux.cfg/0A4D001");
        assert_eq!(
            later("pxelinux.cfg/0A"),
            ["pxelinux.cfg/0", "pxelinux.cfg/default"]
        );
        assert!(later("grub/grub.cfg").is_empty());
        assert!(later("boot.ipxe").is_empty());
    }
}
