//! Take-overs under a virtual machine with stock clients: QEMU's own behind its first disk, and the
//! kernel's with nbd-client behind another one. Both write and verify all the time.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::net::TcpListener;
use std::time::Duration;

use support::nbd::Address;
use support::{Guest, Server, Setup, pause_in, require};

const MIB: usize = 1 << 20;

/// Writes and verifies in rounds on both disks until a line is typed.
const SCRIPT: &str = "
failed() { echo \"FAILED $*\"; dmesg | tail -n 30; }
nbd-client -N disk@k 10.0.2.2 $1 /dev/nbd0 >/tmp/client 2>&1 || { cat /tmp/client; failed client; }
rounds() {
    round=0
    while [ ! -e /tmp/stop ]; do
        round=$((round + 1))
        fio --name=v --filename=/dev/$1 --direct=1 --fsync=32 --ioengine=libaio --iodepth=8 \\
            --rw=randwrite --bs=4k --size=4m --randseed=$round --do_verify=1 --verify=crc32c \\
            --verify_fatal=1 >/tmp/fio.$1 2>&1 || { cat /tmp/fio.$1; failed fio $1; break; }
        echo ROUND $1 $round $(grep -o ' lat .*max=[^,]*' /tmp/fio.$1 | tr '\\n' ' ')
    done
}
rounds vda &
first=$!
rounds nbd0 &
second=$!
read line </dev/ttyS0
touch /tmp/stop
wait $first $second
nbd-client -d /dev/nbd0 || failed detach
dmesg | grep -iE 'I/O error|critical|reset by|shut down|timed out' && failed errors
echo FINISHED";

fn server() -> Server {
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = port.local_addr().expect("its address");
    drop(port);
    Setup::of_bytes(&vec![0; 16 * MIB])
        .with_listen_only(&address.to_string())
        .start()
}

fn boot(server: &Server) -> Option<Guest> {
    let Address::Tcp(address) = server.address() else {
        unreachable!("it listens on TCP");
    };
    let home = server.setup().file("guest");
    std::fs::create_dir(&home).expect("a folder");
    let disk = format!(
        "driver=raw,if=virtio,cache=none,file.driver=nbd,file.server.type=inet,\
         file.server.host=127.0.0.1,file.server.port={},file.export=disk@q",
        address.port()
    );
    let script = format!("set -- {}\n{SCRIPT}\n", address.port());
    let programs = ["fio", "nbd-client"];
    Guest::boot_with(&home, &programs, &script, &["-drive", &disk])
}

#[test]
fn stock_clients_of_a_guest_see_nothing_of_ten_take_overs() {
    if !require(&["nbd-client", "fio"]) {
        return;
    }
    let mut server = server();
    let Some(mut guest) = boot(&server) else {
        return;
    };
    guest.wait_for("ROUND vda");
    guest.wait_for("ROUND nbd0");
    let mut pauses = Vec::new();
    for nth in 1..=10 {
        // Another moment of a round each time.
        std::thread::sleep(Duration::from_millis(nth * 137));
        let mut next = server.successor(|_| {});
        next.wait_until_ready();
        let line = server.wait_for_log(&["has taken over, with 2 sessions"]);
        pauses.push(pause_in(&line).0);
        assert_eq!(server.ended().code(), Some(0), "of the old server");
        server = next;
        guest.wait_for("ROUND ");
    }
    guest.type_line("stop");
    guest.wait_for("FINISHED");
    let console = guest.end();
    for line in console.lines().filter(|line| line.starts_with("ROUND ")) {
        println!("{line}");
    }
    println!("pauses in ms: {pauses:?}");
    server.terminate();
}
