//! `cowherd-attach` on a real kernel: devices that outlive their server.
//!
//! `ATTACH_OUTAGES=1,60,...` gives the outages of the long test in seconds.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::net::TcpListener;
use std::thread::sleep;
use std::time::Duration;

use support::nbd::Address;
use support::{Guest, Server, Setup, Tool};

const MIB: usize = 1 << 20;

/// A server at an address that it keeps when it is started again.
fn server_with(bytes: usize) -> Server {
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = port.local_addr().expect("its address");
    drop(port);
    Setup::of_bytes(&vec![0; bytes])
        .with_listen_only(&address.to_string())
        .start()
}

fn port_of(server: &Server) -> u16 {
    match server.address() {
        Address::Tcp(address) => address.port(),
        Address::Unix(_) => unreachable!("it listens on TCP"),
    }
}

/// What every script begins with: the server is `$1`, errors are told.
fn script(server: &Server, rest: &str) -> String {
    let port = port_of(server);
    format!(
        "set -- 10.0.2.2:{port}\nfailed() {{ echo \"FAILED $*\"; dmesg | tail -n 30; }}\n{rest}\n"
    )
}

fn boot(server: &Server, programs: &[&str], rest: &str) -> Option<Guest> {
    let home = server.setup().file("guest");
    std::fs::create_dir(&home).expect("a folder");
    Guest::boot(&home, programs, &script(server, rest))
}

/// The last lines of a script whose device had no reason to fail a request.
const NO_ERRORS: &str = "
dmesg | grep -iE 'I/O error|critical|reset by|EXT4-fs error' && failed errors
echo FINISHED";

#[test]
fn a_device_is_attached_asked_about_and_detached() {
    let server = server_with(32 * MIB);
    let rest = "
cowherd-attach nbd0 disk@a $1 --json | sed 's/^/ATTACHED /'
[ $(cat /sys/block/nbd0/size) = 65536 ] || failed size
[ $(cat /sys/block/nbd0/backend) = disk+1@a ] || failed backend
tr '\\0' ' ' </proc/$(cat /sys/block/nbd0/pid)/cmdline | sed 's/^/CMDLINE /'
echo
grep -E 'VmLck|Threads' /proc/$(cat /sys/block/nbd0/pid)/status
cowherd-attach nbd0 disk@a $1 && failed 'it was attached twice'
mke2fs -q /dev/nbd0 || failed mkfs
mkdir /mnt
mount /dev/nbd0 /mnt || failed mount
echo moo >/mnt/cow
cowherd-attach nbd0 --detach 2>&1 | sed 's/^/DETACH /'
umount /mnt
cowherd-attach nbd0 --detach || failed detach
cowherd-attach --status nbd0 && failed 'it is still attached'
cowherd-attach nbd0 nothing $1 2>&1 | sed 's/^/REFUSED /'
cowherd-attach nbd0 disk@a 10.0.2.2:9 2>&1 | sed 's/^/NOBODY /'
cowherd-attach nbd1 disk@a $1 --connections 4 || failed connections
mount /dev/nbd1 /mnt || failed mount again
[ $(cat /mnt/cow) = moo ] || failed content
umount /mnt
cowherd-attach nbd1 --detach || failed detach again";
    let rest = format!("{rest}{NO_ERRORS}");
    let Some(mut guest) = boot(&server, &["mke2fs"], &rest) else {
        return;
    };
    let attached = guest.wait_for("ATTACHED ");
    for words in [
        "\"state\":\"attached\"",
        "\"connections\":1",
        "\"size\":33554432",
    ] {
        assert!(attached.contains(words), "{attached}");
    }
    // systemd lets a process with this name live through a shutdown.
    assert!(guest.wait_for("CMDLINE ").starts_with("@cowherd-attach "));
    assert!(!guest.wait_for("VmLck:").trim().starts_with("0 "));
    assert_eq!(guest.wait_for("Threads:").trim(), "1");
    assert!(
        guest
            .wait_for("DETACH ")
            .contains("in use: unmount it first")
    );
    assert!(
        guest
            .wait_for("REFUSED ")
            .contains("there is no image nothing")
    );
    assert!(guest.wait_for("NOBODY ").contains("nobody listens there"));
    guest.wait_for("FINISHED");
    guest.end();
}

/// Writes and verifies in rounds until a line is typed.
const ROUNDS: &str = "
(read line </dev/ttyS0; touch /tmp/stop) &
round=0
while [ ! -e /tmp/stop ]; do
    round=$((round + 1))
    fio --name=v --filename=/dev/nbd0 --direct=1 --fsync=64 --ioengine=libaio --iodepth=8 \\
        --rw=randwrite --bs=4k --size=6m --randseed=$round --do_verify=1 --verify=crc32c \\
        --verify_fatal=1 >/tmp/fio 2>&1 || { cat /tmp/fio; failed fio; break; }
    echo ROUND $round
done
cowherd-attach nbd0 --status --json | sed 's/^/STATUS /'
cowherd-attach nbd0 --detach || failed detach";

#[test]
fn a_device_that_is_not_there_can_not_be_detached_and_the_reason_is_told() {
    let tool = Tool::new(env!("CARGO_BIN_EXE_cowherd-attach"));
    let finished = tool.args(["nbd65000", "--detach"]).run();
    assert_eq!(finished.code, Some(1), "{finished}");
    let reasons = [
        "load the module with modprobe nbd",
        "nbd65000 is not attached",
    ];
    let is_told = reasons
        .iter()
        .any(|reason| finished.stderr.contains(reason));
    assert!(is_told, "{finished}");
}

/// Seconds that the server is away, each time.
fn outages() -> Vec<u64> {
    let asked = std::env::var("ATTACH_OUTAGES").ok();
    let asked = asked.map(|list| {
        list.split(',')
            .map(|word| word.parse().expect("a number"))
            .collect()
    });
    asked.unwrap_or_else(|| vec![1, 2, 1, 3, 1, 2, 5, 1, 1, 2])
}

/// Kills the server again and again while a guest writes; what the guest said at its end.
fn through_outages(options: &str) -> Option<String> {
    let mut server = server_with(32 * MIB);
    let attach = format!("cowherd-attach nbd0 disk@a $1 {options} || failed attach");
    let rest = format!("{attach}{ROUNDS}{NO_ERRORS}");
    let mut guest = boot(&server, &["fio"], &rest)?;
    guest.wait_for("ROUND ");
    for (nth, outage) in (1..).zip(outages()) {
        // Another moment of a round each time.
        sleep(Duration::from_millis(nth * 137));
        let setup = server.kill();
        sleep(Duration::from_secs(outage));
        server = setup.start();
        guest.wait_for("ROUND ");
    }
    guest.type_line("stop");
    let status = guest.wait_for("STATUS ");
    guest.wait_for("FINISHED");
    guest.end();
    Some(status)
}

#[test]
fn a_guest_outlives_ten_kills_of_its_server() {
    let Some(status) = through_outages("") else {
        return;
    };
    assert!(
        status.contains(&format!("\"outages\":{},", outages().len())),
        "{status}"
    );
    assert!(status.contains("\"state\":\"attached\""), "{status}");
}

#[test]
fn a_guest_with_several_connections_outlives_the_same() {
    let Some(status) = through_outages("--connections 3 --resend 5") else {
        return;
    };
    assert!(status.contains("\"alive\":3"), "{status}");
}

#[test]
fn a_server_is_found_where_it_has_moved_and_another_disk_is_not_taken_for_it() {
    let first = server_with(32 * MIB);
    let other = server_with(16 * MIB);
    let second = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let third = second.local_addr().expect("its address");
    drop(second);
    let rest = format!(
        "
cowherd-attach nbd0 disk@a $1 10.0.2.2:{} 10.0.2.2:{} || failed attach
echo moo | dd of=/dev/nbd0 bs=4096 conv=sync,fsync oflag=direct 2>/dev/null || failed write
echo WRITTEN
until cowherd-attach nbd0 --status | grep 'another disk'; do sleep 0.2; done
cowherd-attach nbd0 --status | sed 's/^/STATUS /'
[ $(dd if=/dev/nbd0 bs=4096 count=1 iflag=direct 2>/dev/null | head -n 1) = moo ] || failed read
cowherd-attach nbd0 --detach || failed detach{NO_ERRORS}",
        port_of(&other),
        third.port(),
    );
    let Some(mut guest) = boot(&first, &[], &rest) else {
        return;
    };
    guest.wait_for("WRITTEN");
    let setup = first.terminate();
    let status = guest.wait_for("STATUS ");
    assert!(
        status.contains("its size was 33554432 and is 16777216 now"),
        "{status}"
    );
    let _moved = setup.with_listen_only(&third.to_string()).start();
    guest.wait_for("FINISHED");
    guest.end();
}

#[test]
fn a_disk_that_was_reset_meanwhile_is_another_one() {
    let server = server_with(16 * MIB);
    let rest = "
cowherd-attach nbd0 disk@a $1 || failed attach
dd if=/dev/zero bs=4096 count=1 2>/dev/null | tr '\\0' m >/block
dd if=/block of=/dev/nbd0 bs=4096 oflag=direct conv=fsync 2>/dev/null || failed write
echo WRITTEN
until cowherd-attach nbd0 --status | grep 'another disk'; do sleep 0.2; done
cowherd-attach nbd0 --status | tr '\n' ' ' | sed 's/^/STATUS /'
echo
# Requests that were meant for the old disk wait for it.
dd if=/block of=/dev/nbd0 bs=4096 seek=1 oflag=direct conv=fsync 2>/tmp/late &
late=$!
until grep -q '^State:.D' /proc/$late/status; do sleep 0.1; done
echo WAITS
read line </dev/ttyS0
cowherd-attach nbd0 --detach &
patient=$!
read line </dev/ttyS0
cowherd-attach nbd0 --detach --force || failed detach
wait $patient && failed 'all was written, it says'
wait $late && failed 'it was written'
cowherd-attach nbd0 disk@a $1 || failed attach again
dd if=/dev/nbd0 bs=4096 count=2 iflag=direct 2>/dev/null | grep -q m && failed 'not reset'
cowherd-attach nbd0 --detach || failed detach again
echo FINISHED";
    let Some(mut guest) = boot(&server, &[], rest) else {
        return;
    };
    guest.wait_for("WRITTEN");
    let setup = server.terminate();
    Tool::new(env!("CARGO_BIN_EXE_cowherd"))
        .args(["overlay", "reset", "disk@a", "--yes", "--state"])
        .arg(setup.state())
        .ok();
    let server = setup.start();
    let status = guest.wait_for("STATUS ");
    let words = "has another disk under the name disk+1@a: its identity was ";
    assert!(status.contains(words), "{status}");
    guest.wait_for("WAITS");
    let read = server.client("disk@a").read(0, 8192).expect("a read");
    assert!(read.iter().all(|byte| *byte == 0), "the new disk is empty");
    guest.type_line("go on");
    guest.wait_for("nbd0 waits for its server");
    guest.type_line("go on");
    guest.wait_for("FINISHED");
    guest.end();
}

#[test]
fn requests_have_their_time_also_when_the_root_has_changed() {
    let server = server_with(16 * MIB);
    // As after an initramfs, there is no /sys any more for who was started before.
    let rest = format!(
        "
cowherd-attach nbd0 disk@a $1 --resend 2 || failed attach
mkdir /later
mount --move /sys /later || failed move
echo ATTACHED
until cowherd-attach nbd0 --status --json | grep '\"outages\":1,'; do sleep 0.2; done
[ $(cat /later/block/nbd0/queue/io_timeout) = 2000 ] || failed time
cowherd-attach nbd0 --detach || failed detach{NO_ERRORS}"
    );
    let Some(mut guest) = boot(&server, &[], &rest) else {
        return;
    };
    guest.wait_for("ATTACHED");
    let _server = server.kill().start();
    guest.wait_for("FINISHED");
    guest.end();
}
