//! Files by TFTP to real clients, through a network that loses, doubles and reorders datagrams.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use support::{Odds, Relay, TftpServer, Tool, require};

/// Sizes at which blocks end, or nearly do.
const SMALL: [usize; 5] = [0, 1, 511, 512, 513];

/// Sizes of an initramfs. The second is of more than 65535 blocks of 1024 bytes or fewer.
const LARGE: [usize; 2] = [32 << 20, 80 << 20];

/// Small files have few packets, so many of these must meet a fate.
const VERY_BAD: Odds = Odds {
    lost: 1000,
    twice: 1500,
    late: 1500,
    spares_options: false,
};

/// A large file meets each fate some dozens of times.
const BAD: Odds = Odds {
    lost: 4,
    twice: 20,
    late: 20,
    spares_options: false,
};

/// Fetches files of sizes with a client, which is told server, port, name and target.
fn fetches(name: &str, sizes: &[usize], odds: Odds, client: impl Fn([&str; 4]) -> Tool) {
    if require(&[name]) {
        let server = TftpServer::new(sizes);
        let relay = Relay::to(server.at, odds, name.len() as u64);
        let port = relay.at.port().to_string();
        server.fetches(sizes, |name, target| {
            client(["127.0.0.1", &port, name, target])
        });
        let tally = relay.end();
        eprintln!("{name}: {tally:?}");
        let fates = [tally.lost, tally.twice, tally.late];
        assert!(fates.iter().all(|met| *met > 0), "{tally:?}");
    }
}

fn tftp_hpa([host, port, name, target]: [&str; 4]) -> Tool {
    Tool::new("tftp")
        .args(["-m", "binary", host, port, "-c"])
        .args(["get", name, target])
}

#[test]
fn tftp_hpa_gets_files_whole() {
    fetches("tftp", &SMALL, VERY_BAD, tftp_hpa);
    fetches("tftp", &LARGE, BAD, tftp_hpa);
}

/// It takes a second OACK for the end of everything, whoever sent it.
const fn fit_for_atftp(odds: Odds) -> Odds {
    Odds {
        spares_options: true,
        ..odds
    }
}

fn atftp(options: &[&str], [host, port, name, target]: [&str; 4]) -> Tool {
    let options = options.iter().flat_map(|option| ["--option", option]);
    Tool::new("atftp")
        .args(options)
        .args(["-g", "-r", name, "-l", target, host, port])
}

#[test]
fn atftp_gets_files_whole() {
    let client = |all: [&str; 4]| atftp(&["blksize 1024", "tsize 0"], all);
    fetches("atftp", &SMALL, fit_for_atftp(VERY_BAD), client);
    fetches("atftp", &LARGE, fit_for_atftp(BAD), client);
}

#[test]
fn atftp_gets_files_whole_in_windows() {
    let client = |all: [&str; 4]| atftp(&["blksize 1468", "windowsize 16"], all);
    fetches("atftp", &SMALL, fit_for_atftp(VERY_BAD), client);
    fetches("atftp", &LARGE, fit_for_atftp(BAD), client);
}

fn curl(option: [&str; 2], [host, port, name, target]: [&str; 4]) -> Tool {
    let uri = format!("tftp://{host}:{port}/{name}");
    Tool::new("curl")
        .args(["--silent", "--show-error"])
        .args(option)
        .args(["-o", target, &uri])
}

#[test]
fn curl_gets_files_whole() {
    // It takes no empty file: "TFTP: no data".
    fetches("curl", &SMALL[1..], VERY_BAD, |all| {
        curl(["--tftp-blksize", "1428"], all)
    });
    // With options it wants to be asked again after six seconds, and not before.
    fetches("curl", &LARGE, BAD, |all| {
        curl(["--tftp-no-options", "--globoff"], all)
    });
}

fn busybox([host, port, name, target]: [&str; 4]) -> Tool {
    Tool::new("busybox")
        .args(["tftp", "-g", "-b", "1024", "-r", name, "-l", target])
        .args([host, port])
}

#[test]
fn busybox_gets_files_whole() {
    fetches("busybox", &SMALL, VERY_BAD, busybox);
    fetches("busybox", &LARGE, BAD, busybox);
}
