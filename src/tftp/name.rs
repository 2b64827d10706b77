//! Names of files, as boot loaders write them.
//!
//! Invariants: a path has no empty part, no `.`, no `..` and no NUL, and does not begin with `/`:
//! so it leads nowhere but below the directory it is looked up in.

use thiserror::Error;

/// Why a name is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[allow(missing_docs, reason = "each message is its variant's description")]
pub enum BadName {
    #[error("the name is empty")]
    Empty,
    #[error("the name has a part `..`")]
    Upwards,
    #[error("the name is not UTF-8")]
    NotText,
}

/// The path that a client means: `/boot//grub\\core.0` is `boot/grub/core.0`.
///
/// Bytes behind a name that no name has are left out: some firmware sends what happened to be
/// behind it in memory.
///
/// # Errors
/// [`BadName`].
pub fn path_of(name: &[u8]) -> Result<String, BadName> {
    let junk = |&byte: &u8| byte == 0xff || byte < b' ';
    let end = name.iter().position(junk).unwrap_or(name.len());
    let text = name.get(..end).unwrap_or_default();
    let text = std::str::from_utf8(text).map_err(|_| BadName::NotText)?;
    let parts = text
        .split(['/', '\\'])
        .filter(|part| !matches!(*part, "" | "."));
    let parts: Vec<&str> = parts.collect();
    match parts.as_slice() {
        [] => Err(BadName::Empty),
        parts if parts.contains(&"..") => Err(BadName::Upwards),
        parts => Ok(parts.join("/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_of_every_kind_and_number_part_a_path() {
        for name in [
            "boot/grub",
            "/boot/grub",
            "//boot//grub/",
            "\\boot\\grub",
            "./boot/./grub",
        ] {
            assert_eq!(
                path_of(name.as_bytes()).as_deref(),
                Ok("boot/grub"),
                "{name}"
            );
        }
    }

    #[test]
    fn no_path_leads_upwards() {
        for name in [
            "..",
            "../etc/passwd",
            "boot/../../etc",
            "boot\\..\\x",
            "/..",
        ] {
            assert_eq!(path_of(name.as_bytes()), Err(BadName::Upwards), "{name}");
        }
        assert_eq!(path_of(b"..a/b..").as_deref(), Ok("..a/b.."));
    }

    #[test]
    fn junk_behind_a_name_is_left_out() {
        assert_eq!(
            path_of(b"grubx64.efi\xff\xff").as_deref(),
            Ok("grubx64.efi")
        );
        assert_eq!(
            path_of(b"revocations.efi\x01\x02").as_deref(),
            Ok("revocations.efi")
        );
    }

    #[test]
    fn a_name_without_a_part_is_none() {
        for name in [&b""[..], b"/", b"\xff", b"."] {
            assert_eq!(path_of(name), Err(BadName::Empty));
        }
        assert_eq!(path_of(b"\xc3("), Err(BadName::NotText));
    }
}
