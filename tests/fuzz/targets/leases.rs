//! Lease files of any content, whole, torn and damaged.
//!
//! Promises: what is read of a damaged file is the beginning of what was written, and damage before
//! the last batch is told; no file does harm, and what is read of it can be written and read again.

use std::net::Ipv4Addr;

use cowherd::dhcp::Moment;
use cowherd::dhcp::lease::file::{self, BootId};
use cowherd::dhcp::lease::{Key, Record, Saved};
use cowherd::mac::MacAddress;

use super::Input;

const BOOT: BootId = [5; 16];
const NOW: Moment = Moment(1 << 20);

fn record(input: &mut Input<'_>) -> Record {
    let [kind, length, address, state] = input.array();
    let state = [Saved::Leased, Saved::Ended, Saved::Declined][usize::from(state % 3)];
    Record {
        address: Ipv4Addr::new(10, 77, 0, address),
        key: match kind % 3 {
            0 => Key::Mac(MacAddress(input.array())),
            1 => Key::Client(input.bytes(length.into()).into()),
            _ => Key::Uuid(input.array()),
        },
        mac: MacAddress([2, 0, 0, 0, 0, address]),
        state,
        // The present boot changes nothing of these.
        until: Moment(if state == Saved::Ended { 7 } else { NOW.0 + 7 }),
        length: 7,
    }
}

/// `which[1]`, and then a file, or: batches, where in the file the damage is, and records.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input(data);
    if input.byte() == 0 {
        return any_file(input.0);
    }
    let batches = usize::from(input.byte() % 4);
    let [place, change] = input.array::<2>();
    let (mut bytes, mut chain) = file::start(&BOOT, []);
    let mut records = Vec::new();
    let mut last = 0;
    for _ in 0..batches {
        let size = 1 + usize::from(input.byte() % 3);
        let batch: Vec<_> = (0..size).map(|_| record(&mut input)).collect();
        last = bytes.len();
        bytes.extend(chain.append(&batch));
        records.extend(batch);
    }
    let whole = file::read(&bytes, &BOOT, NOW).unwrap();
    assert_eq!((whole.records, whole.torn), (records.clone(), 0));
    let at = usize::from(place) * bytes.len() / 256;
    bytes[at] ^= change;
    match file::read(&bytes, &BOOT, NOW) {
        Ok(read) => {
            assert!(records.starts_with(&read.records));
            assert!(change == 0 || at >= last, "damage at {at} was not told");
        }
        Err(damaged) => assert!(change != 0 && at < last.max(48), "{damaged}"),
    }
}

fn any_file(bytes: &[u8]) {
    if let Ok(read) = file::read(bytes, &BOOT, NOW) {
        let (again, _) = file::start(&BOOT, read.records.clone());
        let again = file::read(&again, &BOOT, NOW).unwrap();
        assert_eq!(again.records, read.records);
    }
}
