//! What clients of others make of a server that is killed and started again, as "Operating" in
//! cowherd-boot(7) tells it: QEMU's own behind two disks of a machine, and the kernel's, set up by
//! nbd-client in the three ways that initramfs hooks know.

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::net::TcpListener;

use support::nbd::Address;
use support::{Guest, Server, Setup, require};

/// Each step is told, and the next one waits for a line.
const SCRIPT: &str = "
failed() { echo \"FAILED $*\"; dmesg | tail -n 30; }
attach() {
    device=$1 export=$2
    shift 2
    nbd-client 10.0.2.2 $port /dev/$device -N $export \"$@\" >/tmp/$device 2>&1 ||
        { cat /tmp/$device; failed $device; }
}
# A device that has no bytes any more is read without an error.
reads() {
    [ $(dd if=/dev/$1 bs=4096 skip=$2 count=1 iflag=direct 2>/dev/null | wc -c) = 4096 ]
}
attach nbd0 disk@a
attach nbd1 disk@b -persist
attach nbd2 disk@c -persist -nonetlink
for disk in vda vdb nbd0 nbd1 nbd2; do reads $disk 0 || failed read $disk; done
echo ALL READ
read line </dev/ttyS0
(reads vdb 1 && echo VDB WAITED) &
for disk in vda nbd0 nbd1 nbd2; do reads $disk 1 && failed $disk 'reads from nobody'; done
echo ALL FAIL
read line </dev/ttyS0
wait
until reads vda 2; do sleep 0.2; done
echo VDA READS
for disk in nbd0 nbd1 nbd2; do reads $disk 3 && failed $disk 'is back'; done
for disk in nbd0 nbd1 nbd2; do echo $disk has $(cat /sys/block/$disk/size); done
echo FINISHED";

fn server() -> Server {
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = port.local_addr().expect("its address");
    drop(port);
    Setup::of_bytes(&vec![0; 4 << 20])
        .with_listen_only(&address.to_string())
        .start()
}

fn boot(server: &Server) -> Option<Guest> {
    let Address::Tcp(address) = server.address() else {
        unreachable!("it listens on TCP");
    };
    let home = server.setup().file("guest");
    std::fs::create_dir(&home).expect("a folder");
    let port = address.port();
    let disk = |export: &str, more: &str| {
        format!(
            "driver=raw,if=virtio,cache=none,file.driver=nbd,file.server.type=inet,\
             file.server.host=127.0.0.1,file.server.port={port},file.export={export}{more}"
        )
    };
    let (impatient, patient) = (
        disk("disk@d", ""),
        disk("disk@e", ",file.reconnect-delay=300"),
    );
    let script = format!("port={port}\n{SCRIPT}\n");
    let hardware = ["-drive", &impatient, "-drive", &patient];
    Guest::boot_with(&home, &["nbd-client"], &script, &hardware)
}

#[test]
fn the_kernels_client_is_dead_after_an_outage_and_that_of_qemu_comes_back() {
    if !require(&["nbd-client"]) {
        return;
    }
    let server = server();
    let Some(mut guest) = boot(&server) else {
        return;
    };
    guest.wait_for("ALL READ");
    let setup = server.kill();
    guest.type_line("read while nobody is there");
    guest.wait_for("ALL FAIL");
    let server = setup.start();
    guest.type_line("read again");
    guest.wait_for("VDB WAITED");
    guest.wait_for("VDA READS");
    guest.wait_for("FINISHED");
    println!("{}", guest.end());
    server.terminate();
}
