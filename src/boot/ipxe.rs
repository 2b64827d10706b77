//! Menus as scripts of iPXE.
//!
//! Invariant: iPXE takes a line apart at its spaces and has no quotes, so that a text that would be
//! a command, a comment or a variable is refused. Nothing is replaced in words and paths.

use std::net::Ipv4Addr;

use super::menu::{Entry, Format, Menu, Place, Unquotable, put, shown};

/// By this iPXE knows a script.
const FIRST_LINE: &str = "#!ipxe\n";

/// The menu as a script.
///
/// # Errors
/// Something in it has no form in a script.
pub fn script(menu: &Menu) -> Result<String, Unquotable> {
    let mut out = format!("{FIRST_LINE}# Made by cowherd for this machine.\n");
    let default = menu.default;
    if menu.is_shown() && !menu.entries.is_empty() {
        put(&mut out, format_args!("menu Boot"));
        for (number, entry) in menu.entries.iter().enumerate() {
            let title = title(&entry.title)?;
            put(&mut out, format_args!("item entry{number} {title}"));
        }
        let millis = menu.timeout.as_millis();
        let choose = format!("choose --default entry{default} --timeout {millis} chosen");
        // iPXE may be built without menus; then the default is booted.
        put(
            &mut out,
            format_args!("{choose} && goto ${{chosen}} || goto entry{default}"),
        );
    } else if !menu.entries.is_empty() {
        put(&mut out, format_args!("goto entry{default}"));
    }
    for (number, entry) in menu.entries.iter().enumerate() {
        put_entry(&mut out, entry, number)?;
    }
    Ok(out)
}

/// A script that first looks for one of the machine's own, by its network card, and goes on where
/// there is none.
#[must_use]
pub fn with_dispatch(server: Ipv4Addr, script: &str) -> String {
    let rest = script.strip_prefix(FIRST_LINE).unwrap_or(script);
    format!("{FIRST_LINE}chain tftp://{server}/ipxe/01-${{netX/mac:hexhyp}}.ipxe ||\n{rest}")
}

fn put_entry(out: &mut String, entry: &Entry, number: usize) -> Result<(), Unquotable> {
    put(out, format_args!(":entry{number}"));
    // What an entry has loaded that failed would be in the way of the next.
    put(out, format_args!("imgfree"));
    let mut line = format!("kernel {}", place(&entry.kernel)?);
    // EFI stubs find an initramfs by this name; a BIOS has no use for it.
    for nth in 0..entry.initrds.len() {
        line.push_str(&format!(" initrd=initrd{nth}"));
    }
    if !entry.words.is_empty() {
        line.push(' ');
        line.push_str(&words(&entry.words)?);
    }
    put(out, format_args!("{line}"));
    for (nth, initrd) in entry.initrds.iter().enumerate() {
        let initrd = place(initrd)?;
        put(out, format_args!("initrd --name initrd{nth} {initrd}"));
    }
    put(out, format_args!("boot"));
    Ok(())
}

/// A file as a URI, in which nothing stands for something else.
pub(super) fn place(place: &Place) -> Result<String, Unquotable> {
    let scheme = place.transport.name();
    let strange = |c: char| !(c.is_ascii_alphanumeric() || "-._~+@/,=:".contains(c));
    match place.path.contains(strange) {
        true => Err(unquotable(
            &place.path,
            "it has characters that mean something in a URI",
        )),
        false => Ok(format!("{scheme}://{}/{}", place.server, place.path)),
    }
}

pub(super) fn title(text: &str) -> Result<String, Unquotable> {
    let title = shown(text);
    for text in title.split(' ').filter(|word| !word.is_empty()) {
        word(text)?;
    }
    match title.trim().is_empty() {
        true => Err(unquotable(text, "a title has letters")),
        false => Ok(title),
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

/// One word of a line.
fn word(text: &str) -> Result<&str, Unquotable> {
    let why = if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        "a word is not empty, and has no spaces"
    } else if text.starts_with('#') {
        "it would begin a comment"
    } else if ["||", "&&", ";"].contains(&text) {
        "it would end the command"
    } else if text.contains("${") {
        "it would be a variable"
    } else if text.contains('\\') {
        "it may quote what is behind it"
    } else {
        return Ok(text);
    };
    Err(unquotable(text, why))
}

fn unquotable(text: &str, why: &'static str) -> Unquotable {
    Unquotable::new(Format::Ipxe, text, why)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::boot::menu::tests::two_entries;

    #[test]
    fn a_script_offers_the_entries_and_boots_the_default() {
        assert_eq!(
            script(&two_entries()).unwrap(),
            "#!ipxe
# Made by cowherd for this machine.
menu Boot
item entry0 Arch Linux
item entry1 it's old
choose --default entry1 --timeout 5000 chosen && goto ${chosen} || goto entry1
:entry0
imgfree
kernel tftp://10.77.0.1/disk/arch+2/kernel initrd=initrd0 initrd=initrd1 root=/dev/nbd0 quiet
initrd --name initrd0 tftp://10.77.0.1/disk/arch+2/initrd0
initrd --name initrd1 tftp://10.77.0.1/disk/arch+2/initrd1
boot
:entry1
imgfree
kernel tftp://10.77.0.1/disk/arch+1/kernel root=/dev/nbd0
boot
"
        );
    }

    #[test]
    fn without_time_to_choose_the_default_is_booted_at_once() {
        let menu = Menu {
            timeout: Duration::ZERO,
            ..two_entries()
        };
        let script = script(&menu).unwrap();
        assert_eq!(script.lines().nth(2), Some("goto entry1"));
        assert!(!script.contains("choose"));
    }

    #[test]
    fn what_has_no_form_in_a_script_is_refused() {
        for text in [
            "a b",
            "",
            "#a",
            "||",
            "&&",
            ";",
            "${net0/mac}",
            "a\nb",
            "\\",
        ] {
            let mut menu = two_entries();
            menu.entries[0].words = vec![text.to_owned()];
            assert!(script(&menu).is_err(), "{text:?}");
        }
        for text in ["", "a || reboot", "a # b", "${a}", "\n"] {
            let mut menu = two_entries();
            menu.entries[0].title = text.to_owned();
            assert!(script(&menu).is_err(), "{text:?}");
        }
        let mut menu = two_entries();
        menu.entries[0].kernel.path = "a%20b".to_owned();
        assert!(script(&menu).is_err());
    }
}
