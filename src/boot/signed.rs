//! shim and the GRUB behind it, as Debian and Ubuntu have them signed for Secure Boot.
//!
//! They can't be made here, and what is in them can't be changed: this GRUB looks for its menu at
//! `grub/grub.cfg` on the server that gave it its address.

use std::io;
use std::path::Path;

use super::files::{Content, Files};

/// What is asked for, and where packages of a host have it.
const SIGNED: &[(&str, &str)] = &[
    // shim-signed.
    ("grub/shimx64.efi", "usr/lib/shim/shimx64.efi.signed"),
    ("grub/shimaa64.efi", "usr/lib/shim/shimaa64.efi.signed"),
    ("grub/shimia32.efi", "usr/lib/shim/shimia32.efi.signed"),
    // What shim loads to let people enrol keys, from where it was loaded itself.
    ("grub/mmx64.efi", "usr/lib/shim/mmx64.efi.signed"),
    ("grub/mmaa64.efi", "usr/lib/shim/mmaa64.efi.signed"),
    ("grub/mmia32.efi", "usr/lib/shim/mmia32.efi.signed"),
    // grub-efi-amd64-signed and its like.
    (
        "grub/grubx64.efi",
        "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed",
    ),
    (
        "grub/grubaa64.efi",
        "usr/lib/grub/arm64-efi-signed/grubnetaa64.efi.signed",
    ),
    (
        "grub/grubia32.efi",
        "usr/lib/grub/i386-efi-signed/grubnetia32.efi.signed",
    ),
];

/// Whether a signed program is asked for at `path`.
#[must_use]
pub fn is_signed(path: &str) -> bool {
    all().any(|asked| asked == path)
}

/// The files of a disk that a machine needs which is given the one asked for at `path`: that one
/// first, then shim and the GRUB behind it, which must be of one maker.
#[must_use]
pub fn in_disk(path: &str) -> Option<[&'static str; 3]> {
    let file = |asked: &str| {
        let found = SIGNED.iter().find(|(of, _)| *of == asked);
        found.map(|(_, file)| *file)
    };
    let end = path.strip_prefix("grub/")?;
    let end = ["shim", "grub", "mm"]
        .iter()
        .find_map(|stem| end.strip_prefix(stem))?;
    let of = |stem: &str| file(&format!("grub/{stem}{end}"));
    Some([file(path)?, of("shim")?, of("grub")?])
}

/// Every path that a signed program may be asked for at.
pub fn all() -> impl Iterator<Item = &'static str> {
    SIGNED.iter().map(|(asked, _)| *asked)
}

/// Every path that this host has a signed program for.
#[must_use]
pub fn paths() -> Vec<&'static str> {
    all()
        .filter(|path| matches!(open(path), Ok(Some(_))))
        .collect()
}

/// Opens the signed program at `path`. `None` where this host has none.
///
/// This asks a disk, and may wait for it.
///
/// # Errors
/// It is there and can't be read.
pub fn open(path: &str) -> io::Result<Option<Content>> {
    open_below(Path::new("/"), path)
}

fn open_below(root: &Path, path: &str) -> io::Result<Option<Content>> {
    match SIGNED.iter().find(|(asked, _)| *asked == path) {
        Some((_, file)) => Files::below(root)?.open(file),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::boot::ARCHITECTURES;

    #[test]
    fn every_shim_of_dhcp_is_found_and_so_is_what_it_loads() {
        for architecture in ARCHITECTURES {
            let Some(shim) = architecture.platform.shim() else {
                continue;
            };
            assert!(is_signed(shim), "{shim}");
            for beside in ["grub", "mm"] {
                let path = shim.replace("grub/shim", &format!("grub/{beside}"));
                assert!(is_signed(&path), "{path}");
            }
        }
    }

    #[test]
    fn shim_and_grub_of_a_disk_belong_together() {
        let shim = "usr/lib/shim/shimx64.efi.signed";
        let grub = "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed";
        assert_eq!(in_disk("grub/grubx64.efi"), Some([grub, shim, grub]));
        let keys = "usr/lib/shim/mmx64.efi.signed";
        assert_eq!(in_disk("grub/mmx64.efi"), Some([keys, shim, grub]));
        assert_eq!(in_disk("grub/grub.cfg"), None);
        assert!(SIGNED.iter().all(|(path, _)| in_disk(path).is_some()));
    }

    #[test]
    fn nothing_else_of_the_host_is_served() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("usr/lib/shim");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("shimx64.efi.signed"), "shim").unwrap();
        let open = |path| open_below(home.path(), path).unwrap();
        assert_eq!(open("grub/shimx64.efi").unwrap().whole().unwrap(), b"shim");
        for path in [
            "grub/shimaa64.efi",
            "usr/lib/shim/shimx64.efi.signed",
            "grub/x",
        ] {
            assert!(open(path).is_none(), "{path}");
        }
    }
}
