//! What a client writes behind the method: a path in the form of URIs.

use crate::tftp::name::{BadName, path_of};

/// The path that is meant, in the form of [`path_of`], by the path of a URI.
///
/// Percent-encoded bytes are decoded first, so an encoded slash parts names and an encoded `..`
/// leads nowhere, like plain ones.
///
/// # Errors
/// [`BadName`]; a byte that is in no name, and a percent sign without its two digits, among them.
pub fn path_in(target: &str) -> Result<String, BadName> {
    let name = decoded(target.as_bytes()).ok_or(BadName::NotText)?;
    // A name by TFTP may have junk behind it. Here it would be a way to have two names.
    if name
        .iter()
        .any(|&byte| matches!(byte, ..b' ' | 0x7f | 0xff))
    {
        return Err(BadName::NotText);
    }
    path_of(&name)
}

/// RFC 3986, section 2.1: "percent-encoded octet".
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = text.iter();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(&byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => digit(*bytes.next()?)? << 4 | digit(*bytes.next()?)?,
            byte => byte,
        });
    }
    Some(decoded)
}

fn digit(byte: u8) -> Option<u8> {
    let value = char::from(byte).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded() {
        for (target, path) in [
            ("/boot/grub/core.efi", "boot/grub/core.efi"),
            ("//boot//a%20b", "boot/a b"),
            ("/a%2Bb+c", "a+b+c"),
            ("/%62oot%2fgrub", "boot/grub"),
            ("/%C3%A4", "\u{e4}"),
            ("/100%2525", "100%25"),
        ] {
            assert_eq!(path_in(target).as_deref(), Ok(path), "{target}");
        }
    }

    #[test]
    fn no_spelling_leads_upwards() {
        for target in [
            "/../x",
            "/a/../../x",
            "/%2e%2e/x",
            "/.%2E/x",
            "/a%2f..%2fx",
            "/..%5cx",
        ] {
            assert_eq!(path_in(target), Err(BadName::Upwards), "{target}");
        }
    }

    #[test]
    fn what_is_in_no_name_is_refused() {
        for target in [
            "/a%00", "/a%0ab", "/%ff", "/%7f", "/%", "/%1", "/%zz", "/%+1", "/a%ff",
        ] {
            assert!(path_in(target).is_err(), "{target}");
        }
        assert_eq!(path_in("/"), Err(BadName::Empty));
    }
}
