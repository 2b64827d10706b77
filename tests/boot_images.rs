//! The boot images that are made of the host's GRUB, as firmware fetches them.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::net::SocketAddr;
use std::path::Path;

use support::{Server, TftpServer, Tool, assert_same, read_file, require, skipped, write_file};

const BIOS: &str = "boot/grub/i386-pc/core.0";
const UEFI: &str = "boot/grub/x86_64-efi/core.efi";

/// A server that has boot files, and what it said of TFTP.
struct Bench {
    server: Server,
    at: SocketAddr,
}

impl Bench {
    /// `None`, loudly, where the host has no GRUB.
    fn new() -> Option<Self> {
        let kinds = ["i386-pc", "x86_64-efi"].map(|kind| Path::new("/usr/lib/grub").join(kind));
        if let Some(missing) = kinds.iter().find(|kind| !kind.is_dir()) {
            assert!(std::env::var_os("CI").is_none(), "no {missing:?}");
            skipped(&format!("{}", missing.display()));
            return None;
        }
        if !require(&["grub-mkimage", "curl"]) {
            return None;
        }
        let TftpServer { server, at } = TftpServer::new(&[]);
        Some(Self { server, at })
    }

    fn curl(&self, path: &str, target: &str) -> Tool {
        let target = self.server.setup().file(target);
        let target = target.to_str().expect("a plain path");
        let from = format!("tftp://{}/{path}", self.at);
        Tool::new("curl").args(["--silent", "--show-error", "--output", target, &from])
    }

    fn fetch(&self, path: &str) -> Vec<u8> {
        self.curl(path, "fetched").ok();
        read_file(&self.server.setup().file("fetched"))
    }
}

fn holds(image: &[u8], text: &[u8]) -> bool {
    image.windows(text.len()).any(|bytes| bytes == text)
}

#[test]
fn the_image_of_uefi_asks_the_address_that_it_was_fetched_from() {
    let Some(bench) = Bench::new() else { return };
    let image = bench.fetch(UEFI);
    assert!(image.starts_with(b"MZ"));
    assert!(holds(&image, b"(tftp,127.0.0.1)/boot/grub\0"));
}

#[test]
fn the_image_of_a_bios_is_what_grub_mkimage_makes_for_its_address() {
    let Some(bench) = Bench::new() else { return };
    let image = bench.fetch(BIOS);
    // Its content is compressed. One of another address is as long, but not the same.
    let line = bench.server.wait_for_log(&["core.0 for 127.0.0.1"]);
    assert!(line.contains(&image.len().to_string()), "{line}");
    assert!(
        image.len() > 64 << 10 && image.len() < 480 << 10,
        "{}",
        image.len()
    );
}

#[test]
fn machines_that_ask_together_get_one_image_that_was_made_once() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let fetched: Vec<_> = (0..16).map(|number| format!("fetched-{number}")).collect();
    let tools: Vec<_> = fetched.iter().map(|name| bench.curl(UEFI, name)).collect();
    std::thread::scope(|scope| {
        for tool in tools {
            scope.spawn(|| tool.ok());
        }
    });
    let read = |name: &String| read_file(&bench.server.setup().file(name));
    let images: Vec<_> = fetched.iter().map(read).collect();
    assert!(images.iter().all(|image| *image == images[0]));
    assert_eq!(bench.server.logged_in_all(&["core.efi for 127.0.0.1"]), 1);
}

#[test]
fn modules_come_from_the_host_that_the_image_was_made_on() {
    let Some(bench) = Bench::new() else { return };
    for file in ["x86_64-efi/command.lst", "i386-pc/btrfs.mod"] {
        let host = read_file(&Path::new("/usr/lib/grub").join(file));
        assert_same(&bench.fetch(&format!("boot/grub/{file}")), &host, file);
    }
}

#[test]
fn an_image_of_the_root_goes_before_one_that_is_made() {
    let Some(bench) = Bench::new() else { return };
    let own = bench.server.setup().file("tree").join(BIOS);
    std::fs::create_dir_all(own.parent().expect("not the root")).expect("new folders");
    write_file(&own, b"my own");
    assert_same(&bench.fetch(BIOS), b"my own", BIOS);
}
