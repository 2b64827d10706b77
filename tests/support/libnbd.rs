//! Clients of libnbd, by its Python.

use std::path::Path;
use std::thread::{self, JoinHandle};

use super::Tool;

/// libnbd with many requests in flight, each read compared; ends when a file appears.
const LIBNBD: &str = r#"
import nbd, os, random, sys, collections
uri, stop = sys.argv[1:]
h = nbd.NBD(); h.connect_uri(uri)
random.seed(5); size = 1 << 20; block = 4096
disk = bytearray(size); n = 0
while not os.path.exists(stop):
    n += 1
    busy = {}
    for at in random.sample(range(size // block), 16):
        if random.random() < .6:
            data = bytes([random.randrange(256)]) * block
            buf = nbd.Buffer.from_bytearray(bytearray(data))
            disk[at * block:(at + 1) * block] = data
            busy[h.aio_pwrite(buf, at * block)] = None
        else:
            buf = nbd.Buffer(block)
            busy[h.aio_pread(buf, at * block)] = (at, buf)
    while busy:
        h.poll(-1)
        for cookie in list(busy):
            if h.aio_command_completed(cookie):
                read = busy.pop(cookie)
                if read:
                    at, buf = read
                    assert buf.to_bytearray() == disk[at * block:(at + 1) * block]
    if n % 20 == 0: h.flush()
assert h.pread(size, 0) == bytes(disk)
h.shutdown(); print('rounds', n)
"#;

/// Such a client, which ends when there is a file `stop`; what it said.
pub(crate) fn libnbd_until(stop: &Path, uri: String) -> JoinHandle<String> {
    let stop = stop.to_owned();
    thread::spawn(move || {
        let tool = Tool::new("/usr/bin/python3").args(["-c", LIBNBD]);
        tool.arg(uri).arg(stop).ok()
    })
}
