//! Foreign clients that look for holes before they copy, and copy by what they are told.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use support::{Server, Setup, Tool, pseudo_random, require, skipped};

const MIB: u64 = 1 << 20;

/// An image of 64 MiB with noise in a few places.
fn sparse_file(path: &Path) {
    let file = File::create(path).expect("a new file");
    file.set_len(64 * MIB).expect("a sparse file");
    for (seed, at) in [(1, 0), (2, 5 * MIB), (3, 40 * MIB)] {
        file.write_all_at(&pseudo_random(seed, 1 << 20), at)
            .expect("room for a little noise");
    }
}

fn serve() -> Server {
    let setup = Setup::new();
    let path = setup.file("disk.img");
    sparse_file(&path);
    setup.with_image(path).start()
}

fn same(left: &Path, right: &Path) {
    Tool::new("cmp").arg(left).arg(right).ok();
}

#[test]
fn nbdinfo_maps_the_holes_of_the_image_and_the_blocks_of_the_client() {
    if !require(&["nbdinfo", "qemu-io"]) {
        return;
    }
    let server = serve();
    let uri = server.uri("disk@a");
    Tool::new("qemu-io")
        .args([
            "-f",
            "raw",
            "-c",
            "write -P 7 20M 64k",
            "-c",
            "write -z 5M 64k",
            &uri,
        ])
        .ok();
    let words = |map: String| -> Vec<String> {
        let lines = map.lines();
        lines
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    };
    let map = Tool::new("nbdinfo").args(["--map", &uri]).ok();
    assert_eq!(
        words(map),
        [
            "0 1048576 0 data",
            "1048576 4259840 3 hole,zero",
            "5308416 983040 0 data",
            "6291456 14680064 3 hole,zero",
            "20971520 65536 0 data",
            "21037056 20905984 3 hole,zero",
            "41943040 1048576 0 data",
            "42991616 24117248 3 hole,zero",
        ]
    );
    let own = Tool::new("nbdinfo")
        .args(["--map=x-cowherd:overlay", &uri])
        .ok();
    assert_eq!(
        words(own),
        [
            "0 5242880 0",
            "5242880 65536 1",
            "5308416 15663104 0",
            "20971520 65536 1",
            "21037056 46071808 0",
        ]
    );
    let totals = Tool::new("nbdinfo").args(["--map", "--totals", &uri]).ok();
    assert!(totals.contains("hole,zero"), "{totals}");
}

#[test]
fn nbdinfo_is_told_of_contexts_and_of_replies_in_chunks() {
    if !require(&["nbdinfo"]) {
        return;
    }
    let server = serve();
    let uri = server.uri("disk@a");
    let plain = Tool::new("nbdinfo").arg(&uri).ok();
    assert!(plain.contains("using structured packets"), "{plain}");
    let list = Tool::new("nbdinfo")
        .args(["--list", "--json"])
        .arg(server.uri(""))
        .ok();
    for context in ["base:allocation", "x-cowherd:overlay"] {
        assert!(plain.contains(context), "{plain}");
        assert!(list.contains(context), "{list}");
    }
    for ability in ["df", "structured reply"] {
        let can = Tool::new("nbdinfo").args(["--can", ability, &uri]).run();
        assert_eq!(can.code, Some(0), "{ability}: {can}");
    }
}

#[test]
fn nbdcopy_reads_the_same_with_and_without_extents() {
    if !require(&["nbdcopy", "cmp"]) {
        return;
    }
    let server = serve();
    let uri = server.uri("disk@a");
    for (name, option) in [("with", "--sparse=4096"), ("without", "--no-extents")] {
        let out = server.setup().file(name);
        Tool::new("nbdcopy").args([option, &uri]).arg(&out).ok();
        same(&out, server.setup().image());
    }
    let space = |name| {
        let facts = std::fs::metadata(server.setup().file(name)).expect("a copy");
        facts.blocks() * 512
    };
    assert!(space("with") < 8 * MIB, "holes were copied as holes");
}

#[test]
fn nbdcopy_writes_the_same_with_and_without_extents() {
    if !require(&["nbdcopy", "cmp"]) {
        return;
    }
    let server = Setup::of_bytes(&pseudo_random(9, 64 << 20)).start();
    let source = server.setup().file("source.img");
    sparse_file(&source);
    for (client, option) in [("a", "--sparse=4096"), ("b", "--no-extents")] {
        let uri = server.uri(&format!("disk@{client}"));
        Tool::new("nbdcopy")
            .args([option, "--flush"])
            .arg(&source)
            .arg(&uri)
            .ok();
        let back = server.setup().file(client);
        Tool::new("nbdcopy").arg(&uri).arg(&back).ok();
        same(&back, &source);
    }
}

#[test]
fn qemu_img_maps_converts_and_compares() {
    if !require(&["qemu-img", "cmp"]) {
        return;
    }
    let server = serve();
    let uri = server.uri("disk@a");
    let map = Tool::new("qemu-img")
        .args(["map", "--output=json", "-f", "raw", &uri])
        .ok();
    for (start, length, data) in [(0, MIB, true), (MIB, 4 * MIB, false), (5 * MIB, MIB, true)] {
        let entry = format!("\"start\": {start}, \"length\": {length},");
        let line = map.lines().find(|line| line.contains(&entry));
        let line = line.unwrap_or_else(|| panic!("{entry} is missing in {map}"));
        assert!(line.contains(&format!("\"data\": {data}")), "{line}");
    }
    let out = server.setup().file("out.img");
    Tool::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "raw", "-W", "-m", "8", &uri])
        .arg(&out)
        .ok();
    same(&out, server.setup().image());
    let other = server.uri("disk@b");
    let source = server.setup().file("source.img");
    std::fs::write(&source, pseudo_random(12, 64 << 20)).expect("room for a source");
    Tool::new("qemu-img")
        .args(["convert", "-n", "-f", "raw", "-O", "raw", "-W", "-m", "8"])
        .arg(&source)
        .arg(&other)
        .ok();
    Tool::new("qemu-img")
        .args(["compare", "-f", "raw", "-F", "raw", &other])
        .arg(&source)
        .ok();
}

/// The first version of qemu that asks for extended headers.
const QEMU_WITH_EXTENDED_HEADERS: (u32, u32) = (8, 2);

fn qemu_version() -> (u32, u32) {
    let said = Tool::new("qemu-img").arg("--version").ok();
    let version = said.split_whitespace().nth(2).expect("a version");
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    (
        numbers.next().expect("a number"),
        numbers.next().unwrap_or(0),
    )
}

#[test]
fn qemu_agrees_on_extended_headers_and_writes_with_them() {
    if !require(&["qemu-img", "qemu-io"]) {
        return;
    }
    if qemu_version() < QEMU_WITH_EXTENDED_HEADERS {
        return skipped("a qemu that knows extended headers (8.2)");
    }
    let server = serve();
    let uri = server.uri("disk@a");
    let traced = Tool::new("qemu-io")
        .args(["--trace", "nbd_receive_option_reply", "-f", "raw"])
        .args(["-c", "write -P 7 20M 64k", "-c", "read -P 7 20M 64k", &uri])
        .run();
    assert_eq!(traced.code, Some(0), "{traced}");
    let granted = "option reply 11 (extended headers), type 1 (ack)";
    assert!(traced.stderr.contains(granted), "{traced}");
    assert!(!traced.stdout.contains("failed"), "{traced}");
    let support::nbd::Address::Tcp(at) = server.address() else {
        panic!("TCP was asked for");
    };
    // qemu can show any context, as if its lowest bit said that there are no data.
    let own = format!(
        "driver=nbd,server.type=inet,server.host={},server.port={},export=disk@a,\
         x-dirty-bitmap=x-cowherd:overlay",
        at.ip(),
        at.port()
    );
    let map = Tool::new("qemu-img")
        .args(["map", "--output=json", "--image-opts", &own])
        .ok();
    let entry = "\"start\": 20971520, \"length\": 65536,";
    let line = map.lines().find(|line| line.contains(entry));
    let line = line.unwrap_or_else(|| panic!("{entry} is missing in {map}"));
    assert!(line.contains("\"data\": false"), "{line}");
}

#[test]
fn nbdkit_as_a_proxy_passes_everything_through() {
    if !require(&["nbdkit", "nbdinfo", "nbdcopy", "cmp"]) {
        return;
    }
    let server = serve();
    let uri = server.uri("disk@a");
    let through = |run: &str| {
        Tool::new("nbdkit")
            .args(["-U", "-", "nbd", &format!("uri={uri}"), "--run", run])
            .ok()
    };
    let map = through("nbdinfo --map \"$uri\"");
    assert!(map.contains("hole,zero"), "{map}");
    let source = server.setup().file("source.img");
    sparse_file(&source);
    let back = server.setup().file("back.img");
    through(&format!("nbdcopy --flush {} \"$uri\"", source.display()));
    through(&format!("nbdcopy \"$uri\" {}", back.display()));
    same(&back, &source);
}

#[test]
fn a_sparse_disk_of_8_gib_goes_in_and_out_whole() {
    if !require(&["nbdkit", "nbdcopy"]) {
        return;
    }
    let setup = Setup::new();
    let path = setup.file("disk.img");
    let size = 8 << 30;
    let image = File::create(&path).expect("a new file");
    image.set_len(size).expect("a sparse file");
    // What must be covered by the copy, or the check of the contents on the way back would fail.
    image
        .write_all_at(&pseudo_random(4, 1 << 20), 3 << 30)
        .expect("room for a little noise");
    drop(image);
    let server = setup.with_image(path).start();
    let uri = server.uri("disk@a");
    let source = ["sparse-random", "8G", "seed=11", "percent=1"];
    Tool::new("nbdcopy")
        .args(["--flush", "--", "[", "nbdkit", "--exit-with-parent"])
        .args(source)
        .args(["]", &uri])
        .ok();
    // The plugin knows its contents, and refuses what is not the same.
    Tool::new("nbdcopy")
        .args(["--", &uri, "[", "nbdkit", "--exit-with-parent"])
        .args(source)
        .arg("]")
        .ok();
}
