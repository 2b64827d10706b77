//! Menus as PXELINUX of the Syslinux project reads them.
//!
//! Invariant: a line ends what it says, and there are no quotes: what could end a line or a list is
//! refused, or shown as a space where it is a title.

use super::menu::{Entry, Format, Menu, Place, Serial, Transport, Unquotable, put, shown};

/// The menu as a file of `pxelinux.cfg/`.
///
/// # Errors
/// Something in it has no form in such a file.
pub fn config(menu: &Menu) -> Result<String, Unquotable> {
    let mut out = String::new();
    // Syslinux, "SERIAL": "the SERIAL directive must be the first directive in the file".
    if let Some(Serial { unit, speed }) = menu.serial {
        put(&mut out, format_args!("SERIAL {unit} {speed}"));
    }
    put(
        &mut out,
        format_args!("# Made by cowherd for this machine."),
    );
    if menu.is_shown() {
        for (number, entry) in menu.entries.iter().enumerate() {
            let title = title(&entry.title)?;
            put(&mut out, format_args!("SAY entry{number}: {title}"));
        }
        put(&mut out, format_args!("PROMPT 1"));
        let tenths = menu.timeout.as_millis() / 100;
        put(&mut out, format_args!("TIMEOUT {tenths}"));
    } else {
        put(&mut out, format_args!("PROMPT 0"));
    }
    if !menu.entries.is_empty() {
        put(&mut out, format_args!("DEFAULT entry{}", menu.default));
    }
    for (number, entry) in menu.entries.iter().enumerate() {
        put_entry(&mut out, entry, number)?;
    }
    Ok(out)
}

fn put_entry(out: &mut String, entry: &Entry, number: usize) -> Result<(), Unquotable> {
    put(out, format_args!("LABEL entry{number}"));
    put(out, format_args!("  MENU LABEL {}", title(&entry.title)?));
    put(out, format_args!("  LINUX {}", place(&entry.kernel)?));
    if !entry.initrds.is_empty() {
        let initrds = entry.initrds.iter().map(place);
        let initrds = initrds.collect::<Result<Vec<_>, _>>()?;
        put(out, format_args!("  INITRD {}", initrds.join(",")));
    }
    // "APPEND -" is how to say that there is nothing to append.
    if !entry.words.is_empty() {
        put(out, format_args!("  APPEND {}", words(&entry.words)?));
    }
    Ok(())
}

/// A file with its server. By HTTP it takes lpxelinux.0.
pub(super) fn place(place: &Place) -> Result<String, Unquotable> {
    let path = &place.path;
    if path.contains(|c: char| c.is_whitespace() || c.is_control() || c == ',') {
        return Err(unquotable(path, "a path has no spaces and no commas"));
    }
    Ok(match place.transport {
        Transport::Tftp => format!("{}::{path}", place.server),
        Transport::Http => format!("http://{}/{path}", place.server),
    })
}

pub(super) fn title(text: &str) -> Result<String, Unquotable> {
    match shown(text) {
        title if title.trim().is_empty() => Err(unquotable(text, "a title has letters")),
        title if title.contains('^') => Err(unquotable(text, "^ makes the next letter a key")),
        title => Ok(title.trim().to_owned()),
    }
}

/// A command line.
pub(super) fn words(words: &[String]) -> Result<String, Unquotable> {
    let words: Vec<_> = words
        .iter()
        .map(|text| word(text))
        .collect::<Result<_, _>>()?;
    Ok(words.join(" "))
}

fn word(text: &str) -> Result<&str, Unquotable> {
    match text {
        "" | "-" => Err(unquotable(text, "it would be no word")),
        text if text.contains(|c: char| c.is_whitespace() || c.is_control()) => {
            Err(unquotable(text, "a word has no spaces"))
        }
        text => Ok(text),
    }
}

fn unquotable(text: &str, why: &'static str) -> Unquotable {
    Unquotable::new(Format::Pxelinux, text, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::menu::tests::two_entries;

    #[test]
    fn a_config_offers_the_entries_and_boots_the_default() {
        let menu = Menu {
            serial: Some(Serial {
                unit: 1,
                speed: 9600,
            }),
            ..two_entries()
        };
        assert_eq!(
            config(&menu).unwrap(),
            "SERIAL 1 9600
# Made by cowherd for this machine.
SAY entry0: Arch Linux
SAY entry1: it's old
PROMPT 1
TIMEOUT 50
DEFAULT entry1
LABEL entry0
  MENU LABEL Arch Linux
  LINUX 10.77.0.1::disk/arch+2/kernel
  INITRD 10.77.0.1::disk/arch+2/initrd0,10.77.0.1::disk/arch+2/initrd1
  APPEND root=/dev/nbd0 quiet
LABEL entry1
  MENU LABEL it's old
  LINUX 10.77.0.1::disk/arch+1/kernel
  APPEND root=/dev/nbd0
"
        );
    }

    #[test]
    fn what_has_no_form_in_a_config_is_refused() {
        for text in ["a b", "", "-", "a\nLABEL b"] {
            let mut menu = two_entries();
            menu.entries[0].words = vec![text.to_owned()];
            assert!(config(&menu).is_err(), "{text:?}");
        }
        for text in ["", " \n", "^Arch"] {
            let mut menu = two_entries();
            menu.entries[0].title = text.to_owned();
            assert!(config(&menu).is_err(), "{text:?}");
        }
        let mut menu = two_entries();
        menu.entries[0].initrds[0].path = "a,b".to_owned();
        assert!(config(&menu).is_err());
    }
}
